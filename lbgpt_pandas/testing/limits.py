"""What a provider allows one key, as a test describes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from lbgpt_pandas.engine.errors import ConfigurationError

WindowKind = Literal["sliding", "fixed", "bucket"]
MINUTE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """Limits of one API key or Azure deployment at a `FakeProvider`.

    Parameters
    ----------
    rpm, tpm : int, optional
        Requests and tokens a minute, at least 1; None for no limit.
    window : {"sliding", "fixed", "bucket"}, optional
        How the minute is measured. ``"sliding"``: any span of `window_s` holds at most the
        limit. ``"fixed"``: a window begins with the first request that finds none open, and
        everything is allowed again `window_s` later, so that a burst may stand on either side
        of the edge. ``"bucket"``: capacity ``limit * burst_s / window_s``, at least 1, filled
        continuously at ``limit / window_s``; full at first.
    window_s : float, optional
        Length of that minute in seconds.
    burst_s : float, optional
        With ``"bucket"`` its capacity in seconds of quota, for requests and tokens, by default
        `window_s`. Else a second, shorter window of the same kind over requests alone with the
        same rate: Azure lets 600 a minute in as 100 in 10 s.

    Raises
    ------
    ConfigurationError
        If a limit is below 1, a length is not positive or the kind of window is not known.

    Notes
    -----
    What is None of `window`, `window_s` and `burst_s` is as the provider's own parameter of
    that name says; `rpm` and `tpm` are not inherited.

    Examples
    --------
    >>> KeyLimits(rpm=600, burst_s=10)
    KeyLimits(rpm=600, tpm=None, window=None, window_s=None, burst_s=10)
    """

    rpm: int | None = None
    tpm: int | None = None
    window: WindowKind | None = None
    window_s: float | None = None
    burst_s: float | None = None

    def __post_init__(self) -> None:
        for name, limit in (("rpm", self.rpm), ("tpm", self.tpm)):
            if limit is not None and not limit >= 1:
                raise ConfigurationError(f"{name}={limit}: give at least 1, or None for no limit")
        for name, seconds in (("window_s", self.window_s), ("burst_s", self.burst_s)):
            if seconds is not None and not 0 < seconds < math.inf:
                raise ConfigurationError(f"{name}={seconds}: give a positive number of seconds")
        kinds = get_args(WindowKind)
        if self.window is not None and self.window not in kinds:
            raise ConfigurationError(f"window={self.window!r}: give one of {', '.join(kinds)}")

    def over(self, other: KeyLimits) -> KeyLimits:
        """Fill in from `other` how windows are measured, where this says nothing of it."""
        return replace(
            self,
            window=self.window or other.window,
            window_s=self.window_s or other.window_s,
            burst_s=self.burst_s or other.burst_s,
        )
