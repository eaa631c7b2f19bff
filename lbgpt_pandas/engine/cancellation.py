"""Ending a coroutine from another thread, by somebody who is not the one that awaits it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.errors import RunAborted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lbgpt_pandas.engine.clock import Clock

_MESSAGE = (
    "the run was cancelled; finished rows are cached and in lb.last_run().result, and "
    "lb.last_run().retry_failed() asks for the others"
)


class Cancellation:
    """Whoever presses Cancel holds this, and whoever works enters `heard`.

    A press is not the cancellation of a task by its owner: it ends as `RunAborted`, which says
    what to do, and never as an ``asyncio.CancelledError`` that would end the awaiting task too.
    """

    def __init__(self) -> None:
        self._is_called = False
        self._task: asyncio.Task[object] | None = None
        self._lock = threading.Lock()

    def call(self, clock: Clock, *, after_s: float) -> None:
        """Cancel the work unless it ends by itself within some seconds; from any thread."""
        with self._lock:
            self._is_called = True
            task = self._task
        if task is not None:
            cancel = partial(self._cancel, task)
            with suppress(RuntimeError):  # its loop is closed, and with it the work
                task.get_loop().call_soon_threadsafe(clock.call_later, after_s, cancel)

    def check(self) -> None:
        """Raise `RunAborted` if the work was cancelled."""
        if self._is_called:
            raise RunAborted(_MESSAGE)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Let the block, which is awaited by the current task, be cancelled."""
        with self._lock:
            self._task = asyncio.current_task()
        self._cancels = 0
        try:
            self.check()
            yield
        except asyncio.CancelledError:
            task = self._task
            if self._cancels and task is not None and task.uncancel() == 0:
                raise RunAborted(_MESSAGE) from None
            raise
        finally:
            with self._lock:
                self._task = None

    def _cancel(self, task: asyncio.Task[object]) -> None:
        if self._task is task:
            self._cancels += 1
            task.cancel()
