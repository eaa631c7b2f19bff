"""A semantic cache in a Qdrant collection: on a server, in a folder, or in memory."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lbgpt_pandas.engine.caches.group_writer import GroupWriter
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.secrets import Secret
from lbgpt_pandas.engine.semantic.base import DEFAULT_THRESHOLD
from lbgpt_pandas.engine.semantic.grouped import GroupedStore, Lookup, checked_vector
from lbgpt_pandas.engine.semantic.qdrant_collection import QdrantCollection
from lbgpt_pandas.engine.semantic.qdrant_connection import QdrantConnection, folder_connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from lbgpt_pandas.engine.semantic.base import SemanticEntry
    from lbgpt_pandas.engine.semantic.grouped import Addition

IN_MEMORY = ":memory:"

_HERE = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})


class QdrantSemanticCache(GroupedStore):
    """Answered questions as points of a Qdrant collection.

    The collection is made at the first `add`. The id of a point is made of its key, so that a
    question is there once. Within one process the first answer to a question stays; of two
    processes that store one at the same moment, the first stays where the server knows
    ``update_mode`` (from 1.17 on), and the last on older ones.

    A folder (`path`) serves one process at a time and is searched one vector after the other:
    some 10,000 entries are a good size for it. A `FaissSemanticCache` takes more, and several
    processes.

    Parameters
    ----------
    embedding_model : str, callable or object
        See `FaissSemanticCache`.
    collection_name : str
        Name of the collection.
    host : str, optional
        Where a server is, or ``":memory:"`` for entries that end with this object. Spoken to
        over https if there is an `api_key`; `url` says which.
    port : int, default 6333
        Of the server's REST interface.
    url : str, optional
        Where a server is, such as ``"https://qdrant.example:6333"``, in place of `host`; or
        ``":memory:"``.
    path : path, optional
        Folder of Qdrant's local mode, made for this user alone if it does not exist, or
        ``":memory:"``.
    api_key : str, optional
        The server's key.
    cosine_similarity_threshold : float, default 0.985
        From which similarity on two questions may share an answer.
    timeout_s : float, default 10
        Seconds that the server may take for an answer, rounded up.
    embedder_name : str, optional
        See `FaissSemanticCache`.

    Raises
    ------
    ConfigurationError
        If not exactly one of `host`, `url` and `path` is given; at the first use, if the folder
        is used by another process, or others could have planted something in it.
    MissingExtraError
        At the first use, if qdrant-client is not installed.
    """

    def __init__(
        self,
        embedding_model: Any,
        collection_name: str,
        host: str | None = None,
        port: int = 6333,
        *,
        url: str | None = None,
        path: str | os.PathLike[str] | None = None,
        api_key: str | None = None,
        cosine_similarity_threshold: float = DEFAULT_THRESHOLD,
        timeout_s: float = 10.0,
        embedder_name: str | None = None,
    ) -> None:
        super().__init__(embedding_model, cosine_similarity_threshold, embedder_name)
        if sum(given is not None for given in (host, url, path)) != 1:
            raise ConfigurationError(
                "give one of host=, url= and path= to QdrantSemanticCache, or host=':memory:'"
            )
        if not timeout_s > 0:
            raise ConfigurationError(f"timeout_s={timeout_s!r}: give a number above 0")
        self.collection_name = collection_name
        self._notices: list[str] = []
        if IN_MEMORY in (host, url, path):
            self._connection = QdrantConnection({"location": IN_MEMORY}, place=IN_MEMORY)
        elif path is not None:
            folder = Path(os.path.expandvars(path)).expanduser().absolute()
            self._connection = folder_connection(folder)
        else:
            options, place = _server(host, port, url, secure=api_key is not None)
            self._connection = QdrantConnection(
                options,
                place=place,
                api_key=None if api_key is None else Secret(api_key),
                timeout_s=timeout_s,
            )
            if api_key is not None and _is_open_to_others(place):
                self._notices.append(
                    f"the api_key for Qdrant at {place} is sent without encryption; give an "
                    "https:// url"
                )
        self._collection = QdrantCollection(self._connection, collection_name)
        self._exact: GroupWriter[_Exact] = GroupWriter(self._get_all, name="lbgpt-qdrant")

    @property
    def location(self) -> str:
        """Where the entries lie."""
        return f"{self._connection.place}, collection {self.collection_name}"

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the envelopes of those `keys` that are stored; nothing is embedded."""
        exact = _Exact(keys)
        await self._exact.put(exact)
        return exact.found

    async def delete_many(self, keys: Sequence[str]) -> int:
        """Remove entries; return how many there were."""
        return await asyncio.to_thread(self._collection.delete_many, list(keys))

    async def scan(self) -> AsyncIterator[list[tuple[str, str, str]]]:
        """Yield key, text and envelope of all entries, some thousand at a time."""
        offset: Any = None
        while True:
            offset, page = await asyncio.to_thread(self._collection.page, offset)
            if page:
                yield page
            if offset is None:
                return

    async def count(self) -> int:
        """Return how many entries there are."""
        return await asyncio.to_thread(self._collection.count)

    async def close(self) -> None:
        """Finish what was begun and close the client; any use opens it again.

        What lies in memory only is kept.
        """
        await asyncio.to_thread(self._close)

    def take_notices(self) -> list[str]:
        """Return what has to be told, each text once."""
        notices, self._notices = self._notices, []
        return notices

    def _close(self) -> None:
        self._flush()
        self._exact.flush()
        self._connection.release()

    def _get_all(self, group: list[_Exact]) -> None:
        wanted = dict.fromkeys(key for exact in group for key in exact.keys)
        found = self._collection.get_many(list(wanted))
        for exact in group:
            exact.found = {key: found[key] for key in exact.keys if key in found}

    def _store(self, additions: list[Addition]) -> None:
        dimension = self._collection.dimension()
        entries: list[SemanticEntry] = []
        for addition in additions:
            try:
                lengths = [checked_vector(entry).size for entry in addition.entries]
            except (TypeError, ValueError) as error:
                addition.error = error
                continue
            if dimension is None:
                dimension = lengths[0]
            wrong = [length for length in lengths if length != dimension]
            if wrong:
                addition.error = self._wrong_dimension(dimension, wrong[0])
            else:
                entries += addition.entries
        self._collection.add(entries)

    def _look_up(self, lookups: list[Lookup]) -> None:
        dimension = self._collection.dimension()
        if dimension is None:
            return
        fitting = []
        for lookup in lookups:
            if lookup.dimension == dimension:
                fitting.append(lookup)
            else:
                lookup.error = self._wrong_dimension(dimension, lookup.dimension)
        if not fitting:
            return
        queries = [
            (scope, vector)
            for lookup in fitting
            for scope, vector in zip(lookup.scopes, lookup.vectors.tolist(), strict=True)
        ]
        found = iter(
            self._collection.search(
                queries,
                at_least=min(lookup.at_least for lookup in fitting),
                limit=max(lookup.limit for lookup in fitting),
            )
        )
        for lookup in fitting:
            for row in range(len(lookup.scopes)):
                near = [one for one in next(found) if one.similarity >= lookup.at_least]
                lookup.found[row] = near[: lookup.limit]


class _Exact:
    """Keys that somebody waits for."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = keys
        self.found: dict[str, str] = {}


def _server(
    host: str | None, port: int, url: str | None, *, secure: bool
) -> tuple[dict[str, Any], str]:
    """Return the client's arguments for a server, and where it is for people."""
    if url is None:
        return {"host": host, "port": port}, f"{'https' if secure else 'http'}://{host}:{port}"
    parts = urlsplit(url if "://" in url else f"//{url}")
    if parts.username is not None or parts.query:
        raise ConfigurationError(
            "a Qdrant url holds neither user nor password nor query; give the key as api_key="
        )
    place = parts._replace(scheme=parts.scheme or "http").geturl()
    return {"url": url, "port": port}, place


def _is_open_to_others(place: str) -> bool:
    parts = urlsplit(place)
    return parts.scheme == "http" and parts.hostname not in _HERE
