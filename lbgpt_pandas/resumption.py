"""Runs whose process ended before they did, and the runs that go on with them."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.portal import run_sync
from lbgpt_pandas.processes import is_there, show_sign
from lbgpt_pandas.settings import settings

if TYPE_CHECKING:
    from pathlib import Path

    from lbgpt_pandas.engine.caching import Caching

RUNNING, INTERRUPTED, ABORTED = "running", "interrupted", "aborted"

FAILURES = (OSError, sqlite3.Error, ConfigurationError, TypeError, ValueError, KeyError)
"""What a registry raises that cannot be used, or has lines of another program."""

_STORING, _READING = ("use", "refresh"), ("use", "read_only")
_KEYS_A_LOOKUP = 2_000


class Register(Protocol):
    """The registry of a directory."""

    directory: Path

    def latest(self, keys: Any, *, but: str) -> dict[str, Any] | None:
        """Return the newest run with these keys, other than the one named."""
        ...

    def keys(self, run: str) -> list[str | None]:
        """Return the keys of a run in row order."""
        ...

    def change(self, about: dict[str, Any]) -> None:
        """Put this in the place of what is said of a run."""
        ...


class Resumed(NamedTuple):
    """The run that another one goes on with.

    Attributes
    ----------
    id : str
        Of the run that did not finish.
    there, rows : int
        Rows that had an answer when the other one began, and all of its rows.
    """

    id: str
    there: int
    rows: int

    def __str__(self) -> str:
        return f"run {self.id}: {self.there:,} of {self.rows:,} rows were there"


def begun(directory: Path, caching: Caching) -> dict[str, object]:
    """Return what a run notes when it begins, for `as_of_now` in another process.

    Raises
    ------
    OSError
        If nothing can be written in the directory.
    """
    return {"status": RUNNING, "process": show_sign(directory), "cache": _location(caching.tier)}


def resumed(
    place: Register, keys: object, *, run: str, mode: str, there: int, rows: int
) -> Resumed | None:
    """Find the run that this one goes on with.

    It is the newest with the same requests, if it did not finish and stored what it had.

    Parameters
    ----------
    place : Register
        Where runs are registered.
    keys : Keys
        This run's.
    run : str
        Its id.
    mode : str
        Its ``cache_mode``.
    there, rows : int
        Its rows that have an answer already, and all of them.

    Raises
    ------
    OSError, sqlite3.Error, ConfigurationError, KeyError, TypeError, ValueError
        If the registry cannot be used.
    """
    if not there or mode not in _READING:
        return None
    last = place.latest(keys, but=run)
    if last is None or last["cache_mode"] not in _STORING:
        return None
    status = as_of_now(place, last, there=there)["status"]
    return Resumed(last["id"], there, rows) if status in (INTERRUPTED, ABORTED) else None


def as_of_now(
    place: Register, about: dict[str, Any], *, there: int | None = None
) -> dict[str, Any]:
    """Return what is known of a run by now; that its process ended is written down, once.

    Parameters
    ----------
    place : Register
        Where it is registered.
    about : dict
        What it noted itself.
    there : int, optional
        How many of its rows have an answer; counted in the cache by default.
    """
    if about.get("status") != RUNNING or is_there(place.directory, about.get("process")):
        return about
    counts, closed = about["counts"], {**about, "status": INTERRUPTED}
    # Without a cache that can be counted it is as many as there were at the beginning.
    with suppress(*FAILURES):
        found = _count(place, about) if there is None else there
        closed["counts"] = counts | {"done": max(found, counts["done"])}
        place.change(closed)
    return closed


def _count(place: Register, about: dict[str, Any]) -> int:
    """Count the rows of a run that have an answer in the cache in force."""
    tier = settings().cache
    if tier is None or about["cache"] != _location(tier):
        return 0
    keys = [key for key in place.keys(about["id"]) if key is not None]
    different = list(dict.fromkeys(keys))
    found: set[str] = set()
    for start in range(0, len(different), _KEYS_A_LOOKUP):
        some = different[start : start + _KEYS_A_LOOKUP]
        found.update(run_sync(tier.cache.get_many(some)))
    return sum(key in found for key in keys)


def _location(tier: Any) -> str | None:
    cache = getattr(tier, "cache", None)
    return str(getattr(cache, "location", type(cache).__name__)) if tier is not None else None
