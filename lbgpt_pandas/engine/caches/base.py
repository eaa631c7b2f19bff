"""The cache port, and adapters that put what users bring behind it.

A cache keeps texts under texts. What the texts mean is the business of the tier above
(`StandardTier`); where they lie is the business of an implementation.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from lbgpt_pandas.engine.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ACCEPTED = (
    "a directory (str or Path), a mapping such as dict, an object with get and set or with aget "
    "and aset, or a cache of this package"
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


class MemoryCache:
    """The last texts of this process, the least recently used ones leaving first.

    Parameters
    ----------
    max_entries : int, default 10,000
        How many are kept.
    """

    def __init__(self, max_entries: int = 10_000) -> None:
        self._max_entries = max_entries
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._texts)

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
        A dict is used where it stands; anything else may block and is used in a thread.
    """

    def __init__(self, mapping: Any) -> None:
        self._mapping = mapping
        self._blocks = not isinstance(mapping, dict)

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that the mapping has."""
        found: dict[str, str] = await _off_loop(self._get_many, list(keys), blocks=self._blocks)
        return found

    async def set(self, key: str, value: str, *, replace: bool = False) -> None:
        """Store a text; a mapping cannot tell who was first, so the last writer wins."""
        del replace
        await _off_loop(self._mapping.__setitem__, key, value, blocks=self._blocks)

    async def delete(self, key: str) -> None:
        """Remove a text."""

        def remove() -> None:
            try:
                del self._mapping[key]
            except KeyError:
                return

        await _off_loop(remove, blocks=self._blocks)

    async def close(self) -> None:
        """Do nothing: the mapping is the user's."""

    def _get_many(self, keys: Iterable[str]) -> dict[str, str]:
        found = {}
        for key in keys:
            try:
                value = self._mapping[key]
            except KeyError:
                continue
            if value is not None:
                found[key] = _text(value)
        return found


class MethodCache:
    """An object with ``get`` and ``set``, such as a redis client; used in a thread.

    Parameters
    ----------
    store : object
        ``get(key)`` returns None for a miss. ``delete(key)`` is used if it exists.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that the store has."""
        return await asyncio.to_thread(self._get_many, list(keys))

    async def set(self, key: str, value: str, *, replace: bool = False) -> None:
        """Store a text; the last writer wins."""
        del replace
        await asyncio.to_thread(self._store.set, key, value)

    async def delete(self, key: str) -> None:
        """Remove a text, if the store has a ``delete``."""
        if hasattr(self._store, "delete"):
            await asyncio.to_thread(self._store.delete, key)

    async def close(self) -> None:
        """Do nothing: the store is the user's."""

    def _get_many(self, keys: Iterable[str]) -> dict[str, str]:
        values = ((key, self._store.get(key)) for key in keys)
        return {key: _text(value) for key, value in values if value is not None}


class AsyncMethodCache:
    """An object with ``aget`` and ``aset``, awaited on the engine's loop.

    Parameters
    ----------
    store : object
        ``aget(key)`` gives None for a miss. ``adelete(key)`` is used if it exists.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that the store has."""
        found = {}
        for key in keys:
            value = await self._store.aget(key)
            if value is not None:
                found[key] = _text(value)
        return found

    async def set(self, key: str, value: str, *, replace: bool = False) -> None:
        """Store a text; the last writer wins."""
        del replace
        await self._store.aset(key, value)

    async def delete(self, key: str) -> None:
        """Remove a text, if the store has an ``adelete``."""
        if hasattr(self._store, "adelete"):
            await self._store.adelete(key)

    async def close(self) -> None:
        """Do nothing: the store is the user's."""


def adapt(store: object) -> Cache:
    """Put whatever a user calls a cache behind the port.

    Parameters
    ----------
    store : object
        A cache of this package; an object with ``aget``/``aset``; a mapping, also one with
        nothing but ``__getitem__`` and ``__setitem__``; an object with ``get``/``set``.

    Returns
    -------
    Cache

    Raises
    ------
    ConfigurationError
        If it is none of these, or a ``diskcache.Cache`` that would unpickle what it finds.
    """
    _refuse_pickling_disk(store)
    if isinstance(store, type):
        raise ConfigurationError(f"cache={store.__name__} is a class; give an object of it")
    if _has_coroutines(store, "get_many", "set"):
        return store  # type: ignore[return-value]  # has the port's methods
    if _has(store, "aget", "aset"):
        return AsyncMethodCache(store)
    if _has(store, "get", "set"):
        return MethodCache(store)
    if _has(store, "__getitem__", "__setitem__") and not isinstance(store, Sequence):
        return MappingCache(store)
    raise ConfigurationError(f"cache={type(store).__name__} cannot be used; give {ACCEPTED}")


def _has(store: object, *names: str) -> bool:
    return all(callable(getattr(store, name, None)) for name in names)


def _has_coroutines(store: object, *names: str) -> bool:
    return all(inspect.iscoroutinefunction(getattr(store, name, None)) for name in names)


def _refuse_pickling_disk(store: object) -> None:
    disk = getattr(store, "disk", None)
    if type(store).__module__.partition(".")[0] != "diskcache" or disk is None:
        return
    if not getattr(disk, "refuses_pickle", False):
        raise ConfigurationError(
            "this diskcache object would run whatever code a planted pickle holds; give its "
            "directory instead (cache='/path'), which is opened without pickle"
        )


async def _off_loop(work: Callable[..., Any], *arguments: object, blocks: bool) -> Any:
    return await asyncio.to_thread(work, *arguments) if blocks else work(*arguments)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
