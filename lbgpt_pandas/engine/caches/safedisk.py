"""diskcache without pickle. Importing this module loads diskcache."""

from __future__ import annotations

from typing import Any

import diskcache

INLINE = 2**62
"""Characters up to which a value stays in the database: all, no file lies beside it."""

_MODE_RAW = 1


class SafeDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Serialisation for ``diskcache.Cache(..., disk=SafeDisk)``: plain str and bytes only.

    diskcache pickles what it does not know on the way in. On the way out it unpickles whatever
    its database says is a pickle, and so runs the code of a planted row; its ``JSONDisk`` does
    so, too. Here neither happens, for keys or values.

    Parameters
    ----------
    directory : str
        Given by diskcache.
    min_file_size, pickle_protocol : int
        Given by diskcache and not used: values never become files or pickles.

    Examples
    --------
    >>> import diskcache, tempfile
    >>> with tempfile.TemporaryDirectory() as path, diskcache.Cache(path, disk=SafeDisk) as cache:
    ...     cache["question"] = "answer"
    ...     cache["question"]
    'answer'
    """

    def __init__(self, directory: str, min_file_size: int = 0, pickle_protocol: int = 0) -> None:
        del min_file_size
        super().__init__(directory, min_file_size=INLINE, pickle_protocol=pickle_protocol)

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
        _check_text("value", value)
        return super().store(value, read, key=key)

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
