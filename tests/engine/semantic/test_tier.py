"""Runs with a semantic cache: what is answered by likeness, what is stored, what goes wrong."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lbgpt_pandas.engine import errors
from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.caches.base import MemoryCache
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.caching import Caching
from lbgpt_pandas.engine.semantic import text_vectors as module
from lbgpt_pandas.engine.semantic.base import Neighbour
from lbgpt_pandas.engine.semantic.tier import SemanticTier
from lbgpt_pandas.engine.types import Request, Source
from lbgpt_pandas.testing import FakeClock, ScriptedGPT


class Letters:
    """Embeds a text by how often each letter stands in it."""

    name = "letters"

    def __init__(self) -> None:
        self.embedded: list[str] = []

    async def embed(self, texts, *, engine):
        self.embedded += texts
        rows = [[text.lower().count(chr(97 + at)) for at in range(26)] for text in texts]
        vectors = np.asarray(rows, dtype=np.float32) + 1e-6
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Shelf:
    """A semantic cache in a list."""

    threshold = 0.95

    def __init__(self) -> None:
        self.embedder = Letters()
        self.entries: list[Any] = []
        self.broken: set[str] = set()

    def check(self, name):
        if name in self.broken:
            raise OSError(f"{name} is broken")

    async def get_many(self, keys):
        self.check("get_many")
        return {each.key: each.envelope for each in self.entries if each.key in keys}

    async def search(self, scopes, vectors, *, at_least, limit=8):
        self.check("search")
        found = []
        for scope, vector in zip(scopes, vectors, strict=True):
            near = [
                Neighbour(each.key, each.text, each.envelope, float(each.vector @ vector))
                for each in self.entries
                if each.scope == scope
            ]
            near = [each for each in near if each.similarity >= at_least]
            found.append(sorted(near, key=lambda each: -each.similarity)[:limit])
        return found

    async def add(self, entries):
        self.check("add")
        taken = {each.key for each in self.entries}
        self.entries += [each for each in entries if each.key not in taken]

    async def delete_many(self, keys):
        before = len(self.entries)
        self.entries = [each for each in self.entries if each.key not in keys]
        return before - len(self.entries)

    async def scan(self):
        yield [(each.key, each.text, each.envelope) for each in self.entries]

    async def count(self):
        return len(self.entries)

    async def close(self):
        return


def ask(*texts: str, **params: Any) -> list[Request]:
    shared = {"model": "m", **params}
    return [Request([{"role": "user", "content": text}], shared) for text in texts]


class Bench:
    """An engine that says its question again, and two tiers."""

    def __init__(self, *, standard: bool = True, **settings: Any) -> None:
        self.shelf = Shelf()
        self.semantic = SemanticTier(self.shelf, clock=FakeClock())
        self.standard = StandardTier(MemoryCache()) if standard else None
        self.engine = ScriptedGPT(
            lambda request: f"<{request.messages[-1]['content']}>", auto_cache=False
        )
        self.settings = settings

    async def run(self, *texts: str, mode: Any = "use", **params: Any) -> list[Any]:
        caching = Caching.of(self.standard, mode, semantic=self.semantic, **self.settings)
        return await Batch(self.engine, ask(*texts, **params), caching=caching).arun()


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_near_question_gets_the_stored_answer(bench):
    await bench.run("how do i reset my password")
    [outcome] = await bench.run("How do I reset my password?")
    assert outcome.completion.text == "<how do i reset my password>"
    assert outcome.source is Source.SEMANTIC_CACHE
    assert outcome.similarity == pytest.approx(1.0)
    assert (outcome.attempts, len(bench.engine.requests)) == (0, 1)
    [hit] = bench.semantic.hits
    assert (hit.asked, hit.stored) == ("How do I reset my password?", "how do i reset my password")
    assert hit.answer == "<how do i reset my password>"
    assert hit.stored_key != hit.key == outcome.key


async def test_a_near_answer_is_never_stored_as_the_exact_one(bench):
    await bench.run("how do i reset my password")
    await bench.run("How do I reset my password?")
    assert len(bench.shelf.entries) == 1
    caching = Caching.of(bench.standard, "use")
    [again] = await Batch(bench.engine, ask("How do I reset my password?"), caching=caching).arun()
    assert again.source is Source.PROVIDER


async def test_an_exact_repeat_is_not_embedded(bench):
    await bench.run("where is rome", "why is it there")
    embedded = len(bench.shelf.embedder.embedded)
    outcomes = await bench.run("where is rome", "why is it there")
    assert {outcome.source for outcome in outcomes} == {Source.EXACT_CACHE}
    assert len(bench.shelf.embedder.embedded) == embedded
    bench.standard = None
    [exact] = await bench.run("where is rome")
    assert exact.source is Source.EXACT_CACHE
    assert len(bench.shelf.embedder.embedded) == embedded


async def test_a_question_is_embedded_once_and_stored_with_that_vector(bench):
    await bench.run("where is rome", "why is it there")
    assert bench.shelf.embedder.embedded == ["where is rome", "why is it there"]


async def test_beyond_the_vectors_that_are_kept_texts_are_embedded_again(bench, monkeypatch):
    monkeypatch.setattr(module, "KEPT_VECTORS", 1)
    await bench.run("where is rome", "why is it there")
    assert sorted(bench.shelf.embedder.embedded) == ["where is rome"] * 2 + ["why is it there"]
    assert len(bench.shelf.entries) == 2


async def test_texts_that_are_embedded_again_are_embedded_together(bench, monkeypatch):
    monkeypatch.setattr(module, "KEPT_VECTORS", 1)
    sizes = []

    class Counting(Letters):
        async def embed(self, texts, *, engine):
            sizes.append(len(texts))
            await asyncio.sleep(0.001)
            return await super().embed(texts, engine=engine)

    bench.shelf.embedder = Counting()
    await bench.run(*[f"{'very ' * n}old question" for n in range(200)])
    assert len(bench.shelf.entries) == 200
    assert sum(sizes) == 399
    assert len(sizes) < 40
    assert bench.semantic._vectors._rounds == bench.semantic._vectors._waiting == {}


async def test_one_text_of_a_group_that_cannot_be_embedded_costs_no_other(bench, monkeypatch):
    monkeypatch.setattr(module, "KEPT_VECTORS", 0)

    class Picky(Letters):
        asked = 0

        async def embed(self, texts, *, engine):
            self.asked += 1
            await asyncio.sleep(0)
            if self.asked > 1 and "the bad one" in texts:
                raise ValueError("no such letter")
            vectors = await super().embed(texts, engine=engine)
            return vectors[:-1] if 1 < len(texts) < 4 else vectors

    bench.shelf.embedder = Picky()
    await bench.run("one", "the bad one", "three", "four")
    assert sorted(each.text for each in bench.shelf.entries) == ["four", "one", "three"]
    assert any("no such letter" in notice for notice in bench.semantic.take_notices())


@pytest.mark.parametrize(
    "params", [{"temperature": 1}, {"model": "other"}, {"max_tokens": 5}, {"tools": []}]
)
async def test_other_parameters_are_another_scope(bench, params):
    await bench.run("how do i reset my password")
    [outcome] = await bench.run("How do I reset my password?", **params)
    assert outcome.source is Source.PROVIDER


async def test_another_embedder_is_another_scope(bench):
    await bench.run("how do i reset my password")
    bench.shelf.embedder.name = "letters 2"
    [outcome] = await bench.run("How do I reset my password?")
    assert outcome.source is Source.PROVIDER


async def test_facts_that_differ_are_no_hit(bench):
    await bench.run("what did it earn in 2023")
    [outcome] = await bench.run("what did it earn in 2024")
    assert outcome.source is Source.PROVIDER
    assert bench.semantic.refused == 1


async def test_a_threshold_of_the_call(bench):
    await bench.run("how do i change the colour of my password")
    loose, strict = bench.semantic, bench.semantic.with_threshold(0.9999)
    bench.semantic = strict
    [outcome] = await bench.run("how do i change the color of my password", mode="read_only")
    assert outcome.source is Source.PROVIDER
    bench.semantic = loose
    [outcome] = await bench.run("how do i change the color of my password", mode="read_only")
    assert outcome.source is Source.SEMANTIC_CACHE
    assert strict.hits is loose.hits


@pytest.mark.parametrize("mode", ["off", "refresh"])
async def test_modes_that_read_nothing(bench, mode):
    await bench.run("how do i reset my password")
    [outcome] = await bench.run("How do I reset my password?", mode=mode)
    assert outcome.source is Source.PROVIDER
    assert len(bench.shelf.entries) == (1 if mode == "off" else 2)


async def test_refresh_replaces_and_read_only_writes_nothing(bench):
    await bench.run("where is rome")
    bench.engine = ScriptedGPT("elsewhere", auto_cache=False)
    await bench.run("where is rome", mode="refresh")
    await bench.run("who was caesar", mode="read_only")
    assert len(bench.shelf.entries) == 1
    bench.standard = None
    assert (await bench.run("where is rome"))[0].completion.text == "elsewhere"


async def test_both_orders_find_exact_answers_first():
    for order in (("semantic", "standard"), ("standard", "semantic")):
        bench = Bench(order=order)
        await bench.run("where is rome", "Where is Rome?")
        bench.shelf.entries.pop()  # that question is now only in the standard tier
        [outcome] = await bench.run("Where is Rome?")
        assert outcome.source is Source.EXACT_CACHE
        assert outcome.completion.text == "<Where is Rome?>"


@pytest.mark.parametrize("order", [("semantic", "standard"), ("standard", "semantic")])
@pytest.mark.parametrize("refreshed", ["semantic", "standard"])
async def test_the_newer_of_two_exact_answers_is_given_whatever_the_order(order, refreshed):
    bench, clock = Bench(order=order), FakeClock()
    bench.semantic = SemanticTier(bench.shelf, clock=clock)
    bench.standard = StandardTier(MemoryCache(), clock=clock)
    await bench.run("where is rome")
    clock.advance(1.0)
    bench.engine = ScriptedGPT("changed", auto_cache=False)
    one = {
        "standard": Caching.of(bench.standard, "refresh"),
        "semantic": Caching.of(None, "refresh", semantic=bench.semantic),
    }[refreshed]
    await Batch(bench.engine, ask("where is rome"), caching=one).arun()
    [outcome] = await bench.run("where is rome")
    assert (outcome.completion.text, outcome.source) == ("changed", Source.EXACT_CACHE)


@pytest.mark.parametrize("wanted", [frozenset(), frozenset({"standard"})])
async def test_exact_answers_are_copied_to_the_standard_tier_if_wanted(wanted):
    bench = Bench(copies=wanted)
    await bench.run("where is rome")
    bench.standard = StandardTier(MemoryCache())
    await bench.run("where is rome")
    assert len(bench.standard.cache) == len(wanted)


@pytest.mark.parametrize("wanted", [frozenset(), frozenset({"semantic"})])
async def test_exact_answers_are_copied_to_the_semantic_tier_if_wanted(wanted):
    bench = Bench(copies=wanted)
    await bench.run("where is rome")
    bench.shelf.entries.clear()
    await bench.run("where is rome")
    assert len(bench.shelf.entries) == len(wanted)


@pytest.mark.parametrize("order", [("semantic", "standard"), ("standard", "semantic")])
async def test_a_mode_that_writes_nothing_copies_nothing(order):
    bench = Bench(order=order, copies=frozenset({"standard", "semantic"}))
    await bench.run("where is rome", "who was caesar")
    first, second = bench.shelf.entries
    bench.shelf.entries = [first]
    await bench.standard.cache.delete(first.key)
    outcomes = await bench.run("where is rome", "who was caesar", mode="read_only")
    assert {outcome.source for outcome in outcomes} == {Source.EXACT_CACHE}
    assert (len(bench.shelf.entries), len(bench.standard.cache)) == (1, 1)
    assert second.key in await bench.standard.cache.get_many([second.key])
    await bench.run("where is rome", "who was caesar")
    assert (len(bench.shelf.entries), len(bench.standard.cache)) == (2, 2)


async def test_a_store_that_gives_what_is_not_near_enough_is_not_believed(bench):
    class Generous(Shelf):
        async def search(self, scopes, vectors, *, at_least, limit=8):
            del at_least
            return await super().search(scopes, vectors, at_least=-1.0, limit=limit)

    bench.shelf = Generous()
    bench.semantic = SemanticTier(bench.shelf, threshold=0.9999)
    await bench.run("what is the colour of the house")
    [outcome] = await bench.run("what is the color of the house")
    assert outcome.source is Source.PROVIDER
    assert (list(bench.semantic.hits), bench.semantic.refused) == ([], 0)
    bench.semantic = SemanticTier(bench.shelf, threshold=0.9)
    [outcome] = await bench.run("What is the colour of the house?")
    assert outcome.source is Source.SEMANTIC_CACHE


async def test_a_near_answer_is_not_copied():
    bench = Bench(copies=frozenset({"standard", "semantic"}))
    await bench.run("where is rome")
    await bench.run("Where is Rome?")
    assert (len(bench.standard.cache), len(bench.shelf.entries)) == (1, 1)


@pytest.mark.parametrize("part", ["get_many", "search", "add"])
async def test_a_store_that_fails_costs_nothing_but_hits(bench, part):
    bench.shelf.broken.add(part)
    outcomes = await bench.run("where is rome", "who was caesar")
    assert all(outcome.completion for outcome in outcomes)
    [notice] = bench.semantic.take_notices()
    assert f"{part} is broken" in notice
    assert len(bench.standard.cache) == 2
    bench.shelf.broken.clear()
    await bench.run("why do cats purr")
    assert len(bench.shelf.entries) == 1 + 2 * (part == "nothing")


async def test_a_damaged_entry_is_passed_over(bench):
    await bench.run("where is rome")
    [entry] = bench.shelf.entries
    bench.shelf.entries = [
        type(entry)(entry.key, entry.scope, entry.text, entry.envelope[:-9], entry.vector)
    ]
    [outcome] = await bench.run("Where is Rome?")
    assert outcome.source is Source.PROVIDER
    assert "damaged" in bench.semantic.take_notices()[0]


async def test_a_wrong_embedder_is_told_before_any_call(bench):
    class Refusing(Letters):
        async def embed(self, texts, *, engine):
            raise errors.ConfigurationError("no such model")

    bench.shelf.embedder = Refusing()
    with pytest.raises(errors.ConfigurationError, match="no such model"):
        await bench.run("where is rome")
    assert not bench.engine.requests


async def test_an_engine_of_its_own_answers_by_likeness_and_says_so():
    pytest.importorskip("openai")
    shelf = Shelf()
    engine = ScriptedGPT("Italy", semantic_cache=shelf)
    first = await engine.cached_chat_completion({"messages": ask("where is rome")[0].messages})
    near = await engine.cached_chat_completion({"messages": ask("Where is Rome?")[0].messages})
    exact = await engine.cached_chat_completion({"messages": ask("where is rome")[0].messages})
    flags = [
        (each.is_cached, each.is_exact, each.is_semantic_cached) for each in (first, near, exact)
    ]
    assert flags == [(False, True, False), (True, False, True), (True, True, False)]
    assert len(engine.requests) == 1


async def test_a_streamed_answer_is_stored_under_its_question():
    pytest.importorskip("openai")
    shelf = Shelf()
    engine = ScriptedGPT("Italy", semantic_cache=shelf)
    async for _ in engine.streamed_chat_completion(messages=ask("where is rome")[0].messages):
        pass
    assert [entry.text for entry in shelf.entries] == ["where is rome"]


@pytest.mark.parametrize("threshold", [0, 1.5, "high", True])
def test_thresholds_are_checked(threshold):
    with pytest.raises(errors.ConfigurationError, match="above 0, at most 1"):
        SemanticTier(Shelf(), threshold=threshold)


@pytest.mark.parametrize("cache", [{}, Shelf, "path"])
def test_what_is_no_semantic_cache_is_refused(cache):
    with pytest.raises(errors.ConfigurationError, match="FaissSemanticCache"):
        ScriptedGPT("ok", semantic_cache=cache)


@pytest.mark.parametrize("order", [("semantic",), "semantic", ("semantic", "semantic"), None])
def test_lookup_orders_are_checked(order):
    with pytest.raises(errors.ConfigurationError, match="cache_lookup_order"):
        ScriptedGPT("ok", cache_lookup_order=order)


async def test_two_loops_use_one_tier(bench):
    await bench.run("where is rome")
    outcomes = await asyncio.to_thread(asyncio.run, bench.run("Where is Rome?"))
    assert outcomes[0].source is Source.SEMANTIC_CACHE


class Picky(Letters):
    """Refuses texts with an x, or all."""

    def __init__(self, *, refuses_all=False):
        super().__init__()
        self.refuses_all = refuses_all

    async def embed(self, texts, *, engine):
        if self.refuses_all or any("x" in text for text in texts):
            raise ValueError("too long for the model")
        return await super().embed(texts, engine=engine)


async def test_a_text_that_cannot_be_embedded_costs_no_other_its_near_hit():
    bench = Bench()
    bench.shelf.embedder = Picky()
    await bench.run("first question", "xx", "second query")
    assert sorted(each.text for each in bench.shelf.entries) == ["first question", "second query"]
    found = await bench.run("First question", "xxx", "Second query")
    assert [each.source for each in found] == [
        Source.SEMANTIC_CACHE, Source.PROVIDER, Source.SEMANTIC_CACHE,
    ]  # fmt: skip
    assert any("cannot be embedded" in notice for notice in bench.semantic.take_notices())


async def test_an_embedder_that_embeds_nothing_is_given_up():
    bench = Bench()
    bench.shelf.embedder = Picky(refuses_all=True)
    found = await bench.run(*(f"question {number}" for number in range(20)))
    assert all(each.completion for each in found)
    assert not bench.shelf.entries
    assert any("rows go on without" in notice for notice in bench.semantic.take_notices())


async def test_an_answer_that_is_too_old_is_neither_an_exact_nor_a_near_hit():
    clock = FakeClock()
    cache = MemoryCache()
    cache.ttl_s = 60.0
    bench = Bench()
    bench.semantic = SemanticTier(bench.shelf, clock=clock)
    bench.standard = StandardTier(cache, clock=clock)
    await bench.run("first question")
    assert (await bench.run("First question"))[0].source is Source.SEMANTIC_CACHE
    clock.advance(61.0)
    again = await bench.run("first question", "First question")
    assert [each.source for each in again] == [Source.PROVIDER, Source.PROVIDER]
    fresh = await bench.run("first question", "first question.")
    assert [each.source for each in fresh] == [Source.EXACT_CACHE, Source.SEMANTIC_CACHE]


async def test_the_first_answer_is_the_one_in_both_tiers():
    bench = Bench()
    first = ScriptedGPT("theirs", auto_cache=False)
    store = MemoryCache()
    store.is_shared = True

    class Overtaken(MemoryCache):
        is_shared = True

        async def get_many(self, keys):
            return await store.get_many(keys)

        async def set(self, key, value, *, replace=False):
            await Batch(first, ask("first question"),
                        caching=Caching.of(StandardTier(store), "use")).arun()  # fmt: skip
            await store.set(key, value, replace=replace)

    bench.standard = StandardTier(Overtaken())
    assert [each.completion.text for each in await bench.run("first question")] == ["theirs"]
    assert [each.completion.text for each in await bench.run("first question")] == ["theirs"]


async def test_what_the_semantic_tier_has_is_not_copied_there_again():
    bench = Bench(order=("standard", "semantic"), copies=frozenset({"semantic"}))
    await bench.run("first question", "second query")
    embedded = len(bench.shelf.embedder.embedded)
    for _ in range(2):
        await bench.run("first question", "second query")
    assert len(bench.shelf.embedder.embedded) == embedded
    assert len(bench.shelf.entries) == 2


def test_refused_neighbours_are_counted_whatever_the_threshold():
    bench = Bench()
    other = bench.semantic.with_threshold(0.9)

    async def main():
        await bench.run("10 pounds of it")
        bench.semantic = other
        await bench.run("11 pounds of it")

    asyncio.run(main())
    assert bench.semantic.refused == other.refused == 1


async def test_a_vector_is_used_for_its_own_text_only():
    bench = Bench()
    question = SimpleNamespace(key="k", text="alpha", scope="s")
    vectors = module.TextVectors(bench.shelf, tell=lambda *_: None)
    vectors.keep(question, np.zeros(26, dtype=np.float32))
    other = SimpleNamespace(key="k", text="Say alpha now", scope="t")
    assert (await vectors.of_one(other, None)).any()
