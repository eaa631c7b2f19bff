"""What a call needs to be sent: a lane to a deployment, a place in it; and who waits for one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct, field

from lbgpt_pandas.engine.limits.adaptive import SILENCE_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lbgpt_pandas.engine.demands import Demand, Grant
    from lbgpt_pandas.engine.deployment import Deployment
    from lbgpt_pandas.engine.errors import RequestError
    from lbgpt_pandas.engine.limits.headers import Resource
    from lbgpt_pandas.engine.run_state import RunState
    from lbgpt_pandas.engine.transports.base import Transport
    from lbgpt_pandas.engine.types import Request, TokenCount


class Watcher(Protocol):
    """Whoever gives places in a lane."""

    in_flight: int

    def look(self) -> None:
        """See whether a waiting request can be sent now."""
        ...

    def wake(self) -> None:
        """Look soon; may be called from any thread and event loop."""
        ...


class Lane:
    """A deployment on one event loop: its client and the calls in flight there.

    Parameters
    ----------
    deployment : Deployment
        What all loops share.
    transport : Transport
        The provider client.
    """

    def __init__(self, deployment: Deployment, transport: Transport) -> None:
        self.deployment = deployment
        self.transport = transport
        self.in_flight = 0
        self.watchers: set[Watcher] = set()
        self._opening = asyncio.Lock()
        self._opened = False
        self._silence: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether its client is there."""
        return self._opened

    @property
    def is_free(self) -> bool:
        """Whether one more call may be in flight."""
        return self.in_flight < self.deployment.cap

    async def open(self) -> None:
        """Open the client, once."""
        if self._opened:
            return
        async with self._opening:
            if not self._opened:
                await self.transport.open()
                self._opened = True

    async def close(self) -> None:
        """Close the client if it was opened."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        if self._opened:
            self._opened = False
            await self.transport.close()

    def listen(self) -> None:
        """Give more calls a place if nothing is refused for a while; one has just been sent."""
        if self._silence is None:
            loop = asyncio.get_running_loop()
            self._silence = loop.call_later(SILENCE_S, self._heard_nothing)

    def _heard_nothing(self) -> None:
        self._silence = None
        cap = self.deployment.cap
        if self.in_flight:
            self.deployment.silence()
        if self.deployment.cap > cap:
            self.listen()
            self.changed()

    def changed(self) -> None:
        """Have everybody look again who may be waiting for this deployment or its quota."""
        for watcher in tuple(self.watchers):
            watcher.look()
        self.deployment.quota.watchers.wake_others(self.watchers)


class Place:
    """Where a call may be made now; to be ended exactly once, further ends do nothing."""

    __slots__ = ("_grant", "_watcher", "lane")

    def __init__(self, watcher: Watcher, lane: Lane, grant: Grant) -> None:
        self._watcher: Watcher | None = watcher
        self.lane, self._grant = lane, grant

    @property
    def is_open(self) -> bool:
        """Whether the call has not been ended yet."""
        return self._watcher is not None

    @property
    def demand(self) -> Demand:
        """What was reserved."""
        return self._grant.demand

    def sent(self, now: float) -> None:
        """Note that the call leaves now, however long ago its place was given."""
        self._grant.reservation.stamp(now=now)

    def answered(self, tokens: TokenCount | None, headers: Mapping[str, str]) -> None:
        """End with an answer that cost `tokens`."""
        if self._release():
            self.lane.deployment.answered(self._grant, tokens, headers)
            self.lane.changed()

    def failed(self, error: RequestError, *, alone: bool, first: bool) -> None:
        """End with a failure; see `Deployment.failed`."""
        if self._release():
            self.lane.deployment.failed(self._grant, error, alone=alone, first=first)
            self.lane.changed()

    def abandoned(self, *, sent: bool) -> None:
        """End without a result: cancelled, or never used."""
        if self._release():
            self.lane.deployment.abandoned(self._grant, sent=sent)
            self.lane.changed()

    def _release(self) -> bool:
        watcher, self._watcher = self._watcher, None
        if watcher is None:
            return False
        self.lane.in_flight -= 1
        watcher.in_flight -= 1
        return True


class Ticket(Struct, eq=False):
    """A request that waits for its place.

    Attributes
    ----------
    order : int
        Its row's turn; a retry keeps it and so goes first.
    request : Request
        What is to be sent.
    run : RunState
        Its run.
    counted : bool
        Somebody beside the limits wants to know its tokens.
    avoid : frozenset of Deployment
        Deployments that have just failed; taken only if no other is ready.
    barred : frozenset of Deployment
        Deployments that can never take it.
    error : RequestError or None
        Its last failure.
    attempts : int
        Calls that were made for it.
    deadline : float or None
        Monotonic second after which it fails with `error`.
    """

    order: int
    request: Request
    run: RunState
    counted: bool = False
    avoid: frozenset[Deployment] = frozenset()
    barred: frozenset[Deployment] = frozenset()
    error: RequestError | None = None
    attempts: int = 0
    deadline: float | None = None
    future: asyncio.Future[Place] | None = None
    demands: dict[Deployment, tuple[Demand, dict[Resource, float]]] = field(default_factory=dict)
