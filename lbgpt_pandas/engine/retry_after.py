"""How long a provider asks to wait: in headers, and in the text of its messages."""

from __future__ import annotations

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

LONGEST_WAIT_S = 86_400.0

_WAIT_TEXT = re.compile(
    r"(?:try again|retry)\s+(?:in|after)\s+((?:\d+(?:\.\d+)?\s*(?:ms|milliseconds?|h|hours?"
    r"|m|minutes?|s|seconds?)\b\s*|\d+(?:\.\d+)?[hm](?=\d))+)",
    re.IGNORECASE | re.ASCII,
)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milli|h|m|s)", re.IGNORECASE | re.ASCII)
_UNIT_S = {"ms": 0.001, "milli": 0.001, "h": 3600.0, "m": 60.0, "s": 1.0}
_DECIMAL = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_HTTP_DATE = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)", re.IGNORECASE)


def parse_retry_after(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Seconds that a response asks to wait.

    ``retry-after-ms`` is read first, then ``retry-after`` as a number of seconds or an HTTP
    date. Zero, a date that has passed, more than a day, and whatever is neither a plain
    decimal number nor a date, count as nothing: the caller then waits by its own rule.

    Parameters
    ----------
    headers : mapping of str to str
        Response headers, in any case.
    now : datetime
        The present, with a time zone.

    Returns
    -------
    float or None
        Seconds, above 0 and at most 86,400.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> parse_retry_after({"Retry-After": "2"}, now=noon)
    2.0
    >>> parse_retry_after({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, now=noon)
    30.0
    """
    lower = {str(name).lower(): str(value).strip() for name, value in headers.items()}
    milliseconds = _decimal(lower.get("retry-after-ms", ""))
    text = lower.get("retry-after", "")
    candidates = (
        None if milliseconds is None else milliseconds / 1000,
        _decimal(text),
        _seconds_until(text, now),
    )
    return next((wait for wait in map(_usable, candidates) if wait is not None), None)


def wait_of(text: str) -> float | None:
    """Seconds that a plain decimal number stands for; None as in `parse_retry_after`."""
    return _usable(_decimal(text))


def wait_in_text(message: str) -> float | None:
    """Seconds in a sentence such as ``"Please try again in 6m0s"``, None without one.

    Examples
    --------
    >>> wait_in_text("Rate limit reached. Please try again in 1m2.5s. Visit ...")
    62.5
    >>> wait_in_text("Please retry after 6 seconds.")
    6.0
    """
    match = _WAIT_TEXT.search(message)
    if match is None:
        return None
    spans = _SPAN.findall(match[1])
    return _usable(sum(float(number) * _UNIT_S[unit.lower()] for number, unit in spans))


def _decimal(text: str) -> float | None:
    return float(text) if _DECIMAL.fullmatch(text) else None


def _seconds_until(text: str, now: datetime) -> float | None:
    if not _HTTP_DATE.match(text):
        return None
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now.timestamp()


def _usable(seconds: float | None) -> float | None:
    if seconds is None or not math.isfinite(seconds) or not 0 < seconds <= LONGEST_WAIT_S:
        return None
    return seconds
