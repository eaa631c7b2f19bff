"""A database file with a row for each key, whatever else is in its rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import orjson

from lbgpt_pandas.engine.caches.sqlite_file import (
    Connection,
    identity,
    make_file,
    open_read_only,
    open_reader,
    open_writer,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Literal

ROWS_A_STATEMENT = 2_000


class KeyedFile(ABC):
    """The opened file; its methods block and belong inside `no_fork`, in any thread.

    Parameters
    ----------
    directory : path
        An existing directory.
    read_only : bool
        Whether nothing is written, not even the tables.
    journal_mode : {"wal", "truncate"}
        How SQLite keeps commits whole; "wal" needs a disk of this machine.

    Raises
    ------
    sqlite3.Error, OSError
        If it cannot be opened; see `is_corrupt` and `is_busy`.
    """

    name: ClassVar[str]
    """Of the file."""

    by_keys: ClassVar[str]
    """Selects key and text by a JSON list of keys."""

    after_number: ClassVar[str]
    """Selects number, key and the rest of the rows above a number, ascending, at most so many."""

    without_keys: ClassVar[str]
    """Deletes by a JSON list of keys."""

    def __init__(
        self, directory: Path, *, read_only: bool, journal_mode: Literal["wal", "truncate"] = "wal"
    ) -> None:
        self.read_only = read_only
        self._path = directory / self.name
        if not read_only:
            make_file(self._path)
            self._make_tables(journal_mode)
        elif not self._path.exists() or not self._path.stat().st_size:
            # An empty file is what a full disk leaves behind.
            raise FileNotFoundError(f"there is no {self.name} in {directory}")
        self.file = identity(self._path)
        open_one = open_read_only if read_only else open_reader
        self._reader = Connection(partial(open_one, self._path))
        self._writer = Connection(partial(open_writer, self._path, journal_mode))

    @abstractmethod
    def _make_tables(self, journal_mode: Literal["wal", "truncate"]) -> None:
        """Make what is not there yet."""

    def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts under `keys`."""
        # In order, neighbouring pages of the index are read once.
        wanted = sorted(keys)
        found: dict[str, str] = {}
        with self._reader.use() as connection:
            for some in json_lists(wanted):
                found.update(connection.execute(self.by_keys, (some,)))
        return found

    def delete_many(self, keys: Sequence[str]) -> int:
        """Remove rows, all or none; return how many there were."""
        with self._writer.transaction() as connection:
            return sum(
                connection.execute(self.without_keys, (some,)).rowcount for some in json_lists(keys)
            )

    def _rows_after(self, number: int) -> tuple[int, list[tuple[Any, ...]]]:
        """Return the last number of the next rows, and these rows without their numbers."""
        with self._reader.use() as connection:
            rows = connection.execute(self.after_number, (number, ROWS_A_STATEMENT)).fetchall()
        return (rows[-1][0] if rows else number), [row[1:] for row in rows]

    def is_current(self) -> bool:
        """Return whether the file still has its name: nobody removed it or moved it aside."""
        return identity(self._path) == self.file

    def close(self) -> None:
        """Close the connections; the last one of all processes folds the write-ahead log in."""
        self._reader.close()
        self._writer.close()


def json_lists(values: Sequence[object]) -> Iterator[str]:
    """Yield JSON lists of the values, of as many as one statement takes."""
    for start in range(0, len(values), ROWS_A_STATEMENT):
        yield orjson.dumps(list(values[start : start + ROWS_A_STATEMENT])).decode()
