"""How long stored answers count, as users say it."""

from __future__ import annotations

import math
from datetime import timedelta

from lbgpt_pandas.engine.errors import ConfigurationError


def ttl_seconds(ttl: float | timedelta | None) -> float | None:
    """Return a ``ttl=`` in seconds; None is for ever.

    Raises
    ------
    ConfigurationError
        Unless it is a positive finite number, a positive timedelta or None.

    Examples
    --------
    >>> ttl_seconds(timedelta(days=1))
    86400.0
    """
    if ttl is None:
        return None
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds < math.inf:
        raise ConfigurationError(f"ttl={ttl!r}: give seconds above 0, a timedelta, or None")
    return float(seconds)
