"""Whether the process that began a run is still there: a file that it holds open and locked.

Process ids would not do: they are given again, most of all in containers, which also share a
directory under different host names.
"""

from __future__ import annotations

import atexit
import os
import secrets
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.lifetime import renew_after_fork

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = ".running-"
_PRIVATE_FILE = 0o600


class _Signs:
    """The files by which others see that this process lives, one in each directory."""

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In the child: let go of the parent's, which stay locked by it."""
        self._lock = threading.Lock()
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held = {}

    def show(self, directory: Path) -> str:
        """Return the name of this process's sign in a directory, made if there is none."""
        with self._lock:
            known = [path.name for path in self._held if path.parent == directory]
            if known and (directory / known[0]).exists():
                return known[0]
            path = directory / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE)
            with suppress(OSError):  # a file system without locks
                _try_lock(descriptor)
            self._held[path] = descriptor
            return path.name

    def holds(self, path: Path) -> bool:
        """Tell whether a sign is one of this process."""
        with self._lock:
            return path in self._held

    def take_down(self) -> None:
        """Remove them; for the end of the process."""
        with self._lock:
            for path, descriptor in self._held.items():
                with suppress(OSError):
                    os.close(descriptor)
                    path.unlink(missing_ok=True)
            self._held = {}


_signs = _Signs()
atexit.register(_signs.take_down)


def show_sign(directory: Path) -> str:
    """Return the name by which `is_there` knows this process in a directory.

    Raises
    ------
    OSError
        If nothing can be written there.
    """
    return _signs.show(directory.absolute())


def is_there(directory: Path, sign: object) -> bool:
    """Tell whether the process of a sign still runs; what it left behind is removed.

    Where the file system has no locks no process is there but this one.

    Parameters
    ----------
    directory : path
        Where the sign was made.
    sign : object
        What `show_sign` returned, in whatever process.
    """
    if not isinstance(sign, str) or not sign.startswith(PREFIX) or {"/", "\\"} & set(sign):
        return False
    path = directory.absolute() / sign
    if _signs.holds(path):
        return True
    try:
        if sys.platform != "win32":
            descriptor = os.open(path, os.O_RDWR)
            try:
                _try_lock(descriptor)
            finally:
                os.close(descriptor)
        path.unlink()  # which Windows refuses while it is open
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return False
    return False


def _try_lock(descriptor: int) -> None:
    """Lock a file, or raise if another process has locked it; not on Windows."""
    if sys.platform == "win32":
        return
    import fcntl  # noqa: PLC0415  # Windows has none

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
