"""One SQLite file: connections that threads share and forks survive, and what errors mean."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.caches.directory import PRIVATE_FILE
from lbgpt_pandas.engine.lifetime import close_at_fork_and_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TIMEOUT_S = 60.0
"""Seconds to wait for another process that is writing."""

SIDES = ("-wal", "-shm", "-journal")
"""What SQLite appends to a file's name for its own files beside it; the log comes first."""

_CHECKPOINT_PAGES = 4_000


class Connection:
    """A connection that opens when it is used, and is used by one thread at a time."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        close_at_fork_and_exit(self)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for statements that are all committed, or none."""
        with self.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # After an error of the disk SQLite has rolled back already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to this thread alone."""
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            yield self._connection

    def close(self) -> None:
        """Close it until it is used again."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __del__(self) -> None:
        if self._connection is not None:
            self._connection.close()


def make_file(path: Path) -> None:
    """Make the file, private, before SQLite does: its side files get the same mode."""
    # An existing file must not be opened: closing it again would drop the locks that SQLite
    # holds on it elsewhere in this process.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE_FILE))
    for file in (path, *side_files(path)):
        with suppress(FileNotFoundError):
            file.chmod(PRIVATE_FILE)


def side_files(path: Path) -> list[Path]:
    """Return where SQLite puts its own files beside a database."""
    return [path.with_name(path.name + side) for side in SIDES]


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one of its name; None if there is none."""
    try:
        status = path.stat()
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


def check_text(text: object) -> None:
    """Refuse what SQLite would not take as text.

    Raises
    ------
    TypeError
        If it is no str.
    UnicodeEncodeError
        If it holds a lone surrogate.
    """
    if not isinstance(text, str):
        raise TypeError(f"a cache holds texts under texts, not {type(text).__name__}")
    # Here, because it would fail all texts that are committed with it.
    if not text.isascii():
        text.encode()


def open_reader(path: Path) -> sqlite3.Connection:
    """Connect for reading; the caller makes sure that the file is there."""
    # Not "ro": such a connection leaves the side files behind when it is the last one.
    connection = _connect(path, "mode=rw")
    connection.execute("PRAGMA query_only = ON")
    return connection


def open_read_only(path: Path) -> sqlite3.Connection:
    """Connect where nothing may be changed, or can be."""
    if not any(file.exists() for file in side_files(path)):
        # Only what may write removes the side files again that SQLite makes to read.
        with suppress(sqlite3.OperationalError):
            return open_reader(path)
    try:
        return _connect(path, "mode=ro")
    except sqlite3.OperationalError as error:
        wal = side_files(path)[0]
        is_medium = _code(error) in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
        if not is_medium or (wal.exists() and wal.stat().st_size):
            raise
        # Where nothing can be written SQLite has no place for its side files, and needs none.
        return _connect(path, "mode=ro&immutable=1")


def open_writer(path: Path, journal_mode: str) -> sqlite3.Connection:
    """Connect for writing, durably against the end of the process."""
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
