"""Whether a deployment is fit to be called: a circuit breaker without a clock of its own.

Figures after Envoy's outlier detection: five failures in a row, a base of 30 s that grows with
each ejection (envoyproxy.io, outlier_detection.proto).
"""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

from msgspec import Struct

IN_A_ROW = 5
SPAN_S = 60.0
LEAST_OUTCOMES = 10
FAILING_SHARE = 0.5
MOST_COUNTED = 1_000
"""Outcomes of the last minute that are kept; the share is that of the latest ones."""

BASE_S = 30.0
LONGEST_S = 300.0
ALONE_BASE_S = 1.0
ALONE_LONGEST_S = 60.0
_DOUBLINGS = 6


class Permit(Struct, frozen=True, gc=False):
    """What a call was let through as; handed back with its verdict.

    Attributes
    ----------
    era : int
        How often the breaker had opened before. A verdict of an earlier era says nothing about
        the present one.
    is_probe : bool
        Whether it is the one call that may close the breaker.
    """

    era: int
    is_probe: bool = False


class Breaker:
    """Opens after too many failures, lets one probe through, closes when it succeeds.

    The caller gives the time in monotonic seconds and holds a lock.

    Attributes
    ----------
    down_since : float or None
        When the present outage began: the first failure after the last success.
    ejections : int
        How often it has opened since it was last closed.
    """

    def __init__(self) -> None:
        self.down_since: float | None = None
        self.ejections = 0
        self._era = 0
        self._in_a_row = 0
        self._first_failure: float | None = None
        self._outcomes: deque[tuple[float, bool]] = deque()
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False

    def state(self, now: float) -> Literal["closed", "open", "half_open"]:
        """Tell whether calls are let through, none, or one."""
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until else "half_open"

    def ready_at(self, now: float) -> float:
        """Return when the next call may begin; infinite while the one probe is under way."""
        if self._open_until is None:
            return now
        return math.inf if self._probing else max(now, self._open_until)

    def admit(self, now: float) -> Permit:
        """Let a call through for which `ready_at` has come.

        There is one probe whatever the caller does: the permit of a call that begins too early
        is not the probe's, and its verdict counts for nothing.
        """
        if self.state(now) == "half_open" and not self._probing:
            self._probing = True
            return Permit(self._era, is_probe=True)
        return Permit(self._era)

    def success(self, now: float, permit: Permit) -> None:
        """Note an answer. Only the probe's closes an open breaker."""
        if permit.is_probe and permit.era == self._era:
            self._close()
        elif permit.era == self._era and self._open_until is None:
            self._in_a_row, self._first_failure, self.down_since = 0, None, None
            self._count(now, failed=False)

    def failure(self, now: float, permit: Permit, *, alone: bool) -> None:
        """Note a failure of the deployment.

        Parameters
        ----------
        now : float
            Monotonic seconds.
        permit : Permit
            Of the call.
        alone : bool
            No other deployment can take over, so that a long rest would only cost time: 1 s,
            2 s, ... up to 60 s instead of 30 s, 60 s, ... up to 300 s.
        """
        if permit.era != self._era:
            return
        if permit.is_probe:
            self._open(now, alone=alone)
            return
        if self._open_until is not None:
            return
        self._in_a_row += 1
        if self._first_failure is None:
            self._first_failure = now
        self._count(now, failed=True)
        enough = len(self._outcomes) >= LEAST_OUTCOMES
        failing = enough and self._failures >= FAILING_SHARE * len(self._outcomes)
        if self._in_a_row >= IN_A_ROW or failing:
            self.down_since = self._first_failure
            self._open(now, alone=alone)

    def abandon(self, now: float, permit: Permit) -> None:
        """Note a call that ended without a verdict; a probe's turn goes to the next one."""
        del now
        if permit.is_probe and permit.era == self._era:
            self._probing = False

    def _open(self, now: float, *, alone: bool) -> None:
        self.ejections += 1
        self._era += 1
        self._probing = False
        if self.down_since is None:
            self.down_since = now
        if alone:
            doublings = min(self.ejections - 1, _DOUBLINGS)
            rest_s = min(ALONE_BASE_S * 2**doublings, ALONE_LONGEST_S)
        else:
            rest_s = min(BASE_S * self.ejections, LONGEST_S)
        self._open_until = now + rest_s

    def _close(self) -> None:
        self.down_since, self.ejections, self._open_until = None, 0, None
        self._probing = False
        self._in_a_row, self._first_failure = 0, None
        self._outcomes.clear()
        self._failures = 0

    def _count(self, now: float, *, failed: bool) -> None:
        outcomes = self._outcomes
        outcomes.append((now, failed))
        self._failures += failed
        while outcomes[0][0] <= now - SPAN_S or len(outcomes) > MOST_COUNTED:
            self._failures -= outcomes.popleft()[1]
