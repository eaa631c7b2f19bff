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

if TYPE_CHECKING:
    from collections.abc import Mapping

Resource = Literal["requests", "tokens", "input_tokens", "output_tokens"]

LONGEST_RESET_S = 86_400.0

_OPENAI: tuple[tuple[Resource, str], ...] = (("requests", "requests"), ("tokens", "tokens"))
_ANTHROPIC: tuple[tuple[Resource, str], ...] = (
    ("requests", "requests"),
    ("tokens", "tokens"),
    ("input_tokens", "input-tokens"),
    ("output_tokens", "output-tokens"),
)
_WHOLE = re.compile(r"\d{1,15}", re.ASCII)
_DECIMAL = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
# "ms" before "m": otherwise 17 milliseconds become 17 minutes.
_DURATION = re.compile(
    r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m(?!s))?"
    r"(?:(?P<s>\d+(?:\.\d+)?)s)?(?:(?P<ms>\d+(?:\.\d+)?)ms)?",
    re.ASCII,
)
_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


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


def read_limits(headers: Mapping[str, str], *, now: datetime) -> dict[Resource, LimitReading]:
    """Read the rate-limit headers of a response.

    Parameters
    ----------
    headers : mapping of str to str
        With lower-case names, or a mapping that does not care.
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
    for prefix in ("", "llm_provider-"):
        if f"{prefix}anthropic-ratelimit-requests-limit" in headers:
            form, names = f"{prefix}anthropic-ratelimit-{{name}}-{{field}}", _ANTHROPIC
        elif f"{prefix}x-ratelimit-remaining" in headers:
            form, names = f"{prefix}x-ratelimit-{{field}}", _OPENAI[:1]
        else:
            form, names = f"{prefix}x-ratelimit-{{field}}-{{name}}", _OPENAI
        found = {}
        for resource, name in names:
            reading = _reading(headers, form, name, now)
            if reading is not None:
                found[resource] = reading
        if found:
            return found
    return {}


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
        if seconds > LONGEST_RESET_S:
            seconds = seconds / 1000.0 - now.timestamp()
    elif text and (match := _DURATION.fullmatch(text)):
        seconds = sum(
            float(value) * _UNIT_S[unit] for unit, value in match.groupdict().items() if value
        )
    elif "T" in text or " " in text:
        seconds = _seconds_until(text, now)
    if seconds is None or not 0 <= seconds <= LONGEST_RESET_S:
        return None
    return seconds


def _seconds_until(text: str, now: datetime) -> float | None:
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    return ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds()


def _reading(
    headers: Mapping[str, str], form: str, name: str, now: datetime
) -> LimitReading | None:
    limit = _whole(headers.get(form.format(field="limit", name=name)))
    remaining = _whole(headers.get(form.format(field="remaining", name=name)))
    if not limit and remaining is None:
        return None
    reset = headers.get(form.format(field="reset", name=name))
    return LimitReading(
        limit or None, remaining, None if reset is None else parse_reset(reset, now=now)
    )


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and _WHOLE.fullmatch(text.strip()) else None
