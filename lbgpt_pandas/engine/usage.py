"""What an engine has spent: the last calls, and the sums of the last minute."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.lifetime import renew_after_fork
from lbgpt_pandas.engine.types import Usage, UsageStats

if TYPE_CHECKING:
    from datetime import datetime

    from lbgpt_pandas.engine.clock import Clock
    from lbgpt_pandas.engine.types import TokenCount

WINDOW_S = 60.0


class UsageLog:
    """Finished calls of one engine; plain data behind a lock, for any loop and thread.

    Parameters
    ----------
    clock : Clock
        Source of time.
    size : int
        How many calls `recent` keeps. The sums of the last minute are not cut by it.
    """

    def __init__(self, *, clock: Clock, size: int) -> None:
        self._clock = clock
        self.after_fork()
        renew_after_fork(self)
        self._recent: deque[tuple[int, int, datetime, datetime, int]] = deque(maxlen=size)
        self._window: deque[tuple[float, int]] = deque()
        self._calls = self._tokens = 0

    def after_fork(self) -> None:
        """Make a new lock: in a forked child nobody releases the old one."""
        self._lock = threading.Lock()

    def add(self, tokens: TokenCount, *, started: datetime, attempt: int) -> None:
        """Record one answered call.

        Parameters
        ----------
        tokens : TokenCount
            What it cost.
        started : datetime
            When it began, in UTC.
        attempt : int
            Its number, from 1.
        """
        total = tokens.total
        usage = tokens.prompt, total, started, self._clock.wall(), attempt
        with self._lock:
            self._recent.append(usage)
            # Counted from its end: a call that takes over a minute is not forgotten unseen.
            now = self._clock.monotonic()
            self._window.append((now, total))
            self._calls += 1
            self._tokens += total
            self._forget(now)

    def recent(self) -> list[Usage]:
        """The last calls, oldest first."""
        with self._lock:
            recent = list(self._recent)
        return [Usage(*figures) for figures in recent]

    def stats(self) -> UsageStats:
        """Tokens and requests of the last 60 seconds."""
        with self._lock:
            self._forget(self._clock.monotonic())
            return UsageStats(
                tokens=sum(tokens for _, tokens in self._window), requests=len(self._window)
            )

    def tokens_per_request(self) -> float:
        """Mean total tokens of all calls so far; 0.0 before the first."""
        with self._lock:
            return self._tokens / self._calls if self._calls else 0.0

    def _forget(self, now: float) -> None:
        horizon = now - WINDOW_S
        while self._window and self._window[0][0] <= horizon:
            self._window.popleft()
