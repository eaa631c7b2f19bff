"""What an engine holds while it is open on one event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.flights import SingleFlight
from lbgpt_pandas.engine.limits.concurrency import ConcurrencyLimit

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from lbgpt_pandas.engine.transports.base import Transport
    from lbgpt_pandas.engine.types import Outcome


class Session:
    """Client, limits and calls under way; made on the loop that it serves.

    Parameters
    ----------
    transport : Transport
        The provider client, opened by `enter`.
    max_parallel_calls : int
        Cap on the calls in flight.
    """

    def __init__(self, transport: Transport, *, max_parallel_calls: int) -> None:
        self.transport = transport
        self.limit = ConcurrencyLimit(max_parallel_calls)
        self.flights: SingleFlight[Outcome] = SingleFlight()
        self.users = 0
        self._opening = asyncio.Lock()
        self._opened = False
        self._late: set[asyncio.Task[object]] = set()

    async def enter(self) -> None:
        """Count one more user; the first one opens the client."""
        self.users += 1
        try:
            async with self._opening:
                if not self._opened:
                    await self.transport.open()
                    self._opened = True
        except BaseException:
            self.users -= 1
            raise

    async def close(self) -> None:
        """Wait for late writes and close the client."""
        while self._late:
            await asyncio.wait(self._late)
        if self._opened:
            await self.transport.close()

    def finish_later(self, work: Coroutine[object, object, object]) -> None:
        """Let `work` go on after the task that began it was cancelled; `close` waits for it."""
        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(work)
        self._late.add(task)
        task.add_done_callback(self._late.discard)
