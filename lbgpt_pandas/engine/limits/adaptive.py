"""How many calls may be in flight where nobody says how many: slow start, then AIMD.

The figures are those of inspect_ai's adaptive connections: doubling until the first refusal,
then 5 % more for each clean round that was really used, and four fifths on a refusal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbgpt_pandas.engine.limits.quota import Limits

GROWTH = 0.05
SHRINKING = 0.8
DEBOUNCE_S = 15.0
SATURATED = 0.8


class AdaptiveConcurrency:
    """A cap that experience raises and refusals lower.

    It begins with 1 until the first answer, so that a wrong key costs one call. The caller
    gives the time in monotonic seconds and holds a lock.

    Parameters
    ----------
    start : int or None, default 8
        The cap after the first answer; None for `most` at once.
    least, most : int, default 1 and 256
        Bounds.
    adaptive : bool, default True
        Whether refusals lower the cap; False where limits are known and kept to.

    Attributes
    ----------
    cap : int
        Calls that may be in flight at once.
    """

    def __init__(
        self,
        *,
        start: int | None = 8,
        least: int = 1,
        most: int = 256,
        adaptive: bool = True,
    ) -> None:
        self._start = most if start is None else max(least, min(start, most))
        self._least, self._most, self._adaptive = least, most, adaptive
        self._cap, self.cap = 1.0, 1
        self._proven = False
        self._doubling = self._start < most
        self._successes = 0
        self._busiest = 0
        self._frozen_until = float("-inf")

    def success(self, now: float, *, in_flight: int) -> None:
        """Note an answer.

        Parameters
        ----------
        now : float
            Monotonic seconds.
        in_flight : int
            Calls under way when it came, itself included.
        """
        if not self._proven:
            self._proven = True
            self._set_cap(max(self._cap, float(self._start)))
            return
        if self._cap >= self._most or now < self._frozen_until:
            return
        if self._doubling:
            # One more for each answer is twice as many a round, without waiting for its slowest.
            if in_flight >= SATURATED * self._cap:
                self._set_cap(self._cap + 1.0)
            return
        self._successes += 1
        self._busiest = max(self._busiest, in_flight)
        if self._successes < self.cap:
            return
        if self._busiest >= SATURATED * self.cap:
            self._set_cap(min(float(self._most), self._cap + max(1.0, GROWTH * self._cap)))
        self._successes = self._busiest = 0

    def refusal(self, now: float) -> None:
        """Note a 429; those of the next 15 s are taken for the same one."""
        self._doubling = False
        if now < self._frozen_until or not self._adaptive:
            return
        self._frozen_until = now + DEBOUNCE_S
        if self._proven:
            self._set_cap(max(float(self._least), self._cap * SHRINKING))
        self._successes = self._busiest = 0

    def _set_cap(self, cap: float) -> None:
        self._cap, self.cap = cap, int(cap)


def concurrency_for(limits: Limits, *, start: int | None, most: int) -> AdaptiveConcurrency | None:
    """Make the cap that goes with what is known of a provider's limits.

    Parameters
    ----------
    limits : Limits
        As they were told. If they are, refusals do not lower the cap; with the burst told as
        well, the first answer opens everything.
    start : int or None
        Calls in flight after the first answer; None for a provider that needs no such care.
    most : int
        The configured cap.
    """
    if start is None:
        return None
    return AdaptiveConcurrency(
        start=None if limits.rpm and limits.burst_s else start,
        most=most,
        adaptive=limits.rpm is None and limits.tpm is None,
    )
