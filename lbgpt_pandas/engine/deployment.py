"""One deployment: its limits, its health, what it has done. Plain data, for any loop and thread."""

from __future__ import annotations

import math
import random
import re
import threading
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.demands import Demand, Grant
from lbgpt_pandas.engine.errors import RateLimited, Timeout
from lbgpt_pandas.engine.lifetime import renew_after_fork
from lbgpt_pandas.engine.limits.breaker import Breaker
from lbgpt_pandas.engine.limits.estimate import TokenEstimator, certain_tokens
from lbgpt_pandas.engine.limits.headers import read_limits, speaks_of_limits
from lbgpt_pandas.engine.limits.windows import ROUNDING
from lbgpt_pandas.engine.retry import decide
from lbgpt_pandas.engine.states import DeploymentState, Gauge
from lbgpt_pandas.engine.types import Headroom

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lbgpt_pandas.engine.clock import Clock
    from lbgpt_pandas.engine.errors import RequestError
    from lbgpt_pandas.engine.limits.adaptive import AdaptiveConcurrency
    from lbgpt_pandas.engine.limits.estimate import Counting
    from lbgpt_pandas.engine.limits.headers import Resource
    from lbgpt_pandas.engine.limits.quota import Quota
    from lbgpt_pandas.engine.states import Health
    from lbgpt_pandas.engine.types import Request, TokenCount
    from lbgpt_pandas.engine.usage import UsageLog

LONGEST_BACKOFF_S = 60.0
LATENCY_OF_A_FAILURE_S = 1.0
"""Seconds that a failed call counts for at least where the quickest is looked for."""

LATENCY_HALF_LIFE_S = 10.0

RECENT = 256
RARELY = 8
LATEST = 64
ENOUGH = 10
STRAY_SHARE = 0.15
SHORT_WAIT_S = 2.0
RARE_SHARE = 0.05
"""Share of refusals among the last calls up to which a limit that was told is believed."""

IN_A_ROW = 8

_UNCOUNTED: dict[Resource, float] = {"requests": 1.0, "tokens": 0.0}
"""Cost of a request whose tokens nobody counts."""

_ABOUT_TOKENS = re.compile(r"tokens per min|\bTPM\b|token rate limit", re.IGNORECASE)


class Deployment:
    """The record of one engine that calls one provider.

    Parameters
    ----------
    name : str
        Name in reports.
    quota : Quota
        Its limits, maybe shared with others.
    adaptive : AdaptiveConcurrency or None
        Its cap on calls in flight as experience shows; None for the configured one alone.
    places : int
        The configured cap.
    timeout_s : float or None
        Seconds for one attempt.
    price : callable
        Gets a model and tokens; returns their list price in USD, or None.
    usage : UsageLog
        Where its answered calls are recorded.
    counting : {"larger", "sum"}
        What the provider counts at admission; see `certain_tokens`.
    clock : Clock
        Source of time.
    """

    def __init__(
        self,
        name: str,
        *,
        quota: Quota,
        adaptive: AdaptiveConcurrency | None,
        places: int,
        timeout_s: float | None,
        price: Callable[[str, TokenCount], float | None],
        usage: UsageLog,
        counting: Counting,
        clock: Clock,
    ) -> None:
        self.name, self.quota, self.adaptive = name, quota, adaptive
        self.places, self.timeout_s = places, timeout_s
        self.price, self.usage = price, usage
        self._counting = counting
        self.estimator = TokenEstimator()
        self._latency_s = 0.0
        self.last_fault: RequestError | None = None
        self._latency_at = 0.0
        self._refusals = 0
        self._answers = self._throttles = 0
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._clock = clock
        self._random = random.Random()  # noqa: S311  # jitter, not a secret
        self.after_fork()
        renew_after_fork(self)

    def __repr__(self) -> str:
        return f"Deployment({self.name!r})"

    def after_fork(self) -> None:
        """In a forked child: nobody releases the parent's lock, and no call is under way."""
        self._lock = threading.RLock()
        self.in_flight = 0
        self.breaker = Breaker()  # the parent's probe, if there is one, never ends here

    @property
    def cap(self) -> int:
        """Calls that may be in flight at once for now."""
        return self.places if self.adaptive is None else min(self.places, self.adaptive.cap)

    def silence(self) -> None:
        """Note that no call was refused for a while; see `AdaptiveConcurrency`."""
        with self._lock:
            if self.adaptive is not None:
                self.adaptive.silence(in_flight=self.in_flight)

    def demand(self, request: Request, *, counted: bool = False) -> Demand:
        """Estimate what a request takes; nothing where no limit and nobody else counts tokens."""
        model = request.model
        if not (counted or self.quota.counts_tokens):
            return Demand(request=request)
        with self._lock:
            prompt = self.estimator.prompt(request.messages, model=model)
            completion = self.estimator.completion(request.params, model=model)
        is_set = any(request.params.get(name) for name in ("max_completion_tokens", "max_tokens"))
        certain = certain_tokens(prompt, completion, is_set=is_set, counting=self._counting)
        return Demand(prompt, completion, certain, request)

    def fits(self, demand: Demand) -> bool:
        """Tell whether a request can ever be sent, however short its answer is."""
        quota = self.quota
        return quota.limits.tpm is None or quota.fits({"tokens": float(demand.certain)})

    def cost(self, demand: Demand) -> dict[Resource, float]:
        """What a request is expected to take of each resource."""
        if not demand.prompt:
            return _UNCOUNTED
        return {
            "requests": 1.0,
            "tokens": float(demand.prompt + demand.completion),
            "input_tokens": float(demand.prompt),
            "output_tokens": float(demand.completion),
        }

    def ready_at(self, cost: Mapping[Resource, float], now: float) -> float:
        """Return the earliest time at which limits and health let a request through."""
        with self._lock:
            rested_at = self.breaker.ready_at(now)
        return (
            rested_at if math.isinf(rested_at) else max(rested_at, self.quota.ready_at(cost, now))
        )

    def begin(self, demand: Demand, cost: Mapping[Resource, float], now: float) -> Grant | None:
        """Reserve what a call takes, if it may begin now."""
        with self._lock:
            rested_at = self.breaker.ready_at(now)
            if rested_at > now + ROUNDING:
                return None
            reservation = self.quota.reserve(cost, now, floor=float(demand.certain))
            if reservation is None:
                return None
            self.in_flight += 1
            return Grant(reservation, self.breaker.admit(max(now, rested_at)), demand, now)

    def answered(self, grant: Grant, tokens: TokenCount | None, headers: Mapping[str, str]) -> None:
        """Settle a call that was answered."""
        now = self._clock.monotonic()
        with self._lock:
            if self.adaptive is not None:
                self.adaptive.success(now, in_flight=self.in_flight, took_s=now - grant.at)
            self.in_flight -= 1
            self._recent.append(True)
            self._answers += 1
            self._refusals = 0
            self.breaker.success(now, grant.permit)
            self._note_latency(now - grant.at, now)
            request = grant.demand.request
            if tokens is not None and request is not None and self._teaches(grant.demand):
                self.estimator.observe(
                    request.messages, tokens, model=request.model, params=request.params
                )
        if speaks_of_limits(headers):
            readings = read_limits(headers, now=self._clock.wall())
            if readings:
                self.quota.observe(readings, grant.reservation, now=now)
        amounts: dict[Resource, float] = {}
        if tokens is not None:
            amounts["tokens"] = float(tokens.total)
            amounts["input_tokens"] = float(tokens.prompt - min(tokens.cached, tokens.prompt))
            amounts["output_tokens"] = float(tokens.completion)
        grant.reservation.commit(amounts, now=now)

    def _teaches(self, demand: Demand) -> bool:
        """Tell whether the estimator is to learn from an answer; nobody may be asking it."""
        return demand.prompt > 0 or self._answers < RECENT or not self._answers % RARELY

    def failed(self, grant: Grant, error: RequestError, *, alone: bool, first: bool = True) -> None:
        """Settle a call that failed, and draw the consequences for the next ones.

        Parameters
        ----------
        grant : Grant
            What the call held.
        error : RequestError
            How it failed.
        alone : bool
            No other deployment can take over.
        first : bool, default True
            The request had not failed before. A row that fails again and again says something
            about itself, not about the deployment.
        """
        now = self._clock.monotonic()
        decision = decide(error)
        readings = read_limits(error.limit_headers, now=self._clock.wall())
        with self._lock:
            self.in_flight -= 1
            if self.adaptive is not None and isinstance(error, Timeout) and error.maybe_billed:
                self.adaptive.timeout(now, begun=grant.at)
            if decision.counts_as_fault:
                # Quick failures are no reason to send more.
                slow_s = max(now - grant.at, 2.0 * self._latency_now(now), LATENCY_OF_A_FAILURE_S)
                self._note_latency(slow_s, now)
            if decision.counts_as_fault and (first or grant.permit.is_probe):
                self.last_fault = error
                self.breaker.failure(now, grant.permit, alone=alone)
            else:
                self.breaker.abandon(now, grant.permit)
        if isinstance(error, RateLimited):
            self._throttled(grant, error, now)
        elif error.status is None and not error.maybe_billed:
            grant.reservation.cancel(now=now)  # it never reached the provider
        else:
            grant.reservation.keep(now=now)
        if readings:
            self.quota.observe(readings, grant.reservation, now=now)

    def abandoned(self, grant: Grant, *, sent: bool) -> None:
        """Settle a call that nobody waits for any more."""
        now = self._clock.monotonic()
        with self._lock:
            self.in_flight -= 1
            self.breaker.abandon(now, grant.permit)
        if sent:
            grant.reservation.keep(now=now)
        else:
            grant.reservation.cancel(now=now)

    def _throttled(self, grant: Grant, error: RateLimited, now: float) -> None:
        grant.reservation.refuse(now=now)
        with self._lock:
            self._recent.append(False)
            self._throttles += 1
            rare = self._is_rare(error)
            asked_s = error.retry_after or 0.0
            if self.quota.meters:
                is_alone = not asked_s and self._knows_burst
            else:
                is_alone = asked_s <= SHORT_WAIT_S
            if rare and is_alone:
                return  # only the refused row waits
            # Where no limit is known, one refusal may be chance; two are a rate that is too high.
            several = self._recent.count(False) > 1
            tells = bool(self.quota.meters) or several or asked_s > SHORT_WAIT_S
            if now >= self.quota.blocked_until:  # calls that were refused together count once
                self._refusals += 1
                if self.adaptive is not None and tells:
                    self.adaptive.refusal(now)
            wait_s = self.wait_s(error)
        if error.code == "slow_down":
            self.quota.slow_down(grant.reservation, now=now)
        self.quota.refused(
            grant.reservation,
            wait_s,
            asked=bool(error.retry_after),
            learns=tells and error.code != "slow_down" and not _ABOUT_TOKENS.search(error.message),
            rare=rare,
            now=now,
        )

    @property
    def _knows_burst(self) -> bool:
        return "requests" not in self.quota.meters or self.quota.knows_its_burst

    def _is_rare(self, error: RateLimited) -> bool:
        """Tell whether a refusal says nothing about the next call.

        Where nearly all calls of late were answered, only the refused one waits, not the whole
        deployment; a limit that was told is not lowered for it.
        """
        recent = list(self._recent)
        if error.code == "slow_down" or len(recent) < ENOUGH or not any(recent[-IN_A_ROW:]):
            return False
        if self.quota.meters:
            return recent.count(False) <= RARE_SHARE * len(recent)
        latest = recent[-LATEST:]
        return latest.count(False) <= STRAY_SHARE * len(latest)

    def wait_s(self, error: RateLimited) -> float:
        """Seconds to wait after a refusal: what was asked for and a little, else a backoff."""
        floor = float(error.retry_after or 0.0)
        if floor > 0:
            return floor + self._random.uniform(0.0, min(1.0, 0.1 * floor))
        longest = min(LONGEST_BACKOFF_S, 2.0 ** min(self._refusals, 6))
        return self._random.uniform(0.0, longest)

    def latency(self) -> float:
        """Seconds that an answer takes of late: up at once, down by half in ten seconds."""
        with self._lock:
            return self._latency_now(self._clock.monotonic())

    def held_until(self, now: float) -> float:
        """Until when the provider's word or failures keep everything back."""
        with self._lock:
            return max(self.breaker.ready_at(now), self.quota.blocked_until)

    def _latency_now(self, now: float) -> float:
        return self._latency_s * math.exp2(-((now - self._latency_at) / LATENCY_HALF_LIFE_S))

    def _note_latency(self, seconds: float, now: float) -> None:
        self._latency_s, self._latency_at = max(seconds, self._latency_now(now)), now

    def headroom(self) -> Headroom:
        """What may still be sent."""
        now = self._clock.monotonic()
        quota = self.quota
        with self._lock:
            places = max(0, self.cap - self.in_flight) / max(1, self.places)
            rested_at = self.breaker.ready_at(now)
        expected = self.usage.tokens_per_request()
        cost: dict[Resource, float] = {"requests": 1.0, "tokens": expected}
        share = quota.share(now)
        ready_at = max(rested_at, quota.ready_at(cost, now))
        held_until = max(rested_at, quota.blocked_until)
        blocked_until = None
        if now < held_until < math.inf:
            blocked_until = self._clock.wall() + timedelta(seconds=held_until - now)
        return Headroom(
            deployment=self.name,
            requests=quota.left("requests", now),
            tokens=quota.left("tokens", now),
            fraction=0.0 if held_until > now or not places else places if share is None else share,
            in_flight=self.in_flight,
            next_free_s=max(0.0, ready_at - now),
            blocked_until=blocked_until,
            source=quota.source,
        )

    def state(self) -> DeploymentState:
        """What a view shows of it."""
        now = self._clock.monotonic()
        room, quota = self.headroom(), self.quota
        with self._lock:
            breaker, fault = self.breaker.state(now), self.last_fault
        health: Health = "ready"
        if breaker != "closed":
            health = "resting" if breaker == "open" else "probing"
        elif quota.blocked_until > now:
            health = "blocked"
        elif room.next_free_s > 0:
            health = "waiting"
        return DeploymentState(
            self.name,
            health,
            wait_s=room.next_free_s,
            fault="" if breaker == "closed" or fault is None else _named(fault),
            requests=_gauge(room.requests, quota.limit("requests")),
            tokens=_gauge(room.tokens, quota.limit("tokens")),
            in_flight=room.in_flight,
            places=self.cap,
            answered=self._answers,
            refused=self._throttles,
            source=room.source,
        )


def _gauge(left: float | None, limit: float | None) -> Gauge | None:
    return None if left is None or limit is None else Gauge(left, limit)


def _named(fault: RequestError) -> str:
    """Name of a failure with its status, such as ``ServerError 503``."""
    return f"{type(fault).__name__} {fault.status or ''}".strip()
