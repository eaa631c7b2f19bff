"""Runs in the background: `df.lbgpt.submit` and its `Run`."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
import weakref

import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.submissions import submissions
from lbgpt_pandas.testing import ScriptedGPT

SOON_S = 10.0
"""For what must come; a test that waits so long fails."""


@pytest.fixture
def gate():
    """An event for which answers wait."""
    event = threading.Event()
    yield event
    event.set()


class Gated:
    """Answers `open_for` rows at once, the others when the gate opens."""

    def __init__(self, gate, *, open_for=0):
        self.gate, self.open_for, self.asked = gate, open_for, 0
        self.reached = threading.Event()

    async def __call__(self, request):
        self.asked += 1
        if self.asked > self.open_for:
            self.reached.set()
            while not self.gate.is_set():
                await asyncio.sleep(0.002)
        return f"re: {request.messages[-1]['content']}"


def column(rows=10):
    return pd.Series([f"row {number}" for number in range(rows)], index=range(rows, 0, -1))


def submit(engine, rows=10, **keywords):
    return column(rows).lbgpt.submit("{}", engine=engine, cache_mode="off", **keywords)


def test_submit_returns_at_once_and_the_result_is_what_complete_returns(gate):
    script = Gated(gate)
    run = submit(ScriptedGPT(script), name="answer")
    assert script.reached.wait(SOON_S)
    assert not run.done
    assert run.progress().in_flight
    gate.set()
    result = run.result(timeout=SOON_S)
    expected = column().lbgpt.complete("{}", engine=ScriptedGPT(Gated(gate)), cache_mode="off",
                                       name="answer")  # fmt: skip
    pd.testing.assert_series_equal(result, expected)
    assert run.done
    assert run.report.result.equals(result)
    assert lb.last_run() is not None


def test_partial_has_what_is_finished_under_the_frames_index(gate):
    script = Gated(gate, open_for=4)
    run = submit(ScriptedGPT(script, max_parallel_calls=1))
    assert script.reached.wait(SOON_S)
    partial = run.partial()
    assert partial.index.equals(column().index)
    assert partial.notna().sum() == 4
    assert run.report.rows["status"].value_counts().to_dict() == {"ok": 4, "not_run": 6}


def test_a_time_out_ends_the_wait_and_not_the_run(gate):
    run = submit(ScriptedGPT(Gated(gate)))
    with pytest.raises(TimeoutError, match="the run goes on"):
        run.result(timeout=0.01)
    gate.set()
    assert run.result(timeout=SOON_S).notna().all()


def test_a_cancelled_run_says_so_and_keeps_its_rows(gate):
    script = Gated(gate, open_for=4)
    run = submit(ScriptedGPT(script, max_parallel_calls=1))
    assert script.reached.wait(SOON_S)
    run.cancel()
    with pytest.raises(lb.RunAborted, match="cancelled"):
        run.result(timeout=SOON_S)
    assert run.partial().notna().sum() == 4
    assert run.progress().stopped
    gate.set()
    assert run.report.retry_failed().notna().all()


def test_a_paused_run_goes_on_when_it_is_told_to(gate):
    script = Gated(gate, open_for=3)
    run = submit(ScriptedGPT(script, max_parallel_calls=1))
    assert script.reached.wait(SOON_S)
    run.pause()
    gate.set()
    with pytest.raises(TimeoutError):
        run.result(timeout=0.04)
    assert run.progress().paused
    asked = script.asked
    threading.Event().wait(0.03)
    assert script.asked == asked < 10
    run.resume()
    assert run.result(timeout=SOON_S).notna().all()


async def test_a_run_can_be_awaited_and_the_loop_goes_on(gate):
    run = submit(ScriptedGPT(Gated(gate)))
    ticks = 0
    waiting = asyncio.ensure_future(_wait(run))
    for _ in range(20):
        await asyncio.sleep(0.001)
        ticks += 1
    gate.set()
    assert (await waiting).notna().all()
    assert ticks == 20


async def _wait(run):
    return await run


async def test_to_cancel_the_wait_does_not_cancel_the_run(gate):
    run = submit(ScriptedGPT(Gated(gate)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await run
    gate.set()
    assert (await run).notna().all()


def test_failures_are_told_where_the_result_is_taken(gate):
    run = submit(ScriptedGPT(lambda _: lb.BadRequest("no", status=400)), rows=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        while not run.done:
            threading.Event().wait(0.005)
    with pytest.warns(lb.RowErrorsWarning, match="3 of 3 rows failed") as caught:
        run.result()
    assert caught[0].filename == __file__


def test_what_complete_raises_the_result_raises():
    def refuse(_):
        return lb.AuthError("wrong key", status=401)

    run = submit(ScriptedGPT(refuse))
    with pytest.raises(lb.AuthError):
        run.result(timeout=SOON_S)
    with pytest.raises(lb.AuthError):
        run.result(timeout=SOON_S)
    failing = ScriptedGPT(lambda _: lb.BadRequest("no", status=400))
    run = submit(failing, errors="raise")
    with pytest.raises(lb.RowErrors):
        run.result(timeout=SOON_S)


def test_bad_arguments_are_refused_before_anything_starts():
    engine = ScriptedGPT()
    before = {run.id for run in submissions()}
    with pytest.raises(lb.TemplateError):
        column().lbgpt.submit("{nowhere}", engine=engine)
    assert {run.id for run in submissions()} <= before
    assert not engine.requests


def test_settings_are_those_of_the_moment_of_submission(gate):
    engine = ScriptedGPT(Gated(gate))
    with lb.using(engine, cache=None):
        run = column().lbgpt.submit("{}")
    gate.set()
    assert run.result(timeout=SOON_S).notna().all()


def test_two_runs_at_once_do_not_mix(gate):
    runs = [submit(ScriptedGPT(Gated(gate), name=name)) for name in "ab"]
    assert len({run.id for run in runs}) == 2
    gate.set()
    for run in runs:
        assert run.result(timeout=SOON_S).tolist() == [f"re: row {number}" for number in range(10)]


def test_submissions_lists_what_goes_on_and_what_is_held(gate):
    running = submit(ScriptedGPT(Gated(gate)))
    identifier = running.id
    del running
    gc.collect()
    (listed,) = [run for run in submissions() if run.id == identifier]
    gate.set()
    listed.result(timeout=SOON_S)
    assert listed in submissions()
    gone = weakref.ref(listed)
    del listed
    while threading.active_count() > 1 and any(
        thread.name == f"lbgpt-run-{identifier}" for thread in threading.enumerate()
    ):
        threading.Event().wait(0.005)
    gc.collect()
    assert gone() is None
    assert identifier not in [run.id for run in submissions()]


def test_a_run_shows_itself_without_secrets(gate):
    run = submit(ScriptedGPT(Gated(gate), name="<b>east</b>"), name="<i>answer</i>")
    assert run.id in repr(run)
    assert "\n" not in repr(run)
    assert "<i>" not in run._repr_html_()
    assert "<b>east" not in run._repr_html_()


def test_an_empty_frame_ends_at_once():
    run = column(0).lbgpt.submit("{}", engine=ScriptedGPT(), cache_mode="off")
    assert run.result(timeout=SOON_S).empty
