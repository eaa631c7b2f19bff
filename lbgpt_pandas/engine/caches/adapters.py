"""What users bring, behind the port: mappings, and objects with get and set."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from lbgpt_pandas.engine.lifetime import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

T = TypeVar("T")

UNREADABLE = ""
"""Given for an entry that is there and is no text, so that it counts as damaged."""

_CALLS_AT_ONCE = 16
"""Reads that an asynchronous store gets at a time."""


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
