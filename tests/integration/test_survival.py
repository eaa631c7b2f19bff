"""What is paid for survives: a killed process, a fork, another process on the same cache."""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.engine.caches.group_writer import MOST_IN_A_GROUP
from lbgpt_pandas.engine.crew import SPARE_WORKERS
from lbgpt_pandas.testing import FakeProvider

pytestmark = pytest.mark.process

ROWS = 2_000
IN_FLIGHT = 32
ON_THEIR_WAY = SPARE_WORKERS + 2 * MOST_IN_A_GROUP
"""Answers that may wait to be written: with a row behind each, in one group that is being
written and in one that gathers."""
KEY = "sk-CANARY0123456789"

SCRIPT = """
import sys
import pandas as pd
import lbgpt_pandas as lb

base_url, directory, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
engine = lb.ChatGPT("sk-CANARY0123456789", base_url=base_url, max_parallel_calls=32)
frame = pd.DataFrame({"text": [f"row {number}" for number in range(rows)]})
with lb.using(cache=directory, progress=False):
    answers = frame.lbgpt.complete("{text}", model="gpt-4o-mini", engine=engine)
print(answers.eq("A:" + frame["text"]).all(), flush=True)
"""


def start(server, directory, rows=ROWS, script=SCRIPT):
    arguments = [sys.executable, "-c", script, server.base_url, str(directory), str(rows)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def kill_after(server, process, requests):
    deadline = time.monotonic() + 60
    while len(server.requests) < requests and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_killed_run_asks_only_for_what_was_in_flight(tmp_path):
    with FakeProvider(latency_s=0.02) as server:
        kill_after(server, start(server, tmp_path / "cache"), ROWS // 2)
        before = len(server.requests)
        assert ROWS // 2 <= before < ROWS
        second = start(server, tmp_path / "cache")
        output, _ = second.communicate(timeout=60)
        assert output.strip() == "True"
        # Lost are at most the calls on the wire and the answers on their way to the disk.
        assert ROWS <= len(server.requests) <= ROWS + IN_FLIGHT + ON_THEIR_WAY


def test_two_processes_share_a_cache_and_agree(tmp_path):
    with FakeProvider(latency_s=0.005) as server:
        processes = [start(server, tmp_path / "cache", rows=300) for _ in range(2)]
        for process in processes:
            output, _ = process.communicate(timeout=60)
            assert output.strip() == "True"
        assert len(server.requests) <= 2 * 300


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_engine_works_in_a_forked_child_and_afterwards_in_the_parent():
    with FakeProvider() as server:
        engine = lb.ChatGPT(KEY, base_url=server.base_url)

        def ask(text):
            frame = pd.DataFrame({"t": [text]})
            return frame.lbgpt.complete("{t}", model="gpt-4o-mini", engine=engine).iloc[0]

        assert ask("before") == "A:before"
        child = os.fork()
        if child == 0:
            os._exit(0 if ask("child") == "A:child" and ask("before") == "A:before" else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert ask("after") == "A:after"
        assert len(server.requests) == 3


RESUMING = """
import sys
import pandas as pd
import lbgpt_pandas as lb

base_url, directory, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
engine = lb.ChatGPT("sk-CANARY0123456789", base_url=base_url, max_parallel_calls=32)
frame = pd.DataFrame({"text": [f"row {number}" for number in range(rows)]})
with lb.using(cache=directory, progress=False):
    before = lb.runs()
    answers = frame.lbgpt.complete("{text}", model="gpt-4o-mini", engine=engine)
    report, runs = lb.last_run(), lb.runs()
assert answers.eq("A:" + frame["text"]).all()
print(*before[["status", "done", "wall_s"]].iloc[0])
print(report.resumed_from == before["id"][0], runs["resumed_from"][0] == before["id"][0])
print(runs["status"].tolist(), runs["done"].tolist()[1], str(report))
"""


def test_after_a_kill_the_next_process_says_which_run_it_goes_on_with(tmp_path):
    cache = tmp_path / "cache"
    with FakeProvider(latency_s=0.02) as server:
        first = start(server, cache)
        while len(server.requests) < ROWS // 2 and first.poll() is None:
            time.sleep(0.01)
        with lb.using(cache=cache):
            assert lb.runs()["status"].tolist() == ["running"]
        first.send_signal(signal.SIGKILL)
        first.communicate()
        while server.tally.in_flight:
            time.sleep(0.01)
        with lb.using(cache=cache):
            [line] = lb.runs().to_dict("records")
        assert (line["status"], line["rows"], pd.isna(line["wall_s"])) == (
            "interrupted",
            ROWS,
            True,
        )
        asked = len(server.requests)
        assert asked - IN_FLIGHT - ON_THEIR_WAY <= line["done"] <= asked
        second = start(server, cache, script=RESUMING)
        output, _ = second.communicate(timeout=60)
        told, same, ended = output.splitlines()[:3]
        assert told == f"interrupted {line['done']} nan"
        assert same == "True True"
        assert ended.startswith(f"['done', 'interrupted'] {line['done']} ")
        assert f"run {line['id']}: {line['done']:,} of {ROWS:,} rows were there" in output
        texts = collections.Counter(
            each.body["messages"][-1]["content"] for each in server.requests
        )
        assert len(texts) == ROWS
        assert max(texts.values()) <= 2
        assert len(server.requests) == ROWS + asked - line["done"]
    assert not list(cache.glob(".running-*"))
