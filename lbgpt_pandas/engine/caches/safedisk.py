"""diskcache without pickle. Importing this module loads diskcache."""

from __future__ import annotations

import sqlite3
from typing import Any

import diskcache

_MODE_RAW = 1


class SafeDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Serialisation for ``diskcache.Cache(..., disk=SafeDisk)``: plain str and bytes only.

    diskcache pickles what it does not know on the way in. On the way out it unpickles whatever
    its database says is a pickle, and so runs the code of a planted row; its ``JSONDisk`` does
    so, too. Here neither happens, for keys or values, and no value becomes a file.

    Examples
    --------
    >>> import diskcache, tempfile
    >>> with tempfile.TemporaryDirectory() as path, diskcache.Cache(path, disk=SafeDisk) as cache:
    ...     cache["question"] = "answer"
    ...     cache["question"]
    'answer'
    """

    def put(self, key: object) -> Any:
        """Return the columns of a key.

        Raises
        ------
        TypeError
            If it is neither str nor bytes.
        """
        _check_text("key", key)
        return super().put(key)

    def get(self, key: object, raw: bool) -> Any:  # noqa: FBT001  # diskcache's signature
        """Return the key of a row.

        Raises
        ------
        ValueError
            If it is a pickle.
        """
        if not raw:
            raise ValueError("a key in this diskcache directory is a pickle, which is not read")
        return super().get(key, raw)

    def store(self, value: object, read: bool, key: object = None) -> Any:  # noqa: FBT001
        """Return the columns of a value.

        Raises
        ------
        TypeError
            If it is neither str nor bytes.
        """
        del read, key
        _check_text("value", value)
        # Long ones as well: diskcache would put them into files, which nothing here reads.
        kept = sqlite3.Binary(value) if isinstance(value, bytes) else value
        return 0, _MODE_RAW, None, kept

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> Any:  # noqa: FBT001
        """Return the value of a row.

        Raises
        ------
        ValueError
            If it is a pickle or lies in a file.
        """
        if mode != _MODE_RAW:
            raise ValueError("a value in this diskcache directory is not plain text, and not read")
        return super().fetch(mode, filename, value, read)


def _check_text(what: str, given: object) -> None:
    # Subclasses of str reach diskcache's pickle.
    if type(given) is not str and type(given) is not bytes:
        raise TypeError(f"a cache {what} is str or bytes here, not {type(given).__name__}")
