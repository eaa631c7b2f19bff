"""A changed request is asked once a row; an unchanged one never again, whatever surrounds it."""

from __future__ import annotations

import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.testing import ScriptedGPT

ROWS = pd.DataFrame({"text": [f"review {number}" for number in range(1_000)]})
SYSTEM = "Answer with one word."
ROLE = {"type": "json_schema", "json_schema": {"name": "role", "schema": {"type": "object"}}}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


def run(frame=ROWS, **keywords):
    """Run, and return what was answered and how many calls it took."""
    engine = ScriptedGPT(lambda request: request.messages[-1]["content"].upper())
    arguments = {"system": SYSTEM, "temperature": 0, "engine": engine, "progress": "none"}
    answers = frame.lbgpt.complete("Judge: {text}", **arguments | keywords)
    assert answers.notna().all()
    return answers, len(engine.requests)


def calls(frame=ROWS, **keywords):
    return run(frame, **keywords)[1]


def test_a_thousand_rows_are_asked_once():
    first, sent = run()
    assert sent == 1_000
    again, sent = run()
    assert sent == 0
    pd.testing.assert_series_equal(first, again)
    assert set(lb.last_run().rows["source"]) == {"exact_cache"}


def test_one_word_of_the_system_prompt_changed_asks_all():
    assert calls() == 1_000
    assert calls(system="Answer with two words.") == 1_000
    assert calls() == 0


def test_one_new_row_is_one_call():
    assert calls() == 1_000
    more = pd.concat([ROWS[:500], pd.DataFrame({"text": ["a new one"]}), ROWS[500:]])
    answers, sent = run(more)
    assert sent == 1
    assert answers.iloc[500] == "JUDGE: A NEW ONE"


def test_a_reordered_frame_is_no_call():
    assert calls() == 1_000
    shuffled = ROWS.sample(frac=1, random_state=0)
    answers, sent = run(shuffled)
    assert sent == 0
    assert answers.tolist() == [f"JUDGE: {text.upper()}" for text in shuffled["text"]]


def test_other_columns_and_another_index_are_no_call():
    assert calls() == 1_000
    assert calls(ROWS.assign(more=1).set_index(ROWS["text"])) == 0


def test_one_changed_row_is_one_call():
    assert calls() == 1_000
    changed = ROWS.copy()
    changed.loc[7, "text"] += "!"
    assert calls(changed) == 1
    assert calls(changed) == 0


FEW = ROWS[:10]


@pytest.mark.parametrize(
    "changed",
    [
        {"temperature": 0.5},
        {"model": "another"},
        {"max_tokens": 10},
        {"max_completion_tokens": 10},
        {"reasoning_effort": "low"},
        {"seed": 7},
        {"tools": [TOOL]},
        {"response_format": {"type": "json_object"}},
        {"response_format": ROLE},
        {"stop": ["."]},
        {"top_p": 0.5},
        {"logprobs": True},
        {"extra_body": {"top_k": 3}},
        {"verbosity": "low"},
        {"a_parameter_of_tomorrow": 1},
        {"system": None},
    ],
    ids=lambda changed: "-".join(f"{name}" for name in changed),
)
def test_what_changes_the_answer_is_asked(changed):
    assert calls(FEW) == 10
    assert calls(FEW, **changed) == 10
    assert calls(FEW, **changed) == 0
    assert calls(FEW) == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"extra_headers": {"x-project": "study"}},
        {"user": "me"},
        {"request_timeout": 5},
        {"metadata": {"a": "b"}},
        {"temperature": 0.0},
        {"max_parallel": 2},
        {"errors": "raise"},
        {"name": "judged"},
        {"cache_mode": "read_only"},
    ],
    ids=lambda changed: "-".join(f"{name}" for name in changed),
)
def test_what_does_not_change_the_answer_is_not_asked(changed):
    assert calls(FEW) == 10
    assert calls(FEW, **changed) == 0


def test_several_changed_values_of_one_parameter_are_kept_side_by_side():
    for temperature in (0, 0.5, 1):
        assert calls(FEW, temperature=temperature) == 10
    for temperature in (1.0, 0.0, 0.5):
        assert calls(FEW, temperature=temperature) == 0


# Over HTTP


def post(provider, engine, frame=FEW):
    before = len(provider.requests)
    answers = frame.lbgpt.complete(
        "Judge: {text}", system=SYSTEM, model="gpt-4o-mini", engine=engine, progress="none"
    )
    return answers.tolist(), len(provider.requests) - before


class OpenAIHere(lb.ChatGPT):
    """OpenAI with its models on this machine; other addresses are families of their own."""

    family = "openai"


class AzureHere(lb.AzureGPT):
    """Azure with its models on this machine."""

    family = "openai"


def azure(provider, kind=AzureHere):
    return kind("azure-key", provider.azure_base, {"gpt-4o-mini": "my-deployment"})


def test_azure_after_openai_is_no_call_nor_the_other_way_round(provider):
    openai = OpenAIHere("sk-test", base_url=provider.base_url)
    first, sent = post(provider, openai)
    assert sent == 10
    assert post(provider, azure(provider)) == (first, 0)
    more = ROWS[:12]
    assert post(provider, azure(provider), more)[1] == 2
    assert {request.path.partition("?")[0] for request in provider.requests[-2:]} == {
        "/openai/deployments/my-deployment/chat/completions"
    }
    assert post(provider, openai, more)[1] == 0


def test_a_server_elsewhere_never_answers_for_openai(provider):
    assert post(provider, OpenAIHere("sk-test", base_url=provider.base_url))[1] == 10
    assert post(provider, lb.ChatGPT("sk-test", base_url=provider.base_url))[1] == 10


def test_a_deployment_outside_the_map_never_answers_for_openai(provider):
    unmapped = lb.AzureGPT("azure-key", provider.azure_base, {})
    assert post(provider, unmapped)[1] == 10
    assert post(provider, OpenAIHere("sk-test", base_url=provider.base_url))[1] == 10


def test_what_speaks_azures_language_elsewhere_never_answers_for_azure(provider):
    assert post(provider, azure(provider))[1] == 10
    assert post(provider, azure(provider, lb.AzureGPT))[1] == 10


@pytest.mark.parametrize(
    ("base", "family"),
    [
        ("https://east.openai.azure.com", "openai"),
        ("https://east.openai.azure.us/", "openai"),
        ("https://east.services.ai.azure.com/models", "openai"),
        ("https://east.cognitiveservices.azure.com", "openai"),
        ("https://gateway.example.com", "gateway.example.com"),
        ("https://openai.azure.com.example.com", "openai.azure.com.example.com"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
    ],
)
def test_the_family_of_azure_is_that_of_its_host(base, family):
    assert lb.AzureGPT("azure-key", base, {}).family == family
