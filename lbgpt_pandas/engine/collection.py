"""A pause of the garbage collector while many values are made that form no cycles."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the collector from going through values that it cannot free, again and again.

    Answers of a hundred thousand rows stay; looking for cycles among them takes a third of the
    time of reading them. Blocks may be nested, and overlap in threads and tasks: who found the
    collector at work sets it to work again.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
