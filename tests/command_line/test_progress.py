"""What a command says while it runs."""

from __future__ import annotations

import warnings

import pytest

from lbgpt_pandas.command_line.progress import LineView, OpeningView, drawn_as, plain_warnings
from lbgpt_pandas.engine.errors import CacheWarning
from lbgpt_pandas.engine.report import RunSnapshot
from lbgpt_pandas.engine.states import RunHeading
from lbgpt_pandas.engine.views import NoView, open_view

HEADING = RunHeading("complete", "m", "ChatGPT", "answer", "id")


def at(seconds, *, cached=0, asked=0, failed=0, in_flight=0, stopped=False, finished=False):
    return RunSnapshot(
        rows=1_000, done=cached + asked, failed=failed, skipped=10, cached=cached, shared=0,
        in_flight=in_flight, retries=0, prompt_tokens=0, completion_tokens=0, cost_usd=0.0,
        elapsed_s=seconds, finished=finished, stopped=stopped,
    )  # fmt: skip


def said(capsys):
    return [line.removeprefix("lbgpt_pandas: ") for line in capsys.readouterr().err.splitlines()]


OPENING = "1,000 rows: 400 already answered, 590 to go, 10 skipped (NA)"


def test_the_opening_comes_once_and_only_when_the_cache_was_looked_through(capsys):
    view = OpeningView(NoView())
    view.update(at(0.1, cached=200))
    assert said(capsys) == []
    view.update(at(0.2, cached=400, in_flight=64))
    view.update(at(0.3, cached=400, asked=9, in_flight=64))
    view.close(at(1.0, cached=400, asked=590, finished=True))
    assert said(capsys) == [OPENING]


def test_without_a_call_the_opening_comes_at_the_end_unless_it_was_stopped(capsys):
    OpeningView(NoView()).close(at(0.1, cached=990, finished=True))
    assert said(capsys) == ["1,000 rows: 990 already answered, 0 to go, 10 skipped (NA)"]
    OpeningView(NoView()).close(at(0.1, cached=5, stopped=True, finished=True))
    assert said(capsys) == []


def test_lines_come_every_five_seconds(capsys):
    view = LineView()
    for tick in range(151):
        view.update(at(tick / 10, asked=tick * 5, failed=int(tick > 100), in_flight=1))
    assert said(capsys) == [
        "260 of 1,000 rows (26 %), 50.0 rows/s, 15 s left",
        "510 of 1,000 rows (51 %), 50.0 rows/s, 10 s left",
        "761 of 1,000 rows (76 %), 50.1 rows/s, 5 s left, failed=1",
    ]


@pytest.mark.parametrize(
    ("choice", "quiet", "lines"),
    [("lines", False, 2), ("auto", False, 2), ("none", False, 1), ("lines", True, 0)],
)
def test_the_choice_is_heard(capsys, choice, quiet, lines):
    with drawn_as(choice, quiet=quiet):
        view = open_view(True, HEADING)
        view.update(at(6.0, cached=400, in_flight=1))
        view.close(at(7.0, cached=400, asked=590, finished=True))
    assert len(said(capsys)) == lines
    assert isinstance(open_view("none", HEADING), NoView), "later runs are drawn as ever"


def test_warnings_are_lines(capsys):
    with plain_warnings():
        warnings.warn("the store\nis away", CacheWarning, stacklevel=1)
    assert said(capsys) == ["the store is away"]
