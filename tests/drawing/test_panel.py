"""The dashboard's memory, its lines, and what it says without images."""

from __future__ import annotations

import base64
import re

import pytest

from lbgpt_pandas.drawing.panel import (
    MOST_DEPLOYMENTS,
    RATE_STEPS,
    SPAN_S,
    STEPS,
    CacheCounts,
    History,
    panel_html,
)
from lbgpt_pandas.drawing.sparkline import sparkline
from lbgpt_pandas.engine.states import DeploymentState, Gauge

STEP_S = SPAN_S / STEPS


def east(free=0.5, in_flight=3, **more):
    return DeploymentState(
        "east", requests=Gauge(free * 100, 100), in_flight=in_flight, places=10, **more
    )


def known(line):
    return [value for value in line if value is not None]


def test_a_dip_within_a_step_is_kept():
    history = History()
    for at, free, calls in ((0.0, 0.9, 1), (0.1, 0.2, 9), (0.2, 0.8, 2)):
        history.note(at, [east(free, calls)], CacheCounts())
    assert known(history.free("east", "requests")) == pytest.approx([0.2])
    assert known(history.in_flight("east")) == [9.0]
    assert history.deployments == (east(0.8, 2),)


def test_the_newest_is_at_the_end_and_time_without_notes_is_a_gap():
    history = History()
    for step in (0, 1, 5):
        history.note(step * STEP_S, [east(step / 10)], CacheCounts())
    line = history.free("east", "requests")
    assert len(line) == STEPS
    assert line[-6:] == pytest.approx([0.0, 0.1, None, None, None, 0.5])
    assert known(history.free("east", "tokens")) == []
    assert known(history.free("west", "requests")) == []


def test_it_forgets_what_is_older_than_its_span():
    history = History()
    for step in range(5 * STEPS):
        history.note(step * STEP_S, [east()], CacheCounts(misses=step))
    assert len(history._steps) == STEPS
    assert len(known(history.in_flight("east"))) == STEPS
    assert history.recent.misses == STEPS
    history.note(100 * SPAN_S, [east()], CacheCounts())
    assert len(known(history.in_flight("east"))) == 1


def test_the_hit_rate_is_that_of_the_last_steps():
    history = History()
    history.note(0.0, [], CacheCounts(hits=1_000))
    for step in range(1, 30):
        hits = 0 if step < 15 else (step - 14) * 3
        semantic = 0 if step < 15 else step - 14
        misses = step * 4 if step < 15 else 56
        history.note(step * STEP_S, [], CacheCounts(1_000 + hits, misses, semantic))
    rates = history.hit_rates()
    assert rates[-30] is None
    assert rates[-20] == 0.0
    assert rates[-(RATE_STEPS // 2)] == pytest.approx(1.0)
    assert 0 < rates[-13] < 1
    assert history.recent == CacheCounts(45, 56, 15)


def test_counts_that_begin_anew_are_not_negative():
    before, now = CacheCounts(90, 10, 5), CacheCounts(2, 3, 0)
    assert now.since(before) == now
    assert CacheCounts(95, 11, 6).since(before) == CacheCounts(5, 1, 1)


def test_the_dashboard_in_words(page):
    history = History()
    history.note(0.0, [east(1.0, 0)], CacheCounts())
    history.note(4.0, [east(0.25, 8, answered=7)], CacheCounts(hits=6, misses=3, semantic=1))
    read = page(panel_html(history))
    for words in (
        "1 deployment", "the last 5 minutes", "70.0 % cache hits · 10 lookups", "6 exact",
        "1 semantic", "3 asked · 70.0 % hits since the start", "● east ready",
        "8 of 10 in flight", "25 of 100 requests", "tokens: no limit",
    ):  # fmt: skip
        assert words in read.text
    alts = [value for name, value in read.attributes if name == "alt"]
    assert alts == [
        "cache hit rate: now 70.0 %, from 70.0 % to 70.0 %",
        "in flight: now 8, at most 8",
        "requests free: now 25.0 %, from 25.0 % to 100 %",
    ]
    titles = [value for name, value in read.attributes if name == "title"]
    assert set(alts) <= set(titles)


def test_a_dashboard_of_nothing(page):
    assert "0 deployments" in page(panel_html(History())).text
    history = History()
    history.note(0.0, [], CacheCounts())
    assert "no lookup yet" in page(panel_html(history)).text


def test_very_many_deployments_are_counted(page):
    history = History()
    states = [DeploymentState(f"d{i}") for i in range(MOST_DEPLOYMENTS + 3)]
    history.note(0.0, states, CacheCounts())
    read = page(panel_html(history))
    assert "and 3 more deployments" in read.text
    assert f"d{MOST_DEPLOYMENTS} " not in read.text


def drawing(html):
    data = re.search(r"base64,([\w+/=]+)", html)[1]
    return base64.b64decode(data).decode()


def test_a_line_is_an_image_with_its_words():
    html = sparkline([0.0, 1.0], 'from "0" to $1', colour="#123456")
    assert html.startswith('<img alt="from &quot;0&quot; to &#36;1" title="from')
    svg = drawing(html)
    assert 'd="M0.0 23.0L240.0 1.0"' in svg
    assert "<script" not in svg


def test_gaps_are_left_out_and_values_are_kept_within_the_image():
    svg = drawing(sparkline([None, 7.0, None, -3.0, 0.5], "x", colour="red"))
    assert re.findall(r'd="(M[^"]+)" fill="none"', svg) == [
        "M0.0 1.0L60.0 1.0M180.0 23.0L240.0 12.0"
    ]
    assert drawing(sparkline([], "x", colour="red")).count('d=""') == 2
    assert "nan" not in drawing(sparkline([float("nan")], "x", colour="red"))
