"""The database file of a cache directory: diskcache's tables, read and written in bulk.

diskcache makes the file, so that it can be opened with ``diskcache.Cache(directory,
disk=SafeDisk)``. Rows are read and written here with SQL of our own, because diskcache takes one
row a statement, waits for ever where a file cannot be written, and hides SQLite's errors.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.caches.adapters import UNREADABLE
from lbgpt_pandas.engine.caches.keyed_file import KeyedFile
from lbgpt_pandas.engine.caches.sqlite_file import TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

Entry = tuple[str, str, bool]
"""Key, text, and whether the text replaces one that is there."""

DATABASE = "cache.db"
FOREVER = 2**62
"""Bytes: diskcache's default of 1 GiB would silently drop what was paid for."""

_IS_TEXT = "Cache.mode = 1 AND Cache.filename IS NULL AND typeof(Cache.value) = 'text'"
_SELECT = (
    f"SELECT Cache.key, iif({_IS_TEXT}, Cache.value, '{UNREADABLE}') "  # noqa: S608  # constants
    "FROM json_each(?) AS wanted CROSS JOIN Cache ON Cache.key = wanted.value AND Cache.raw = 1"
)
_INSERT = (
    "INSERT INTO Cache (key, raw, store_time, access_time, mode, value) "  # noqa: S608  # constants
    "VALUES (?1, 1, ?4, ?4, 1, ?2) "
    "ON CONFLICT (key, raw) DO UPDATE SET store_time = ?4, access_time = ?4, expire_time = NULL, "
    "tag = NULL, size = 0, mode = 1, filename = NULL, value = ?2 "
    # What cannot be read must not keep its place for ever.
    f"WHERE ?3 OR NOT ({_IS_TEXT})"
)
_DELETE = "DELETE FROM Cache WHERE key = ? AND raw = 1"
_DELETE_MANY = "DELETE FROM Cache WHERE raw = 1 AND key IN (SELECT value FROM json_each(?))"
_PAGE = (
    f"SELECT rowid, key, iif({_IS_TEXT}, value, '{UNREADABLE}') FROM Cache "  # noqa: S608  # constants
    # No answer has a key that is no text, and nothing ever looks for such a row.
    "WHERE rowid > ? AND raw = 1 AND typeof(key) = 'text' ORDER BY rowid LIMIT ?"
)


class Database(KeyedFile):
    """The opened file; parameters and what is raised are those of `KeyedFile`."""

    name = DATABASE
    by_keys, after_number, without_keys = _SELECT, _PAGE, _DELETE_MANY

    def store(self, entries: Sequence[Entry]) -> None:
        """Write all `entries` or none; durable against the end of the process."""
        now = time.time()
        with self._writer.transaction() as connection:
            connection.executemany(_INSERT, [(*entry, now) for entry in entries])

    def delete(self, key: str) -> None:
        """Remove a row."""
        with self._writer.use() as connection:
            connection.execute(_DELETE, (key,))

    def page(self, after: int) -> tuple[int, dict[str, str]]:
        """Return the texts of the next rows, and the last of their numbers.

        What is there and is no text is `UNREADABLE`, here and in `get_many`.
        """
        last, rows = self._rows_after(after)
        return last, dict(rows)

    def _make_tables(self, journal_mode: Literal["wal", "truncate"]) -> None:
        import diskcache  # noqa: PLC0415  # at first use: it takes as long as the rest of the engine

        from lbgpt_pandas.engine.caches.safedisk import SafeDisk  # noqa: PLC0415  # diskcache

        # In two steps, so that what a failing __init__ has opened can be closed.
        store = diskcache.Cache.__new__(diskcache.Cache)
        try:
            store.__init__(
                str(self._path.parent),
                timeout=TIMEOUT_S,
                disk=SafeDisk,
                eviction_policy="none",
                cull_limit=0,
                size_limit=FOREVER,
                sqlite_journal_mode=journal_mode,
                sqlite_synchronous=1,
                # With it a row takes twice as long to write.
                sqlite_auto_vacuum=0,
                # Reading a mapped file that another program cuts short kills the process.
                sqlite_mmap_size=0,
            )
        finally:
            store.close()
