"""How fast a run goes, and how long it will take."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbgpt_pandas.engine.report import RunSnapshot

RATE_SPAN_S = 10.0
"""The rate is that of so many seconds."""
LEFT_SPAN_S = 60.0
"""The time left follows from the rate of a longer span, because limits are those of a minute."""
STEP_S = 0.5
"""Moments are kept this far apart, which also is the shortest span a rate is told of."""


@dataclass(frozen=True, slots=True)
class _Moment:
    at: float
    settled: int
    worked: int


class Pace:
    """The rate of the last seconds and the time that is left, from snapshots as they come.

    Attributes
    ----------
    rate : float or None
        Rows a second of the last ten seconds, whatever became of them; None while unknown.
    left_s : float or None
        Seconds until the last row, if the rows that are left need a call each; None while unknown
        and while the run is paused. Rows from a cache come so fast that they say nothing of it.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self.left_s: float | None = None
        self._moments: deque[_Moment] = deque()

    def note(self, snapshot: RunSnapshot) -> None:
        """Take a snapshot into account.

        Parameters
        ----------
        snapshot : RunSnapshot
            The present state.
        """
        now = _Moment(snapshot.elapsed_s, snapshot.settled, worked(snapshot))
        if not math.isfinite(now.at):
            return
        moments = self._moments
        if moments and (snapshot.paused or now.at < moments[-1].at):
            moments.clear()
        self.rate = _rate(now, self._since(now.at - RATE_SPAN_S), "settled")
        speed = _rate(now, self._since(now.at - LEFT_SPAN_S), "worked")
        left = max(0, snapshot.rows - snapshot.settled)
        if snapshot.finished or not left:
            self.left_s = 0.0
        else:
            self.left_s = left / speed if speed else None
        if not moments or now.at - moments[-1].at >= STEP_S:
            moments.append(now)
        while moments[0].at < now.at - LEFT_SPAN_S and len(moments) > 1:
            moments.popleft()

    def _since(self, at: float) -> _Moment | None:
        """The first moment that is kept of those from `at` on; else the last before."""
        moments = self._moments
        return next((each for each in moments if each.at >= at), moments[-1] if moments else None)


def average(snapshot: RunSnapshot) -> float | None:
    """Rows a second since the run began; None where no time has passed."""
    seconds = snapshot.elapsed_s
    return snapshot.settled / seconds if 0 < seconds < math.inf else None


def worked(snapshot: RunSnapshot) -> int:
    """Rows that took a call, or shared one."""
    return snapshot.done - snapshot.cached + snapshot.failed


def _rate(now: _Moment, then: _Moment | None, count: str) -> float | None:
    if then is None or now.at - then.at < STEP_S:
        return None
    gained: int = getattr(now, count) - getattr(then, count)
    return max(0.0, gained / (now.at - then.at))
