"""A frame's answers by likeness: the keyword, the settings, the report."""

from __future__ import annotations

import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.engine.archive import open_archive
from lbgpt_pandas.resolution import caching_of
from lbgpt_pandas.testing import ScriptedGPT

pytest.importorskip("faiss")
np = pytest.importorskip("numpy")

FAQ = pd.DataFrame({"question": ["how do i reset my password", "where is my parcel"]})
AGAIN = pd.DataFrame({"question": ["How do I reset my password?", "Where is my parcel?"]})
PROMPT = "Answer the customer: {question}\nBe brief."


def letters(texts):
    rows = [[text.lower().count(chr(97 + at)) for at in range(26)] for text in texts]
    return np.asarray(rows, dtype=np.float32) + 1e-6


@pytest.fixture
def engine():
    return ScriptedGPT(lambda request: request.messages[-1]["content"].split(": ")[1][:12])


@pytest.fixture
def cache(tmp_path):
    return lb.FaissSemanticCache(letters, tmp_path / "semantic", embedder_name="letters")


def test_rows_are_answered_by_likeness_and_the_report_says_so(engine, cache):
    with lb.using(semantic_cache=cache):
        first = FAQ.lbgpt.complete(PROMPT, engine=engine)
        again = AGAIN.lbgpt.complete(PROMPT, engine=engine)
    assert again.tolist() == first.tolist()
    assert len(engine.requests) == 2
    rows = lb.last_run().rows
    assert rows["source"].tolist() == ["semantic_cache"] * 2
    assert (rows["similarity"] > 0.99).all()
    assert "0 from cache, 2 from near ones" in str(lb.last_run())


def test_only_the_values_of_the_row_are_compared(engine, cache):
    with lb.using(semantic_cache=cache):
        FAQ.lbgpt.complete(PROMPT, engine=engine)
        AGAIN.lbgpt.complete("Answer the client: {question}\nBe brief.", engine=engine)
    assert len(engine.requests) == 4
    seen = []

    def spy(texts):
        seen.extend(texts)
        return letters(texts)

    spying = lb.FaissSemanticCache(spy, cache.location + "2", embedder_name="spy")
    with lb.using(semantic_cache=spying):
        FAQ.lbgpt.complete(PROMPT + " Please.", engine=engine)
    assert seen == FAQ["question"].tolist()


def test_a_system_message_for_each_row_is_compared_exactly(engine, cache):
    prompts = {"template": "Answer: {question}", "system": lb.col("tone")}
    with lb.using(semantic_cache=cache):
        FAQ.assign(tone=["kind", "stern"]).lbgpt.complete(**prompts, engine=engine)
        AGAIN.assign(tone=["kind", "sober"]).lbgpt.complete(**prompts, engine=engine)
    assert lb.last_run().rows["source"].tolist() == ["semantic_cache", "provider"]


def test_the_keyword_switches_it_off_and_sets_the_threshold(engine, cache):
    near = pd.DataFrame(
        {"question": ["how do i reset my password, please", "where is my parcel, please"]}
    )
    with lb.using(semantic_cache=cache):
        FAQ.lbgpt.complete(PROMPT, engine=engine)
        AGAIN.lbgpt.complete(PROMPT, engine=engine, semantic=False)
        assert len(engine.requests) == 4
        near.lbgpt.complete(PROMPT, engine=engine, semantic=0.9999, cache_mode="read_only")
        assert len(engine.requests) == 6
        near.lbgpt.complete(PROMPT, engine=engine, semantic=0.9, cache_mode="read_only")
    assert len(engine.requests) < 8


def test_an_engines_own_semantic_cache_comes_first(cache, tmp_path):
    engine = ScriptedGPT("yes", semantic_cache=cache)
    other = lb.FaissSemanticCache(letters, tmp_path / "other", embedder_name="letters")
    with lb.using(semantic_cache=other):
        FAQ.lbgpt.complete(PROMPT, engine=engine)
    with lb.using(cache=None):
        AGAIN.lbgpt.complete(PROMPT, engine=engine)
    assert len(engine.requests) == 2


def test_true_takes_the_default_cache(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("LBGPT_CACHE_DIR", str(tmp_path / "default"))
    settings = lb.settings()
    with lb.using(semantic_cache=True):
        assert str(tmp_path) in repr(lb.settings().semantic_cache)
    assert settings.semantic_cache is None


@pytest.mark.parametrize("wanted", [0, 1.2, -1, "yes"])
def test_a_threshold_that_cannot_be_is_refused(engine, wanted):
    with pytest.raises(lb.ConfigurationError, match=f"^semantic={wanted!r}: "):
        FAQ.lbgpt.complete(PROMPT, engine=engine, semantic=wanted)
    assert not engine.requests


def test_a_wrong_dimension_is_told_before_any_call(engine, cache):
    with lb.using(semantic_cache=cache):
        FAQ.lbgpt.complete(PROMPT, engine=engine)
    longer = lb.FaissSemanticCache(
        lambda texts: np.hstack([letters(texts)] * 2), cache.location, embedder_name="letters"
    )
    calls = len(engine.requests)
    with lb.using(semantic_cache=longer), pytest.raises(lb.ConfigurationError, match="52"):
        AGAIN.lbgpt.complete(PROMPT, engine=engine)
    assert len(engine.requests) == calls


def test_a_run_with_a_near_answer_is_exported_without_it(engine, cache, tmp_path):
    path, mixed = tmp_path / "x.zip", pd.concat([AGAIN, FAQ], ignore_index=True)
    with lb.using(semantic_cache=cache):
        FAQ.lbgpt.complete(PROMPT, engine=engine)
        column = mixed.lbgpt.complete(PROMPT, engine=engine)
    report = lb.last_run()
    report.export(path)
    keys = report.rows["key"].tolist()
    with open_archive(path) as archive:
        assert [entry.key for entry in archive.entries()] == keys[2:]
        near = archive.manifest["near"]
    assert {key: each["row"] for key, each in near.items()} == {keys[0]: 0, keys[1]: 1}
    assert near[keys[0]]["similarity"] == pytest.approx(report.rows["similarity"][0])
    diff = report.diff(path)
    assert diff["left_row"].tolist() == [0, 1]
    assert set(diff["change"]) == {"status"}
    with lb.replay(path):
        assert FAQ.lbgpt.complete(PROMPT).tolist() == column.tolist()[2:]
        with pytest.raises(
            lb.CacheMiss,
            match=r"row 0 .*took the answer to nearly the same question.*1 more row.*Replay asks",
        ):
            mixed.lbgpt.complete(PROMPT)


def test_replay_never_answers_by_likeness(engine, cache):
    with lb.using(semantic_cache=cache):
        FAQ.lbgpt.complete(PROMPT, engine=engine)
        with pytest.raises(lb.CacheMiss):
            AGAIN.lbgpt.complete(PROMPT, engine=engine, cache_mode="replay")


def test_a_frame_keeps_to_the_order_and_the_copies_of_its_engine():
    engine = ScriptedGPT(
        "x",
        cache_lookup_order=("standard", "semantic"),
        propagate_standard_cache_to_semantic_cache=True,
    )
    caching = caching_of(engine, "use", semantic=None)
    assert tuple(caching.order) == ("standard", "semantic")
    assert caching.copies == {"semantic"}
