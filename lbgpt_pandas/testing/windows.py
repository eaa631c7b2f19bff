"""How providers measure a minute: sliding windows, fixed windows and token buckets.

Each counts one resource of one owner in constant time a request; all times are given by the
caller.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

ROUNDING_S = 1e-6
"""A window ends so much early: who waits as long as it was told is not refused for rounding."""


class Entry:
    """What was taken, and when."""

    __slots__ = ("at", "cost")

    def __init__(self, at: float, cost: int) -> None:
        self.at, self.cost = at, cost


class Window(Protocol):
    """A limit on one resource.

    Attributes
    ----------
    limit : int
        What it is called.
    largest : int
        The most that one request may ever take.
    """

    limit: int
    largest: int

    def wait_s(self, cost: int, now: float) -> float:
        """Seconds until `cost`, at most `largest`, fits; 0 if it does."""
        ...

    def take(self, cost: int, now: float) -> Entry:
        """Count an admitted request."""
        ...

    def take_refused(self, now: float) -> None:
        """Count a request that was turned away as 1."""
        ...

    def add(self, entry: Entry, extra: int, now: float) -> None:
        """Raise what an earlier request took."""
        ...

    def remaining(self, now: float) -> int:
        """What still fits."""
        ...

    def full_again_s(self, now: float) -> float:
        """Seconds until everything fits again."""
        ...


class SlidingWindow:
    """At most `limit` in any span of `span_s`."""

    def __init__(self, limit: int, span_s: float) -> None:
        self.limit = self.largest = limit
        self._span_s = span_s
        self._log: deque[Entry] = deque()
        self._used = 0

    def wait_s(self, cost: int, now: float) -> float:
        """Seconds until enough of the oldest entries has left the span; 0 if `cost` fits."""
        self._forget(now)
        excess = self._used + cost - self.limit
        if excess <= 0:
            return 0.0
        for entry in self._log:
            excess -= entry.cost
            if excess <= 0:
                return entry.at + self._span_s - now
        raise AssertionError("a cost of at most `largest` fits an empty window")

    def take(self, cost: int, now: float) -> Entry:
        """Count an admitted request."""
        entry = Entry(now, cost)
        self._log.append(entry)
        self._used += cost
        return entry

    def take_refused(self, now: float) -> None:
        """Count a refused request like an admitted one."""
        self.take(1, now)

    def add(self, entry: Entry, extra: int, now: float) -> None:
        """Raise an entry, unless it has left the span."""
        self._forget(now)
        if self._log and entry.at >= self._log[0].at:
            entry.cost += extra
            self._used += extra

    def remaining(self, now: float) -> int:
        """What still fits the span that ends now."""
        self._forget(now)
        return max(0, self.limit - self._used)

    def full_again_s(self, now: float) -> float:
        """Seconds until the last entry has left the span."""
        self._forget(now)
        return self._log[-1].at + self._span_s - now if self._log else 0.0

    def _forget(self, now: float) -> None:
        log, end = self._log, now - self._span_s + ROUNDING_S
        while log and log[0].at <= end:
            self._used -= log.popleft().cost


class FixedWindow:
    """At most `limit` in a window that begins with the first request that finds none open."""

    def __init__(self, limit: int, span_s: float) -> None:
        self.limit = self.largest = limit
        self._span_s = span_s
        self._began: float | None = None
        self._used = 0

    def wait_s(self, cost: int, now: float) -> float:
        """Seconds until the window ends; 0 if `cost` fits."""
        return 0.0 if self._used_at(now) + cost <= self.limit else self.full_again_s(now)

    def take(self, cost: int, now: float) -> Entry:
        """Count an admitted request; open a window if there is none."""
        self._used = self._used_at(now) + cost
        if self._began is None:
            self._began = now
        return Entry(now, cost)

    def take_refused(self, now: float) -> None:
        """Count a refused request like an admitted one."""
        self.take(1, now)

    def add(self, entry: Entry, extra: int, now: float) -> None:
        """Raise what this window holds, if the entry is of this window."""
        self._used_at(now)
        if self._began is not None and entry.at >= self._began:
            self._used += extra

    def remaining(self, now: float) -> int:
        """What still fits the window."""
        return max(0, self.limit - self._used_at(now))

    def full_again_s(self, now: float) -> float:
        """Seconds until the window ends; 0 if none is open."""
        self._used_at(now)
        return 0.0 if self._began is None else self._began + self._span_s - now

    def _used_at(self, now: float) -> int:
        if self._began is not None and self._began + self._span_s - ROUNDING_S <= now:
            self._began, self._used = None, 0
        return self._used


class TokenBucket:
    """A bucket of `capacity`, full at first, into which `limit` flows in `span_s`."""

    def __init__(self, limit: int, span_s: float, capacity: float) -> None:
        self.limit = limit
        self._capacity = max(1.0, capacity)
        self.largest = int(self._capacity)
        self._rate = limit / span_s
        self._level = self._capacity
        self._at: float | None = None

    def wait_s(self, cost: int, now: float) -> float:
        """Seconds until the bucket holds `cost`; 0 if it does."""
        wait_s = (cost - self._level_at(now)) / self._rate
        return wait_s if wait_s > ROUNDING_S else 0.0

    def take(self, cost: int, now: float) -> Entry:
        """Take the cost of an admitted request out."""
        self._level = self._level_at(now) - cost
        return Entry(now, cost)

    def take_refused(self, now: float) -> None:
        """Take 1 out, or what there is."""
        level = self._level_at(now)
        self._level = min(level, max(0.0, level - 1.0))

    def add(self, entry: Entry, extra: int, now: float) -> None:
        """Take out more; what is not there is owed."""
        entry.cost += extra
        self._level = self._level_at(now) - extra

    def remaining(self, now: float) -> int:
        """What the bucket holds, rounded down."""
        return max(0, int(self._level_at(now) + ROUNDING_S))

    def full_again_s(self, now: float) -> float:
        """Seconds until the bucket is full."""
        return (self._capacity - self._level_at(now)) / self._rate

    def _level_at(self, now: float) -> float:
        if self._at is not None:
            self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
        self._at = now
        return self._level
