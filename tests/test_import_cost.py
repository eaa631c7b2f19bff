"""`import lbgpt_pandas` is cheap: nothing heavy, no connection, no thread, no file written."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

HEAVY = [
    "IPython", "aiohttp", "boto3", "diskcache", "faiss", "httpx", "httpx2", "ipywidgets", "jinja2",
    "litellm", "nest_asyncio", "nest_asyncio2", "openai", "pydantic", "qdrant_client", "redis",
    "tqdm", "xllamacpp",
]  # fmt: skip

PROBE = """
import json, sys, threading, time

import pandas  # what the caller has anyway

seen = []

def watch(event, arguments):
    if event.startswith("socket.") or event in ("subprocess.Popen", "os.fork", "os.mkdir"):
        seen.append(event)
    elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        if not str(arguments[0]).endswith(".pyc") and ".pyc." not in str(arguments[0]):
            seen.append(f"open {arguments[0]}")

sys.addaudithook(watch)
before = set(sys.modules)
started = time.perf_counter()
import MODULE
seconds = time.perf_counter() - started
print(json.dumps({
    "modules": sorted({name.partition(".")[0] for name in set(sys.modules) - before}),
    "seen": seen,
    "threads": threading.active_count(),
    "seconds": seconds,
}))
"""


def probe(module: str) -> dict[str, Any]:
    command = [sys.executable, "-c", PROBE.replace("MODULE", module)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module", params=["lbgpt_pandas", "lbgpt_pandas.engine"])
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    return probe(request.param)


@pytest.mark.process
def test_nothing_heavy_is_loaded(found: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\nimport, beyond pandas: {found['seconds'] * 1000:.0f} ms ")
    assert not set(HEAVY) & set(found["modules"])


@pytest.mark.process
def test_nothing_is_opened_started_or_written(found: dict[str, Any]) -> None:
    assert found["seen"] == []
    assert found["threads"] == 1


@pytest.mark.process
def test_the_probe_sees_what_it_looks_for() -> None:
    # A probe that has gone blind would find every import cheap.
    found = probe("tqdm, socket, tempfile; socket.socket().close(); tempfile.mkdtemp()")
    assert "tqdm" in found["modules"]
    assert {"socket.__new__", "os.mkdir"} <= set(found["seen"])
