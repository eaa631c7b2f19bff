"""The database file of a cache directory: diskcache's tables, read and written in bulk.

diskcache makes the file, so that it can be opened with ``diskcache.Cache(directory,
disk=SafeDisk)``. Rows are read and written here with SQL of our own, because diskcache takes one
row a statement, waits for ever where a file cannot be written, and hides SQLite's errors.
"""

from __future__ import annotations

import time
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.caches.adapters import UNREADABLE
from lbgpt_pandas.engine.caches.keyed_file import KeyedFile
from lbgpt_pandas.engine.caches.sqlite_file import TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
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
_INSERT = "INSERT INTO Cache (key, raw, store_time, access_time, mode, value) VALUES "
_ROW = "(?%d, 1, ?1, ?1, 1, ?%d)"
_ON_CONFLICT = (
    " ON CONFLICT (key, raw) DO UPDATE SET store_time = ?1, access_time = ?1, expire_time = NULL, "
    "tag = NULL, size = 0, mode = 1, filename = NULL, value = excluded.value "
    # What cannot be read must not keep its place for ever.
    f"WHERE ?2 OR NOT ({_IS_TEXT})"
)
ROWS_AN_INSERT = 32
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

    def store(self, entries: Sequence[Entry]) -> list[str]:
        """Write all `entries` or none; durable against the end of the process.

        Returns
        -------
        list of str
            Keys of those among which a text that was there has stayed.
        """
        now, contested = time.time(), []
        with self._writer.transaction() as connection:
            for replace, some in _statements(entries):
                texts = [text for entry in some for text in entry[:2]]
                done = connection.execute(_insert(len(some)), (now, replace, *texts))
                if done.rowcount < len(some):
                    contested += [key for key, *_ in some]
        return contested

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


@lru_cache(maxsize=ROWS_AN_INSERT)
def _insert(rows: int) -> str:
    # The two of all rows come first, those of the rows after them.
    numbered = ", ".join(_ROW % (3 + 2 * row, 4 + 2 * row) for row in range(rows))
    return f"{_INSERT}{numbered}{_ON_CONFLICT}"


def _statements(entries: Sequence[Entry]) -> Iterator[tuple[bool, Sequence[Entry]]]:
    """Divide entries into those that one statement writes.

    Of a statement for each, every one would let go of the interpreter and wait for it again.
    """
    for replace, alike in groupby(entries, key=itemgetter(2)):
        rest = list(alike)
        for start in range(0, len(rest), ROWS_AN_INSERT):
            yield replace, rest[start : start + ROWS_AN_INSERT]
