"""The database file of a `FaissSemanticCache`: entries with their vectors, without pickle."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.caches.directory import locked
from lbgpt_pandas.engine.caches.keyed_file import ROWS_A_STATEMENT, KeyedFile, json_lists
from lbgpt_pandas.engine.caches.sqlite_file import open_writer
from lbgpt_pandas.engine.errors import ConfigurationError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence
    from typing import Literal

Row = tuple[str, str, str, str, int, bytes]
"""Key, scope, text, envelope, dimension, and the vector as little-endian float32."""

DATABASE = "semantic.db"

_VERSION = 1

# The short columns come first: what lies behind a long answer is slow to reach.
_TABLES = """
BEGIN;
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    scope TEXT NOT NULL,
    created REAL NOT NULL,
    dimension INTEGER NOT NULL,
    vector BLOB NOT NULL,
    text TEXT NOT NULL,
    envelope TEXT NOT NULL
);
CREATE INDEX entries_scope ON entries (scope, id);
CREATE VIEW sound AS SELECT * FROM entries
    WHERE typeof(key) = 'text' AND typeof(text) = 'text' AND typeof(envelope) = 'text'
    AND typeof(vector) = 'blob' AND length(vector) = 4 * dimension;
PRAGMA user_version = 1;
COMMIT;
"""
_BY_KEY = (
    "SELECT sound.key, envelope FROM json_each(?) AS wanted CROSS JOIN sound "
    "ON sound.key = wanted.value"
)
_BY_ID = (
    "SELECT sound.id, sound.key, text, envelope FROM json_each(?) AS wanted CROSS JOIN sound "
    "ON sound.id = wanted.value AND scope = ?"
)
_DIMENSION = "SELECT dimension FROM sound WHERE scope = ? ORDER BY id LIMIT 1"
_VECTORS = (
    "SELECT id, vector FROM sound WHERE scope = ? AND id > ? AND dimension = ? ORDER BY id LIMIT ?"
)
_IDS = "SELECT id FROM sound WHERE scope = ?"
_PAGE = "SELECT id, key, text, envelope FROM sound WHERE id > ? ORDER BY id LIMIT ?"
# What is not sound makes room, under a new id, by which other processes notice it.
_DELETE_UNSOUND = (
    "DELETE FROM entries WHERE key = ?1 AND NOT EXISTS (SELECT 1 FROM sound WHERE key = ?1)"
)
_INSERT = (
    "INSERT INTO entries (key, scope, text, envelope, dimension, vector, created) "
    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING"
)
_DELETE = "DELETE FROM entries WHERE key IN (SELECT value FROM json_each(?))"


class EntryDatabase(KeyedFile):
    """The opened file; parameters are those of `KeyedFile`.

    Rows that hold something else than texts and a vector of the length they name, such as a
    planted pickle, are passed over.

    Raises
    ------
    ConfigurationError
        If a later release wrote the file.
    """

    name = DATABASE
    by_keys, after_number, without_keys = _BY_KEY, _PAGE, _DELETE

    def add(self, groups: Sequence[Sequence[Row]]) -> list[tuple[int, int] | None]:
        """Write groups of rows in one transaction; a key that is there keeps its row.

        Returns
        -------
        list
            For each group that was left out, because a scope of it holds vectors of another
            dimension: that dimension and the group's. None for the others.
        """
        now = time.time()
        stored: dict[str, int] = {}
        outcomes = []
        with self._writer.transaction() as connection:
            for rows in groups:
                mismatch = None
                for _, scope, _, _, dimension, _ in rows:
                    if scope not in stored:
                        stored[scope] = _dimension(connection, scope) or dimension
                    if stored[scope] != dimension:
                        mismatch = stored[scope], dimension
                        break
                outcomes.append(mismatch)
                if mismatch is None:
                    connection.executemany(_DELETE_UNSOUND, [(row[0],) for row in rows])
                    connection.executemany(_INSERT, [(*row, now) for row in rows])
        return outcomes

    def dimension(self, scope: str) -> int | None:
        """Return how long the vectors of a scope are; None if there are none."""
        with self._reader.use() as connection:
            return _dimension(connection, scope)

    def vectors(
        self, scope: str, *, after: int, dimension: int
    ) -> Iterator[tuple[list[int], bytes]]:
        """Yield ids above `after`, ascending, with their vectors one behind the other."""
        while True:
            with self._reader.use() as connection:
                rows = connection.execute(
                    _VECTORS, (scope, after, dimension, ROWS_A_STATEMENT)
                ).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            yield [row[0] for row in rows], b"".join(row[1] for row in rows)

    def ids(self, scope: str) -> list[int]:
        """Return the ids of a scope."""
        with self._reader.use() as connection:
            return [identifier for (identifier,) in connection.execute(_IDS, (scope,))]

    def entries(self, scope: str, ids: Sequence[int]) -> dict[int, tuple[str, str, str]]:
        """Return key, text and envelope of those `ids` that are still there."""
        found = {}
        with self._reader.use() as connection:
            for some in json_lists(ids):
                for identifier, *entry in connection.execute(_BY_ID, (some, scope)):
                    found[identifier] = tuple(entry)
        return found

    def page(self, after: int) -> tuple[int, list[tuple[str, str, str]]]:
        """Return key, text and envelope of the next rows, and the last id of them."""
        return self._rows_after(after)

    def count(self) -> int:
        """Return how many rows there are."""
        with self._reader.use() as connection:
            (number,) = connection.execute("SELECT count(*) FROM entries").fetchone()
        return int(number)

    def _make_tables(self, journal_mode: Literal["wal", "truncate"]) -> None:
        # Two processes that turn on the write-ahead log at once do not wait for each other.
        with (
            locked(self._path.parent),
            closing(open_writer(self._path, journal_mode)) as connection,
        ):
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise ConfigurationError(
                    f"a later release of lbgpt_pandas wrote {self._path}; update this one, or give "
                    "another path"
                )
            if version < _VERSION:
                connection.executescript(_TABLES)


def _dimension(connection: sqlite3.Connection, scope: str) -> int | None:
    row = connection.execute(_DIMENSION, (scope,)).fetchone()
    return None if row is None else int(row[0])
