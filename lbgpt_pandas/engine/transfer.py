"""Whole caches as archives: written out of a cache, and merged into one."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lbgpt_pandas.engine.archive import Entry, open_archive, write_archive
from lbgpt_pandas.engine.caches.adapters import KEYS_A_SCAN
from lbgpt_pandas.engine.caches.envelope import CorruptEntry, unseal
from lbgpt_pandas.engine.inventory import matching, pages, store_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from os import PathLike

    from lbgpt_pandas.engine.caches.base import Cache
    from lbgpt_pandas.engine.caches.standard import StandardTier

T = TypeVar("T")

WRITES_AT_ONCE = 64
"""Answers on their way into a store; no more than a run has, for which clients are made."""


class Exported(NamedTuple):
    """What became of a cache's entries.

    Attributes
    ----------
    answers : int
        Written into the archive.
    damaged : int
        Left out, because they are no answers or fail their checksum.
    """

    answers: int
    damaged: int


class Merged(NamedTuple):
    """What became of answers that were to be stored.

    Attributes
    ----------
    added : int
        Stored; an entry that was damaged has given way.
    present : int
        There already, and left as they were.
    """

    added: int
    present: int


async def export_cache(
    tier: StandardTier, path: str | PathLike[str], *, manifest: Mapping[str, object]
) -> Exported:
    """Write all answers of a cache into an archive, in the order of their keys.

    Those that the cache could not store, and that are held in memory, are among them.
    Each is verified. The same answers give the same bytes, whatever the cache.

    Raises
    ------
    ConfigurationError
        If the cache cannot be read, or not be looked through.
    OSError
        If the archive cannot be written; what was at `path` is still there.
    """
    cache, unwritten = tier.cache, tier.unwritten_keys()
    keys = sorted({*unwritten, *await matching(pages(cache))})
    loop = _Loop()
    answers = damaged = 0

    def entries() -> Iterator[Entry]:
        nonlocal answers, damaged
        for start in range(0, len(keys), KEYS_A_SCAN):
            with store_errors(cache, "read"):
                texts = loop.wait(tier.envelopes(keys[start : start + KEYS_A_SCAN]))
            for key, text in sorted(texts.items()):
                if _is_sound(key, text):
                    answers += 1
                    yield Entry(key, text)
                else:
                    damaged += 1

    await loop.in_thread(lambda: write_archive(path, manifest, entries()))
    return Exported(answers, damaged)


async def merge_archive(cache: Cache, path: str | PathLike[str]) -> Merged:
    """Store the answers of an archive that are not there yet.

    Everything is verified before the first is stored.

    Raises
    ------
    CacheCorrupt, OSError
        See `open_archive`.
    ConfigurationError
        If a newer version wrote the archive, or the cache cannot be read or written.
    """
    loop = _Loop()

    def transfer() -> Merged:
        added = present = 0
        with open_archive(path) as archive:
            for _ in archive.entries():
                pass  # each is verified as it is read
            entries = archive.entries()
            while some := {each.key: each.envelope for each in islice(entries, KEYS_A_SCAN)}:
                merged = loop.wait(merge(cache, some))
                added, present = added + merged.added, present + merged.present
        return Merged(added, present)

    return await loop.in_thread(transfer)


async def merge(cache: Cache, envelopes: Mapping[str, str]) -> Merged:
    """Store sealed answers that are not there yet; who stored one first wins.

    Parameters
    ----------
    cache : Cache
        Where to.
    envelopes : mapping of str to str
        By key, some thousand at most; verified by the caller.
    """
    with store_errors(cache, "read"):
        stored = await cache.get_many(list(envelopes))
    sound = await asyncio.to_thread(_sound_keys, stored)
    missing = iter([key for key in envelopes if key not in sound])

    async def write() -> None:
        for key in missing:
            with store_errors(cache, "changed"):
                await cache.set(key, envelopes[key], replace=key in stored)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(WRITES_AT_ONCE, len(envelopes) - len(sound))):
                group.create_task(write())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return Merged(added=len(envelopes) - len(sound), present=len(sound))


class _Loop:
    """The running event loop, for a thread of it that reads or writes files."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_given_up = False

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do blocking work in a thread."""
        try:
            return await asyncio.to_thread(work)
        finally:
            # The thread outlives a cancelled wait.
            self._is_given_up = True

    def wait(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop; called in the thread."""
        if self._is_given_up:
            coro.close()
            raise InterruptedError("the work on an archive was cancelled")
        return asyncio.run_coroutine_threadsafe(coro, self._loop).result()


def _sound_keys(texts: Mapping[str, str]) -> set[str]:
    return {key for key, text in texts.items() if _is_sound(key, text)}


def _is_sound(key: str, text: str) -> bool:
    try:
        unseal(key, text)
    except CorruptEntry:
        return False
    return True
