"""Synchronous and asynchronous twins take the same arguments and return the same thing."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from lbgpt_pandas.accessor import LbgptAccessor
from lbgpt_pandas.engine import AzureGPT, ChatGPT, LocalGPT
from lbgpt_pandas.testing import ScriptedGPT

CLASSES: list[type[Any]] = [LbgptAccessor, ChatGPT, AzureGPT, LocalGPT, ScriptedGPT]


def twins(kind: type[Any]) -> list[tuple[str, str]]:
    """Names of the form (`x`, `ax`) that are both public methods of a class."""
    names = [name for name, _ in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"]
    return [(name, f"a{name}") for name in names if f"a{name}" in names]


PAIRS = [(kind, *pair) for kind in CLASSES for pair in twins(kind)]


def test_the_twins_are_found() -> None:
    assert twins(LbgptAccessor) == [("complete", "acomplete"), ("embed", "aembed")]
    for kind in CLASSES[1:]:
        assert ("chat_completion_list", "achat_completion_list") in twins(kind)


@pytest.mark.parametrize(
    ("kind", "name", "aname"), PAIRS, ids=[f"{kind.__name__}.{name}" for kind, name, _ in PAIRS]
)
def test_twins_share_a_signature(kind: type[Any], name: str, aname: str) -> None:
    synchronous, asynchronous = getattr(kind, name), getattr(kind, aname)
    assert inspect.signature(synchronous) == inspect.signature(asynchronous)
    assert inspect.iscoroutinefunction(asynchronous)
    assert not inspect.iscoroutinefunction(synchronous)


@pytest.mark.parametrize(
    ("kind", "name", "aname"), PAIRS, ids=[f"{kind.__name__}.{name}" for kind, name, _ in PAIRS]
)
def test_both_twins_are_documented(kind: type[Any], name: str, aname: str) -> None:
    assert getattr(kind, name).__doc__
    assert getattr(kind, aname).__doc__
