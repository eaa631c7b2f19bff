"""Answers from their chunks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lbgpt_pandas.engine.assembly import Assembly, check_chunk, replay
from lbgpt_pandas.engine.errors import (
    IncompleteStream,
    MalformedResponse,
    RateLimited,
    RequestError,
    ServerError,
)
from lbgpt_pandas.testing.wire import chat_chunks, chat_completion

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ASK = {"messages": [{"role": "user", "content": "hi"}]}


def chunk(delta=None, finish=None, index=0, **rest):
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish, **rest}]}


def put_together(*chunks):
    answer = Assembly()
    for each in chunks:
        answer.add(each)
    return answer


def message(*deltas):
    answer = put_together(*[chunk(delta) for delta in deltas])
    return answer.payload()["choices"][0]["message"]


def completion(answer, **body):
    body = {**ASK, **body}
    return chat_completion(body, answer, number=1, created=5, model="m")


CALLS = {
    "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
}


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("answer", ["one two three", "", {"refusal": "no"}, CALLS])
def test_an_answer_that_is_replayed_is_the_same_answer(answer, n):
    whole = completion(answer, n=n)
    again = put_together(*replay(whole, with_usage=True))
    assert again.is_complete
    assert again.payload() == whole


@pytest.mark.parametrize("answer", ["one two three", "", CALLS])
def test_an_answer_word_by_word_is_the_same_answer(answer):
    whole = completion(answer, n=2)
    assert put_together(*chat_chunks(whole, include_usage=True)).payload() == whole


def test_usage_is_replayed_only_if_wanted():
    whole = completion("x")
    assert [c["choices"] for c in replay(whole, with_usage=False)][-1] != []
    assert "usage" not in put_together(*replay(whole, with_usage=False)).payload()


def test_arguments_of_a_tool_call_come_in_pieces():
    calls = message(
        {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x"'}}]},
        {"tool_calls": [{"index": 0, "id": "", "function": {"name": "f", "arguments": ": 1}"}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
    )["tool_calls"]
    assert calls == [
        {"id": "a", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "function": {"name": "g", "arguments": "{}"}},
    ]


@pytest.mark.parametrize("index", [{"index": 0}, {}])
def test_parallel_calls_with_one_index_are_told_apart_by_their_ids(index):
    one = {"id": "a", "function": {"name": "f", "arguments": "1"}}
    two = {"id": "b", "function": {"name": "f", "arguments": "2"}}
    calls = message({"tool_calls": [index | one]}, {"tool_calls": [index | two]})["tool_calls"]
    assert calls == [one, two]


def test_fields_that_nobody_knows_are_kept():
    answer = put_together(
        {"id": "", "model": "", "prompt_filter_results": [1], "choices": []},
        {"id": "c", "model": "m", "provider": "p", "obfuscation": "xx"}
        | chunk({"role": "assistant", "reasoning_content": "hm"}, content_filter_results={"a": 1}),
        {"id": "d", "model": "m"} | chunk({"reasoning_content": "m", "content": "ok"}, "stop"),
    )
    assert answer.payload() == {
        "id": "c",
        "model": "m",
        "provider": "p",
        "prompt_filter_results": [1],
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "ok", "reasoning_content": "hmm"},
                "logprobs": None,
                "finish_reason": "stop",
                "content_filter_results": {"a": 1},
            }
        ],
    }


def test_log_probabilities_are_put_in_a_row():
    answer = put_together(
        chunk({"content": "a"}, logprobs={"content": [{"token": "a"}], "refusal": None}),
        chunk({"content": "b"}, "stop", logprobs={"content": [{"token": "b"}]}),
    )
    tokens = answer.payload()["choices"][0]["logprobs"]["content"]
    assert [token["token"] for token in tokens] == ["a", "b"]


def test_content_in_parts_and_in_text():
    thought = {"type": "thinking", "thinking": []}
    assert message({"content": [thought]}, {"content": "so"})["content"] == [
        thought,
        {"type": "text", "text": "so"},
    ]
    assert message({"content": "so"}, {"content": [thought]})["content"] == [
        {"type": "text", "text": "so"},
        thought,
    ]


def test_complete_is_an_answer_whose_choices_all_have_ended():
    answer = put_together({"choices": []})
    assert not answer.is_complete
    answer.add(chunk({"content": "a"}))
    assert not answer.is_complete
    answer.add(chunk({}, "stop"))
    assert answer.is_complete
    answer.add(chunk({"content": "b"}, index=1))
    assert not answer.is_complete
    answer.add(chunk({}, "length", index=1))
    answer.add(chunk({}, "length", index=0))
    assert answer.is_complete
    reasons = [choice["finish_reason"] for choice in answer.payload()["choices"]]
    assert reasons == ["stop", "length"]


def test_an_announcement_says_nothing_yet():
    answer = put_together({"choices": []}, chunk({"role": "assistant", "content": ""}), chunk())
    assert not answer.says_something
    for delta in ({"content": "x"}, {"tool_calls": [{"index": 0}]}, {"refusal": "no"}):
        assert put_together(chunk(delta)).says_something
    assert put_together(chunk({}, "stop")).says_something


def test_the_answer_does_not_share_what_the_chunks_hold():
    part = chunk({"tool_calls": [{"index": 0, "id": "a", "x": [1]}]}, "stop")
    answer = put_together(part)
    part["choices"][0]["delta"]["tool_calls"][0]["x"].append(2)
    assert answer.payload()["choices"][0]["message"]["tool_calls"] == [{"id": "a", "x": [1]}]


@pytest.mark.parametrize("index", [None, [1], "0"])
def test_an_odd_index_is_the_place_in_the_list(index):
    answer = put_together(chunk({"content": "a"}, index=index), chunk({"content": "b"}))
    assert answer.payload()["choices"][0]["message"]["content"] == "ab"


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"error": {"message": "x", "type": "server_error"}}, ServerError),
        ({"error": {"code": 429, "message": "slow"}}, RateLimited),
        ({"error": {"message": "who knows"}}, IncompleteStream),
        ({"error": "who knows"}, IncompleteStream),
        (chunk({}, "error"), IncompleteStream),
        (chunk({}, "error", error={"code": 502, "message": "x"}), ServerError),
        ({"error": {"code": 502, "message": "x"}} | chunk({}, "error"), ServerError),
        ([], MalformedResponse),
        ("text", MalformedResponse),
    ],
)
def test_an_error_in_a_chunk_is_that_error(event, kind):
    with pytest.raises(RequestError) as caught:
        check_chunk(event, {}, now=NOW)
    assert type(caught.value) is kind
    assert caught.value.maybe_billed


def test_an_error_in_a_chunk_is_told_without_keys_and_control_characters():
    with pytest.raises(IncompleteStream, match="ended the stream with an error: a") as caught:
        check_chunk({"error": {"message": "a\x1b[1m sk-CANARY0123456789abcdef"}}, {}, now=NOW)
    assert "CANARY" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_choice_that_is_no_object_is_malformed():
    with pytest.raises(MalformedResponse, match="not an object"):
        put_together({"choices": ["text"]})
