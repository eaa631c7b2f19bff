"""Points in time as users write them, and how long ago."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd

from lbgpt_pandas.engine.clock import SYSTEM_CLOCK
from lbgpt_pandas.engine.errors import ConfigurationError

_A_SPAN = re.compile(r"\s*\+?\d+(?:\.\d+)?\s*[A-Za-zµ]|P", re.ASCII)


def instant(value: datetime | timedelta | str, *, keyword: str) -> datetime:
    """Return a point in time with its zone.

    Parameters
    ----------
    value : datetime, timedelta or str
        A point in time (without a time zone: local time), or how long ago. A str is either of
        them as pandas reads it: ``"2026-11-01"``, ``"2 hours"``. NumPy's and pandas' types are
        taken as well.
    keyword : str
        What the user calls it, for the error.

    Raises
    ------
    ConfigurationError
        If it is not understood.

    Examples
    --------
    >>> instant("2026-11-01 12:00+01:00", keyword="since").isoformat()[:16]
    '2026-11-01T11:00'
    """
    try:
        span = _span(value)
        if span is not None:
            return SYSTEM_CLOCK.wall() - span
        if isinstance(value, str | date | np.datetime64):
            # Without a time zone it is local time.
            return pd.Timestamp(value).to_pydatetime(warn=False).astimezone()
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"{keyword}={value!r} is not understood: {error}") from None
    raise ConfigurationError(
        f"{keyword}={value!r}: give a point in time, or a span such as '2 hours'"
    )


def _span(value: object) -> timedelta | None:
    """Return how long ago `value` says, None if it is a point in time."""
    if isinstance(value, timedelta | np.timedelta64):
        span = pd.Timedelta(value)
    elif isinstance(value, str) and _A_SPAN.match(value):
        try:
            span = pd.Timedelta(value)
        except ValueError:
            return None  # as in "1 Nov 2026"
    else:
        return None
    if span >= pd.Timedelta(0):
        return span.to_pytimedelta()
    raise ValueError("a span must not be negative")
