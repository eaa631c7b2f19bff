"""Two processes ask the same thousand prompts at the same time, with one cache between them."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.process

ROWS = 1_000

# Each answer names the process that asked, so that it shows who was first.
SCRIPT = """
import json, os, sys, time
from pathlib import Path
import pandas as pd
import lbgpt_pandas as lb
from lbgpt_pandas.engine.caches.redis import RedisCache
from lbgpt_pandas.testing import ScriptedGPT

where, name, start, rows = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
engine = ScriptedGPT(lambda request: f"{name}: {request.messages[-1]['content']}")
frame = pd.DataFrame({"text": [f"row {number}" for number in range(rows)]})
lb.configure(engine=engine, model="m", progress=False, errors="raise")
lb.configure(cache=RedisCache(where) if where.startswith("redis") else where)
Path(f"{start}-{name}").touch()
while not start.exists():
    pass
first = frame.lbgpt.complete("{text}").tolist()
calls = len(engine.requests)
start.with_name(f"done-{name}").touch()
while len(list(start.parent.glob("done-*"))) < 2:
    pass
second = frame.lbgpt.complete("{text}").tolist()
print(json.dumps([first, second, calls, len(engine.requests)]))
"""


def run_both(where, directory):
    directory.mkdir()
    start = directory / "start"
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SCRIPT, where, name, start, str(ROWS)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name in "ab"
    ]  # fmt: skip
    deadline = time.monotonic() + 60
    while len(list(directory.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    start.touch()
    seen = []
    for process in processes:
        output, errors = process.communicate(timeout=60)
        # Warnings are errors there: neither a lock nor anything else was in the way.
        assert (process.returncode, errors) == (0, "")
        seen.append(json.loads(output))
    return seen


def check(seen):
    for first, second, calls, calls_in_all in seen:
        texts = {f"{name}: row {number}" for name in "ab" for number in range(ROWS)}
        assert {*first, *second} <= texts
        assert calls <= ROWS
        assert calls_in_all == calls
    # Both give what is stored, in the very run in which they asked as well, whoever was first;
    # and each row is in its place.
    assert seen[0][0] == seen[1][0] == seen[0][1] == seen[1][1]
    assert [text.partition(": ")[2] for text in seen[0][1]] == [f"row {n}" for n in range(ROWS)]


def test_on_one_directory(tmp_path):
    check(run_both(str(tmp_path / "cache"), tmp_path / "signals"))
    connection = sqlite3.connect(tmp_path / "cache" / "cache.db")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM Cache").fetchone() == (ROWS,)
    finally:
        connection.close()


def test_on_one_redis(redis_server, redis_url, tmp_path):
    check(run_both(redis_url, tmp_path / "signals"))
    with redis_server.client() as client:
        assert client.dbsize() == ROWS
