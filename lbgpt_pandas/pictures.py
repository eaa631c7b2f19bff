"""From a cell to a picture that can be sent: an address, or bytes of a known kind."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from lbgpt_pandas.cells import short
from lbgpt_pandas.engine.canonical import DataUrl
from lbgpt_pandas.engine.errors import InvalidInput
from lbgpt_pandas.image_addresses import check_address

MEGABYTE = 1_000_000

_DATA, _WEB = "data:", ("http://", "https://")
_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"})
"""Modes of Pillow that a PNG holds; other ones become RGB."""

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_OTHERS = (
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"%PDF", "PDF"),
    (b"<svg", "SVG"),
    (b"<?xml", "SVG"),
    (b"<!DOC", "HTML"),
    (b"<html", "HTML"),
)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_KINDS = "PNG, JPEG, GIF and WebP"


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it is sent; equal to another one if its address, or type and bytes, are.

    Attributes
    ----------
    identity : str
        Its address; or type and SHA-256 of `content`.
    mime : str
        Type of `content`; empty for an address.
    content : bytes
        The file; empty for an address.
    """

    identity: str
    mime: str = ""
    content: bytes = field(default=b"", compare=False, repr=False)

    @classmethod
    def of(cls, content: bytes) -> Picture:
        """Take the content of a file; what type it is of, it says itself.

        Raises
        ------
        InvalidInput
            If it is of none that all providers take.
        """
        mime = _type_of(content)
        return cls(f"{mime} {hashlib.sha256(content).hexdigest()}", mime, content)

    @property
    def url(self) -> str:
        """The address, or the content as a data URL, made anew each time."""
        if not self.mime:
            return self.identity
        digest = self.identity.rpartition(" ")[2]
        return DataUrl.of(self.content, mime=self.mime, sha256=digest)


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads pictures out of cells.

    Attributes
    ----------
    root : Path
        Folder under which files are read; relative paths start there. Resolved.
    most_bytes : int
        Size of the largest picture that is taken.
    """

    root: Path
    most_bytes: int

    def read(self, value: object) -> Picture:
        """Read a cell.

        Parameters
        ----------
        value : str, bytes, Path or PIL.Image.Image
            An http(s) address, which is passed on and not fetched; a data URL; the content of a
            file; the path of one; an image, which becomes a PNG.

        Raises
        ------
        InvalidInput
            If it is none of these, or no picture that can be sent; says what to do.
        """
        match value:
            case str():
                return self._of_text(value)
            case bytes() | bytearray() | memoryview():
                return self._of_bytes(bytes(value))
            case Path():
                return self._of_file(value)
        if is_pil(value):
            return self._of_bytes(_as_png(value))
        raise InvalidInput(
            f"a {type(value).__name__} is no image; give an http(s) address, a data URL, bytes, a "
            "pathlib.Path or a PIL image"
        )

    def _of_text(self, text: str) -> Picture:
        start = text[:8].casefold()
        if start.startswith(_WEB):
            check_address(text)
            return Picture(str.__str__(text))
        if start.startswith(_DATA):
            return self._of_data_url(text)
        scheme, mark, _ = text.partition("://")
        if mark and scheme.isidentifier():
            hint = "only http(s) addresses are passed on; for files give pathlib.Path or bytes"
            raise InvalidInput(f"{short(scheme)}:// is refused: {hint}")
        raise InvalidInput(
            "the text is neither an http(s) address nor a data URL; a text never opens a file, so "
            "for files make paths of them: df[column].map(pathlib.Path)"
        )

    def _of_data_url(self, text: str) -> Picture:
        head, comma, payload = text[len(_DATA) :].partition(",")
        is_base64 = head.casefold().rstrip().endswith(";base64")
        try:
            content = unquote_to_bytes(payload)
            if is_base64:
                content = _from_base64(content)
        except (ValueError, UnicodeEncodeError) as error:
            raise InvalidInput(f"the data URL is broken: {error}") from error
        if not comma:
            raise InvalidInput("the data URL is broken: it has no comma, and no data after it")
        return self._of_bytes(content)

    def _of_file(self, path: Path) -> Picture:
        try:
            place = (self.root / path).resolve()
            if not place.is_relative_to(self.root):
                raise InvalidInput(
                    f"{short(str(path))} is not under {self.root}, and files elsewhere are not "
                    "read; give lb.Images(column, root=...) the folder of the images"
                )
            # Neither a device nor a pipe, which would never end.
            if not place.is_file():
                kind = "no file" if place.exists() else "nothing"
                raise InvalidInput(f"there is {kind} at {short(str(path))} under {self.root}")
            self._check_size(place.stat().st_size)
            with place.open("rb") as file:
                # One more than allowed, for a file that grows meanwhile.
                content = file.read(self.most_bytes + 1)
        except (OSError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidInput(f"{short(str(path))} cannot be read: {reason}") from error
        return self._of_bytes(content)

    def _of_bytes(self, content: bytes) -> Picture:
        self._check_size(len(content))
        return Picture.of(content)

    def _check_size(self, size: int) -> None:
        if size > self.most_bytes:
            most = self.most_bytes / MEGABYTE
            raise InvalidInput(
                f"the image has {size / MEGABYTE:,.3g} MB, more than the {most:g} MB that are "
                "allowed; make it smaller (PIL: image.thumbnail((1024, 1024))), or allow more "
                "with lb.Images(column, largest_mb=...)"
            )


def is_pil(value: object) -> bool:
    """Tell whether a value is an image of Pillow, without importing it."""
    # One can only exist if its module was imported.
    module: Any = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def _as_png(image: Any) -> bytes:
    file = io.BytesIO()
    try:
        if image.mode not in _MODES:
            image = image.convert("RGB")
        image.save(file, format="PNG")
    except Exception as error:  # whatever a decoder of Pillow raises
        raise InvalidInput(
            f"the PIL image (mode {image.mode}) cannot be written as PNG: {type(error).__name__}: "
            f"{short(str(error))}"
        ) from error
    return file.getvalue()


def _type_of(content: bytes) -> str:
    for signature, mime in _SIGNATURES:
        if content.startswith(signature):
            return mime
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    start = content[:64].lstrip()
    kind = next((kind for signature, kind in _OTHERS if start.startswith(signature)), None)
    if content[4:8] == b"ftyp":
        kind = "HEIC or AVIF"
    if not content:
        raise InvalidInput("the image is empty")
    raise InvalidInput(
        f"the content is {'no known image' if kind is None else kind}; providers take {_KINDS}, so "
        "convert it, for example with PIL.Image.open(...).save(..., 'PNG')"
    )


def _from_base64(digits: bytes) -> bytes:
    digits = b"".join(digits.split()).rstrip(b"=").translate(_URL_SAFE)
    try:
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
