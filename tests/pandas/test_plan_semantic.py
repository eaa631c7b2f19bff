"""Near answers in a plan: counted where that costs nothing, and booked nowhere."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas import plan_lookups
from lbgpt_pandas.testing import ScriptedGPT

pytest.importorskip("faiss")

FAQ = pd.DataFrame({"question": ["how do i reset my password", "where is my parcel"]})
AGAIN = pd.DataFrame({"question": ["How do I reset my password?", "Where is my parcel?", "Why?"]})
PROMPT = "Answer the customer: {question}"


def letters(texts):
    rows = [[text.lower().count(chr(97 + at)) for at in range(26)] for text in texts]
    return np.asarray(rows, dtype=np.float32) + 1e-6


@pytest.fixture
def engine():
    return ScriptedGPT("do this", cache={})


@pytest.fixture
def cache(tmp_path):
    return lb.FaissSemanticCache(letters, tmp_path / "semantic", embedder_name="letters")


def test_near_answers_are_counted_and_booked_nowhere(engine, cache):
    with lb.using(semantic_cache=cache, progress=False):
        FAQ.lbgpt.complete(PROMPT, engine=engine)
        tier = lb.settings().semantic_cache
        plan = AGAIN.lbgpt.plan(PROMPT, engine=engine)
        assert (plan.exact_hits, plan.semantic_hits, plan.requests_to_send) == (0, 2, 1)
        assert plan.samples["cached"].tolist() == [True, True, False]
        assert not tier.hits
        assert not tier.refused
        assert FAQ.lbgpt.plan(PROMPT, engine=engine).exact_hits == 2
        plan.run()
    assert lb.last_run().summary.snapshot.semantic == 2
    assert len(engine.requests) == 3


def test_an_empty_semantic_cache_is_neither_made_nor_asked(engine, tmp_path):
    def refuse(texts):
        raise AssertionError(texts)

    cache = lb.FaissSemanticCache(refuse, tmp_path / "none", embedder_name="refuses")
    with lb.using(semantic_cache=cache, progress=False):
        plan = AGAIN.lbgpt.plan(PROMPT, engine=engine)
    assert (plan.semantic_hits, plan.requests_to_send) == (0, 3)
    assert not (tmp_path / "none").exists()


def test_an_embedder_of_the_provider_is_not_called(engine, tmp_path):
    cache = lb.FaissSemanticCache("text-embedding-3-small", tmp_path / "remote")
    with lb.using(semantic_cache=cache, progress=False):
        FAQ.lbgpt.complete(PROMPT, engine=engine)
        sent = len(engine.requests)
        plan = AGAIN.lbgpt.plan(PROMPT, engine=engine)
    assert len(engine.requests) == sent
    assert plan.semantic_hits is None
    assert plan.requests_to_send == 3
    assert plan.samples["cached"].isna().all()
    assert any("up to 3 requests may find one" in note for note in plan.notes)
    assert "near ones not counted" in str(plan)


def test_of_many_questions_a_sample_is_embedded(engine, cache, monkeypatch):
    monkeypatch.setattr(plan_lookups, "MOST_EMBEDDED", 40)
    things = [chr(97 + n % 20) * (2 + n // 20) + "x" for n in range(200)]
    first = pd.DataFrame({"question": [f"where is my {thing}" for thing in things]})
    asked = [f"Where is my {each}?" if n % 2 else f"why {each}" for n, each in enumerate(things)]
    half = pd.DataFrame({"question": asked})
    with lb.using(semantic_cache=cache, progress=False):
        first.lbgpt.complete(PROMPT, engine=engine)
        plan = half.lbgpt.plan(PROMPT, engine=engine)
        plan.run()
    found = lb.last_run().summary.snapshot.semantic
    assert found > 0
    assert plan.semantic_hits == pytest.approx(found, abs=60)
    assert plan.requests_to_send == 200 - plan.semantic_hits
    assert any("40 of 200 questions" in note for note in plan.notes)


def test_a_failing_embedder_is_a_note(engine, tmp_path):
    works = [True]

    def sometimes(texts):
        if not works[0]:
            raise OSError("gone")
        return letters(texts)

    cache = lb.FaissSemanticCache(sometimes, tmp_path / "semantic", embedder_name="sometimes")
    with lb.using(semantic_cache=cache, progress=False):
        FAQ.lbgpt.complete(PROMPT, engine=engine)
        works[0] = False
        plan = AGAIN.lbgpt.plan(PROMPT, engine=engine)
        assert lb.settings().semantic_cache.take_notices() == []
    assert plan.requests_to_send == 3
    assert any("gone" in note for note in plan.notes)
