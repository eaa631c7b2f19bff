"""The directory of a cache: whom it belongs to, and on what it lies."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
PRIVATE_DIRECTORY, PRIVATE_FILE = 0o700, 0o600

MOUNTS = Path("/proc/mounts")
"""What is mounted where, on Linux."""

NETWORK_FILE_SYSTEMS = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs"),
        *("ceph", "lustre", "gpfs", "beegfs", "fuse.sshfs", "fuse.glusterfs"),
    }
)


def make_private(directory: Path) -> None:
    """Make a directory for this user alone, or check the one that is there.

    An existing directory keeps its mode. A new or empty one is kept out of git.

    Raises
    ------
    ConfigurationError
        See `check_private`.
    OSError
        If it cannot be made.
    """
    if not os.path.lexists(directory):
        directory.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    check_private(directory)
    if not any(directory.iterdir()):
        with suppress(FileExistsError), (directory / ".gitignore").open("x") as file:
            file.write("*\n")


def check_private(directory: Path) -> None:
    """Refuse a directory in which somebody else could plant answers.

    Raises
    ------
    ConfigurationError
        If it is a link or a file, belongs to another user than this one or root, or may be
        written by its group or by all.
    FileNotFoundError
        If there is none.
    """
    status = directory.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise ConfigurationError(f"the cache directory {directory} is a link; give its target")
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigurationError(f"the cache directory {directory} is a file; give a directory")
    if os.name != "posix":
        return
    if status.st_uid not in {os.getuid(), 0}:
        raise ConfigurationError(
            f"the cache directory {directory} belongs to another user, who could plant answers; "
            "give one of your own"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            f"others may write to the cache directory {directory} and plant answers; "
            f"run: chmod go-w '{directory}'"
        )


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep out other threads and processes that lock the same directory; not on Windows."""
    if sys.platform == "win32":
        yield
        return
    import fcntl  # noqa: PLC0415  # Windows has none

    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def network_file_system(directory: Path) -> str | None:
    """Return the kind of network file system that a directory lies on, such as ``"nfs4"``.

    Parameters
    ----------
    directory : path
        An existing directory.

    Returns
    -------
    str or None
        None on a disk of this machine, and where it cannot be told.
    """
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    place = directory.resolve()
    best, kind = -1, ""
    for line in lines:
        _, mount, name, *_ = line.split(" ")
        # A space in a path is written as \040 there.
        point = Path(mount.replace("\\040", " "))
        # Of two mounts on one point the later one is seen.
        if place.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), name
    return kind if kind in NETWORK_FILE_SYSTEMS else None
