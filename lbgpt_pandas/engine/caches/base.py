"""The cache port, a cache in memory, and `adapt`, which puts what users bring behind the port.

A cache keeps texts under texts. What the texts mean is the business of the tier above
(`StandardTier`); where they lie is the business of an implementation.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lbgpt_pandas.engine.caches.adapters import (
    KEYS_A_SCAN,
    AsyncMethodCache,
    MappingCache,
    MethodCache,
    has,
    methods,
)
from lbgpt_pandas.engine.caches.ttl import ttl_seconds
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.lifetime import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import timedelta

ACCEPTED = (
    "DiskCache(directory), RedisCache(url), S3Cache(client, bucket), a mapping such as dict, an "
    "object with get and set, or one with aget and aset"
)


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


@runtime_checkable
class Scannable(Protocol):
    """A cache that can be looked through and emptied, for `lb.cache`."""

    @property
    def location(self) -> str:
        """Where the texts lie, for people, without any secret."""
        ...

    @property
    def ttl_s(self) -> float | None:
        """Seconds after which a text counts as gone; None if it never does."""
        ...

    def scan(self) -> AsyncIterator[dict[str, str]]:
        """Yield all texts by key, some thousand at a time; what is no text as ``""``.

        What is stored or removed meanwhile may be among them or not.

        Raises
        ------
        ConfigurationError
            If the store behind it cannot list what it holds.
        """
        ...

    async def delete_many(self, keys: Sequence[str]) -> int:
        """Remove texts; return how many there were.

        Raises
        ------
        ConfigurationError
            If the store behind it cannot remove anything.
        """
        ...


class MemoryCache:
    """The last texts of this process, the least recently used ones leaving first.

    Parameters
    ----------
    max_entries : int, default 10,000
        How many are kept, at least 1.
    ttl : float or timedelta, optional
        Age in seconds from which an answer is asked anew; by default none is.

    Raises
    ------
    ConfigurationError
        If `max_entries` is not a positive whole number.
    """

    def __init__(self, max_entries: int = 10_000, *, ttl: float | timedelta | None = None) -> None:
        if not isinstance(max_entries, int) or isinstance(max_entries, bool) or max_entries < 1:
            raise ConfigurationError(
                f"max_entries={max_entries!r}: give a whole number of at least 1"
            )
        self.location = "the memory of this process"
        self.ttl_s = ttl_seconds(ttl)
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

    async def scan(self) -> AsyncIterator[dict[str, str]]:
        """Yield all texts by key; none of them counts as used by that."""
        with self._lock:
            keys = list(self._texts)
        for start in range(0, len(keys), KEYS_A_SCAN):
            with self._lock:
                some = keys[start : start + KEYS_A_SCAN]
                page = {key: self._texts[key] for key in some if key in self._texts}
            yield page

    async def delete_many(self, keys: Sequence[str]) -> int:
        """Forget texts; return how many there were."""
        with self._lock:
            return sum(self._texts.pop(key, None) is not None for key in keys)

    async def close(self) -> None:
        """Do nothing: memory needs no closing."""


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
    release = _release_of_diskcache(store)
    if all(map(inspect.iscoroutinefunction, methods(store, "get_many", "set", "delete", "close"))):
        return store  # type: ignore[return-value]  # has the port's methods
    if has(store, "aget", "aset"):
        return AsyncMethodCache(store)
    if has(store, "get", "set"):
        # redis.asyncio hands every command to one coroutine function.
        asks = methods(store, "get", "execute_command")
        is_async = any(map(inspect.iscoroutinefunction, asks))
        if is_async:
            return AsyncMethodCache(store, prefix="")
        return MethodCache(store, release=release)
    if has(store, "__getitem__", "__setitem__") and not isinstance(store, Sequence):
        return MappingCache(store, release=release)
    raise ConfigurationError(f"cache={type(store).__name__} cannot be used; give {ACCEPTED}")


def _release_of_diskcache(store: object) -> Callable[[], None] | None:
    """Return what closes a diskcache object's connection in this thread; None for others."""
    # Without the module there is no object of it, and it need not be loaded.
    diskcache = sys.modules.get("diskcache")
    if diskcache is None:
        return None
    if isinstance(store, diskcache.Index):
        store = store.cache
    if not isinstance(store, diskcache.Cache | diskcache.FanoutCache):
        return None
    from lbgpt_pandas.engine.caches.safedisk import SafeDisk  # noqa: PLC0415  # loads diskcache

    if not isinstance(store.disk, SafeDisk):
        raise ConfigurationError(
            "this diskcache object would run the code of any pickle that was planted in its "
            "directory. Give DiskCache(directory), which reads no pickles, or make it with "
            "disk=SafeDisk (from lbgpt_pandas.engine.caches.safedisk import SafeDisk)"
        )
    close: Callable[[], None] = store.close
    return close
