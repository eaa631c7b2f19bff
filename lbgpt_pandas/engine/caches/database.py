"""The database file of a cache directory: diskcache's tables, read and written in bulk.

diskcache makes the file, so that it can be opened with ``diskcache.Cache(directory,
disk=SafeDisk)``. Rows are read and written here with SQL of our own, because diskcache takes one
row a statement, waits for ever where a file cannot be written, and hides SQLite's errors.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import orjson

from lbgpt_pandas.engine.caches.adapters import UNREADABLE
from lbgpt_pandas.engine.caches.directory import PRIVATE_FILE
from lbgpt_pandas.engine.lifetime import close_at_fork_and_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Literal

Entry = tuple[str, str, bool]
"""Key, text, and whether the text replaces one that is there."""

DATABASE = "cache.db"
SIDE_FILES = (f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal")
TIMEOUT_S = 60.0
"""Seconds to wait for another process that is writing."""

FOREVER = 2**62
"""Bytes: diskcache's default of 1 GiB would silently drop what was paid for."""

_KEYS_A_STATEMENT = 2_000
_CHECKPOINT_PAGES = 4_000

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
            _make_file(self._path)
            _make_tables(directory, journal_mode)
        elif not self._path.exists():
            raise FileNotFoundError(f"there is no cache in {directory}")
        self.file = identity(directory)
        open_reader = _open_read_only if read_only else _open_reader
        self._reader = _Connection(partial(open_reader, self._path))
        self._writer = _Connection(partial(_open_writer, self._path, journal_mode))

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
        with self._writer.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(_INSERT, [(*entry, now) for entry in entries])
                connection.execute("COMMIT")
            except BaseException:
                # After an error of the disk SQLite has rolled back already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def delete(self, key: str) -> None:
        """Remove a row."""
        with self._writer.use() as connection:
            connection.execute(_DELETE, (key,))

    def is_current(self) -> bool:
        """Return whether the file still has its name: nobody removed it or moved it aside."""
        return identity(self._path.parent) == self.file

    def close(self) -> None:
        """Close the connections; the last one of all processes folds the write-ahead log in."""
        self._reader.close()
        self._writer.close()


def identity(directory: Path) -> tuple[int, int] | None:
    """Return what tells the file of a directory from another one of its name; None if none."""
    try:
        status = (directory / DATABASE).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_corrupt(error: Exception) -> bool:
    """Return whether the file is no database, or a malformed one."""
    return _code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_busy(error: Exception) -> bool:
    """Return whether another process kept the file locked for too long."""
    return _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _code(error: Exception) -> int:
    # The upper bits tell variants of a code apart.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


class _Connection:
    """A connection that opens when it is used, and is used by one thread at a time."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        close_at_fork_and_exit(self)

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            yield self._connection

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __del__(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _make_file(path: Path) -> None:
    """Make the file before SQLite does: its side files get the same mode."""
    # An existing file must not be opened: closing it again would drop the locks that SQLite
    # holds on it elsewhere in this process.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE_FILE))
    for name in (DATABASE, *SIDE_FILES):
        with suppress(FileNotFoundError):
            path.with_name(name).chmod(PRIVATE_FILE)


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


def _open_reader(path: Path) -> sqlite3.Connection:
    # Not "ro": such a connection leaves the side files behind when it is the last one.
    connection = _connect(path, "mode=rw")
    connection.execute("PRAGMA query_only = ON")
    return connection


def _open_read_only(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path, "mode=ro")
    except sqlite3.OperationalError as error:
        wal = path.with_name(SIDE_FILES[0])
        is_medium = _code(error) in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
        if not is_medium or (wal.exists() and wal.stat().st_size):
            raise
        # Where nothing can be written SQLite has no place for its side files, and needs none.
        return _connect(path, "mode=ro&immutable=1")


def _open_writer(path: Path, journal_mode: str) -> sqlite3.Connection:
    connection = _connect(path, "mode=rw")
    connection.execute(f"PRAGMA journal_mode = {journal_mode}")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?{mode}",
        uri=True,
        timeout=TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    # Bytes that are not UTF-8 fail their checksum; they must not fail the rows beside them.
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    try:
        # Opens the file, which connecting alone does not.
        connection.execute("PRAGMA schema_version").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection
