"""The table of context windows."""

from __future__ import annotations

import pytest

from lbgpt_pandas.engine.context_windows import bare_model, context_window
from lbgpt_pandas.engine.pricing import price_of


@pytest.mark.parametrize(
    ("name", "total", "prompt"),
    [
        ("gpt-4o-mini", 128_000, 128_000),
        ("gpt-4o-mini-2024-07-18", 128_000, 128_000),
        ("openai/gpt-4o", 128_000, 128_000),
        ("gpt-4-0613", 8_192, 8_192),
        ("gpt-3.5-turbo-0125", 16_385, 16_385),
        ("gpt-5-mini", 400_000, 272_000),
        ("anthropic/claude-haiku-4-5-20251001", 200_000, 200_000),
        ("gemini/gemini-2.5-flash-001", 1_114_112, 1_048_576),
    ],
)
def test_a_model_is_found_by_the_names_it_goes_by(name, total, prompt):
    assert context_window(name) == (total, prompt)


@pytest.mark.parametrize(
    "name", ["", "gpt", "my-own-model", "gpt-4o-mini-tuned", "local", "scripted"]
)
def test_an_unknown_model_has_no_window(name):
    assert context_window(name) is None


def test_a_model_with_a_window_has_a_price():
    # Both tables are of the same models; a name that one of them does not know is a slip.
    known = [name for name in ("gpt-4o", "gpt-6-luna", "claude-opus-5-5", "gemini-3.5-flash")
             if context_window(name)]  # fmt: skip
    assert len(known) == 4
    assert all(price_of(name) for name in known)


def test_bare_names_have_no_date():
    assert bare_model("gpt-4o-2024-05-13") == bare_model("azure/gpt-4o") == "gpt-4o"
    assert bare_model("claude-sonnet-4-5-20250929") == "claude-sonnet-4-5"
    assert bare_model("gpt-4o-mini") != bare_model("gpt-4o")
