"""Attempts at one request: each with a place and a time limit, as many as the policy allows."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.completions import read_completion
from lbgpt_pandas.engine.errors import RequestError, Timeout
from lbgpt_pandas.engine.flights import Withdrawn
from lbgpt_pandas.engine.retry import retry_policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from lbgpt_pandas.engine.clock import Clock
    from lbgpt_pandas.engine.session import Session
    from lbgpt_pandas.engine.transports.base import Reply
    from lbgpt_pandas.engine.types import Completion, Request
    from lbgpt_pandas.engine.usage import UsageLog

TOTAL_TIMEOUT_S = 900.0
"""Seconds from a request's turn, waiting for a place included, in which an attempt may begin."""

PAUSE_SLICE_S = 1.0
"""A row that waits for its next attempt looks this often whether it is still wanted."""


def always() -> bool:
    """Return True: the request is wanted whatever happens."""
    return True


@dataclass(slots=True)
class Trail:
    """What has happened to a request so far.

    Attributes
    ----------
    is_wanted : callable
        Asked before each call; False withdraws the request.
    attempts : int
        Calls made.
    latency_s : float
        Seconds of the call that was answered.
    maybe_billed : bool
        A call that failed may have been charged.
    """

    is_wanted: Callable[[], bool] = always
    attempts: int = 0
    latency_s: float = 0.0
    maybe_billed: bool = False


class Attempts:
    """How one deployment is called.

    Parameters
    ----------
    deployment : str
        Its name.
    clock : Clock
        Source of time.
    usage : UsageLog
        Where answered calls are recorded.
    timeout_s : float or None
        Seconds for one attempt; a request's own ``request_timeout`` comes first.
    stop_after : int or None
        Attempts in all.
    """

    def __init__(
        self,
        *,
        deployment: str,
        clock: Clock,
        usage: UsageLog,
        timeout_s: float | None,
        stop_after: int | None,
    ) -> None:
        self._deployment, self._clock, self._usage = deployment, clock, usage
        self._timeout_s, self._stop_after = timeout_s, stop_after
        self._random = random.Random()  # noqa: S311  # jitter, not a secret

    async def until_done(self, session: Session, request: Request, trail: Trail) -> Completion:
        """Try until there is an answer or the policy gives up.

        Raises
        ------
        RequestError
            The last one.
        """
        began = self._clock.monotonic()
        try:
            return await self.once(session, request, trail)
        except RequestError as error:
            first: RequestError | None = error
        policy = retry_policy(
            clock=self._clock,
            stop_after_attempts=self._stop_after,
            total_s=TOTAL_TIMEOUT_S,
            random=self._random,
            started=began,
            sleep=partial(self._pause, trail),
        )
        async for attempt in policy:
            with attempt:
                if first is not None:
                    # A policy costs more than a call, so it is made only now and told the past.
                    known, first = first, None
                    raise known
                return await self.once(session, request, trail)
        raise AssertionError("a retry policy ends by returning or raising")

    async def _pause(self, trail: Trail, seconds: float) -> None:
        """Wait for the next attempt, unless the request is withdrawn meanwhile."""
        end = self._clock.monotonic() + seconds
        while (left := end - self._clock.monotonic()) > 0:
            await self._clock.sleep(min(left, PAUSE_SLICE_S))
            if not trail.is_wanted():
                raise Withdrawn

    async def once(self, session: Session, request: Request, trail: Trail) -> Completion:
        """Take a place, send, validate, give the place back, record what it cost.

        Raises
        ------
        RequestError
            If the call failed.
        Withdrawn
            If the request was not wanted any more once there was a place for it.
        """
        reservation = await session.limit.acquire()
        try:
            if not trail.is_wanted():
                raise Withdrawn
            trail.attempts += 1
            started, sent_at = self._clock.wall(), self._clock.monotonic()
            reply = await self._send(session, request)
            completion = read_completion(
                reply.payload,
                messages=request.messages,
                deployment=self._deployment,
                request_id=reply.request_id,
            )
            trail.latency_s = self._clock.monotonic() - sent_at
            reservation.commit(completion.tokens)
        except RequestError as error:
            trail.maybe_billed |= error.maybe_billed
            raise
        finally:
            reservation.cancel()
        self._usage.add(completion.tokens, started=started, attempt=trail.attempts)
        return completion

    async def _send(self, session: Session, request: Request) -> Reply:
        seconds = request.options.get("request_timeout", self._timeout_s)
        timeout = float(seconds) if isinstance(seconds, int | float) else None
        try:
            async with asyncio.timeout(timeout):
                return await session.transport.chat(request, timeout=timeout)
        except TimeoutError:
            raise Timeout(
                f"no complete answer within {timeout} s; give request_timeout= for more",
                code="attempt_timeout",
                maybe_billed=True,
            ) from None
