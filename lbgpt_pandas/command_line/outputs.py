"""Where a command writes: a file that is there in full or not at all, or stdout."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lbgpt_pandas.command_line.tables import Format
from lbgpt_pandas.engine.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

STDOUT = "-"


@dataclass(frozen=True, slots=True)
class Output:
    """A place for a table.

    Attributes
    ----------
    path : Path or None
        The file; None for stdout.
    form : Format
        How the table is written.
    replaces : bool
        Whether a file that is there may be replaced.
    """

    path: Path | None
    form: Format
    replaces: bool

    @classmethod
    def of(cls, name: str, *, source: str, replaces: bool) -> Output:
        """Check a place before there is anything to write.

        Parameters
        ----------
        name : str
            Of a file, or ``-`` for stdout, which gets the format of `source`.
        source : str
            The file that is read.
        replaces : bool
            Whether a file that is there may be replaced.

        Raises
        ------
        ConfigurationError
            If it cannot be written, or is there and must not be replaced.
        """
        if name == STDOUT:
            return cls(None, Format(Format.of(source).kind), replaces)
        output = cls(Path(name).expanduser(), Format.of(name), replaces)
        check_target(output.path, replaces=replaces)
        return output

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Open it for a table; a file appears under its name when the block ends well.

        Raises
        ------
        ConfigurationError
            If a file has come there meanwhile and must not be replaced.
        OSError
            If it cannot be written; what was there before is still there.
        """
        if self.path is None:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
            return
        # A link stays, and its target is replaced.
        target = Path(os.path.realpath(self.path))
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                Path(temporary).chmod(_mode(target))
                os.fsync(file.fileno())
            check_target(self.path, replaces=self.replaces)
            Path(temporary).replace(target)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise
        _keep_folder(target.parent)


def check_target(path: Path | None, *, replaces: bool) -> None:
    """Raise a ConfigurationError unless a file can be written there."""
    if path is None:
        return
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{str(path)!r} is no plain file; --out - writes to stdout")
    if path.exists() and not replaces:
        raise ConfigurationError(f"{str(path)!r} is there already; --force replaces it")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise ConfigurationError(f"there is no folder {str(folder)!r}")
    if not os.access(folder, os.W_OK):
        raise ConfigurationError(f"nothing may be written into the folder {str(folder)!r}")


def _mode(target: Path) -> int:
    """Permissions of the file that is replaced, else those of any new file."""
    with suppress(FileNotFoundError):
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _keep_folder(folder: Path) -> None:
    """Make the new name survive a power cut, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
