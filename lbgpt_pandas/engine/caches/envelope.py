"""The envelope of a stored answer: whose it is, when it was made, and a checksum over all of it."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from lbgpt_pandas.engine.collection import no_collection

if TYPE_CHECKING:
    from collections.abc import Callable

ENVELOPE_VERSION = 1

_RESPONSE = b',"resp":'
_BEGIN = b'{"v":%d,"sha256":"' % ENVELOPE_VERSION
_DIGEST = hashlib.sha256()
"""Copied for each envelope: to set one up, OpenSSL looks through its providers every time."""

_DIGEST_LENGTH = 64
_AFTER_DIGEST = b'",'
_COVERED_FROM = len(_BEGIN) + _DIGEST_LENGTH + len(_AFTER_DIGEST)
_BY_JSON = b" "
"""Begins what orjson could not write; it would read a long integer as a float."""

_CREATED = '"created":"'


class CorruptEntry(ValueError):
    """A stored text that is not the envelope that was stored under its key."""


def seal(
    key: str, *, family: str, model: str, payload: dict[str, object], created: datetime
) -> str:
    """Write the envelope of an answer.

    Parameters
    ----------
    key : str
        The request's key.
    family, model : str
        Whose model answered, and its name in the request; for clearing by model.
    payload : dict
        The provider's answer.
    created : datetime
        When, in UTC.

    Returns
    -------
    str
        JSON: ``v``, ``sha256``, ``key``, ``created``, ``family``, ``model``, ``resp``. The
        checksum covers all that follows it, byte for byte, so that it is verified without
        writing the JSON again.

    Raises
    ------
    TypeError
        If `payload` is not JSON data.
    """
    about = b'"key":%s,"created":"%s",' % (_member(key), created.isoformat().encode())
    covered = b"".join((about, _model(family, model), _dump(payload)))
    return b"".join((_opening(covered), covered, b"}")).decode()


def unseal(key: str, text: str) -> dict[str, object]:
    """Read the answer out of its envelope.

    Parameters
    ----------
    key : str
        What it was stored under.
    text : str
        The envelope.

    Returns
    -------
    dict
        The provider's answer, the caller's own.

    Raises
    ------
    CorruptEntry
        If version, checksum or key differ.
    """
    payload = load(opened(key, text))
    if not isinstance(payload, dict):
        raise CorruptEntry("the entry holds no answer")
    return payload


def unseal_all(
    texts: dict[str, str], read: Callable[[str, str], Any], *, into: dict[str, Any]
) -> list[str]:
    """Read what can be read; return the keys of the rest."""
    corrupt = []
    with no_collection():
        for key, text in texts.items():
            try:
                into[key] = read(key, text)
            except CorruptEntry:
                corrupt.append(key)
    return corrupt


def opened(key: str, text: str) -> bytes:
    """Verify an envelope and return the answer's JSON as it lies there; see `unseal`."""
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise CorruptEntry("the entry is not valid text") from None
    covered = raw[_COVERED_FROM:-1]
    if raw[:_COVERED_FROM] != _opening(covered) or raw[-1:] != b"}":
        raise CorruptEntry("the entry's checksum does not fit its content")
    # Keys of ours are written as they are, others may be escaped.
    plainly = b'"key":"%s",' % key.encode(errors="replace")
    if not covered.startswith(plainly) and not covered.startswith(b'"key":%s,' % _member(key)):
        raise CorruptEntry("the entry belongs to another key")
    return covered[covered.find(_RESPONSE) + len(_RESPONSE) :]


def outdated(texts: dict[str, str], *, now: datetime, ttl_s: float) -> list[str]:
    """Return the keys of envelopes that are older than `ttl_s`, or do not say when they were made.

    One that was made in the future is fresh: clocks are set back at times.
    """
    return [key for key, text in texts.items() if not now.timestamp() - made_at(text) <= ttl_s]


def made_at(text: str) -> float:
    """Return when an envelope was sealed, in seconds since 1970; -inf if it does not say.

    Examples
    --------
    >>> made_at('{"created":"1970-01-01T00:01:00+00:00"}'), made_at("{}")
    (60.0, -inf)
    """
    # No key can hold this, because its quotes would be escaped.
    written = text.partition(_CREATED)[2].partition('"')[0]
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        return -math.inf
    return -math.inf if at.tzinfo is None else at.timestamp()


def _opening(covered: bytes) -> bytes:
    digest = _DIGEST.copy()
    digest.update(covered)
    return b'%s%s",' % (_BEGIN, digest.hexdigest().encode())


@lru_cache(maxsize=64)
def _model(family: str, model: str) -> bytes:
    return b'"family":%s,"model":%s' % (_member(family), _member(model)) + _RESPONSE


def _member(text: str) -> bytes:
    return _dump(text).lstrip(_BY_JSON)


def _dump(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        # Lone surrogates and long integers, which a provider's JSON may hold.
        return _BY_JSON + json.dumps(value).encode()


def load(raw: bytes) -> Any:
    """Read JSON that `seal` wrote; raises `CorruptEntry` if it is none."""
    try:
        return json.loads(raw) if raw.startswith(_BY_JSON) else orjson.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CorruptEntry("the entry is not JSON") from error
