"""A clock that stands still while anything can run, and then jumps to the next deadline."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from lbgpt_pandas.engine.clock import Alarm

START = datetime(2026, 1, 1, tzinfo=UTC)
"""Wall-clock time of a new `FakeClock`."""

FIRST_MONOTONIC_S = 1_000.0
"""Not 0, so that code which takes 0 for "never" is found out."""

PATIENCE = 1_000
"""Turns of an event loop that never comes to rest, after which time moves all the same."""


@dataclass(order=True, slots=True)
class _Sleeper:
    deadline: float
    number: int
    future: asyncio.Future[None] = field(compare=False)
    loop: asyncio.AbstractEventLoop = field(compare=False)

    def wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class _Alarm:
    """A callback that can be called off up to the moment at which it runs."""

    def __init__(self, future: asyncio.Future[None], callback: Callable[[], object]) -> None:
        self.future = future
        self._callback = callback
        self._is_off = False
        future.add_done_callback(self._ring)

    def cancel(self) -> None:
        self._is_off = True
        self.future.cancel()

    def _ring(self, future: asyncio.Future[None]) -> None:
        if not self._is_off and not future.cancelled():
            self._callback()


class FakeClock:
    """Virtual time for tests: hours of waiting pass at once, in the right order.

    A task that sleeps on this clock is woken as soon as nothing else on its event loop can
    run: time then jumps to the earliest deadline, and whoever waits for exactly that moment
    goes on, in the order of falling asleep. While a task can run, time stands still, so that
    a run with this clock is the same each time. `advance` moves time by hand.

    The clock may be shared by several event loops and threads; a loop that is blocked stops
    time for the others while the earliest sleeper is its own. Work in threads and on sockets is
    not waited for: a task that waits for such work cannot run, so time may jump meanwhile.

    Parameters
    ----------
    auto_advance : bool, default True
        Jump when nothing can run. With False only `advance` moves time.
    start : datetime, default 2026-01-01 00:00 UTC
        What `wall` says at first; must have a time zone.

    Attributes
    ----------
    slept : list of float
        The seconds of every `sleep`, in the order of the calls.
    alarms : int
        How often `call_later` was called.

    Notes
    -----
    A loop that never comes to rest, because a task polls with ``asyncio.sleep(0)``, would stop
    time for ever; after 1,000 turns without rest the clock jumps in spite of it. Let such a
    task sleep on the clock instead.

    Examples
    --------
    >>> import asyncio
    >>> clock = FakeClock()
    >>> async def main():
    ...     await asyncio.gather(clock.sleep(3600), clock.sleep(5))
    ...     return clock.monotonic(), clock.wall().isoformat()
    >>> asyncio.run(main())
    (4600.0, '2026-01-01T01:00:00+00:00')
    >>> clock.slept
    [3600, 5]
    """

    def __init__(self, *, auto_advance: bool = True, start: datetime = START) -> None:
        if start.tzinfo is None:
            raise ValueError("start= needs a time zone, such as datetime.UTC")
        self.slept: list[float] = []
        self.alarms = 0
        self._auto_advance = auto_advance
        self._start = start
        self._wall_shift_s = 0.0
        self._now = FIRST_MONOTONIC_S
        self._sleepers: list[_Sleeper] = []
        self._numbers = itertools.count()
        # Loops on which a look at the ready queue is already under way.
        self._watched: set[asyncio.AbstractEventLoop] = set()
        self._lock = threading.RLock()

    def monotonic(self) -> float:
        """Virtual seconds; 1000.0 at first."""
        return self._now

    def wall(self) -> datetime:
        """Virtual time in UTC: start, plus what has passed, plus `shift_wall`."""
        passed = self._now - FIRST_MONOTONIC_S + self._wall_shift_s
        return (self._start + timedelta(seconds=passed)).astimezone(UTC)

    async def sleep(self, seconds: float) -> None:
        """Suspend the current task for `seconds` of virtual time.

        Parameters
        ----------
        seconds : float
            Finite; up to 0 lets other tasks run once.

        Raises
        ------
        ValueError
            If `seconds` is not finite.
        """
        if not math.isfinite(seconds):
            raise ValueError(f"sleep({seconds}): give a finite number of seconds")
        self.slept.append(seconds)
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        with self._lock:
            sleeper = _Sleeper(self._now + seconds, next(self._numbers), loop.create_future(), loop)
            heapq.heappush(self._sleepers, sleeper)
        self._watch(loop)
        await sleeper.future

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Alarm:
        """Call `callback` on the running loop after `seconds` of virtual time.

        Parameters
        ----------
        seconds : float
            Finite; up to 0 means as soon as the loop turns.
        callback : callable
            Takes no argument.

        Returns
        -------
        Alarm
            With a method ``cancel``.

        Raises
        ------
        ValueError
            If `seconds` is not finite.
        """
        if not math.isfinite(seconds):
            raise ValueError(f"call_later({seconds}): give a finite number of seconds")
        self.alarms += 1
        loop = asyncio.get_running_loop()
        alarm = _Alarm(loop.create_future(), callback)
        with self._lock:
            sleeper = _Sleeper(
                self._now + max(0.0, seconds), next(self._numbers), alarm.future, loop
            )
            heapq.heappush(self._sleepers, sleeper)
        self._watch(loop)
        return alarm

    def advance(self, seconds: float) -> None:
        """Move time forward by hand and wake everyone whose deadline has come.

        Parameters
        ----------
        seconds : float
            How far, at least 0. Sleepers are woken in the order of their deadlines; they all
            find the new time.

        Raises
        ------
        ValueError
            If `seconds` is negative or not finite.
        """
        if not math.isfinite(seconds) or seconds < 0:
            raise ValueError(f"advance({seconds}): a monotonic clock goes forward only")
        with self._lock:
            self._now += seconds
            due = []
            while self._sleepers and self._sleepers[0].deadline <= self._now:
                due.append(heapq.heappop(self._sleepers))
        for sleeper in due:
            _call_on(sleeper.loop, sleeper.wake)

    def shift_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or a time server does.

        Parameters
        ----------
        seconds : float
            How far; negative for back. `monotonic` does not move and nobody is woken.
        """
        self._wall_shift_s += seconds

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if not self._auto_advance or loop in self._watched:
                return
            self._watched = {each for each in self._watched if not each.is_closed()} | {loop}
        _call_on(loop, lambda: self._look(loop, PATIENCE))

    def _look(self, loop: asyncio.AbstractEventLoop, patience: int) -> None:
        """Jump if the loop is at rest; else come back after everything that is ready."""
        if patience and _can_run_something(loop):
            loop.call_soon(self._look, loop, patience - 1)
            return
        with self._lock:
            self._watched.discard(loop)
            due, others = self._jump(loop)
            asleep = any(sleeper.loop is loop for sleeper in self._sleepers)
        for sleeper in due:
            sleeper.wake()
        if due and asleep:
            self._watch(loop)
        for other in others:
            self._watch(other)

    def _jump(
        self, loop: asyncio.AbstractEventLoop
    ) -> tuple[list[_Sleeper], set[asyncio.AbstractEventLoop]]:
        """Move time to the earliest deadline, unless that is another loop's.

        Returns whom to wake on this loop, and the loops that should look at their own.
        """
        self._sleepers = [s for s in self._sleepers if not (s.future.done() or s.loop.is_closed())]
        heapq.heapify(self._sleepers)
        if not self._sleepers:
            return [], set()
        if self._sleepers[0].loop is not loop:
            return [], {self._sleepers[0].loop}
        self._now = max(self._now, self._sleepers[0].deadline)
        due = []
        while (
            self._sleepers
            and self._sleepers[0].deadline <= self._now
            and self._sleepers[0].loop is loop
        ):
            due.append(heapq.heappop(self._sleepers))
        return due, {self._sleepers[0].loop} - {loop} if self._sleepers else set()


def _can_run_something(loop: asyncio.AbstractEventLoop) -> bool:
    # No public name tells whether a loop is at rest. The loop has looked at its sockets just
    # before it ran this callback, so what they brought is in the queue as well.
    ready = getattr(loop, "_ready", None)
    # A loop without such a queue (uvloop) gets the whole patience.
    return ready is None or len(ready) > 0


def _call_on(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    try:
        here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is loop:
        loop.call_soon(callback)
    elif not loop.is_closed():
        loop.call_soon_threadsafe(callback)
