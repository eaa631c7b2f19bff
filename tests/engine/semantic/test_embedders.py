"""What users bring to embed texts with."""

from __future__ import annotations

import asyncio
import functools
import math
import operator
import threading
from types import SimpleNamespace

import pytest

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.semantic.embedders import checked, embedder_of
from lbgpt_pandas.engine.semantic.minilm import MiniLm


def lengths_of(texts):
    """Embed by what is lasting of a function: where it is defined."""
    return [[3.0 * len(text), 4.0 * len(text)] for text in texts]


async def lengths_soon(texts):
    return lengths_of(texts)


class Chain:
    """LangChain's interface, as far as it is asked for."""

    def __init__(self, model):
        self.model_name = model

    def embed_documents(self, texts):
        return lengths_of(texts)


class AsyncChain:
    model = "soon"

    async def aembed_documents(self, texts):
        return lengths_of(texts)


class Called:
    def __init__(self, **names):
        vars(self).update(names)

    def __call__(self, texts):
        return lengths_of(texts)

    def encode(self, texts):
        return lengths_of(texts)


class SoonCalled(Called):
    async def __call__(self, texts):
        return lengths_of(texts)


class Engine:
    """Answers like an SDK."""

    def __init__(self):
        self.asked = []

    async def embed_for_run(self, model, texts):
        self.asked.append((model, texts))
        return SimpleNamespace(data=[SimpleNamespace(embedding=row) for row in lengths_of(texts)])


def embed(given, texts=("a", "bc"), *, engine=None, name=None):
    return asyncio.run(embedder_of(given, name=name).embed(texts, engine=engine))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (lengths_of, f"{lengths_of.__module__}.lengths_of"),
        (lengths_soon, f"{lengths_of.__module__}.lengths_soon"),
        (Chain("ada"), "Chain:ada"),
        (AsyncChain(), "AsyncChain:soon"),
        (Called(model="m"), "Called:m"),
        (SoonCalled(name="n"), "SoonCalled:n"),
        (Called(model="m").encode, "Called:m"),
    ],
)
def test_whatever_embeds_gives_rows_of_length_one_under_a_lasting_name(given, name):
    vectors = embed(given)
    assert vectors.dtype.name == "float32"
    assert [row.tolist() for row in vectors] == [pytest.approx([0.6, 0.8])] * 2
    assert embedder_of(given).name == name


def test_a_plain_function_runs_in_another_thread():
    threads = []

    def function(texts):
        threads.append(threading.current_thread())
        return lengths_of(texts)

    embed(function, name="f")
    assert threads != [threading.current_thread()]


def test_an_embedding_model_is_called_through_the_engine_that_asks():
    engine = Engine()
    vectors = embed("text-embedding-3-small", ("x", "y"), engine=engine)
    assert engine.asked == [("text-embedding-3-small", ["x", "y"])]
    assert vectors.shape == (2, 2)
    assert embedder_of("text-embedding-3-small").name == "engine:text-embedding-3-small"


def test_local_is_one_model_for_all():
    assert isinstance(embedder_of("local"), MiniLm)
    assert embedder_of("local") is embedder_of("local")


def test_an_embedder_stays_what_it_is():
    given = embedder_of(lengths_of)
    assert embedder_of(given) is given


@pytest.mark.parametrize("given", [None, "", 5, Chain, object()])
def test_what_cannot_embed_is_refused(given):
    with pytest.raises(ConfigurationError, match=r"embedding_model=.*give \"local\""):
        embedder_of(given)


@pytest.mark.parametrize(
    "given",
    [lambda texts: texts, functools.partial(operator.mul), Called(), Called().encode],
    ids=["lambda", "partial", "object", "method"],
)
def test_what_has_no_lasting_name_asks_for_one(given):
    with pytest.raises(ConfigurationError, match="embedder_name="):
        embedder_of(given)
    assert embedder_of(given, name="mine").name == "mine"


def test_a_local_function_asks_for_a_name():
    def local(texts):
        return lengths_of(texts)

    with pytest.raises(ConfigurationError, match="embedder_name="):
        embedder_of(local)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([[1.0, 2.0]], r"shape \(1, 2\) for 2 texts"),
        ([1.0, 2.0], r"shape \(2,\) for 2 texts"),
        ([[], []], r"shape \(2, 0\) for 2 texts"),
        ([[[1.0]], [[2.0]]], r"shape \(2, 1, 1\) for 2 texts"),
        ([[1.0, 2.0], [1.0]], "no rows of numbers of one length"),
        ([["a"], ["b"]], "no rows of numbers of one length"),
        (None, r"no rows of numbers|shape \(\)"),
        ([[1.0, math.nan], [1.0, 2.0]], "not finite"),
        ([[1.0, math.inf], [1.0, 2.0]], "not finite"),
    ],
)
def test_vectors_that_are_none_are_refused(found, message):
    with pytest.raises(ConfigurationError, match=f"the embedder bad.*(?:{message})"):
        embed(lambda texts: found, name="bad")


def test_zeros_are_near_to_nothing_and_large_numbers_do_no_harm():
    vectors = checked([[0, 0], [3e300, 4e300]], 2, "any")
    assert vectors.tolist() == [[0, 0], pytest.approx([0.6, 0.8])]
