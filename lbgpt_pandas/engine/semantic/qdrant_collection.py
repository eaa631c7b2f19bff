"""A Qdrant collection of answered questions: the blocking calls of a `QdrantSemanticCache`."""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.semantic.base import Neighbour
from lbgpt_pandas.engine.semantic.grouped import SIMILARITY_DIGITS, checked_vector
from lbgpt_pandas.engine.semantic.qdrant_connection import NoCollection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lbgpt_pandas.engine.semantic.base import SemanticEntry
    from lbgpt_pandas.engine.semantic.qdrant_connection import QdrantConnection

    Query = tuple[str, Sequence[float]]

T = TypeVar("T")

POINTS_A_CALL = 1_000
ENTRIES_A_CALL = 200
QUERIES_A_CALL = 100
LOCAL_QUERIES_A_CALL = 32

_FIRST_LIMIT = 64
_GROWTH = 8
_SLACK = 1e-6
"""How far below its threshold a similarity may lie in float32."""

_NAMESPACE = uuid.UUID("6d1c6b0e-9d0f-5b0a-8f1e-6f0b7c2f4a51")
_INDEXED = ("key", "scope")
_TEXTS = ("key", "scope", "text", "envelope")


def point_id(key: str) -> str:
    """Return the id of the point of a key: the same in every process."""
    return str(uuid.uuid5(_NAMESPACE, key))


class QdrantCollection:
    """One collection; its methods may be called in any thread.

    Parameters
    ----------
    connection : QdrantConnection
        Where it is.
    name : str
        Its name.
    """

    def __init__(self, connection: QdrantConnection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._known: int | None = None
        self._is_indexed = False

    def dimension(self) -> int | None:
        """Return how long the vectors are; None where there is no collection yet.

        Raises
        ------
        ConfigurationError
            If a collection of that name was made for something else.
        """
        return self._connection.do(self._dimension)

    def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the envelopes under `keys`."""
        found: dict[str, str] = {}
        for some in _cut(keys, POINTS_A_CALL):
            payloads = self._read(partial(self._sound, keys=some)) or {}
            found.update({key: payload["envelope"] for key, payload in payloads.items()})
        return found

    def search(
        self, queries: Sequence[Query], *, at_least: float, limit: int
    ) -> list[list[Neighbour]]:
        """Return the nearest points of each query's scope, nearest first."""
        found: list[list[Neighbour]] = []
        is_local = self._connection.is_local
        search = self._search_locally if is_local else self._search_remotely
        for some in _cut(queries, LOCAL_QUERIES_A_CALL if is_local else QUERIES_A_CALL):
            work = partial(search, queries=some, at_least=at_least - _SLACK, limit=limit)
            found += self._read(work) or [[] for _ in some]
        return found

    def add(self, entries: Sequence[SemanticEntry]) -> None:
        """Store entries of the collection's dimension; what is there under a key stays."""
        for some in _cut(entries, ENTRIES_A_CALL):
            try:
                self._connection.do(partial(self._add, entries=some))
            except NoCollection:
                # Removed by somebody since.
                self._known = None
                self._connection.do(partial(self._add, entries=some))

    def delete_many(self, keys: Sequence[str]) -> int:
        """Remove points; return how many there were."""
        return sum(
            self._read(partial(self._delete, keys=some)) or 0 for some in _cut(keys, POINTS_A_CALL)
        )

    def page(self, offset: Any) -> tuple[Any, list[tuple[str, str, str]]]:
        """Return key, text and envelope of the next points, and where the ones behind begin."""
        return self._read(partial(self._page, offset=offset)) or (None, [])

    def count(self) -> int:
        """Return how many points there are."""
        return self._read(self._count) or 0

    def _read(self, work: Callable[[Any], T]) -> T | None:
        """Do what finds nothing where the collection was removed by somebody."""
        try:
            return self._connection.do(work)
        except NoCollection:
            self._known = None
            return None

    def _dimension(self, client: Any) -> int | None:
        # Local and cheap: whether another object has removed it since.
        if self._known is not None and (
            not self._connection.is_local or client.collection_exists(self._name)
        ):
            return self._known
        self._known = None
        if client.collection_exists(self._name):
            vectors = client.get_collection(self._name).config.params.vectors
            if getattr(vectors, "distance", None) != "Cosine":
                raise ConfigurationError(
                    f"the Qdrant collection {self._name!r} at {self._connection.place} was made "
                    "for something else (it has no unnamed vectors with cosine distance); give "
                    "another collection_name"
                )
            self._known = int(vectors.size)
        return self._known

    def _sound(self, client: Any, keys: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the payloads of the points that are there, by key."""
        return self._retrieve(client, keys)[0]

    def _retrieve(
        self, client: Any, keys: Sequence[str]
    ) -> tuple[dict[str, dict[str, str]], list[Any]]:
        """Return the payloads of sound points by key, and the ids of those that are not."""
        if self._dimension(client) is None:
            return {}, []
        wanted = {point_id(key): key for key in keys}
        sound, damaged = {}, []
        for record in client.retrieve(self._name, list(wanted), with_payload=True):
            if _is_sound(record.payload) and record.payload["key"] == wanted[record.id]:
                sound[wanted[record.id]] = record.payload
            else:
                damaged.append(record.id)
        return sound, damaged

    def _search_remotely(
        self, client: Any, queries: Sequence[Query], at_least: float, limit: int
    ) -> list[list[Neighbour]]:
        from qdrant_client import models  # noqa: PLC0415  # an extra

        if self._dimension(client) is None:
            return []
        requests = [
            models.QueryRequest(
                query=list(vector),
                filter=models.Filter(
                    must=[models.FieldCondition(key="scope", match=models.MatchValue(value=scope))]
                ),
                limit=limit,
                score_threshold=at_least,
                with_payload=True,
            )
            for scope, vector in queries
        ]
        responses = client.query_batch_points(self._name, requests)
        return [
            _neighbours(response.points, scope)
            for response, (scope, _) in zip(responses, queries, strict=True)
        ]

    def _search_locally(
        self, client: Any, queries: Sequence[Query], at_least: float, limit: int
    ) -> list[list[Neighbour]]:
        """Search without a filter, which makes the local mode look at every payload."""
        from qdrant_client import models  # noqa: PLC0415  # an extra

        if self._dimension(client) is None:
            return []
        found: list[list[Neighbour]] = [[] for _ in queries]
        waiting = list(range(len(queries)))
        reach = max(limit, _FIRST_LIMIT)
        while waiting:
            requests = [
                models.QueryRequest(
                    query=list(queries[row][1]),
                    limit=reach,
                    score_threshold=at_least,
                    with_payload=True,
                )
                for row in waiting
            ]
            responses = client.query_batch_points(self._name, requests)
            unfinished = []
            for row, response in zip(waiting, responses, strict=True):
                found[row] = _neighbours(response.points, queries[row][0])[:limit]
                if len(found[row]) < limit and len(response.points) == reach:
                    unfinished.append(row)
            waiting, reach = unfinished, reach * _GROWTH
        return found

    def _add(self, client: Any, entries: Sequence[SemanticEntry]) -> None:
        from qdrant_client import models  # noqa: PLC0415  # an extra

        if self._dimension(client) is None:
            self._create(client, len(entries[0].vector))
        self._index(client)
        # The first of a key, as among those that are stored.
        new = {entry.key: entry for entry in reversed(entries)}
        there, damaged = self._retrieve(client, list(new))
        for key in there:
            del new[key]
        if damaged:
            self._remove(client, damaged)
        if not new:
            return
        points = [
            models.PointStruct(
                id=point_id(key),
                vector=checked_vector(entry).tolist(),
                payload={name: getattr(entry, name) for name in _TEXTS},
            )
            for key, entry in new.items()
        ]
        # A server that can refuses to replace what another process has stored meanwhile.
        mode = {"update_mode": models.UpdateMode.INSERT_ONLY} if _has_modes(models) else {}
        client.upsert(self._name, points, wait=True, **mode)

    def _create(self, client: Any, dimension: int) -> None:
        from qdrant_client import models  # noqa: PLC0415  # an extra

        parameters = models.VectorParams(size=dimension, distance=models.Distance.COSINE)
        try:
            client.create_collection(self._name, vectors_config=parameters)
        except Exception:
            # Another process may have been faster.
            if not client.collection_exists(self._name):
                raise
        self._connection.protect()

    def _index(self, client: Any) -> None:
        """Have a server find points by key and scope; the local mode has no such index."""
        if self._is_indexed or self._connection.is_local:
            return
        for name in _INDEXED:
            client.create_payload_index(self._name, name, field_schema="keyword", wait=True)
        self._is_indexed = True

    def _delete(self, client: Any, keys: Sequence[str]) -> int:
        there = self._sound(client, keys)
        if there:
            self._remove(client, [point_id(key) for key in there])
        return len(there)

    def _remove(self, client: Any, ids: list[Any]) -> None:
        from qdrant_client import models  # noqa: PLC0415  # an extra

        client.delete(self._name, models.PointIdsList(points=ids), wait=True)

    def _page(self, client: Any, offset: Any) -> tuple[Any, list[tuple[str, str, str]]]:
        if self._dimension(client) is None:
            return None, []
        records, following = client.scroll(
            self._name, limit=POINTS_A_CALL, offset=offset, with_payload=True
        )
        payloads = [record.payload for record in records if _is_sound(record.payload)]
        return following, [(one["key"], one["text"], one["envelope"]) for one in payloads]

    def _count(self, client: Any) -> int:
        if self._dimension(client) is None:
            return 0
        return int(client.count(self._name, exact=True).count)


def _neighbours(points: Sequence[Any], scope: str) -> list[Neighbour]:
    return [
        Neighbour(
            point.payload["key"],
            point.payload["text"],
            point.payload["envelope"],
            min(1.0, round(point.score, SIMILARITY_DIGITS)),
        )
        for point in points
        if _is_sound(point.payload) and point.payload["scope"] == scope
    ]


def _is_sound(payload: Any) -> bool:
    return isinstance(payload, dict) and all(isinstance(payload.get(name), str) for name in _TEXTS)


def _has_modes(models: Any) -> bool:
    return hasattr(models, "UpdateMode")


def _cut(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
