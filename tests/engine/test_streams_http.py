"""Streamed answers through the real SDK, over both HTTP stacks."""

from __future__ import annotations

import asyncio
import importlib
from contextlib import aclosing

import openai
import pytest

from lbgpt_pandas.engine.errors import (
    IncompleteStream,
    MalformedResponse,
    RateLimited,
    ServerError,
)
from lbgpt_pandas.engine.gpt import AzureGPT, ChatGPT
from lbgpt_pandas.engine.streams import IDLE_TIMEOUT_S
from lbgpt_pandas.testing import FakeClock, FakeProvider, Fault

# The SDK moved to another HTTP stack with version 3; the package imports neither.
http = importlib.import_module("httpx2" if openai.__version__ >= "3" else "httpx")

KEY = "sk-CANARY0123456789abcdef"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


async def collect(engine, **request):
    return [chunk async for chunk in engine.streamed_chat_completion(**ASK, **request)]


async def collect_until_error(engine, kind):
    chunks, answer = [], engine.streamed_chat_completion(**ASK)
    while True:
        try:
            chunks.append(await anext(answer))
        except kind as error:
            return text_of(chunks), error


def engine_for(server, stack="aiohttp", **settings):
    return ChatGPT(KEY, base_url=server.base_url, http_client=stack, clock=FakeClock(), **settings)


@pytest.mark.parametrize("stack", ["aiohttp", "httpx"])
async def test_a_server_streams(stack):
    with FakeProvider(reply="one two") as server:
        engine = engine_for(server, stack)
        chunks = await collect(engine, top_k=3)
        assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "one", " two", None]
        body = server.requests[0].body
        assert body == {
            **ASK, "top_k": 3, "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        assert engine.usage_cache_list[0].total_tokens == 2
        assert text_of(await collect(engine, top_k=3)) == "one two"
        assert len(server.requests) == 1


async def test_azure_streams():
    with FakeProvider(reply="one two", deployments={"d": "gpt-4o-mini"}) as server:
        engine = AzureGPT(KEY, server.azure_base, {"m": "d"})
        assert text_of(await collect(engine)) == "one two"
        assert server.requests[0].path.endswith("/d/chat/completions")


@pytest.mark.parametrize("stack", ["aiohttp", "httpx"])
@pytest.mark.parametrize(
    "fault",
    [Fault.rate_limited(0.01), Fault.reset(), Fault.cut(after=1), Fault.stream_error(after=1)],
    ids=lambda fault: fault.kind,
)
async def test_a_server_that_fails_at_the_start_is_asked_again(stack, fault):
    with FakeProvider(reply="one two", faults=[fault]) as server:
        assert text_of(await collect(engine_for(server, stack))) == "one two"
        assert len(server.requests) == 2


@pytest.mark.parametrize("stack", ["aiohttp", "httpx"])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.cut(after=2), IncompleteStream),
        (Fault.reset(after=2), IncompleteStream),
        (Fault.stream_error(after=2), ServerError),
    ],
    ids=["cut", "reset", "error"],
)
async def test_a_server_that_fails_in_the_middle_is_told_of(stack, fault, kind):
    with FakeProvider(reply="one two", faults=[fault]) as server:
        engine = engine_for(server, stack)
        said, error = await collect_until_error(engine, kind)
        assert said in {"one", ""}  # a reset may overtake what was sent before it
        assert error.maybe_billed
        assert len(server.requests) == 1 + (said == "")


@pytest.mark.parametrize("stack", ["aiohttp", "httpx"])
async def test_whoever_stops_early_hangs_up(stack):
    with FakeProvider(reply="one two three", faults=[Fault.drip(0.02)]) as server:
        engine = engine_for(server, stack)
        async with engine:
            async with aclosing(engine.streamed_chat_completion(**ASK)) as chunks:
                await anext(chunks)
            for _ in range(50):
                await asyncio.sleep(0.01)
                if server.tally.aborted:
                    break
            assert len(asyncio.all_tasks()) == 1
        assert server.tally.aborted == 1


class Wire:
    """Answers under the SDK, without a socket."""

    def __init__(self, *answers):
        self.answers, self.seen = list(answers), []
        self.engine = ChatGPT(
            KEY,
            base_url="https://api.example/v1",
            http_client=lambda: http.AsyncClient(transport=http.MockTransport(self.handle)),
            stop_after_attempts=1,
            request_timeout=5,
        )

    def handle(self, request):
        self.seen.append(request)
        return self.answers.pop(0)


def respond(body, status=200, kind="text/event-stream"):
    return http.Response(status, content=body, headers={"content-type": kind})


async def test_comments_and_unusual_line_ends_are_understood():
    body = (
        b': PROCESSING\r\n\r\ndata: {"choices":[{"index":0,"delta":{"content":"x"},'
        b'"finish_reason":"stop"}]}\r\n\r\n'
    )
    assert text_of(await collect(Wire(respond(body)).engine)) == "x"


async def test_the_time_for_the_first_part_is_not_that_of_each_read():
    wire = Wire(respond(b"data: [DONE]\n\n"))
    await collect_until_error(wire.engine, IncompleteStream)
    timeout = wire.seen[0].extensions["timeout"]
    assert (timeout["connect"], timeout["read"]) == (5.0, IDLE_TIMEOUT_S)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (respond(b'{"error":{"code":"rate_limit_exceeded"}}', 429), RateLimited),
        (respond(b'{"error":{"code":"rate_limit_exceeded"}}', kind="application/json"), RateLimited),
        (respond(b'{"choices":[]}', kind="application/json"), MalformedResponse),
        (respond(b"<html>", kind="text/html"), MalformedResponse),
        (respond(b"data: <html>\n\n"), MalformedResponse),
        (respond(b'event: error\ndata: {"type":"overloaded_error"}\n\n'), ServerError),
        (respond(b""), IncompleteStream),
        (respond(b"data: [DONE]\n\n"), IncompleteStream),
    ],
)  # fmt: skip
async def test_what_is_no_stream_is_classified(answer, kind):
    said, error = await collect_until_error(Wire(answer).engine, kind)
    assert said == ""
    assert type(error) is kind
    assert KEY not in repr(error)
