"""Embeddings: one call, or each text from the cache."""

from __future__ import annotations

import asyncio
import importlib
import json

import openai
import pytest

from lbgpt_pandas.engine.accounts import SESSION_BOOK
from lbgpt_pandas.engine.caches.base import MemoryCache
from lbgpt_pandas.engine.errors import (
    AuthError,
    BadRequest,
    ConfigurationError,
    InvalidInput,
    MalformedResponse,
    RateLimited,
    RequestExceedsQuota,
    ServerError,
    Timeout,
)
from lbgpt_pandas.engine.gpt import AzureGPT, ChatGPT
from lbgpt_pandas.engine.keys import KeyMaker
from lbgpt_pandas.engine.transports.local import LocalTransport
from lbgpt_pandas.engine.transports.openai import MAX_BODY_BYTES
from lbgpt_pandas.engine.vectors import MOST_INPUTS, cut
from lbgpt_pandas.testing import FakeClock, FakeProvider, Fault, ScriptedGPT

# The SDK moved to another HTTP stack with version 3; the package imports neither.
http = importlib.import_module("httpx2" if openai.__version__ >= "3" else "httpx")

KEY = "sk-CANARY0123456789abcdef"
SMALL = {"model": "e", "dimensions": 4}


def vectors(answer):
    return [item.embedding for item in answer.data]


def flags(answer):
    return [item.is_cached for item in answer.data]


def sent(engine):
    return [request.params["input"] for request in engine.requests]


class Failing(ScriptedGPT):
    """Fails to embed as told, call by call; then it embeds."""

    def __init__(self, *failures, **settings):
        super().__init__(**settings)
        self.failures = list(failures)

    async def embed(self, model, inputs, params):
        reply = await super().embed(model, inputs, params)
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, BaseException):
            raise failure
        return reply if failure is None else type(reply)(failure, {})


async def test_one_call_for_one_text_or_several():
    engine = ScriptedGPT()
    one = await engine.embedding(**SMALL, input="a b")
    both = await engine.embedding("e", input=("c", "a b"), dimensions=4)
    assert vectors(both)[1] == vectors(one)[0]
    assert len(vectors(one)[0]) == 4
    assert [item.index for item in both.data] == [0, 1]
    assert (both.object, both.model, both.usage.total_tokens) == ("list", "e", 2)
    assert isinstance(both, openai.types.CreateEmbeddingResponse)
    assert isinstance(both.data[0], openai.types.Embedding)
    assert (both.model_class, both.deployment, both.attempts) == ("ScriptedGPT", engine.name, 1)
    assert (both.is_cached, flags(both)) == (False, [False, False])
    assert sent(engine) == [["a b"], ["c", "a b"]]


async def test_a_single_call_is_not_tried_again(clock):
    engine = Failing(ServerError("down", status=500), clock=clock)
    with pytest.raises(ServerError):
        await engine.embedding(**SMALL, input="a")
    assert len(engine.requests) == 1


async def test_only_texts_that_are_not_stored_are_sent_and_order_is_kept():
    engine = ScriptedGPT()
    first = await engine.cached_embedding(**SMALL, input=["a", "b", "a"])
    assert flags(first) == [False] * 3
    again = await engine.cached_embedding(**SMALL, input=["c", "b", "d", "a", "c"])
    assert flags(again) == [False, True, False, True, False]
    assert sent(engine) == [["a", "b"], ["c", "d"]]
    whole = await ScriptedGPT().embedding(**SMALL, input=["c", "b", "d", "a", "c"])
    assert vectors(again) == vectors(whole)
    assert [item.index for item in again.data] == [0, 1, 2, 3, 4]
    assert (again.is_cached, again.usage.prompt_tokens) == (False, 2)
    cached = await engine.cached_embedding(**SMALL, input="a")
    assert (cached.is_cached, cached.attempts, cached.usage.total_tokens) == (True, 0, 0)
    assert (cached.deployment, cached.model) == (None, "e")


@pytest.mark.parametrize(
    "other", [{"model": "f", "dimensions": 4}, {"model": "e", "dimensions": 5}]
)
async def test_another_model_or_parameter_is_another_vector(other):
    engine = ScriptedGPT()
    await engine.cached_embedding(**SMALL, input="a")
    await engine.cached_embedding(**other, input="a")
    assert len(engine.requests) == 2


async def test_an_alias_shares_vectors_and_private_keys_are_not_sent():
    engine = ScriptedGPT()
    for model in ("e-1", "e-2"):
        await engine.cached_embedding(
            model, input="a", model_name_cache_alias="e", request_timeout=5
        )
    assert [request.params for request in engine.requests] == [{"model": "e-1", "input": ["a"]}]


async def test_a_chat_and_an_embedding_of_the_same_text_are_two_things():
    engine = ScriptedGPT()
    await engine.cached_embedding("e", input="a")
    await engine.cached_chat_completion({"model": "e", "messages": [{"content": "a"}]})
    assert len(engine.requests) == 2


@pytest.mark.parametrize(("vector", "is_cached"), [([0.5], True), (["x"], False), (None, False)])
async def test_what_is_stored_is_given_if_it_is_a_vector(vector, is_cached):
    engine = ScriptedGPT()
    maker = KeyMaker(family="scripted", kind="embedding", model_alias=None, params={"model": "e"})
    payload = {"embedding": vector, "model": "e-1"}
    await engine.tier.save(maker.key("a"), family="scripted", model="e", payload=payload)
    answer = await engine.cached_embedding("e", input="a")
    assert (answer.is_cached, answer.model) == (is_cached, "e-1" if is_cached else "e")


async def test_without_a_cache_equal_texts_are_still_sent_once():
    engine = ScriptedGPT(auto_cache=False)
    for _ in range(2):
        answer = await engine.cached_embedding(**SMALL, input=["a", "a"])
        assert flags(answer) == [False, False]
    assert sent(engine) == [["a"], ["a"]]


async def test_long_lists_go_in_slices():
    texts = [f"text {n}" for n in range(2 * MOST_INPUTS + 1)]
    engine = ScriptedGPT()
    answer = await engine.cached_embedding("e", input=texts, dimensions=2)
    assert sorted(map(len, sent(engine))) == [1, MOST_INPUTS, MOST_INPUTS]
    assert MOST_INPUTS <= 2_048
    assert answer.attempts == 3
    whole = await engine.cached_embedding("e", input=texts, dimensions=2)
    assert vectors(whole) == vectors(answer)
    assert whole.is_cached
    assert len(engine.requests) == 3


def test_slices_are_bounded_by_their_tokens_too():
    texts = ["x" * 300, "y" * 300, "z" * 3_000, "ü" * 150]
    assert list(cut(texts, most_tokens=210)) == [texts[:2], texts[2:3], texts[3:]]
    assert list(cut([], most_tokens=1)) == []


async def test_slices_fit_the_quota(clock):
    engine = ScriptedGPT(limit_tpm=1_000, clock=clock)
    texts = [f"{n:03d}" + "x" * 97 for n in range(64)]
    answer = await engine.cached_embedding(**SMALL, input=texts)
    assert len(answer.data) == 64
    assert all(len(some) < 5 for some in sent(engine))
    with pytest.raises(RequestExceedsQuota):
        await engine.cached_embedding(**SMALL, input="x" * 5_000)


async def test_no_quota_is_held_for_an_answer():
    engine = ScriptedGPT(limit_tpm=50)
    await engine.embedding(**SMALL, input="a")
    assert len(engine.requests) == 1


async def test_usage_of_embeddings_is_recorded():
    engine = ScriptedGPT()
    await engine.embedding(**SMALL, input=["a" * 40, "b" * 8])
    usage = engine.usage_cache_list[0]
    assert (usage.prompt_tokens, usage.completion_tokens) == (12, 0)


async def test_usage_that_is_missing_is_estimated():
    body = {"data": [{"index": 0, "embedding": [1.5]}]}
    engine = Failing(body)
    answer = await engine.embedding("e", input="a" * 40)
    assert engine.usage_cache_list[0].prompt_tokens >= 10
    assert answer.model == "e"


async def test_what_stored_vectors_save_is_in_the_books():
    engine = ScriptedGPT(name="sparing")
    for _ in range(2):
        await engine.cached_embedding(**SMALL, input=["a" * 40, "b"])
    (row,) = [row for row in SESSION_BOOK.rows() if row.deployment == "sparing"]
    assert (row.billed.requests, row.billed.prompt) == (1, 11)
    assert row.saved.requests == 1
    assert row.saved.prompt >= 11


async def test_what_may_pass_is_tried_again(clock):
    engine = Failing(
        ServerError("down", status=500),
        RateLimited("wait", status=429, retry_after=7.0),
        {"data": []},
        clock=clock,
    )
    began = clock.monotonic()
    answer = await engine.cached_embedding(**SMALL, input="a")
    assert answer.attempts == len(engine.requests) == 4
    assert clock.monotonic() - began >= 7
    assert len(engine.usage_cache_list) == 1


async def test_slices_that_succeed_are_stored_although_another_fails(clock, monkeypatch):
    monkeypatch.setattr("lbgpt_pandas.engine.vectors.MOST_INPUTS", 1)
    engine = Failing(None, BadRequest("no", status=400), clock=clock, max_parallel_calls=1)
    with pytest.raises(BadRequest):
        await engine.cached_embedding(**SMALL, input=["a", "b", "c"])
    assert sent(engine) == [["a"], ["b"]]
    answer = await engine.cached_embedding(**SMALL, input=["a", "b"])
    assert flags(answer) == [True, False]


async def test_after_a_failure_nothing_more_is_sent(clock, monkeypatch):
    monkeypatch.setattr("lbgpt_pandas.engine.vectors.MOST_INPUTS", 1)
    engine = Failing(None, BadRequest("no", status=400), clock=clock, max_parallel_calls=2)
    with pytest.raises(BadRequest):
        await engine.cached_embedding(**SMALL, input=list("abcdefgh"))
    assert len(engine.requests) <= 3


async def test_a_call_that_hangs_times_out():
    engine = ScriptedGPT(latency_s=0.05, request_timeout=0.01, stop_after_attempts=1)
    with pytest.raises(Timeout, match="request_timeout") as caught:
        await engine.cached_embedding(**SMALL, input="a")
    assert caught.value.maybe_billed
    assert engine.deployment.in_flight == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "text 0 of 1 is empty"),
        (["a", "", "b"], "text 1 of 3 is empty"),
        (["a", 5], "text 1 of 2 is a int"),
        ([], "no text"),
        (5, "input=int"),
        (["a", "b\ud800"], "text 1 of 2 has half"),
    ],
)
@pytest.mark.parametrize("method", ["embedding", "cached_embedding"])
async def test_what_cannot_be_embedded_is_told_by_its_place(method, given, message):
    engine = ScriptedGPT()
    with pytest.raises(InvalidInput, match=message):
        await getattr(engine, method)("e", input=given)
    assert engine.requests == []


async def test_cached_vectors_are_numbers():
    engine = ScriptedGPT()
    with pytest.raises(InvalidInput, match="encoding_format"):
        await engine.cached_embedding("e", input="a", encoding_format="base64")
    await engine.cached_embedding(**SMALL, input="a")
    await engine.cached_embedding(**SMALL, input="a", encoding_format="float")
    assert len(engine.requests) == 1


async def test_a_paid_vector_is_stored_although_its_reader_is_cancelled():
    class SlowCache(MemoryCache):
        def __init__(self):
            super().__init__()
            self.begun, self.go_on = asyncio.Event(), asyncio.Event()

        async def set(self, key, value, **options):
            self.begun.set()
            await self.go_on.wait()
            await super().set(key, value, **options)

    cache = SlowCache()
    engine = ScriptedGPT(cache=cache)
    task = asyncio.create_task(engine.cached_embedding(**SMALL, input="a"))
    await cache.begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    cache.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await engine.cached_embedding(**SMALL, input="a")).is_cached


async def test_a_defect_is_raised_as_it_is():
    engine = Failing(ConfigurationError("broken"))
    with pytest.raises(ConfigurationError, match="broken"):
        await engine.cached_embedding(**SMALL, input="a")


async def test_vectors_are_the_callers_own():
    engine = ScriptedGPT()
    first = await engine.cached_embedding(**SMALL, input=["a", "a"])
    before = list(vectors(first)[1])
    vectors(first)[0][0] = 9.0
    assert vectors(first)[1] == before
    assert vectors(await engine.cached_embedding(**SMALL, input="a"))[0] == before


def test_over_three_event_loops():
    engine = ScriptedGPT(auto_cache=False)
    for _ in range(3):
        assert len(asyncio.run(engine.cached_embedding(**SMALL, input="a")).data) == 1


# Over HTTP


@pytest.mark.parametrize("stack", ["aiohttp", "httpx"])
async def test_a_server_embeds(stack):
    with FakeProvider(faults=[Fault.server_error(503)]) as server:
        engine = ChatGPT(KEY, base_url=server.base_url, http_client=stack, clock=FakeClock())
        answer = await engine.cached_embedding("text-embedding-3-small", input=["a", "b"])
        assert [len(vector) for vector in vectors(answer)] == [1_536] * 2
        assert [record.body for record in server.requests] == [
            {"input": ["a", "b"], "model": "text-embedding-3-small", "encoding_format": "float"}
        ] * 2
        again = await engine.cached_embedding("text-embedding-3-small", input=["b", "a"])
        assert vectors(again) == vectors(answer)[::-1]
        assert len(server.requests) == 2
        raw = await engine.embedding("e", input="a", encoding_format="base64", user="u")
        assert isinstance(raw.data[0].embedding, str)
        assert server.requests[-1].body["user"] == "u"


async def test_azure_embeds():
    with FakeProvider(deployments={"d": "text-embedding-3-small"}) as server:
        engine = AzureGPT(KEY, server.azure_base, {"text-embedding-3-small": "d"})
        await engine.embedding("text-embedding-3-small", input="a")
        assert server.requests[0].path.endswith("/d/embeddings")


async def test_a_refused_key_is_told_without_the_key():
    with FakeProvider(keys=["other"]) as server:
        engine = ChatGPT(KEY, base_url=server.base_url)
        with pytest.raises(AuthError) as caught:
            await engine.cached_embedding("e", input="a")
        assert KEY not in repr(caught.value)
        assert len(server.requests) == 1


def answered(body, padding=0):
    def handle(request):
        del request
        return http.Response(200, content=json.dumps(body).encode() + b" " * padding)

    return ChatGPT(
        KEY,
        base_url="https://api.example/v1",
        http_client=lambda: http.AsyncClient(transport=http.MockTransport(handle)),
        stop_after_attempts=1,
    )


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"data": None},
        {"data": [{"embedding": [1.0]}]},
        {"data": [{"embedding": [1.0]}, {"embedding": []}]},
        {"data": [{"embedding": [1.0]}, {"embedding": None}]},
        {"data": [{"embedding": [1.0]}, {"embedding": [1.0, None]}]},
        {"data": [{"embedding": [1.0]}, "text"]},
        {"choices": [{"message": {"content": "hi"}}]},
    ],
)
async def test_an_answer_without_a_vector_for_each_text_is_malformed(body):
    engine = answered(body)
    with pytest.raises(MalformedResponse):
        await engine.cached_embedding("e", input=["a", "b"])


async def test_vectors_come_in_any_order():
    body = {"data": [{"index": 1, "embedding": [1]}, {"index": 0, "embedding": [0.5]}]}
    assert vectors(await answered(body).embedding("e", input=["a", "b"])) == [[0.5], [1.0]]
    body = {"data": [{"index": n, "embedding": [n]} for n in (1, 0, 1)]}
    in_order = await answered(body).embedding("e", input=["a", "b", "c"])
    assert vectors(in_order) == [[1.0], [0.0], [1.0]]


async def test_many_vectors_may_take_more_bytes_than_a_chat():
    body = {"data": [{"embedding": [1.0]}] * 2}
    engine = answered(body, padding=MAX_BODY_BYTES)
    assert len((await engine.embedding("e", input=["a", "b"])).data) == 2
    with pytest.raises(MalformedResponse, match="bytes"):
        await answered(body, padding=2 * MAX_BODY_BYTES).embedding("e", input=["a", "b"])


async def test_an_error_inside_a_200_is_that_error():
    with pytest.raises(RateLimited):
        await answered({"error": {"code": 429}}).embedding("e", input="a")


async def test_the_embedded_model_says_that_it_does_not_embed():
    transport = LocalTransport(None, slots=1, threads=None, context=None)
    with pytest.raises(BadRequest, match="makes no embeddings"):
        await transport.embed("local", ["a"], {}, timeout=1)
