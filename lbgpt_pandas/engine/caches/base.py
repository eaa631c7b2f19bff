"""The cache port, and adapters that put what users bring behind it.

A cache keeps texts under texts. What the texts mean is the business of the tier above
(`StandardTier`); where they lie is the business of an implementation.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from lbgpt_pandas.engine.caches.lifetime import renew_after_fork
from lbgpt_pandas.engine.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

ACCEPTED = (
    "DiskCache(directory) or another cache of this package, a mapping such as dict, an object "
    "with get and set, or one with aget and aset"
)

UNREADABLE = ""
"""Given for an entry that is there and is no text, so that it counts as damaged."""

_CALLS_AT_ONCE = 16
"""Reads that an asynchronous store gets at a time."""


@runtime_checkable
class Cache(Protocol):
    """A store of texts; every method may be called on any event loop."""

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that are stored."""
        ...

    async def set(self, key: str, value: str, *, replace: bool = False) -> None:
        """Store a text; durable, as far as the store can be, when this returns.

        Without `replace` a text that another writer stored first stays, where the store can
        tell.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove a text; no error if there is none."""
        ...

    async def close(self) -> None:
        """Finish what was begun and release what is held; the cache can be used again."""
        ...


class MemoryCache:
    """The last texts of this process, the least recently used ones leaving first.

    Parameters
    ----------
    max_entries : int, default 10,000
        How many are kept, at least 1.

    Raises
    ------
    ConfigurationError
        If `max_entries` is not a positive whole number.
    """

    def __init__(self, max_entries: int = 10_000) -> None:
        if not isinstance(max_entries, int) or isinstance(max_entries, bool) or max_entries < 1:
            raise ConfigurationError(
                f"max_entries={max_entries!r}: give a whole number of at least 1"
            )
        self._max_entries = max_entries
        self._texts: OrderedDict[str, str] = OrderedDict()
        self.after_fork()
        renew_after_fork(self)

    def __len__(self) -> int:
        return len(self._texts)

    def __repr__(self) -> str:
        return f"MemoryCache(max_entries={self._max_entries})"

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may have held."""
        self._lock = threading.Lock()

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that are kept."""
        with self._lock:
            found = {key: self._texts[key] for key in keys if key in self._texts}
            for key in found:
                self._texts.move_to_end(key)
        return found

    async def set(self, key: str, value: str, *, replace: bool = False) -> None:
        """Keep a text; an earlier one under the same key stays unless `replace`."""
        with self._lock:
            if replace or key not in self._texts:
                self._texts[key] = value
            self._texts.move_to_end(key)
            while len(self._texts) > self._max_entries:
                self._texts.popitem(last=False)

    async def delete(self, key: str) -> None:
        """Forget a text."""
        with self._lock:
            self._texts.pop(key, None)

    async def close(self) -> None:
        """Do nothing: memory needs no closing."""


class MappingCache:
    """A mapping: ``cache[key]`` and ``cache[key] = value``, KeyError for a miss.

    Parameters
    ----------
    mapping : mapping
        A dict is used where it stands. Anything else may block, and is used in a thread, one
        call at a time: mappings, those of cachetools among them, are seldom made for several.
    """

    def __init__(self, mapping: Any) -> None:
        self._mapping = mapping
        self._blocks = not isinstance(mapping, dict)
        # Item access would put an entry for each miss into a defaultdict.
        self._get = mapping.get if _has(mapping, "__missing__") else mapping.__getitem__
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

        if _has(self._mapping, "__delitem__"):
            await self._off_loop(remove)

    async def close(self) -> None:
        """Do nothing: the mapping is the user's."""

    async def _off_loop(self, work: Callable[[], T]) -> T:
        if not self._blocks:
            return work()

        def alone() -> T:
            with self._lock:
                return work()

        return await asyncio.to_thread(alone)


class MethodCache:
    """An object with ``get`` and ``set``, such as a redis client; used in threads.

    Parameters
    ----------
    store : object
        ``get(key)`` returns None, or raises KeyError, for a miss. ``delete(key)`` is used if it
        exists. Several threads call it at a time.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"MethodCache({type(self._store).__name__})"

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that the store has."""
        return await asyncio.to_thread(_texts, self._store.get, keys)

    async def set(self, key: str, value: str, *, replace: bool = False) -> None:
        """Store a text; the last writer wins."""
        del replace
        await asyncio.to_thread(self._store.set, key, value)

    async def delete(self, key: str) -> None:
        """Remove a text, if the store has a ``delete``."""
        if _has(self._store, "delete"):
            await asyncio.to_thread(self._store.delete, key)

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
        self._store = store
        self._get = getattr(store, f"{prefix}get")
        self._set = getattr(store, f"{prefix}set")
        self._delete = getattr(store, f"{prefix}delete", None)

    def __repr__(self) -> str:
        return f"AsyncMethodCache({type(self._store).__name__})"

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that the store has."""
        found: dict[str, str] = {}
        remaining = iter(keys)

        async def read() -> None:
            for key in remaining:
                try:
                    value = await self._get(key)
                except KeyError:
                    continue
                except ValueError:
                    value = UNREADABLE
                if value is not None:
                    found[key] = _text(value)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_CALLS_AT_ONCE, len(keys))):
                    group.create_task(read())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return found

    async def set(self, key: str, value: str, *, replace: bool = False) -> None:
        """Store a text; the last writer wins."""
        del replace
        await self._set(key, value)

    async def delete(self, key: str) -> None:
        """Remove a text, if the store can do that."""
        if self._delete is not None:
            await self._delete(key)

    async def close(self) -> None:
        """Do nothing: the store is the user's."""


def adapt(store: object) -> Cache:
    """Put whatever a user calls a cache behind the port.

    Parameters
    ----------
    store : object
        In this order: a cache of this package, or one with its four methods; an object with
        ``aget``/``aset``; one with ``get``/``set``, plain or asynchronous; a mapping, also one
        with nothing but ``__getitem__`` and ``__setitem__``. Values are given to it as str; str
        or UTF-8 bytes are taken back.

    Returns
    -------
    Cache

    Raises
    ------
    ConfigurationError
        If it is none of these, or a diskcache object that would unpickle what it finds.
    """
    if isinstance(store, type):
        raise ConfigurationError(f"cache={store.__name__} is a class; give an object of it")
    _refuse_pickling_diskcache(store)
    if all(map(inspect.iscoroutinefunction, _methods(store, "get_many", "set", "delete", "close"))):
        return store  # type: ignore[return-value]  # has the port's methods
    if _has(store, "aget", "aset"):
        return AsyncMethodCache(store)
    if _has(store, "get", "set"):
        # redis.asyncio hands every command to one coroutine function.
        asks = _methods(store, "get", "execute_command")
        is_async = any(map(inspect.iscoroutinefunction, asks))
        return AsyncMethodCache(store, prefix="") if is_async else MethodCache(store)
    if _has(store, "__getitem__", "__setitem__") and not isinstance(store, Sequence):
        return MappingCache(store)
    raise ConfigurationError(f"cache={type(store).__name__} cannot be used; give {ACCEPTED}")


def _has(store: object, *names: str) -> bool:
    return all(map(callable, _methods(store, *names)))


def _methods(store: object, *names: str) -> list[object]:
    found = []
    for name in names:
        try:
            found.append(getattr(store, name, None))
        except AssertionError:  # diskcache.FanoutCache's way to say that there is none
            found.append(None)
    return found


def _refuse_pickling_diskcache(store: object) -> None:
    # Without the module there is no object of it, and it need not be loaded.
    diskcache = sys.modules.get("diskcache")
    if diskcache is None:
        return
    if isinstance(store, diskcache.Index):
        store = store.cache
    if not isinstance(store, diskcache.Cache | diskcache.FanoutCache):
        return
    from lbgpt_pandas.engine.caches.safedisk import SafeDisk  # noqa: PLC0415  # loads diskcache

    if not isinstance(store.disk, SafeDisk):
        raise ConfigurationError(
            "this diskcache object would run the code of any pickle that was planted in its "
            "directory. Give DiskCache(directory), which reads no pickles, or make it with "
            "disk=SafeDisk (from lbgpt_pandas.engine.caches.safedisk import SafeDisk)"
        )


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
