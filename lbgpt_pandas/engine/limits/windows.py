"""Sliding windows over what was sent: pure bookkeeping, the time is given by the caller."""

from __future__ import annotations

import itertools
import math
from collections import deque

MINUTE_S = 60.0

LONGEST_GUARD_S = 0.25
GUARD_SHARE = 0.03
SHORT_S = 2.0
SHORT_GUARD_SHARE = 0.02
"""Short windows are paced as well, which is guard enough; a large share would cost as much."""

ROUNDING = 1e-6

SMALL_LOSS = 0.95
"""A short window that holds no whole number is kept to with the next smaller one down to here."""

PACING_SLACK_S = 0.5
"""Seconds of quota that a paced sender keeps in hand, against requests that bunch up."""


def guard_s(span_s: float) -> float:
    """Seconds by which a window is kept longer than the provider's.

    A call counts for us from its sending and for the provider from its arrival: a handshake, a
    new connection or a busy machine may lie in between.
    """
    share = SHORT_GUARD_SHARE if span_s <= SHORT_S else GUARD_SHARE
    return min(LONGEST_GUARD_S, share * span_s)


class Charge:
    """What one request takes from one resource.

    Attributes
    ----------
    at : float
        When it was reserved.
    amount : float
        Requests or tokens.
    refused : bool
        The provider turned it down; it may have been counted all the same.
    number : int
        Order in which charges were made.
    """

    __slots__ = ("amount", "at", "number", "refused")

    _numbers = itertools.count()

    def __init__(self, at: float, amount: float) -> None:
        self.at, self.amount, self.refused = at, amount, False
        self.number = next(self._numbers)


class Window:
    """At most `limit` in any span of `span_s` seconds, plus the guard.

    Parameters
    ----------
    limit : float
        What fits; a single charge above it fits an empty window.
    span_s : float
        Seconds.
    """

    __slots__ = ("_charges", "_used", "limit", "span_s")

    def __init__(self, limit: float, span_s: float) -> None:
        self.limit = limit
        self.span_s = span_s + guard_s(span_s)
        self._charges: deque[Charge] = deque()
        self._used = 0.0

    def used(self, now: float) -> float:
        """What the span that ends now holds."""
        charges, span_s = self._charges, self.span_s
        # The same sum as in `ready_at`: otherwise rounding could make a waiter come too early.
        while charges and charges[0].at + span_s <= now:
            self._used -= charges.popleft().amount
        if not charges:
            self._used = 0.0  # sums of fractions drift
        return self._used

    def ready_at(self, amount: float, now: float) -> float:
        """Return the earliest time at which `amount` fits, if nothing else comes."""
        excess = self.used(now) + amount - self.limit
        if excess <= ROUNDING:
            return now
        latest = -math.inf
        for charge in self._charges:
            # Nearly in order: a call that set off late was stamped again.
            latest = max(latest, charge.at)
            excess -= charge.amount
            if excess <= ROUNDING:
                break
        return latest + self.span_s if self._charges else now

    def add(self, charge: Charge) -> None:
        """Count a charge; they come in the order of time."""
        self._charges.append(charge)
        self._used += charge.amount

    def change(self, charge: Charge, amount: float, now: float) -> None:
        """Count `charge` as `amount` from now on; the caller sets its amount afterwards."""
        self.used(now)
        # By its number, not its time: one that was stamped later keeps those behind it here.
        if self._charges and charge.number >= self._charges[0].number:
            self._used += amount - charge.amount

    def admitted_since(self, time: float) -> float:
        """Sum of the charges after `time` that were not refused."""
        total = 0.0
        for charge in reversed(self._charges):
            if charge.at <= time:
                break
            if not charge.refused:
                total += charge.amount
        return total

    def charges_since(self, time: float) -> list[Charge]:
        """Charges after `time`, oldest first."""
        found = []
        for charge in reversed(self._charges):
            if charge.at <= time:
                break
            found.append(charge)
        return found[::-1]


class Pacer:
    """Spreads requests: a generic cell rate algorithm, one number of state.

    Parameters
    ----------
    rate : float
        Requests a second; may be changed.
    burst : float
        How many may come at once after a rest, at least 1.
    """

    __slots__ = ("_due", "_tolerance_s", "rate")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self._tolerance_s = (max(1.0, burst) - 1.0) / rate
        self._due = -math.inf

    def ready_at(self, now: float) -> float:
        """Return the earliest time at which the next request conforms."""
        return max(now, self._due - self._tolerance_s)

    def add(self, now: float) -> None:
        """Count one request."""
        self._due = max(now, self._due) + 1.0 / self.rate

    def take_over(self, other: Pacer) -> None:
        """Go on where another pacer stood."""
        self._due = other._due  # of the same class


class Meter:
    """The limit of one resource: a minute's window, a shorter one where bursts are refused.

    Parameters
    ----------
    limit : float
        What a minute holds.
    burst_s : float or None
        Seconds over which the provider really enforces it; None or 60: the minute itself.
    paced : bool
        Whether a short window is also spread out, as requests are; tokens are not.
    """

    __slots__ = (
        "_minute",
        "_paced",
        "_pacer",
        "_short",
        "burst_s",
        "foreign",
        "foreign_until",
        "limit",
    )

    def __init__(self, limit: float, *, burst_s: float | None, paced: bool) -> None:
        self.limit = limit
        self.burst_s: float | None = None
        self.foreign, self.foreign_until = 0.0, -math.inf
        self._paced = paced
        self._minute = Window(limit, MINUTE_S)
        self._short: Window | None = None
        self._pacer: Pacer | None = None
        if burst_s is not None:
            self.set_burst(burst_s, now=-math.inf)

    def set_limit(self, limit: float, *, now: float) -> None:
        """Hold to another limit from now on."""
        self.limit = self._minute.limit = limit
        if self.burst_s is not None:
            self.set_burst(self.burst_s, now=now)

    def set_burst(self, burst_s: float, *, now: float) -> None:
        """Hold to a shorter window from now on, 60 or more for none."""
        self.burst_s = burst_s
        earlier, self._short, self._pacer = self._pacer, None, None
        if burst_s >= MINUTE_S:
            return
        rate = self.limit / MINUTE_S
        most, span_s = rate * burst_s, burst_s
        if self._paced:
            whole = max(1.0, math.floor(most + ROUNDING))
            if whole < SMALL_LOSS * most:
                span_s = whole / rate  # 100 a minute over 1 s: not 1 in 1 s but 1 in 0.6 s
            most = whole
        self._short = Window(most, span_s)
        for charge in self._minute.charges_since(now - self._short.span_s):
            self._short.add(charge)
        if self._paced:
            self._pacer = Pacer(rate, most - PACING_SLACK_S * rate)
            if earlier is not None:
                self._pacer.take_over(earlier)

    def used(self, now: float) -> float:
        """What the last minute holds, others' share included."""
        return self._minute.used(now) + (self.foreign if now < self.foreign_until else 0.0)

    def own(self, now: float) -> float:
        """What we have in the last minute."""
        return self._minute.used(now)

    def left(self, now: float) -> float:
        """What may be sent at once."""
        left = self.limit - self.used(now)
        if self._short is not None:
            left = min(left, self._short.limit - self._short.used(now))
        return max(0.0, left)

    def share(self, now: float) -> float:
        """Free share of the minute, from 0 to 1.

        A shorter window decides when the next request may be sent, but not how much of the
        quota is used up: in a second it is empty again.
        """
        return max(0.0, 1.0 - self.used(now) / self.limit)

    def ready_at(self, amount: float, now: float) -> float:
        """Return the earliest time at which `amount` fits."""
        ready = self._minute.ready_at(amount, now)
        if self.foreign and now < self.foreign_until:
            crowded = self._minute.ready_at(amount + self.foreign, now)
            ready = max(ready, min(crowded, self.foreign_until))
        if self._short is not None:
            ready = max(ready, self._short.ready_at(min(amount, self._short.limit), now))
        if self._pacer is not None:
            ready = max(ready, self._pacer.ready_at(now))
        return ready

    def add(self, amount: float, now: float) -> Charge:
        """Take `amount`."""
        charge = Charge(now, amount)
        self._minute.add(charge)
        if self._short is not None:
            self._short.add(charge)
        if self._pacer is not None:
            self._pacer.add(now)
        return charge

    def adopt(self, charge: Charge) -> None:
        """Count a charge that was made before there was a limit."""
        self._minute.add(charge)

    def change(self, charge: Charge, amount: float, now: float) -> None:
        """Make a charge larger or smaller, at the time at which it was made."""
        self._minute.change(charge, amount, now)
        if self._short is not None:
            self._short.change(charge, amount, now)
        charge.amount = amount

    def stamp(self, charge: Charge, now: float) -> None:
        """Count a charge from now on: its call is sent only now."""
        shortest = self._minute if self._short is None else self._short
        if charge.at < now < charge.at + shortest.span_s:
            charge.at = now

    def admitted_since(self, time: float) -> float:
        """What was taken after `time` and not refused."""
        return self._minute.admitted_since(time)

    def charges_since(self, time: float) -> list[Charge]:
        """Charges after `time`, oldest first, at most a minute back."""
        return self._minute.charges_since(time)
