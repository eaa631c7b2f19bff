"""The registry of runs: a line for each, in a database beside the cache."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from binascii import unhexlify
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import orjson
import pandas as pd

from lbgpt_pandas.engine.caches.directory import locked
from lbgpt_pandas.engine.caches.disk import DiskCache, default_directory
from lbgpt_pandas.engine.caches.holder import DatabaseHolder
from lbgpt_pandas.engine.caches.sqlite_file import (
    Connection,
    identity,
    make_file,
    open_read_only,
    open_writer,
)
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.keys import KEY_VERSION
from lbgpt_pandas.engine.secrets import redact
from lbgpt_pandas.settings import kept, settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lbgpt_pandas.reports import RunReport

DATABASE = "runs.db"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, started TEXT NOT NULL, about TEXT NOT NULL, keys TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
    sha256 TEXT PRIMARY KEY, digests BLOB NOT NULL, codes BLOB NOT NULL
);
"""
_DIGEST_BYTES = 32
_PREFIX = f"{KEY_VERSION}:"
_NO_KEY = _PREFIX + "0" * (2 * _DIGEST_BYTES)

_UTC = "datetime64[us, UTC]"
_COLUMNS = {
    "id": "string",
    "started": _UTC,
    "wall_s": "float64",
    "status": "string",
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

_registries: dict[object, Registry] = {}
_told: set[object] = set()


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a run in row order, as they are stored.

    Attributes
    ----------
    digests : bytes
        Of the different requests, 32 bytes each.
    codes : bytes
        Number of each row's request as int32, -1 for none; compressed.
    """

    digests: bytes
    codes: bytes

    @classmethod
    def of(cls, keys: Sequence[str], codes: NDArray[np.int64]) -> Keys:
        """Pack the keys of requests, and the rows that ask for them."""
        if "" in keys:
            keys = [key or _NO_KEY for key in keys]
        letters = np.frombuffer("".join(keys).encode(), dtype=np.uint8)
        bare = letters.reshape(len(keys), -1)[:, len(_PREFIX) :] if keys else letters
        # Digests are random: compressing them would take long and save nothing.
        digests = unhexlify(bare.tobytes())
        is_plain = np.array_equal(codes, np.arange(len(codes)))
        packed = b"" if is_plain else zlib.compress(codes.astype("<i4").tobytes(), 1)
        return cls(digests, packed)

    @property
    def sha256(self) -> str:
        """Digest of both."""
        digest = hashlib.sha256(self.digests)
        digest.update(self.codes)
        return digest.hexdigest()

    def in_order(self) -> list[str | None]:
        """Return each row's key, None where it has none."""
        text = self.digests.hex()
        width = 2 * _DIGEST_BYTES
        found = [_PREFIX + text[start : start + width] for start in range(0, len(text), width)]
        keys = [None if key == _NO_KEY else key for key in found]
        if not self.codes:
            return keys
        numbers = np.frombuffer(zlib.decompress(self.codes), dtype="<i4").tolist()
        return [keys[number] if number >= 0 else None for number in numbers]


class RunFile:
    """The opened database; its methods block.

    Parameters
    ----------
    directory : path
        An existing directory.
    read_only : bool
        Whether nothing is written.
    journal_mode : {"wal", "truncate"}
        How SQLite keeps commits whole.
    """

    def __init__(
        self, directory: Path, *, read_only: bool, journal_mode: Literal["wal", "truncate"] = "wal"
    ) -> None:
        self.read_only = read_only
        self._path = directory / DATABASE
        if read_only:
            if not self._path.exists():
                raise FileNotFoundError(f"no run is registered in {directory}")
            self._connection = Connection(partial(open_read_only, self._path))
        else:
            make_file(self._path)
            self._connection = Connection(partial(open_writer, self._path, journal_mode))
            # SQLite lets nobody wait for the change to its write-ahead log.
            with locked(directory), self._connection.use() as connection:
                connection.executescript(_SCHEMA)
        self.file = identity(self._path)

    def add(self, about: dict[str, Any], keys: Keys) -> None:
        """Enter a run; keys that another one has as well are stored once."""
        text, digest = _dump(about), keys.sha256
        with self._connection.transaction() as connection:
            stored = connection.execute("SELECT 1 FROM keys WHERE sha256 = ?", (digest,))
            if stored.fetchone() is None:
                connection.execute(
                    "INSERT INTO keys VALUES (?, ?, ?)", (digest, keys.digests, keys.codes)
                )
            connection.execute(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)",
                (about["id"], about["started"], text, digest),
            )

    def all(self, limit: int = -1) -> list[dict[str, Any]]:
        """Return every run, newest first; at most `limit`."""
        statement = "SELECT about FROM runs ORDER BY started DESC, id DESC LIMIT ?"
        with self._connection.use() as connection:
            return [json.loads(text) for (text,) in connection.execute(statement, (limit,))]

    def keys(self, run: str) -> Keys | None:
        """Return the keys of a run, None if there is no such run."""
        statement = (
            "SELECT digests, codes FROM runs JOIN keys ON keys.sha256 = runs.keys WHERE id = ?"
        )
        with self._connection.use() as connection:
            found = connection.execute(statement, (run,)).fetchone()
        return None if found is None else Keys(*found)

    def is_current(self) -> bool:
        """Return whether the file still has its name."""
        return identity(self._path) == self.file

    def close(self) -> None:
        """Close the connection; any use opens it again."""
        self._connection.close()


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

    def add(self, about: dict[str, Any], keys: Keys) -> None:
        """Enter a run.

        Raises
        ------
        OSError, sqlite3.Error, ConfigurationError
            If it cannot be written.
        """
        if not self.read_only:
            self._holder.do(partial(RunFile.add, about=about, keys=keys), writes=True)

    def take_notices(self) -> list[str]:
        """Return what has to be told, each text once."""
        return self._holder.take_notices()

    def all(self, *, limit: int = -1) -> list[dict[str, Any]]:
        """Return every run, newest first, at most `limit`; none if none was registered yet."""
        if not (self.directory / DATABASE).exists():
            return []
        return self._holder.do(partial(RunFile.all, limit=limit))

    def keys(self, run: str) -> list[str | None]:
        """Return the keys of a run in row order, None for rows without a request.

        Raises
        ------
        ConfigurationError
            If there is no such run.
        """
        has_file = (self.directory / DATABASE).exists()
        found = self._holder.do(partial(RunFile.keys, run=run)) if has_file else None
        if found is None:
            raise ConfigurationError(
                f"no run {run!r} is registered; lb.runs() lists those that are"
            )
        return found.in_order()


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


def register(report: RunReport) -> list[str]:
    """Enter a run that is over; it never fails for that.

    Returns
    -------
    list of str
        What there is to tell; a failure once in this process until it works again.
    """
    place: Registry | None = None
    try:
        place = registry()
        place.add(*report.for_registry())
    except (OSError, sqlite3.Error, ConfigurationError, TypeError, ValueError) as error:
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
        ``wall_s``, ``status`` (``done``; ``failed``: at least one row did; ``interrupted``;
        ``aborted``: it raised), ``template``, ``template_sha256``, ``system``, ``params``,
        ``model``, ``engine``, ``deployments``, ``cache_mode``, counts of rows (``rows``,
        ``done``, ``failed``, ``skipped``, ``cached``, ``semantic``, ``shared``), ``calls``,
        ``prompt_tokens``, ``completion_tokens``, ``cost_usd`` and ``saved_usd`` (NA if a price
        is unknown), ``columns`` (fields of the template) and ``versions``.

    Examples
    --------
    >>> from lbgpt_pandas.testing import ScriptedGPT
    >>> cities = pd.Series(["Paris", "Lyon"])
    >>> answers = cities.lbgpt.complete("Where is {}?", engine=ScriptedGPT("France"))
    >>> runs().loc[0, ["template", "status"]].tolist()
    ['Where is {}?', 'done']
    """
    lines = []
    for about in registry().all():
        with suppress(KeyError, TypeError, AttributeError):  # another program's line is none
            lines.append(_line(about))
    frame = pd.DataFrame(lines, columns=list(_COLUMNS))
    frame["started"] = pd.to_datetime(frame["started"], format="ISO8601", utc=True)
    return frame.astype(_COLUMNS)


def _dump(about: dict[str, Any]) -> str:
    try:
        return orjson.dumps(about).decode()
    except TypeError:
        # Lone surrogates of a template, integers of more than 64 bits.
        return json.dumps(about)


def _line(about: dict[str, Any]) -> dict[str, object]:
    tokens = about["tokens"]
    return {
        **{name: about.get(name) for name in _COLUMNS},
        **{name: number for name, number in about["counts"].items() if name in _COLUMNS},
        "engine": about["engine"]["name"],
        "prompt_tokens": tokens["prompt"],
        "completion_tokens": tokens["completion"],
    }
