"""The workers of a run: one for each call that may be in flight, and those that stand in."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

SPARE_WORKERS = 64
"""Workers beyond the calls in flight, for rows that wait for the cache or for a retry."""


class Crew:
    """Tasks that work a queue off.

    A worker more than calls in flight would only wait for its turn, which costs each row two
    turns of the loop; so that nobody has to, spare ones begin where one waits for something
    else, and end after one row.

    Parameters
    ----------
    group : asyncio.TaskGroup
        Where the tasks are started.
    queue : deque of int
        Numbers of the rows that nobody has begun.
    work : callable
        ``work(queue)`` takes rows from a queue until it is empty.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        queue: deque[int],
        work: Callable[[deque[int]], Coroutine[object, object, None]],
    ) -> None:
        self._group, self._queue, self._work = group, queue, work
        self._spares: set[asyncio.Task[None]] = set()

    def start(self, number: int) -> None:
        """Start so many workers, or as many as there are rows."""
        for _ in range(min(number, len(self._queue))):
            self._group.create_task(self._work(self._queue))

    def stand_in(self) -> None:
        """Start a worker for a row while another one waits without a call in flight."""
        if not self._queue or len(self._spares) >= SPARE_WORKERS:
            return
        work = self._work(deque([self._queue.popleft()]))
        try:
            spare = self._group.create_task(work)
        except RuntimeError:  # another worker has failed, and the run ends
            work.close()
            return
        self._spares.add(spare)
        spare.add_done_callback(self._spares.discard)
