"""LiteLlmRouter over the real litellm and a provider on this machine."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import pickle
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from importlib.util import find_spec

import pytest

from lbgpt_pandas.engine import errors
from lbgpt_pandas.engine.litellm_router import LiteLlmRouter
from lbgpt_pandas.engine.transports import litellm_package
from lbgpt_pandas.engine.types import Request
from lbgpt_pandas.testing import FakeProvider, Fault

KEY = "sk-CANARY0123456789abcdef"
AZURE_KEY = "0canary0123456789abcdef"
MESSAGES = [{"role": "user", "content": "hi"}]
ASK = {"model": "chat", "messages": MESSAGES}

# litellm ignores them itself, from its import on; pytest forgets that with each test.
pytestmark = [
    pytest.mark.skipif(find_spec("litellm") is None, reason="needs the extra litellm"),
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the .*attribute on the instance is deprecated"),
]


def entry(model, name="chat", **params):
    return {"model_name": name, "litellm_params": {"model": model, **params}}


def openai_entry(server, name="chat", model="openai/gpt-4o-mini", key=KEY):
    return entry(model, name, api_base=server.base_url, api_key=key)


def engine_for(server, **settings):
    return LiteLlmRouter(
        [
            openai_entry(server),
            openai_entry(server, "embeddings", "openai/text-embedding-3-small"),
            entry(
                "azure/dep",
                "azure",
                api_base=server.azure_base,
                api_key=AZURE_KEY,
                api_version="2024-10-21",
            ),
        ],
        auto_cache=False,
        **settings,
    )


def transport_of(engine):
    return next(iter(engine._sessions.values())).lanes[0].transport


@contextmanager
def anthropic_server(*answers):
    """Serve Anthropic's message form: status, body and headers in turn."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            status, body, headers = left.pop(0)
            self.send_response(status)
            raw = json.dumps(body).encode()
            for name, text in {**headers, "content-length": str(len(raw))}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# What is answered


async def test_an_answer_and_its_usage(provider):
    engine = engine_for(provider)
    answer = await engine.chat_completion(**ASK, temperature=0.5)
    assert answer.choices[0].message.content == "A:hi"
    assert (answer.model, answer.choices[0].finish_reason) == ("gpt-4o-mini", "stop")
    stats = engine.get_usage_stats()
    assert (stats.requests, stats.tokens) == (1, answer.usage.total_tokens)
    sent = provider.requests[0]
    assert sent.body["temperature"] == 0.5
    assert sent.key == KEY


def test_the_synchronous_list_of_requests(provider):
    requests = [{"model": "chat", "messages": [{"role": "user", "content": c}]} for c in "abc"]
    answers = engine_for(provider).chat_completion_list(requests, show_progress=False)
    assert [a.choices[0].message.content for a in answers] == ["A:a", "A:b", "A:c"]


async def test_azure_answers_keep_their_filter_results(provider):
    engine = engine_for(provider)
    async with engine:
        transport = transport_of(engine)
        reply = await transport.chat(Request(MESSAGES, {"model": "azure"}), timeout=5)
    assert provider.requests[0].path == "/openai/deployments/dep/chat/completions"
    choice = reply.payload["choices"][0]
    assert choice["content_filter_results"]["violence"] == {"filtered": False, "severity": "safe"}
    assert "provider_specific_fields" not in choice["message"]


async def test_limits_are_read_from_the_headers(provider):
    with FakeProvider(rpm=50) as server:
        engine = engine_for(server)
        async with engine:
            transport = transport_of(engine)
            reply = await transport.chat(Request(MESSAGES, {"model": "chat"}), timeout=5)
    assert reply.headers["x-ratelimit-limit-requests"] == "50"
    assert reply.request_id == reply.headers["x-request-id"]


async def test_what_litellm_is_given_stays_as_it_was(provider):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    request = {**ASK, "tools": tools, "metadata": {"a": "b"}}
    before = json.dumps(request)
    await engine_for(provider).chat_completion(**request)
    assert json.dumps(request) == before
    assert provider.requests[0].body["tools"] == tools


async def test_usage_that_was_not_reported_is_estimated():
    body = {"id": "x", "choices": [{"message": {"role": "assistant", "content": "hello there"}}]}
    with FakeProvider(faults=[Fault.respond(200, body)]) as server:
        engine = engine_for(server)
        await engine.chat_completion(**ASK)
    assert engine.usage_cache_list[0].total_tokens > 1


async def test_another_provider_in_its_own_form():
    answer = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5",
        "content": [{"type": "text", "text": "Rome"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 11, "output_tokens": 3},
    }
    limits = {"anthropic-ratelimit-requests-limit": "50"}
    with anthropic_server((200, answer, limits)) as base:
        engine = LiteLlmRouter([entry("anthropic/claude-haiku-4-5", api_base=base, api_key=KEY)])
        async with engine:
            transport = transport_of(engine)
            reply = await transport.chat(Request(MESSAGES, {"model": "chat"}), timeout=5)
    assert reply.payload["choices"][0]["message"]["content"] == "Rome"
    assert reply.payload["usage"]["prompt_tokens"] == 11
    assert reply.headers["anthropic-ratelimit-requests-limit"] == "50"


async def test_embeddings(provider):
    engine = engine_for(provider)
    async with engine:
        transport = transport_of(engine)
        reply = await transport.embed("embeddings", ["a", "b"], {"dimensions": 4}, timeout=5)
    assert [len(item["embedding"]) for item in reply.payload["data"]] == [4, 4]
    assert reply.payload["usage"]["prompt_tokens"] == 2
    assert provider.requests[0].body["input"] == ["a", "b"]


async def test_embeddings_are_kept_by_text(provider):
    engine = LiteLlmRouter([openai_entry(provider, "e", "openai/text-embedding-3-small")])
    first = await engine.cached_embedding("e", input=["a", "b"])
    second = await engine.cached_embedding("e", input=["b", "c"])
    assert first.data[1].embedding == second.data[0].embedding
    assert [request.body["input"] for request in provider.requests] == [["a", "b"], ["c"]]


# Streams


async def chunks_of(engine, **params):
    async with engine:
        transport = transport_of(engine)
        options = {"stream_options": {"include_usage": True}}
        request = Request(MESSAGES, {"model": "chat", **options, **params})
        async with transport.stream(request, timeout=5) as stream:
            return stream, [chunk async for chunk in stream.chunks]


def finish_reasons(chunks):
    return [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]


async def test_a_stream():
    with FakeProvider(reply="one two three", rpm=50) as server:
        stream, chunks = await chunks_of(engine_for(server))
        assert server.requests[0].body["stream_options"] == {"include_usage": True}
    texts = [choice["delta"].get("content") or "" for c in chunks for choice in c["choices"]]
    assert "".join(texts) == "one two three"
    assert [reason for reason in finish_reasons(chunks) if reason] == ["stop"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    last = chunks[-1]
    assert last["choices"] == []
    usage = last["usage"]
    assert usage["completion_tokens"] == 3
    assert "cost" not in usage
    assert stream.headers["x-ratelimit-limit-requests"] == "50"


@pytest.mark.parametrize("after", [0, 2])
async def test_a_stream_that_was_cut_has_no_finish_reason(after):
    # litellm itself ends it with "stop".
    with FakeProvider(reply="one two three", faults=[Fault.cut(after)]) as server:
        _, chunks = await chunks_of(engine_for(server))
    assert not any(finish_reasons(chunks))


async def test_a_whole_stream_is_kept_and_given_again():
    with FakeProvider(reply="one two three") as server:
        engine = LiteLlmRouter([openai_entry(server)])
        for _ in range(2):
            chunks = [chunk async for chunk in engine.streamed_chat_completion(**ASK)]
            texts = [choice.delta.content or "" for c in chunks for choice in c.choices]
            assert "".join(texts) == "one two three"
        assert len(server.requests) == 1
    assert engine.usage_cache_list[0].completion_tokens == 3


async def test_a_stream_that_was_cut_is_told_and_not_kept():
    with FakeProvider(reply="one two three", faults=[Fault.cut(2)]) as server:
        engine = LiteLlmRouter([openai_entry(server)])
        with pytest.raises(errors.IncompleteStream):
            [chunk async for chunk in engine.streamed_chat_completion(**ASK)]
        assert [chunk async for chunk in engine.streamed_chat_completion(**ASK)]
        assert len(server.requests) == 2


async def test_an_error_inside_a_stream_is_raised():
    with (
        FakeProvider(reply="one two three", faults=[Fault.stream_error(2)]) as server,
        pytest.raises(errors.ServerError, match="had an error"),
    ):
        await chunks_of(engine_for(server))


async def test_a_stream_that_is_left_hangs_up():
    with FakeProvider(reply="word " * 50, faults=[Fault.drip(0.01)]) as server:
        engine = engine_for(server)
        async with engine:
            transport = transport_of(engine)
            async with transport.stream(Request(MESSAGES, {"model": "chat"}), timeout=5) as stream:
                await anext(stream.chunks)
        for _ in range(100):
            if server.tally.aborted:
                break
            await asyncio.sleep(0.02)
        assert server.tally.aborted == 1


# Failures: ours to retry, once each


@pytest.mark.parametrize(
    ("fault", "attempts"), [(Fault.rate_limited(0.01), 2), (Fault.server_error(500), 2)]
)
async def test_a_failure_is_retried_by_us_alone(fault, attempts):
    with FakeProvider(faults=[fault]) as server:
        answer = await engine_for(server).cached_chat_completion(ASK)
        assert len(server.requests) == answer.attempts == attempts


async def test_failures_are_not_multiplied():
    with FakeProvider(faults=lambda _: Fault.server_error(500)) as server:
        engine = engine_for(server, stop_after_attempts=2)
        with pytest.raises(errors.ServerError):
            await engine.cached_chat_completion(ASK)
        assert len(server.requests) == 2
        with pytest.raises(errors.ServerError):
            await engine.chat_completion(**ASK)
        assert len(server.requests) == 3


async def test_embeddings_are_not_retried_by_litellm():
    with FakeProvider(faults=lambda _: Fault.server_error(500)) as server:
        engine = engine_for(server)
        async with engine:
            transport = transport_of(engine)
            with pytest.raises(errors.ServerError):
                await transport.embed("embeddings", ["a"], {}, timeout=5)
        assert len(server.requests) == 1


def refusal(status, message="no", **error):
    return Fault.respond(status, {"error": {"message": message, **error}})


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        (refusal(401, code="invalid_api_key"), errors.AuthError, "invalid_api_key"),
        (refusal(403), errors.AuthError, None),
        (refusal(404, code="model_not_found"), errors.NotFound, "model_not_found"),
        (refusal(402), errors.QuotaExhausted, None),
        (Fault.insufficient_quota(), errors.QuotaExhausted, "insufficient_quota"),
        (Fault.rate_limited(3), errors.RateLimited, "rate_limit_exceeded"),
        (Fault.content_filter(), errors.ContentFiltered, "content_filter"),
        (
            refusal(400, "maximum context length is 10 tokens", code="context_length_exceeded"),
            errors.ContextTooLong,
            "context_length_exceeded",
        ),
        (Fault.respond(422, {"detail": "bad"}), errors.BadRequest, None),
        (Fault.server_error(503), errors.ServerError, "server_error"),
        (refusal(529, type="overloaded_error"), errors.ServerError, "overloaded_error"),
        (Fault.reset(), errors.Timeout, "connection_lost"),
        (Fault.cut(10), errors.Timeout, "connection_lost"),
        (Fault.respond(200, b""), errors.MalformedResponse, None),
        (Fault.respond(200, b"null"), errors.MalformedResponse, None),
        (Fault.respond(200, {}), errors.MalformedResponse, None),
        (Fault.respond(200, {"choices": []}), errors.MalformedResponse, None),
        (
            Fault.respond(200, "<html>x</html>", content_type="text/html"),
            errors.MalformedResponse,
            None,
        ),
        (
            Fault.respond(307, b"", {"location": "http://127.0.0.1:1/elsewhere"}),
            errors.NotFound,
            "redirect",
        ),
    ],
)
async def test_failures_are_classified(fault, kind, code):
    with FakeProvider(faults=[fault]) as server:
        engine = engine_for(server)
        with pytest.raises(kind) as caught:
            await engine.chat_completion(**ASK)
        assert len(server.requests) == 1
    error = caught.value
    assert type(error) is kind
    assert error.code == code
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    assert "model group" not in str(error)
    assert error.retry_after == (3 if fault == Fault.rate_limited(3) else None)


async def test_what_the_caller_was_handling_is_not_the_failure():
    with FakeProvider(faults=[Fault.respond(200, b"null")]) as server:
        engine = engine_for(server)
        try:
            json.loads("{")
        except json.JSONDecodeError:
            with pytest.raises(errors.MalformedResponse, match="Empty or invalid"):
                await engine.chat_completion(**ASK)


async def test_nobody_there(provider):
    engine = engine_for(provider)
    provider.stop()
    with pytest.raises(errors.ConnectionFailed) as caught:
        await engine.chat_completion(**ASK)
    assert not caught.value.maybe_billed


async def test_a_call_that_takes_too_long_is_given_up():
    with FakeProvider(faults=[Fault.hang()]) as server:
        with pytest.raises(errors.Timeout):
            await engine_for(server, request_timeout=0.05).chat_completion(**ASK)
        assert len(server.requests) == 1


async def test_another_providers_refusals_are_read():
    spent = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}}
    busy = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    with anthropic_server((429, spent, {"retry-after": "7"}), (529, busy, {})) as base:
        engine = LiteLlmRouter([entry("anthropic/claude-haiku-4-5", api_base=base, api_key=KEY)])
        async with engine:
            transport = transport_of(engine)
            request = Request(MESSAGES, {"model": "chat"})
            with pytest.raises(errors.RateLimited) as caught:
                await transport.chat(request, timeout=5)
            assert caught.value.retry_after == 7
            with pytest.raises(errors.ServerError) as caught:
                await transport.chat(request, timeout=5)
            assert caught.value.code == "overloaded_error"


async def test_an_unknown_model_names_the_known_ones(provider):
    with pytest.raises(errors.NotFound, match="'azure', 'chat', 'embeddings'"):
        await engine_for(provider).chat_completion(model="other", messages=MESSAGES)
    assert not provider.requests


async def test_limits_that_litellm_keeps_are_a_throttle(provider):
    deployment = openai_entry(provider)
    deployment["litellm_params"]["rpm"] = 1
    engine = LiteLlmRouter([deployment], routing_strategy="usage-based-routing-v2")
    async with engine:
        await engine.chat_completion(**ASK)
        with pytest.raises(errors.RateLimited) as caught:
            await engine.chat_completion(**ASK)
    assert caught.value.code == "router"
    assert len(provider.requests) == 1


async def test_no_key_at_all_is_a_refused_key():
    with pytest.raises(errors.AuthError):
        await LiteLlmRouter([entry("openai/gpt-4o")]).chat_completion(**ASK)


async def test_a_deployment_with_a_bad_key_is_left_out():
    with FakeProvider(keys=[KEY]) as server:
        good, bad = openai_entry(server), openai_entry(server, key="sk-other0123456789")
        engine = LiteLlmRouter([good, bad, bad], auto_cache=False)
        async with engine:
            for _ in range(20):
                await engine.chat_completion(**ASK)
        assert server.tally.requests <= 22


async def test_fallbacks_are_litellms():
    with FakeProvider(models=["gpt-4o-mini"]) as server:
        engine = LiteLlmRouter(
            [openai_entry(server, model="openai/gone"), openai_entry(server, "spare")],
            fallbacks=[{"chat": ["spare"]}],
        )
        answer = await engine.chat_completion(**ASK)
    assert answer.choices[0].message.content == "A:hi"


# Sessions


def test_several_loops_leave_nothing_behind(provider):
    import litellm

    async def ask(engine):
        async with engine:
            await asyncio.gather(*(engine.chat_completion(**ASK) for _ in range(5)))
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    engine = engine_for(provider)
    before = set(litellm.in_memory_llm_clients_cache.cache_dict)
    for _ in range(2):
        assert asyncio.run(ask(engine)) == []
    gc.collect()  # an unclosed connection warns here, and fails the test
    assert set(litellm.in_memory_llm_clients_cache.cache_dict) == before
    assert len(provider.requests) == 10
    assert litellm._async_success_callback == []


async def test_the_last_engine_on_a_loop_closes(provider):
    one, two = engine_for(provider), engine_for(provider)
    async with one:
        async with two:
            await two.chat_completion(**ASK)
        await one.chat_completion(**ASK)
    assert not litellm_package._stays


async def test_a_strategy_of_litellms_gets_its_counters(provider):
    import litellm

    engine = engine_for(provider, routing_strategy="latency-based-routing")
    async with engine:
        assert litellm._async_success_callback
        await engine.chat_completion(**ASK)
    assert litellm._async_success_callback == []


# Secrets


async def test_no_key_leaves_the_engine(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    texts = []
    echo = refusal(401, f"the key {AZURE_KEY} and {KEY} are wrong")
    with FakeProvider(faults=lambda _: echo) as server:
        engine = engine_for(server, fallbacks=[{"chat": ["azure"]}])
        for model in ("chat", "azure"):
            with pytest.raises(errors.RequestError) as caught:
                await engine.chat_completion(model=model, messages=MESSAGES)
            texts += [repr(caught.value), str(vars(caught.value))]
        async with engine:
            transport = transport_of(engine)
            texts.append(repr(vars(transport)["_model_list"]))
    texts += [repr(engine), repr(engine._groups.sealed), *capfd.readouterr()]
    texts += [record.getMessage() for record in caplog.records if "aiosqlite" not in record.name]
    assert "canary" not in "".join(texts).lower()
    with pytest.raises(TypeError):
        pickle.dumps(engine._groups.sealed)


async def test_litellm_says_nothing_of_our_calls(provider, caplog):
    caplog.set_level(logging.DEBUG)
    import litellm

    logger = logging.getLogger("LiteLLM")
    await engine_for(provider).chat_completion(**ASK)
    assert not [record for record in caplog.records if record.name.startswith("LiteLLM")]
    assert litellm.user_url_validation
    assert logger.filter(logging.LogRecord("LiteLLM", logging.WARNING, "", 1, "theirs", (), None))


async def test_arguments_that_litellm_refuses_are_told():
    engine = LiteLlmRouter([entry("openai/gpt-4o")], rooting_strategy="x")
    with pytest.raises(errors.ConfigurationError, match="rooting_strategy"):
        await engine.chat_completion(**ASK)


# The package


PROBE = """
import sys, lbgpt_pandas.engine.litellm_router as module
module.LiteLlmRouter([{"model_name": "m", "litellm_params": {"model": "openai/gpt-4o"}}])
assert "litellm" not in sys.modules and "openai" not in sys.modules
"""


@pytest.mark.process
def test_an_engine_is_made_without_litellm():
    subprocess.run([sys.executable, "-c", PROBE], check=True, timeout=60)


def test_litellm_is_a_release_that_this_was_tested_with():
    litellm_package.check_version(version("litellm"))
