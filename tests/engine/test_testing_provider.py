"""FakeProvider: what it sends is what OpenAI and Azure send, judged by the SDK itself."""

from __future__ import annotations

import asyncio
import base64
import gc
import http.client
import json
import struct
import threading
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit

import numpy as np
import openai
import pydantic
import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from lbgpt_pandas.engine import errors
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.gpt import ChatGPT
from lbgpt_pandas.engine.retry import classify_response
from lbgpt_pandas.engine.retry_after import parse_retry_after
from lbgpt_pandas.testing import FakeClock, FakeProvider, Fault, KeyLimits

KEY = "sk-CANARY0123456789abcdef"
CHAT = "/v1/chat/completions"
AZURE_CHAT = "/openai/deployments/{}/chat/completions?api-version=2024-10-21"


def hello(text="hello there", **more):
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}


def call(server, body=None, *, path=CHAT, key=KEY, method="POST", headers=None, azure=False):
    """One HTTP request of the test's own: status, parsed body, headers."""
    connection = http.client.HTTPConnection(urlsplit(server.azure_base).netloc, timeout=10)
    auth = {"api-key": key} if azure else {"Authorization": f"Bearer {key}"}
    raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    try:
        connection.request(method, path, raw, {**(auth if key else {}), **(headers or {})})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    lower = {name.lower(): value for name, value in response.getheaders()}
    parsed = json.loads(content) if "json" in lower["content-type"] else content
    return response.status, parsed, lower


def refused(server, body, **more):
    """How the engine's own classifier understands a refusal."""
    status, parsed, headers = call(server, body, **more)
    return (
        status,
        parsed["error"],
        classify_response(status, parsed, headers, now=datetime.now(UTC)),
    )


@pytest.fixture
def client(provider):
    with openai.OpenAI(api_key=KEY, base_url=provider.base_url, max_retries=0) as client:
        yield client


@pytest.fixture
def azure(provider):
    with openai.AzureOpenAI(
        api_key=KEY, azure_endpoint=provider.azure_base, api_version="2024-10-21", max_retries=0
    ) as client:
        yield client


# Chat


def test_a_chat_completion_is_exactly_openais(provider):
    status, body, headers = call(provider, hello("x" * 41))
    assert status == 200
    completion = ChatCompletion.model_validate(body, strict=True)
    assert completion.choices[0].message.content == "A:" + "x" * 41
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == "gpt-4o-mini"
    assert completion.usage.prompt_tokens == 41 // 4
    assert completion.usage.completion_tokens == 43 // 4
    assert completion.usage.total_tokens == 10 + 10
    assert completion.id.startswith("chatcmpl-")
    assert abs(completion.created - time.time()) < 60
    assert completion.system_fingerprint.startswith("fp_")
    assert headers["x-request-id"].startswith("req_")
    assert headers["content-type"] == "application/json"
    assert not any(name.startswith("x-ratelimit") for name in headers)


def test_the_sdk_reads_it(provider, client):
    answer = client.chat.completions.create(**hello(n=2))
    assert [choice.message.content for choice in answer.choices] == ["A:hello there"] * 2
    assert answer._request_id == "req_" + f"{1:032x}"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_token_limit_cuts_the_answer_off(provider, name):
    _, body, _ = call(provider, hello("abcdefghijklmnop", **{name: 2}))
    assert body["choices"][0]["message"]["content"] == "A:abcdef"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 2


def test_replies_of_every_kind():
    async def slowly(body):
        await asyncio.sleep(0)
        return f"{body['temperature']} for {body['messages'][0]['content']}"

    tool_call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    for reply, expected in [
        ("always", "always"),
        (lambda body: body["messages"][0]["content"].upper(), "HELLO THERE"),
        (slowly, "0.5 for hello there"),
        (lambda _: {"tool_calls": [tool_call]}, None),
        (lambda _: {"choices": [{"message": {"content": "whole"}}]}, "whole"),
    ]:
        with FakeProvider(reply=reply) as server:
            _, body, _ = call(server, hello(temperature=0.5))
            assert body["choices"][0]["message"]["content"] == expected
            if expected is None:
                assert body["choices"][0]["message"]["tool_calls"] == [tool_call]
                assert body["choices"][0]["finish_reason"] == "tool_calls"
                ChatCompletion.model_validate(body, strict=True)


def test_a_reply_that_raises_is_told_at_once_and_not_retried():
    def broken(body):
        raise LookupError("no such thing")

    with FakeProvider(reply=broken) as server:
        engine = ChatGPT(KEY, base_url=server.base_url)
        with pytest.raises(errors.BadRequest, match="LookupError"):
            asyncio.run(engine.cached_chat_completion(hello()))
        assert server.tally.by_status == {400: 1}


# Streams


def stream_of(server, **more):
    _, raw, headers = call(server, hello("a  b\nc ", stream=True, **more))
    assert headers["content-type"] == "text/event-stream"
    events = raw.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_stream_is_exactly_openais(provider, include_usage):
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    raw = stream_of(provider, **options)
    chunks = [ChatCompletionChunk.model_validate(chunk, strict=True) for chunk in raw]
    if include_usage:
        assert all(chunk["usage"] is None for chunk in raw[:-1])
        last = chunks.pop()
        assert last.choices == []
        assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    else:
        assert not any("usage" in chunk for chunk in raw)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == "A:a  b\nc "
    assert len(deltas) > 4
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_sdk_reads_streams(provider, client, azure):
    for sdk, model in ((client, "gpt-4o-mini"), (azure, "any-deployment")):
        with sdk.chat.completions.create(**hello(stream=True) | {"model": model}) as stream:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert text == "A:hello there"


# Structured output


class Nested(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=2)
    parent: Nested | None
    children: list[Nested]


class Form(pydantic.BaseModel):
    kind: str = pydantic.Field(json_schema_extra={"enum": ["a", "b"]})
    number: int = pydantic.Field(gt=3, le=5)
    share: float = pydantic.Field(gt=0, lt=0.5)
    below: int = pydantic.Field(lt=-5, multiple_of=3)
    flag: bool | None
    pair: tuple[int, str]
    some: list[float] = pydantic.Field(min_length=2)
    tree: Nested


def test_a_schema_is_filled_in_with_something_valid(provider, client):
    answer = client.chat.completions.parse(**hello(), response_format=Form)
    form = answer.choices[0].message.parsed
    assert form.number in (4, 5)
    assert form.tree == Nested(name="aa", parent=None, children=[])


def test_json_objects_are_json(provider):
    _, body, _ = call(provider, hello("x", response_format={"type": "json_object"}))
    assert json.loads(body["choices"][0]["message"]["content"]) == {"answer": "A:x"}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"type": "string", "pattern": "a+"},
        {"$ref": "#/$defs/Missing"},
        {"type": "integer", "minimum": 3, "maximum": 2},
    ],
)
def test_a_schema_that_cannot_be_filled_in_is_refused(provider, schema):
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    status, error, _ = refused(provider, hello(response_format=wanted))
    assert (status, error["param"]) == (400, "response_format")


# Embeddings


def test_embeddings_follow_from_the_text(provider, client):
    texts = ["a red car", "the red car", "two green pears", "a red car"]
    answer = client.embeddings.create(model="text-embedding-3-small", input=texts)
    vectors = np.array([entry.embedding for entry in answer.data])
    assert vectors.shape == (4, 1536)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors[0] == vectors[3]).all()
    assert vectors[0] @ vectors[1] > 0.4 > abs(vectors[0] @ vectors[2])
    assert [entry.index for entry in answer.data] == [0, 1, 2, 3]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 2 + 2 + 3 + 2


def test_embeddings_as_lists_and_as_base64_are_the_same(provider):
    ask = {"model": "text-embedding-3-large", "input": "x", "dimensions": 16}
    body = {}
    for form in ("float", "base64"):
        _, body[form], _ = call(provider, ask | {"encoding_format": form}, path="/v1/embeddings")
    assert CreateEmbeddingResponse.model_validate(body["float"], strict=True)
    floats = body["float"]["data"][0]["embedding"]
    raw = base64.b64decode(body["base64"]["data"][0]["embedding"])
    assert floats == list(struct.unpack("<16f", raw))
    # The same on every machine and for ever.
    assert floats[:3] == pytest.approx([-0.06962, 0.16743, -0.05696], abs=1e-5)


def test_embeddings_of_token_lists_and_by_azure(provider, azure):
    answer = azure.embeddings.create(model="emb", input=[[1, 2], [3]])
    assert len(answer.data) == 2
    assert answer.model == "text-embedding-3-small"
    _, body, _ = call(provider, {"model": "e", "input": [1, 2]}, path="/v1/embeddings")
    assert len(body["data"]) == 1
    assert body["data"][0]["embedding"] == pytest.approx(answer.data[0].embedding)


@pytest.mark.parametrize("given", [None, "", [], ["a", ""], [3.5], ["x"] * 2_049])
def test_inputs_that_cannot_be_embedded_are_refused(provider, given):
    status, error, _ = refused(provider, {"model": "e", "input": given}, path="/v1/embeddings")
    assert (status, error["param"]) == (400, "input")


# Azure and the list of models


def test_azure_answers_with_the_model_behind_the_deployment():
    with FakeProvider(deployments={"mine": "gpt-4o"}) as server:
        body = hello()
        status, answer, headers = call(server, body, path=AZURE_CHAT.format("mine"), azure=True)
        assert (status, answer["model"]) == (200, "gpt-4o")
        assert answer["prompt_filter_results"]
        assert headers["apim-request-id"]
        status, error, understood = refused(
            server, body, path=AZURE_CHAT.format("other"), azure=True
        )
        assert (status, error["code"]) == (404, "DeploymentNotFound")
        assert type(understood) is errors.NotFound


def test_without_deployments_every_name_is_one(provider):
    for name, model in (("gpt-4.1", "gpt-4.1"), ("prod", "gpt-4o-mini")):
        _, answer, _ = call(provider, hello(), path=AZURE_CHAT.format(name), azure=True)
        assert answer["model"] == model
    path = AZURE_CHAT.format("x").partition("?")[0]
    assert call(provider, hello(), path=path, azure=True)[0] == 404


def test_the_models_are_listed():
    with FakeProvider(models=["one", "two"]) as server:
        _, body, _ = call(server, path="/v1/models", method="GET")
        assert [entry["id"] for entry in body["data"]] == ["one", "two"]
        with openai.OpenAI(api_key=KEY, base_url=server.base_url) as client:
            assert [model.id for model in client.models.list()] == ["one", "two"]


# Refusals


def test_a_wrong_key_is_refused_in_openais_words_without_the_whole_key():
    with FakeProvider(keys=["good"]) as server:
        assert call(server, hello(), key="good")[0] == 200
        status, error, understood = refused(server, hello())
        assert (status, error["code"]) == (401, "invalid_api_key")
        assert "sk-CANAR*" in error["message"]
        assert KEY not in error["message"]
        assert type(understood) is errors.AuthError
        assert "didn't provide" in refused(server, hello(), key=None)[1]["message"]
        path = AZURE_CHAT.format("d")
        status, error, understood = refused(server, hello(), path=path, azure=True)
        assert (status, error["code"]) == (401, "401")
        assert type(understood) is errors.AuthError
        assert call(server, hello(), path=path, key="good", azure=True)[0] == 200
        assert call(server, path="/v1/models", method="GET", key="bad")[0] == 401


def test_an_unknown_model_is_refused():
    with FakeProvider(models=["gpt-4o-mini"]) as server:
        status, error, understood = refused(server, hello() | {"model": "gpt-9"})
        assert (status, error["code"]) == (404, "model_not_found")
        assert "gpt-9" in str(understood)


def test_a_context_that_is_too_long_is_refused():
    with FakeProvider(context_tokens=100) as server:
        assert call(server, hello("x" * 400))[0] == 200
        for body in (hello("x" * 404), hello("x" * 40, max_tokens=91)):
            status, error, understood = refused(server, body)
            assert (status, error["code"]) == (400, "context_length_exceeded")
            assert "101 tokens" in error["message"]
            assert type(understood) is errors.ContextTooLong


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"{", "parse the JSON"),
        (b"", "parse the JSON"),
        (b"[]", "parse the JSON"),
        ({"messages": [{"role": "user", "content": "x"}]}, "model parameter"),
        ({"model": "m"}, "'messages'"),
        ({"model": "m", "messages": []}, "non-empty"),
        ({"model": "m", "messages": ["x"]}, "non-empty"),
    ],
)
def test_bodies_that_are_no_request_are_refused(provider, body, word):
    status, error, understood = refused(provider, body)
    assert status == 400
    assert word in error["message"]
    assert type(understood) is errors.BadRequest


def test_other_addresses_and_methods_are_refused(provider):
    assert refused(provider, hello(), path="/v1/nothing")[0] == 404
    assert refused(provider, hello(), path="/v1/chat/completions/")[0] == 404
    assert refused(provider, None, method="GET")[0] == 405


# Limits


def test_requests_are_limited_over_a_sliding_window_for_each_key():
    clock = FakeClock(auto_advance=False)
    with FakeProvider(rpm=3, clock=clock) as server:
        for remaining in (2, 1, 0):
            status, _, headers = call(server, hello())
            assert status == 200
            assert headers["x-ratelimit-limit-requests"] == "3"
            assert headers["x-ratelimit-remaining-requests"] == str(remaining)
            assert headers["x-ratelimit-reset-requests"] == "1m0s"
            assert "x-ratelimit-limit-tokens" not in headers
            clock.advance(10)
        status, body, headers = call(server, hello())
        assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
        assert (headers["retry-after"], headers["retry-after-ms"]) == ("30", "30000")
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert "Limit 3, Used 3" in body["error"]["message"]
        error = classify_response(status, body, headers, now=datetime.now(UTC))
        assert type(error) is errors.RateLimited
        assert error.retry_after == 30
        assert call(server, hello(), key="another")[0] == 200
        clock.advance(29.9)
        assert call(server, hello())[0] == 429
        clock.advance(0.1)
        assert call(server, hello())[0] == 200
        assert server.tally.by_status == {200: 5, 429: 2}


def test_waiting_as_long_as_is_said_is_enough():
    clock = FakeClock(auto_advance=False)
    with FakeProvider(rpm=5, tpm=100, clock=clock, window_s=0.7) as server:
        served = 0
        for _ in range(40):
            status, _, headers = call(server, hello("x" * 4 * (served % 7 * 9 + 1)))
            served += status == 200
            if status == 429:
                wait = parse_retry_after(headers, now=datetime.now(UTC))
                clock.advance(wait)
                assert call(server, hello("x" * 4 * (served % 7 * 9 + 1)))[0] == 200
                served += 1
            clock.advance(0.0317)
        assert served >= 40


def test_tokens_are_admitted_as_openai_and_azure_count_them():
    clock = FakeClock(auto_advance=False)
    ask = hello("x" * 40, max_tokens=50)
    with FakeProvider(tpm=120, clock=clock) as server:
        for remaining in (70, 20):
            status, _, headers = call(server, ask)
            assert status == 200
            assert headers["x-ratelimit-remaining-tokens"] == str(remaining)
        assert refused(server, ask)[1]["type"] == "tokens"
        # The same key has a quota of its own under Azure, where prompt and max_tokens add up.
        path = AZURE_CHAT.format("d")
        for remaining in (60, 0):
            status, _, headers = call(server, ask, path=path, azure=True)
            assert status == 200
            assert headers["x-ratelimit-remaining-tokens"] == str(remaining)
        status, error, understood = refused(server, ask, path=path, azure=True)
        assert (status, error["code"]) == (429, "429")
        assert understood.retry_after == 60


def test_an_answer_longer_than_admitted_is_charged_in_full():
    with FakeProvider(reply="y" * 400, tpm=1_000) as server:
        _, body, headers = call(server, hello("x" * 40))
        assert body["usage"]["total_tokens"] == 110
        assert headers["x-ratelimit-remaining-tokens"] == "890"


def test_a_request_larger_than_the_limit_is_told_so_without_a_time_to_wait():
    with FakeProvider(tpm=10) as server:
        status, body, headers = call(server, hello("x" * 400))
        assert status == 429
        assert "Request too large" in body["error"]["message"]
        assert "retry-after" not in headers
        error = classify_response(status, body, headers, now=datetime.now(UTC))
        assert type(error) is errors.RequestExceedsQuota


def test_a_burst_window_is_shorter_and_has_the_same_rate():
    clock = FakeClock(auto_advance=False)
    with FakeProvider(rpm=60, burst_s=10, clock=clock) as server:
        assert [call(server, hello())[0] for _ in range(11)] == [200] * 10 + [429]
        assert refused(server, hello())[2].retry_after == 10
        clock.advance(10)
        assert call(server, hello())[0] == 200


def test_a_token_bucket_refills_continuously():
    clock = FakeClock(auto_advance=False)
    with FakeProvider(rpm=60, window="bucket", burst_s=2, clock=clock) as server:
        assert [call(server, hello())[0] for _ in range(3)] == [200, 200, 429]
        clock.advance(0.75)
        _, body, headers = call(server, hello())
        assert (headers["retry-after-ms"], headers["retry-after"]) == ("250", "1")
        assert headers["x-ratelimit-limit-requests"] == "60"
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert headers["x-ratelimit-reset-requests"] == "1.25s"
        assert "Limit 60, Used 60" in body["error"]["message"]
        clock.advance(0.25)
        assert [call(server, hello())[0] for _ in range(2)] == [200, 429]


def test_a_fixed_minute_ends_all_at_once():
    clock = FakeClock(auto_advance=False)
    with FakeProvider(rpm=2, window="fixed", clock=clock) as server:
        assert call(server, hello())[0] == 200
        clock.advance(59)
        assert call(server, hello())[2]["x-ratelimit-reset-requests"] == "1s"
        assert call(server, hello())[2]["retry-after"] == "1"
        clock.advance(0.7497)
        # Rounded up wherever it stands, so that waiting is enough.
        _, body, headers = call(server, hello())
        assert headers["retry-after-ms"] == "251"
        assert "try again in 0.251s" in body["error"]["message"]
        clock.advance(0.251)
        assert [call(server, hello())[0] for _ in range(3)] == [200, 200, 429]


def test_keys_and_deployments_have_limits_of_their_own():
    limits = {"large": KeyLimits(rpm=4), "prod": KeyLimits(rpm=3, tpm=1_000)}
    with FakeProvider(rpm=1, limits=limits) as server:
        path = AZURE_CHAT.format("prod")
        for _ in range(6):
            call(server, hello(), key="large")
            call(server, hello(), key="small")
            call(server, hello(), key="azure", path=path, azure=True)
        assert server.tally.by_key_status == {
            ("large", 200): 4,
            ("large", 429): 2,
            ("small", 200): 1,
            ("small", 429): 5,
            ("azure", 200): 3,
            ("azure", 429): 3,
        }
        assert server.tally.most_requests("large") == 4
        assert server.tally.most_requests("azure", deployment="prod") == 3
        headers = call(server, hello(), key="azure", path=path, azure=True)[2]
        assert headers["x-ratelimit-limit-tokens"] == "1000"


@pytest.mark.parametrize("azure", [False, True])
def test_azures_junk_says_nothing_of_use(azure):
    path = AZURE_CHAT.format("d") if azure else CHAT
    with FakeProvider(rpm=1, headers="azure-junk") as server:
        for expected in (200, 429):
            status, body, headers = call(server, hello(), path=path, azure=azure)
            assert status == expected
            assert headers["x-ratelimit-limit-requests"] == "-1"
            assert headers["x-ratelimit-remaining-requests"] == "-1"
            assert headers["x-ratelimit-reset-requests"] == "0"
            assert not any(name.startswith("retry-after") for name in headers)
        error = classify_response(status, body, headers, now=datetime.now(UTC))
        assert type(error) is errors.RateLimited
        assert error.retry_after is None


def test_headers_may_be_absent_or_anthropics():
    with FakeProvider(rpm=1, headers=False) as server:
        for _ in range(2):
            headers = call(server, hello())[2]
            assert not any("ratelimit" in name or "retry" in name for name in headers)
    clock = FakeClock(auto_advance=False)
    with FakeProvider(rpm=1, tpm=100, headers="anthropic", clock=clock) as server:
        for _ in range(2):
            status, _, headers = call(server, hello())
            assert headers["anthropic-ratelimit-requests-remaining"] == "0"
            assert headers["anthropic-ratelimit-tokens-reset"] == "2026-01-01T00:01:00Z"
            assert not any(name.startswith("x-ratelimit") for name in headers)
        assert (status, headers["retry-after"]) == (429, "60")
        assert "retry-after-ms" not in headers


def test_refused_requests_may_count():
    clock = FakeClock(auto_advance=False)
    with FakeProvider(rpm=1, count_refused=True, clock=clock) as server:
        assert call(server, hello())[0] == 200
        clock.advance(40)
        assert call(server, hello())[2]["retry-after"] == "60"
        clock.advance(40)
        assert call(server, hello())[0] == 429
        clock.advance(60)
        assert call(server, hello())[0] == 200


def test_the_most_in_a_minute_is_counted_without_limits_and_for_streams():
    clock = FakeClock(auto_advance=False)
    with FakeProvider(clock=clock, faults=[Fault.server_error()]) as server:
        call(server, hello())  # the fault, which no limit ever sees
        for pause in (0, 5, 5, 49.9, 0.2):
            clock.advance(pause)
            call(server, hello("x" * 400, stream=True))
        tally = server.tally
    # Its block ends the handlers, so that all are counted.
    assert tally.most_requests(KEY) == 4
    assert tally.most_requests(KEY, span_s=10) == 2
    # 100 of the prompt and 100 of the answer
    assert tally.most_tokens(KEY, span_s=10) == 2 * (100 + 402 // 4)
    assert [record.tokens for record in server.requests] == [0] + [200] * 5
    assert tally.by_key_status == {(KEY, 500): 1, (KEY, 200): 5}


@pytest.mark.parametrize(
    "settings", [{"rpm": 0}, {"tpm": -1}, {"context_tokens": 0}, {"keys": "x"}]
)
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigurationError):
        FakeProvider(**settings)


# Faults


@pytest.mark.parametrize(
    ("fault", "kind", "status", "code"),
    [
        (Fault.rate_limited(0.04), errors.RateLimited, 429, "rate_limit_exceeded"),
        (Fault.insufficient_quota(), errors.QuotaExhausted, 429, "insufficient_quota"),
        (Fault.content_filter(), errors.ContentFiltered, 400, "content_filter"),
        (Fault.server_error(503), errors.ServerError, 503, None),
    ],
)
def test_faults_are_what_they_are_called(fault, kind, status, code):
    with FakeProvider(faults=[fault]) as server:
        got, error, understood = refused(server, hello())
        assert (got, error["code"]) == (status, code)
        assert type(understood) is kind
        assert call(server, hello())[0] == 200
        assert server.tally.by_status == {status: 1, 200: 1}
        assert [record.status for record in server.requests] == [status, 200]


def test_rate_limited_has_both_headers_or_none():
    with FakeProvider(faults=[Fault.rate_limited(0.04), Fault.rate_limited()]) as server:
        _, _, headers = call(server, hello())
        assert (headers["retry-after-ms"], headers["retry-after"]) == ("40", "1")
        assert "retry-after" not in call(server, hello())[2]


def test_content_filter_has_azures_form():
    with FakeProvider(faults=lambda _: Fault.content_filter()) as server:
        with pytest.raises(openai.BadRequestError) as caught:
            openai.AzureOpenAI(
                api_key=KEY, azure_endpoint=server.azure_base, api_version="2024-10-21"
            ).chat.completions.create(**hello())
        inner = caught.value.body["innererror"]
        assert inner["code"] == "ResponsibleAIPolicyViolation"
        assert any(result["filtered"] for result in inner["content_filter_result"].values())


@pytest.mark.parametrize("raw", [b"", b"{", b"null", b"[]", b"{}", "<html>no</html>"])
def test_any_body_can_be_sent_as_a_success(raw):
    fault = Fault.respond(200, raw, content_type="text/html")
    with FakeProvider(faults=[fault]) as server:
        status, body, headers = call(server, hello())
        assert (status, body) == (200, raw if isinstance(raw, bytes) else raw.encode())
        assert headers["content-type"] == "text/html"


def test_a_connection_can_be_reset_before_and_in_the_middle_of_an_answer():
    with FakeProvider(faults=[Fault.reset(), Fault.reset(after=30)]) as server:
        with pytest.raises(ConnectionResetError):
            call(server, hello())
        with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
            call(server, hello())
        assert call(server, hello())[0] == 200
        assert [record.status for record in server.requests] == [None, 200, 200]
        assert server.tally.aborted == 0
        assert server.tally.in_flight == 0


def test_an_answer_can_end_early():
    with FakeProvider(faults=lambda _: Fault.cut(after=3)) as server:
        with pytest.raises(http.client.IncompleteRead) as caught:
            call(server, hello())
        assert caught.value.partial == b'{"i'
        _, raw, _ = call(server, hello("a b c d", stream=True))
        chunks = [json.loads(event[6:]) for event in raw.decode().strip().split("\n\n")]
        assert len(chunks) == 3
        assert not any(chunk["choices"][0]["finish_reason"] for chunk in chunks)


def test_a_stream_can_end_with_an_error():
    with FakeProvider(faults=[Fault.stream_error(after=2)]) as server:
        client = openai.OpenAI(api_key=KEY, base_url=server.base_url, max_retries=0)
        with client, pytest.raises(openai.APIError, match="server had an error"):
            list(client.chat.completions.create(**hello(stream=True)))


def test_an_answer_can_drip():
    with FakeProvider(faults=[Fault.drip(0.0005)], reply="x") as server:
        began = time.monotonic()
        status, body, _ = call(server, hello())
        assert time.monotonic() - began > 0.1
        assert (status, body["choices"][0]["message"]["content"]) == (200, "x")


def test_a_provider_can_hang_until_the_client_gives_up():
    with FakeProvider(faults=[Fault.hang(), Fault.hang(0.02)]) as server:
        client = openai.OpenAI(api_key=KEY, base_url=server.base_url, max_retries=0, timeout=0.05)
        with client, pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(**hello())
        deadline = time.monotonic() + 5
        while server.tally.in_flight and time.monotonic() < deadline:
            time.sleep(0.002)
        assert server.tally.aborted == 1
        assert server.requests[0].aborted
        assert call(server, hello())[0] == 200
        assert server.tally.aborted == 1


def test_faults_can_depend_on_the_request():
    def every_third(record):
        assert record.headers["content-length"]
        return None if record.number % 3 else Fault.server_error()

    with FakeProvider(faults=every_third) as server:
        assert [call(server, hello())[0] for _ in range(6)] == [200, 200, 500] * 2


# What is remembered


def test_requests_are_remembered_with_body_headers_key_and_path():
    with FakeProvider() as server:
        call(server, hello(seed=7), headers={"X-Own": "1"})
        call(server, hello(), path=AZURE_CHAT.format("d"), key="other-key", azure=True)
        first, second = server.requests
        assert first.body == hello(seed=7)
        assert (first.path, first.key, first.model) == (CHAT, KEY, "gpt-4o-mini")
        assert first.headers["x-own"] == "1"
        assert (second.key, second.model) == ("other-key", "d")
        assert second.query == {"api-version": "2024-10-21"}
        assert KEY not in repr(first) + repr(server) + repr(server.tally)
        tally = server.tally
        assert tally.requests == 2
        assert tally.by_key == {KEY: 1, "other-key": 1}
        assert tally.by_path[CHAT] == 1
        server.reset()
        assert server.requests == []
        assert server.tally.requests == 0
        assert call(server, hello())[0] == 200
        assert len(server.requests) == 1


def test_reset_forgets_what_the_limits_counted():
    with FakeProvider(rpm=1) as server:
        assert [call(server, hello())[0] for _ in range(2)] == [200, 429]
        server.reset()
        assert call(server, hello())[0] == 200


def test_reset_while_a_request_is_answered():
    hold = threading.Event()

    async def reply(_):
        while not hold.is_set():
            await asyncio.sleep(0.002)
        return "x"

    with FakeProvider(reply=reply) as server:
        thread = threading.Thread(target=call, args=(server, hello()))
        thread.start()
        while not server.requests:
            time.sleep(0.002)
        server.reset()
        assert (server.tally.in_flight, server.tally.requests) == (1, 0)
        hold.set()
        thread.join()
        deadline = time.monotonic() + 5
        while server.tally.in_flight and time.monotonic() < deadline:
            time.sleep(0.002)
        assert server.tally.in_flight == 0


def test_nothing_is_kept_with_record_false():
    with FakeProvider(record=False) as server:
        assert call(server, hello())[0] == 200
        assert server.requests == []
        assert server.tally.requests == 1


def test_the_peak_of_requests_in_flight():
    with FakeProvider(latency_s=0.05) as server:
        threads = [threading.Thread(target=call, args=(server, hello())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.tally.in_flight_peak == 8
        assert server.tally.in_flight == 0


def test_latency_may_depend_on_the_request():
    def latency(record):
        return 0.05 if record.number == 2 else 0.0

    with FakeProvider(latency_s=latency) as server:
        times = []
        for _ in range(2):
            began = time.monotonic()
            call(server, hello())
            times.append(time.monotonic() - began)
        assert times[0] < 0.05 <= times[1]


# Life and death


def test_it_listens_only_in_its_block_and_leaves_nothing_behind():
    before = threading.active_count()
    server = FakeProvider()
    with pytest.raises(ConfigurationError, match="with"):
        _ = server.base_url
    with server:
        assert server.base_url.endswith("/v1")
        assert call(server, hello())[0] == 200
        with pytest.raises(ConfigurationError, match="already"):
            server.start()
    server.stop()
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        call(server, hello())
    gc.collect()


def test_it_ends_at_once_while_clients_wait_and_keeps_what_it_saw():
    with FakeProvider(faults=lambda _: Fault.hang()) as server:
        failed = threading.Event()

        def ask():
            try:
                call(server, hello())
            except (OSError, http.client.HTTPException):
                failed.set()

        thread = threading.Thread(target=ask)
        thread.start()
        while not server.requests:
            time.sleep(0.002)
        began = time.monotonic()
    assert time.monotonic() - began < 2
    thread.join(5)
    assert failed.is_set()
    assert len(server.requests) == 1
    assert server.tally.aborted == 0
    gc.collect()


def test_started_again_it_has_the_same_address():
    server = FakeProvider()
    with server:
        address = server.base_url
        call(server, hello())
    with server:
        assert server.base_url == address
        assert call(server, hello())[0] == 200
    assert len(server.requests) == 2


def test_a_taken_port_is_told_in_the_callers_thread(provider):
    port = urlsplit(provider.base_url).port
    with pytest.raises(OSError, match=str(port)), FakeProvider(port=port):
        pass
    gc.collect()


def test_a_thousand_requests_through_one_engine(provider):
    engine = ChatGPT(KEY, base_url=provider.base_url)
    answers = engine.chat_completion_list(
        [hello(f"row {number}") for number in range(1_000)], show_progress=False
    )
    texts = [answer.choices[0].message.content for answer in answers]
    assert texts == [f"A:row {number}" for number in range(1_000)]
    assert provider.tally.by_status == {200: 1_000}
