"""Keys never show themselves."""

from __future__ import annotations

import copy
import pickle

import pytest

from lbgpt_pandas.engine.gpt import AzureGPT, ChatGPT
from lbgpt_pandas.engine.secrets import Secret, redact

CANARY = "sk-CANARY0123456789abcdef"


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: {CANARY}.",
        f"Authorization: Bearer {CANARY}",
        f"{{'api-key': '{CANARY}', 'x': 1}}",
        f"GET https://x.example/v1?key={CANARY}&b=2",
        f"api_key={CANARY}",
        f'"authorization": "Bearer {CANARY}"',
        f"x-api-key: {CANARY}",
    ],
)
def test_redacted_text_has_no_key(text):
    assert CANARY not in redact(text)
    assert "CANARY" not in redact(text)


@pytest.mark.parametrize(
    "text",
    ["rate limit reached for gpt-4o in organization", "the basic idea of a task-list", "row 17"],
)
def test_plain_text_is_left_alone(text):
    assert redact(text) == text


def test_a_secret_masks_itself_everywhere():
    secret = Secret(CANARY)
    shown = f"{secret} {secret!r} {secret:>40} {secret!s} {[secret]} {secret.masked}"
    assert "CANARY" not in shown
    assert secret.reveal() == CANARY
    assert str(Secret("short")) == "***"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)


def test_engines_show_no_key():
    engines = [
        ChatGPT(api_key=CANARY),
        AzureGPT(CANARY, "https://x.openai.azure.com", {"m": "d"}),
    ]
    assert "CANARY" not in repr(engines) + str([vars(engine) for engine in engines])
