"""A place for one call: waited for, paid for in advance, and ended by how the call ends."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.arguments import check_timeout
from lbgpt_pandas.engine.calls import Call
from lbgpt_pandas.engine.embargo import check_call
from lbgpt_pandas.engine.errors import (
    AuthError,
    ConfigurationError,
    RateLimited,
    RequestError,
)
from lbgpt_pandas.engine.flights import Withdrawn
from lbgpt_pandas.engine.lanes import Ticket
from lbgpt_pandas.engine.retry import decide
from lbgpt_pandas.engine.scheduler import TOTAL_TIMEOUT_S
from lbgpt_pandas.engine.secrets import redact
from lbgpt_pandas.engine.types import TokenCount

if TYPE_CHECKING:
    from types import TracebackType

    from lbgpt_pandas.engine.budget import Budget, BudgetReservation
    from lbgpt_pandas.engine.calls import Books, Trail
    from lbgpt_pandas.engine.lanes import Lane, Place
    from lbgpt_pandas.engine.session import Session
    from lbgpt_pandas.engine.types import Request


class Placement(AbstractAsyncContextManager[Call]):
    """The block around one call.

    The block calls `Call.settle` when it has its answer. A `RequestError` that leaves it counts
    as the call's failure, anything else as a call that was abandoned.

    Parameters
    ----------
    session : Session
        Where places are given.
    request : Request
        What is to be sent.
    trail : Trail
        What has happened to it so far; brought up to date.
    books : Books
        Where the call is entered.
    """

    __slots__ = ("_books", "_call", "_request", "_sent", "_session", "_spending", "_trail")

    def __init__(self, session: Session, request: Request, trail: Trail, *, books: Books) -> None:
        self._session, self._request, self._trail = session, request, trail
        self._books = books
        self._spending: BudgetReservation | None = None
        self._call: Call | None = None
        self._sent = False

    async def __aenter__(self) -> Call:
        check_call("this request")
        request, trail = self._request, self._trail
        if request.options:
            check_timeout(request.options.get("request_timeout"))
        if trail.order is None:
            trail.order = self._session.scheduler.next_order()
        budget = trail.run.budget
        if budget is not None:
            self._spending = await self._reserve(budget)
        try:
            return await self._begin(request, trail)
        except BaseException as error:
            self._end(error)
            raise

    async def _begin(self, request: Request, trail: Trail) -> Call:
        place = await self._acquire(request, trail)
        self._call = call = Call(self._books, place, request, trail, self._spending)
        trail.called, trail.deployment = place.lane.deployment, call.deployment
        if not place.lane.is_open:
            await self._open(place.lane)
        if trail.run.stopped:
            raise Withdrawn
        trail.attempts += 1
        if trail.first_sent_at is None:
            trail.first_sent_at = self._books.clock.monotonic()
        self._sent = True
        call.sent()
        return call

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        call, trail = self._call, self._trail
        try:
            if isinstance(error, RequestError):
                trail.error = trail.run.last_failure = error
                if isinstance(error, RateLimited):
                    trail.run.refusals[trail.deployment] += 1
                if call is not None:
                    if self._sent and decide(error).retry:
                        trail.run.note_tried()
                    call.fail(error, alone=self._is_alone())
        finally:
            # What has been ended is not ended again.
            if call is not None:
                call.abandon(sent=self._sent)
            elif self._spending is not None:
                self._spending.cancel()

    async def _acquire(self, request: Request, trail: Trail) -> Place:
        """Wait for a place; one that comes while the run is paused is given back."""
        order, scheduler = trail.order or 0, self._session.scheduler
        while True:
            if trail.run.paused:
                await trail.run.until_resumed()
            ticket = self._ticket(request, trail, order)
            place = scheduler.place_now(ticket) or await scheduler.place_later(ticket)
            if not trail.run.paused:
                return place
            place.abandoned(sent=False)

    async def _open(self, lane: Lane) -> None:
        """Open the client; one of several that cannot be opened is out of the run."""
        try:
            await lane.open()
        except RequestError:
            raise
        except Exception as error:
            if len(self._session.lanes) == 1:
                raise
            raise AuthError(
                f"{self._trail.deployment} cannot be used: {redact(str(error))}", code="unopened"
            ) from error

    def _ticket(self, request: Request, trail: Trail, order: int) -> Ticket:
        begun = trail.first_sent_at
        return Ticket(
            order=order,
            request=request,
            run=trail.run,
            counted=trail.run.budget is not None,
            avoid=trail.avoid,
            barred=trail.barred,
            error=trail.error,
            attempts=trail.attempts,
            deadline=None if begun is None else begun + TOTAL_TIMEOUT_S,
        )

    async def _reserve(self, budget: Budget) -> BudgetReservation:
        request = self._request
        prices: list[float | None] = []
        most = 0
        for lane in self._session.lanes:
            demand = lane.deployment.demand(request, counted=True)
            tokens = TokenCount(demand.prompt, demand.completion, estimated=True)
            prices.append(lane.deployment.price(request.model or "", tokens))
            most = max(most, tokens.total)
        if budget.usd is not None and None in prices:
            raise ConfigurationError(
                f"the price of {request.model!r} is unknown, so a budget in USD cannot be kept: "
                "state it with lb.set_price(...), or give the budget as tokens= or requests="
            )
        usd = max((price for price in prices if price is not None), default=0.0)
        return await budget.acquire(usd=usd, tokens=most, run=self._trail.run)

    def _is_alone(self) -> bool:
        """Tell whether no other deployment could take the request over now."""
        now, trail = self._books.clock.monotonic(), self._trail
        return not any(
            other.deployment is not trail.called
            and trail.run.why_out(other.deployment, self._request.model) is None
            and other.deployment.breaker.ready_at(now) <= now
            for other in self._session.lanes
        )
