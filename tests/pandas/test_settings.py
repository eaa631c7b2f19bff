"""Session settings, blocks, and who answers."""

from __future__ import annotations

import importlib
import sys
import threading
from importlib.util import find_spec

import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.engine.balanced import MultiLoadBalancedGPT
from lbgpt_pandas.engine.gpt import AzureGPT, ChatGPT, LocalGPT
from lbgpt_pandas.engine.litellm_router import LiteLlmRouter
from lbgpt_pandas.resolution import resolve_engine
from lbgpt_pandas.testing import ScriptedGPT

KEY = "sk-CANARY0123456789abcdef"
FRAME = pd.DataFrame({"t": ["a"]})


@pytest.fixture(autouse=True)
def no_engines(monkeypatch):
    monkeypatch.setattr(importlib.import_module("lbgpt_pandas.resolution"), "_engines", {})


def test_configure_changes_only_what_is_given():
    engine = ScriptedGPT("ok")
    lb.configure(engine, model="m", errors="raise")
    lb.configure(max_parallel=3)
    current = lb.settings()
    assert (current.engine, current.model, current.errors) == (engine, "m", "raise")
    assert current.max_parallel == 3
    lb.configure(None)
    assert lb.settings().engine is None
    assert lb.settings().model == "m"


def test_settings_are_frozen_and_show_no_secret():
    lb.configure(ChatGPT(KEY), model="m")
    with pytest.raises(AttributeError):
        lb.settings().model = "x"
    assert "CANARY" not in repr(lb.settings()) + lb.settings()._repr_html_()


@pytest.mark.parametrize(
    "keywords",
    [{"errors": "x"}, {"cache_mode": "replays"}, {"progress": "x"}, {"max_parallel": 0},
     {"event_loop": "x"}, {"engine": "gpt"}, {"cache": 3}, {"cache": ""}],
)  # fmt: skip
def test_bad_settings_are_refused_and_change_nothing(keywords):
    before = lb.settings()
    with pytest.raises(lb.ConfigurationError):
        lb.configure(**keywords)
    assert lb.settings() == before


def test_using_ends_with_its_block_and_nests():
    lb.configure(model="outer")
    with lb.using(model="inner") as inside:
        assert inside.model == lb.settings().model == "inner"
        with lb.using(errors="ignore"):
            assert (lb.settings().model, lb.settings().errors) == ("inner", "ignore")
        assert lb.settings().errors == "coerce"
    assert lb.settings().model == "outer"


def test_using_is_not_seen_by_other_threads():
    seen = []
    with lb.using(model="inner"):
        thread = threading.Thread(target=lambda: seen.append(lb.settings().model))
        thread.start()
        thread.join()
    assert seen == [None]


def test_calls_take_what_is_configured_and_arguments_come_first():
    configured, given = ScriptedGPT("configured"), ScriptedGPT("given")
    lb.configure(configured, model="m", cache=None)
    assert FRAME.lbgpt.complete("{t}").tolist() == ["configured"]
    assert FRAME.lbgpt.complete("{t}", engine=given, model="n").tolist() == ["given"]
    assert configured.requests[0].params["model"] == "m"
    assert given.requests[0].params["model"] == "n"


def test_without_a_cache_every_call_asks():
    engine = ScriptedGPT("ok")
    lb.configure(engine, cache=None)
    for _ in range(2):
        FRAME.lbgpt.complete("{t}")
    assert len(engine.requests) == 2


def test_a_cache_may_be_a_path_a_dict_or_the_engines_own(tmp_path):
    for cache in (str(tmp_path / "text"), tmp_path / "path", {}):
        engine = ScriptedGPT("ok")
        lb.configure(engine, cache=cache)
        for _ in range(2):
            FRAME.lbgpt.complete("{t}")
        assert len(engine.requests) == 1
    assert (tmp_path / "path" / "cache.db").exists()
    own = {}
    FRAME.lbgpt.complete("{t}", engine=ScriptedGPT("mine", cache=own), cache_mode="use")
    assert len(own) == 1


def test_nothing_found_says_what_was_looked_for():
    with pytest.raises(lb.ConfigurationError) as caught:
        resolve_engine("gpt-4o-mini")
    message = str(caught.value)
    for word in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "local"):
        assert word in message


def test_no_model_says_how_to_name_one(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(lb.ConfigurationError, match="configure"):
        FRAME.lbgpt.complete("{t}")


def test_engines_from_the_environment_are_made_once(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    engine, model = resolve_engine("gpt-4o-mini")
    assert type(engine) is ChatGPT
    assert model == "gpt-4o-mini"
    assert resolve_engine("other")[0] is engine
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "2")
    assert resolve_engine("other")[0] is not engine


def test_azure_from_the_environment(monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://x.openai.azure.com")
    assert type(resolve_engine("m")[0]) is AzureGPT


def test_a_configured_local_model_is_not_asked_of_others():
    lb.configure(model="local")
    assert resolve_engine(None, engine=ScriptedGPT("ok"))[1] == "scripted"


def test_local_comes_before_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert type(resolve_engine("local")[0]) is LocalGPT
    lb.configure(model="local")
    assert type(resolve_engine(None)[0]) is LocalGPT
    assert type(resolve_engine("gpt-4o")[0]) is ChatGPT


@pytest.mark.skipif(find_spec("litellm") is None, reason="needs the extra litellm")
def test_a_provider_name_goes_to_the_provider(monkeypatch):
    engine, model = resolve_engine("anthropic/claude-haiku-4-5")
    assert type(engine) is LiteLlmRouter
    assert model == "anthropic/claude-haiku-4-5"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert resolve_engine("anthropic/claude-haiku-4-5")[0] is engine
    assert resolve_engine("openai/gpt-4o")[0] is not engine
    assert type(resolve_engine("openai/gpt-4o")[0]) is LiteLlmRouter
    assert type(resolve_engine("gpt-4o")[0]) is ChatGPT


def test_a_server_of_ones_own_may_name_models_with_a_slash(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://router.example/v1")
    assert type(resolve_engine("anthropic/claude")[0]) is ChatGPT


def test_a_provider_name_without_litellm_has_the_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(lb.MissingExtraError, match=r"pip install 'lbgpt-pandas\[litellm\]'"):
        resolve_engine("anthropic/claude")


def test_openai_and_azure_are_balanced(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://x.openai.azure.com")
    engine = resolve_engine("gpt-4o-mini")[0]
    assert type(engine) is MultiLoadBalancedGPT
    assert [type(gpt) for gpt in engine.gpts] == [ChatGPT, AzureGPT]
    assert resolve_engine("gpt-4o")[0] is engine
    monkeypatch.setenv("OPENAI_BASE_URL", "https://router.example/v1")
    assert type(resolve_engine("gpt-4o")[0]) is ChatGPT
    monkeypatch.delenv("OPENAI_API_KEY")
    assert type(resolve_engine("gpt-4o")[0]) is AzureGPT
