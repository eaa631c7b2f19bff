"""How many retries a run is granted, so that a failing provider is not hammered."""

from __future__ import annotations

import heapq
from collections import deque

BASE = 10
SHARE = 0.2
SPAN_S = 60.0
OLDEST = 3
MOST_DONE = 64
"""Rows that are done and still in the heap, beside as many as are failing."""


class RetryBudget:
    """Grants 10 retries and one for every five answers of the last minute.

    When it is used up, only the three oldest failing rows go on retrying. The figures are
    Envoy's retry budget of 20 % with a floor. The caller gives the time in monotonic seconds.
    """

    def __init__(self) -> None:
        self._answers = _Count()
        self._granted = _Count()
        self._failing: set[int] = set()
        self._oldest_first: list[int] = []  # a heap; rows that are done stay for a while

    def grant(self, now: float, *, order: int) -> bool:
        """Tell whether a row may be tried once more.

        Parameters
        ----------
        now : float
            Monotonic seconds.
        order : int
            The row's turn; smaller is older.
        """
        if order not in self._failing:
            self._failing.add(order)
            heapq.heappush(self._oldest_first, order)
        if self._granted.total(now) < BASE + SHARE * self._answers.total(now):
            self._granted.add(now)
            return True
        return order in self._oldest()

    def settled(self, order: int) -> None:
        """Forget a row that is failing no more."""
        self._failing.discard(order)
        if len(self._oldest_first) > MOST_DONE + 2 * len(self._failing):
            self._oldest_first = sorted(self._failing)

    def success(self, now: float) -> None:
        """Note an answer."""
        self._answers.add(now)

    def _oldest(self) -> list[int]:
        """Return the oldest failing rows, and drop what is done from the heap's top."""
        oldest: list[int] = []
        while self._oldest_first and len(oldest) < OLDEST:
            order = heapq.heappop(self._oldest_first)
            if order in self._failing and order not in oldest:
                oldest.append(order)
        for order in oldest:
            heapq.heappush(self._oldest_first, order)
        return oldest


class _Count:
    """Events of the last minute, counted by the second."""

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque()
        self._total = 0

    def add(self, now: float) -> None:
        second = int(now)
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0])
            self.total(now)
        self._seconds[-1][1] += 1
        self._total += 1

    def total(self, now: float) -> int:
        while self._seconds and self._seconds[0][0] <= now - SPAN_S:
            self._total -= self._seconds.popleft()[1]
        return self._total
