"""Archives in a session: loaded into the cache, or replayed without key and network."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.archive import open_archive
from lbgpt_pandas.engine.embargo import check_change, embargo
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.portal import run_sync
from lbgpt_pandas.engine.replay import load_replay
from lbgpt_pandas.engine.transfer import merge_archive
from lbgpt_pandas.settings import Settings, in_force, settings, using

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from lbgpt_pandas.engine.caches.standard import StandardTier


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """What loading an archive did.

    Attributes
    ----------
    id : str or None
        Of the run; None for the archive of a cache.
    model : str or None
        Its model.
    rows : int
        Its rows.
    added, present : int
        Answers that were stored, and requests that the cache had an answer to already, which
        it keeps.
    manifest : dict
        What the archive says of itself.
    """

    id: str | None
    model: str | None
    rows: int
    added: int
    present: int
    manifest: dict[str, Any]

    def __repr__(self) -> str:
        name = f"run {self.id} of {self.model}" if self.id else "cache"
        return f"<LoadedRun {name}: {self.added:,} answers added, {self.present:,} there already>"


def load_run(path: str | PathLike[str], *, into: object = None) -> LoadedRun:
    """Put the answers of an archive into a cache, so that the same rows need no call.

    Parameters
    ----------
    path : path
        What `RunReport.export` wrote.
    into : path or object, optional
        The cache, as ``lb.configure(cache=...)`` takes it; by default the one in force. What
        it has already stays.

    Returns
    -------
    LoadedRun

    Raises
    ------
    CacheCorrupt
        If the archive is damaged; nothing of it is used.
    ConfigurationError
        If a newer version wrote it, or there is no cache to load it into.
    OSError
        If it cannot be read, or the cache not be written.
    """
    tier = _tier(into)
    with open_archive(path) as archive:
        manifest = archive.manifest
    merged = run_sync(merge_archive(tier.cache, path))
    return LoadedRun(
        manifest.get("id"),
        manifest.get("model"),
        len(manifest.get("keys") or ()),
        merged.added,
        merged.present,
        manifest,
    )


def _tier(cache: object) -> StandardTier:
    if cache is None:
        check_change("load_run() without into=")
        tier = settings().cache
    else:
        with using(cache=cache) as given:
            tier = given.cache
    if tier is None:
        raise ConfigurationError("there is no cache to load the archive into: give into=")
    return tier


@contextmanager
def replay(path: str | PathLike[str]) -> Iterator[Settings]:
    """Answer a block from an archive alone: no key, no network, the recorded answers.

    Keys are made as the recorded run's engine made them; an engine that a call names makes its
    own. No cache but the archive is read, none is written, and near answers are not looked for.
    Rows that failed in the recorded run fail again.

    The block is that of its thread or task, as for `using`; ``contextvars.copy_context().run``
    takes it along into another one. Other threads of the process cannot begin to ask while it
    is open (`ConfigurationError`); runs that began before go on. Inside of it an engine's own
    methods and ``retry_failed()`` of other runs raise `CacheMiss`, and ``lb.cache`` changes
    nothing.

    Parameters
    ----------
    path : path
        What `RunReport.export` wrote.

    Yields
    ------
    Settings
        The settings in force inside.

    Raises
    ------
    CacheMiss
        In the block, for a row that is not in the archive, with the first field in which it
        differs from the nearest one that is; before anything is returned.
    CacheCorrupt, ConfigurationError, OSError
        If the archive cannot be used; see `load_run`.

    Examples
    --------
    >>> import pandas as pd, tempfile
    >>> from lbgpt_pandas.runs import last_run
    >>> from lbgpt_pandas.testing import ScriptedGPT
    >>> cities = pd.Series(["Paris", "Lyon"])
    >>> answers = cities.lbgpt.complete("Where is {}?", engine=ScriptedGPT("France"))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     archive = last_run().export(f"{directory}/study.lbgpt.zip")
    ...     with replay(archive):
    ...         cities.lbgpt.complete("Where is {}?").equals(answers)
    True
    """
    recorded = load_replay(path)
    current = settings()
    engine = recorded.engine or current.engine
    changed = replace(current, engine=engine, cache_mode="replay", replay=recorded)
    with embargo(recorded.recording.where), in_force(changed):
        yield changed
