"""Headers in which providers tell how their limits stand and how long to wait."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, assert_never

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from lbgpt_pandas.testing.quota import Reading

HeaderForm = Literal["openai", "azure-junk", "anthropic"]

_MILLISECONDS = 1_000
_MINUTE_S = 60
_HOUR_S = 3_600


def limit_headers(
    form: HeaderForm | None, readings: Iterable[Reading], *, wall: datetime
) -> dict[str, str]:
    """Write how the limits stand.

    Parameters
    ----------
    form : {"openai", "azure-junk", "anthropic"} or None
        ``x-ratelimit-*`` as OpenAI and Azure write them; the same with the values that Azure
        has been seen to send, -1 and 0; ``anthropic-ratelimit-*`` with times of day; nothing.
    readings : iterable of Reading
        Of the limits that are set.
    wall : datetime
        The present in UTC.
    """
    headers: dict[str, str] = {}
    for reading in readings:
        match form:
            case None:
                break
            case "openai":
                stem, values = "x-ratelimit-{}-" + reading.resource, _values(reading)
            case "azure-junk":
                stem, values = "x-ratelimit-{}-" + reading.resource, ("-1", "-1", "0")
            case "anthropic":
                stem = f"anthropic-ratelimit-{reading.resource}-{{}}"
                values = (*_values(reading)[:2], _time_of_day(wall, reading.reset_s))
            case _:
                assert_never(form)
        for name, value in zip(("limit", "remaining", "reset"), values, strict=True):
            headers[stem.format(name)] = value
    return headers


def _values(reading: Reading) -> tuple[str, str, str]:
    return str(reading.limit), str(reading.remaining), go_duration(reading.reset_s)


def tells_waits(form: HeaderForm | None) -> bool:
    """Whether a provider with these headers tells how long to wait."""
    return form in ("openai", "anthropic")


def wait_headers(form: HeaderForm | None, wait_s: float | None) -> dict[str, str]:
    """Write how long to wait, if this form of headers and the refusal say it.

    Anthropic's has whole seconds only.
    """
    if wait_s is None or not tells_waits(form):
        return {}
    headers = retry_after_headers(wait_s)
    if form == "anthropic":
        del headers["retry-after-ms"]
    return headers


def retry_after_headers(wait_s: float) -> dict[str, str]:
    """Write ``retry-after-ms`` and ``retry-after``, both rounded up so that waiting suffices.

    Examples
    --------
    >>> retry_after_headers(0.0412)
    {'retry-after-ms': '42', 'retry-after': '1'}
    """
    return {
        "retry-after-ms": str(math.ceil(round(wait_s * _MILLISECONDS, 6))),
        "retry-after": str(math.ceil(round(wait_s, 6))),
    }


def go_duration(seconds: float) -> str:
    """Write a time as Go does and OpenAI's reset headers are: ``17ms``, ``1.5s``, ``6m0s``.

    Examples
    --------
    >>> [go_duration(seconds) for seconds in (0, 0.017, 1, 1.5, 360, 3723.25)]
    ['0s', '17ms', '1s', '1.5s', '6m0s', '1h2m3.25s']
    """
    milliseconds = max(0, math.ceil(round(seconds * _MILLISECONDS, 6)))
    if 0 < milliseconds < _MILLISECONDS:
        return f"{milliseconds}ms"
    whole, rest = divmod(milliseconds, _MILLISECONDS * _MINUTE_S)
    text = f"{rest / _MILLISECONDS:g}s"
    if whole:
        hours, minutes = divmod(whole, _HOUR_S // _MINUTE_S)
        text = f"{f'{hours}h' if hours else ''}{minutes}m{text}"
    return text


def _time_of_day(wall: datetime, seconds: float) -> str:
    """RFC 3339 in whole seconds, rounded up."""
    at = wall + timedelta(seconds=seconds)
    if at.microsecond:
        at += timedelta(microseconds=1_000_000 - at.microsecond)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
