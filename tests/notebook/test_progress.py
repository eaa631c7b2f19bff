"""Which view is chosen where, and what a bar says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.report import RunSnapshot
from lbgpt_pandas.engine.states import RunHeading
from lbgpt_pandas.engine.views import NoView
from lbgpt_pandas.notebook.bars import DELAY_S, TqdmView, postfix
from lbgpt_pandas.notebook.progress import QuietView, choose_view
from lbgpt_pandas.notebook.surroundings import in_kernel

HEADING = RunHeading("complete", "gpt-4o-mini", "azure")
START = RunSnapshot(
    rows=200, done=0, failed=0, skipped=0, cached=0, shared=0, in_flight=0, retries=0,
    prompt_tokens=0, completion_tokens=0, cost_usd=0.0, elapsed_s=0.0, finished=False,
)  # fmt: skip


class Screen:
    """What was written to stderr so far."""

    def __init__(self, capsys):
        self._capsys, self._text = capsys, ""

    def text(self):
        self._text += self._capsys.readouterr().err
        return self._text

    def last_line(self):
        return self.text().split("\r")[-1].strip()


@pytest.fixture
def screen(capsys):
    return Screen(capsys)


# --- choosing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("progress", [False, "none"])
def test_no_progress_draws_nothing(progress, screen):
    view = choose_view(progress, HEADING)
    view.update(replace(START, done=100, elapsed_s=9.0))
    view.close(replace(START, done=200, elapsed_s=10.0, finished=True))
    assert isinstance(view, NoView)
    assert screen.text() == ""


@pytest.mark.parametrize("progress", [True, "tqdm", "widget"])
def test_progress_that_is_asked_for_is_drawn_into_a_file_too(progress, screen):
    view = choose_view(progress, HEADING)
    view.close(replace(START, done=200, elapsed_s=10.0, finished=True))
    assert "200/200" in screen.text()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_auto_draws_in_a_terminal_only(is_terminal, screen, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    view = choose_view("auto", HEADING)
    view.close(replace(START, done=200, elapsed_s=10.0, finished=True))
    assert ("200/200" in screen.text()) is is_terminal


def test_auto_without_any_stderr_draws_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert isinstance(choose_view("auto", HEADING), NoView)


@pytest.mark.parametrize("progress", ["bar", "", 1.5, None])
def test_any_other_progress_is_refused_with_the_choices(progress):
    with pytest.raises(ConfigurationError, match="auto, widget, tqdm, none, True or False"):
        choose_view(progress, HEADING)


@pytest.mark.parametrize("awaited", [True, False])
def test_a_bar_has_no_buttons_and_needs_none(awaited, screen):
    view = choose_view("tqdm", HEADING, controls=object(), awaited=awaited)
    view.close(replace(START, done=200, elapsed_s=10.0, finished=True))
    assert screen.last_line().startswith("lbgpt complete")


def test_a_test_run_is_no_kernel():
    assert not in_kernel()


@pytest.mark.process
def test_neither_tqdm_nor_ipython_is_loaded_before_something_is_drawn():
    script = """
        import sys
        from lbgpt_pandas.engine.report import RunSnapshot
        from lbgpt_pandas.engine.states import RunHeading
        from lbgpt_pandas.notebook.progress import choose_view

        shot = RunSnapshot(9, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.4, True)
        view = choose_view(True, RunHeading())
        view.update(shot)
        view.close(shot)
        print([name for name in ("tqdm", "IPython", "ipywidgets") if name in sys.modules])
        """
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=9,
        check=True,
        env=os.environ,
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")


# --- drawing ----------------------------------------------------------------------------------


def test_a_short_run_draws_nothing(screen):
    view = TqdmView()
    view.update(replace(START, done=100, elapsed_s=DELAY_S - 0.01))
    view.close(replace(START, done=200, elapsed_s=DELAY_S - 0.001, finished=True))
    assert screen.text() == ""


def test_a_longer_run_is_drawn_from_the_delay_on(screen):
    view = TqdmView(description="answers")
    view.update(replace(START, done=50, elapsed_s=DELAY_S - 0.01))
    assert screen.text() == ""
    view.update(replace(START, done=100, elapsed_s=DELAY_S))
    assert "50%" in screen.last_line()
    assert "100/200" in screen.last_line()
    assert screen.last_line().startswith("answers")
    view.close(replace(START, done=200, elapsed_s=2 * DELAY_S, finished=True))


def test_the_last_state_stays_on_the_screen(screen):
    view = TqdmView()
    view.update(replace(START, done=10, elapsed_s=1.0))
    view.close(replace(START, done=150, failed=40, skipped=10, elapsed_s=2.0, finished=True))
    assert "100%" in screen.last_line()
    assert "200/200" in screen.last_line()
    assert "failed=40" in screen.last_line()
    assert screen.text().endswith("\n")


def test_an_interrupted_run_shows_how_far_it_came(screen):
    view = TqdmView()
    view.update(replace(START, done=10, elapsed_s=1.0))
    view.close(replace(START, done=60, elapsed_s=2.0, finished=True))
    assert "60/200" in screen.last_line()


def test_time_and_speed_are_those_of_the_run_not_of_the_bar(screen):
    view = TqdmView()
    view.update(replace(START, done=120, cached=100, elapsed_s=20.0))
    line = screen.last_line()
    view.close(replace(START, done=200, cached=100, elapsed_s=40.0, finished=True))
    # 20 rows were asked for in 20 s, so the 80 that are left take 80 s.
    assert re.search(r"\[00:2[01]<01:(19|20|21)", line), line
    assert re.search(r"(1\.\d\d|0\.9\d)(row/s|s/row)", line), line


def test_nothing_new_is_not_drawn_again_within_a_second(screen):
    view = TqdmView()
    shot = replace(START, done=10, elapsed_s=1.0)
    view.update(shot)
    before = screen.text()
    view.update(replace(shot, elapsed_s=1.9, in_flight=3))
    assert screen.text() == before
    view.update(replace(shot, elapsed_s=2.1))
    clock = screen.text()
    assert clock != before
    view.update(replace(shot, elapsed_s=2.2, retries=1))
    assert "retries=1" in screen.text()[len(clock) :]
    view.close(shot)


def test_an_empty_run_can_be_drawn(screen):
    view = TqdmView()
    view.close(replace(START, rows=0, elapsed_s=1.0, finished=True))
    assert "0row" in screen.text() or "0/0" in screen.text()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, ""),
        ({"failed": 1_234}, "failed=1,234"),
        ({"cached": 3, "retries": 2, "failed": 1}, "failed=1, cached=3, retries=2"),
        ({"cost_usd": 0.01234}, "cost=$0.0123"),
        ({"cost_usd": None}, "cost=unknown"),
        ({"cached": 3, "cost_usd": 1_234.5}, "cached=3, cost=$1,234.5000"),
    ],
)
def test_the_postfix_names_what_is_not_zero(changes, text):
    assert postfix(replace(START, **changes)) == text


# --- failing ----------------------------------------------------------------------------------


class BrokenView:
    def __init__(self):
        self.calls = 0

    def update(self, snapshot):
        self.calls += 1
        raise OSError("the screen is gone")

    close = update


def test_a_view_that_fails_is_silenced_with_one_log_line(caplog):
    broken = BrokenView()
    view = QuietView(broken)
    view.update(START)
    view.update(START)
    view.close(START)
    assert broken.calls == 1
    assert [record.exc_info[0] for record in caplog.records] == [OSError]


def test_a_missing_screen_ends_no_run(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", None)  # pythonw, some services
    view = choose_view(True, HEADING)
    view.update(replace(START, done=10, elapsed_s=1.0))
    view.close(replace(START, done=200, elapsed_s=2.0, finished=True))
    assert len(caplog.records) == 1
