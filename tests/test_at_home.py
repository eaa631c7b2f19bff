"""The repository's conftest.py keeps tests at home; tried on a suite that wants to leave."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SUITE = """
import os, socket
from pathlib import Path

import pytest

import lbgpt_pandas as lb


def test_that_swallows_the_refusal():
    with socket.socket() as client:
        try:
            client.connect(("192.0.2.1", 9))
        except OSError:
            pass


def test_that_asks_a_name_server():
    with pytest.raises(ConnectionRefusedError):
        socket.getaddrinfo("provider.example", 443)


def test_that_stays():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


def test_that_looks_for_keys():
    assert not [name for name in os.environ if name.endswith("_API_KEY")]
    assert "OPENAI_BASE_URL" not in os.environ


@pytest.mark.parametrize("number", [1, 2])
def test_that_leaves_things_behind(number):
    assert lb.settings().model is None
    assert lb.last_run() is None
    lb.configure(model="m", cache=None)
    directory = Path(os.environ["LBGPT_CACHE_DIR"])
    assert not directory.exists()
    directory.mkdir()
"""


@pytest.mark.process
def test_a_suite_cannot_leave_and_finds_nothing_of_the_users(tmp_path: Path) -> None:
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "test_suite.py").write_text(SUITE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"MY_API_KEY": "k", "OPENAI_BASE_URL": "x", "LBGPT_CACHE_DIR": "/y"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    # The guard speaks up after the test, so that the test itself passes and its end is an error.
    assert "6 passed, 2 errors" in done.stdout
    assert "left this machine: socket.connect '192.0.2.1'" in done.stdout
    assert "left this machine: socket.getaddrinfo 'provider.example'" in done.stdout
