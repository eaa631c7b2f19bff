"""The database file of a directory: opened at the first use, moved aside when it is damaged."""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from lbgpt_pandas.engine.caches.directory import (
    check_private,
    locked,
    make_private,
    network_file_system,
)
from lbgpt_pandas.engine.caches.sqlite_file import identity, is_busy, is_corrupt, side_files
from lbgpt_pandas.engine.lifetime import no_fork

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Literal


class Opened(Protocol):
    """An opened database file."""

    read_only: bool
    file: tuple[int, int] | None

    def is_current(self) -> bool:
        """Return whether the file still has its name."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


D = TypeVar("D", bound=Opened)
D_co = TypeVar("D_co", bound=Opened, covariant=True)
T = TypeVar("T")


class OpenFile(Protocol[D_co]):
    """What opens the file of a directory."""

    def __call__(
        self, directory: Path, *, read_only: bool, journal_mode: Literal["wal", "truncate"] = "wal"
    ) -> D_co:
        """Open it, and make it first unless it is only read."""
        ...


class DatabaseHolder(Generic[D]):
    """Opens a directory's database when it is used, and begins a new one for a damaged one.

    Parameters
    ----------
    directory : path
        Made for this user alone if it does not exist.
    name : str
        The file's name.
    open_file : callable
        What opens it, such as `Database`.
    read_only : bool
        Make no directory, and move no damaged file aside.
    elsewhere : str
        The settings by which a user names another directory.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str,
        open_file: OpenFile[D],
        read_only: bool,
        elsewhere: str,
    ) -> None:
        self.directory = directory
        self.read_only = read_only
        self._path = directory / name
        self._open_file = open_file
        self._elsewhere = elsewhere
        self._database: D | None = None
        self._notices: deque[str] = deque()
        self._told_of_network = False
        # Held inside `no_fork` only, so that a forked child never finds it taken.
        self._lock = threading.Lock()

    def take_notices(self) -> list[str]:
        """Return what has to be told, each text once."""
        notices = []
        with suppress(IndexError):
            while True:
                notices.append(self._notices.popleft())
        return notices

    def close(self) -> None:
        """Close the file; any use opens it again."""
        with no_fork, self._lock:
            database, self._database = self._database, None
            if database is not None:
                database.close()

    def do(self, work: Callable[[D], T], *, writes: bool = False, repair: bool = True) -> T:
        """Do blocking work with the opened file; once more if it turns out to be damaged.

        Without `repair` a damaged file raises and stays, and nothing is made: with `writes` the
        file must be there, else a missing one is a FileNotFoundError.
        """
        with no_fork:
            database = self._opened(writes=writes, repair=repair)
            try:
                return work(database)
            except sqlite3.DatabaseError as error:
                if self.read_only or not repair or not is_corrupt(error):
                    raise
                self._give_up(database, error)
            return work(self._opened(writes=writes, repair=repair))

    def _opened(self, *, writes: bool, repair: bool) -> D:
        with self._lock:
            database = self._database
            if database is not None:
                if database.is_current() and not (writes and database.read_only):
                    return database
                self._database = None
                database.close()
            self._database = self._open(writes=writes, repair=repair)
            return self._database

    def _open(self, *, writes: bool, repair: bool) -> D:
        if self.read_only or not (writes or repair):
            check_private(self.directory)
            return self._open_file(self.directory, read_only=True)
        file = identity(self._path)
        try:
            make_private(self.directory)
            return self._open_for_writing()
        except (OSError, sqlite3.DatabaseError) as error:
            if is_corrupt(error) and repair:
                self._move_aside(error, file)
                return self._open_for_writing()
            if writes or is_busy(error) or not self._path.exists():
                raise
            # A full disk or one that is mounted for reading: what is there can still be used.
            return self._open_file(self.directory, read_only=True)

    def _open_for_writing(self) -> D:
        network = network_file_system(self.directory)
        if network and not self._told_of_network:
            self._told_of_network = True
            self._notices.append(
                f"the cache directory {self.directory} is on a network file system ({network}), "
                "where it is slow and not safe to be written by several machines at a time; "
                f"{self._elsewhere} can name a directory of this machine"
            )
        # The write-ahead log is shared by means of memory, which no other machine sees.
        return self._open_file(
            self.directory, read_only=False, journal_mode="truncate" if network else "wal"
        )

    def _give_up(self, database: D, error: Exception) -> None:
        with self._lock:
            # Another thread may have been faster.
            if self._database is database:
                self._database = None
                database.close()
                self._move_aside(error, database.file)

    def _move_aside(self, error: Exception, file: tuple[int, int] | None) -> None:
        aside = f"{self._path.name}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        with locked(self.directory):
            if identity(self._path) != file:
                # Another process has been faster, and what is there now is its new database.
                return
            # With its log, which may hold answers, under the name where SQLite looks for it.
            for path in (*side_files(self._path), self._path):
                if path.exists():
                    path.rename(path.with_name(path.name.replace(self._path.name, aside)))
        self._notices.append(
            f"the cache's database in {self.directory} is damaged ({error}); it was renamed to "
            f"{aside} and a new one begun, so that answers are asked anew"
        )
