"""What a run's view says in every state, as a reader without styles would read it."""

from __future__ import annotations

import math
import re
import time
from dataclasses import replace

import pytest

from lbgpt_pandas.drawing.pace import Pace
from lbgpt_pandas.drawing.parts import AMBER, BLUE, RED
from lbgpt_pandas.drawing.run import run_html, run_line, run_text
from lbgpt_pandas.engine.report import RunSnapshot
from lbgpt_pandas.engine.states import (
    BudgetState,
    DeploymentState,
    Failures,
    Gauge,
    RunHeading,
)

EMPTY = RunSnapshot(
    rows=0, done=0, failed=0, skipped=0, cached=0, shared=0, in_flight=0, retries=0,
    prompt_tokens=0, completion_tokens=0, cost_usd=0.0, elapsed_s=0.0, finished=False,
)  # fmt: skip
RETRY = "lb.last_run().retry_failed()"


@pytest.fixture
def read(page, heading):
    """The words of a run's view."""
    return lambda snapshot, **more: page(run_html(heading, snapshot, **more)).text


def test_a_run_says_everything_in_words(read, running):
    text = read(running, hint="Interrupt to stop")
    for words in (
        "complete gpt-4o-mini → answer", "run 7f3c · Balanced of 3 · Interrupt to stop",
        "9,610 of 12,480 rows · 77.8 %",
        "■ 5,740 asked · ▥ 2,621 exact · ▨ 499 semantic · ▤ 750 shared · ✖ 100 failed",
        "64 in flight",
        "cache hits, of all answers: 27.2 % exact + 5.1 % semantic + 7.8 % shared",
        "40.2 % cache hits · saved $0.41",
        "$1.27 billed · about $1.80 in all", "budget $1.27 of $5.00 · $3.73 left",
        "2.1 M tokens · 1.8 M in, 300 k out", "23 retries · 2 × 429",
        "● openai-a ready 21 of 64 in flight 1,913 answered · 0 × 429",
        "312 of 1,200 requests 88 k of 200 k tokens",
        "● azure-eu ready 43 of 64 in flight 3,827 answered · 2 × 429",
        "requests: no limit tokens: no limit",
        "▲ azure-us resting 12 s after ServerError 503",
        "100 rows failed: 81 × ContentFiltered, 19 × ContextTooLong",
        "81 × ContentFiltered no 19 × ContextTooLong long",
        f"when the run is over, {RETRY} asks them again",
    ):  # fmt: skip
        assert words in text


def test_rate_and_time_left_come_from_the_pace(read, running):
    pace = Pace()
    pace.rate, pace.left_s = 38.44, 72.0
    text = read(running, pace=pace)
    assert "1m 12s left · 3m 58s gone" in text
    assert "38.4/s rows · 40.8/s on average" in text


def test_without_a_pace_they_follow_from_the_average(read, running):
    text = read(running)
    assert "40.8/s rows, on average" in text
    assert "1m 40s left · 3m 58s gone" in text
    assert "gone · time left not known" in read(replace(running, failed=0, done=3_120, shared=0))


def test_a_report_has_totals_instead_of_what_is_left(read, finished):
    text = read(finished, pace=Pace(), hint="Interrupt to stop", notes=["3 answers were cut"])
    assert "3m 58s from start to end" in text
    assert "52.4/s rows, on average" in text
    assert "12,340 of 12,480 rows · ■ 8,470 asked" in text
    assert "□ 40 skipped (NA)" in text
    assert "1,913 answered · 0 × 429 33.3 % of the answers" in text
    assert text.endswith("3 answers were cut")
    assert f"{RETRY} asks them again" in text
    for gone in ("left ·", "Interrupt", "in flight", "ready", "resting", "in all", "Stopped"):
        assert gone not in text


def test_a_paused_run_says_so(read, running):
    text = read(replace(running, paused=True))
    assert "‖ Paused: nothing new is started, 64 calls under way." in text
    assert "3m 58s gone · paused" in text


def test_a_run_that_is_stopping_and_one_that_was_stopped_say_so(read, running, finished):
    assert "■ Stopping: nothing new is started, 64 calls under way." in read(
        replace(running, stopped=True, paused=True)
    )
    cut = read(replace(finished, stopped=True, done=12_000))
    assert "■ Stopped early: 340 rows not reached; finished rows are kept." in cut
    assert "· 97.2 % ·" in cut
    assert "every row was reached" in read(replace(finished, stopped=True))


def test_how_to_ask_for_rows_that_were_not_reached(read, finished):
    cut = replace(finished, stopped=True, done=12_000, failed=0, failures=())
    assert RETRY in read(cut)
    assert RETRY not in read(replace(finished, done=12_440, failed=0, failures=()))


def test_a_run_that_nobody_can_look_up_names_no_last_run(page, running):
    assert RETRY not in page(run_html(RunHeading(), running)).text


def test_calls_that_wait_are_not_in_flight(read, running):
    text = read(replace(running, in_flight=100))
    assert "64 in flight · 36 waiting to be sent" in text


HELD = DeploymentState("east", "waiting", wait_s=2.2)


@pytest.mark.parametrize(
    ("states", "sentence"),
    [
        ([HELD], "Waiting: east has used up its limits; the next call can start in 3 s."),
        (
            [HELD, replace(HELD, name="west", wait_s=0.4)],
            "Waiting: each of 2 deployments has used up its limits; the next call can start in 1 s.",
        ),
        (
            [replace(HELD, health="blocked", wait_s=90)],
            "Waiting: east was asked to wait by its provider; the next call can start in 1m 30s.",
        ),
        (
            [replace(HELD, health="resting", fault="ServerError 503", wait_s=math.inf)],
            "Waiting: east rests after ServerError 503; nobody knows for how long.",
        ),
        (
            [HELD, replace(HELD, health="resting", wait_s=9)],
            "Waiting: no deployment takes calls (1 waiting, 1 resting); the next call can start in 3 s.",
        ),
        ([HELD, DeploymentState("west")], ""),
        ([HELD, DeploymentState("west", "probing")], ""),
        ([], ""),
    ],
)
def test_why_a_run_waits_is_one_sentence(read, running, states, sentence):
    text = read(replace(running, deployments=tuple(states)))
    assert sentence in text
    assert ("Waiting:" in text) is bool(sentence)


def test_a_run_whose_calls_are_all_sent_waits_for_nothing(read, running):
    busy = replace(HELD, in_flight=10)
    last = replace(running, rows=9_720, in_flight=10, deployments=(busy,))
    assert "Waiting:" not in read(last)
    assert "Waiting:" in read(replace(last, deployments=(HELD,)))
    assert "Waiting:" not in read(replace(EMPTY, deployments=(HELD,)))


@pytest.mark.parametrize(
    ("health", "words"),
    [
        ("ready", "● east ready"),
        ("waiting", "◐ east waiting 3 s for its limits"),
        ("blocked", "■ east blocked 3 s (provider asked to wait)"),
        ("resting", "▲ east resting 3 s after ServerError 503"),
        ("probing", "◇ east probing after ServerError 503"),
    ],
)
def test_health_is_a_symbol_and_words(read, running, health, words):
    fault = "ServerError 503" if health in {"resting", "probing"} else ""
    state = replace(HELD, health=health, fault=fault)
    assert words in read(replace(running, deployments=(state,)))


def test_a_wait_without_an_end_has_no_number(read, running):
    for health, words in (("waiting", "waiting for its"), ("resting", "resting after failures")):
        state = replace(HELD, health=health, wait_s=math.inf)
        assert words in read(replace(running, deployments=(state,)))


def test_many_deployments_are_folded_and_the_unwell_ones_named(read, page, heading, running):
    states = [DeploymentState(f"d{i}") for i in range(12)]
    states[10] = DeploymentState("d10", "resting", wait_s=5, fault="Timeout")
    run = replace(running, deployments=tuple(states), failures=(), failed=0)
    assert "4 more deployments: 3 ready, 1 resting: d10 resting 5 s after Timeout" in read(run)
    html = run_html(heading, run)
    before, _, folded = html.partition("<details")
    assert "<bdi>d7</bdi>" in before
    assert "<bdi>d8</bdi>" not in before
    assert "<bdi>d11</bdi>" in folded
    assert "<details" not in run_html(heading, replace(run, deployments=tuple(states[:8])))
    assert "4 more deployments: 0 answered" in read(replace(run, finished=True))


def test_failures_are_open_while_the_run_goes_on_and_folded_in_its_report(
    heading, running, finished
):
    kinds = tuple(Failures(f"Kind{i}", 9 - i, "x" * 900) for i in range(5))
    live = run_html(heading, replace(running, failures=kinds))
    report = run_html(heading, replace(finished, failures=kinds))
    assert "<details open" in live
    assert "5 × Kind4" not in live
    assert "and 2 other kinds" in live
    assert "<details open" not in report
    assert "5 × Kind4" in report
    assert max(map(len, re.findall("x+…", live))) < max(map(len, re.findall("x+…", report))) == 300


@pytest.mark.parametrize("price", [None, math.nan, math.inf])
def test_an_unknown_price_is_never_zero(read, running, price):
    limits = (BudgetState("usd", None if price == math.inf else price, 5.0),)
    text = read(replace(running, cost_usd=price, saved_usd=price, budget=limits))
    assert "price unknown billed" in text
    assert "saving: price unknown" in text
    assert "budget $5.00, of which nobody knows how much is spent: price unknown" in text
    assert "$0" not in text


def test_budgets_of_all_units(read, running):
    limits = (
        BudgetState("usd", 6.0, 5.0),
        BudgetState("tokens", 9_600_000, 10_000_000),
        BudgetState("requests", 40, 100),
    )
    text = read(replace(running, budget=limits))
    assert "budget $6.00 of $5.00 · $0.00 left" in text
    assert "budget 9.6 M of 10 M tokens · 400 k left" in text
    assert "budget 40 of 100 requests · 60 left" in text


def test_odd_numbers_make_sense(read):
    text = read(EMPTY, pace=Pace())
    assert "0 of 0 rows · 0 %" in text
    assert "0.0 s gone · time left not known" in text
    assert "? rows, on average" in text
    assert "$0.00 billed" in text
    odd = DeploymentState(
        "east", requests=Gauge(math.nan, 0), tokens=Gauge(math.inf, math.inf), places=0
    )
    text = read(replace(EMPTY, elapsed_s=math.nan, deployments=(odd,), rows=5, finished=True))
    assert "? from start to end" in text
    assert "Stopped early: 5 rows not reached" in text
    assert "? of 0 requests ∞ of ∞ tokens" in read(replace(EMPTY, deployments=(odd,)))


def test_long_names_are_shortened_and_whole_in_a_title(page, running):
    name = "deployment-" + "x" * 90 + "-eu"
    html = run_html(RunHeading(model=name), replace(running, deployments=(DeploymentState(name),)))
    read = page(html)
    assert name not in read.text
    assert "deployment-" in read.text
    assert "-eu" in read.text
    assert [value for key, value in read.attributes if key == "title"].count(name) == 2
    assert all(len(word) <= 60 for word in read.text.split())


def test_the_bar_is_as_wide_as_the_rows_that_are_settled(heading, running):
    html = run_html(heading, running)
    widths = [float(width) for width in re.findall(r"flex:0 1 ([\d.]+)%", html)]
    assert sum(widths) == pytest.approx(100 * 9_710 / 12_480, abs=0.1)


def test_small_shares_are_escaped(heading, running):
    html = run_html(heading, replace(running, rows=100_000_000))
    assert "&lt;0.1 %" in html
    assert "<0.1" not in html


def test_what_is_nearly_used_up_changes_its_colour(heading, running):
    def colours(left, spent):
        state = DeploymentState("east", requests=Gauge(left, 100))
        limit = BudgetState("requests", spent, 100)
        html = run_html(heading, replace(running, deployments=(state,), budget=(limit,)))
        return re.findall(r"height:6px;background:(#\w+)", html)

    assert colours(50, 50) == [BLUE, BLUE]
    assert colours(5, 50) == [BLUE, AMBER]
    assert colours(50, 90) == [AMBER, BLUE]
    assert colours(50, 100) == [RED, BLUE]


def test_nothing_needs_scripts_style_sheets_or_drawings(heading, running):
    html = run_html(heading, running)
    assert not re.search("<(script|style|svg|link)", html)


def test_one_line(heading, running, finished):
    assert run_line(heading, running) == (
        "lbgpt complete gpt-4o-mini: 9,610 of 12,480 rows, 3,120 from cache, 100 failed, 3m 58s, "
        "$1.27, running"
    )
    assert run_line(heading, finished).endswith("100 failed, 40 skipped (NA), 3m 58s, $1.27")
    assert run_line(heading, replace(running, paused=True)).endswith("paused")
    assert run_line(heading, replace(running, stopped=True)).endswith("stopping")
    assert run_line(heading, replace(finished, stopped=True)).endswith("stopped early")
    assert run_line(RunHeading("", "m\n\x1b[2J"), replace(EMPTY, cost_usd=None)) == (
        "lbgpt m  [2J: 0 of 0 rows, 0 failed, 0.0 s, price unknown, running"
    )


def test_lines_of_text_say_the_same(heading, running):
    text = run_text(heading, replace(running, paused=True), notes=["a\nb"])
    lines = text.split("\n")
    assert lines[0] == "lbgpt complete gpt-4o-mini · run 7f3c"
    assert lines[1].startswith("  ‖ Paused")
    assert "  budget   $1.27 of $5.00 · $3.73 left" in lines
    assert "  ! 81 × ContentFiltered: no" in lines
    assert any("openai-a: ready, free: 312 of 1,200 requests" in line for line in lines)
    assert any("27.2 % exact + 5.1 % semantic + 7.8 % shared" in line for line in lines)
    assert lines[-1] == "  a b"


def test_a_drawing_takes_less_than_half_a_millisecond(heading, running):
    spent = []
    for _ in range(200):
        began = time.thread_time()
        run_html(heading, running)
        spent.append(time.thread_time() - began)
    assert sorted(spent)[20] < 0.0005
