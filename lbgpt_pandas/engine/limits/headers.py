"""What response headers say about rate limits.

Forms of OpenAI and Azure OpenAI (``x-ratelimit-limit-requests: 500``, resets as Go writes
durations), Anthropic (``anthropic-ratelimit-input-tokens-remaining``, resets as RFC 3339
dates) and OpenRouter (``X-RateLimit-Reset`` in milliseconds since 1970). Gemini sends none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from lbgpt_pandas.engine.retry_after import LONGEST_WAIT_S

if TYPE_CHECKING:
    from collections.abc import Mapping

Resource = Literal["requests", "tokens", "input_tokens", "output_tokens"]

_Field = Literal["limit", "remaining", "reset"]
_FIELDS: tuple[_Field, ...] = ("limit", "remaining", "reset")
_OPENAI: tuple[Resource, ...] = ("requests", "tokens")
_ANTHROPIC: tuple[Resource, ...] = ("requests", "tokens", "input_tokens", "output_tokens")
_MARK = "ratelimit-"
_PASSED_ON = "llm_provider-"
"""What litellm puts before a provider's own header."""

_MEANINGS: dict[str, tuple[Resource, _Field]] = {
    **{f"x-ratelimit-{field}-{name}": (name, field) for name in _OPENAI for field in _FIELDS},
    **{
        f"anthropic-ratelimit-{name.replace('_', '-')}-{field}": (name, field)
        for name in _ANTHROPIC
        for field in _FIELDS
    },
    **{f"x-ratelimit-{field}": ("requests", field) for field in _FIELDS},
}

_MOST_DIGITS = 15
_DECIMAL = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
# "ms" before "m": otherwise 17 milliseconds become 17 minutes.
_DURATION = re.compile(
    r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?"
    r"(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?",
    re.ASCII,
)
_UNITS_S = (3600.0, 60.0, 1.0, 0.001)


@dataclass(frozen=True, slots=True)
class LimitReading:
    """What one response says about one resource.

    Attributes
    ----------
    limit, remaining : int or None
        Of a minute, and of what is left of it; None where nothing sensible is said.
    reset_s : float or None
        Seconds until all of it is there again.
    """

    limit: int | None
    remaining: int | None
    reset_s: float | None


def speaks_of_limits(headers: Mapping[str, str]) -> bool:
    """Tell whether a response has any header that `read_limits` may understand."""
    return _MARK in " ".join(headers).lower()


def read_limits(headers: Mapping[str, str], *, now: datetime) -> dict[Resource, LimitReading]:
    """Read the rate-limit headers of a response.

    Parameters
    ----------
    headers : mapping of str to str
        Names in any case, also with litellm's ``llm_provider-`` before them.
    now : datetime
        The present, with a time zone.

    Returns
    -------
    dict of resource to LimitReading
        Only of resources about which something sensible is said. Azure is known to send -1
        for limit and remainder and 0 for the reset; such values count as nothing.

    Examples
    --------
    >>> headers = {"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499",
    ...            "x-ratelimit-reset-requests": "120ms"}
    >>> read_limits(headers, now=datetime(2026, 1, 1, tzinfo=UTC))
    {'requests': LimitReading(limit=500, remaining=499, reset_s=0.12)}
    """
    if not speaks_of_limits(headers):
        return {}
    # One pass over the names: a look-up for each known one costs more in the SDKs' mappings.
    names = [name for name in headers if _MARK in name.lower()]
    said: dict[Resource, dict[_Field, str]] = {}
    for name in names:
        meaning = _MEANINGS.get(name.lower().removeprefix(_PASSED_ON))
        if meaning is not None:
            resource, field = meaning
            said.setdefault(resource, {}).setdefault(field, headers[name])
    readings = {resource: _reading(texts, now) for resource, texts in said.items()}
    return {resource: found for resource, found in readings.items() if found is not None}


def parse_reset(text: str, *, now: datetime) -> float | None:
    """Seconds until a limit is full again.

    Parameters
    ----------
    text : str
        A Go duration (``"6m0s"``, ``"17ms"``, ``"1h2m3.5s"``), seconds (``"59"``), an RFC 3339
        date, or milliseconds since 1970.
    now : datetime
        The present, with a time zone.

    Returns
    -------
    float or None
        None for whatever is none of these, has passed, or is more than a day away.

    Examples
    --------
    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> [parse_reset(text, now=noon) for text in ("1s", "6m0s", "17ms", "2026-01-01T12:00:30Z")]
    [1.0, 360.0, 0.017, 30.0]
    """
    text = text.strip()
    seconds: float | None = None
    if _DECIMAL.fullmatch(text):
        seconds = float(text)
        if seconds > LONGEST_WAIT_S:
            seconds = seconds / 1000.0 - now.timestamp()
    elif text and (match := _DURATION.fullmatch(text)):
        pairs = zip(match.groups(), _UNITS_S, strict=True)
        seconds = sum(float(number) * unit_s for number, unit_s in pairs if number)
    elif "T" in text or " " in text:
        seconds = _seconds_until(text, now)
    if seconds is None or not 0 <= seconds <= LONGEST_WAIT_S:
        return None
    return seconds


def _seconds_until(text: str, now: datetime) -> float | None:
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    return ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds()


def _reading(texts: Mapping[_Field, str], now: datetime) -> LimitReading | None:
    limit, remaining = _whole(texts.get("limit")), _whole(texts.get("remaining"))
    if not limit and remaining is None:
        return None
    reset = texts.get("reset")
    return LimitReading(
        limit or None, remaining, None if reset is None else parse_reset(reset, now=now)
    )


def _whole(text: str | None) -> int | None:
    if text is None:
        return None
    text = text.strip()
    is_whole = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return int(text) if is_whole else None
