"""Time limits of many calls on one event loop, with a few timers for all."""

from __future__ import annotations

import asyncio
import math
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

EXACT_S = 5.0
"""Limits below this end in time; others with the next tick of the loop's clock."""

TICKS_A_SECOND = 2
"""Times at which longer limits end."""


class Deadlines:
    """Gives calls a time limit; made on the loop that it serves.

    `asyncio.timeout` sets up and calls off a timer for every call, which is a tenth of what a
    quick call costs, though hardly any is ever needed.
    """

    def __init__(self) -> None:
        self._calls: dict[int, set[_Deadline]] = {}

    def after(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Return a block that raises `TimeoutError` after so many seconds, None for no limit."""
        if seconds is None or seconds < EXACT_S:
            return asyncio.timeout(seconds)
        return _Deadline(self._calls, seconds)


class _Deadline(AbstractAsyncContextManager[None]):
    __slots__ = ("_calls", "_cancels", "_is_over", "_seconds", "_task", "_tick")

    def __init__(self, calls: dict[int, set[_Deadline]], seconds: float) -> None:
        self._calls, self._seconds = calls, seconds
        self._is_over = False

    async def __aenter__(self) -> None:
        task: asyncio.Task[Any] | None = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit is for a task")
        self._task, self._cancels = task, task.cancelling()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._seconds
        self._tick = tick = math.ceil(ends_at * TICKS_A_SECOND)
        calls = self._calls.get(tick)
        if calls is None:
            calls = self._calls[tick] = set()
            # In a context of its own: the caller's would stay alive with its settings.
            loop.call_at(tick / TICKS_A_SECOND, _ring, self._calls, tick, context=Context())
        calls.add(self)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._is_over:
            self._calls[self._tick].discard(self)
        # Somebody else may have cancelled the task as well, and must have his way.
        elif self._task.uncancel() <= self._cancels and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def end(self) -> None:
        """Cancel what goes on in the block."""
        self._is_over = True
        self._task.cancel()


def _ring(calls: dict[int, set[_Deadline]], tick: int) -> None:
    for call in calls.pop(tick):
        call.end()
