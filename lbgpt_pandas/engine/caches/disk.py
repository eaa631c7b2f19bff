"""The default cache: a diskcache directory that holds texts only and forgets nothing."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from lbgpt_pandas.engine.caches.database import DATABASE, Database, Entry
from lbgpt_pandas.engine.caches.group_writer import GroupWriter
from lbgpt_pandas.engine.caches.holder import DatabaseHolder
from lbgpt_pandas.engine.caches.sqlite_file import check_text, is_corrupt, side_files
from lbgpt_pandas.engine.caches.ttl import ttl_seconds
from lbgpt_pandas.engine.errors import CacheCorrupt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from datetime import timedelta

    from lbgpt_pandas.engine.caches.group_writer import Settled

T = TypeVar("T")


class OnDisk(NamedTuple):
    """The files of a cache.

    Attributes
    ----------
    bytes : int
        Size of the database with its log; it does not shrink when texts are removed, their
        place is used again.
    moved_aside : tuple of str
        Names of damaged databases that lie beside it.
    """

    bytes: int
    moved_aside: tuple[str, ...]


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
    ttl : float or timedelta, optional
        Age in seconds from which an answer is asked anew; by default none is.

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

    is_shared = True
    """Other processes may write to it meanwhile."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        read_only: bool = False,
        ttl: float | timedelta | None = None,
    ) -> None:
        # diskcache expands variables as well, and must not end up elsewhere.
        self.directory = Path(os.path.expandvars(directory)).expanduser().absolute()
        self.read_only = read_only
        self.location = str(self.directory)
        self.ttl_s = ttl_seconds(ttl)
        self._holder = DatabaseHolder(
            self.directory,
            name=DATABASE,
            open_file=Database,
            read_only=read_only,
            elsewhere="LBGPT_CACHE_DIR or cache=",
        )
        self._writer = GroupWriter(self._commit, name="lbgpt-cache")
        self._contested: set[str] = set()

    def __repr__(self) -> str:
        return f"DiskCache({str(self.directory)!r})"

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that are stored, read in one pass.

        What is there and is no text, such as a planted pickle, is returned as ``""``.
        """
        work = partial(Database.get_many, keys=list(keys))
        return await asyncio.to_thread(self._do, work)

    async def peek_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Read as `get_many` does, and change nothing; without a directory nothing is stored.

        Raises
        ------
        CacheCorrupt
            If the database is damaged. It stays as it is.
        """
        work = partial(Database.get_many, keys=list(keys))
        try:
            return await asyncio.to_thread(self._do, work, repair=False)
        except FileNotFoundError:
            if self.read_only:
                raise
            return {}
        except sqlite3.DatabaseError as error:
            if not is_corrupt(error):
                raise
            raise CacheCorrupt(
                f"the cache's database is damaged ({error}) and left as it is, in "
                f'{self.directory}; cache_mode="use" renames it and begins a new one'
            ) from error

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
            check_text(text)
        self._check_writable()
        await self._writer.put((key, value, replace))

    def set_soon(
        self, key: str, value: str, *, replace: bool, settled: Settled[tuple[str, str, bool]]
    ) -> bool:
        """Store a text within a moment, as `set` does, and go on.

        Parameters
        ----------
        key, value, replace
            As for `set`.
        settled : callable
            Told in another thread with lists of ``(key, value, replace)`` that are durable, or
            why they could not be written.

        Returns
        -------
        bool
            Whether it was taken. It was not if too many wait, or `set` would refuse it.
        """
        try:
            if not (key.isascii() and value.isascii()):
                check_text(key)
                check_text(value)
        except ValueError:
            return False
        return not self.read_only and self._writer.put_soon((key, value, replace), settled)

    def contested(self, keys: Iterable[str]) -> list[str]:
        """Return those `keys` under which somebody may have stored a text before us."""
        others = self._contested
        return [key for key in keys if key in others] if others else []

    async def finish(self) -> None:
        """Wait until everything that was taken is written or has failed."""
        await asyncio.to_thread(self._writer.flush)

    async def delete(self, key: str) -> None:
        """Remove a text, if there is one; nothing happens where the cache is read only."""
        if not self.read_only:
            work = partial(Database.delete, key=key)
            await asyncio.to_thread(self._do, work, writes=True)

    async def scan(self) -> AsyncIterator[dict[str, str]]:
        """Yield all texts by key, some thousand at a time, as `get_many` returns them."""
        last = 0
        while True:
            last, page = await asyncio.to_thread(self._do, partial(Database.page, after=last))
            if not page:
                return
            yield page

    async def delete_many(self, keys: Sequence[str]) -> int:
        """Remove texts, all or none; return how many there were.

        Raises
        ------
        PermissionError
            If the cache is opened for reading only.
        OSError, sqlite3.Error
            If it cannot be written.
        """
        for key in keys:
            check_text(key)
        self._check_writable()
        work = partial(Database.delete_many, keys=list(keys))
        return await asyncio.to_thread(self._do, work, writes=True)

    async def on_disk(self) -> OnDisk:
        """Measure the files, also those of databases that were damaged."""
        return await asyncio.to_thread(self._on_disk)

    async def close(self) -> None:
        """Finish the writes that were begun and close the files; any use opens them again."""
        await asyncio.to_thread(self._close)

    def take_notices(self) -> list[str]:
        """Return what has to be told, each text once."""
        return self._holder.take_notices()

    def _on_disk(self) -> OnDisk:
        database = self.directory / DATABASE
        size = 0
        for path in (database, *side_files(database)):
            with suppress(FileNotFoundError):
                size += path.stat().st_size
        aside = {path.name for path in self.directory.glob(f"{DATABASE}.corrupt-*")}
        logs = {side.name for name in aside for side in side_files(self.directory / name)}
        return OnDisk(size, tuple(sorted(aside - logs)))

    def _check_writable(self) -> None:
        if self.read_only:
            raise PermissionError(f"the cache in {self.directory} is opened for reading only")

    def _commit(self, entries: list[Entry]) -> None:
        contested = self._do(partial(Database.store, entries=entries), writes=True)
        self._contested.update(contested)

    def _close(self) -> None:
        self._writer.flush()
        self._holder.close()

    def _do(self, work: Callable[[Database], T], *, writes: bool = False, repair: bool = True) -> T:
        return self._holder.do(work, writes=writes, repair=repair)
