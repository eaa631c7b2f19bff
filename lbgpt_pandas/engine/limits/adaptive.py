"""How many calls may be in flight where nobody says how many: slow start, then AIMD.

The figures are those of inspect_ai's adaptive connections: a start with 20, then 5 % more for
each clean round that was really used, and four fifths on a refusal. Until the first refusal each
answer makes room for two more calls, where inspect_ai doubles with each whole round: a column of
5,000 quick answers came a twentieth later that way. Providers refuse at once and answer late, so
that silence counts as consent: without it, a column of slow answers would be asked a few at a
time for as long as several of them take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbgpt_pandas.engine.limits.quota import Limits

GROWTH = 0.05
SHRINKING = 0.8
DEBOUNCE_S = 15.0
SATURATED = 0.8

MORE_AN_ANSWER = 2.0
"""Calls more in flight after each answer before the first refusal: three times as many a round."""

SILENCE_S = 0.25
"""Seconds after which a call that was not refused is taken to be admitted."""

PATIENCE = 0.5
"""Part of a time limit; where answers take longer, more calls at once would only wait."""

OVERLOAD = 0.5
"""What is left of the cap when answers come too late because too many calls are waiting."""

LATEST = 8
"""Answers over which the time that they took is averaged, more or less."""


class AdaptiveConcurrency:
    """A cap that experience raises and refusals lower.

    It begins with 1 until the first answer or `SILENCE_S`, so that a wrong key costs one call. The
    caller gives the time in monotonic seconds and holds a lock.

    Parameters
    ----------
    start : int or None, default 20
        The cap after the first answer; None for `most` at once.
    least, most : int, default 1 and 256
        Bounds.
    adaptive : bool, default True
        Whether refusals lower the cap; False where limits are known and kept to.

    Attributes
    ----------
    cap : int
        Calls that may be in flight at once.
    is_starting : bool
        Whether it goes up without a refusal so far, so that silence raises it.
    """

    def __init__(
        self,
        *,
        start: int | None = 20,
        least: int = 1,
        most: int = 256,
        adaptive: bool = True,
    ) -> None:
        self._start = most if start is None else max(least, min(start, most))
        self._least, self._most, self._adaptive = least, most, adaptive
        self._cap, self.cap = 1.0, 1
        self._proven = False
        self._doubling = self._start < most
        self.is_starting = most > 1
        self._successes = 0
        self._busiest = 0
        self._frozen_until = self._halved_at = float("-inf")
        self._took_s, self._limit_s = 0.0, float("inf")

    def success(self, now: float, *, in_flight: int, took_s: float = 0.0) -> None:
        """Note an answer.

        Parameters
        ----------
        now : float
            Monotonic seconds.
        in_flight : int
            Calls under way when it came, itself included.
        took_s : float, default 0
            Seconds that it took.
        """
        self._took_s += (took_s - self._took_s) / LATEST
        if not self._proven:
            self._proven = True
            self._set_cap(max(self._cap, float(self._start)))
            return
        if self._cap >= self._most or now < self._frozen_until:
            return
        if self._took_s > PATIENCE * self._limit_s:
            return
        if self._doubling:
            # With each answer, so that nobody waits for the slowest of a round.
            if in_flight >= SATURATED * self._cap:
                self._set_cap(min(float(self._most), self._cap + MORE_AN_ANSWER))
            return
        self._successes += 1
        self._busiest = max(self._busiest, in_flight)
        if self._successes < self.cap:
            return
        if self._busiest >= SATURATED * self.cap:
            self._set_cap(min(float(self._most), self._cap + max(1.0, GROWTH * self._cap)))
        self._successes = self._busiest = 0

    def silence(self, *, in_flight: int) -> None:
        """Note that nothing was refused for `SILENCE_S`, though calls are under way."""
        if not self._proven:
            self._proven = True
            self._set_cap(max(self._cap, float(self._start)))
        elif self.is_starting and in_flight >= SATURATED * self._cap:
            self._set_cap(min(float(self._most), 2.0 * self._cap))

    def refusal(self, now: float) -> None:
        """Note a 429; those of the next 15 s are taken for the same one."""
        self._doubling = self.is_starting = False
        if now < self._frozen_until or not self._adaptive:
            return
        self._frozen_until = now + DEBOUNCE_S
        if self._proven:
            self._set_cap(max(float(self._least), self._cap * SHRINKING))
        self._successes = self._busiest = 0

    def timeout(self, now: float, *, begun: float) -> None:
        """Note a call that had no answer in time.

        If others take nearly as long, the provider has more calls than it can answer, and each
        that is given up was work in vain, if not money. One that hangs alone says nothing.

        Parameters
        ----------
        now, begun : float
            Monotonic seconds, and those at which the call was made.
        """
        if begun <= self._halved_at or self._took_s <= PATIENCE * (now - begun):
            return
        self._doubling = False
        self._halved_at, self._limit_s = now, now - begun
        self._set_cap(max(float(self._least), self._cap * OVERLOAD))
        self._successes = self._busiest = 0

    def _set_cap(self, cap: float) -> None:
        self._cap, self.cap = cap, int(cap)
        self.is_starting = self._doubling and self.cap < self._most


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
