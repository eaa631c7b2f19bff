"""The commands as processes of their own, beside a provider on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from lbgpt_pandas.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from lbgpt_pandas.testing import FakeProvider

KEY = "sk-CANARY0123456789abcdef"


@pytest.fixture
def environment(provider: FakeProvider, tmp_path) -> dict[str, str]:
    cache = str(tmp_path / "cache")
    ours = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": provider.base_url, "LBGPT_CACHE_DIR": cache}
    return os.environ | ours


@pytest.fixture
def inside(environment, tmp_path, monkeypatch, capsys) -> Callable[..., SimpleNamespace]:
    """Do the same in this process, which takes less time."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LBGPT_CACHE_DIR"):
        monkeypatch.setenv(name, environment[name])

    def run(*arguments, **changes):
        with monkeypatch.context() as patch:
            for name, value in changes.items():
                patch.setenv(name, value)
            status = main(list(map(str, arguments)))
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=out, stderr=err)

    return run


@pytest.fixture
def command(environment, tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m lbgpt_pandas`` in a folder of the test."""

    def run(*arguments, **changes):
        return subprocess.run(
            [sys.executable, "-m", "lbgpt_pandas", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            timeout=60,
            env=environment | changes,
        )

    return run
