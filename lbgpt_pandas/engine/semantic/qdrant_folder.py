"""A folder of Qdrant's local mode, opened only if nothing in it could run.

The local mode pickles its points, and so would run the code of a planted row.
"""

from __future__ import annotations

import json
import pickletools
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.caches.directory import PRIVATE_FILE, make_private
from lbgpt_pandas.engine.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

_COLLECTIONS = "meta.json"
_LOCK = ".lock"
_POINTS = "collection/*/storage.sqlite"
_HAS_TABLE = "SELECT 1 FROM sqlite_master WHERE name = 'points'"
_HEAD = ["qdrant_client.http.models.models", "PointStruct", "STACK_GLOBAL"]
"""How the pickle of a point begins: the one class that it names."""

_PLAIN = frozenset(
    {
        *("FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "MARK", "STOP"),
        *("NEWOBJ", "BUILD", "NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT"),
        *("BININT", "BININT1", "BININT2", "LONG1", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_SET", "ADDITEMS"),
    }
)
"""Steps that name no class and call nothing but that class."""


def check_folder(folder: Path) -> None:
    """Make a folder for this user alone, or refuse one that cannot or must not be opened.

    Raises
    ------
    ConfigurationError
        If it is a link or a file, may be written by others, is used by another process, is
        damaged, or holds something else than points with plain payloads.
    OSError
        If it cannot be made or read.
    """
    make_private(folder)
    # The client would leave what it has opened so far open.
    if _is_in_use(folder / _LOCK):
        raise in_use(folder)
    file = folder / _COLLECTIONS
    try:
        if file.exists():
            json.loads(file.read_bytes())
        for file in sorted(folder.glob(_POINTS)):
            _check_points(file)
    except (sqlite3.DatabaseError, ValueError) as error:
        raise ConfigurationError(
            f"{file} is damaged ({error}); move the folder {folder} aside, or give another path"
        ) from error


def in_use(folder: Path) -> ConfigurationError:
    """Return the error for a folder that another process has opened."""
    return ConfigurationError(
        f"another process uses the Qdrant folder {folder}, and Qdrant's local mode serves one at a "
        "time; give another path, url= of a server, or FaissSemanticCache, which processes may "
        "share"
    )


def close_to_others(folder: Path) -> None:
    """Let nobody else read the points; what the local mode makes, all may read."""
    for file in folder.glob(_POINTS):
        file.chmod(PRIVATE_FILE)


def _is_in_use(lock: Path) -> bool:
    if sys.platform == "win32" or not lock.exists():
        return False
    import fcntl  # noqa: PLC0415  # Windows has none

    with lock.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _check_points(file: Path) -> None:
    # For writing: what a killed process began is undone first.
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True)) as connection:
        if not connection.execute(_HAS_TABLE).fetchone():
            return
        for (point,) in connection.execute("SELECT point FROM points"):
            try:
                _check_point(point)
            except ValueError as error:
                raise ConfigurationError(
                    f"{file} holds something else than points ({error}), which could run code "
                    "when it is opened; move the folder aside, or give another path"
                ) from error


def _check_point(pickled: object) -> None:
    """Read the steps of a pickle without taking one.

    Raises
    ------
    ValueError
        If one of them could lead to something else than a point of plain values.
    """
    if not isinstance(pickled, bytes):
        raise ValueError(f"it is a {type(pickled).__name__}")  # noqa: TRY004  # damage, not a bug
    head: list[object] = []
    for step, argument, _ in pickletools.genops(pickled):
        if len(head) < len(_HEAD):
            if step.name not in {"PROTO", "FRAME", "MEMOIZE"}:
                head.append(argument if argument is not None else step.name)
            if head != _HEAD[: len(head)]:
                raise ValueError(f"it begins with {head[-1]!r}")
        elif step.name not in _PLAIN:
            raise ValueError(f"it has a step {step.name}")
    if head != _HEAD:
        raise ValueError("it ends at once")
