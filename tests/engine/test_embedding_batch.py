"""Many texts to vectors: slices, refused texts, what is stored, tokens and prices."""

from __future__ import annotations

import asyncio

import pytest

from lbgpt_pandas.engine.budget import Budget
from lbgpt_pandas.engine.caches.base import MemoryCache
from lbgpt_pandas.engine.caching import Caching
from lbgpt_pandas.engine.embedding_batch import EmbeddingBatch, vector_of
from lbgpt_pandas.engine.errors import (
    AuthError,
    BadRequest,
    BudgetExceeded,
    ConfigurationError,
    ContextTooLong,
    MalformedResponse,
    RunAborted,
    ServerError,
)
from lbgpt_pandas.engine.gpt import ChatGPT
from lbgpt_pandas.engine.local_embeddings import LocalEmbeddingGPT
from lbgpt_pandas.engine.semantic.minilm import MiniLm
from lbgpt_pandas.engine.types import Completion, Request, Source, TokenCount
from lbgpt_pandas.engine.vectors import (
    pack,
    read_embedding,
    said,
    shares,
    stored_form,
    unpacked,
)
from lbgpt_pandas.testing import FakeProvider, ScriptedGPT

PARAMS = {"model": "text-embedding-3-small", "dimensions": 4}
OPTIONS: dict[str, object] = {}


def requests_for(*texts, params=PARAMS):
    return [Request([{"role": "user", "content": text}], params, OPTIONS) for text in texts]


def batch_of(engine, *texts, params=PARAMS, mode="use", **how):
    how.setdefault("caching", engine.caching(mode))
    how.setdefault("clock", engine.clock)
    return EmbeddingBatch(engine, requests_for(*texts, params=params), **how)


def sent(engine):
    return [request.params["input"] for request in engine.requests]


def engine_keys(engine, *texts):
    requests = requests_for(*texts)
    return [engine.embedding_maker(requests[0]).key(text) for text in texts]


class Picky(ScriptedGPT):
    """Refuses calls with a text that it does not take, or with too many of them."""

    def __init__(self, *bad, most=10_000, error=None, length=None, **settings):
        super().__init__(**settings)
        self.bad, self.most, self.length = set(bad), most, length
        self.error = error or BadRequest("a text is not liked", status=400)

    async def embed(self, model, inputs, params):
        reply = await super().embed(model, inputs, params)
        if self.bad & set(inputs):
            raise self.error
        if len(inputs) > self.most:
            raise BadRequest("too many inputs", status=400)
        if self.length is not None:
            for item in reply.payload["data"]:
                item["embedding"] = item["embedding"][:1] * self.length
        return reply


async def test_each_text_has_its_vector_and_the_cache_answers_the_second_time():
    engine = ScriptedGPT()
    first = await batch_of(engine, "a b", "c", "a b").arun()
    assert [outcome.source for outcome in first] == [Source.PROVIDER] * 2 + [Source.SHARED]
    assert sent(engine) == [["a b", "c"]]
    again = await batch_of(engine, "c", "a b", "d").arun()
    assert [outcome.source for outcome in again] == [Source.EXACT_CACHE] * 2 + [Source.PROVIDER]
    assert sent(engine)[1:] == [["d"]]
    vectors = [vector_of(outcome).vector for outcome in first]
    assert [vector_of(outcome).vector for outcome in again[:2]] == [vectors[1], vectors[0]]
    whole = await ScriptedGPT().embedding(**PARAMS, input=["a b", "c"])
    assert [vector.tolist() for vector in vectors[:2]] == [each.embedding for each in whole.data]


async def test_the_cache_is_the_one_of_cached_embedding():
    engine = ScriptedGPT()
    await engine.cached_embedding(**PARAMS, input=["a", "b"])
    (found, fresh) = await batch_of(engine, "b", "c").arun()
    assert (found.source, fresh.source) == (Source.EXACT_CACHE, Source.PROVIDER)
    assert found.completion.tokens.prompt > 0  # estimated: it was not stored with it
    assert found.price_usd > 0
    answer = await engine.cached_embedding(**PARAMS, input="c")
    assert answer.is_cached
    assert answer.data[0].embedding == fresh.completion.vector.tolist()


async def test_tokens_and_price_are_divided_and_add_up():
    engine = ScriptedGPT()
    texts = ["a" * 400, "b" * 4, "c" * 90]
    batch = batch_of(engine, *texts)
    outcomes = await batch.arun()
    tokens = [outcome.completion.tokens.prompt for outcome in outcomes]
    assert tokens[0] > tokens[2] > tokens[1] > 0
    shot = batch.snapshot()
    usage = engine.usage_cache_list[0]
    assert sum(tokens) == shot.prompt_tokens == usage.prompt_tokens
    assert sum(outcome.price_usd for outcome in outcomes) == pytest.approx(shot.cost_usd)
    assert shot.cost_usd == pytest.approx(usage.prompt_tokens * 0.02 / 1e6)
    assert [outcome.attempts for outcome in outcomes] == [1, 0, 0]
    cached = await batch_of(engine, *texts).arun()
    assert [outcome.completion.tokens.prompt for outcome in cached] == tokens


async def test_one_refused_text_fails_alone():
    engine = Picky("x 7")
    texts = [f"x {number}" for number in range(32)]
    batch = batch_of(engine, *texts)
    outcomes = await batch.arun()
    failed = [number for number, outcome in enumerate(outcomes) if outcome.error]
    assert failed == [7]
    assert isinstance(outcomes[7].error, BadRequest)
    assert sum(outcome.attempts for outcome in outcomes) == len(engine.requests) <= 11
    assert batch.snapshot().done == 31


async def test_a_call_of_too_many_texts_is_divided_and_the_next_ones_are_smaller():
    engine = Picky(most=100)
    texts = [f"x {number}" for number in range(2_000)]
    batch = batch_of(engine, *texts, max_parallel=1)
    outcomes = await batch.arun()
    assert all(vector_of(outcome) for outcome in outcomes)
    sizes = list(map(len, sent(engine)))
    assert [size for size in sizes if size > 100] == [512, 256, 128]
    assert sum(outcome.attempts for outcome in outcomes) == len(sizes)


async def test_texts_that_are_too_long_fail_alone_and_many_of_them_do_not_stop_the_run():
    error = ContextTooLong("8,192 tokens at most", status=400)
    engine = Picky(*(f"x {number}" for number in range(25)), error=error)
    outcomes = await batch_of(engine, *(f"x {number}" for number in range(30))).arun()
    assert [isinstance(outcome.error, ContextTooLong) for outcome in outcomes] == (
        [True] * 25 + [False] * 5
    )


async def test_what_no_text_can_do_right_ends_soon():
    texts = [f"x {number}" for number in range(5_000)]
    engine = Picky(*texts)
    with pytest.raises(RunAborted, match="would fail alike: a text is not liked"):
        await batch_of(engine, *texts).arun()
    assert len(engine.requests) < 60


async def test_a_length_that_was_not_asked_for_is_no_vector():
    engine = Picky(length=7)
    with pytest.raises(RunAborted, match="dimensions=4 was asked for and 7 came"):
        await batch_of(engine, *(f"x {number}" for number in range(600))).arun()
    assert len(engine.requests) == 1
    assert not await engine.tier.find(engine_keys(engine, "x 1"))


async def test_too_few_vectors_are_asked_for_in_halves():
    class Single(ScriptedGPT):
        async def embed(self, model, inputs, params):
            reply = await super().embed(model, inputs, params)
            del reply.payload["data"][1:]
            return reply

    engine = Single(stop_after_attempts=1)
    outcomes = await batch_of(engine, "a", "b", "c").arun()
    assert all(vector_of(outcome) for outcome in outcomes)


async def test_a_number_that_is_none_is_malformed():
    class Broken(ScriptedGPT):
        async def embed(self, model, inputs, params):
            reply = await super().embed(model, inputs, params)
            reply.payload["data"][0]["embedding"][0] = float("nan")
            return reply

    (outcome,) = await batch_of(Broken(stop_after_attempts=1), "a").arun()
    assert isinstance(outcome.error, MalformedResponse)
    assert "not finite" in str(outcome.error)


@pytest.mark.parametrize("text", ["", " \n\t"])
async def test_an_empty_text_is_not_sent(text):
    engine = ScriptedGPT()
    empty, other = await batch_of(engine, text, "a").arun()
    assert empty.error.code == "empty_text"
    assert (empty.source, empty.attempts, empty.key) == (Source.SKIPPED, 0, "")
    assert vector_of(other)
    assert sent(engine) == [["a"]]


async def test_chat_messages_are_not_embedded():
    messages = [{"role": "user", "content": "a"}] * 2
    engine = ScriptedGPT()
    (outcome,) = await EmbeddingBatch(engine, [Request(messages, PARAMS)]).arun()
    assert "chat messages have no embedding" in str(outcome.error)
    assert not engine.requests


async def test_a_wrong_key_shows_in_one_call():
    class Refusing(ScriptedGPT):
        async def embed(self, model, inputs, params):
            await super().embed(model, inputs, params)
            raise AuthError("the key was refused", status=401)

    engine = Refusing()
    with pytest.raises(AuthError):
        await batch_of(engine, *(f"x {number}" for number in range(5_000))).arun()
    assert len(engine.requests) == 1


async def test_what_may_pass_is_tried_again(clock):
    class Flaky(ScriptedGPT):
        async def embed(self, model, inputs, params):
            reply = await super().embed(model, inputs, params)
            if len(self.requests) < 3:
                raise ServerError("down", status=500)
            return reply

    engine = Flaky(clock=clock)
    batch = batch_of(engine, "a", "b")
    outcomes = await batch.arun()
    assert [outcome.attempts for outcome in outcomes] == [3, 0]
    assert batch.snapshot().retries == 2


@pytest.mark.parametrize(
    ("mode", "calls", "kept"),
    [("use", 0, 0), ("read_only", 0, 0), ("refresh", 1, 1), ("off", 1, 0)],
)
async def test_cache_modes(mode, calls, kept):
    engine = ScriptedGPT(cache=MemoryCache())
    await batch_of(engine, "a").arun()
    (key,) = [key async for page in engine.tier.cache.scan() for key in page]
    before = (await engine.tier.cache.get_many([key]))[key]
    engine.requests.clear()
    await asyncio.sleep(0.002)  # the envelope says when it was made
    await batch_of(engine, "a", mode=mode).arun()
    assert len(engine.requests) == calls
    assert ((await engine.tier.cache.get_many([key]))[key] != before) is bool(kept)


async def test_read_only_stores_nothing():
    engine = ScriptedGPT()
    await batch_of(engine, "a", mode="read_only").arun()
    await batch_of(engine, "a").arun()
    assert len(engine.requests) == 2


async def test_a_budget_buys_what_fits():
    engine = ScriptedGPT()
    texts = [f"{number:03d} " + "x" * 96 for number in range(40)]
    batch = batch_of(engine, *texts, budget=Budget(tokens=400))
    with pytest.raises(BudgetExceeded):
        await batch.arun()
    done = [outcome for outcome in batch.outcomes if outcome]
    assert 5 <= len(done) <= 25
    assert all(outcome.completion for outcome in done)
    null = batch_of(ScriptedGPT(), *texts, budget=Budget(tokens=400, on_exceeded="null"))
    outcomes = await null.arun()
    assert None not in outcomes
    assert {type(outcome.error) for outcome in outcomes} == {type(None), BudgetExceeded}


async def test_stopped_runs_keep_what_has_come_and_go_on_later():
    engine = ScriptedGPT()
    engine.most_inputs = 2
    batch = batch_of(engine, *"abcdef", max_parallel=1)
    embed = engine.embed

    async def embed_and_stop(*given):
        if len(engine.requests) == 1:
            batch.stop()
        return await embed(*given)

    engine.embed = embed_and_stop
    outcomes = await batch.arun()
    assert [outcome is not None for outcome in outcomes] == [True] * 4 + [False] * 2
    rest = batch_of(engine, *"abcdef", earlier=outcomes, mode="off")
    assert all(vector_of(outcome) for outcome in await rest.arun())
    assert sent(engine)[-1] == ["e", "f"]


async def test_a_paused_run_waits():
    engine = ScriptedGPT()
    batch = batch_of(engine, "a", "b")
    batch.pause()
    task = asyncio.create_task(batch.arun())
    await asyncio.sleep(0.02)
    assert not engine.requests
    batch.resume()
    assert all(vector_of(outcome) for outcome in await task)


async def test_a_defect_is_raised_as_it_is():
    class Broken(ScriptedGPT):
        async def embed(self, model, inputs, params):
            raise ConfigurationError("broken")

    with pytest.raises(ConfigurationError, match="broken"):
        await batch_of(Broken(), "a").arun()


async def test_over_http_in_few_calls(provider):
    engine = ChatGPT("sk-x", base_url=provider.base_url)
    batch = batch_of(engine, *(f"text {number}" for number in range(1_100)))
    outcomes = await batch.arun()
    assert [len(outcome.completion.vector) for outcome in outcomes] == [4] * 1_100
    assert sorted(len(record.body["input"]) for record in provider.requests) == [76, 512, 512]
    assert batch.snapshot().deployments[0].answered == 3


async def test_tools_of_an_engine_are_not_sent_with_texts():
    tool = {"type": "function", "function": {"name": "f"}}
    with FakeProvider() as server:
        engine = ChatGPT("sk-x", base_url=server.base_url, tools=[tool])
        await batch_of(engine, "a").arun()
        assert set(server.requests[0].body) == {"input", "model", "dimensions", "encoding_format"}


# Stored vectors


def test_shares_are_whole_and_add_up():
    assert shares(7, [1, 2, 4]) == [1, 2, 4]
    assert sum(shares(10, [3, 3, 3, 3])) == 10
    assert shares(5, [0, 0]) == [5, 0]


@pytest.mark.parametrize(
    ("vector", "is_packed"),
    [
        ([0.5, -0.25], True),
        ([0.1, 0.2], False),
        ([1, 2], False),
        ([1e300], False),
        ([pack([0.1])[0]], True),
    ],
)
def test_vectors_are_stored_without_loss(vector, is_packed):
    stored = stored_form(vector)
    assert isinstance(stored, str) is is_packed
    assert unpacked(stored) == vector


async def test_vectors_can_be_told_apart_as_texts():
    one, other, same = await batch_of(ScriptedGPT(), "a", "b", "a").arun()
    texts = [said(outcome.completion) for outcome in (one, other, same)]
    assert texts[0] == texts[2] != texts[1]
    assert "(4 numbers, " in texts[0]
    assert said(Completion(None, "Hi", None, "m", TokenCount(1, 1), "")) == "Hi"


@pytest.mark.parametrize("stored", ["", "!!", "AAA=", [], ["x"], None, 5])
def test_what_is_no_vector_is_none(stored):
    assert unpacked(stored) is None


@pytest.mark.parametrize(
    "payload",
    [
        {"embedding": []},
        {"embedding": "!!"},
        {"embedding": ["x"]},
        {"embedding": [1e300]},
        {"choices": []},
    ],
)
async def test_stored_answers_that_are_no_vectors_are_asked_anew(payload):
    engine = ScriptedGPT()
    request = requests_for("a")[0]
    key = engine.embedding_maker(request).key("a")
    await engine.tier.save(key, family="scripted", model="e", payload=payload)
    envelope = (await engine.tier.cache.get_many([key]))[key]
    assert read_embedding(key, envelope) is None
    (outcome,) = await batch_of(engine, "a").arun()
    assert outcome.source is Source.PROVIDER


# The embedded model


@pytest.mark.local_model
async def test_the_embedded_model_embeds_and_says_what_it_does_not_take():
    engine = LocalEmbeddingGPT()
    params = {"model": "local"}
    texts = ["a red car", "word " * 300, "the red car"]
    near, long, other = await batch_of(engine, *texts, params=params).arun()
    expected = await MiniLm().embed(["a red car"])
    assert near.completion.vector.tolist() == expected[0].tolist()
    assert (near.price_usd, near.completion.model) == (0.0, MiniLm.name)
    assert near.completion.tokens.prompt == 5
    assert isinstance(long.error, ContextTooLong)
    assert "302 tokens" in str(long.error)
    assert vector_of(other)
    again = await batch_of(engine, *texts[::2], params=params).arun()
    assert {outcome.source for outcome in again} == {Source.EXACT_CACHE}
    with pytest.raises(BadRequest, match="have 384 numbers"):
        await engine.embedding("local", input="a", dimensions=5)
    with pytest.raises(BadRequest, match="answers no chats"):
        await engine.chat_completion(messages=[{"role": "user", "content": "a"}])


async def test_caching_of_nothing_asks_each_time():
    engine = ScriptedGPT()
    for _ in range(2):
        await batch_of(engine, "a", caching=Caching()).arun()
    assert len(engine.requests) == 2
