"""The file of runs: a line for each, and the keys of its rows."""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from binascii import unhexlify
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import orjson

from lbgpt_pandas.engine.caches.directory import locked
from lbgpt_pandas.engine.caches.sqlite_file import (
    Connection,
    identity,
    make_file,
    open_read_only,
    open_writer,
)
from lbgpt_pandas.engine.keys import KEY_VERSION

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

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
_AT_ONCE = 10_000
_PREFIX = f"{KEY_VERSION}:"
_NO_KEY = _PREFIX + "0" * (2 * _DIGEST_BYTES)


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
        digests = io.BytesIO()  # some at a time: the letters of all take five times the memory
        for start in range(0, len(keys), _AT_ONCE):
            digests.write(_digests_of(keys[start : start + _AT_ONCE]))
        # Digests are random: compressing them would take long and save nothing.
        is_plain = np.array_equal(codes, np.arange(len(codes)))
        packed = b"" if is_plain else zlib.compress(codes.astype("<i4").tobytes(), 1)
        return cls(digests.getvalue(), packed)

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


def _digests_of(keys: Sequence[str]) -> bytes:
    if "" in keys:
        keys = [key or _NO_KEY for key in keys]
    letters = np.frombuffer("".join(keys).encode(), dtype=np.uint8)
    return unhexlify(letters.reshape(len(keys), -1)[:, len(_PREFIX) :].tobytes())


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
            if not _has_tables(connection):
                return []
            return [json.loads(text) for (text,) in connection.execute(statement, (limit,))]

    def latest(self, keys: str, but: str) -> dict[str, Any] | None:
        """Return the newest other run with these keys, which are named by their digest."""
        statement = (
            "SELECT about FROM runs WHERE keys = ? AND id != ? "
            "ORDER BY started DESC, id DESC LIMIT 1"
        )
        with self._connection.use() as connection:
            found = connection.execute(statement, (keys, but)).fetchone()
        return None if found is None else json.loads(found[0])

    def change(self, about: dict[str, Any]) -> None:
        """Put this in the place of what is said of a run."""
        with self._connection.transaction() as connection:
            connection.execute(
                "UPDATE runs SET about = ? WHERE id = ?", (_dump(about), about["id"])
            )

    def keys(self, run: str) -> Keys | None:
        """Return the keys of a run, None if there is no such run."""
        statement = (
            "SELECT digests, codes FROM runs JOIN keys ON keys.sha256 = runs.keys WHERE id = ?"
        )
        with self._connection.use() as connection:
            if not _has_tables(connection):
                return None
            found = connection.execute(statement, (run,)).fetchone()
        return None if found is None else Keys(*found)

    def is_current(self) -> bool:
        """Return whether the file still has its name."""
        return identity(self._path) == self.file

    def close(self) -> None:
        """Close the connection; any use opens it again."""
        self._connection.close()


def _has_tables(connection: sqlite3.Connection) -> bool:
    # A full disk leaves a file behind that has none.
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {"runs", "keys"} <= {name for (name,) in found}


def _dump(about: dict[str, Any]) -> str:
    try:
        return orjson.dumps(about).decode()
    except TypeError:
        # Lone surrogates of a template, integers of more than 64 bits.
        return json.dumps(about)
