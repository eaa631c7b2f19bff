"""Fixtures of all tests; what keeps them at home stands in the repository's root."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lbgpt_pandas.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def clock() -> FakeClock:
    """Virtual time that jumps whenever nothing can run."""
    return FakeClock()


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """A provider on this machine that accepts everything and answers at once."""
    with FakeProvider() as server:
        yield server
