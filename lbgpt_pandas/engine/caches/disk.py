"""The default cache: a diskcache directory that holds texts only and forgets nothing."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import contextlib
import os
import sqlite3
import stat
import threading
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from lbgpt_pandas.engine.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DATABASE = "cache.db"
TIMEOUT_S = 60.0
FOREVER = 2**62
"""Bytes: diskcache's default of 1 GiB would silently drop what was paid for."""

_SELECT = (
    "SELECT key, value, filename, mode FROM Cache "
    "WHERE raw = 1 AND key IN (SELECT value FROM json_each(?))"
)
_MODE_RAW = 1
_PRIVATE, _PRIVATE_FILE = 0o700, 0o600


def default_directory() -> Path:
    """Return where the cache lies by default: ``LBGPT_CACHE_DIR``, else this user's caches."""
    given = os.environ.get("LBGPT_CACHE_DIR")
    if given:
        return Path(given).expanduser()
    import platformdirs  # noqa: PLC0415  # only where no directory was named

    return Path(platformdirs.user_cache_dir("lbgpt_pandas"))


@cache
def safe_disk() -> type[Any]:
    """Return `SafeDisk`; a function, because the class needs diskcache, loaded at first use."""
    import diskcache  # noqa: PLC0415  # see above

    class SafeDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
        """Keys and values are texts; nothing is ever pickled or unpickled.

        diskcache pickles what it does not know, on the way in, and unpickles whatever its
        database says is a pickle, on the way out, where a planted row runs its code.
        """

        refuses_pickle = True

        def put(self, key: object) -> Any:
            _check_text("key", key)
            return super().put(key)

        def get(self, key: object, raw: bool) -> Any:  # noqa: FBT001  # diskcache's signature
            if not raw:
                raise ValueError("a cache key is a pickle, which is not read")
            return super().get(key, raw)

        def store(self, value: object, read: bool, key: object = None) -> Any:  # noqa: FBT001
            _check_text("value", value)
            return super().store(value, read, key=key)

        def fetch(self, mode: int, filename: str, value: object, read: bool) -> Any:  # noqa: FBT001
            if mode != _MODE_RAW:
                raise ValueError("a cache value is not plain text, which is not read")
            return super().fetch(mode, filename, value, read)

    return SafeDisk


def _check_text(what: str, given: object) -> None:
    if type(given) is not str and type(given) is not bytes:
        raise TypeError(f"a cache {what} is a str, not {type(given).__name__}")


class DiskCache:
    """Texts in a directory, for any number of processes on this machine.

    Writes that come at the same time are committed together; each `set` returns when its own
    is on disk. What one process stored first, all read.

    Parameters
    ----------
    directory : path
        Made for this user alone if it does not exist.
    read_only : bool, default False
        Write nothing, not even the directory.

    Raises
    ------
    ConfigurationError
        At the first use, if the directory is a file or a link, or others may write to it.
    """

    def __init__(self, directory: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self.directory = Path(directory).expanduser().absolute()
        self.read_only = read_only
        self._lock = threading.Lock()
        self._notices: list[str] = []
        self._store: _Store | None = None

    def __repr__(self) -> str:
        return f"DiskCache({str(self.directory)!r})"

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that are stored, read in one pass."""
        return await asyncio.to_thread(self._with_store, lambda store: store.get_many(keys))

    async def set(self, key: str, value: str, *, replace: bool = False) -> None:
        """Store a text; committed when this returns."""
        if self.read_only:
            raise PermissionError(f"{self.directory} is opened for reading only")
        store = self._open() if self._store is None else self._store
        if store.pid != os.getpid():
            store = self._open()
        await asyncio.wrap_future(store.write(key, value, replace=replace))

    async def delete(self, key: str) -> None:
        """Remove a text."""
        if not self.read_only:
            await asyncio.to_thread(self._with_store, lambda store: store.delete(key))

    async def close(self) -> None:
        """Finish the writes that were begun and close the database."""
        with self._lock:
            store, self._store = self._store, None
        if store is not None and store.pid == os.getpid():
            await asyncio.to_thread(store.close)

    def take_notices(self) -> list[str]:
        """Return what has to be told, each text once."""
        with self._lock:
            notices, self._notices = self._notices, []
        return notices

    def _with_store(self, work: Callable[[_Store], Any]) -> Any:
        try:
            return work(self._open())
        except sqlite3.DatabaseError as error:
            if self.read_only or not _is_corrupt(error):
                raise
            self._quarantine(error)
            return work(self._open())

    def _open(self) -> _Store:
        with self._lock:
            if self._store is None or self._store.pid != os.getpid():
                self._store = self._open_store()
            return self._store

    def _open_store(self) -> _Store:
        if not self.read_only:
            _make_private(self.directory)
        _check_private(self.directory)
        try:
            return _Store(self.directory, read_only=self.read_only)
        except sqlite3.DatabaseError as error:
            if self.read_only or not _is_corrupt(error):
                raise
            self._move_aside(error)
            _make_private(self.directory)
            return _Store(self.directory, read_only=False)

    def _quarantine(self, error: Exception) -> None:
        with self._lock:
            store, self._store = self._store, None
            if store is not None:
                store.close()
            self._move_aside(error)

    def _move_aside(self, error: Exception) -> None:
        aside = self.directory.with_name(f"{self.directory.name}.corrupt-{int(time.time())}")
        self.directory.rename(aside)
        self._notices.append(
            f"the cache's database is damaged ({error}); it was moved to {aside} and a new one "
            "begun"
        )


class _Store:
    """An opened directory of one process: a writer thread, and a reading connection a thread."""

    def __init__(self, directory: Path, *, read_only: bool) -> None:
        self.pid = os.getpid()
        self._path = directory / DATABASE
        self._lock = threading.Lock()
        self._group: _Group | None = None
        self._readers: list[sqlite3.Connection] = []
        self._local = threading.local()
        self._cache: Any = None
        if read_only:
            if not self._path.exists():
                raise FileNotFoundError(f"there is no cache in {directory}")
        else:
            self._cache = _open_diskcache(directory)
            for path in directory.glob(f"{DATABASE}*"):
                path.chmod(_PRIVATE_FILE)
        self._writer = cf.ThreadPoolExecutor(1, thread_name_prefix="lbgpt-cache")

    def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        rows = self._reader().execute(_SELECT, (orjson.dumps(list(keys)).decode(),))
        return {
            key: value
            for key, value, filename, mode in rows
            if mode == _MODE_RAW and filename is None and type(value) is str
        }

    def write(self, key: str, value: str, *, replace: bool) -> cf.Future[None]:
        """Have a text written with whatever else is waiting; the future is its commit."""
        done: cf.Future[None] = cf.Future()
        done.set_running_or_notify_cancel()
        with self._lock:
            group = self._group
            if group is None:
                group = self._group = []
                self._writer.submit(self._commit)
            group.append((key, value, replace, done))
        return done

    def delete(self, key: str) -> None:
        self._writer.submit(self._cache.delete, key, retry=True).result()

    def close(self) -> None:
        self._writer.submit(self._close_writer).result()
        self._writer.shutdown()
        with self._lock:
            readers, self._readers = self._readers, []
        for reader in readers:
            reader.close()

    def _close_writer(self) -> None:
        if self._cache is not None:
            self._cache.close()

    def _commit(self) -> None:
        with self._lock:
            group, self._group = self._group or [], None
        try:
            with self._cache.transact(retry=True):
                for key, value, replace, _ in group:
                    (self._cache.set if replace else self._cache.add)(key, value)
        except BaseException as error:  # noqa: BLE001  # every waiting writer is told
            for *_, done in group:
                done.set_exception(error)
        else:
            for *_, done in group:
                done.set_result(None)

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                f"{self._path.as_uri()}?mode=ro",
                uri=True,
                timeout=TIMEOUT_S,
                check_same_thread=False,
            )
            self._local.connection = connection
            with self._lock:
                self._readers.append(connection)
        return connection


_Group = list[tuple[str, str, bool, "cf.Future[None]"]]


def _open_diskcache(directory: Path) -> Any:
    import diskcache  # noqa: PLC0415  # loaded at first use

    before = os.umask(0o077)
    try:
        store = diskcache.Cache(
            str(directory),
            timeout=TIMEOUT_S,
            disk=safe_disk(),
            eviction_policy="none",
            cull_limit=0,
            size_limit=FOREVER,
            disk_min_file_size=FOREVER,
            sqlite_journal_mode="wal",
            sqlite_synchronous=1,
        )
        # diskcache keeps the connection of the thread that opened it; the writer has its own.
        store.close()
    finally:
        os.umask(before)
    return store


def _make_private(directory: Path) -> None:
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        return
    directory.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    note = directory / ".gitignore"
    if not note.exists():
        with contextlib.suppress(OSError):
            note.write_text("*\n")


def _check_private(directory: Path) -> None:
    if directory.is_symlink():
        raise ConfigurationError(f"the cache directory {directory} is a link; give its target")
    if directory.exists() and not directory.is_dir():
        raise ConfigurationError(f"the cache directory {directory} is a file; give a directory")
    if not directory.exists():
        return
    status = directory.stat()
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        raise ConfigurationError(
            f"the cache directory {directory} belongs to another user, who could plant answers; "
            "give one of your own"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            f"others may write to the cache directory {directory} and plant answers; "
            f"run: chmod go-w '{directory}'"
        )


def _is_corrupt(error: sqlite3.DatabaseError) -> bool:
    return type(error) is sqlite3.DatabaseError or "malformed" in str(error)
