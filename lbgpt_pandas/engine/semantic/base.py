"""The ports of the semantic tier: what embeds texts, and what keeps vectors beside answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

DEFAULT_THRESHOLD = 0.985
"""Cosine similarity from which two questions may share an answer."""


@dataclass(frozen=True, slots=True)
class SemanticEntry:
    """An answered question as it is kept.

    Attributes
    ----------
    key : str
        Key of the request that was answered.
    scope : str
        Digest of all that another request must have in common with it: model, parameters,
        system messages, roles, and the embedder.
    text : str
        What was embedded.
    envelope : str
        The sealed answer (see `seal`).
    vector : ndarray of float32, shape (d,)
        The text's embedding, of length 1.
    """

    key: str
    scope: str
    text: str
    envelope: str
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry that is near to what was looked for.

    Attributes
    ----------
    key, text, envelope : str
        Of the entry.
    similarity : float
        Cosine similarity, -1 to 1.
    """

    key: str
    text: str
    envelope: str
    similarity: float


class Embedder(Protocol):
    """Turns texts into vectors."""

    @property
    def name(self) -> str:
        """Which model this is, with its version; vectors of two names are never compared."""
        ...

    async def embed(self, texts: Sequence[str], *, engine: Any) -> Vectors:
        """Embed texts off the event loop.

        Parameters
        ----------
        texts : sequence of str
            Not empty.
        engine : engine
            Who asks; an embedding model that is given by name alone is called through it.

        Returns
        -------
        ndarray of float32, shape (len(texts), d)
            Rows of length 1.
        """
        ...


@runtime_checkable
class SemanticCache(Protocol):
    """A store of answered questions; every method may be called on any event loop."""

    @property
    def embedder(self) -> Embedder:
        """What the questions are embedded with."""
        ...

    @property
    def threshold(self) -> float:
        """Cosine similarity from which an entry counts as near."""
        ...

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the envelopes of those `keys` that are stored; nothing is embedded."""
        ...

    async def search(
        self, scopes: Sequence[str], vectors: Vectors, *, at_least: float, limit: int = 8
    ) -> list[list[Neighbour]]:
        """Find the nearest entries of the same scope for each vector, nearest first.

        Raises
        ------
        ConfigurationError
            If the vectors have another dimension than those that are stored in the scope.
        """
        ...

    async def add(self, entries: Sequence[SemanticEntry]) -> None:
        """Store entries; durable when this returns. An entry that is there under a key stays."""
        ...

    async def delete_many(self, keys: Sequence[str]) -> int:
        """Remove entries; return how many there were."""
        ...

    def scan(self) -> AsyncIterator[list[tuple[str, str, str]]]:
        """Yield key, text and envelope of all entries, some thousand at a time."""
        ...

    async def count(self) -> int:
        """Return how many entries there are."""
        ...

    async def close(self) -> None:
        """Finish what was begun and release what is held; the cache can be used again."""
        ...
