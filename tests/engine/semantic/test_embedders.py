"""What users bring to embed texts with."""

from __future__ import annotations

import functools

import pytest

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.semantic.embedders import EngineEmbedder, embedder_of
from lbgpt_pandas.engine.semantic.minilm import MiniLm
from lbgpt_pandas.testing import ScriptedGPT

np = pytest.importorskip("numpy")


def lengths(texts):
    return [[len(text), 1.0] for text in texts]


async def alengths(texts):
    return lengths(texts)


class LangChainLike:
    model = "some-model"

    def embed_documents(self, texts):
        return lengths(texts)

    def embed_query(self, text):
        return lengths([text])[0]


class AsyncLangChainLike(LangChainLike):
    async def aembed_documents(self, texts):
        return lengths(texts)


@pytest.mark.parametrize(
    "given",
    [lengths, alengths, LangChainLike(), AsyncLangChainLike(), lambda t: np.array(lengths(t))],
)
async def test_whatever_embeds_is_taken(given):
    embedder = embedder_of(given, name="mine")
    vectors = await embedder.embed(["a", "bcd"], engine=None)
    assert vectors.dtype == np.float32
    assert np.allclose(vectors, [[0.70710678, 0.70710678], [0.9486833, 0.31622777]])
    assert embedder.name == "mine"


async def test_what_was_given_is_not_changed():
    rows = np.array([[3.0, 4.0]], dtype=np.float32)
    embedder = embedder_of(lambda texts: rows, name="mine")
    assert np.allclose(await embedder.embed(["a"], engine=None), [[0.6, 0.8]])
    assert rows.tolist() == [[3.0, 4.0]]


async def test_an_engines_model_is_asked_through_the_engine_and_its_cache():
    pytest.importorskip("openai")
    engine = ScriptedGPT("ok")
    embedder = embedder_of("text-embedding-3-small")
    first = await embedder.embed(["one", "two"], engine=engine)
    again = await embedder.embed(["one", "two"], engine=engine)
    assert isinstance(embedder, EngineEmbedder)
    assert np.array_equal(first, again)
    assert np.allclose(np.linalg.norm(first, axis=1), 1.0)
    assert embedder.name == "engine:text-embedding-3-small"


def test_local_is_the_embedded_model_and_there_is_one():
    assert isinstance(embedder_of("local"), MiniLm)
    assert embedder_of("local") is embedder_of("local")


def test_an_embedder_is_taken_as_it_is():
    embedder = MiniLm()
    assert embedder_of(embedder) is embedder


def test_names_last():
    assert embedder_of(lengths).name.endswith("test_embedders.lengths")
    assert embedder_of(LangChainLike()).name == "LangChainLike:some-model"


@pytest.mark.parametrize(
    "given",
    [
        lambda texts: lengths(texts),
        functools.partial(lengths),
        type("Odd", (), {"embed_documents": lengths})(),
    ],
)
def test_what_has_no_lasting_name_asks_for_one(given):
    with pytest.raises(ConfigurationError, match="embedder_name="):
        embedder_of(given)


@pytest.mark.parametrize("given", [None, "", 5, LangChainLike, object()])
def test_what_embeds_nothing_is_refused(given):
    with pytest.raises(ConfigurationError, match="embedding_model="):
        embedder_of(given)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([[1.0, 2.0]], "2 texts"),
        ([1.0, 2.0], "2 texts"),
        ([[], []], "2 texts"),
        ([[1.0], [1.0, 2.0]], "one length"),
        ([["a"], ["b"]], "one length"),
        ([[1.0], [float("nan")]], "not finite"),
        (None, "2 texts"),
    ],
)
async def test_vectors_are_checked(found, words):
    embedder = embedder_of(lambda texts: found, name="mine")
    with pytest.raises(ConfigurationError, match=words):
        await embedder.embed(["a", "b"], engine=None)


async def test_a_vector_of_zeros_stays_one():
    embedder = embedder_of(lambda texts: [[0.0, 0.0]], name="mine")
    assert (await embedder.embed(["a"], engine=None)).tolist() == [[0.0, 0.0]]
