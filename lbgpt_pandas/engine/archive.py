"""Archives: a zip file with answers, what they answer, and what identifies them.

``manifest.json`` says what the archive is of, ``responses.jsonl`` has a line for each answer:
its key, its sealed envelope, and the request or null. ``SHA256SUMS`` has the checksums of both.
Nothing is ever extracted to disk, and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import tempfile
import time
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from lbgpt_pandas.engine.caches.envelope import CorruptEntry, unseal
from lbgpt_pandas.engine.errors import CacheCorrupt, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

FORMAT, FORMAT_VERSION = "lbgpt-archive", 1

MANIFEST, RESPONSES, SUMS = "manifest.json", "responses.jsonl", "SHA256SUMS"

MAX_BYTES = 4 * 2**30
"""Of all members together, uncompressed."""

MAX_RATIO, RATIO_FROM_BYTES = 400, 10 * 2**20
"""How much a member may shrink, from which size on; answers have random digests in each line."""

MOST_BYTES = {SUMS: 4_096, MANIFEST: 256 * 2**20}
"""Of the members that are read in one go; a manifest takes some 70 bytes a row."""

MAX_LINE_BYTES = 256 * 2**20

GIVEN_UP_AFTER_S = 3_600
"""Since its last byte was written, an unfinished archive is what a killed export left behind."""

_UNFINISHED = ".unfinished"
_CHUNK = 2**20
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
_ENCRYPTED = 0x1
_BY_KEY = ("failures", "unsendable", "near", "asked_again")
_UNIX = 3


class Entry(NamedTuple):
    """An answer as an archive holds it.

    Attributes
    ----------
    key : str
        The request's key.
    envelope : str
        The sealed answer (see `seal`).
    request : dict or None
        What was asked (see `record_of`); None where only the answer is known.
    """

    key: str
    envelope: str
    request: dict[str, object] | None = None


def write_archive(
    path: str | os.PathLike[str], manifest: Mapping[str, object], entries: Iterable[Entry]
) -> None:
    """Write an archive for this user alone; the same arguments give the same bytes.

    Parameters
    ----------
    path : path
        A file there is replaced, but only by a finished archive.
    manifest : mapping
        JSON data; ``format``, ``version`` and the number of ``responses`` are added.
    entries : iterable of Entry
        The answers, in order.

    Raises
    ------
    OSError
        If it cannot be written, or its folder is missing; what was at `path` is still there.
    """
    target = Path(path).expanduser()
    descriptor, temporary = _begin(target)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with zipfile.ZipFile(file, "w") as zipped:
                responses, count = _write_responses(zipped, entries)
                head = {"format": FORMAT, "version": FORMAT_VERSION, "responses": count}
                # By name only at the top: the order inside of tools is part of a key.
                ordered = dict(sorted({**manifest, **head}.items()))
                about = _dump(ordered, orjson.OPT_INDENT_2)
                _write(zipped, MANIFEST, about)
                digest = hashlib.sha256(about).hexdigest()
                sums = f"{digest}  {MANIFEST}\n{responses}  {RESPONSES}\n"
                _write(zipped, SUMS, sums.encode())
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


def _begin(target: Path) -> tuple[int, str]:
    """Make the file that will be renamed, beside the target; remove those of killed exports."""
    try:
        place = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=_UNFINISHED)
    except OSError as error:
        # It names a file that nobody has asked for.
        raise OSError(error.errno, error.strerror, str(target.parent)) from error
    unfinished = re.compile(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}{_UNFINISHED}")
    with suppress(OSError):
        for path in target.parent.iterdir():
            if unfinished.fullmatch(path.name) and _is_old_file(path):
                path.unlink()
    return place


def _is_old_file(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and time.time() - status.st_mtime > GIVEN_UP_AFTER_S


def _write_responses(zipped: zipfile.ZipFile, entries: Iterable[Entry]) -> tuple[str, int]:
    digest, count = hashlib.sha256(), 0
    with zipped.open(_member(RESPONSES), "w", force_zip64=True) as file:
        for entry in entries:
            raw = _dump(entry._asdict()) + b"\n"
            digest.update(raw)
            file.write(raw)
            count += 1
    return digest.hexdigest(), count


def _write(zipped: zipfile.ZipFile, name: str, content: bytes) -> None:
    with zipped.open(_member(name), "w", force_zip64=True) as file:
        file.write(content)


def _member(name: str) -> zipfile.ZipInfo:
    """Describe a member without the time and the machine at which it is written."""
    info = zipfile.ZipInfo(name, _LONG_AGO)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = _UNIX
    info.external_attr = 0o600 << 16
    return info


def _dump(value: object, option: int = 0) -> bytes:
    try:
        return orjson.dumps(value, option=option)
    except TypeError:
        # Integers of more than 64 bits.
        return json.dumps(value).encode()


class Archive:
    """A verified archive; get one by `open_archive`.

    Attributes
    ----------
    path : Path
        Where it lies.
    manifest : dict
        What it is of.
    """

    def __init__(self, path: Path, zipped: zipfile.ZipFile, manifest: dict[str, Any]) -> None:
        self.path, self.manifest = path, manifest
        self._zipped = zipped

    def __repr__(self) -> str:
        return f"Archive({str(self.path)!r})"

    def entries(self) -> Iterator[Entry]:
        """Read the answers in order, each verified.

        Raises
        ------
        CacheCorrupt
            If an answer is not what was sealed under its key.
        """
        with _naming(self.path, RESPONSES), self._zipped.open(RESPONSES) as raw:
            file = io.BufferedReader(raw, _CHUNK)  # type: ignore[type-var]  # a raw stream by another name
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                yield _entry(line, number)
        if number != self.manifest.get("responses"):
            raise _corrupt(self.path, f"{RESPONSES} has {number:,} answers, not as many as told")


@contextmanager
def open_archive(path: str | os.PathLike[str]) -> Iterator[Archive]:
    """Open an archive and verify its checksums before anything of it is used.

    Raises
    ------
    CacheCorrupt
        If it is no archive, a byte of it has changed, or it holds more than an archive does:
        other members, members twice, encrypted, or far larger than they should be.
    ConfigurationError
        If a newer version of this package wrote it.
    OSError
        If it cannot be read.
    """
    place = Path(path).expanduser()
    with place.open("rb") as file:
        with _naming(place, "directory"):
            zipped = zipfile.ZipFile(file)
        with zipped:
            _check_directory(place, zipped.infolist())
            sums = _read_sums(place, zipped)
            about = b"".join(_chunks(place, zipped, MANIFEST))
            if hashlib.sha256(about).hexdigest() != sums.get(MANIFEST):
                raise _corrupt(place, f"the checksum of {MANIFEST} does not fit")
            manifest = _manifest(place, about)
            _check_members(place, zipped.namelist(), sums)
            digest = hashlib.sha256()
            for chunk in _chunks(place, zipped, RESPONSES):
                digest.update(chunk)
            if digest.hexdigest() != sums[RESPONSES]:
                raise _corrupt(place, f"the checksum of {RESPONSES} does not fit")
            yield Archive(place, zipped, manifest)


def _check_directory(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse what no archive has, before a member is read."""
    names = [member.filename for member in members]
    for name in names:
        parts = Path(name.replace("\\", "/")).parts
        if name.startswith(("/", "\\")) or ".." in parts or ":" in name:
            raise _corrupt(path, f"it has a member outside of itself, {name!r}")
    if len(set(names)) < len(names):
        raise _corrupt(path, "it has a member twice")
    for member in members:
        if member.flag_bits & _ENCRYPTED:
            raise _corrupt(path, f"{member.filename} is encrypted")
        shrunk = member.file_size > MAX_RATIO * max(member.compress_size, 1)
        if shrunk and member.file_size > RATIO_FROM_BYTES:
            raise _corrupt(path, f"{member.filename} is compressed as no answers are")
    size = sum(member.file_size for member in members)
    if size > MAX_BYTES:
        raise _corrupt(path, f"it would unpack to {size:,} bytes, more than {MAX_BYTES:,}")
    sizes = {member.filename: member.file_size for member in members}
    for name, most in MOST_BYTES.items():
        _check_size(path, name, sizes.get(name), most)


def _check_size(path: Path, name: str, size: int | None, most: int) -> None:
    if size is None:
        raise _corrupt(path, f"it has no {name}")
    if size > most:
        raise _corrupt(path, f"{name} would unpack to {size:,} bytes, more than {most:,}")


def _check_members(path: Path, names: list[str], sums: Mapping[str, str]) -> None:
    if set(names) != {MANIFEST, RESPONSES, SUMS}:
        odd = sorted(set(names) ^ {MANIFEST, RESPONSES, SUMS})
        raise _corrupt(path, f"it has too many members or too few: {', '.join(map(repr, odd))}")
    if set(sums) != {MANIFEST, RESPONSES}:
        raise _corrupt(path, f"{SUMS} names other members than there are")


def _read_sums(path: Path, zipped: zipfile.ZipFile) -> dict[str, str]:
    text = b"".join(_chunks(path, zipped, SUMS)).decode("ascii", "replace")
    pairs = [line.partition("  ") for line in text.splitlines()]
    return {name: digest for digest, _, name in pairs}


def _manifest(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        manifest = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _corrupt(path, f"{MANIFEST} is not JSON") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _corrupt(path, f"{MANIFEST} does not say that this is an archive of answers")
    _check_kinds(path, manifest)
    version = manifest.get("version")
    if not isinstance(version, int) or version < 1:
        raise _corrupt(path, f"{MANIFEST} has no version")
    if version > FORMAT_VERSION:
        raise ConfigurationError(
            f"{path.name} has version {version} of the archive's format, and this package knows "
            f"{FORMAT_VERSION}; it was written by a newer lbgpt-pandas: upgrade"
        )
    return manifest


def _check_kinds(path: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a manifest whose parts are not what they are read as."""
    engine = manifest.get("engine") or {}
    keys = manifest.get("keys") or []
    tools = engine.get("tools") if isinstance(engine, dict) else 0
    sound = (
        isinstance(engine, dict)
        and (not engine or isinstance(engine.get("family"), str))
        and (tools is None or (isinstance(tools, list) and all(isinstance(t, dict) for t in tools)))
        and isinstance(keys, list)
        and all(key is None or isinstance(key, str) for key in keys)
        and all(isinstance(manifest.get(name, {}), dict) for name in _BY_KEY)
        and all(
            isinstance(near, dict) and isinstance(near.get("similarity"), float | int)
            for near in manifest.get("near", {}).values()
        )
        and all(
            isinstance(later, list) and later and all(isinstance(key, str) for key in later)
            for later in manifest.get("asked_again", {}).values()
        )
    )
    if not sound:
        raise _corrupt(path, f"{MANIFEST} is not one of this package")


def _chunks(path: Path, zipped: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """Read a member some at a time."""
    with _naming(path, name), zipped.open(name) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _entry(line: bytes, number: int) -> Entry:
    try:
        value = orjson.loads(line)
        entry = Entry(value["key"], value["envelope"], value.get("request"))
        unseal(entry.key, entry.envelope)
    except (TypeError, KeyError, AttributeError) as error:
        raise CorruptEntry(f"line {number} is no answer") from error
    except ValueError as error:
        raise CorruptEntry(f"line {number}: {error}") from error
    if entry.request is not None and not isinstance(entry.request, dict):
        raise CorruptEntry(f"the request of line {number} is none")
    return entry


@contextmanager
def _naming(path: Path, member: str) -> Iterator[None]:
    """Turn what zipfile raises for damaged files into a CacheCorrupt that names the member."""
    try:
        yield
    except (CacheCorrupt, GeneratorExit):
        raise
    except Exception as error:
        # zipfile raises anything from struct.error to NotImplementedError for a flipped bit.
        raise _corrupt(path, f"{member} is damaged ({error})") from error


def _corrupt(path: Path, what: str) -> CacheCorrupt:
    return CacheCorrupt(f"{path.name} is not used: {what}. Get another copy of it")
