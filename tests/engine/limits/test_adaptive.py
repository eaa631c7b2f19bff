"""Slow start and AIMD: how the cap on calls in flight follows what a provider takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine.limits.adaptive import AdaptiveConcurrency


def full_round(adaptive: AdaptiveConcurrency, now: float = 0.0) -> int:
    for _ in range(adaptive.cap):
        adaptive.success(now, in_flight=adaptive.cap)
    return adaptive.cap


def test_one_call_until_the_first_answer_then_the_start_then_three_times_as_many_a_round():
    adaptive = AdaptiveConcurrency(start=8, most=100)
    assert adaptive.cap == 1
    adaptive.success(0.0, in_flight=1)
    assert adaptive.cap == 8
    assert [full_round(adaptive) for _ in range(4)] == [24, 72, 100, 100]


def test_each_answer_makes_room_for_two_more_without_waiting_for_the_slowest_of_its_round():
    adaptive = AdaptiveConcurrency(start=8, most=64)
    adaptive.success(0.0, in_flight=1)
    caps = []
    for _ in range(4):
        adaptive.success(0.0, in_flight=adaptive.cap)
        caps.append(adaptive.cap)
    assert caps == [10, 12, 14, 16]


def test_without_a_start_the_first_answer_opens_everything():
    adaptive = AdaptiveConcurrency(start=None, most=64)
    adaptive.success(0.0, in_flight=1)
    assert adaptive.cap == 64


def test_a_refusal_takes_a_fifth_and_its_neighbours_nothing_more():
    adaptive = AdaptiveConcurrency(start=None, most=100)
    adaptive.success(0.0, in_flight=1)
    for second in (0.0, 1.0, 14.9):
        adaptive.refusal(second)
        assert adaptive.cap == 80
    adaptive.refusal(15.0)
    assert adaptive.cap == 64


def test_after_a_refusal_it_grows_by_a_twentieth_a_round_and_not_during_the_cooldown():
    adaptive = AdaptiveConcurrency(start=None, most=200)
    adaptive.success(0.0, in_flight=1)
    adaptive.refusal(0.0)
    assert full_round(adaptive, now=10.0) == 160
    assert full_round(adaptive, now=20.0) == 168


def test_a_cap_that_is_not_used_does_not_grow():
    adaptive = AdaptiveConcurrency(start=10, most=100)
    adaptive.success(0.0, in_flight=1)
    for _ in range(50):
        adaptive.success(0.0, in_flight=7)
    assert adaptive.cap == 10
    full_round(adaptive)
    full_round(adaptive)
    assert adaptive.cap > 10


def test_known_limits_are_not_lowered_by_refusals():
    adaptive = AdaptiveConcurrency(start=8, most=64, adaptive=False)
    adaptive.success(0.0, in_flight=1)
    adaptive.refusal(0.0)
    assert adaptive.cap == 8
    assert full_round(adaptive) == 9


def test_refusals_prove_nothing():
    adaptive = AdaptiveConcurrency(start=8, least=4, most=64)
    adaptive.refusal(0.0)
    assert adaptive.cap == 1
    adaptive.success(1.0, in_flight=1)
    assert adaptive.cap == 8


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 20), st.integers(1, 300)), max_size=300),
    st.integers(1, 64),
)
def test_the_cap_stays_within_its_bounds(history, most):
    adaptive, now = AdaptiveConcurrency(most=most), 0.0
    for ok, seconds, in_flight in history:
        now += seconds
        if ok:
            adaptive.success(now, in_flight=in_flight)
        else:
            adaptive.refusal(now)
        assert 1 <= adaptive.cap <= most


def test_silence_opens_and_doubles_what_is_used_until_there_is_a_refusal():
    adaptive = AdaptiveConcurrency(start=8, most=64)
    caps = []
    for _ in range(5):
        assert adaptive.is_starting
        adaptive.silence(in_flight=adaptive.cap)
        caps.append(adaptive.cap)
        if adaptive.cap == 64:
            break
    assert caps == [8, 16, 32, 64]
    assert not adaptive.is_starting


def test_silence_says_nothing_where_few_calls_are_under_way_or_after_a_refusal():
    adaptive = AdaptiveConcurrency(start=10, most=100)
    adaptive.silence(in_flight=1)
    adaptive.silence(in_flight=7)
    assert adaptive.cap == 10
    adaptive.refusal(0.0)
    assert not adaptive.is_starting
    adaptive.silence(in_flight=8)
    assert adaptive.cap == 8


def test_with_known_limits_silence_opens_everything():
    adaptive = AdaptiveConcurrency(start=None, most=64, adaptive=False)
    adaptive.silence(in_flight=1)
    assert adaptive.cap == 64
    assert not adaptive.is_starting


def test_too_late_because_too_many_wait_halves_it_once_for_all_that_waited_together():
    adaptive = AdaptiveConcurrency(start=None, most=64)
    for second in range(1, 30):
        adaptive.success(float(second), in_flight=64, took_s=5.0)
    for _ in range(40):
        adaptive.timeout(36.0, begun=30.0)
    assert adaptive.cap == 32
    adaptive.timeout(42.0, begun=36.0)  # made with the others, just before they ended
    assert adaptive.cap == 32
    adaptive.timeout(42.5, begun=36.5)
    assert adaptive.cap == 16


def test_where_answers_take_half_of_the_time_limit_more_calls_would_only_wait():
    adaptive = AdaptiveConcurrency(start=None, most=64)
    for second in range(1, 30):
        adaptive.success(float(second), in_flight=64, took_s=5.0)
    adaptive.timeout(36.0, begun=30.0)
    for second in range(37, 200):
        adaptive.success(float(second), in_flight=32, took_s=3.2)
    assert adaptive.cap == 32
    for second in range(200, 400):
        adaptive.success(float(second), in_flight=32, took_s=0.5)
    assert adaptive.cap > 32


def test_a_call_that_hangs_alone_says_nothing_about_the_others():
    adaptive = AdaptiveConcurrency(start=None, most=64)
    for second in range(1, 30):
        adaptive.success(float(second), in_flight=64, took_s=0.2)
    adaptive.timeout(36.0, begun=30.0)
    assert adaptive.cap == 64
