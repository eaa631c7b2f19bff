"""What the requests of one run share: whether they are wanted, who is out, what may be spent."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from lbgpt_pandas.engine.errors import NotFound, RequestError
from lbgpt_pandas.engine.flights import Withdrawn
from lbgpt_pandas.engine.limits.adaptive import SILENCE_S
from lbgpt_pandas.engine.limits.retry_budget import RetryBudget

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from lbgpt_pandas.engine.budget import Budget
    from lbgpt_pandas.engine.clock import Clock
    from lbgpt_pandas.engine.deployment import Deployment

T = TypeVar("T")

ROWS_A_TURN = 16
"""Rows after which all else on the loop has its turn: answers may come without any waiting."""


class RunState:
    """The shared state of a run's requests; `stop` is safe from any thread.

    Parameters
    ----------
    budget : Budget, optional
        What the run may spend.

    Attributes
    ----------
    stopped : bool
        Nothing new is to be sent.
    paused : bool
        Nothing new is to be sent for now.
    refusals : Counter of str
        Calls that met a 429, by deployment.
    retries : RetryBudget
        How many retries the run is granted.
    begun_at : float or None
        Monotonic second of its first request.
    last_failure : RequestError or None
        Of a call, whether its row was tried again or not.
    stand_in : callable
        Called where a row waits for something else than a place or an answer.
    """

    def __init__(self, *, budget: Budget | None = None) -> None:
        self.budget = budget
        self.stopped = self.paused = False
        self.refusals: Counter[str] = Counter()
        self.retries = RetryBudget()
        self.begun_at: float | None = None
        self.last_failure: RequestError | None = None
        self.stand_in: Callable[[], object] = bool
        self._out: dict[tuple[Deployment, str | None], RequestError] = {}
        self._waiting: set[asyncio.Future[Any]] = set()
        self._until_resumed: set[asyncio.Future[None]] = set()
        self._tried: asyncio.Future[None] | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Withdraw every request that has not been sent."""
        with self._lock:
            self.stopped = True
            waiting = tuple(self._waiting)
        for future in waiting:
            with suppress(RuntimeError):  # its loop is closed: nobody waits any more
                future.get_loop().call_soon_threadsafe(_withdraw, future)

    def pause(self) -> None:
        """Send nothing new until `resume`."""
        with self._lock:
            self.paused = True

    def resume(self) -> None:
        """Go on."""
        with self._lock:
            self.paused = False
            waiting, self._until_resumed = self._until_resumed, set()
        for future in waiting:
            with suppress(RuntimeError):  # its loop is closed: nobody waits any more
                future.get_loop().call_soon_threadsafe(_finish, future)

    async def until_resumed(self) -> None:
        """Wait while the run is paused; raises `Withdrawn` once it is stopped."""
        while (future := self._resumption()) is not None:
            await self.wait_for(future)

    def _resumption(self) -> asyncio.Future[None] | None:
        """What is done when the run goes on; None if it is not paused."""
        with self._lock:
            if not self.paused:
                return None
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._until_resumed.add(future)
            return future

    async def next_of(self, queue: deque[int]) -> int | None:
        """Take the next row out of a queue; None if there is none, or there is to be none."""
        if not len(queue) % ROWS_A_TURN:
            await asyncio.sleep(0)
        while self.paused and not self.stopped:
            with suppress(Withdrawn):
                await self.until_resumed()
        return None if self.stopped or not queue else queue.popleft()

    async def wait_for(self, future: asyncio.Future[T]) -> T:
        """Wait for `future`, or until the run is stopped.

        Raises
        ------
        Withdrawn
            If the run is stopped first.
        """
        with self._lock:
            if self.stopped:
                raise Withdrawn
            self._waiting.add(future)
        try:
            return await future
        finally:
            with self._lock:
                self._waiting.discard(future)

    async def sleep(self, clock: Clock, seconds: float) -> None:
        """Sleep, or until the run is stopped; raises `Withdrawn` then."""
        self.stand_in()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        alarm = clock.call_later(seconds, lambda: _finish(future))
        try:
            await self.wait_for(future)
        finally:
            alarm.cancel()

    def note_tried(self) -> None:
        """Note that a call was answered, or failed in a way that the next one need not."""
        tried, self._tried = self._tried, None
        if tried is not None and not tried.done():
            tried.set_result(None)

    def listen(self) -> None:
        """Note that a call was sent; if it is not refused soon, others make sense."""
        if self._tried is not None and self._silence is None:
            loop = asyncio.get_running_loop()
            self._silence = loop.call_later(SILENCE_S, self.note_tried)

    async def until_tried(self, first: asyncio.Future[None]) -> None:
        """Wait for the first call that shows that others make sense, or until `first` is done."""
        self._tried = asyncio.get_running_loop().create_future()
        await asyncio.wait({self._tried, first}, return_when=asyncio.FIRST_COMPLETED)
        self._tried = None
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def disable(self, deployment: Deployment, model: str | None, error: RequestError) -> None:
        """Send nothing more to a deployment in this run; for an unknown model, nothing of it."""
        self._out[deployment, model if isinstance(error, NotFound) else None] = error

    @property
    def is_anybody_out(self) -> bool:
        """Whether any deployment is out of this run, for all models or for one."""
        return bool(self._out)

    def why_out(self, deployment: Deployment, model: str | None) -> RequestError | None:
        """Return the error that took a deployment out of this run, None if it is in it."""
        if not self._out:
            return None
        return self._out.get((deployment, None)) or self._out.get((deployment, model))


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _withdraw(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(Withdrawn())
