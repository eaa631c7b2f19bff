"""The only source of time in the engine, so that tests can run on a fake one."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Alarm(Protocol):
    """What `Clock.call_later` gives: something that can be called off."""

    def cancel(self) -> object:
        """Call it off; without effect once it has rung."""
        ...


class Clock(Protocol):
    """What the engine asks of a clock."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes backwards; for windows and waiting."""
        ...

    def wall(self) -> datetime:
        """The current time in UTC; for records that people read."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the current task for `seconds`."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Alarm:
        """Call `callback` on the running loop in `seconds`."""
        ...


class SystemClock:
    """The clock of the operating system."""

    __slots__ = ()

    # Asked a dozen times in every call, so that a frame of Python for each would show.
    monotonic = staticmethod(time.monotonic)
    """Seconds since an arbitrary start."""

    wall = staticmethod(partial(datetime.now, UTC))
    """The current time in UTC."""

    async def sleep(self, seconds: float) -> None:
        """Suspend the current task for `seconds`."""
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Alarm:
        """Call `callback` on the running loop in `seconds`."""
        return asyncio.get_running_loop().call_later(seconds, callback)


SYSTEM_CLOCK = SystemClock()
