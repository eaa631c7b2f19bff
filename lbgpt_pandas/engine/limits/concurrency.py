"""A cap on the calls that are in flight at once: the first of a deployment's limits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbgpt_pandas.engine.types import TokenCount


class Reservation:
    """A place for one call; returned exactly once, by `commit` or by `cancel`."""

    __slots__ = ("_limit",)

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self._limit: ConcurrencyLimit | None = limit

    def commit(self, actual: TokenCount) -> None:
        """Give the place back after a call that was answered and cost `actual`."""
        del actual  # a cap on calls in flight does not care what they cost
        self.cancel()

    def cancel(self) -> None:
        """Give the place back; a second call does nothing."""
        limit, self._limit = self._limit, None
        if limit is not None:
            limit.release()


class ConcurrencyLimit:
    """At most `places` reservations at a time, granted in the order they were asked for.

    Made on the event loop that it serves and never shared with another.

    Parameters
    ----------
    places : int
        The cap, at least 1.
    """

    __slots__ = ("_free", "in_flight")

    def __init__(self, places: int) -> None:
        self._free = asyncio.Semaphore(places)
        self.in_flight = 0

    async def acquire(self) -> Reservation:
        """Wait for a place and take it."""
        await self._free.acquire()
        self.in_flight += 1
        return Reservation(self)

    def release(self) -> None:
        """Give one place back; reservations call this."""
        self.in_flight -= 1
        self._free.release()
