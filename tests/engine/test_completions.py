"""What a status 200 may carry, and what becomes of it."""

from __future__ import annotations

import pytest

from lbgpt_pandas.engine.completions import read_completion, read_tokens, to_sdk_object
from lbgpt_pandas.engine.errors import BadRequest, ContentFiltered, MalformedResponse
from lbgpt_pandas.engine.types import Outcome, Source, TokenCount

MESSAGES = [{"role": "user", "content": "12345678"}]


def payload(**changes):
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": "hello"},
    }
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m-1",
        "choices": [choice],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    } | changes


def read(body):
    return read_completion(body, messages=MESSAGES, deployment="d")


@pytest.mark.parametrize(
    "body",
    [
        "",
        None,
        [],
        {},
        "<html></html>",
        {"choices": []},
        {"choices": None},
        {"choices": [{}]},
        {"choices": ["x"]},
        {"choices": [{"message": None}]},
        {"error": {"message": "no"}},
    ],
)
def test_a_200_that_is_no_completion_is_malformed(body):
    with pytest.raises(MalformedResponse) as caught:
        read(body)
    assert caught.value.maybe_billed


def test_a_completion_is_read():
    completion = read(payload())
    assert completion.text == "hello"
    assert completion.finish_reason == "stop"
    assert completion.tokens == TokenCount(7, 2)
    assert completion.model == "m-1"


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": True}, "x",
     {"prompt_tokens": 10**12, "completion_tokens": 1}, {"prompt_tokens": "7"}],
)  # fmt: skip
def test_absent_or_absurd_usage_is_estimated_and_flagged(usage):
    tokens = read(payload(usage=usage)).tokens
    assert tokens == TokenCount(prompt=8 // 4 + 4 + 3, completion=2, estimated=True)


def test_an_image_counts_where_usage_is_estimated():
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}
    assert read_tokens(None, messages=[image], text=None).prompt == 1_000 + 4 + 3


def test_provider_cached_tokens_are_a_part_of_the_prompt():
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 1,
        "prompt_tokens_details": {"cached_tokens": 8},
    }
    tokens = read_tokens(usage, messages=MESSAGES, text="")
    assert (tokens.prompt, tokens.cached, tokens.total) == (10, 8, 11)


def test_a_filtered_answer_is_an_error_and_a_refusal_is_an_answer():
    filtered = payload()
    filtered["choices"][0]["finish_reason"] = "content_filter"
    with pytest.raises(ContentFiltered):
        read(filtered)
    refused = payload()
    refused["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "I won't"}
    assert (read(refused).text, read(refused).finish_reason) == ("I won't", "refusal")


@pytest.mark.parametrize(("reason", "kind"), [("stop", MalformedResponse), ("length", BadRequest)])
def test_an_answer_that_says_nothing_is_a_failure(reason, kind):
    empty = payload()
    empty["choices"][0] |= {
        "message": {"role": "assistant", "content": None},
        "finish_reason": reason,
    }
    with pytest.raises(kind) as caught:
        read(empty)
    assert caught.value.maybe_billed
    empty["choices"][0]["message"]["tool_calls"] = [{"id": "1"}]
    assert read(empty).text is None
    empty["choices"][0]["message"] = {"role": "assistant", "content": ""}
    assert read(empty).text == ""  # and not None


def test_content_is_a_text_or_parts_of_one():
    parts, number = payload(), payload()
    parts["choices"][0]["message"]["content"] = [
        {"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"},
    ]  # fmt: skip
    assert read(parts).text == "ab"
    number["choices"][0]["message"]["content"] = 5
    with pytest.raises(MalformedResponse):
        read(number)


def test_a_field_of_the_providers_does_not_clash_with_our_flags():
    completion = read(payload(deployment="theirs", attempts="x"))
    outcome = Outcome(completion, None, Source.PROVIDER, "k", attempts=1, deployment="ours")
    answer = to_sdk_object(outcome, model_class="ChatGPT")
    assert (answer.deployment, answer.attempts) == ("ours", 1)


def test_the_sdk_object_has_the_flags_and_is_the_callers_own():
    completion = read(payload(unknown_field=[1]))
    outcome = Outcome(
        completion, None, Source.EXACT_CACHE, "k", attempts=0, latency_s=0.0, deployment=""
    )
    answer = to_sdk_object(outcome, model_class="ChatGPT")
    assert answer.choices[0].message.content == "hello"
    assert (answer.is_cached, answer.is_exact, answer.is_semantic_cached) == (True, True, False)
    assert (answer.model_class, answer.deployment) == ("ChatGPT", "d")
    answer.choices[0].message.content = "changed"
    answer.unknown_field.append(2)
    assert completion.payload["choices"][0]["message"]["content"] == "hello"
    assert completion.payload["unknown_field"] == [1]


def test_dropping_the_payload_keeps_the_figures():
    completion = read_completion(payload(), messages=MESSAGES, deployment="d", keep_payload=False)
    assert completion.payload is None
    assert completion.text == "hello"
