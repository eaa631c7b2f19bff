"""Rate limits of one owner: requests and tokens, over whatever windows its provider has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lbgpt_pandas.testing.limits import MINUTE_S, KeyLimits
from lbgpt_pandas.testing.windows import FixedWindow, SlidingWindow, TokenBucket, Window

if TYPE_CHECKING:
    from lbgpt_pandas.testing.windows import Entry

Resource = Literal["requests", "tokens"]


@dataclass(slots=True)
class Admission:
    """A request that was let in, and what its tokens took of each window."""

    tokens: int
    taken: list[tuple[Window, Entry]]


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


@dataclass(frozen=True, slots=True)
class Reading:
    """How a limit stands; the `reset_s` is the time until everything fits again."""

    resource: Resource
    limit: int
    remaining: int
    reset_s: float


class Quota:
    """Admits requests as far as the limits of their owner allow.

    Parameters
    ----------
    limits : KeyLimits
        The limits; without a kind of window it slides, without a length it is a minute.
    count_refused : bool, default False
        Refused requests count as requests.
    """

    def __init__(self, limits: KeyLimits, *, count_refused: bool = False) -> None:
        self._requests = [] if limits.rpm is None else _request_windows(limits, limits.rpm)
        self._tokens = [] if limits.tpm is None else [_window(limits, limits.tpm)]
        self._windows: list[tuple[Resource, Window]] = [
            *(("requests", window) for window in self._requests),
            *(("tokens", window) for window in self._tokens),
        ]
        self._count_refused = count_refused

    def admit(self, tokens: int, *, now: float) -> Admission | Refusal:
        """Let a request in, or say why not.

        Parameters
        ----------
        tokens : int
            What it may cost.
        now : float
            Monotonic seconds.
        """
        refusal = self._refusal(tokens, now)
        if refusal is None:
            for window in self._requests:
                window.take(1, now)
            return Admission(
                tokens, [(window, window.take(tokens, now)) for window in self._tokens]
            )
        if self._count_refused:
            for window in self._requests:
                window.take_refused(now)
            return self._refusal(tokens, now) or refusal
        return refusal

    def settle(self, admission: Admission, tokens: int, *, now: float) -> None:
        """Raise the cost of an admitted request to what it really used; never lower it."""
        extra = tokens - admission.tokens
        if extra > 0:
            admission.tokens = tokens
            for window, entry in admission.taken:
                window.add(entry, extra, now)

    def readings(self, *, now: float) -> list[Reading]:
        """Tell how the limits stand that are set; those of the whole minute, not of a burst."""
        minutes: list[tuple[Resource, list[Window]]] = [
            ("requests", self._requests[:1]),
            ("tokens", self._tokens),
        ]
        return [
            Reading(resource, window.limit, window.remaining(now), window.full_again_s(now))
            for resource, windows in minutes
            for window in windows
        ]

    def _refusal(self, tokens: int, now: float) -> Refusal | None:
        """Find the window that makes the request wait longest."""
        longest_s, worst = 0.0, None
        for resource, window in self._windows:
            cost = 1 if resource == "requests" else tokens
            if cost > window.largest:
                return Refusal(resource, window.largest, 0, cost, None)
            wait_s = window.wait_s(cost, now)
            if wait_s > longest_s:
                used = window.limit - window.remaining(now)
                longest_s, worst = wait_s, Refusal(resource, window.limit, used, cost, wait_s)
        return worst


def _window(limits: KeyLimits, limit: int) -> Window:
    span_s = limits.window_s or MINUTE_S
    match limits.window:
        case "bucket":
            return TokenBucket(limit, span_s, limit * (limits.burst_s or span_s) / span_s)
        case "fixed":
            return FixedWindow(limit, span_s)
        case _:
            return SlidingWindow(limit, span_s)


def _request_windows(limits: KeyLimits, rpm: int) -> list[Window]:
    windows = [_window(limits, rpm)]
    if limits.burst_s is not None and limits.window != "bucket":
        share = limits.burst_s / (limits.window_s or MINUTE_S)
        kind = FixedWindow if limits.window == "fixed" else SlidingWindow
        windows.append(kind(max(1, int(rpm * share + 1e-9)), limits.burst_s))
    return windows
