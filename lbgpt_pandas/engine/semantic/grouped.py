"""What stores of vectors have in common: what comes at the same time is done together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.caches.group_writer import GroupWriter
from lbgpt_pandas.engine.caches.sqlite_file import check_text
from lbgpt_pandas.engine.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from lbgpt_pandas.engine.semantic.base import Embedder, Neighbour, SemanticEntry, Vectors

SIMILARITY_DIGITS = 6
"""Digits of a similarity that mean something; float32 has few more."""


@dataclass(slots=True)
class Addition:
    """Entries that somebody waits to be stored.

    Attributes
    ----------
    entries : sequence of SemanticEntry
        To be stored.
    error : Exception or None
        Why they were not, where others of the group were.
    """

    entries: Sequence[SemanticEntry]
    error: Exception | None = None


@dataclass(slots=True)
class Lookup:
    """Vectors whose neighbours somebody waits for.

    Attributes
    ----------
    scopes, vectors, at_least, limit
        As given to `SemanticCache.search`.
    found : list
        Neighbours of each vector, to be filled.
    error : Exception or None
        Why there are none, where others of the group got theirs.
    """

    scopes: Sequence[str]
    vectors: Vectors
    at_least: float
    limit: int
    found: list[list[Neighbour]] = field(default_factory=list)
    error: Exception | None = None

    @property
    def dimension(self) -> int:
        """How long the vectors are."""
        return int(self.vectors.shape[1])


class GroupedStore(ABC):
    """A store of vectors with a thread for what is added and one for what is looked up.

    Parameters
    ----------
    embedding_model, cosine_similarity_threshold, embedder_name
        See `FaissSemanticCache`.

    Attributes
    ----------
    threshold : float
        Cosine similarity from which an entry counts as near.
    """

    def __init__(
        self, embedding_model: Any, cosine_similarity_threshold: float, embedder_name: str | None
    ) -> None:
        self.threshold = cosine_similarity_threshold
        self._embedding_model = embedding_model
        self._embedder_name = embedder_name
        self._additions: GroupWriter[Addition] = GroupWriter(self._store, name="lbgpt-semantic")
        self._lookups: GroupWriter[Lookup] = GroupWriter(self._look_up, name="lbgpt-search")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.location!r})"

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the entries lie, for people, without any secret."""

    @cached_property
    def embedder(self) -> Embedder:
        """What the questions are embedded with."""
        from lbgpt_pandas.engine.semantic.embedders import (  # noqa: PLC0415  # may load a model
            embedder_of,
        )

        return embedder_of(self._embedding_model, name=self._embedder_name)

    async def search(
        self, scopes: Sequence[str], vectors: Vectors, *, at_least: float, limit: int = 8
    ) -> list[list[Neighbour]]:
        """Find the nearest entries of the same scope for each vector, nearest first.

        Raises
        ------
        ConfigurationError
            If the vectors have another dimension than those that are stored in the scope.
        ValueError
            If there is not one vector for each scope.
        """
        if vectors.ndim != 2 or len(vectors) != len(scopes):  # noqa: PLR2004  # rows and columns
            raise ValueError(f"{len(scopes)} scopes, but vectors of shape {vectors.shape}")
        if not scopes:
            return []
        lookup = Lookup(scopes, vectors, at_least, limit, [[] for _ in scopes])
        await self._lookups.put(lookup)
        if lookup.error is not None:
            raise lookup.error
        return lookup.found

    async def add(self, entries: Sequence[SemanticEntry]) -> None:
        """Store entries; durable when this returns. An entry that is there under a key stays.

        Raises
        ------
        ConfigurationError
            If a vector has another dimension than those that are stored in its scope.
        TypeError, ValueError
            If a text is no text, or a vector holds something else than finite numbers.
        Exception
            Whatever keeps the store from being written.
        """
        if not entries:
            return
        addition = Addition(entries)
        await self._additions.put(addition)
        if addition.error is not None:
            raise addition.error

    def _flush(self) -> None:
        self._additions.flush()
        self._lookups.flush()

    def _wrong_dimension(self, stored: int, given: int) -> ConfigurationError:
        try:
            name = self.embedder.name
        except Exception:  # noqa: BLE001  # anybody's code, and not what went wrong here
            name = "of this cache"
        return ConfigurationError(
            f"the embedder {name} gives vectors of {given} dimensions, but those in "
            f"{self.location} have {stored}. Give the embedder that made them, another "
            "embedder_name= or another place for this one, or remove what is stored"
        )

    @abstractmethod
    def _store(self, additions: list[Addition]) -> None: ...

    @abstractmethod
    def _look_up(self, lookups: list[Lookup]) -> None: ...


def checked_vector(entry: SemanticEntry) -> NDArray[np.float32]:
    """Return an entry's vector as it is stored, once texts and numbers are sound.

    Raises
    ------
    TypeError, ValueError
        If a text is no text or cannot be stored, or the vector holds something else than
        finite numbers.
    """
    import numpy as np  # noqa: PLC0415  # with a store of vectors only

    for text in (entry.key, entry.scope, entry.text, entry.envelope):
        check_text(text)
    vector = np.ascontiguousarray(entry.vector, dtype="<f4")
    if np.ndim(entry.vector) != 1 or not vector.size or not np.isfinite(vector).all():
        raise ValueError(
            f"the vector of an entry has shape {vector.shape} or numbers that are not finite; "
            "the embedder has to give one vector of finite numbers for each text"
        )
    return vector
