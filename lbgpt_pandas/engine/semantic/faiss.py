"""A semantic cache in a directory: SQLite holds the entries, FAISS finds the near ones."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lbgpt_pandas.engine.caches.holder import DatabaseHolder
from lbgpt_pandas.engine.semantic.base import DEFAULT_THRESHOLD, Neighbour
from lbgpt_pandas.engine.semantic.entry_database import DATABASE, EntryDatabase
from lbgpt_pandas.engine.semantic.grouped import SIMILARITY_DIGITS, GroupedStore, checked_vector
from lbgpt_pandas.engine.semantic.vector_index import VectorIndex

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from lbgpt_pandas.engine.semantic.base import SemanticEntry
    from lbgpt_pandas.engine.semantic.entry_database import Row
    from lbgpt_pandas.engine.semantic.grouped import Addition, Lookup

T = TypeVar("T")

QUERIES_A_SEARCH = 1_024
"""Vectors that are looked for in one piece of work; 0.4 s among 100,000 entries."""


class FaissSemanticCache(GroupedStore):
    """Answered questions in a directory, for any number of processes on this machine.

    One SQLite database holds texts, answers and vectors, an entry whole or not at all. FAISS
    indexes are made of it in memory, one a scope, at the first search in the scope, and follow
    what any process adds or removes. What is asked at the same time is searched together, in a
    thread of the cache's own. Nothing is pickled, nothing is evicted.

    A damaged database is moved aside and a new one begun, with a notice. Where nothing can be
    written the cache is searched all the same.

    Parameters
    ----------
    embedding_model : str, callable or object
        ``"local"``, the name of an engine's embedding model, a function from texts to vectors,
        an object with ``embed_documents`` as LangChain has them, or an `Embedder`.
    path : path
        A directory, made for this user alone if it does not exist. ``~`` and ``$VARIABLES`` are
        expanded.
    cosine_similarity_threshold : float, default 0.985
        From which similarity on two questions may share an answer.
    embedder_name : str, optional
        Name under which vectors are kept, where the model does not say its own. Vectors of two
        names are never compared.

    Raises
    ------
    ConfigurationError
        At the first use, if the directory is a file or a link, belongs to another user, or may
        be written by others.
    MissingExtraError
        At the first search, if FAISS is not installed.
    """

    def __init__(
        self,
        embedding_model: Any,
        path: str | os.PathLike[str],
        cosine_similarity_threshold: float = DEFAULT_THRESHOLD,
        *,
        embedder_name: str | None = None,
    ) -> None:
        super().__init__(embedding_model, cosine_similarity_threshold, embedder_name)
        self.path = Path(os.path.expandvars(path)).expanduser().absolute()
        self._holder = DatabaseHolder(
            self.path, name=DATABASE, open_file=EntryDatabase, read_only=False, elsewhere="path="
        )
        # Touched by the thread of the lookups only.
        self._indexes: dict[str, VectorIndex] = {}
        self._indexed: EntryDatabase | None = None

    @property
    def location(self) -> str:
        """Where the entries lie."""
        return str(self.path)

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the envelopes of those `keys` that are stored; nothing is embedded."""
        return await self._do(partial(EntryDatabase.get_many, keys=list(keys)))

    async def delete_many(self, keys: Sequence[str]) -> int:
        """Remove entries; return how many there were."""
        return await self._do(partial(EntryDatabase.delete_many, keys=list(keys)), writes=True)

    async def scan(self) -> AsyncIterator[list[tuple[str, str, str]]]:
        """Yield key, text and envelope of all entries, some thousand at a time."""
        last = 0
        while True:
            last, page = await self._do(partial(EntryDatabase.page, after=last))
            if not page:
                return
            yield page

    async def count(self) -> int:
        """Return how many entries there are."""
        return await self._do(EntryDatabase.count)

    async def close(self) -> None:
        """Finish what was begun, close the file and drop the indexes; any use opens it again."""
        await asyncio.to_thread(self._close)

    def take_notices(self) -> list[str]:
        """Return what has to be told, each text once."""
        return self._holder.take_notices()

    async def _do(self, work: Callable[[EntryDatabase], T], *, writes: bool = False) -> T:
        return await asyncio.to_thread(partial(self._holder.do, work, writes=writes))

    def _close(self) -> None:
        self._flush()
        self._holder.close()
        self._indexes, self._indexed = {}, None

    def _store(self, additions: list[Addition]) -> None:
        groups = []
        for addition in additions:
            try:
                groups.append((addition, [_row(entry) for entry in addition.entries]))
            except (TypeError, ValueError) as error:
                addition.error = error
        work = partial(EntryDatabase.add, groups=[rows for _, rows in groups])
        mismatches = self._holder.do(work, writes=True)
        for (addition, _), mismatch in zip(groups, mismatches, strict=True):
            if mismatch is not None:
                addition.error = self._wrong_dimension(*mismatch)

    def _look_up(self, lookups: list[Lookup]) -> None:
        by_scope: dict[str, list[tuple[Lookup, int]]] = {}
        for lookup in lookups:
            for row, scope in enumerate(lookup.scopes):
                by_scope.setdefault(scope, []).append((lookup, row))
        for scope, queries in by_scope.items():
            for start in range(0, len(queries), QUERIES_A_SEARCH):
                some = queries[start : start + QUERIES_A_SEARCH]
                self._holder.do(partial(self._search, scope=scope, queries=some))

    def _search(
        self, database: EntryDatabase, scope: str, queries: list[tuple[Lookup, int]]
    ) -> None:
        index = self._index(database, scope, queries[0][0].dimension)
        if index is None:
            return
        fitting = []
        for lookup, row in queries:
            if lookup.dimension == index.dimension:
                fitting.append((lookup, row))
            else:
                lookup.error = self._wrong_dimension(index.dimension, lookup.dimension)
        gone = _find(database, index, fitting)
        if gone:
            index.sweep(database)
            _find(database, index, gone)

    def _index(self, database: EntryDatabase, scope: str, dimension: int) -> VectorIndex | None:
        """Return the index of a scope as it is now; None where there is nothing to find."""
        if self._indexed is not database:
            self._indexes, self._indexed = {}, database
        index = self._indexes.get(scope)
        if index is None or index.dimension != dimension:
            # All that there was may have been removed, and other vectors added since.
            stored = database.dimension(scope)
            if stored is None:
                self._indexes.pop(scope, None)
                return None
            if index is None or index.dimension != stored:
                index = self._indexes[scope] = VectorIndex(scope, stored)
        index.refresh(database)
        return index


def _row(entry: SemanticEntry) -> Row:
    vector = checked_vector(entry)
    return entry.key, entry.scope, entry.text, entry.envelope, vector.size, vector.tobytes()


def _find(
    database: EntryDatabase, index: VectorIndex, queries: Iterable[tuple[Lookup, int]]
) -> list[tuple[Lookup, int]]:
    """Write what is near into the lookups; return those that met an entry that is gone."""
    import numpy as np  # noqa: PLC0415  # with FAISS only

    queries = list(queries)
    if not queries:
        return []
    vectors = np.ascontiguousarray(
        [lookup.vectors[row] for lookup, row in queries], dtype=np.float32
    )
    similarities, ids = index.nearest(vectors, max(lookup.limit for lookup, _ in queries))
    # In double precision, where rounding a similarity does not bend it again.
    similarities = similarities.astype(np.float64).round(SIMILARITY_DIGITS).clip(-1.0, 1.0)
    least = min(lookup.at_least for lookup, _ in queries)
    near = ids[(ids >= 0) & (similarities >= least)]
    entries = database.entries(index.scope, np.unique(near).tolist())
    gone = []
    for (lookup, row), scores, found in zip(
        queries, similarities.tolist(), ids.tolist(), strict=True
    ):
        close = [
            (identifier, score)
            for identifier, score in zip(found, scores, strict=True)
            if identifier >= 0 and score >= lookup.at_least
        ][: lookup.limit]
        if any(identifier not in entries for identifier, _ in close):
            gone.append((lookup, row))
        lookup.found[row] = [
            Neighbour(*entries[identifier], similarity=score)
            for identifier, score in close
            if identifier in entries
        ]
    return gone
