"""What to do after a failure: whether to try again, when, where, and how often.

The rules are a table of error classes; the policy that follows them is built from tenacity
for one request at a time, once its first attempt has failed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lbgpt_pandas.engine import errors
from lbgpt_pandas.engine.classification import classify_response
from lbgpt_pandas.engine.retry_after import parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    import tenacity

    from lbgpt_pandas.engine.clock import Clock

__all__ = [
    "RetryDecision",
    "classify_response",
    "decide",
    "parse_retry_after",
    "retry_policy",
    "wait_seconds",
]

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 60.0
_DOUBLINGS = 7  # 0.5 s * 2**7 is past the longest backoff; larger powers only overflow


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """What follows from a failure.

    Attributes
    ----------
    retry : bool
        The same request may be sent again.
    other_deployment : bool
        Another deployment is to be preferred: for the retry, or instead of one.
    fatal : bool
        The deployment answers nothing in this run any more.
    counts_as_fault : bool
        The deployment's circuit breaker counts it.
    uses_budget : bool
        A retry draws on the retry budget of the run.
    limit : int or None
        Retries that a request is granted for this kind of failure, whatever
        ``stop_after_attempts`` says beyond that; None: no limit of its own.
    """

    retry: bool
    other_deployment: bool
    fatal: bool
    counts_as_fault: bool
    uses_budget: bool
    limit: int | None


_NO = RetryDecision(
    retry=False,
    other_deployment=False,
    fatal=False,
    counts_as_fault=False,
    uses_budget=False,
    limit=None,
)
_THROTTLE = replace(_NO, retry=True, other_deployment=True, limit=20)
_DISABLE = replace(_NO, other_deployment=True, fatal=True)
_FAULT = replace(_NO, retry=True, other_deployment=True, counts_as_fault=True, uses_budget=True)

_DECISIONS: dict[type[BaseException], RetryDecision] = {
    errors.RateLimited: _THROTTLE,
    errors.QuotaExhausted: _DISABLE,
    errors.AuthError: _DISABLE,
    errors.NotFound: _DISABLE,
    errors.ServerError: _FAULT,
    errors.ConnectionFailed: _FAULT,
    errors.Timeout: _FAULT,
    errors.MalformedResponse: replace(_FAULT, limit=2),
    errors.IncompleteStream: replace(_FAULT, other_deployment=False),
    errors.SchemaMismatch: replace(_NO, retry=True, uses_budget=True, limit=2),
    errors.RequestExceedsQuota: replace(_NO, other_deployment=True),
}
_OUT = frozenset(kind for kind, decision in _DECISIONS.items() if decision.fatal)
_SLOW_DOWN = replace(_THROTTLE, other_deployment=False)


def decide(error: BaseException) -> RetryDecision:
    """Look up what follows from a failure.

    Parameters
    ----------
    error : BaseException
        Whatever ended the attempt.

    Returns
    -------
    RetryDecision
        For anything but a `RequestError` (a cancellation, an interrupt, a bug): no retry.

    Examples
    --------
    >>> decide(errors.Timeout("too slow")).retry
    True
    >>> decide(errors.QuotaExhausted("no credit")).fatal
    True
    """
    if isinstance(error, errors.RateLimited) and error.code == "slow_down":
        # The ramp is too steep, which another deployment would meet as well.
        return _SLOW_DOWN
    for kind in type(error).__mro__:
        decision = _DECISIONS.get(kind)
        if decision is not None:
            return decision
    return _NO


def wait_seconds(error: BaseException, *, attempt: int, random: Random) -> float:
    """Seconds to wait before the next attempt.

    What the provider asked for is a floor to which jitter is added, a tenth and at most one
    second; otherwise the whole backoff is jitter, so that rows that failed together do not
    come back together.

    Parameters
    ----------
    error : BaseException
        The failure; its `retry_after` counts, if it has one above 0.
    attempt : int
        Number of the attempt that failed, from 1.
    random : random.Random
        Where the jitter comes from.

    Returns
    -------
    float
        Seconds, at least 0. Without `retry_after` at most 60.
    """
    floor = getattr(error, "retry_after", None)
    if floor is not None and floor > 0:
        return float(floor) + random.uniform(0.0, min(1.0, 0.1 * floor))
    doublings = min(max(attempt, 0), _DOUBLINGS)
    return random.uniform(0.0, min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2**doublings))


def retry_policy(
    *,
    clock: Clock,
    stop_after_attempts: int | None,
    total_s: float,
    random: Random,
    started: float | None = None,
    sleep: Callable[[float], Awaitable[None]] | None = None,
    should_retry: Callable[[BaseException], bool] = lambda error: decide(error).retry,
    wait_s: Callable[[BaseException, int], float] | None = None,
) -> tenacity.AsyncRetrying:
    """Build the policy for one request; never share one between requests.

    It ends in the error of the last attempt, never in tenacity's ``RetryError``. Nothing
    sleeps before the first failure.

    Parameters
    ----------
    clock : Clock
        Measures the deadline and sleeps.
    stop_after_attempts : int or None
        Attempts in all, but for calls that were refused for now (429); 1 is one call whatever
        happens, None leaves only the limits of `decide` and the deadline.
    total_s : float
        Seconds from `started`; a wait that would last until then is not begun.
    random : random.Random
        Where the jitter comes from.
    started : float, optional
        ``clock.monotonic()`` when the first attempt began. Default: now.
    sleep : callable, optional
        Awaited with the seconds to wait; the clock's by default. What it raises ends the
        attempts.
    should_retry : callable, optional
        Gets the failure; False, or an exception of its own, ends the attempts. By default
        `decide` says.
    wait_s : callable, optional
        Gets the failure and the number of the attempt; by default `wait_seconds`.

    Returns
    -------
    tenacity.AsyncRetrying
        To be iterated over (``async for attempt in policy``) or called.
    """
    import tenacity  # noqa: PLC0415  # only rows that fail pay for it

    def wait(state: tenacity.RetryCallState) -> float:
        error, attempt = _failure(state), state.attempt_number
        if wait_s is not None:
            return wait_s(error, attempt)
        return wait_seconds(error, attempt=attempt, random=random)

    begin = clock.monotonic() if started is None else started
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(should_retry),
        wait=wait,
        stop=_Stop(clock, deadline=begin + total_s, attempts=stop_after_attempts),
        sleep=sleep or clock.sleep,
        reraise=True,
    )


class _Stop:
    """Ends the attempts of one request: their number, each failure's own limit, the deadline."""

    __slots__ = ("_attempts", "_clock", "_deadline", "_failures")

    def __init__(self, clock: Clock, *, deadline: float, attempts: int | None) -> None:
        self._clock = clock
        self._deadline = deadline
        self._attempts = attempts
        self._failures: Counter[type[BaseException]] = Counter()

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        error = _failure(state)
        self._failures[type(error)] += 1
        limit = decide(error).limit
        if limit is not None and self._failures[type(error)] > limit:
            return True
        if self._attempts is not None and self._counted(state.attempt_number) >= self._attempts:
            return True
        return self._clock.monotonic() + state.upcoming_sleep >= self._deadline

    def _counted(self, attempts: int) -> int:
        """Attempts that count: not those of a deployment that is out now, nor refusals for now.

        A request goes on elsewhere after the former, and the latter have a limit of their own.
        """
        for kind, failures in self._failures.items():
            refused = kind is errors.RateLimited and self._attempts != 1
            if refused or kind in _OUT:
                attempts -= failures
        return attempts


def _failure(state: tenacity.RetryCallState) -> BaseException:
    error = None if state.outcome is None else state.outcome.exception()
    if error is None:
        raise AssertionError("a retry policy is asked after a failure only")
    return error
