"""When the garbage collector rests, or comes more rarely, because it would find nothing."""

from __future__ import annotations

import gc
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.lifetime import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

NEW_OBJECTS = 10_000
"""Objects more than were freed, of those that may be in a cycle, after which it comes in a run."""


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


class _RareCollection:
    """A block in which the collector comes after more new objects than it usually does."""

    def __init__(self) -> None:
        self._before: tuple[int, int, int] | None = None
        self._blocks = 0
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child: the blocks go on in the parent only."""
        self._lock = threading.Lock()
        self._blocks = 0
        self._restore()

    def __enter__(self) -> None:
        with self._lock:
            self._blocks += 1
            usual = gc.get_threshold()
            if self._blocks == 1 and 0 < usual[0] < NEW_OBJECTS:
                self._before = usual
                gc.set_threshold(NEW_OBJECTS, *usual[1:])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._blocks = max(0, self._blocks - 1)  # in a forked child its block is forgotten
            if not self._blocks:
                self._restore()

    def _restore(self) -> None:
        before, self._before = self._before, None
        # Whoever has set another threshold meanwhile keeps it.
        if before is not None and gc.get_threshold()[0] == NEW_OBJECTS:
            gc.set_threshold(*before)


rare_collection = _RareCollection()
"""``with rare_collection:`` the collector comes after `NEW_OBJECTS`, until the last block ends.

Calls in flight hold thousands of objects that live for a moment, so that the collector would come
every few rows, find nothing, and go through the whole process's objects every now and then: a
sixth of what a quick call costs. Blocks may be nested, and overlap in threads and tasks.
"""
