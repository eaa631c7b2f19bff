"""What an engine holds while it is open on one event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.deadlines import Deadlines
from lbgpt_pandas.engine.flights import SingleFlight
from lbgpt_pandas.engine.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from lbgpt_pandas.engine.clock import Clock
    from lbgpt_pandas.engine.deployment import Deployment
    from lbgpt_pandas.engine.lanes import Lane
    from lbgpt_pandas.engine.types import Outcome


class Session:
    """Clients, scheduler and calls under way; made on the loop that it serves.

    Parameters
    ----------
    open_lanes : callable
        Opens the deployments' clients; awaited by the first `enter`.
    close_lanes : callable
        Closes them again; awaited by `close`.
    choose : callable
        Which deployment a request goes to; see `Scheduler`.
    clock : Clock
        Source of time.
    places : int
        Cap on the calls in flight.

    Attributes
    ----------
    users : int
        Blocks that it is open for.
    is_open : bool
        Whether all clients are open, so that one more user need not wait.
    deadlines : Deadlines
        Time limits of its calls.
    """

    def __init__(
        self,
        open_lanes: Callable[[], Awaitable[Sequence[Lane]]],
        close_lanes: Callable[[], Awaitable[None]],
        choose: Callable[[Mapping[Deployment, float], float], Deployment | None],
        *,
        clock: Clock,
        places: int,
    ) -> None:
        self.flights: SingleFlight[Outcome] = SingleFlight()
        self.users = 0
        self.is_open = False
        self.deadlines = Deadlines()
        self._open_lanes, self._close_lanes = open_lanes, close_lanes
        self._choose, self._clock, self._places = choose, clock, places
        self._opening = asyncio.Lock()
        self._scheduler: Scheduler | None = None
        self._late: set[asyncio.Task[object]] = set()

    @property
    def scheduler(self) -> Scheduler:
        """Admission to the deployments; there once the session was entered."""
        if self._scheduler is None:
            raise RuntimeError("a session is used inside `async with engine:` only")
        return self._scheduler

    @property
    def lanes(self) -> list[Lane]:
        """The deployments on this loop; none before the session was entered."""
        return [] if self._scheduler is None else list(self._scheduler.lanes.values())

    async def enter(self) -> None:
        """Count one more user, in any case; the first one makes the scheduler."""
        self.users += 1
        async with self._opening:
            if self._scheduler is None:
                self._scheduler = Scheduler(
                    await self._open_lanes(),
                    self._choose,
                    clock=self._clock,
                    places=self._places,
                )

    async def close(self) -> None:
        """Wait for late writes and close the clients."""
        while self._late:
            await asyncio.wait(self._late)
        self.is_open = False
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.close()
        # Without a scheduler as well: some clients may have opened before one of them failed.
        await self._close_lanes()

    def finish_later(self, work: Coroutine[object, object, object]) -> None:
        """Let `work` go on after the task that began it was cancelled; `close` waits for it."""
        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(work)
        self._late.add(task)
        task.add_done_callback(self._late.discard)
