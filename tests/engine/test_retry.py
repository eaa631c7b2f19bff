from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from datetime import UTC, datetime

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine import errors
from lbgpt_pandas.engine.retry import (
    RetryDecision,
    classify_response,
    decide,
    parse_retry_after,
    retry_policy,
    wait_seconds,
)
from lbgpt_pandas.testing import FakeClock

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def rate_limited(seconds: float | None = None, code: str | None = None) -> errors.RateLimited:
    return errors.RateLimited("wait", retry_after=seconds, code=code)


# What follows from a failure: the table of the design, a row each

THROTTLE = {"retry": True, "other_deployment": True, "limit": 20}
DISABLE = {"other_deployment": True, "fatal": True}
FAULT = {"retry": True, "other_deployment": True, "counts_as_fault": True, "uses_budget": True}
NOTHING: dict[str, object] = {}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (rate_limited(), THROTTLE),
        (rate_limited(code="rate_limit_exceeded"), THROTTLE),
        (rate_limited(code="in_flight_budget_exhausted"), THROTTLE),
        (rate_limited(code="slow_down"), {**THROTTLE, "other_deployment": False}),
        (errors.QuotaExhausted("x"), DISABLE),
        (errors.AuthError("x"), DISABLE),
        (errors.NotFound("x"), DISABLE),
        (errors.ContextTooLong("x"), NOTHING),
        (errors.BadRequest("x"), NOTHING),
        (errors.ContentFiltered("x"), NOTHING),
        (errors.InvalidInput("x"), NOTHING),
        (errors.ServerError("x"), FAULT),
        (errors.ConnectionFailed("x"), FAULT),
        (errors.Timeout("x", maybe_billed=True), FAULT),
        (errors.MalformedResponse("x"), {**FAULT, "limit": 2}),
        (errors.IncompleteStream("x"), {**FAULT, "other_deployment": False}),
        (errors.SchemaMismatch("x"), {"retry": True, "uses_budget": True, "limit": 2}),
        (errors.RequestExceedsQuota("x"), {"other_deployment": True}),
        (errors.RetryBudgetExhausted("x"), NOTHING),
        (errors.RequestError("x"), NOTHING),
        (errors.BudgetExceeded("x"), NOTHING),
        (errors.ConfigurationError("x"), NOTHING),
        (asyncio.CancelledError(), NOTHING),
        (KeyboardInterrupt(), NOTHING),
        (ValueError("a bug"), NOTHING),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_follows_from_a_failure(error, expected):
    assert decide(error) == RetryDecision(
        retry=bool(expected.get("retry")),
        other_deployment=bool(expected.get("other_deployment")),
        fatal=bool(expected.get("fatal")),
        counts_as_fault=bool(expected.get("counts_as_fault")),
        uses_budget=bool(expected.get("uses_budget")),
        limit=expected.get("limit"),
    )


def test_every_error_of_a_request_has_been_thought_about():
    thought_about = {
        mark.args[1][row][0].__class__
        for mark in test_what_follows_from_a_failure.pytestmark
        for row in range(len(mark.args[1]))
    }
    assert set(errors.RequestError.__subclasses__()) <= thought_about


def test_a_kind_of_an_error_is_treated_like_it():
    class Gateway(errors.ServerError):
        pass

    assert decide(Gateway("x")) == decide(errors.ServerError("x"))


@pytest.mark.parametrize(
    ("status", "body", "retried"),
    [
        (429, {"error": {"code": "rate_limit_exceeded"}}, True),
        (429, {"error": {"code": "insufficient_quota"}}, False),
        (429, {"error": {"details": {"error_code": "enforced_spend_limit_reached"}}}, False),
        (402, {"error": {"metadata": {"reason": "in_flight_budget_exhausted"}}}, True),
        (402, {"error": {"metadata": {"reason": "weight_exceeds_budget"}}}, False),
        (402, None, False),
        (529, None, True),
        (400, None, False),
        (401, None, False),
        (200, "<html>", True),
    ],
)
def test_from_a_response_to_a_decision(status, body, retried):
    assert decide(classify_response(status, body, {}, now=NOW)).retry is retried


def test_spent_quota_disables_its_deployment_and_leaves_the_others():
    decision = decide(classify_response(402, None, {}, now=NOW))
    assert decision.fatal
    assert decision.other_deployment


# How long to wait


@given(
    st.floats(0, 86_400, exclude_min=True, allow_subnormal=False),
    st.integers(1, 40),
    st.integers(0, 9),
)
def test_what_the_provider_asked_for_is_a_floor(asked, attempt, seed):
    wait = wait_seconds(rate_limited(asked), attempt=attempt, random=random.Random(seed))
    assert asked <= wait <= asked + min(1.0, 0.1 * asked)


@given(st.integers(-1, 10**9), st.integers(0, 9), st.sampled_from([None, 0, 0.0, -5.0]))
def test_without_it_the_whole_backoff_is_jitter(attempt, seed, asked):
    wait = wait_seconds(rate_limited(asked), attempt=attempt, random=random.Random(seed))
    assert 0 <= wait <= min(60.0, 0.5 * 2 ** min(max(attempt, 0), 10))


def test_the_backoff_doubles_up_to_a_minute():
    class Top(random.Random):
        def uniform(self, _low: float, high: float) -> float:
            return high

    waits = [wait_seconds(rate_limited(), attempt=n, random=Top()) for n in range(1, 10)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert wait_seconds(rate_limited(2.0), attempt=1, random=Top()) == pytest.approx(2.2)
    assert wait_seconds(rate_limited(50.0), attempt=1, random=Top()) == 51.0


def test_an_error_without_a_wish_is_waited_for_as_well():
    assert 0 <= wait_seconds(ValueError("x"), attempt=1, random=random.Random(1)) <= 1


def test_the_same_seed_waits_the_same():
    waits = [wait_seconds(rate_limited(), attempt=3, random=random.Random(7)) for _ in range(2)]
    assert waits[0] == waits[1]


# The policy


class Script:
    """Raises the given errors one after another, the last for ever, and counts."""

    def __init__(self, clock: FakeClock, *failures: BaseException, answer: object = None) -> None:
        self.clock = clock
        self.failures = list(failures)
        self.answer = answer
        self.times: list[float] = []

    async def __call__(self) -> object:
        self.times.append(self.clock.monotonic())
        number = len(self.times) - 1
        if number < len(self.failures):
            raise self.failures[number]
        if self.answer is None:
            raise self.failures[-1]
        return self.answer


def policy(
    clock: FakeClock, *, attempts: int | None = 10, total_s: float = 900.0, **more: float
) -> tenacity.AsyncRetrying:
    return retry_policy(
        clock=clock,
        stop_after_attempts=attempts,
        total_s=total_s,
        random=random.Random(1),
        **more,
    )


async def test_an_answer_at_once_waits_for_nothing(clock):
    script = Script(clock, answer="blue")
    assert await policy(clock)(script) == "blue"
    assert clock.slept == []


async def test_a_throttle_is_waited_out(clock):
    script = Script(clock, rate_limited(2.0), rate_limited(0.04), answer="blue")
    assert await policy(clock)(script) == "blue"
    first, second = clock.slept
    assert 2.0 <= first <= 2.2
    assert 0.04 <= second <= 0.044


async def test_the_last_error_itself_comes_out(clock):
    failures = [errors.ServerError(str(number)) for number in range(3)]
    with pytest.raises(errors.ServerError) as caught:
        await policy(clock, attempts=3)(Script(clock, *failures))
    assert caught.value is failures[2]
    assert not isinstance(caught.value, tenacity.RetryError)


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_the_number_of_attempts_is_a_total(clock, attempts):
    script = Script(clock, errors.ServerError("x"))
    with pytest.raises(errors.ServerError):
        await policy(clock, attempts=attempts)(script)
    assert len(script.times) == attempts
    assert len(clock.slept) == attempts - 1


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (rate_limited(0.01), 21),
        (errors.MalformedResponse("x"), 3),
        (errors.SchemaMismatch("x"), 3),
    ],
)
async def test_a_failure_with_a_limit_of_its_own(clock, error, attempts):
    script = Script(clock, error)
    with pytest.raises(type(error)):
        await policy(clock, attempts=None)(script)
    assert len(script.times) == attempts


async def test_the_smaller_limit_holds(clock):
    script = Script(clock, errors.MalformedResponse("x"))
    with pytest.raises(errors.MalformedResponse):
        await policy(clock, attempts=2)(script)
    assert len(script.times) == 2


@pytest.mark.parametrize(("attempts", "expected"), [(1, 1), (4, 21)])
async def test_refusals_for_now_have_a_limit_of_their_own(clock, attempts, expected):
    script = Script(clock, rate_limited(0.01))
    with pytest.raises(errors.RateLimited):
        await policy(clock, attempts=attempts)(script)
    assert len(script.times) == expected


async def test_each_kind_of_failure_is_counted_by_itself(clock):
    odd, broken = errors.MalformedResponse("x"), errors.ServerError("x")
    script = Script(clock, odd, broken, odd, broken, odd, answer="late")
    with pytest.raises(errors.MalformedResponse):
        await policy(clock, attempts=None)(script)
    assert len(script.times) == 5


async def test_without_a_number_of_attempts_the_deadline_ends_it(clock):
    script = Script(clock, errors.ServerError("x"))
    with pytest.raises(errors.ServerError):
        await policy(clock, attempts=None, total_s=300.0)(script)
    assert len(script.times) > 10
    assert clock.monotonic() - script.times[0] < 300.0


async def test_a_wait_past_the_deadline_is_not_begun(clock):
    with pytest.raises(errors.RateLimited):
        await policy(clock, total_s=60.0)(Script(clock, rate_limited(61.0)))
    assert clock.slept == []


async def test_a_wait_until_the_deadline_is_not_begun(clock):
    class NoJitter(random.Random):
        def uniform(self, low: float, _high: float) -> float:
            return low

    retrying = retry_policy(clock=clock, stop_after_attempts=None, total_s=10.0, random=NoJitter())
    with pytest.raises(errors.RateLimited):
        await retrying(Script(clock, rate_limited(5.0)))
    assert clock.slept == [5.0]


async def test_the_deadline_counts_from_the_first_attempt(clock):
    started = clock.monotonic()
    clock.advance(50.0)
    with pytest.raises(errors.RateLimited):
        await policy(clock, total_s=60.0, started=started)(Script(clock, rate_limited(11.0)))
    assert clock.slept == []


async def test_an_attempt_takes_from_the_deadline(clock):
    starts = []

    async def slow() -> None:
        starts.append(clock.monotonic())
        clock.advance(40.0)
        raise errors.Timeout("x", maybe_billed=True)

    with pytest.raises(errors.Timeout):
        await policy(clock, attempts=None, total_s=100.0)(slow)
    assert len(starts) in {2, 3}
    assert starts[-1] - starts[0] < 100.0


@pytest.mark.parametrize(
    "error",
    [
        errors.QuotaExhausted("x"),
        errors.AuthError("x"),
        errors.NotFound("x"),
        errors.BadRequest("x"),
        errors.ContextTooLong("x"),
        errors.ContentFiltered("x"),
        errors.InvalidInput("x"),
        errors.RequestExceedsQuota("x"),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        ValueError("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_would_fail_again_is_tried_once(clock, error):
    script = Script(clock, error, answer="never")
    with pytest.raises(type(error)) as caught:
        await policy(clock, attempts=None)(script)
    assert caught.value is error
    assert len(script.times) == 1
    assert clock.slept == []


async def test_as_a_loop_after_a_first_attempt_outside(clock):
    first: BaseException | None = rate_limited(3.0)
    numbers = []
    async for attempt in policy(clock):
        with attempt:
            numbers.append(attempt.retry_state.attempt_number)
            if first is not None:
                known, first = first, None
                raise known
    assert numbers == [1, 2]
    assert 3.0 <= clock.slept[0] <= 3.3


async def test_as_a_loop_it_ends_in_the_error_itself(clock):
    error = errors.ServerError("x")

    async def loop() -> None:
        async for attempt in policy(clock, attempts=2):
            with attempt:
                raise error

    with pytest.raises(errors.ServerError) as caught:
        await loop()
    assert caught.value is error


async def test_rows_that_failed_together_do_not_come_back_together():
    shared = random.Random(3)
    waits = []
    for _ in range(20):
        clock = FakeClock()
        retrying = retry_policy(clock=clock, stop_after_attempts=2, total_s=60.0, random=shared)
        with pytest.raises(errors.ServerError):
            await retrying(Script(clock, errors.ServerError("x")))
        waits += clock.slept
    assert len({round(wait, 6) for wait in waits}) == 20


def test_the_headers_are_read_where_the_policy_is():
    assert parse_retry_after({"retry-after-ms": "40"}, now=NOW) == 0.04


@pytest.mark.process
def test_rows_that_never_fail_do_not_load_tenacity():
    code = "import sys, lbgpt_pandas.engine.retry; print('tenacity' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert answer.stdout.strip() == "False"
