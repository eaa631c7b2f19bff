"""The registry of runs: a line for each, in a database beside the cache."""

from __future__ import annotations

import sqlite3
import warnings
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from lbgpt_pandas.engine.caches.disk import DiskCache, default_directory
from lbgpt_pandas.engine.caches.holder import DatabaseHolder
from lbgpt_pandas.engine.errors import CacheWarning, ConfigurationError
from lbgpt_pandas.engine.secrets import redact
from lbgpt_pandas.resumption import FAILURES, as_of_now
from lbgpt_pandas.run_file import DATABASE, Keys, RunFile
from lbgpt_pandas.settings import kept, settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lbgpt_pandas.reports import RunReport

T = TypeVar("T")

_UTC = "datetime64[us, UTC]"
_COLUMNS = {
    "id": "string",
    "started": _UTC,
    "wall_s": "float64",
    "status": "string",
    "resumed_from": "string",
    "template": "string",
    "template_sha256": "string",
    "system": "string",
    "params": "object",
    "model": "string",
    "engine": "string",
    "deployments": "object",
    "cache_mode": "string",
    "rows": "Int64",
    "done": "Int64",
    "failed": "Int64",
    "skipped": "Int64",
    "cached": "Int64",
    "semantic": "Int64",
    "shared": "Int64",
    "calls": "Int64",
    "prompt_tokens": "Int64",
    "completion_tokens": "Int64",
    "cost_usd": "Float64",
    "saved_usd": "Float64",
    "columns": "object",
    "versions": "object",
}

_CHANGE_NOTHING = ("read_only", "replay")
"""Values of ``cache_mode`` with which nothing in the directory is made or mended."""

_registries: dict[object, Registry] = {}
_told: set[object] = set()


class Registry:
    """The runs of a directory.

    Parameters
    ----------
    directory : path
        Where ``runs.db`` lies, or will.
    read_only : bool, default False
        Register nothing.
    """

    def __init__(self, directory: Path, *, read_only: bool = False) -> None:
        self.directory, self.read_only = directory, read_only
        self._holder = DatabaseHolder(
            directory,
            name=DATABASE,
            open_file=RunFile,
            read_only=read_only,
            elsewhere="LBGPT_CACHE_DIR or cache=",
        )

    def __repr__(self) -> str:
        return f"Registry({str(self.directory)!r})"

    def add(self, about: dict[str, Any], keys: Keys, *, repair: bool = True) -> None:
        """Enter a run; without `repair` only where there is a file, and it is not damaged.

        Raises
        ------
        OSError, sqlite3.Error, ConfigurationError
            If it cannot be written.
        """
        if not self.read_only and (repair or self._has_file()):
            work = partial(RunFile.add, about=about, keys=keys)
            self._holder.do(work, writes=True, repair=repair)

    def prepared(self) -> Path:
        """Return the directory, which has the file from now on; see `add` for what is raised."""
        self._holder.do(lambda file: file, writes=not self.read_only)
        return self.directory

    def latest(self, keys: Keys, *, but: str) -> dict[str, Any] | None:
        """Return the newest run with these keys, other than the one named; None without one."""
        if not (self.directory / DATABASE).exists():
            return None
        return self._holder.do(partial(RunFile.latest, keys=keys.sha256, but=but))

    def change(self, about: dict[str, Any]) -> None:
        """Put this in the place of what is said of a run; see `add` for what is raised."""
        if not self.read_only:
            self._holder.do(partial(RunFile.change, about=about), writes=True)

    def take_notices(self) -> list[str]:
        """Return what has to be told, each text once."""
        return self._holder.take_notices()

    def all(self, *, limit: int = -1, repair: bool = True) -> list[dict[str, Any]]:
        """Return every run, newest first, at most `limit`; none if none was registered yet.

        Raises
        ------
        ConfigurationError
            If the file cannot be read, or is damaged and there is to be no `repair`.
        """
        if not self._has_file():
            return []
        return self._read(partial(RunFile.all, limit=limit), repair=repair)

    def keys(self, run: str) -> list[str | None]:
        """Return the keys of a run in row order, None for rows without a request.

        Raises
        ------
        ConfigurationError
            If there is no such run, or the file cannot be read.
        """
        found = self._read(partial(RunFile.keys, run=run)) if self._has_file() else None
        if found is None:
            raise ConfigurationError(
                f"no run {run!r} is registered; lb.runs() lists those that are"
            )
        return found.in_order()

    def _has_file(self) -> bool:
        return (self.directory / DATABASE).exists()

    def _read(self, work: Callable[[RunFile], T], *, repair: bool = True) -> T:
        try:
            return self._holder.do(work, repair=repair)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(
                f"the runs in {self.directory / DATABASE} cannot be read: "
                f"{redact(f'{type(error).__name__}: {error}')}"
            ) from error


def registry() -> Registry:
    """Return the registry beside the cache in force, else in the default directory."""
    tier = settings().cache
    cache = None if tier is None else tier.cache
    directory, read_only = default_directory(), False
    if isinstance(cache, DiskCache):
        directory, read_only = cache.directory, cache.read_only
    return kept(
        _registries, (directory, read_only), lambda: Registry(directory, read_only=read_only)
    )


def register(report: RunReport, **further: object) -> list[str]:
    """Enter a run; it never fails for that.

    Parameters
    ----------
    report : RunReport
        Of the run, which is over, or about to ask for the first time.
    **further
        What is noted besides.

    Returns
    -------
    list of str
        What there is to tell; a failure once in this process until it works again.
    """
    place: Registry | None = None
    try:
        place = registry()
        about, keys = report.for_registry()
        mends = about["cache_mode"] not in _CHANGE_NOTHING
        place.add(about | further, keys, repair=mends)
    except FAILURES as error:
        reason = redact(f"{type(error).__name__}: {error}")
        if place in _told:
            return []
        _told.add(place)
        return [f"runs are not registered for lb.runs(): {reason}"]
    _told.discard(place)
    return place.take_notices()


def runs() -> pd.DataFrame:
    """List the runs that were registered beside the cache in force.

    Returns
    -------
    DataFrame
        A line for each run of ``complete``, newest first: ``id``, ``started`` (UTC),
        ``wall_s``, ``status`` (``done``; ``failed``: at least one row did; ``interrupted``, also
        by the end of its process; ``aborted``: it raised; ``running``), ``resumed_from`` (the
        run whose answers it went on with), ``template``, ``template_sha256``, ``system``,
        ``params``, ``model``, ``engine``, ``deployments``, ``cache_mode``, counts (``rows``,
        ``done``, ``failed``, ``skipped``, ``cached``, ``semantic``, ``shared``), ``calls``,
        ``prompt_tokens``, ``completion_tokens``, ``cost_usd`` and ``saved_usd`` (NA if a price
        is unknown), ``columns`` (fields of the template) and ``versions``.

    Raises
    ------
    ConfigurationError
        If they cannot be read.

    Examples
    --------
    >>> from lbgpt_pandas.testing import ScriptedGPT
    >>> cities = pd.Series(["Paris", "Lyon"])
    >>> answers = cities.lbgpt.complete("Where is {}?", engine=ScriptedGPT("France"))
    >>> runs().loc[0, ["template", "status"]].tolist()
    ['Where is {}?', 'done']
    """
    lines = []
    place = registry()
    registered = place.all()
    for notice in place.take_notices():
        warnings.warn(notice, CacheWarning, stacklevel=2)
    for about in registered:
        with suppress(KeyError, TypeError, AttributeError):  # another program's line is none
            lines.append(_line(as_of_now(place, about)))
    frame = pd.DataFrame(lines, columns=list(_COLUMNS))
    frame["started"] = pd.to_datetime(frame["started"], format="ISO8601", utc=True)
    return frame.astype(_COLUMNS)


def _line(about: dict[str, Any]) -> dict[str, object]:
    tokens = about["tokens"]
    return {
        **{name: about.get(name) for name in _COLUMNS},
        **{name: number for name, number in about["counts"].items() if name in _COLUMNS},
        "wall_s": None if "process" in about else about["wall_s"],
        "engine": about["engine"]["name"],
        "prompt_tokens": tokens["prompt"],
        "completion_tokens": tokens["completion"],
    }
