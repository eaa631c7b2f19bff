"""Streamed answers: handing out, retries, ends of all kinds, the cache."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing

import pytest
from openai.types.chat import ChatCompletionChunk

from lbgpt_pandas.engine import streams
from lbgpt_pandas.engine.accounts import SESSION_BOOK
from lbgpt_pandas.engine.balanced import MultiLoadBalancedGPT
from lbgpt_pandas.engine.caching import Caching
from lbgpt_pandas.engine.errors import (
    AuthError,
    BadRequest,
    ContentFiltered,
    IncompleteStream,
    MalformedResponse,
    RateLimited,
    ServerError,
    Timeout,
)
from lbgpt_pandas.testing import ScriptedGPT

MESSAGES = [{"role": "user", "content": "hi"}]
ASK = {"model": "m", "messages": MESSAGES}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
START = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}


def part(text=None, finish=None, **rest):
    delta = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **rest}


def text_of(chunks):
    return "".join(
        choice.delta.content or ""
        for chunk in chunks
        for choice in chunk.choices
        if choice.delta is not None
    )


async def collect(engine, **request):
    return [chunk async for chunk in engine.streamed_chat_completion(**{**ASK, **request})]


async def collect_until_error(engine, kind, **request):
    chunks, answer = [], engine.streamed_chat_completion(**{**ASK, **request})
    while True:
        try:
            chunks.append(await anext(answer))
        except kind as error:
            return text_of(chunks), error


async def stored(engine):
    """Text of the cached answer, None if there is none; a call that is made is recorded."""
    before = len(engine.requests)
    answer = await engine.cached_chat_completion(ASK)
    return answer.choices[0].message.content if len(engine.requests) == before else None


async def test_an_answer_comes_in_parts_as_the_sdk_has_them():
    chunks = await collect(ScriptedGPT("one two three"))
    assert all(type(chunk) is ChatCompletionChunk for chunk in chunks)
    assert [chunk.choices[0].delta.content for chunk in chunks] == [
        "", "one", " two", " three", None,
    ]  # fmt: skip
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_what_the_sdk_does_not_know_is_handed_on():
    odd = {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "tail": 1}], "top": 2}
    chunks = await collect(ScriptedGPT([[odd, part("x", "weird")]]))
    assert chunks[0].choices[0].delta.reasoning_content == "hm"
    assert (chunks[0].choices[0].tail, chunks[0].top) == (1, 2)
    assert chunks[1].choices[0].finish_reason == "weird"


async def test_wrong_arguments_are_told_at_the_call():
    with pytest.raises(TypeError, match="messages"):
        ScriptedGPT().streamed_chat_completion(model="m")


async def test_events_without_choices_are_not_handed_out():
    engine = ScriptedGPT([[{"type": "ping"}, part("x"), {"choices": None}, part(None, "stop")]])
    assert len(await collect(engine)) == 2


async def test_a_complete_answer_is_stored_and_replayed():
    engine = ScriptedGPT(["one two", "other"])
    first = await collect(engine, stream=True)
    again = await collect(engine)
    assert text_of(first) == text_of(again) == "one two"
    assert again[-1].choices[0].finish_reason == "stop"
    assert all(type(chunk) is ChatCompletionChunk for chunk in again)
    answer = await engine.cached_chat_completion(ASK)
    assert (answer.choices[0].message.content, answer.is_cached) == ("one two", True)
    assert answer.usage.prompt_tokens == 1
    assert len(engine.requests) == 1


async def test_what_a_replay_saves_is_in_the_books():
    engine = ScriptedGPT("one two three", name="replaying")
    for _ in range(3):
        await collect(engine)
    (row,) = [row for row in SESSION_BOOK.rows() if row.deployment == "replaying"]
    assert (row.billed.requests, row.billed.completion) == (1, 3)
    assert (row.saved.requests, row.saved.completion) == (2, 6)


async def test_an_answer_of_the_list_methods_is_replayed():
    engine = ScriptedGPT(["one two"])
    await engine.cached_chat_completion(ASK)
    assert text_of(await collect(engine)) == "one two"
    assert len(engine.requests) == 1


async def test_a_stored_answer_that_is_none_is_asked_anew():
    engine = ScriptedGPT("ok")
    key = engine.key_maker(streams.Request.from_keywords(ASK)).key(MESSAGES)
    await engine.tier.save(key, family="scripted", model="m", payload={"choices": []})
    assert text_of(await collect(engine)) == "ok"


@pytest.mark.parametrize(("mode", "is_left"), [("read_only", True), ("use", False)])
async def test_a_damaged_answer_is_left_where_it_is_only_read(mode, is_left):
    engine = ScriptedGPT("ok")
    request = streams.Request.from_keywords(ASK)
    key = engine.key_maker(request).key(MESSAGES)
    await engine.tier.cache.set(key, "damaged")
    caching = Caching.of(engine.tier, mode)
    chunks = [chunk async for chunk in engine.stream_request(request, caching=caching)]
    assert text_of(chunks) == "ok"
    left = (await engine.tier.cache.get_many([key]))[key]
    assert (left == "damaged") is is_left


async def test_without_a_cache_nothing_is_kept():
    engine = ScriptedGPT(auto_cache=False)
    assert text_of(await collect(engine)) == text_of(await collect(engine)) == "hi"
    assert len(engine.requests) == 2


async def test_whoever_stops_at_the_finish_reason_has_lost_nothing():
    engine = ScriptedGPT("one two")
    async with aclosing(engine.streamed_chat_completion(**ASK)) as chunks:
        async for chunk in chunks:
            if chunk.choices[0].finish_reason:
                break
    assert await stored(engine) == "one two"
    assert engine.usage_cache_list[0].completion_tokens == 1


async def test_usage_is_recorded_and_shown_only_to_those_who_ask():
    engine = ScriptedGPT("one two three", auto_cache=False)
    assert all(chunk.choices for chunk in await collect(engine))
    assert engine.requests[0].params["stream_options"] == {"include_usage": True}
    usage = engine.usage_cache_list[0]
    assert (usage.prompt_tokens, usage.completion_tokens) == (1, 3)
    asked = await collect(engine, stream_options={"include_usage": True, "other": 1})
    assert (asked[-1].choices, asked[-1].usage.total_tokens) == ([], 4)
    assert engine.requests[1].params["stream_options"]["other"] == 1
    await collect(engine, stream_options=None)
    assert "stream_options" not in engine.requests[2].params


async def test_usage_is_replayed_to_those_who_ask():
    engine = ScriptedGPT("one two three")
    await collect(engine)
    replayed = await collect(engine, stream_options={"include_usage": True})
    assert (replayed[-1].choices, replayed[-1].usage.total_tokens) == ([], 4)
    assert len(engine.requests) == 1


async def test_usage_that_is_missing_is_estimated():
    engine = ScriptedGPT([[part("x" * 40), part(None, "stop")]])
    await collect(engine)
    assert engine.usage_cache_list[0].completion_tokens == 10


@pytest.mark.parametrize(
    "failure",
    [
        ServerError("down", status=500),
        [ServerError("down", status=500)],
        [START, ServerError("down", status=500)],
        [START, START],
        [],
        [START, {"error": {"message": "down", "code": 502}}],
        [START, part(None, "error")],
        ["no object"],
        {"choices": "none"},
    ],
)
async def test_what_fails_before_it_says_anything_is_tried_again(failure, clock):
    engine = ScriptedGPT([failure, "one two"], clock=clock)
    chunks = await collect(engine)
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "one", " two", None]
    assert len(engine.requests) == 2
    assert len(engine.usage_cache_list) == 1


async def test_what_cannot_be_cured_is_not_tried_again(clock):
    engine = ScriptedGPT([BadRequest("no", status=400)], clock=clock)
    await collect_until_error(engine, BadRequest)
    assert len(engine.requests) == 1
    assert engine.deployment.in_flight == 0


@pytest.mark.parametrize(
    ("rest", "kind"),
    [
        ([], IncompleteStream),
        ([ServerError("down", status=500)], ServerError),
        ([{"error": {"message": "down", "type": "server_error"}}], ServerError),
        ([{"error": {"message": "down"}}], IncompleteStream),
        ([part(None, "error")], IncompleteStream),
        (["no object"], MalformedResponse),
    ],
)
async def test_what_fails_after_it_said_something_is_not_said_twice(rest, kind, clock):
    engine = ScriptedGPT([[START, part("so"), part(" far"), *rest], "second"], clock=clock)
    said, error = await collect_until_error(engine, kind)
    assert said == "so far"
    assert error.maybe_billed or kind is ServerError
    assert len(engine.requests) == 1
    assert engine.usage_cache_list == []
    assert engine.deployment.in_flight == 0
    assert await stored(engine) is None


async def test_an_answer_that_has_ended_is_not_lost_with_what_follows():
    ends = [
        [part("x"), part(None, "stop"), part(None, "stop"), {"choices": [], "usage": USAGE}],
        [part("x"), part(None, "stop"), IncompleteStream("lost", code="connection_lost")],
        [part("x"), part(None, "stop"), Timeout("slow")],
        [part("x", "stop")],
    ]
    for end in ends:
        engine = ScriptedGPT([end])
        assert text_of(await collect(engine)) == "x"
        assert await stored(engine) == "x"
        assert len(engine.usage_cache_list) == 1


async def test_one_choice_that_has_not_ended_is_an_incomplete_answer():
    both = [
        {"choices": [{"index": n, "delta": {"content": "x"}, "finish_reason": None}]}
        for n in (0, 1)
    ]
    engine = ScriptedGPT([[*both, part(None, "stop")]], stop_after_attempts=1)
    said, _ = await collect_until_error(engine, IncompleteStream, n=2)
    assert said == "xx"


async def test_choices_one_after_the_other_are_one_answer():
    engine = ScriptedGPT("one two")
    chunks = await collect(engine, n=2)
    assert [chunk.choices[0].index for chunk in chunks] == [0] * 4 + [1] * 4
    answer = await engine.cached_chat_completion({**ASK, "n": 2})
    assert [choice.message.content for choice in answer.choices] == ["one two"] * 2
    assert len(engine.requests) == 1


async def test_tool_calls_are_put_together_and_stored():
    def call(**function):
        delta = {"tool_calls": [{"index": 0, "id": function.pop("id", None), "function": function}]}
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}

    script = [call(id="a", name="f", arguments=""), call(arguments='{"x"'), call(arguments=":1}")]
    engine = ScriptedGPT([[*script, part(None, "tool_calls")]])
    await collect(engine)
    (again,) = (await engine.cached_chat_completion(ASK)).choices[0].message.tool_calls
    assert (again.id, again.function.name, again.function.arguments) == ("a", "f", '{"x":1}')
    (replayed,) = (await collect(engine))[0].choices[0].delta.tool_calls
    assert (replayed.index, replayed.id, replayed.function.arguments) == (0, "a", '{"x":1}')
    assert len(engine.requests) == 1


async def test_a_filtered_answer_is_shown_and_then_an_error_and_not_stored():
    engine = ScriptedGPT([[part("so"), part(" far", "content_filter")], "other"])
    said, error = await collect_until_error(engine, ContentFiltered)
    assert (said, error.maybe_billed) == ("so far", True)
    assert len(engine.requests) == 1
    assert await stored(engine) is None


async def test_the_first_part_has_the_time_of_an_attempt():
    engine = ScriptedGPT(
        lambda _: [START, 0.05, part("late"), part(None, "stop")],
        stop_after_attempts=1,
        request_timeout=0.01,
    )
    said, error = await collect_until_error(engine, Timeout)
    assert (said, error.code, error.maybe_billed) == ("", "attempt_timeout", True)
    patient = await collect(engine, request_timeout=5)
    assert text_of(patient) == "late"


async def test_silence_in_the_middle_ends_an_answer(monkeypatch):
    monkeypatch.setattr(streams, "IDLE_TIMEOUT_S", 0.02)
    script = [part("so"), 0.005, part(" far"), 0.05, part(" late"), part(None, "stop")]
    engine = ScriptedGPT([script], request_timeout=0.01)
    said, error = await collect_until_error(engine, Timeout)
    assert (said, error.code) == ("so far", "idle")
    assert engine.deployment.in_flight == 0


async def test_silence_after_the_end_is_an_end(monkeypatch):
    monkeypatch.setattr(streams, "IDLE_TIMEOUT_S", 0.01)
    engine = ScriptedGPT([[part("x", "stop"), 0.05, part("never")]])
    assert text_of(await collect(engine)) == "x"


async def test_a_slow_reader_is_not_silence(monkeypatch):
    monkeypatch.setattr(streams, "IDLE_TIMEOUT_S", 0.01)
    chunks = []
    async for chunk in ScriptedGPT("one two", request_timeout=0.01).streamed_chat_completion(**ASK):
        await asyncio.sleep(0.015)
        chunks.append(chunk)
    assert text_of(chunks) == "one two"


async def test_whoever_stops_early_gives_the_place_free_at_once():
    closed = []

    async def reply(request):
        return [part("so"), part(" far"), 5.0, part(None, "stop")]

    engine = ScriptedGPT(reply, max_parallel_calls=1)
    async with engine, aclosing(engine.streamed_chat_completion(**ASK)) as chunks:
        closed.append(await anext(chunks))
        assert engine.deployment.in_flight == 1
        await chunks.aclose()
        assert engine.deployment.in_flight == 0
        engine._next_line = lambda _: "next"
        assert (await engine.chat_completion(**ASK)).choices[0].message.content == "next"
    assert text_of(closed) == "so"
    assert len(engine.usage_cache_list) == 1


async def test_a_reader_that_is_cancelled_gives_the_place_free():
    engine = ScriptedGPT(lambda _: [part("so"), 5.0])
    task = asyncio.create_task(collect(engine))
    while not engine.deployment.in_flight:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.deployment.in_flight == 0
    assert engine._sessions == {}


async def test_a_stream_that_is_forgotten_gives_the_place_free():
    engine = ScriptedGPT(lambda _: [part("so"), 5.0])
    async for _ in engine.streamed_chat_completion(**ASK):
        break
    gc.collect()
    for _ in range(20):
        await asyncio.sleep(0)
    assert engine.deployment.in_flight == 0
    assert engine._sessions == {}
    assert len(asyncio.all_tasks()) == 1


async def test_what_a_stream_that_was_stopped_had_reserved_counts():
    engine = ScriptedGPT(lambda _: [part("so"), 5.0], limit_tpm=10_000, limit_rpm=10)
    async with aclosing(engine.streamed_chat_completion(**ASK, max_tokens=1_000)) as chunks:
        await anext(chunks)
    head = engine.headroom()
    assert (head.requests, head.in_flight) == (9, 0)
    assert head.tokens < 9_000


async def test_a_stream_waits_for_its_place_like_any_call(clock):
    engine = ScriptedGPT("ok", limit_rpm=1, limit_burst_s=60, clock=clock, auto_cache=False)
    began = clock.monotonic()
    await collect(engine)
    assert clock.monotonic() == began
    await collect(engine)
    assert 60 <= clock.monotonic() - began <= 61


async def test_a_throttled_stream_waits_as_long_as_it_is_told(clock):
    engine = ScriptedGPT([RateLimited("wait", status=429, retry_after=7.0), "ok"], clock=clock)
    began = clock.monotonic()
    assert text_of(await collect(engine)) == "ok"
    assert 7 <= clock.monotonic() - began <= 8


async def test_a_balancer_streams_from_whoever_can(clock):
    refused = ScriptedGPT(AuthError("no", status=401), name="refused", clock=clock)
    good = ScriptedGPT("ok", name="good", clock=clock)
    engine = MultiLoadBalancedGPT(
        [refused, good], "round_robin", cache=None, auto_cache=False, clock=clock
    )
    for _ in range(3):
        assert text_of(await collect(engine)) == "ok"
    assert len(good.requests) == 3
    answer = await engine.embedding("e", input="a")
    assert answer.deployment in {"refused", "good"}


def test_over_three_event_loops():
    engine = ScriptedGPT("ok", auto_cache=False)
    for _ in range(3):
        assert text_of(asyncio.run(collect(engine))) == "ok"
