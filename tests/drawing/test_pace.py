"""Rate and time left, from snapshots as a view sees them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lbgpt_pandas.drawing.pace import Pace, average
from lbgpt_pandas.engine.report import RunSnapshot

START = RunSnapshot(
    rows=1000, done=0, failed=0, skipped=0, cached=0, shared=0, in_flight=4, retries=0,
    prompt_tokens=0, completion_tokens=0, cost_usd=0.0, elapsed_s=0.0, finished=False,
)  # fmt: skip


def paced(*snapshots):
    pace = Pace()
    for snapshot in snapshots:
        pace.note(snapshot)
    return pace


def after(seconds, done, **changes):
    return replace(START, elapsed_s=seconds, done=done, **changes)


def steady(seconds, per_second, start=START):
    """A snapshot every 0.1 s."""
    return [
        replace(
            start, elapsed_s=start.elapsed_s + t / 10, done=int(start.done + t * per_second / 10)
        )
        for t in range(seconds * 10 + 1)
    ]


def test_nothing_is_known_at_first():
    assert (paced().rate, paced().left_s) == (None, None)
    assert (paced(START).rate, paced(START).left_s) == (None, None)


def test_a_steady_run():
    pace = paced(*steady(20, 10))
    assert pace.rate == pytest.approx(10, rel=0.02)
    assert pace.left_s == pytest.approx(80, rel=0.02)


def test_the_rate_is_that_of_the_last_seconds():
    slow = steady(30, 10)
    pace = paced(*slow, *steady(12, 50, slow[-1])[1:])
    assert pace.rate == pytest.approx(50, rel=0.02)


def test_the_time_left_follows_from_a_minute_because_limits_do():
    burst = steady(10, 60)
    pace = paced(*burst, *steady(20, 0, burst[-1])[1:])
    assert pace.rate == 0
    assert pace.left_s == pytest.approx(400 / 20, rel=0.05)


def test_cached_rows_do_not_shorten_the_time_left():
    first = after(0.0, 500, cached=500)
    later = [after(float(t), 500 + t, cached=500) for t in range(1, 11)]
    assert paced(START, first, *later).left_s == pytest.approx(490, rel=0.02)


def test_nothing_but_cached_rows_says_nothing_of_the_others():
    pace = paced(START, after(1.0, 300, cached=300))
    assert pace.rate == pytest.approx(300)
    assert pace.left_s is None


def test_failed_rows_take_their_time_too():
    assert paced(START, after(10.0, 0, failed=100)).left_s == pytest.approx(90)


def test_a_pause_is_not_part_of_the_rate():
    moving = steady(10, 10)
    waiting = [replace(moving[-1], elapsed_s=10.0 + t, paused=True) for t in range(1, 40)]
    pace = paced(*moving, *waiting)
    assert (pace.rate, pace.left_s) == (None, None)
    for snapshot in steady(5, 10, replace(waiting[-1], paused=False))[1:]:
        pace.note(snapshot)
    assert pace.rate == pytest.approx(10, rel=0.05)
    assert pace.left_s == pytest.approx(85, rel=0.05)


def test_nothing_is_left_of_a_run_that_is_over():
    assert paced(START, after(10.0, 1000)).left_s == 0.0
    assert paced(START, after(10.0, 900, finished=True)).left_s == 0.0


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_odd_times_are_passed_over(odd):
    pace = paced(*steady(10, 10), after(odd, 999))
    assert pace.rate == pytest.approx(10, rel=0.02)


def test_a_clock_that_goes_back_begins_anew():
    pace = paced(*steady(10, 10), after(1.0, 100), after(2.0, 120))
    assert pace.rate == pytest.approx(20)


def test_it_keeps_a_minute_only():
    pace = paced(*steady(300, 3))
    assert len(pace._moments) <= 2 * 61


def test_the_average_of_no_time_is_unknown():
    assert average(START) is None
    assert average(after(math.nan, 5)) is None
    assert average(after(2.0, 5)) == 2.5
