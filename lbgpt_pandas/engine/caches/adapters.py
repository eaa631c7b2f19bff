"""What users bring, behind the port: mappings, and objects with get and set."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from lbgpt_pandas.engine.caches.entries import is_key
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.lifetime import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

T = TypeVar("T")

UNREADABLE = ""
"""Given for an entry that is there and is no text, so that it counts as damaged."""

KEYS_A_SCAN = 2_000
"""Texts that are read together where all are."""

_CALLS_AT_ONCE = 16
"""Calls that an asynchronous store gets at a time."""

_LISTINGS = ("scan_iter", "iterkeys", "keys", "__iter__")
"""Methods that list keys, those first that read them some at a time."""


class MappingCache:
    """A mapping: ``cache[key]`` and ``cache[key] = value``, KeyError for a miss.

    Parameters
    ----------
    mapping : mapping
        A dict is used where it stands. Anything else may block, and is used in a thread, one
        call at a time: mappings, those of cachetools among them, are seldom made for several.
    release : callable, optional
        Called in that thread after each use.
    """

    def __init__(self, mapping: Any, *, release: Callable[[], None] | None = None) -> None:
        self.location = f"a {type(mapping).__name__} object"
        self.ttl_s: float | None = None
        self._mapping = mapping
        self._release = release
        self._blocks = not isinstance(mapping, dict)
        # Item access would put an entry for each miss into a defaultdict.
        self._get = mapping.get if has(mapping, "__missing__") else mapping.__getitem__
        self.after_fork()
        renew_after_fork(self)

    def __repr__(self) -> str:
        return f"MappingCache({type(self._mapping).__name__})"

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may have held."""
        self._lock = threading.Lock()

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that the mapping has."""
        return await self._off_loop(lambda: _texts(self._get, keys))

    async def set(self, key: str, value: str, *, replace: bool = False) -> None:
        """Store a text; a mapping cannot tell who was first, so the last writer wins."""
        del replace
        await self._off_loop(lambda: self._mapping.__setitem__(key, value))

    async def delete(self, key: str) -> None:
        """Remove a text, if the mapping can do that."""

        def remove() -> None:
            try:
                del self._mapping[key]
            except KeyError:
                return

        if has(self._mapping, "__delitem__"):
            await self._off_loop(remove)

    async def scan(self) -> AsyncIterator[dict[str, str]]:
        """Yield the texts under requests' keys; whatever else the mapping holds is left alone."""
        keys = await self._off_loop(lambda: _own_keys(_listing(self._mapping)()))
        for start in range(0, len(keys), KEYS_A_SCAN):
            yield await self.get_many(keys[start : start + KEYS_A_SCAN])

    async def delete_many(self, keys: Sequence[str]) -> int:
        """Remove texts, if the mapping can do that; return how many there were."""
        if not has(self._mapping, "__delitem__"):
            raise _cannot(self._mapping, "remove anything: it has no __delitem__")

        def remove_all() -> int:
            removed = 0
            for key in keys:
                try:
                    del self._mapping[key]
                except KeyError:
                    continue
                removed += 1
            return removed

        return await self._off_loop(remove_all)

    async def close(self) -> None:
        """Do nothing: the mapping is the user's."""

    async def _off_loop(self, work: Callable[[], T]) -> T:
        if not self._blocks:
            return work()

        def alone() -> T:
            with self._lock:
                return work()

        return await _in_thread(alone, self._release)


class MethodCache:
    """An object with ``get`` and ``set``, such as a redis client; used in threads.

    Parameters
    ----------
    store : object
        ``get(key)`` returns None, or raises KeyError, for a miss. ``delete(key)`` is used if it
        exists. Several threads call it at a time.
    release : callable, optional
        Called in those threads after each use.
    """

    def __init__(self, store: Any, *, release: Callable[[], None] | None = None) -> None:
        self.location = f"a {type(store).__name__} object"
        self.ttl_s: float | None = None
        self._store = store
        self._release = release

    def __repr__(self) -> str:
        return f"MethodCache({type(self._store).__name__})"

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that the store has."""
        return await _in_thread(lambda: _texts(self._store.get, keys), self._release)

    async def set(self, key: str, value: str, *, replace: bool = False) -> None:
        """Store a text; the last writer wins."""
        del replace
        await _in_thread(lambda: self._store.set(key, value), self._release)

    async def delete(self, key: str) -> None:
        """Remove a text, if the store has a ``delete``."""
        if has(self._store, "delete"):
            await _in_thread(lambda: self._store.delete(key), self._release)

    async def scan(self) -> AsyncIterator[dict[str, str]]:
        """Yield the texts under requests' keys; whatever else the store holds is left alone."""
        listing = _listing(self._store)
        keys = await _in_thread(lambda: _own_keys(listing()), self._release)
        for start in range(0, len(keys), KEYS_A_SCAN):
            yield await self.get_many(keys[start : start + KEYS_A_SCAN])

    async def delete_many(self, keys: Sequence[str]) -> int:
        """Remove texts, if the store can do that; return how many there were."""
        if not has(self._store, "delete"):
            raise _cannot(self._store, "remove anything: it has no delete")

        def remove_all() -> int:
            present = _texts(self._store.get, keys)
            for key in present:
                self._store.delete(key)
            return len(present)

        return await _in_thread(remove_all, self._release)

    async def close(self) -> None:
        """Do nothing: the store is the user's."""


class AsyncMethodCache:
    """An object with ``aget`` and ``aset``, or an asynchronous ``get`` and ``set``.

    Parameters
    ----------
    store : object
        ``aget(key)`` gives None for a miss. ``adelete(key)`` is used if it exists. All are
        awaited on the event loop that asks, several at a time.
    prefix : str, default "a"
        What the names of its methods begin with.
    """

    def __init__(self, store: Any, *, prefix: str = "a") -> None:
        self.location = f"a {type(store).__name__} object"
        self.ttl_s: float | None = None
        self._store = store
        self._prefix = prefix
        self._get = getattr(store, f"{prefix}get")
        self._set = getattr(store, f"{prefix}set")
        self._delete = getattr(store, f"{prefix}delete", None)

    def __repr__(self) -> str:
        return f"AsyncMethodCache({type(self._store).__name__})"

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that the store has."""
        found: dict[str, str] = {}

        async def read(key: str) -> None:
            try:
                value = await self._get(key)
            except KeyError:
                return
            except ValueError:
                value = UNREADABLE
            if value is not None:
                found[key] = _text(value)

        await _for_each(keys, read)
        return found

    async def set(self, key: str, value: str, *, replace: bool = False) -> None:
        """Store a text; the last writer wins."""
        del replace
        await self._set(key, value)

    async def delete(self, key: str) -> None:
        """Remove a text, if the store can do that."""
        if self._delete is not None:
            await self._delete(key)

    async def scan(self) -> AsyncIterator[dict[str, str]]:
        """Yield the texts under requests' keys; whatever else the store holds is left alone."""
        listed = _listing(self._store, self._prefix)()
        if inspect.isawaitable(listed):
            listed = await listed
        if hasattr(listed, "__aiter__"):
            listed = [key async for key in listed]
        keys = _own_keys(listed)
        for start in range(0, len(keys), KEYS_A_SCAN):
            yield await self.get_many(keys[start : start + KEYS_A_SCAN])

    async def delete_many(self, keys: Sequence[str]) -> int:
        """Remove texts, if the store can do that; return how many there were."""
        if self._delete is None:
            raise _cannot(self._store, "remove anything: it has no delete")
        present = list(await self.get_many(keys))
        await _for_each(present, self._delete)
        return len(present)

    async def close(self) -> None:
        """Do nothing: the store is the user's."""


def has(store: object, *names: str) -> bool:
    """Return whether `store` has all these methods."""
    return all(map(callable, methods(store, *names)))


def methods(store: object, *names: str) -> list[object]:
    """Return the attributes of these names; None for those that `store` has not."""
    found = []
    for name in names:
        try:
            found.append(getattr(store, name, None))
        except AssertionError:  # diskcache.FanoutCache's way to say that there is none
            found.append(None)
    return found


async def _for_each(keys: Sequence[str], work: Callable[[str], Awaitable[object]]) -> None:
    """Do something with each key, some at a time; raise the first error of any."""
    remaining = iter(keys)

    async def serve() -> None:
        for key in remaining:
            await work(key)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_CALLS_AT_ONCE, len(keys))):
                group.create_task(serve())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed


def _listing(store: object, prefix: str = "") -> Callable[[], Any]:
    """Return what lists a store's keys.

    Raises
    ------
    ConfigurationError
        If it has nothing that does.
    """
    for name in _LISTINGS:
        for full in dict.fromkeys((f"{prefix}{name}", name)):
            if has(store, full):
                return getattr(store, full)  # type: ignore[no-any-return]  # is callable
    raise _cannot(store, "list what it holds: it has none of scan_iter, iterkeys and keys")


def _own_keys(listed: Iterable[object]) -> list[str]:
    """Return the keys of requests; what else a user keeps in a store is not to be touched."""
    keys = (
        key.decode("ascii", "replace") if isinstance(key, bytes | bytearray) else key
        for key in listed
    )
    return [key for key in keys if isinstance(key, str) and is_key(key)]


def _cannot(store: object, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"the cache behind cache={type(store).__name__} cannot {what}. Give it such a method, or "
        "use DiskCache(directory)"
    )


async def _in_thread(work: Callable[[], T], release: Callable[[], None] | None) -> T:
    if release is None:
        return await asyncio.to_thread(work)

    def work_and_release() -> T:
        try:
            return work()
        finally:
            release()

    return await asyncio.to_thread(work_and_release)


def _texts(get: Callable[[str], object], keys: Iterable[str]) -> dict[str, str]:
    found = {}
    for key in keys:
        try:
            value = get(key)
        except KeyError:
            continue
        except ValueError:
            # The entry is bad, not the store: a pickle that SafeDisk refuses, broken JSON.
            value = UNREADABLE
        if value is not None:
            found[key] = _text(value)
    return found


def _text(value: object) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        # What is not UTF-8 fails its checksum; it must not fail the entries beside it.
        return bytes(value).decode(errors="replace")
    return value if isinstance(value, str) else UNREADABLE
