"""The circuit breaker: when it opens, for how long, and the one probe that closes it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine.limits.breaker import Breaker, Permit


def opened(*, alone: bool = False, now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(5):
        breaker.failure(now, breaker.admit(now), alone=alone)
    return breaker


def test_five_failures_in_a_row_open_it_and_four_do_not():
    breaker = Breaker()
    for count in range(1, 6):
        assert breaker.state(0.0) == "closed"
        breaker.failure(0.0, breaker.admit(0.0), alone=False)
        assert breaker.ejections == (count == 5)
    assert breaker.state(29.9) == "open"
    assert breaker.ready_at(1.0) == 30.0


def test_an_answer_in_between_starts_the_count_anew():
    breaker = Breaker()
    for number in range(9):
        now = number * 100.0  # so far apart that shares of a minute do not matter
        if number == 4:
            breaker.success(now, breaker.admit(now))
        else:
            breaker.failure(now, breaker.admit(now), alone=False)
    assert breaker.state(800.0) == "closed"


def test_half_of_ten_in_a_minute_open_it_without_any_row_of_failures():
    breaker = Breaker()
    for number in range(10):
        permit = breaker.admit(float(number))
        if number % 2:
            breaker.failure(float(number), permit, alone=False)
        else:
            breaker.success(float(number), permit)
    assert breaker.state(9.0) == "open"


def test_failures_of_more_than_a_minute_ago_do_not_count():
    breaker = Breaker()
    for number in range(10):
        now = number * 20.0
        permit = breaker.admit(now)
        if number % 2:
            breaker.failure(now, permit, alone=False)
        else:
            breaker.success(now, permit)
    assert breaker.state(180.0) == "closed"


def test_half_open_lets_one_probe_through_and_its_answer_closes():
    breaker = opened()
    assert breaker.state(30.0) == "half_open"
    probe = breaker.admit(30.0)
    assert breaker.ready_at(30.0) == math.inf
    breaker.success(31.0, probe)
    assert breaker.state(31.0) == "closed"
    assert (breaker.ejections, breaker.down_since) == (0, None)


@pytest.mark.parametrize(
    ("alone", "rests"),
    [(False, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300]),
     (True, [1, 2, 4, 8, 16, 32, 60, 60])],
)  # fmt: skip
def test_each_failed_probe_makes_the_rest_longer_up_to_a_bound(alone, rests):
    breaker, now = opened(alone=alone), 0.0
    for rest in rests:
        assert breaker.ready_at(now) - now == rest
        now = breaker.ready_at(now)
        breaker.failure(now, breaker.admit(now), alone=alone)


def test_a_probe_that_was_cancelled_leaves_its_turn_to_the_next():
    breaker = opened()
    probe = breaker.admit(30.0)
    breaker.abandon(31.0, probe)
    assert breaker.ready_at(31.0) == 31.0


def test_late_verdicts_of_calls_from_before_neither_close_it_nor_prolong_it():
    breaker = Breaker()
    late = [breaker.admit(0.0) for _ in range(3)]
    for _ in range(5):
        breaker.failure(0.0, breaker.admit(0.0), alone=False)
    breaker.success(1.0, late[0])
    breaker.failure(1.0, late[1], alone=False)
    assert breaker.ready_at(1.0) == 30.0
    probe = breaker.admit(30.0)
    breaker.success(30.5, late[2])
    assert breaker.ready_at(30.5) == math.inf
    breaker.success(31.0, probe)
    assert breaker.state(31.0) == "closed"


def test_the_outage_counts_from_its_first_failure():
    breaker = Breaker()
    for now in (10.0, 11.0, 12.0, 13.0, 14.0):
        breaker.failure(now, breaker.admit(now), alone=True)
    assert breaker.down_since == 10.0


@given(st.lists(st.tuples(st.sampled_from(["call", "ok", "bad", "gone"]), st.floats(0, 40))))
def test_there_is_never_more_than_one_probe(history):
    breaker, now = Breaker(), 0.0
    open_permits: list[Permit] = []
    for action, seconds in history:
        now += seconds
        if action == "call":
            if breaker.ready_at(now) <= now:
                open_permits.append(breaker.admit(now))
        elif open_permits:
            permit = open_permits.pop(0)
            match action:
                case "ok":
                    breaker.success(now, permit)
                case "bad":
                    breaker.failure(now, permit, alone=False)
                case "gone":
                    breaker.abandon(now, permit)
        current = [p for p in open_permits if p.is_probe and p.era == breaker._era]
        assert len(current) <= 1


@given(st.lists(st.tuples(st.sampled_from(["call", "ok", "bad", "gone"]), st.floats(0, 40))))
def test_a_caller_that_does_not_ask_gets_one_probe_all_the_same(history):
    breaker, now = opened(), 0.0
    permits: list[Permit] = []
    for action, seconds in history:
        now += seconds
        if action == "call":
            permits.append(breaker.admit(now))
        elif permits:
            permit = permits.pop()
            match action:
                case "ok":
                    breaker.success(now, permit)
                case "bad":
                    breaker.failure(now, permit, alone=True)
                case "gone":
                    breaker.abandon(now, permit)
        assert sum(p.is_probe and p.era == breaker._era for p in permits) <= 1


def test_a_call_beside_the_probe_says_nothing():
    breaker = opened()
    probe, beside = breaker.admit(30.0), breaker.admit(30.0)
    breaker.success(31.0, beside)
    assert breaker.ready_at(31.0) == math.inf
    breaker.failure(31.0, beside, alone=False)
    breaker.abandon(31.0, beside)
    assert breaker.ready_at(31.0) == math.inf
    breaker.success(32.0, probe)
    assert breaker.state(32.0) == "closed"
