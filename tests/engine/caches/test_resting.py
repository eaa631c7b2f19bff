"""When something that failed is tried again."""

from __future__ import annotations

from lbgpt_pandas.engine.caches.resting import LONGEST_REST_S, Rest


def test_rests_grow_to_half_a_minute_and_begin_anew_after_a_success():
    rest, now, lengths = Rest(), 100.0, []
    for _ in range(7):
        attempt = rest.begin(now)
        rest.failed(attempt, now)
        start = now
        while (attempt := rest.begin(now)) is None:
            now += 0.5
        rest.abandoned(attempt)
        lengths.append(now - start)
    assert lengths == [1, 2, 4, 8, 16, LONGEST_REST_S, LONGEST_REST_S]
    rest.succeeded(rest.begin(now))
    rest.failed(rest.begin(now), now)
    assert rest.begin(now + 0.9) is None
    assert rest.begin(now + 1.0) is not None


def test_any_number_at_a_time_while_nothing_has_failed_and_one_after_a_rest():
    rest = Rest()
    assert {rest.begin(0.0), rest.begin(0.0)} == {0}
    rest.failed(0, 0.0)
    attempt = rest.begin(1.0)
    assert attempt is not None
    assert rest.begin(50.0) is None
    rest.succeeded(attempt)
    assert None not in {rest.begin(50.0), rest.begin(50.0)}


def test_failures_of_one_moment_are_one_failure():
    rest = Rest()
    attempts = [rest.begin(0.0) for _ in range(10)]
    for attempt in attempts:
        rest.failed(attempt, 0.0)
    assert rest.begin(0.9) is None
    assert rest.begin(1.0) is not None


def test_who_began_before_a_failure_does_not_end_the_rest():
    rest = Rest()
    early, failing = rest.begin(0.0), rest.begin(0.0)
    rest.failed(failing, 0.0)
    rest.succeeded(early)
    assert rest.begin(0.5) is None


def test_an_attempt_that_is_broken_off_gives_way_to_another():
    rest = Rest()
    rest.failed(rest.begin(0.0), 0.0)
    rest.abandoned(rest.begin(1.0))
    assert rest.begin(1.0) is not None


def test_a_reset_ends_the_rest():
    rest = Rest()
    for _ in range(3):
        rest.failed(rest.begin(0.0), 0.0)
        rest.reset()
        assert rest.begin(0.0) is not None
