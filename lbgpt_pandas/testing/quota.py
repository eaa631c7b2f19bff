"""Rate limits of a provider: sliding windows over requests and tokens, and their headers."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

_MILLISECONDS = 1_000
_MINUTE_S = 60
_HOUR_S = 3_600

Resource = Literal["requests", "tokens"]


@dataclass(slots=True)
class Admission:
    """A request that was let in."""

    at: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was not let in.

    Attributes
    ----------
    resource : {"requests", "tokens"}
        What is used up.
    limit, used, requested : int
        The limit, what the window held, and what was asked for.
    wait_s : float or None
        Seconds until the same request fits; None if it is larger than the limit.
    """

    resource: Resource
    limit: int
    used: int
    requested: int
    wait_s: float | None


class SlidingQuota:
    """Limits of one owner: at most so many requests and tokens in any span of `window_s`.

    Refused requests are not counted. Times are given by the caller.

    Parameters
    ----------
    rpm : int or None
        Requests in a window, at least 1; None for no limit.
    tpm : int or None
        Tokens in a window, at least 1; None for no limit.
    window_s : float, default 60
        Length of the window in seconds.
    burst_s : float, optional
        A second, shorter window over requests alone, with the same rate: Azure lets 600 a
        minute in as 100 in 10 s.
    """

    def __init__(
        self,
        rpm: int | None,
        tpm: int | None,
        *,
        window_s: float = 60.0,
        burst_s: float | None = None,
    ) -> None:
        self.rpm = rpm
        self.tpm = tpm
        self._window_s = window_s
        self._burst_s = burst_s
        self._log: deque[Admission] = deque()
        self._used_tokens = 0

    def admit(self, tokens: int, *, now: float) -> Admission | Refusal:
        """Let a request in, or say why not.

        Parameters
        ----------
        tokens : int
            What it may cost.
        now : float
            Monotonic seconds.
        """
        self._forget(now)
        refusal = self._too_many_tokens(tokens, now) or self._too_many_requests(now)
        if refusal is not None:
            return refusal
        admission = Admission(now, tokens)
        self._log.append(admission)
        self._used_tokens += tokens
        return admission

    def settle(self, admission: Admission, tokens: int) -> None:
        """Raise the cost of an admitted request to what it really used; never lower it."""
        extra = tokens - admission.tokens
        if extra > 0 and self._log and admission.at >= self._log[0].at:
            admission.tokens = tokens
            self._used_tokens += extra

    def headers(self, *, now: float) -> dict[str, str]:
        """Write the ``x-ratelimit-*`` headers; only of the limits that are set."""
        self._forget(now)
        reset = go_duration(self._log[-1].at + self._window_s - now if self._log else 0)
        headers = {}
        for resource, limit, used in (
            ("requests", self.rpm, len(self._log)),
            ("tokens", self.tpm, self._used_tokens),
        ):
            if limit is not None:
                headers[f"x-ratelimit-limit-{resource}"] = str(limit)
                headers[f"x-ratelimit-remaining-{resource}"] = str(max(0, limit - used))
                headers[f"x-ratelimit-reset-{resource}"] = reset
        return headers

    def _forget(self, now: float) -> None:
        while self._log and self._log[0].at + self._window_s <= now:
            self._used_tokens -= self._log.popleft().tokens

    def _too_many_tokens(self, tokens: int, now: float) -> Refusal | None:
        if self.tpm is None or self._used_tokens + tokens <= self.tpm:
            return None
        wait_s = None
        if tokens <= self.tpm:
            excess = self._used_tokens + tokens - self.tpm
            for admission in self._log:
                excess -= admission.tokens
                if excess <= 0:
                    wait_s = admission.at + self._window_s - now
                    break
        return Refusal("tokens", self.tpm, self._used_tokens, tokens, wait_s)

    def _too_many_requests(self, now: float) -> Refusal | None:
        if self.rpm is None:
            return None
        for limit, span in self._request_windows(self.rpm):
            if len(self._log) >= limit and self._log[-limit].at + span > now:
                wait_s = self._log[-limit].at + span - now
                used = sum(admission.at + span > now for admission in self._log)
                return Refusal("requests", limit, used, 1, wait_s)
        return None

    def _request_windows(self, rpm: int) -> list[tuple[int, float]]:
        windows = [(rpm, self._window_s)]
        if self._burst_s is not None:
            windows.append((max(1, int(rpm * self._burst_s / self._window_s)), self._burst_s))
        return windows


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
