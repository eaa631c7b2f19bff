"""The public surface: what is exported is what is documented, and signatures are promises."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas import engine
from lbgpt_pandas.accessor import LbgptAccessor
from lbgpt_pandas.engine import errors

README = (Path(__file__).parents[1] / "README.md").read_text()
MODULES = ["lbgpt_pandas", "lbgpt_pandas.engine"]


def documented(module: str) -> list[str]:
    """Names in the paragraph of README's section "Names" that begins with the module."""
    _, _, rest = README.partition("\n## Names\n")
    _, found, paragraph = rest.partition(f"\n`{module}`:")
    assert found, f"README lists no names of {module}"
    return re.findall(r"`(\w+)`", paragraph.partition("\n\n")[0])


@pytest.mark.parametrize("name", MODULES)
def test_exports_are_the_documented_names(name: str) -> None:
    exported = importlib.import_module(name).__all__
    assert sorted(documented(name)) == sorted(exported)
    assert len(set(exported)) == len(exported)


@pytest.mark.parametrize("name", MODULES)
def test_every_export_exists_and_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    for export in module.__all__:
        value = getattr(module, export)
        assert isinstance(value, str) or inspect.getdoc(value), export


def test_every_error_is_exported() -> None:
    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, lb.LbgptError | lb.LbgptWarning)
    }
    assert kinds <= set(lb.__all__)


def test_the_accessors_are_registered() -> None:
    assert isinstance(pd.DataFrame({"a": [1]}).lbgpt, LbgptAccessor)
    assert isinstance(pd.Series([1]).lbgpt, LbgptAccessor)


def parameters(function: Any) -> list[str]:
    """Each parameter as in a `def`, without annotations; `self` left out."""
    found, keyword_only = [], False
    for each in inspect.signature(function).parameters.values():
        if each.name == "self":
            continue
        if each.kind is each.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            found.append("*")
        found.append(str(each.replace(annotation=each.empty)))
    return found


COMPLETE = [
    "template=None", "*", "messages=None", "model=None", "system=None", "examples=None", "images=None", "tools=None",
    "response_format=None", "engine=None", "errors=None", "na='skip'", "duplicates='share'",
    "cache_mode=None", "semantic=None", "budget=None", "max_parallel=None", "progress=None",
    "rows_per_request=1", "name=None", "**params",
]  # fmt: skip

SETTINGS = [
    "model=...", "cache=...", "semantic_cache=...", "cache_mode=...", "budget=...", "errors=...",
    "progress=...", "max_parallel=...",
]  # fmt: skip

SIGNATURES: dict[Any, list[str]] = {
    LbgptAccessor.complete: COMPLETE,
    LbgptAccessor.acomplete: COMPLETE,
    lb.configure: ["engine=...", "*", *SETTINGS, "event_loop=..."],
    lb.using: ["engine=...", "*", *SETTINGS],
    lb.settings: [],
    lb.last_run: [],
    lb.usage: ["by=('model', 'deployment')", "since=None"],
    lb.headroom: [],
    lb.Budget: ["usd=None", "*", "tokens=None", "requests=None", "on_exceeded='raise'"],
    lb.Budget.add: ["usd=None", "*", "tokens=None", "requests=None"],
    lb.price_of: ["model"],
    lb.set_price: ["model", "price"],
    lb.runs: [],
    lb.load_run: ["path", "*", "into=None"],
    lb.replay: ["path"],
    lb.RunReport.export: ["path"],
    lb.RunReport.diff: ["other"],
    lb.RunReport.retry_failed: [],
    engine.ChatGPT.chat_completion: ["**request"],
    engine.ChatGPT.cached_chat_completion: ["content", "use_cache=True"],
    engine.ChatGPT.chat_completion_list: ["requests", "show_progress=True"],
    engine.ChatGPT.achat_completion_list: ["requests", "show_progress=True"],
    engine.ChatGPT.streamed_chat_completion: ["**request"],
    engine.ChatGPT.embedding: ["model", "*", "input", "**params"],
    engine.ChatGPT.cached_embedding: ["model", "*", "input", "**params"],
    engine.ChatGPT.get_usage_stats: ["include_usage_reservation=False"],
    engine.ChatGPT.expected_tokens_per_request: [],
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__qualname__)
def test_signatures_are_promises(function: Any) -> None:
    assert parameters(function) == SIGNATURES[function]


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        (lb.ChatGPT, ["api_key", "max_parallel_calls", "request_timeout", "cache"]),
        (lb.AzureGPT, ["api_key", "azure_api_base", "azure_model_map"]),
        (lb.LocalGPT, ["model"]),
    ],
)
def test_engines_take_the_first_arguments_by_position(kind: type[Any], first: list[str]) -> None:
    by_position = [
        each.name
        for each in inspect.signature(kind).parameters.values()
        if each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    assert by_position[: len(first)] == first


BASE_KEYWORDS = {
    "max_parallel_calls", "cache", "stop_after_attempts", "stop_on_exception",
    "max_usage_cache_size", "auto_cache", "tools", "name", "request_timeout",
}  # fmt: skip


def test_all_engines_share_these_keywords() -> None:
    assert set(inspect.signature(engine._BaseGPT).parameters) >= BASE_KEYWORDS
    for kind in (lb.ChatGPT, lb.AzureGPT, lb.LocalGPT):
        signature = inspect.signature(kind)
        open_to_more = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
        assert open_to_more or set(signature.parameters) >= BASE_KEYWORDS


def test_a_report_has_what_is_documented() -> None:
    table = README.partition("\n## The run report\n")[2].partition("\n## ")[0]
    names = re.findall(r"`report\.(\w+)`", table)
    assert len(names) >= 7
    for name in names:
        assert inspect.getdoc(getattr(lb.RunReport, name)), name
