"""How engines are made, and which addresses they accept."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.gpt import AzureGPT, ChatGPT
from lbgpt_pandas.engine.types import Request

KEY = "sk-CANARY0123456789abcdef"


@pytest.mark.parametrize("act", [copy.copy, copy.deepcopy, pickle.dumps])
def test_engines_are_not_copied(act):
    with pytest.raises(TypeError, match="holds keys, and limits"):
        act(ChatGPT(KEY))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"limit_rmp": 5}, "did you mean limit_rpm="),
        ({"nonsense": 5}, "ChatGPT has no setting nonsense="),
    ],
)
def test_a_misspelt_setting_is_told(settings, words):
    with pytest.raises(TypeError, match=words):
        ChatGPT(KEY, **settings)


@pytest.mark.parametrize("settings", [{"quota_group": ""}, {"quota_group": 5}, {"name": ""}])
def test_names_are_texts(settings):
    with pytest.raises(ConfigurationError, match="a text that is not empty"):
        ChatGPT(KEY, **settings)


def test_numbers_of_numpy_are_numbers():
    assert ChatGPT(KEY, limit_rpm=np.int64(500), weight=np.float32(0.5)).weight == 0.5


def test_no_key_says_what_to_do():
    with pytest.raises(ConfigurationError, match=r"OPENAI_API_KEY.*local"):
        ChatGPT()
    with pytest.raises(ConfigurationError, match="azure_ad_token_provider"):
        AzureGPT(None, "https://x.openai.azure.com", {})


def test_the_environment_is_read_once_at_construction(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://proxy.example/v1")
    assert ChatGPT().family == "proxy.example"


@pytest.mark.parametrize(
    ("base_url", "family"),
    [
        (None, "openai"),
        ("https://api.openai.com/v1", "openai"),
        ("http://127.0.0.1:8000/v1", "127.0.0.1:8000"),
        ("http://localhost:1/v1", "localhost:1"),
        ("https://api.example/v1", "api.example"),
    ],
)
def test_the_family_keeps_other_servers_apart(base_url, family):
    assert ChatGPT(KEY, base_url=base_url).family == family


def test_azure_and_openai_are_one_family():
    assert AzureGPT(KEY, "https://x.openai.azure.com", {"m": "d"}).family == ChatGPT(KEY).family


@pytest.mark.parametrize("url", ["http://10.0.0.5:8000/v1", "http://api.example/v1"])
def test_a_key_is_not_sent_unencrypted(url):
    with pytest.raises(ConfigurationError, match="https"):
        ChatGPT(KEY, base_url=url)
    with pytest.raises(ConfigurationError, match="https"):
        AzureGPT(KEY, url, {})


@pytest.mark.parametrize("key", [KEY, "EMPTY"])
@pytest.mark.parametrize(
    "url",
    [
        "https://user:pw@api.example/v1", "https://api.example/v1?key=abc", "nonsense", "http://",
        "https://api.example/v1#part", "localhost:8000/v1",
    ],
)  # fmt: skip
def test_an_address_is_an_address_and_nothing_more(url, key):
    with pytest.raises(ConfigurationError):
        ChatGPT(key, base_url=url)


def test_a_key_is_cleaned_and_checked():
    assert ChatGPT(KEY + "\n")._api_key.reveal() == KEY
    for key in (KEY + "é", "sk\x00", " \n"):
        with pytest.raises(ConfigurationError):
            ChatGPT(key)


def test_deployments_outside_the_map_share_with_nobody():
    def key(engine, model):
        request = Request([{"role": "user", "content": "hi"}], {"model": model})
        return engine.key_maker(request).key(request.messages)

    one = AzureGPT(KEY, "https://one.openai.azure.com", {"gpt-4o": "a"})
    two = AzureGPT(KEY, "https://two.openai.azure.com", {"gpt-4o": "b"})
    assert key(one, "gpt-4o") == key(two, "gpt-4o") == key(ChatGPT(KEY), "gpt-4o")
    assert len({key(engine, "chat") for engine in (one, two, ChatGPT(KEY))}) == 3


async def test_the_address_is_that_of_the_construction(monkeypatch):
    engine = ChatGPT(KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    transport = engine._new_transport()
    await transport.open()
    assert transport._url("").startswith("https://api.openai.com/v1")
    assert str((await transport._sdk()).base_url).startswith("https://api.openai.com/v1")
    await transport.close()


def test_a_server_without_keys_may_be_anywhere():
    assert ChatGPT("EMPTY", base_url="http://10.0.0.5:8000/v1").family == "10.0.0.5:8000"


def test_misspelt_settings_are_refused():
    with pytest.raises(TypeError):
        ChatGPT(KEY, max_paralel_calls=3)
