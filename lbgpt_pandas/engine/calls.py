"""One call from its place to its bill, and the trail of calls that a request leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from lbgpt_pandas.engine.accounts import SESSION_BOOK
from lbgpt_pandas.engine.errors import RateLimited
from lbgpt_pandas.engine.run_state import RunState
from lbgpt_pandas.engine.types import TokenCount

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from lbgpt_pandas.engine.budget import BudgetReservation
    from lbgpt_pandas.engine.clock import Clock
    from lbgpt_pandas.engine.deployment import Deployment
    from lbgpt_pandas.engine.errors import RequestError
    from lbgpt_pandas.engine.lanes import Place
    from lbgpt_pandas.engine.types import Request
    from lbgpt_pandas.engine.usage import UsageLog


class Trail(Struct, eq=False):
    """What has happened to a request so far.

    Attributes
    ----------
    run : RunState
        The run it belongs to.
    attempts : int
        Calls made.
    latency_s : float
        Seconds of the call that was answered.
    maybe_billed : bool
        A call that failed may have been charged.
    deployment : str
        Name of the one that was called last.
    price_usd : float or None
        List price of the answer.
    called : Deployment or None
        Who was called last.
    is_crowded : bool
        More requests of the run fail than it has retries for, so this one waits longer.
    """

    run: RunState = field(default_factory=RunState)
    attempts: int = 0
    latency_s: float = 0.0
    maybe_billed: bool = False
    deployment: str = ""
    price_usd: float | None = None
    order: int | None = None
    called: Deployment | None = None
    avoid: frozenset[Deployment] = frozenset()
    barred: frozenset[Deployment] = frozenset()
    is_crowded: bool = False
    error: RequestError | None = None
    first_sent_at: float | None = None


class Books:
    """Where calls are entered: the logs of engine and deployment, the session's book.

    Parameters
    ----------
    clock : Clock
        Source of time.
    usage : UsageLog
        The engine's own log, beside the deployment's.
    """

    def __init__(self, *, clock: Clock, usage: UsageLog) -> None:
        self.clock = clock
        self._usage = usage

    def record(
        self,
        deployment: Deployment,
        model: str,
        tokens: TokenCount,
        usd: float | None,
        *,
        started: datetime,
        attempt: int,
    ) -> None:
        """Enter an answered call."""
        self._usage.add(tokens, started=started, attempt=attempt)
        if deployment.usage is not self._usage:
            deployment.usage.add(tokens, started=started, attempt=attempt)
        enter = SESSION_BOOK.estimated if tokens.estimated else SESSION_BOOK.billed
        enter(deployment.name, model, tokens, usd, at=started)

    def estimate(
        self, deployment: Deployment, model: str, tokens: TokenCount, usd: float | None
    ) -> None:
        """Enter a call that failed and may have been charged all the same."""
        SESSION_BOOK.estimated(deployment.name, model, tokens, usd, at=self.clock.wall())


class Call:
    """One call that may be made now; `Attempts.place` gives it.

    Attributes
    ----------
    transport : Transport
        The client to call.
    deployment : str
        Its name.
    timeout_s : float or None
        Seconds for this attempt.
    """

    def __init__(
        self,
        books: Books,
        place: Place,
        request: Request,
        trail: Trail,
        spending: BudgetReservation | None,
    ) -> None:
        self._books, self._place, self._request = books, place, request
        self._trail, self._spending = trail, spending
        self._started = books.clock.wall()
        lane = place.lane
        self.transport, self.deployment = lane.transport, lane.deployment.name
        seconds = request.options.get("request_timeout", lane.deployment.timeout_s)
        self.timeout_s = float(seconds) if isinstance(seconds, int | float) else None

    def sent(self) -> None:
        """Note that the call leaves now."""
        self._place.sent(self._books.clock.monotonic())
        adaptive = self._place.lane.deployment.adaptive
        if adaptive is not None and adaptive.is_starting:
            self._place.lane.listen()
            self._trail.run.listen()

    def settle(
        self, tokens: TokenCount | None, headers: Mapping[str, str], *, model: str = ""
    ) -> None:
        """End with an answer, and record what it cost.

        Parameters
        ----------
        tokens : TokenCount or None
            As the provider counted them, or estimated.
        headers : mapping of str to str
            Of the response; rate limits are read from them.
        model : str, optional
            That answered; the request's by default.
        """
        deployment, trail = self._place.lane.deployment, self._trail
        self._place.answered(tokens, headers)
        trail.run.retries.success(self._books.clock.monotonic())
        tokens = tokens or TokenCount(0, 0, estimated=True)
        name = model or self._request.model or ""
        trail.price_usd = deployment.price(name, tokens)
        if self._spending is not None:
            self._spending.commit(trail.price_usd, tokens.total)
        self._books.record(
            deployment, name, tokens, trail.price_usd, started=self._started, attempt=trail.attempts
        )

    def fail(self, error: RequestError, *, alone: bool) -> None:
        """End with a failure; what may have been charged is estimated."""
        self._place.failed(error, alone=alone, first=self._trail.attempts == 1)
        if not error.maybe_billed:
            # A call that was refused for now is made up for; one that failed was made.
            failed = error.status is not None and not isinstance(error, RateLimited)
            self._spend_one(sent=failed)
            return
        self._trail.maybe_billed = True
        usd, tokens = self._estimate()
        if self._spending is not None:
            self._spending.commit(usd, tokens.total)

    def _estimate(self) -> tuple[float | None, TokenCount]:
        """Enter what the call may have cost all the same."""
        deployment, demand = self._place.lane.deployment, self._place.demand
        name = self._request.model or ""
        demand = demand if demand.prompt else deployment.demand(self._request, counted=True)
        tokens = TokenCount(demand.prompt, demand.completion, estimated=True)
        usd = deployment.price(name, tokens)
        self._books.estimate(deployment, name, tokens, usd)
        return usd, tokens

    def abandon(self, *, sent: bool) -> None:
        """End without a verdict; what was reserved counts as spent once it was sent."""
        if not self._place.is_open:
            return
        self._place.abandoned(sent=sent)
        if not sent:
            self._spend_one(sent=False)
            return
        self._estimate()
        if self._spending is not None:
            self._spending.commit(None, None)

    def _spend_one(self, *, sent: bool) -> None:
        """Charge a request that cost nothing, or give everything back if it was never sent."""
        if self._spending is not None and sent:
            self._spending.commit(0.0, 0)
        elif self._spending is not None:
            self._spending.cancel()
