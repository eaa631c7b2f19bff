"""What is done with stored answers by hand: ``lb.cache``."""

from __future__ import annotations

import asyncio
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from lbgpt_pandas.cache_info import CacheInfo, SemanticInfo
from lbgpt_pandas.chosen_keys import chosen_keys
from lbgpt_pandas.engine.caches.disk import DiskCache
from lbgpt_pandas.engine.embargo import check_change
from lbgpt_pandas.engine.errors import CacheWarning, ConfigurationError
from lbgpt_pandas.engine.inventory import (
    matching,
    pages,
    remove,
    semantic_pages,
    store_errors,
    take_inventory,
)
from lbgpt_pandas.engine.portal import run_async, run_sync
from lbgpt_pandas.engine.transfer import export_cache, merge_archive
from lbgpt_pandas.instants import instant
from lbgpt_pandas.registry import registry
from lbgpt_pandas.settings import settings, used_default_semantic
from lbgpt_pandas.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, timedelta
    from os import PathLike

    from lbgpt_pandas.chosen_keys import Chosen
    from lbgpt_pandas.engine.caches.standard import StandardTier
    from lbgpt_pandas.engine.semantic.tier import SemanticTier
    from lbgpt_pandas.engine.transfer import Merged
    from lbgpt_pandas.registry import Registry

_NEAR_HITS = {
    "at": "datetime64[us, UTC]",
    "asked": "string",
    "stored": "string",
    "similarity": "float64",
    "model": "string",
    "answer": "string",
    "key": "string",
    "stored_key": "string",
}


class AnswerCache:
    """The answers that are kept: counted, removed, moved elsewhere.

    ``lb.cache`` is one of these. It has no state: every method works on the caches that a call
    of ``complete`` would use here, the exact one and that of near answers. Those are the ones
    of the configured engine if it has its own, else those of the settings.

    Examples
    --------
    >>> import pandas as pd
    >>> from lbgpt_pandas.settings import using
    >>> from lbgpt_pandas.testing import ScriptedGPT
    >>> with using(ScriptedGPT("France"), cache={}):
    ...     answers = pd.Series(["Paris", "Lyon"]).lbgpt.complete("Where is {}?")
    ...     cache.info().entries, cache.clear(model="scripted"), cache.info().entries
    (2, 2, 0)
    """

    def __repr__(self) -> str:
        tier = _stores().tier
        return f"<lb.cache: {'no exact cache' if tier is None else repr(tier.cache)}>"

    def info(self) -> CacheInfo:
        """Say what is stored, where, and how often it was used.

        Checksums are not verified, so that it is quick: 100,000 answers take about a second.

        Returns
        -------
        CacheInfo
            Figures with a text and an HTML form.

        Raises
        ------
        ConfigurationError
            If a cache cannot be read, or is an object of yours that does not list its keys.
        """
        return run_sync(_info(_stores()))

    async def ainfo(self) -> CacheInfo:
        """Await `info`."""
        return await run_async(_info(_stores()))

    def clear(
        self,
        model: str | None = None,
        *,
        before: datetime | timedelta | str | None = None,
        run: str | None = None,
    ) -> int:
        """Remove the answers that match all conditions; without a condition all of them.

        Only answers are removed, whatever else lies in the same store. The file of the default
        cache does not shrink; its space is used again.

        Parameters
        ----------
        model : str, optional
            The model's name in the request.
        before : datetime, timedelta or str, optional
            Made before a point in time (without a time zone: local time), or so long ago. A
            str is either of them as pandas reads it: ``"2026-11-01"``, ``"30 days"``.
        run : str, optional
            The id of a run in ``lb.runs()``: the answers that its rows had, also those that
            were stored before it.

        Returns
        -------
        int
            How many were removed, from the exact and the semantic cache together.

        Raises
        ------
        ConfigurationError
            If there is no cache or no such run, `before` is not understood, or a cache cannot
            be changed.
        """
        moment = None if before is None else instant(before, keyword="before")
        return run_sync(_clear(_stores(change=True).some(), model, moment, run, registry()))

    async def aclear(
        self,
        model: str | None = None,
        *,
        before: datetime | timedelta | str | None = None,
        run: str | None = None,
    ) -> int:
        """Await `clear`."""
        moment = None if before is None else instant(before, keyword="before")
        return await run_async(_clear(_stores(change=True).some(), model, moment, run, registry()))

    def forget(self, mask_or_keys: Iterable[object] | pd.DataFrame) -> int:
        """Remove the answers of certain rows, so that they are asked again.

        Rows of the last run are also forgotten where it had their answers, such as in an
        engine's own cache. Rows that share a request share its answer, and all of them are asked
        again. A row that took the answer to nearly the same question loses that one from the
        semantic cache; the answer of the question's own row stays.

        Parameters
        ----------
        mask_or_keys : boolean Series or array, DataFrame, or sequence of str
            A mask over the rows of the last run, under the same index if it is a Series; lines
            of ``lb.last_run().rows``; lines of `semantic_report`, whose stored questions are
            then no longer taken for near ones; or keys, as in the column ``key`` of the first.

        Returns
        -------
        int
            How many answers were removed, from the exact and the semantic cache together.

        Raises
        ------
        ConfigurationError
            If the mask does not fit the last run, something is no key, there is no cache, or
            it cannot be changed.
        """
        chosen = chosen_keys(mask_or_keys)
        return run_sync(_forget(_holding(chosen), chosen))

    async def aforget(self, mask_or_keys: Iterable[object] | pd.DataFrame) -> int:
        """Await `forget`."""
        chosen = chosen_keys(mask_or_keys)
        return await run_async(_forget(_holding(chosen), chosen))

    def export(self, path: str | PathLike[str]) -> int:
        """Write all exact answers into an archive, each verified; prompts are not in it.

        The same answers give the same bytes. Damaged entries are left out, with a warning.

        Parameters
        ----------
        path : path
            Such as ``"answers.lbgpt.zip"``; an earlier archive is replaced by the finished one.

        Returns
        -------
        int
            How many answers it holds.

        Raises
        ------
        ConfigurationError
            If there is no exact cache, or it cannot be read.
        OSError
            If the archive cannot be written.
        """
        return _exported(run_sync(_export(_stores(), path)))

    async def aexport(self, path: str | PathLike[str]) -> int:
        """Await `export`."""
        return _exported(await run_async(_export(_stores(), path)))

    def load(self, path: str | PathLike[str]) -> Merged:
        """Store the answers of an archive that are not there yet, of a run or of a cache.

        All of it is verified before the first answer is stored.

        Parameters
        ----------
        path : path
            An archive of `export` or of ``RunReport.export``.

        Returns
        -------
        Merged
            How many answers were ``added``, and how many were ``present`` and stay.

        Raises
        ------
        CacheCorrupt
            If it is no archive, or a byte of it has changed; nothing is stored.
        ConfigurationError
            If there is no exact cache, or it cannot be written.
        OSError
            If the archive cannot be read.
        """
        return run_sync(_load(_stores(change=True), path))

    async def aload(self, path: str | PathLike[str]) -> Merged:
        """Await `load`."""
        return await run_async(_load(_stores(change=True), path))

    def semantic_report(self) -> pd.DataFrame:
        """List the near hits of this process, newest first.

        Returns
        -------
        DataFrame
            ``at`` (UTC), ``asked`` and ``stored`` (the two questions), ``similarity`` (cosine),
            ``model``, ``answer``, ``key`` and ``stored_key``. A false hit is removed by giving
            its line to `forget`.
        """
        semantic = _stores().semantic
        hits = [] if semantic is None else list(semantic.hits)
        lines = [tuple(getattr(hit, name) for name in _NEAR_HITS) for hit in reversed(hits)]
        return pd.DataFrame(lines, columns=list(_NEAR_HITS)).astype(_NEAR_HITS)


cache = AnswerCache()
"""The one that is ``lb.cache``."""


class _Stores(NamedTuple):
    """The caches in force; either may be missing."""

    tier: StandardTier | None
    semantic: SemanticTier | None

    def exact(self) -> StandardTier:
        """Return the exact cache; an error if there is none."""
        if self.tier is None:
            raise ConfigurationError("there is no exact cache here; give lb.configure(cache=...)")
        return self.tier

    def some(self) -> _Stores:
        """Return the same; an error if both are missing."""
        if self.semantic is None:
            self.exact()
        return self


def _stores(*, change: bool = False) -> _Stores:
    if change:
        check_change("this")
    current = settings()
    engine = current.engine
    tier = engine.tier if engine is not None and engine.has_cache else current.cache
    semantic = None if engine is None else engine.semantic
    return _Stores(tier, semantic or current.semantic_cache or used_default_semantic())


def _holding(chosen: Chosen) -> list[_Stores]:
    """The caches in force, and those of the run that the rows are of."""
    caching = chosen.caching
    if caching is None or (caching.tier is None and caching.semantic is None):
        return [_stores(change=True).some()]
    return [_stores(change=True), _Stores(caching.tier, caching.semantic)]


async def _info(stores: _Stores) -> CacheInfo:
    semantic = None if stores.semantic is None else await _semantic_info(stores.semantic)
    tier = stores.tier
    if tier is None:
        return CacheInfo(None, {}, semantic=semantic)
    await tier.flush()
    cache = tier.cache
    found = await take_inventory(cache)
    files = await cache.on_disk() if isinstance(cache, DiskCache) else None
    return CacheInfo(
        getattr(cache, "location", type(cache).__name__),
        found.by_model,
        damaged=found.damaged,
        disk_bytes=None if files is None else files.bytes,
        moved_aside=() if files is None else files.moved_aside,
        ttl_s=getattr(cache, "ttl_s", None),
        hits=tier.hits,
        misses=tier.misses,
        corrupt=tier.corrupt,
        semantic=semantic,
    )


async def _semantic_info(semantic: SemanticTier) -> SemanticInfo:
    cache = semantic.cache
    with store_errors(cache, "read"):
        entries = await cache.count()
    name = None
    with suppress(ConfigurationError):
        # It may have to open a model's files for that.
        name = await asyncio.to_thread(lambda: cache.embedder.name)
    return SemanticInfo(
        location=getattr(cache, "location", type(cache).__name__),
        entries=entries,
        embedder=name,
        threshold=semantic.threshold,
        hits=len(semantic.hits),
        refused=semantic.refused,
    )


async def _clear(
    stores: _Stores,
    model: str | None,
    before: datetime | None,
    run: str | None,
    runs: Registry,
) -> int:
    keys = None
    if run is not None:
        of_rows = await asyncio.to_thread(runs.keys, run)
        keys = list(dict.fromkeys(key for key in of_rows if key is not None))
    removed = 0
    if stores.tier is not None:
        await stores.tier.flush()
        texts = pages(stores.tier.cache, keys)
        chosen = await matching(texts, model=model, before=before)
        removed += await remove(stores.tier.cache, chosen)
    if stores.semantic is not None:
        texts = semantic_pages(stores.semantic.cache, keys)
        chosen = await matching(texts, model=model, before=before)
        removed += await remove(stores.semantic.cache, chosen)
    return removed


async def _forget(places: Sequence[_Stores], chosen: Chosen) -> int:
    return sum([await _forget_in(stores, chosen) for stores in places])


async def _forget_in(stores: _Stores, chosen: Chosen) -> int:
    removed = 0
    if stores.tier is not None:
        await stores.tier.flush()
        removed += await remove(stores.tier.cache, chosen.keys)
    semantic = stores.semantic
    if semantic is not None:
        asked = set(chosen.keys)
        taken = [hit.stored_key for hit in list(semantic.hits) if hit.key in asked]
        keys = list(dict.fromkeys([*chosen.keys, *chosen.stored_keys, *taken]))
        removed += await remove(semantic.cache, keys)
    return removed


async def _export(stores: _Stores, path: str | PathLike[str]) -> tuple[int, int]:
    tier = stores.exact()
    await tier.flush()
    manifest = {"kind": "cache", "versions": {"lbgpt_pandas": __version__}}
    return await export_cache(tier, path, manifest=manifest)


def _exported(outcome: tuple[int, int]) -> int:
    answers, damaged = outcome
    if damaged:
        warnings.warn(
            f"{damaged:,} damaged entries of the cache are not in the archive",
            CacheWarning,
            stacklevel=3,
        )
    return answers


async def _load(stores: _Stores, path: str | PathLike[str]) -> Merged:
    return await merge_archive(stores.exact().cache, path)
