"""A run that did not finish is told apart, and the run that goes on with it says so."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.processes import is_there, show_sign
from lbgpt_pandas.testing import ScriptedGPT

WORDS = pd.Series([*"abcd", None, "a"])


@pytest.fixture(autouse=True)
def own_cache(tmp_path):
    with lb.using(cache=tmp_path / "cache", progress="none"):
        yield tmp_path / "cache"


class Stuck:
    """Answers the first requests, and the others when it is released."""

    def __init__(self, answered=2):
        self.engine = ScriptedGPT(self._answer, max_parallel_calls=1)
        self.answered = answered
        self.is_stuck = threading.Event()
        self.released = threading.Event()

    async def _answer(self, request):
        if len(self.engine.requests) > self.answered:
            self.is_stuck.set()
            while not self.released.is_set():
                await asyncio.sleep(0.005)
        return request.messages[-1]["content"].upper()


def interrupt(engine=None, rows=WORDS, **keywords):
    """Leave a run of `rows` with two answers."""
    engine = engine or ScriptedGPT(
        lambda request: request.messages[-1]["content"].upper(),
        latency_s=lambda _: 30 * (len(engine.requests) > 2),
        max_parallel_calls=1,
    )

    async def main():
        run = asyncio.ensure_future(rows.lbgpt.acomplete("{}", engine=engine, **keywords))
        while len(engine.requests) < 3:
            await asyncio.sleep(0.001)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(main())
    return lb.last_run()


def complete(template="{}", rows=WORDS, **keywords):
    upper = ScriptedGPT(lambda request: request.messages[-1]["content"].upper())
    rows.lbgpt.complete(template, **{"engine": upper} | keywords)
    return lb.last_run(), len(upper.requests)


def test_an_interrupted_run_is_resumed_by_the_next_one():
    first = interrupt()
    assert first.resumed_from is None
    report, asked = complete()
    assert (report.resumed_from, asked) == (first.id, 2)
    assert report.manifest["resumed_from"] == first.id
    told = f"run {first.id}: 3 of 6 rows were there"
    assert told in str(report)
    assert told in report._repr_html_()
    again, asked = complete()
    assert (again.resumed_from, asked) == (None, 0)
    assert lb.runs()["resumed_from"].fillna("").tolist() == ["", first.id, ""]
    assert lb.runs()["status"].tolist() == ["done", "done", "interrupted"]


@pytest.mark.parametrize(
    "keywords",
    [
        {"template": "{}!"},
        {"rows": WORDS[:4]},
        {"rows": WORDS[::-1]},
        {"seed": 5},
        {"cache_mode": "refresh"},
        {"cache_mode": "off"},
    ],
    ids=str,
)
def test_other_runs_and_runs_that_take_nothing_over_resume_nothing(keywords):
    interrupt()
    report, _ = complete(**keywords)
    assert report.resumed_from is None
    assert "resumes" not in str(report)


def test_a_run_that_stored_nothing_is_not_resumed():
    complete(rows=WORDS[:2])
    interrupt(cache_mode="off")
    assert complete()[0].resumed_from is None


def test_failed_rows_are_no_interruption():
    state = {"fails": True}

    def reply(request):
        if state.pop("fails", False):
            raise lb.ContextTooLong("no")
        return "fine"

    engine = ScriptedGPT(reply, max_parallel_calls=1)
    complete(engine=engine, errors="ignore")
    assert complete(engine=engine)[0].resumed_from is None


def test_what_is_still_running_is_not_resumed(own_cache):
    stuck = Stuck()
    run = WORDS.lbgpt.submit("{}", engine=stuck.engine)
    assert stuck.is_stuck.wait(10)
    deadline = time.monotonic() + 10  # it is entered while it asks already
    while lb.runs().empty and time.monotonic() < deadline:
        time.sleep(0.005)
    [line] = lb.runs().to_dict("records")
    assert (line["id"], line["status"], pd.isna(line["wall_s"])) == (run.id, "running", True)
    report, _ = complete(rows=WORDS)
    assert report.resumed_from is None
    stuck.released.set()
    run.result(10)
    assert lb.runs()["status"].tolist() == ["done", "done"]
    assert lb.runs()["wall_s"].notna().all()


DYING = """
import os, sys, time
import pandas as pd
import lbgpt_pandas as lb
from lbgpt_pandas.testing import ScriptedGPT

def reply(request):
    if len(engine.requests) > 2:
        deadline = time.monotonic() + 10  # it is entered while it asks already
        while "running" not in lb.runs()["status"].tolist() and time.monotonic() < deadline:
            time.sleep(0.005)
        os._exit(9)
    return request.messages[-1]["content"].upper()

engine = ScriptedGPT(reply, max_parallel_calls=1)
with lb.using(cache=sys.argv[1], progress="none"):
    pd.Series([*"abcd", None, "a"]).lbgpt.VERB("{}", engine=engine, **eval(sys.argv[2]))
"""


def die(cache, verb="complete", keywords="{}"):
    script = DYING.replace("VERB", verb)
    done = subprocess.run([sys.executable, "-c", script, str(cache), keywords], check=False)
    assert done.returncode == 9


def test_a_run_that_ended_with_its_process_is_resumed(own_cache):
    die(own_cache)
    report, asked = complete()
    [_, line] = lb.runs().to_dict("records")
    assert (report.resumed_from, line["status"]) == (line["id"], "interrupted")
    # The answer that was on its way to the disk may be lost with the process.
    assert line["done"] + asked - 1 == 4 or line["done"] + asked == 4


def test_what_was_done_is_counted_once_and_written_down(own_cache):
    die(own_cache)
    done = lb.runs()["done"][0]
    assert done >= 2
    assert not list(own_cache.glob(".running-*"))
    complete(rows=WORDS.dropna())
    assert lb.runs()["done"].tolist() == [5, done]
    lb.cache.clear()
    assert lb.runs()["done"].tolist() == [5, done]


def test_answers_of_others_are_not_counted(own_cache):
    complete()
    die(own_cache, keywords="{'cache_mode': 'off'}")
    line = lb.runs().iloc[0]
    assert line["status"] == "interrupted"
    assert line["done"] <= 3  # of the 5 that the cache has


# --- the sign of a process ---------------------------------------------------------------------


def test_a_process_is_there_until_it_ends(tmp_path):
    code = (
        "import sys, pathlib; from lbgpt_pandas.processes import show_sign\n"
        "print(show_sign(pathlib.Path(sys.argv[1])), flush=True); sys.stdin.read()\n"
        "import os; os._exit(0)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=-1, stdout=-1, text=True
    )
    sign = process.stdout.readline().strip()
    assert [is_there(tmp_path, sign) for _ in range(2)] == [True, True]
    process.communicate()
    assert (tmp_path / sign).exists()
    assert not is_there(tmp_path, sign)
    assert not (tmp_path / sign).exists()


def test_this_process_has_one_sign_in_a_directory(tmp_path):
    sign = show_sign(tmp_path)
    assert show_sign(tmp_path) == sign
    assert is_there(tmp_path, sign)
    (tmp_path / sign).unlink()
    assert show_sign(tmp_path) != sign


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_does_not_keep_its_parents_sign_up(tmp_path):
    sign = show_sign(tmp_path)
    child = os.fork()
    if child == 0:
        os._exit(0 if show_sign(tmp_path) != sign and is_there(tmp_path, sign) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert is_there(tmp_path, sign)


@pytest.mark.parametrize("sign", [None, 5, "", "runs.db", ".running-../../x", ".running-1-gone"])
def test_what_is_no_sign_is_nobodys(tmp_path, sign):
    (tmp_path / "runs.db").write_text("x")
    assert not is_there(tmp_path, sign)
    assert (tmp_path / "runs.db").exists()
