"""What a LiteLlmRouter accepts, hides, shares with others and takes for a price."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

from lbgpt_pandas.engine import errors
from lbgpt_pandas.engine.gpt import ChatGPT
from lbgpt_pandas.engine.litellm_router import LiteLlmRouter
from lbgpt_pandas.engine.transports import litellm_package
from lbgpt_pandas.engine.types import Request, TokenCount

pytestmark = pytest.mark.skipif(find_spec("litellm") is None, reason="needs the extra litellm")

KEY = "sk-CANARY0123456789abcdef"
AZURE_KEY = "0canary0123456789abcdef"
MESSAGES = [{"role": "user", "content": "hi"}]


def entry(model, name="chat", **params):
    return {"model_name": name, "litellm_params": {"model": model, **params}}


def family(*entries, model="chat", **settings):
    engine = LiteLlmRouter(list(entries), **settings)
    return engine.family_of(Request(MESSAGES, {"model": model}))


def test_keys_of_all_kinds_are_masked():
    engine = LiteLlmRouter(
        [
            entry(
                "bedrock/x",
                aws_secret_access_key="secret-1",
                aws_access_key_id="secret-2",
                aws_session_token="secret-3",
                extra_headers={"x-custom": "secret-4"},
                vertex_credentials={"private": {"pem": "secret-5"}},
                client_secret="secret-6",
                api_key="os.environ/THEIR_KEY",
                max_tokens=5,
            )
        ],
        default_litellm_params={"extra_headers": {"authorization": "secret-7"}},
    )
    shown = repr(engine._groups.sealed) + repr(engine._router_kwargs)
    assert "secret-" not in shown.replace("aws_secret_", "").replace("client_secret", "")
    assert "os.environ/THEIR_KEY" in shown


# What is accepted


@pytest.mark.parametrize(
    "settings",
    [
        {"num_retries": 2},
        {"retry_policy": {}},
        {"cache_responses": True},
        {"redis_host": "h"},
        {"cooldown_time": 3},
        {"timeout": 3},
        {"set_verbose": True},
        {"default_litellm_params": {"num_retries": 3}},
    ],
)
def test_what_this_engine_does_itself_is_refused(settings):
    with pytest.raises(errors.ConfigurationError, match=next(iter(settings))):
        LiteLlmRouter([entry("openai/gpt-4o")], **settings)


@pytest.mark.parametrize(
    "model_list",
    [
        [],
        {},
        "chat",
        [3],
        [{"litellm_params": {"model": "openai/x"}}],
        [{"model_name": "x"}],
        [{"model_name": "x", "litellm_params": {}}],
        [entry("openai/x", num_retries=2)],
        [entry("openai/x", max_retries=1)],
        [entry("openai/x", api_base="http://far.example/v1", api_key=KEY)],
        [entry("openai/x", api_key="sk\x00")],
    ],
)
def test_a_model_list_is_checked_at_once(model_list):
    with pytest.raises(errors.ConfigurationError):
        LiteLlmRouter(model_list)


def test_misspelt_settings_are_refused():
    with pytest.raises(TypeError, match="limit_rpm"):
        LiteLlmRouter([entry("openai/gpt-4o")], limit_rmp=3)


@pytest.mark.parametrize(
    ("number", "usable"),
    [
        ("1.106.2", True),
        ("1.82.7", False),
        ("1.82.8", False),
        ("1.107.0", False),
        ("1.82.70", True),
    ],
)
def test_malicious_releases_are_not_imported(number, usable, monkeypatch):
    monkeypatch.setattr(litellm_package, "version", lambda _: number)
    if usable:
        litellm_package.check_installed()
        return
    with pytest.raises(errors.ConfigurationError, match=number):
        LiteLlmRouter([entry("openai/gpt-4o")])


def test_without_litellm_the_install_line_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(errors.MissingExtraError, match=r"pip install 'lbgpt-pandas\[litellm\]'"):
        LiteLlmRouter([entry("openai/gpt-4o")])


# Keys of the cache and prices


def test_openai_models_share_their_entries():
    assert family(entry("openai/gpt-4o"), model="chat") == "litellm/openai/gpt-4o"
    alone = family(entry("openai/gpt-4o", "gpt-4o", api_key=KEY), model="gpt-4o")
    assert alone == ChatGPT(KEY).family == "openai"
    azure = entry("azure/dep", "gpt-4o", api_base="https://x.openai.azure.com", api_key=AZURE_KEY)
    known = {**azure, "model_info": {"base_model": "azure/gpt-4o"}}
    assert family(entry("openai/gpt-4o", "gpt-4o"), known, model="gpt-4o") == "openai"
    assert family(entry("openai/gpt-4o", "gpt-4o"), azure, model="gpt-4o") != "openai"


@pytest.mark.parametrize(
    "params",
    [
        {"api_base": "https://other.example/v1"},
        {"temperature": 0.9},
        {"custom_llm_provider": "groq"},
    ],
)
def test_doubtful_openai_models_share_with_nobody(params):
    assert family(entry("openai/gpt-4o", "gpt-4o", **params), model="gpt-4o") != "openai"


def test_families_tell_apart_what_answers_differently(monkeypatch):
    groups = [
        [entry("anthropic/a")],
        [entry("anthropic/b")],
        [entry("anthropic/a"), entry("anthropic/b")],
        [entry("openai/a", api_base="http://127.0.0.1:1/v1")],
        [entry("openai/a", api_base="http://127.0.0.1:2/v1")],
        [entry("anthropic/a", temperature=0.1)],
        [entry("anthropic/a", temperature=0.2)],
    ]
    families = [family(*group) for group in groups]
    families.append(family(entry("anthropic/a"), fallbacks=[{"chat": ["anthropic/b"]}]))
    families.append(family(entry("anthropic/a"), default_litellm_params={"seed": 1}))
    assert len(set(families)) == len(families)
    plain = entry("openai/gpt-4o", "gpt-4o")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://other.example/v1")
    assert family(plain, model="gpt-4o") != "openai"


def test_families_do_not_depend_on_how_a_deployment_is_reached():
    one = family(entry("anthropic/a", api_key=KEY, rpm=5), entry("anthropic/b"))
    two = family(entry("anthropic/b", timeout=3), entry("anthropic/a", api_key=KEY + "2"))
    assert one == two
    assert family(entry("anthropic/a", api_key=KEY)) == "litellm/anthropic/a"


def test_prices_are_those_of_our_own_table():
    tokens = TokenCount(prompt=1_000_000, completion=0)
    engine = LiteLlmRouter(
        [
            entry("anthropic/claude-haiku-4-5"),
            entry("openai/gpt-4o-mini", "both"),
            entry("openai/gpt-4o", "both"),
            entry("groq/unheard-of", "unknown"),
            entry("openai/gpt-4o", "unknown"),
        ]
    )
    assert engine.price_of_tokens("chat", tokens) == 1.0
    assert engine.price_of_tokens("both", tokens) == 2.5
    assert engine.price_of_tokens("unknown", tokens) is None
    assert engine.price_of_tokens("gpt-4o-mini-2024-07-18", tokens) == 0.15
