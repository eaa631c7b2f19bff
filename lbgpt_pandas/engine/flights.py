"""Single-flight: equal requests that are under way at the same time make one call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from lbgpt_pandas.engine.errors import BudgetExceeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class Withdrawn(Exception):  # not a failure: nobody wants the result any more
    """The leader gave up before it began; whoever waits with it may take over."""


class SingleFlight(Generic[T]):
    """Calls under way by key, on one event loop."""

    __slots__ = ("_flights", "_loop")

    def __init__(self) -> None:
        self._flights: dict[str, asyncio.Future[T] | None] = {}
        self._loop = asyncio.get_running_loop()

    async def share(self, key: str, work: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """Do `work` for `key`, or wait for whoever is doing it.

        If the leader is cancelled, withdraws or cannot pay, the next waiter takes over; if it
        fails, all fail alike.

        Parameters
        ----------
        key : str
            What makes two pieces of work equal.
        work : callable
            Returns an awaitable; called by the leader only.

        Returns
        -------
        result
            What `work` gave.
        bool
            True if this caller did the work itself.
        """
        while key in self._flights:
            # Made by who waits first: hardly anybody ever does.
            flight = self._flights[key] = self._flights[key] or self._loop.create_future()
            try:
                return await asyncio.shield(flight), False
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not flight.cancelled() or (task is not None and task.cancelling()):
                    raise
        self._flights[key] = None
        try:
            result = await work()
        except (asyncio.CancelledError, Withdrawn, BudgetExceeded):
            # The leader's own affair: whoever waits may have a run and a budget of its own.
            if waited := self._flights.pop(key):
                waited.cancel()
            raise
        except BaseException as error:
            if waited := self._flights.pop(key):
                waited.set_exception(error)
                waited.exception()  # read once: who waited may be gone
            raise
        if waited := self._flights.pop(key):
            waited.set_result(result)
        return result, True

    async def finish(self, key: str, result: T, work: Awaitable[object]) -> None:
        """Await the last `work` of the leader; if it is cancelled, whoever waits has `result`."""
        try:
            await work
        except asyncio.CancelledError:
            flight = self._flights.get(key)
            if flight is not None and not flight.done():
                flight.set_result(result)
            raise
