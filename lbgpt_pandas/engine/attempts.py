"""Attempts at one request: each with a place and a time limit, as many as the rules allow."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from lbgpt_pandas.engine.calls import Books, Call
from lbgpt_pandas.engine.completions import read_completion
from lbgpt_pandas.engine.errors import (
    RateLimited,
    RequestError,
    RequestExceedsQuota,
    RetryBudgetExhausted,
    Timeout,
)
from lbgpt_pandas.engine.placement import Placement
from lbgpt_pandas.engine.retry import decide, retry_policy, wait_seconds
from lbgpt_pandas.engine.scheduler import TOTAL_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from lbgpt_pandas.engine.calls import Trail
    from lbgpt_pandas.engine.clock import Clock
    from lbgpt_pandas.engine.session import Session
    from lbgpt_pandas.engine.transports.base import Reply
    from lbgpt_pandas.engine.types import Completion, Request
    from lbgpt_pandas.engine.usage import UsageLog

T = TypeVar("T")


CROWDED_S = 5.0
"""Longest time to wait before a retry for which a run has no budget."""


class Attempts:
    """How an engine's requests are tried.

    Parameters
    ----------
    clock : Clock
        Source of time.
    usage : UsageLog
        Where answered calls are recorded, beside the deployment's own log.
    stop_after : int or None
        Attempts in all.
    """

    def __init__(self, *, clock: Clock, usage: UsageLog, stop_after: int | None) -> None:
        self.clock = clock
        self._books = Books(clock=clock, usage=usage)
        self._stop_after = stop_after
        self._random = random.Random()  # noqa: S311  # jitter, not a secret

    def until_done(self, session: Session, request: Request, trail: Trail) -> Awaitable[Completion]:
        """Try `once` until there is an answer or the rules give up; see `repeat`."""
        return self.repeat(session, request, trail, partial(self.once, session, request, trail))

    async def repeat(
        self,
        session: Session,
        request: Request,
        trail: Trail,
        attempt: Callable[[], Awaitable[T]],
    ) -> T:
        """Make attempts at a request until one succeeds or the rules give up.

        Parameters
        ----------
        attempt : callable
            Makes one, in a `place` of its own.

        Raises
        ------
        RequestError
            The last one.
        Withdrawn
            If the run was stopped before the next call.
        """
        try:
            return await attempt()
        except RequestError as error:
            first: RequestError | None = error
        policy = retry_policy(
            clock=self.clock,
            stop_after_attempts=self._stop_after,
            total_s=TOTAL_TIMEOUT_S,
            random=self._random,
            started=trail.first_sent_at,
            sleep=partial(self._pause, trail),
            should_retry=partial(self._should_retry, session, request, trail),
            wait_s=partial(self._wait_s, trail),
        )
        try:
            async for turn in policy:
                with turn:
                    if first is not None:
                        # A policy costs more than a call, so it is made only now, told the past.
                        known, first = first, None
                        raise known
                    return await attempt()
        except RequestError as error:
            if trail.is_crowded and trail.attempts > 1 and decide(error).retry:
                raise _given_up(error, trail.attempts) from None
            raise
        finally:
            if trail.order is not None:
                trail.run.retries.settled(trail.order)
        raise AssertionError("a retry policy ends by returning or raising")

    async def once(self, session: Session, request: Request, trail: Trail) -> Completion:
        """Take a place, send, validate, settle.

        Raises
        ------
        RequestError
            If the call failed.
        Withdrawn
            If the run was stopped before there was a place.
        """
        async with self.place(session, request, trail) as call:
            sent_at = self.clock.monotonic()
            reply = await self._send(session, call, request)
            completion = read_completion(
                reply.payload,
                messages=request.messages,
                deployment=call.deployment,
                request_id=reply.request_id,
            )
            trail.latency_s = self.clock.monotonic() - sent_at
            call.settle(completion.tokens, reply.headers, model=completion.model)
            trail.run.note_tried()
        return completion

    def place(
        self, session: Session, request: Request, trail: Trail
    ) -> AbstractAsyncContextManager[Call]:
        """Wait for a place, and end it by how the block ends.

        The block calls `Call.settle` when it has its answer. A `RequestError` that leaves it
        counts as the call's failure, anything else as a call that was abandoned.
        """
        return Placement(session, request, trail, books=self._books)

    def _should_retry(
        self, session: Session, request: Request, trail: Trail, error: BaseException
    ) -> bool:
        """Draw the consequences of a failure for this request, and tell whether it goes on."""
        if not isinstance(error, RequestError):
            return False
        decision = decide(error)
        called = frozenset() if trail.called is None else frozenset({trail.called})
        trail.avoid = called if decision.other_deployment else frozenset()
        if decision.fatal:
            for deployment in called:
                trail.run.disable(deployment, request.model, error)
            return self._has_others(session, request, trail)
        if isinstance(error, RequestExceedsQuota):
            if error.status is None:
                return False  # the scheduler says so, of all that are left
            trail.barred |= called
            return self._has_others(session, request, trail)
        if not decision.retry or error.code in {"blocked", "outage"}:
            return False
        trail.is_crowded = decision.uses_budget and not self._is_granted(trail)
        return True

    def _is_granted(self, trail: Trail) -> bool:
        """Ask the retry budget, unless the deployment rests: then nobody hurries it anyway."""
        now = self.clock.monotonic()
        if trail.called is not None and trail.called.breaker.ready_at(now) > now:
            return True
        return trail.run.retries.grant(now, order=trail.order or 0)

    def _has_others(self, session: Session, request: Request, trail: Trail) -> bool:
        return any(
            lane.deployment not in trail.barred
            and trail.run.why_out(lane.deployment, request.model) is None
            for lane in session.lanes
        )

    def _wait_s(self, trail: Trail, error: BaseException, attempt: int) -> float:
        """Seconds before the request goes back to the scheduler."""
        if not decide(error).retry:
            return 0.0  # its deployment is out; whoever else is ready may go on
        if not isinstance(error, RateLimited):
            seconds = wait_seconds(error, attempt=attempt, random=self._random)
            crowd_s = self._random.uniform(0.5, 1.0) * CROWDED_S if trail.is_crowded else 0.0
            return max(seconds, crowd_s)
        if trail.called is None:
            return 0.0
        blocked = trail.called.quota.blocked_until > self.clock.monotonic()
        return 0.0 if blocked else trail.called.wait_s(error)

    async def _pause(self, trail: Trail, seconds: float) -> None:
        if seconds > 0:
            await trail.run.sleep(self.clock, seconds)

    async def _send(self, session: Session, call: Call, request: Request) -> Reply:
        timeout = call.timeout_s
        try:
            async with session.deadlines.after(timeout):
                return await call.transport.chat(request, timeout=timeout)
        except TimeoutError:
            raise Timeout(
                f"no complete answer within {timeout} s; give request_timeout= for more",
                code="attempt_timeout",
                maybe_billed=True,
            ) from None


def _given_up(error: RequestError, attempts: int) -> RetryBudgetExhausted:
    return RetryBudgetExhausted(
        f"{attempts} attempts failed, as did too many of other rows; the last one: {error}",
        code=error.code,
        status=error.status,
        maybe_billed=error.maybe_billed,
        request_id=error.request_id,
    )
