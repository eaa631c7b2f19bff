"""What can be told of a stored answer without unsealing it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import NamedTuple

_KEY = re.compile(r"v\d+:[0-9a-f]{64}", re.ASCII)
_TEXT = r'("[^"\\]*+(?:\\.[^"\\]*+)*+")'
_HEAD = re.compile(
    rf'\{{"v":\d+,"sha256":"[0-9a-f]{{64}}","key":{_TEXT},"created":"([^"]{{10,40}})",'
    rf'"family":{_TEXT},"model":{_TEXT},"resp":',
    re.ASCII,
)


class Head(NamedTuple):
    """What an envelope says before the answer (see `seal`).

    Attributes
    ----------
    created : datetime
        When it was sealed, in UTC.
    family, model : str
        Whose model answered, and its name in the request.
    """

    created: datetime
    family: str
    model: str


def is_key(key: object) -> bool:
    """Return whether this is the key of a request; a store may hold other things as well.

    Examples
    --------
    >>> is_key("v1:" + 64 * "0"), is_key("session:7")
    (True, False)
    """
    return isinstance(key, str) and _KEY.fullmatch(key) is not None


def read_head(key: str, text: str) -> Head | None:
    """Read the head of an envelope; the checksum is not verified.

    Parameters
    ----------
    key : str
        What it is stored under.
    text : str
        The envelope.

    Returns
    -------
    Head or None
        None if it is no envelope of this key.
    """
    match = _HEAD.match(text)
    if match is None:
        return None
    try:
        created = datetime.fromisoformat(match[2])
        stored_key, family, model = (_unquoted(match[number]) for number in (1, 3, 4))
    except ValueError:
        return None
    if stored_key != key:
        return None
    if created.tzinfo is not UTC:
        # `seal` writes UTC; a time without a zone cannot be compared with one.
        created = created.replace(tzinfo=created.tzinfo or UTC).astimezone(UTC)
    return Head(created, family, model)


def _unquoted(quoted: str) -> str:
    return str(json.loads(quoted)) if "\\" in quoted else quoted[1:-1]
