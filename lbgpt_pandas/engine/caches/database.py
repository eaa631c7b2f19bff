"""The database file of a cache directory: diskcache's tables, read and written in bulk.

diskcache makes the file, so that it can be opened with ``diskcache.Cache(directory,
disk=SafeDisk)``. Rows are read and written here with SQL of our own, because diskcache takes one
row a statement, waits for ever where a file cannot be written, and hides SQLite's errors.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import orjson

from lbgpt_pandas.engine.caches.adapters import UNREADABLE
from lbgpt_pandas.engine.caches.sqlite_file import (
    TIMEOUT_S,
    Connection,
    identity,
    make_file,
    open_read_only,
    open_reader,
    open_writer,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Literal

Entry = tuple[str, str, bool]
"""Key, text, and whether the text replaces one that is there."""

DATABASE = "cache.db"
FOREVER = 2**62
"""Bytes: diskcache's default of 1 GiB would silently drop what was paid for."""

_KEYS_A_STATEMENT = 2_000

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


class Database:
    """The opened file; its methods block and belong inside `no_fork`, in any thread.

    Parameters
    ----------
    directory : path
        An existing directory.
    read_only : bool
        Whether nothing is written, not even the tables.
    journal_mode : {"wal", "truncate"}
        How SQLite keeps commits whole; "wal" needs a disk of this machine.

    Raises
    ------
    sqlite3.Error, OSError
        If it cannot be opened; see `is_corrupt` and `is_busy`.
    """

    def __init__(
        self, directory: Path, *, read_only: bool, journal_mode: Literal["wal", "truncate"] = "wal"
    ) -> None:
        self.read_only = read_only
        self._path = directory / DATABASE
        if not read_only:
            make_file(self._path)
            _make_tables(directory, journal_mode)
        elif not self._path.exists() or not self._path.stat().st_size:
            # An empty file is what a full disk leaves behind.
            raise FileNotFoundError(f"there is no cache in {directory}")
        self.file = identity(self._path)
        open_one = open_read_only if read_only else open_reader
        self._reader = Connection(partial(open_one, self._path))
        self._writer = Connection(partial(open_writer, self._path, journal_mode))

    def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts under `keys`; `UNREADABLE` for what is there and is no text."""
        # In order, neighbouring pages of the index are read once.
        wanted = sorted(keys)
        found: dict[str, str] = {}
        with self._reader.use() as connection:
            for start in range(0, len(wanted), _KEYS_A_STATEMENT):
                some = orjson.dumps(wanted[start : start + _KEYS_A_STATEMENT]).decode()
                found.update(connection.execute(_SELECT, (some,)))
        return found

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
        """Return the texts of the next rows, as `get_many` does, and the last of their numbers."""
        with self._reader.use() as connection:
            rows = connection.execute(_PAGE, (after, _KEYS_A_STATEMENT)).fetchall()
        return (rows[-1][0] if rows else after), {key: text for _, key, text in rows}

    def delete_many(self, keys: Sequence[str]) -> int:
        """Remove rows, all or none; return how many there were."""
        removed = 0
        with self._writer.transaction() as connection:
            for start in range(0, len(keys), _KEYS_A_STATEMENT):
                some = orjson.dumps(keys[start : start + _KEYS_A_STATEMENT]).decode()
                removed += connection.execute(_DELETE_MANY, (some,)).rowcount
        return removed

    def is_current(self) -> bool:
        """Return whether the file still has its name: nobody removed it or moved it aside."""
        return identity(self._path) == self.file

    def close(self) -> None:
        """Close the connections; the last one of all processes folds the write-ahead log in."""
        self._reader.close()
        self._writer.close()


def _make_tables(directory: Path, journal_mode: str) -> None:
    import diskcache  # noqa: PLC0415  # at first use: it takes as long as the rest of the engine

    from lbgpt_pandas.engine.caches.safedisk import SafeDisk  # noqa: PLC0415  # diskcache

    # In two steps, so that what a failing __init__ has opened can be closed.
    store = diskcache.Cache.__new__(diskcache.Cache)
    try:
        store.__init__(
            str(directory),
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
