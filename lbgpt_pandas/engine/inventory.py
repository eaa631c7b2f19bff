"""What is stored as a whole: counted without unsealing, and picked out by model, age or key."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from lbgpt_pandas.engine.caches.adapters import KEYS_A_SCAN
from lbgpt_pandas.engine.caches.entries import is_key, read_head
from lbgpt_pandas.engine.errors import ConfigurationError, LbgptError
from lbgpt_pandas.engine.secrets import redact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from lbgpt_pandas.engine.caches.base import Cache, Scannable
    from lbgpt_pandas.engine.semantic.base import SemanticCache


@dataclass(slots=True)
class Share:
    """A part of what is stored.

    Attributes
    ----------
    entries, bytes : int
        How many answers, and the length of their envelopes.
    oldest, newest : datetime or None
        When the first and the last of them were made, in UTC.
    """

    entries: int = 0
    bytes: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None

    def count(self, size: int, created: datetime) -> None:
        """Add an answer."""
        self.entries += 1
        self.bytes += size
        if self.oldest is None or created < self.oldest:
            self.oldest = created
        if self.newest is None or created > self.newest:
            self.newest = created


@dataclass(slots=True)
class Inventory:
    """What a cache holds.

    Attributes
    ----------
    by_model : dict of str to Share
        The answers by the model's name in the request.
    damaged : int
        Entries under the key of a request that are no answer to it, as far as that is seen
        without verifying checksums.
    """

    by_model: dict[str, Share] = field(default_factory=dict)
    damaged: int = 0

    def count(self, texts: Mapping[str, str]) -> None:
        """Add stored texts by key."""
        for key, text in texts.items():
            if not is_key(key):
                continue
            head = read_head(key, text)
            if head is None:
                self.damaged += 1
                continue
            share = self.by_model.get(head.model)
            if share is None:
                share = self.by_model[head.model] = Share()
            share.count(len(text) if text.isascii() else len(text.encode()), head.created)


async def take_inventory(cache: Cache) -> Inventory:
    """Count what a cache holds, off the event loop.

    Raises
    ------
    ConfigurationError
        If it cannot be looked through.
    """
    found = Inventory()
    async for texts in pages(cache):
        await asyncio.to_thread(found.count, texts)
    return found


async def matching(
    texts: AsyncIterator[dict[str, str]],
    *,
    model: str | None = None,
    before: datetime | None = None,
) -> list[str]:
    """Return the keys of the requests' entries that match all conditions.

    Parameters
    ----------
    texts : async iterator of dict
        Stored texts by key; see `pages` and `semantic_pages`.
    model : str, optional
        The model's name in the request.
    before : datetime, optional
        Made before that moment.

    Returns
    -------
    list of str
        Damaged entries are among them only where there is no condition.
    """

    def pick(some: dict[str, str]) -> list[str]:
        keys = filter(is_key, some)
        if model is None and before is None:
            return list(keys)
        return [key for key in keys if _matches(key, some[key], model, before)]

    found: list[str] = []
    async for some in texts:
        found += await asyncio.to_thread(pick, some)
    return found


def _matches(key: str, text: str, model: str | None, before: datetime | None) -> bool:
    head = read_head(key, text)
    if head is None:
        return False
    return model in (None, head.model) and (before is None or head.created < before)


async def pages(
    cache: Cache | SemanticCache, keys: Iterable[str] | None = None
) -> AsyncIterator[dict[str, str]]:
    """Yield stored texts by key, some thousand at a time; those of `keys`, or else all.

    Raises
    ------
    ConfigurationError
        If all are wanted and the cache cannot be looked through.
    """
    if keys is None:
        with store_errors(cache, "read"):
            async for texts in scannable(cache).scan():
                yield texts
    else:
        for some in _sliced(list(keys)):
            with store_errors(cache, "read"):
                texts = await cache.get_many(some)
            yield texts


async def semantic_pages(
    cache: SemanticCache, keys: Iterable[str] | None = None
) -> AsyncIterator[dict[str, str]]:
    """Yield a semantic cache's envelopes by key, likewise."""
    if keys is None:
        with store_errors(cache, "read"):
            async for entries in cache.scan():
                yield {key: envelope for key, _, envelope in entries}
    else:
        async for envelopes in pages(cache, keys):
            yield envelopes


async def remove(cache: Cache | SemanticCache, keys: Sequence[str]) -> int:
    """Remove entries; return how many there were.

    Raises
    ------
    ConfigurationError
        If the cache cannot remove anything, or cannot be written.
    """
    if not keys:
        return 0
    with store_errors(cache, "changed"):
        return await scannable(cache).delete_many(keys)


@contextmanager
def store_errors(cache: object, done: str) -> Iterator[None]:
    """Turn whatever a store raises into an error that says which store it was.

    Raises
    ------
    ConfigurationError
        For everything that is not an error of this package.
    """
    try:
        yield
    except LbgptError:
        raise
    except Exception as error:
        where = getattr(cache, "location", type(cache).__name__)
        raise ConfigurationError(
            f"the cache in {where} cannot be {done}: {redact(f'{type(error).__name__}: {error}')}. "
            "See that it is there and may be read and written"
        ) from error


def scannable(cache: object) -> Scannable:
    """Return the cache as one that can be looked through and emptied.

    Raises
    ------
    ConfigurationError
        If it has not the methods for that.
    """
    if hasattr(cache, "scan") and hasattr(cache, "delete_many"):
        return cast("Scannable", cache)
    raise ConfigurationError(
        f"{type(cache).__name__} cannot be looked through or emptied: it has no scan() and "
        "delete_many(keys). Give it those, or use DiskCache(directory)"
    )


def _sliced(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[start : start + KEYS_A_SCAN] for start in range(0, len(keys), KEYS_A_SCAN))
