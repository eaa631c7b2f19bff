"""What users bring to embed texts with, behind the port."""

from __future__ import annotations

import asyncio
import inspect
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.semantic.minilm import MiniLm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lbgpt_pandas.engine.semantic.base import Embedder, Vectors

LOCAL = "local"

ACCEPTED = (
    'give "local", the name of an embedding model of the engine, a function from a list of texts '
    "to their vectors, or an object with embed_documents"
)


def embedder_of(embedding_model: Any, *, name: str | None = None) -> Embedder:
    """Put whatever a user embeds texts with behind the port.

    Parameters
    ----------
    embedding_model : str, callable or object
        ``"local"`` for the embedded model; another text for an embedding model of the engine
        that asks; a plain or asynchronous function from a list of texts to an array; an object
        with ``embed_documents`` or ``aembed_documents``, as LangChain has them; an `Embedder`.
    name : str, optional
        Name under which its vectors are kept. By default the object's ``model`` or
        ``model_name``, or where the function is defined.

    Returns
    -------
    Embedder
        Checks what it is given: vectors are finite, of one dimension, and of length 1 then.

    Raises
    ------
    ConfigurationError
        If it is none of these, or has no name that another process would give it as well.
    """
    if isinstance(embedding_model, str) and embedding_model:
        return _local() if embedding_model == LOCAL else EngineEmbedder(embedding_model, name=name)
    if isinstance(embedding_model, type) or embedding_model is None or embedding_model == "":
        raise ConfigurationError(f"embedding_model={embedding_model!r}: {ACCEPTED}")
    if _is_embedder(embedding_model):
        return embedding_model  # type: ignore[no-any-return]  # as the line above says
    for method in ("aembed_documents", "embed_documents"):
        function = getattr(embedding_model, method, None)
        if callable(function):
            return GivenEmbedder(function, name=name or _name_of_object(embedding_model))
    if callable(embedding_model):
        return GivenEmbedder(embedding_model, name=name or _name_of_function(embedding_model))
    raise ConfigurationError(f"embedding_model={type(embedding_model).__name__}: {ACCEPTED}")


class EngineEmbedder:
    """An embedding model that is called through the engine that asks.

    Parameters
    ----------
    model : str
        Its name.
    name : str, optional
        Name under which its vectors are kept; by default the model's.
    """

    def __init__(self, model: str, *, name: str | None = None) -> None:
        self.model = model
        self.name = name or f"engine:{model}"

    def __repr__(self) -> str:
        return f"EngineEmbedder({self.model!r})"

    async def embed(self, texts: Sequence[str], *, engine: Any) -> Vectors:
        """Embed texts, each from the engine's cache if it is there."""
        answer = await engine.embed_for_run(self.model, list(texts))
        return checked([each.embedding for each in answer.data], len(texts), self.name)


class GivenEmbedder:
    """A function of the user's.

    Parameters
    ----------
    function : callable
        From a list of texts to one vector each; called in a thread unless it is asynchronous.
    name : str
        Name under which its vectors are kept.
    """

    def __init__(self, function: Callable[[list[str]], Any], *, name: str) -> None:
        self._function = function
        self.name = name

    def __repr__(self) -> str:
        return f"GivenEmbedder({self.name!r})"

    async def embed(self, texts: Sequence[str], *, engine: Any) -> Vectors:
        """Embed texts."""
        del engine
        if inspect.iscoroutinefunction(self._function):
            found = await self._function(list(texts))
        else:
            found = await asyncio.to_thread(self._function, list(texts))
        if inspect.isawaitable(found):  # of an object whose call is asynchronous
            found = await found
        return checked(found, len(texts), self.name)


def checked(found: Any, count: int, name: str) -> Vectors:
    """Return vectors as rows of length 1.

    Raises
    ------
    ConfigurationError
        If there are not `count` of one dimension, or a number is not finite.
    """
    import numpy as np  # noqa: PLC0415  # loaded with the first vector

    try:
        vectors = np.array(found, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the embedder {name} gave no rows of numbers of one length: {error}"
        ) from None
    if vectors.ndim != 2 or len(vectors) != count or not vectors.shape[1]:  # noqa: PLR2004  # rows and columns
        raise ConfigurationError(
            f"the embedder {name} gave an array of shape {vectors.shape} for {count} texts; one "
            "row for each is wanted"
        )
    if not np.isfinite(vectors).all():
        raise ConfigurationError(f"the embedder {name} gave a number that is not finite")
    # A vector of zeros is near to nothing, and stays one.
    # The largest number first becomes 1, so that no square overflows.
    for norm in (np.inf, 2):
        lengths = np.linalg.norm(vectors, ord=norm, axis=1, keepdims=True)
        vectors /= np.where(lengths > 0, lengths, 1.0)
    return vectors.astype(np.float32)


@lru_cache(maxsize=1)
def _local() -> MiniLm:
    return MiniLm()


def _is_embedder(given: Any) -> bool:
    return inspect.iscoroutinefunction(getattr(given, "embed", None)) and isinstance(
        getattr(given, "name", None), str
    )


def _name_of_object(given: object) -> str:
    for attribute in ("model", "model_name", "name"):
        value = getattr(given, attribute, None)
        if isinstance(value, str) and value:
            return f"{type(given).__qualname__}:{value}"
    raise ConfigurationError(
        f"the embedder {type(given).__name__} has no model name; give embedder_name=, so that its "
        "vectors are never compared with those of another model"
    )


def _name_of_function(function: Any) -> str:
    if not inspect.isroutine(function):
        return _name_of_object(function)
    owner = getattr(function, "__self__", None)
    if owner is not None and not inspect.ismodule(owner):
        return _name_of_object(owner)  # all models of a library have the method of one name
    name = function.__qualname__
    if "<" in name or function.__module__ in {None, "__main__"}:
        raise ConfigurationError(
            "a function without a lasting name (a lambda, a local one, one of a notebook) needs "
            "embedder_name=, so that its vectors are never compared with those of another model"
        )
    return f"{function.__module__}.{name}"
