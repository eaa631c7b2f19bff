"""The default cache: a diskcache directory that holds texts only and forgets nothing."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lbgpt_pandas.engine.caches.database import (
    DATABASE,
    SIDE_FILES,
    Database,
    Entry,
    identity,
    is_busy,
    is_corrupt,
)
from lbgpt_pandas.engine.caches.directory import (
    check_private,
    locked,
    make_private,
    network_file_system,
)
from lbgpt_pandas.engine.caches.group_writer import GroupWriter
from lbgpt_pandas.engine.lifetime import no_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


def default_directory() -> Path:
    """Return where the cache lies by default: ``LBGPT_CACHE_DIR``, else this user's caches."""
    given = os.environ.get("LBGPT_CACHE_DIR")
    if given:
        return Path(given).expanduser()
    import platformdirs  # noqa: PLC0415  # only where no directory was named

    return Path(platformdirs.user_cache_dir("lbgpt_pandas"))


class DiskCache:
    """Texts in a directory, for any number of processes on this machine.

    The directory is opened at the first use, in each process anew. Writes that come at the same
    time are committed together; each `set` returns when its own text is on disk and survives
    the end of the process. What one process stored first, all read. Nothing is evicted.

    A damaged database is moved aside and a new one begun, with a notice. Where nothing can be
    written the cache is read all the same.

    Parameters
    ----------
    directory : path
        Made for this user alone if it does not exist. ``~`` and ``$VARIABLES`` are expanded.
    read_only : bool, default False
        Change nothing: make no directory, move no damaged file aside, refuse to store.

    Raises
    ------
    ConfigurationError
        At the first use, if the directory is a file or a link, belongs to another user, or may
        be written by others.

    Examples
    --------
    >>> import asyncio, tempfile
    >>> async def main(directory):
    ...     cache = DiskCache(directory)
    ...     await cache.set("question", "answer")
    ...     found = await cache.get_many(["question", "another"])
    ...     await cache.close()
    ...     return found
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     asyncio.run(main(directory))
    {'question': 'answer'}
    """

    def __init__(self, directory: str | os.PathLike[str], *, read_only: bool = False) -> None:
        # diskcache expands variables as well, and must not end up elsewhere.
        self.directory = Path(os.path.expandvars(directory)).expanduser().absolute()
        self.read_only = read_only
        self._database: Database | None = None
        self._notices: deque[str] = deque()
        self._told_of_network = False
        self._writer = GroupWriter(self._commit, name="lbgpt-cache")
        # Held inside `no_fork` only, so that a forked child never finds it taken.
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"DiskCache({str(self.directory)!r})"

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that are stored, read in one pass.

        What is there and is no text, such as a planted pickle, is returned as ``""``.
        """
        work = partial(Database.get_many, keys=list(keys))
        return await asyncio.to_thread(self._do, work)

    async def set(self, key: str, value: str, *, replace: bool = False) -> None:
        """Store a text; committed when this returns, also if it was cancelled meanwhile.

        Parameters
        ----------
        key, value : str
            Texts without lone surrogates.
        replace : bool, default False
            Whether a text that is there already gives way.

        Raises
        ------
        PermissionError
            If the cache is opened for reading only.
        OSError, sqlite3.Error
            If it cannot be written.
        """
        for text in (key, value):
            _check_text(text)
        if self.read_only:
            raise PermissionError(f"the cache in {self.directory} is opened for reading only")
        await self._writer.put((key, value, replace))

    async def delete(self, key: str) -> None:
        """Remove a text, if there is one; nothing happens where the cache is read only."""
        if not self.read_only:
            work = partial(Database.delete, key=key)
            await asyncio.to_thread(self._do, work, writes=True)

    async def close(self) -> None:
        """Finish the writes that were begun and close the files; any use opens them again."""
        await asyncio.to_thread(self._close)

    def take_notices(self) -> list[str]:
        """Return what has to be told, each text once."""
        notices = []
        with suppress(IndexError):
            while True:
                notices.append(self._notices.popleft())
        return notices

    def _commit(self, entries: list[Entry]) -> None:
        self._do(partial(Database.store, entries=entries), writes=True)

    def _close(self) -> None:
        self._writer.flush()
        with no_fork, self._lock:
            database, self._database = self._database, None
            if database is not None:
                database.close()

    def _do(self, work: Callable[[Database], T], *, writes: bool = False) -> T:
        with no_fork:
            database = self._opened(writes=writes)
            try:
                return work(database)
            except sqlite3.DatabaseError as error:
                if self.read_only or not is_corrupt(error):
                    raise
                self._give_up(database, error)
            return work(self._opened(writes=writes))

    def _opened(self, *, writes: bool) -> Database:
        with self._lock:
            database = self._database
            if database is not None:
                if database.is_current() and not (writes and database.read_only):
                    return database
                self._database = None
                database.close()
            self._database = self._open(writes=writes)
            return self._database

    def _open(self, *, writes: bool) -> Database:
        if self.read_only:
            check_private(self.directory)
            return Database(self.directory, read_only=True)
        file = identity(self.directory)
        try:
            make_private(self.directory)
            return self._open_for_writing()
        except (OSError, sqlite3.DatabaseError) as error:
            if is_corrupt(error):
                self._move_aside(error, file)
                return self._open_for_writing()
            if writes or is_busy(error) or not (self.directory / DATABASE).exists():
                raise
            # A full disk or one that is mounted for reading: what is there can still be used.
            return Database(self.directory, read_only=True)

    def _open_for_writing(self) -> Database:
        network = network_file_system(self.directory)
        if network and not self._told_of_network:
            self._told_of_network = True
            self._notices.append(
                f"the cache directory {self.directory} is on a network file system ({network}), "
                "where it is slow and not safe to be written by several machines at a time; "
                "LBGPT_CACHE_DIR or cache= can name a directory of this machine"
            )
        # The write-ahead log is shared by means of memory, which no other machine sees.
        return Database(
            self.directory, read_only=False, journal_mode="truncate" if network else "wal"
        )

    def _give_up(self, database: Database, error: Exception) -> None:
        with self._lock:
            # Another thread may have been faster.
            if self._database is database:
                self._database = None
                database.close()
                self._move_aside(error, database.file)

    def _move_aside(self, error: Exception, file: tuple[int, int] | None) -> None:
        aside = f"{DATABASE}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        with locked(self.directory):
            if identity(self.directory) != file:
                # Another process has been faster, and what is there now is its new database.
                return
            # With its log, which may hold answers, under the name where SQLite looks for it.
            for name in (*SIDE_FILES, DATABASE):
                path = self.directory / name
                if path.exists():
                    path.rename(path.with_name(name.replace(DATABASE, aside)))
        self._notices.append(
            f"the cache's database in {self.directory} is damaged ({error}); it was renamed to "
            f"{aside} and a new one begun, so that answers are asked anew"
        )


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"a cache holds texts under texts, not {type(text).__name__}")
    # Here, because it would fail all texts that are committed with it.
    if not text.isascii():
        text.encode()
