"""Who is sent next, where, and when: first in, first out, woken at exact times.

The oldest waiting request is looked at whenever something changes: a call ends, a new request
comes, a limit frees up. Choice and reservation are one step. If it waits for a limit, all wait, so
that a large request is never overtaken for ever by small ones; one alarm rings when the first
deployment can take it. If its provider has said wait, or is down, others go elsewhere meanwhile.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.errors import (
    RateLimited,
    RequestError,
    RequestExceedsQuota,
    ServerError,
)
from lbgpt_pandas.engine.lanes import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lbgpt_pandas.engine.clock import Alarm, Clock
    from lbgpt_pandas.engine.demands import Demand, Grant
    from lbgpt_pandas.engine.deployment import Deployment
    from lbgpt_pandas.engine.lanes import Lane, Ticket
    from lbgpt_pandas.engine.limits.headers import Resource

TOTAL_TIMEOUT_S = 900.0
"""Seconds after its first call in which a request may be sent again."""

ALARM_TOLERANCE_S = 1e-6

HELD_S = 5.0
"""A wait that the provider asked for is let others pass from this length on."""

MOST_GONE = 64

LOOKS = 3
MOMENT_S = 0.002
"""So soon is looked again where other threads were quicker several times."""

LATENESS_S = 0.01
"""Less than the guard of a window of one second, so that no provider sees one that is too full."""


class Scheduler:
    """Admission to a set of deployments on one event loop.

    Parameters
    ----------
    lanes : sequence of Lane
        The deployments.
    choose : callable
        Gets the time at which each of them is ready, and the present; returns one that is
        ready, or None to wait.
    clock : Clock
        Source of time.
    places : int
        Cap on the calls in flight through this scheduler.

    Attributes
    ----------
    alarms : int
        How often it was woken by time alone.
    admissions : int
        Places given.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        choose: Callable[[Mapping[Deployment, float], float], Deployment | None],
        *,
        clock: Clock,
        places: int,
    ) -> None:
        self.lanes = {lane.deployment: lane for lane in lanes}
        self.in_flight = 0
        self.alarms = self.admissions = 0
        self._choose, self._clock, self._places = choose, clock, places
        self._only = lanes[0] if len(lanes) == 1 else None
        self._queue: list[tuple[int, int, Ticket]] = []
        self._entries = itertools.count()
        self._orders = itertools.count()
        self._alarm: Alarm | None = None
        self._goes_on = False
        self._gone = 0
        self._alarm_at = math.inf
        self._loop = asyncio.get_running_loop()
        for lane in lanes:
            lane.watchers.add(self)
            lane.deployment.quota.watchers.add(self)

    def close(self) -> None:
        """Watch the deployments no more."""
        self._set_alarm(math.inf)
        for lane in self.lanes.values():
            lane.watchers.discard(self)
            lane.deployment.quota.watchers.discard(self)

    def wake(self) -> None:
        """Look soon; may be called from any thread and event loop."""
        with suppress(RuntimeError):  # its loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self.look)

    def next_order(self) -> int:
        """Return the turn of a request that comes now."""
        return next(self._orders)

    async def acquire(self, ticket: Ticket) -> Place:
        """Wait for the ticket's turn and take a place.

        Raises
        ------
        RequestError
            If it can never be sent, or not before its deadline.
        Withdrawn
            If its run is stopped.
        """
        return self.place_now(ticket) or await self.place_later(ticket)

    def place_now(self, ticket: Ticket) -> Place | None:
        """Take a place if nobody waits for one and there is one; see `acquire`."""
        now = self._clock.monotonic()
        if ticket.run.begun_at is None:
            ticket.run.begun_at = now
        if self._queue or self._goes_on or ticket.run.stopped:
            return None
        found = self._place(ticket, now)
        return found if isinstance(found, Place) else None

    async def place_later(self, ticket: Ticket) -> Place:
        """Wait for the turn of a ticket that had no place at once; see `acquire`."""
        ticket.future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (ticket.order, next(self._entries), ticket))
        self.look()
        try:
            return await ticket.run.wait_for(ticket.future)
        except BaseException:
            future = ticket.future
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().abandoned(sent=False)
            future.cancel()
            self._forget_the_gone()
            self.look()
            raise

    def _forget_the_gone(self) -> None:
        """Drop those who wait no more once they are most of the queue."""
        self._gone += 1
        if self._gone > max(MOST_GONE, len(self._queue) // 2):
            self._gone = 0
            waiting = [each for each in self._queue if each[2].future and not each[2].future.done()]
            self._queue[:] = waiting  # in place: whoever looks at the queue now holds it
            heapq.heapify(self._queue)

    def look(self) -> None:
        """Send the oldest if it can be sent, come back for the next, or set the alarm for it."""
        queue = self._queue
        if self._goes_on or not (queue or self._alarm):
            return
        now = self._clock.monotonic()
        if self._alarm_at <= now:
            # An alarm that rings a little late does not make the next window begin later.
            now = max(self._alarm_at, now - LATENESS_S)
        while queue:
            ticket = queue[0][2]
            future = ticket.future
            if future is None or future.done():
                heapq.heappop(queue)
                continue
            if ticket.attempts and self._is_outage(now):
                # Whether it is over is tried with a row that has not failed of itself.
                ticket, future = self._least_tried(ticket, future)
            try:
                ticket, found = self._find(ticket, now)
            except Exception as error:  # noqa: BLE001  # handed to the one who waits
                future.set_exception(error)
                continue
            if not isinstance(found, Place):
                self._set_alarm(found)
                return
            (ticket.future or future).set_result(found)
            if queue[0][2] is ticket:
                heapq.heappop(queue)
            if queue and found.lane.deployment.quota.meters:
                # One by one: the provider counts from the sending, so what has a place sets off
                # before the next one has.
                self._goes_on = True
                self._set_alarm(math.inf)
                asyncio.get_running_loop().call_soon(self._go_on)
                return
        self._set_alarm(math.inf)

    def _is_outage(self, now: float) -> bool:
        return all(deployment.breaker.state(now) != "closed" for deployment in self.lanes)

    def _least_tried(
        self, ticket: Ticket, future: asyncio.Future[Place]
    ) -> tuple[Ticket, asyncio.Future[Place]]:
        waiting = [
            (each.attempts, order, number, each, each.future)
            for order, number, each in self._queue
            if each.future is not None and not each.future.done()
        ]
        if not waiting:
            return ticket, future
        *_, ticket, future = min(waiting, key=lambda item: item[:3])
        return ticket, future

    def _find(self, ticket: Ticket, now: float) -> tuple[Ticket, Place | float]:
        """Find a place for the oldest, or for who may pass it; else when to look again."""
        found = self._place(ticket, now)
        if isinstance(found, Place) or not self._is_held(ticket, now):
            return ticket, found
        # What it waits for is no limit: whoever can go elsewhere takes nothing from it.
        return self._first_that_can(ticket, found, now)

    def _is_held(self, ticket: Ticket, now: float) -> bool:
        """Tell whether everybody who could take a request is blocked by its provider, or down."""
        able = [
            deployment
            for deployment, (demand, _) in ticket.demands.items()
            if deployment.fits(demand) and deployment not in ticket.barred
        ]
        return len(self._queue) > 1 and all(d.held_until(now) > now + HELD_S for d in able)

    def _first_that_can(
        self, head: Ticket, found: Place | float, now: float
    ) -> tuple[Ticket, Place | float]:
        for _, _, ticket in sorted(self._queue, key=itemgetter(0, 1)):
            if ticket is head or ticket.future is None or ticket.future.done():
                continue
            with suppress(RequestError):  # told when its turn comes
                other = self._place(ticket, now)
                if isinstance(other, Place):
                    return ticket, other
                found = min(found, other) if not isinstance(found, Place) else found
        return head, found

    def _place(self, ticket: Ticket, now: float) -> Place | float:
        """Reserve a place, or say when to look again."""
        if self._only is not None and (place := self._place_in(self._only, ticket, now)):
            return place
        for _ in range(LOOKS):
            ready = self._ready(ticket, now)
            chosen = None
            if ticket.avoid:
                # As if they lacked a place: what has failed is not out, so that no spare comes in.
                later = math.nextafter(now, math.inf)
                preferred = {d: later if d in ticket.avoid else at for d, at in ready.items()}
                chosen = self._choose(preferred, now)
            chosen = chosen or self._choose(ready, now)
            if chosen is None:
                return self._next_look(ticket, ready, now)
            grant = chosen.begin(*ticket.demands[chosen], now)
            if grant is not None:
                return self._taken(self.lanes[chosen], grant)
            # Another thread has taken what was free: look once more.
        return now + MOMENT_S

    def _place_in(self, lane: Lane, ticket: Ticket, now: float) -> Place | None:
        """Reserve a place in the only lane, if nothing speaks against it; most calls go here."""
        deployment = lane.deployment
        if self.in_flight >= self._places or lane.in_flight >= deployment.cap:
            return None
        if ticket.barred or ticket.run.is_anybody_out:
            return None
        demand, cost = self._demand(ticket, deployment)
        grant = deployment.begin(demand, cost, now) if deployment.fits(demand) else None
        return None if grant is None else self._taken(lane, grant)

    def _taken(self, lane: Lane, grant: Grant) -> Place:
        self.admissions += 1
        lane.in_flight += 1
        self.in_flight += 1
        return Place(self, lane, grant)

    def _demand(
        self, ticket: Ticket, deployment: Deployment
    ) -> tuple[Demand, dict[Resource, float]]:
        known = ticket.demands.get(deployment)
        if known is None:
            demand = deployment.demand(ticket.request, counted=ticket.counted)
            known = ticket.demands[deployment] = demand, deployment.cost(demand)
        return known

    def _ready(self, ticket: Ticket, now: float) -> dict[Deployment, float]:
        """When each deployment that can take the request at all is ready; `now` if it is.

        One that only lacks a place is ready a moment later than now: its turn comes with the
        end of a call, not with time.
        """
        ready: dict[Deployment, float] = {}
        why_out: RequestError | None = None
        too_large: Deployment | None = None
        busy = math.nextafter(now, math.inf)
        has_place = self.in_flight < self._places
        for deployment, lane in self.lanes.items():
            out = ticket.run.why_out(deployment, ticket.request.model)
            if out is not None or deployment in ticket.barred:
                why_out = out or why_out
                continue
            demand, cost = self._demand(ticket, deployment)
            if not deployment.fits(demand):
                too_large = deployment
                continue
            at = deployment.ready_at(cost, now)
            if at <= now + ALARM_TOLERANCE_S:
                at = now if lane.is_free and has_place else busy
            ready[deployment] = at
        if not ready:
            raise self._never(ticket, why_out, too_large)
        return ready

    def _never(
        self, ticket: Ticket, why_out: RequestError | None, too_large: Deployment | None
    ) -> RequestError:
        if too_large is None:
            return ticket.error or why_out or RequestExceedsQuota("no deployment can take it")
        demand, _ = ticket.demands[too_large]
        limits = too_large.quota.limits
        return RequestExceedsQuota(
            f"about {max(demand.certain, demand.prompt):,} tokens are more than a whole minute's "
            f"quota (limit_tpm={limits.tpm}) of {too_large.name}; shorten the prompt or max_tokens",
            code="larger_than_quota",
        )

    def _next_look(self, ticket: Ticket, ready: Mapping[Deployment, float], now: float) -> float:
        """Return the time of the next change that comes without a call's end."""
        times = [at for at in ready.values() if at > now + ALARM_TOLERANCE_S]
        earliest = min(times, default=math.inf)
        if len(times) < len(ready):
            return earliest  # one of them only lacks a place
        blocked_s = min(d.quota.blocked_until for d in ready) - now
        if blocked_s > TOTAL_TIMEOUT_S:
            raise RateLimited(
                f"the provider asks to wait {blocked_s / 60:,.0f} minutes; ask again then",
                code="blocked",
                retry_after=blocked_s,
            )
        self._check_outage(ticket, ready, now)
        if ticket.error is not None and ticket.deadline is not None:
            if now >= ticket.deadline or ticket.deadline < earliest < math.inf:
                raise ticket.error
            earliest = min(earliest, ticket.deadline)
        return min(earliest, self._outage_ends(ticket, ready))

    def _outage_ends(self, ticket: Ticket, ready: Mapping[Deployment, float]) -> float:
        """When waiting is given up; infinite while one of the deployments is not failing."""
        down = [d.breaker.down_since for d in ready]
        ends = [max(since, ticket.run.begun_at or since) for since in down if since is not None]
        return max(ends) + TOTAL_TIMEOUT_S if len(ends) == len(down) else math.inf

    def _check_outage(self, ticket: Ticket, ready: Mapping[Deployment, float], now: float) -> None:
        """Raise once all have been failing for as long as a request may take, in this run."""
        if now < self._outage_ends(ticket, ready) or math.inf in ready.values():
            return
        latest = -math.inf
        fault: RequestError | None = None
        for deployment in ready:
            since = deployment.breaker.down_since
            if since is None:
                return
            if since > latest:
                latest, fault = since, deployment.last_fault
        raise type(fault or ServerError(""))(
            f"nobody has answered for {TOTAL_TIMEOUT_S / 60:.0f} minutes; the last failure: "
            f"{fault}",
            code="outage",
        )

    def _go_on(self) -> None:
        self._goes_on = False
        self.look()

    def _set_alarm(self, at: float) -> None:
        if at == self._alarm_at and self._alarm is not None:
            return
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._alarm_at = at
        if at < math.inf:
            delay_s = max(0.0, at - self._clock.monotonic())
            self._alarm = self._clock.call_later(delay_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.alarms += 1
        self.look()
