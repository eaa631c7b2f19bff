"""The limits of FakeProvider, without sockets: judged by brute force over what was admitted."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.retry_after import parse_retry_after
from lbgpt_pandas.testing import FakeClock, FakeProvider, KeyLimits, Record, Tally
from lbgpt_pandas.testing.gate import Gate
from lbgpt_pandas.testing.quota import Admission, Quota, Reading, Refusal
from lbgpt_pandas.testing.rate_headers import go_duration, limit_headers, wait_headers
from lbgpt_pandas.testing.windows import ROUNDING_S

KINDS = ["sliding", "fixed", "bucket"]
EVENTS = st.lists(
    st.tuples(st.floats(0, 40), st.integers(0, 60), st.integers(0, 30)), min_size=1, max_size=60
)


def admits(quota, *times, tokens=1):
    return [isinstance(quota.admit(tokens, now=at), Admission) for at in times]


def most_in(admitted, span_s):
    """The most in any half-open span that begins with an admission."""
    return max(
        (sum(cost for at, cost in admitted if start <= at < start + span_s - 1e-5))
        for start, _ in admitted
    )


def send(quota, events):
    """Send requests after pauses, each with an answer that takes `extra` more; what got in."""
    now, admitted = 1_000.0, []
    for pause, tokens, extra in events:
        now += pause
        result = quota.admit(tokens, now=now)
        if isinstance(result, Admission):
            quota.settle(result, tokens + extra, now=now)
            admitted.append((now, tokens + extra))
    return admitted


# Windows


@given(EVENTS)
def test_no_span_of_a_minute_admits_more_than_a_sliding_limit(events):
    admitted = send(Quota(KeyLimits(rpm=5)), events)
    assert most_in([(at, 1) for at, _ in admitted], 60) <= 5
    plain = [(pause, tokens, 0) for pause, tokens, _ in events]
    admitted = send(Quota(KeyLimits(tpm=100)), plain)
    assert most_in(admitted, 60) <= 100


@given(EVENTS)
def test_a_sliding_window_refuses_only_what_does_not_fit(events):
    quota, now, admitted = Quota(KeyLimits(rpm=4, tpm=100)), 1_000.0, []
    for pause, tokens, _ in events:
        now += pause
        held = [cost for at, cost in admitted if at > now - 60 + 1e-6]
        fits = len(held) < 4 and sum(held) + tokens <= 100
        result = quota.admit(tokens, now=now)
        assert isinstance(result, Admission) is fits
        if fits:
            admitted.append((now, tokens))


@given(EVENTS)
def test_a_bucket_admits_its_capacity_and_what_flows_in(events):
    plain = [(pause, tokens, 0) for pause, tokens, _ in events]
    admitted = send(Quota(KeyLimits(tpm=120, window="bucket", burst_s=30)), plain)
    for first, (start, _) in enumerate(admitted):
        total = 0
        for at, cost in admitted[first:]:
            total += cost
            assert total <= 60 + (at - start) * 2 + 1e-3


def test_a_bucket_is_full_at_first_and_filled_evenly():
    quota = Quota(KeyLimits(rpm=60, window="bucket", burst_s=10))
    assert admits(quota, *[0.0] * 11) == [True] * 10 + [False]
    assert quota.admit(1, now=0.25).wait_s == pytest.approx(0.75)
    assert admits(quota, 0.999, 1.0, 1.5, 2.0) == [False, True, False, True]
    assert admits(quota, *[1_000.0] * 11) == [True] * 10 + [False]


def test_a_bucket_holds_a_minute_of_quota_unless_told_otherwise():
    for limits in (
        KeyLimits(rpm=7, window="bucket"),
        KeyLimits(rpm=7, window="bucket", burst_s=60),
    ):
        assert sum(admits(Quota(limits), *[0.0] * 20)) == 7
    # Almost twice the limit in a minute, which a sliding window would never let in.
    quota = Quota(KeyLimits(rpm=60, window="bucket"))
    assert sum(admits(quota, *[tenths / 10 for tenths in range(600)])) == 119


def test_a_bucket_of_less_than_one_request_holds_one():
    quota = Quota(KeyLimits(rpm=6, window="bucket", burst_s=1))
    assert admits(quota, 0.0, 9.9, 10.0, 15.0, 20.0) == [True, False, True, False, True]


def test_a_buckets_size_holds_for_tokens_too():
    quota = Quota(KeyLimits(tpm=6_000, window="bucket", burst_s=1))
    assert quota.admit(101, now=0.0) == Refusal("tokens", 100, 0, 101, None)
    assert admits(quota, 0.0, 0.5, tokens=100) == [True, False]


def test_fixed_windows_begin_with_the_first_request_that_finds_none_open():
    quota = Quota(KeyLimits(rpm=2, window="fixed"))
    assert admits(quota, 17.0, 76.0, 76.5) == [True, True, False]
    assert quota.admit(1, now=76.5).wait_s == pytest.approx(0.5)
    # Four within two seconds, on both sides of the edge.
    assert admits(quota, 77.0, 77.1, 77.2) == [True, True, False]
    # The next window begins when someone comes, not at a multiple of the minute.
    assert admits(quota, 200.0, 259.0, 259.5, 260.0) == [True, True, False, True]


def test_tokens_are_counted_in_fixed_windows():
    quota = Quota(KeyLimits(tpm=100, window="fixed"))
    first = quota.admit(60, now=0.0)
    assert admits(quota, 1.0, tokens=60) == [False]
    quota.settle(first, 70, now=59.0)
    assert admits(quota, 59.0, tokens=31) == [False]
    assert admits(quota, 59.0, tokens=30) == [True]


@pytest.mark.parametrize("kind", ["sliding", "fixed"])
def test_an_answer_is_not_charged_to_a_later_window(kind):
    quota = Quota(KeyLimits(tpm=100, window=kind))
    first = quota.admit(60, now=0.0)
    assert admits(quota, 61.0, tokens=10) == [True]
    quota.settle(first, 100, now=62.0)
    assert admits(quota, 62.0, tokens=91) == [False]
    assert admits(quota, 62.0, tokens=90) == [True]


def test_a_burst_window_is_of_the_same_kind():
    sliding = Quota(KeyLimits(rpm=12, burst_s=10))
    assert admits(sliding, 0.0, 9.0, 9.5, 10.0, 10.5) == [True, True, False, True, False]
    fixed = Quota(KeyLimits(rpm=12, burst_s=10, window="fixed"))
    assert admits(fixed, 0.0, 9.0, 9.5, 10.0, 10.5, 10.6) == [True, True, False, True, True, False]


def test_a_minute_may_be_shorter():
    for kind in KINDS:
        quota = Quota(KeyLimits(rpm=3, window=kind, window_s=0.3))
        assert admits(quota, *[0.0] * 4) == [True] * 3 + [False]
        assert admits(quota, *[0.3] * 4) == [True] * 3 + [False]


# Waiting and settling


@pytest.mark.parametrize("burst_s", [None, 5])
@pytest.mark.parametrize("kind", KINDS)
@given(events=EVENTS)
def test_waiting_as_long_as_is_said_is_enough_and_less_is_not(kind, burst_s, events):
    quota = Quota(KeyLimits(rpm=24, tpm=200, window=kind, burst_s=burst_s))
    now, largest = 1_000.0, 200 if burst_s is None or kind != "bucket" else 200 * 5 / 60
    for pause, tokens, extra in events:
        now += pause
        result = quota.admit(tokens, now=now)
        if isinstance(result, Refusal):
            if result.wait_s is None:
                assert tokens > math.floor(largest)
                continue
            assert result.wait_s > 0
            early_s = max(0.0, min(result.wait_s * 0.9, result.wait_s - 2 * ROUNDING_S))
            assert isinstance(quota.admit(tokens, now=now + early_s), Refusal)
            now += result.wait_s
            result = quota.admit(tokens, now=now)
        assert isinstance(result, Admission)
        quota.settle(result, tokens + extra, now=now)


def test_the_longest_wait_is_told_of_several_limits():
    quota = Quota(KeyLimits(rpm=1, tpm=60, window="bucket"))
    assert admits(quota, 0.0, tokens=50) == [True]
    refusal = quota.admit(20, now=0.0)
    assert (refusal.resource, refusal.wait_s) == ("requests", 60)
    quota = Quota(KeyLimits(rpm=600, tpm=60, window="bucket", burst_s=1))
    assert admits(quota, *[0.0] * 10, tokens=0) == [True] * 10
    refusal = quota.admit(1, now=0.0)
    assert (refusal.resource, refusal.wait_s) == ("requests", pytest.approx(0.1))


def test_a_cost_is_raised_and_never_lowered():
    for kind in KINDS:
        quota = Quota(KeyLimits(tpm=100, window=kind))
        admission = quota.admit(10, now=0.0)
        quota.settle(admission, 5, now=0.0)
        assert quota.readings(now=0.0)[0].remaining == 90
        quota.settle(admission, 25, now=0.0)
        quota.settle(admission, 25, now=0.0)
        assert quota.readings(now=0.0)[0].remaining == 75


def test_an_answer_may_owe_more_than_a_bucket_holds():
    quota = Quota(KeyLimits(tpm=60, window="bucket"))
    quota.settle(quota.admit(50, now=0.0), 80, now=0.0)
    assert quota.readings(now=0.0)[0].remaining == 0
    assert quota.admit(1, now=0.0).wait_s == 21


@pytest.mark.parametrize("kind", KINDS)
def test_refused_requests_count_where_that_is_asked_for(kind):
    limits = KeyLimits(rpm=2, window=kind)
    # Someone who comes back every 20 s, however often it is turned away.
    times = [0.0, 0.0, *range(20, 180, 20)]
    unforgiving = admits(Quota(limits, count_refused=True), *times)
    forgiving = admits(Quota(limits), *times)
    # A fixed window that is full stays full until it ends, whatever is refused.
    assert (sum(unforgiving) < sum(forgiving)) is (kind != "fixed")
    quota = Quota(limits, count_refused=True)
    assert admits(quota, 0.0, 0.0, 20.0, 40.0) == [True, True, False, False]
    wait_s = quota.admit(1, now=50.0).wait_s
    assert admits(quota, 50.0 + wait_s) == [True]


def test_a_sliding_window_that_counts_refusals_is_never_free_for_who_keeps_coming():
    quota = Quota(KeyLimits(rpm=2, tpm=10), count_refused=True)
    assert admits(quota, 0, 0, *range(10, 600, 10)) == [True, True] + [False] * 59
    assert quota.readings(now=590)[1].remaining == 10


# Headers


@pytest.mark.parametrize(
    ("kind", "requests", "tokens"),
    [
        ("sliding", (1, 60), (200, 60)),
        ("fixed", (1, 50), (200, 50)),
        # 4 - 3 and 10 s of 4 a minute; 400 - 200 and 10 s of 400 a minute.
        ("bucket", (1, 35), (266, 20)),
    ],
)
def test_readings_tell_what_remains_and_when_everything_is_free_again(kind, requests, tokens):
    quota = Quota(KeyLimits(rpm=4, tpm=400, window=kind))
    full = [Reading("requests", 4, 4, 0.0), Reading("tokens", 400, 400, 0.0)]
    assert quota.readings(now=0.0) == full
    for at, cost in ((0.0, 100), (10.0, 100), (10.0, 0)):
        quota.admit(cost, now=at)
    first, second = quota.readings(now=10.0)
    assert (first.remaining, first.reset_s) == (requests[0], pytest.approx(requests[1]))
    assert (second.remaining, second.reset_s) == (tokens[0], pytest.approx(tokens[1]))
    assert quota.readings(now=70.0) == full


def test_readings_are_of_the_minute_and_not_of_the_burst():
    quota = Quota(KeyLimits(rpm=600, burst_s=10))
    assert sum(admits(quota, *[0.0] * 200)) == 100
    assert quota.readings(now=0.0) == [Reading("requests", 600, 500, 60.0)]


def test_the_forms_of_headers():
    wall = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
    readings = [Reading("requests", 60, 12, 1.5)]
    assert limit_headers("openai", readings, wall=wall) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "12",
        "x-ratelimit-reset-requests": "1.5s",
    }
    assert limit_headers("azure-junk", readings, wall=wall) == {
        "x-ratelimit-limit-requests": "-1",
        "x-ratelimit-remaining-requests": "-1",
        "x-ratelimit-reset-requests": "0",
    }
    assert limit_headers("anthropic", readings, wall=wall) == {
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "12",
        "anthropic-ratelimit-requests-reset": "2026-01-01T12:00:02Z",
    }
    assert limit_headers(None, readings, wall=wall) == {}


def test_waits_are_told_in_seconds_and_milliseconds_and_rounded_up():
    assert wait_headers("openai", 1.2341) == {"retry-after-ms": "1235", "retry-after": "2"}
    assert wait_headers("anthropic", 1.2341) == {"retry-after": "2"}
    for form, wait_s in (("azure-junk", 1.0), (None, 1.0), ("openai", None)):
        assert wait_headers(form, wait_s) == {}


@given(st.floats(1e-6, 4_000))
def test_no_wait_is_told_as_zero(wait_s):
    headers = wait_headers("openai", wait_s)
    assert parse_retry_after(headers, now=datetime.now(UTC)) >= wait_s - 1e-8
    assert int(headers["retry-after"]) >= 1
    assert go_duration(wait_s) != "0s"


# Keys and deployments


def record(key="k", *, azure=None, at=0.0):
    path = f"/openai/deployments/{azure}/chat/completions" if azure else "/v1/chat/completions"
    return Record(1, "POST", path, {}, key, {}, None, azure or "gpt-4o-mini", at)


def gate_of(default=None, named=None, *, clock=None, headers=True):
    return Gate(
        default or KeyLimits(),
        named or {},
        headers=headers,
        count_refused=False,
        clock=clock or FakeClock(auto_advance=False),
    )


def admitted(gate, times=10, **who):
    tickets = [gate.admit(record(**who), 1) for _ in range(times)]
    return sum(isinstance(ticket.result, Admission) for ticket in tickets)


def test_each_key_has_its_own_limits_and_everyone_else_the_default():
    gate = gate_of(KeyLimits(rpm=2), {"large": KeyLimits(rpm=6), "free": KeyLimits()})
    assert [admitted(gate, key=key) for key in ("large", "free", "k", "other", None)] == [
        6,
        10,
        2,
        2,
        2,
    ]
    gate.reset()
    assert admitted(gate, key="large") == 6


def test_a_deployments_limits_go_before_its_keys():
    gate = gate_of(KeyLimits(rpm=1), {"d": KeyLimits(rpm=3), "k": KeyLimits(rpm=5)})
    assert admitted(gate, key="k", azure="d") == 3
    assert admitted(gate, key="another", azure="d") == 3
    assert admitted(gate, key="k", azure="e") == 5
    assert admitted(gate, key="another", azure="e") == 1
    # Outside Azure a deployment's name means nothing.
    assert admitted(gate, key="k") == 5


def test_how_windows_are_measured_is_taken_from_the_default():
    default = KeyLimits(rpm=1, tpm=1, window="bucket", window_s=6, burst_s=2)
    assert KeyLimits(rpm=9).over(default) == KeyLimits(
        rpm=9, window="bucket", window_s=6, burst_s=2
    )
    own = KeyLimits(rpm=9, window="fixed", window_s=3, burst_s=1)
    assert own.over(default) == own
    assert admitted(gate_of(default, {"k": KeyLimits(rpm=9)})) == 3


def test_headers_follow_the_key():
    clock = FakeClock(auto_advance=False)
    gate = gate_of(KeyLimits(), {"large": KeyLimits(rpm=1)}, clock=clock, headers="anthropic")
    assert gate.headers(gate.admit(record(), 1)) == {}
    gate.admit(record("large"), 1)
    clock.advance(10)
    assert gate.headers(gate.admit(record("large"), 1)) == {
        "anthropic-ratelimit-requests-limit": "1",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-01-01T00:01:00Z",
        "retry-after": "50",
    }


def test_records_tell_when_they_were_admitted_and_what_they_are_charged():
    clock = FakeClock(auto_advance=False)
    gate = gate_of(KeyLimits(tpm=10), clock=clock)
    first, second = record(), record()
    gate.settle(gate.admit(first, 4), 9)
    gate.settle(gate.admit(second, 4), 9)
    assert (first.admitted_at, first.tokens) == (clock.monotonic(), 9)
    assert (second.admitted_at, second.tokens) == (None, 0)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"rpm": 0}, "rpm=0"),
        ({"tpm": -5}, "tpm=-5"),
        ({"rpm": math.nan}, "rpm=nan"),
        ({"window_s": 0}, "window_s=0"),
        ({"burst_s": -1}, "burst_s=-1"),
        ({"burst_s": math.inf}, "burst_s=inf"),
        ({"window": "rolling"}, "sliding, fixed, bucket"),
    ],
)
def test_limits_that_cannot_be_are_refused(settings, word):
    for build in (KeyLimits, FakeProvider):
        with pytest.raises(ConfigurationError, match=word):
            build(**settings)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"limits": {"sk-CANARY": {"rpm": 3}}}, "give KeyLimits"),
        ({"limits": {None: KeyLimits(rpm=3)}}, "as text"),
        ({"headers": "openai"}, "azure-junk"),
        ({"headers": None}, "azure-junk"),
        ({"headers": []}, "azure-junk"),
    ],
)
def test_settings_that_cannot_be_are_refused_without_telling_keys(settings, word):
    with pytest.raises(ConfigurationError, match=word) as caught:
        FakeProvider(**settings)
    assert "CANARY" not in str(caught.value)


# Tally


def tally_of(*admissions):
    tally = Tally()
    for at, key, azure, tokens in admissions:
        one = record(key, azure=azure)
        tally.arrive(one)
        one.admitted_at, one.tokens = at, tokens
        tally.leave(one)
    return tally


@given(st.lists(st.tuples(st.floats(0, 200), st.integers(0, 9)), min_size=1))
def test_the_most_in_any_span_is_what_counting_says(costs):
    tally = tally_of(*[(at, "k", None, tokens) for at, tokens in costs])
    for span_s in (10, 60):
        spans = [
            [tokens for at, tokens in costs if start - span_s + 1e-6 < at <= start]
            for start, _ in costs
        ]
        assert tally.most_requests("k", span_s=span_s) == max(map(len, spans))
        assert tally.most_tokens("k", span_s=span_s) == max(map(sum, spans))


def test_the_most_of_a_key_is_of_all_its_deployments_or_one():
    tally = tally_of((0, "k", "a", 5), (1, "k", "b", 7), (2, "k", None, 1), (3, "o", "a", 100))
    assert tally.most_requests("k") == 3
    assert tally.most_tokens("k") == 13
    assert tally.most_tokens("k", deployment="b") == 7
    assert tally.most_tokens("o", deployment="a") == 100
    assert tally.most_requests("nobody") == 0


def test_what_was_not_admitted_is_not_in_the_most():
    tally = Tally()
    tally.arrive(record())
    tally.send(record(), 429)
    tally.leave(record())
    assert tally.most_requests("k") == 0
    assert tally.by_key_status == {("k", 429): 1}
    assert tally.in_flight == 0


# Cost


@pytest.mark.parametrize("kind", KINDS)
def test_admission_costs_a_few_microseconds_and_does_not_grow(kind):
    clock = FakeClock(auto_advance=False)
    burst_s = 60 if kind == "bucket" else 10
    limits = KeyLimits(rpm=6_000, tpm=600_000, window=kind, burst_s=burst_s)
    gate = gate_of(limits, clock=clock)
    one = record()
    began, served = time.process_time(), 0
    for _ in range(375):
        clock.advance(0.25)
        for _ in range(80):  # 320 a second where 100 are allowed
            ticket = gate.admit(one, 100)
            gate.headers(ticket)
            served += isinstance(ticket.result, Admission)
    spent = time.process_time() - began
    assert 9_000 <= served <= 15_500
    assert spent / 30_000 < 100e-6
