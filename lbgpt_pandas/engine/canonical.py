"""Canonical JSON: one text for each value, so that its digest identifies it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import orjson

from lbgpt_pandas.engine.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

_SCHEMA_FIELDS = frozenset(
    {
        "schema",
        "parameters",
        "input_schema",
        "response_schema",
        "responseSchema",
        "response_json_schema",
        "responseJsonSchema",
        "guided_json",
    }
)
_MEDIA_FIELDS = frozenset({"url", "image_url", "audio_url", "video_url", "data", "file_data"})
_DATA_URL = "data:"
_URL_SAFE_BASE64 = bytes.maketrans(b"-_", b"+/")


class DataUrl(str):
    """A data URL that knows the digest of its content, so that a key need not decode it.

    Attributes
    ----------
    mime : str
        Type of the content, in lower case.
    sha256 : str
        Digest of the content in hexadecimal digits.
    """

    __slots__ = ("mime", "sha256")
    mime: str
    sha256: str

    @classmethod
    def of(cls, content: bytes, *, mime: str, sha256: str) -> Self:
        """Write content as a data URL; its digest is taken on trust."""
        url = cls(f"{_DATA_URL}{mime};base64,{base64.b64encode(content).decode()}")
        url.mime, url.sha256 = mime, sha256
        return url


def canonical_json(value: object, *, ordered: bool = False) -> str:
    """Write a value as JSON so that equal values, and no others, give the same text.

    Numbers are equal as in Python (``1`` and ``1.0``, but not ``True``), tuples are lists,
    texts are neither stripped nor normalised. The keys of a dict are sorted, except inside a
    JSON schema, whose order of properties changes what a model answers: it is recognised by
    the field that holds it (``schema``, ``parameters``, ...) or by its own ``properties``. A
    pydantic class stands for its JSON schema. Images and sounds that a message holds as data
    become their SHA-256.

    Parameters
    ----------
    value : object
        JSON data; keys of dicts may be int.
    ordered : bool, default False
        The value is itself a JSON schema.

    Returns
    -------
    str
        JSON without spaces.

    Raises
    ------
    InvalidInput
        If the value is not JSON data, with the place where it is not.

    Examples
    --------
    >>> canonical_json({"b": 1.0, "a": (True, "ä ")})
    '{"a":[true,"ä "],"b":1}'
    >>> canonical_json({"b": 1, "a": 2}, ordered=True)
    '{"b":1,"a":2}'
    """
    return canonical_bytes(value, name="value", ordered=ordered).decode()


def canonical_bytes(value: object, *, name: str, ordered: bool = False) -> bytes:
    """Return `canonical_json` as UTF-8; `name` is what errors call the value.

    Raises
    ------
    InvalidInput
        If the value is not JSON data, with the place where it is not.
    """
    out: list[bytes] = []
    try:
        _write(out, value, ordered=ordered, media=False)
    except _Refused as refused:
        path = name + "".join(reversed(refused.path))
        msg = f"{path} {refused}"
        raise InvalidInput(msg) from refused
    except RecursionError as error:
        msg = f"{name} is nested too deeply, or contains itself; pass plain JSON data"
        raise InvalidInput(msg) from error
    return b"".join(out)


class _Refused(Exception):
    """A value without JSON; each container on the way out adds a step to `path`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.path: list[str] = []


def _write(out: list[bytes], value: object, *, ordered: bool, media: bool) -> None:
    if value is None:
        out.append(b"null")
    elif isinstance(value, str):
        out.append(_text(value))
    elif isinstance(value, bool):
        out.append(b"true" if value else b"false")
    elif isinstance(value, int | float):
        out.append(_number(value))
    elif isinstance(value, Mapping):
        _write_mapping(out, value, ordered=ordered, media=media)
    elif isinstance(value, list | tuple):
        _write_list(out, value, ordered=ordered, media=media)
    else:
        _write_model(out, value, media=media)


def _text(value: str) -> bytes:
    try:
        return orjson.dumps(str.__str__(value))
    except TypeError as error:
        reason = (
            "contains a lone surrogate (half of a UTF-16 pair), which cannot be sent; "
            "clean it with text.encode('utf-8', 'replace').decode()"
        )
        raise _Refused(reason) from error


def _number(value: float) -> bytes:
    if isinstance(value, float):
        if not math.isfinite(value):
            reason = f"is {float(value)}, which JSON cannot express; pass a finite number or None"
            raise _Refused(reason)
        if not value.is_integer():
            return float.__repr__(value).encode()
    try:
        return b"%d" % int(value)
    except ValueError as error:
        reason = "is an integer of thousands of digits; pass it as text"
        raise _Refused(reason) from error


def _write_mapping(
    out: list[bytes], value: Mapping[object, object], *, ordered: bool, media: bool
) -> None:
    # Told by its content as well: a schema may stand in any field of `extra_body`.
    ordered = ordered or isinstance(value.get("properties"), Mapping)
    items: Iterable[tuple[str, object]] = [(_field(key), item) for key, item in value.items()]
    if not ordered:
        items = sorted(items, key=_first)
    separator = b"{"
    names: set[str] = set()
    for name, item in items:
        out.append(separator)
        separator = b","
        if name in names:
            reason = f"has the key {name!r} as text and as number; keep one of them"
            raise _Refused(reason)
        names.add(name)
        try:
            out += (_text(name), b":")
            if media and name in _MEDIA_FIELDS and isinstance(item, str):
                out.append(_media(name, item))
            elif name == "content" and isinstance(item, list | tuple):
                _write_list(out, item, ordered=ordered, media=True)
            else:
                _write(out, item, ordered=ordered or name in _SCHEMA_FIELDS, media=media)
        except _Refused as refused:
            refused.path.append(f".{name}" if name.isidentifier() else f"[{name!r}]")
            raise
    out.append(b"}" if names else b"{}")


def _first(item: tuple[str, object]) -> str:
    return item[0]


def _field(key: object) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return str(int(key))
    reason = f"has a key of type {type(key).__name__}; the keys of JSON objects are text"
    raise _Refused(reason)


def _write_list(
    out: list[bytes],
    value: list[object] | tuple[object, ...],
    *,
    ordered: bool,
    media: bool,
) -> None:
    separator = b"["
    for position, item in enumerate(value):
        out.append(separator)
        separator = b","
        try:
            _write(out, item, ordered=ordered, media=media)
        except _Refused as refused:
            refused.path.append(f"[{position}]")
            raise
    out.append(b"]" if value else b"[]")


def _write_model(out: list[bytes], value: object, *, media: bool) -> None:
    """Write a pydantic class as its schema, a pydantic object as its data; refuse the rest."""
    if isinstance(value, type) and callable(getattr(value, "model_json_schema", None)):
        try:
            schema = value.model_json_schema()  # type: ignore[attr-defined]  # asked just above
        except Exception as error:
            reason = f"is the class {value.__name__}, which has no JSON schema: {error}"
            raise _Refused(reason) from error
        _write(out, schema, ordered=True, media=False)
        return
    dump = None if isinstance(value, type) else getattr(value, "model_dump", None)
    if callable(dump):
        _write(out, dump(mode="json", exclude_unset=True), ordered=False, media=media)
        return
    kind = value.__name__ if isinstance(value, type) else type(value).__name__
    remedy = "decode them to str" if isinstance(value, bytes | bytearray) else "convert it"
    reason = (
        f"is of type {kind}, which is not JSON data; {remedy} first "
        "(str, int, float, bool, None, list, dict and pydantic models can be sent)"
    )
    raise _Refused(reason)


def _media(name: str, value: str) -> bytes:
    """Reduce an image or sound that stands in a message to its digest and type."""
    if isinstance(value, DataUrl):
        return b'{"mime":%b,"sha256":"%b"}' % (_text(value.mime), value.sha256.encode())
    if value[: len(_DATA_URL)].lower() == _DATA_URL:
        head, comma, payload = value[len(_DATA_URL) :].partition(",")
        mime, marker, _ = head.lower().partition(";base64")
        content = _base64(payload) if marker else _percent(payload)
        if comma and content is not None:
            return b'{"mime":%b,"sha256":"%b"}' % (_text(mime), _digest(content))
    elif name == "data":
        content = _base64(value)
        if content is not None:
            return b'{"sha256":"%b"}' % _digest(content)
    return _text(value)


def _base64(payload: str) -> bytes | None:
    try:
        digits = b"".join(unquote_to_bytes(payload).split()).rstrip(b"=")
        padded = digits.translate(_URL_SAFE_BASE64) + b"=" * (-len(digits) % 4)
        return base64.b64decode(padded, validate=True)
    except (binascii.Error, UnicodeEncodeError):
        # Not what it claims to be: the provider will say so, and the text itself is the key.
        return None


def _percent(payload: str) -> bytes | None:
    try:
        return unquote_to_bytes(payload)
    except UnicodeEncodeError:
        return None


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
