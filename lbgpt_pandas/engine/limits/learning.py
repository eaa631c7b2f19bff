"""What a provider's answers and refusals teach about its limits."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.limits.windows import MINUTE_S, ROUNDING, Charge, Meter, Pacer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lbgpt_pandas.engine.limits.headers import LimitReading, Resource
    from lbgpt_pandas.engine.limits.quota import Limits, Reservation

RECOVERY_A_MINUTE = 0.05
"""A limit that was lowered, or a rate that was slowed down, grows by this share a minute."""

SLOWED_TO = 0.8
SLOWED_AT_MOST = 0.1
REFUSED_RATE = 0.9
GROWTH_A_SECOND = 0.05
"""Growth of a rate that was found by refusals alone, where no limit is known."""

CEILING_PASSED = 1.25
FASTER_GROWTH = 1.5
"""Past the rate at which refusals began, by a quarter of what was held to, growth compounds."""

SHRUNK_TO = 0.9
PATIENCE_S = 10.0
"""One refusal in this time is taken for jitter, the second for a limit that is too high."""

CLEARLY_LESS = 0.9
MORE_THAN_ALLOWED = 1.2
LONGEST_RECOVERY = 500.0
"""Minutes after which what grows by 5 % each has become too large to matter."""

LONGEST_RESET_S = 2.0 * MINUTE_S
SOONEST_RESET = 0.5
"""Part of the time that a minute's limit needs to be free again, for rounded resets."""

KNOWN_WINDOWS_S = (60.0, 30.0, 20.0, 15.0, 10.0, 5.0)
TELLING_WAIT = 0.2
BEGIN_TOLERANCE_S = 1.0
LEAST_ADMITTED = 5
MEASURED_S = 5.0
RECENT = 4_096


_SMALL_RATE = 10


class Learner:
    """Lowers limits below what was told, never above it; the caller holds the lock.

    Parameters
    ----------
    meters : dict of resource to Meter
        The quota's own, changed in place.
    limits : Limits
        As they were told.
    """

    def __init__(self, meters: dict[Resource, Meter], limits: Limits) -> None:
        self._meters = meters
        self._told: dict[Resource, float] = {}
        if limits.rpm is not None:
            self._told["requests"] = float(limits.rpm)
        if limits.tpm is not None:
            self._told["tokens"] = float(limits.tpm)
        self._usual_burst_s = limits.burst_s
        self._burst_told = limits.burst_s is not None and limits.burst_is_told
        self._lowered: dict[Resource, tuple[float, float]] = {}
        self._read_up_to: dict[Resource, int] = {}
        self._recent: deque[Charge] = deque(maxlen=RECENT)
        self._first_sent: float | None = None
        self._judged_at = float("-inf")
        self._checked_at = float("-inf")
        self._slowed_at = float("-inf")
        self._long_wait_until = float("inf")
        self._pacer: Pacer | None = None
        self._rate, self._rate_since, self._growth = 0.0, 0.0, 0.0
        self.source = "local"
        self._configured: dict[Resource, float] = {}
        self._stated: dict[Resource, float] = {}
        self._refusing: dict[Resource, float] = {}

    def ready_at(self, now: float) -> float:
        """Return the earliest time at which a slowed-down rate lets the next request through."""
        if self._pacer is None:
            return now
        factor = 1.0 + self._growth * (now - self._rate_since)
        if self._is_probing and factor > CEILING_PASSED:
            beyond_s = (factor - CEILING_PASSED) / self._growth
            factor = CEILING_PASSED * FASTER_GROWTH ** min(beyond_s, 60.0)
        self._pacer.rate = self._rate * factor
        return self._pacer.ready_at(now)

    @property
    def _is_probing(self) -> bool:
        return self._growth == GROWTH_A_SECOND

    def sent(self, now: float) -> Charge | None:
        """Note a request; return its charge where no limit on requests keeps one."""
        if self._first_sent is None:
            self._first_sent = now
        if self._pacer is not None:
            self._pacer.add(now)
        if "requests" in self._meters:
            return None
        charge = Charge(now, 1.0)
        self._recent.append(charge)
        return charge

    def recover(self, now: float) -> None:
        """Raise what was lowered, by and by, up to what was told."""
        if not self._lowered or now < self._checked_at + 1.0:
            return
        self._checked_at = now
        for resource, (limit, since) in list(self._lowered.items()):
            minutes = min((now - since) / MINUTE_S, LONGEST_RECOVERY)
            grown = limit * (1.0 + RECOVERY_A_MINUTE) ** minutes
            ceiling = self._told.get(resource, limit)
            if grown >= ceiling:
                del self._lowered[resource]
            self._meters[resource].set_limit(min(grown, ceiling), now=now)

    def take_notices(self) -> list[str]:
        """Return what users should be warned of, once."""
        notices = [
            f"the provider states a limit of {self._meters[resource].limit:,.0f} {resource} a "
            f"minute, not the {told:,.0f} that were configured; the lower one is kept to"
            for resource, told in self._stated.items()
            if told < math.inf
        ]
        notices += [
            f"the provider refused requests although no more than {_shown(told)} {resource} a "
            f"minute were sent; going on with {_shown(self._meters[resource].limit)}, and slowly "
            "more"
            for resource, told in self._refusing.items()
            if told < math.inf
        ]
        self._stated, self._refusing = {}, {}
        return notices

    def slow_down(self, reservation: Reservation, *, now: float) -> None:
        """Cap the rate at four fifths of what was sent; calls refused together count once."""
        if reservation.at <= self._slowed_at:
            return
        self._slowed_at = now
        since = max(now - MINUTE_S, self._first_sent if self._first_sent is not None else now)
        meter = self._meters.get("requests")
        charges = self._recent if meter is None else meter.charges_since(since - 1.0)
        rate = sum(charge.at > since - ROUNDING for charge in charges) / max(1.0, now - since)
        least = 1.0 / MINUTE_S if meter is None else SLOWED_AT_MOST * meter.limit / MINUTE_S
        self._hold(max(SLOWED_TO * rate, least), growth=RECOVERY_A_MINUTE / MINUTE_S, now=now)

    def refused(
        self, reservation: Reservation, wait_s: float | None, *, rare: bool = False, now: float
    ) -> None:
        """Learn from a 429 whose cause was the number of requests.

        Parameters
        ----------
        reservation : Reservation
            Of the refused call.
        wait_s : float or None
            Seconds that the provider asked to wait.
        rare : bool, default False
            Nearly all calls of late were answered.
        now : float
            Monotonic seconds.
        """
        meter = self._meters.get("requests")
        if meter is None:
            if wait_s is not None and wait_s >= TELLING_WAIT * MINUTE_S:
                self._suspect_minute(wait_s, now)
            else:
                self._hold_to_admitted(now)
            return
        if wait_s is not None and self._find_window(meter, now + wait_s, now=now):
            return
        if not self._burst_told and self._find_burst(meter, now):
            return
        if rare or reservation.at <= self._judged_at:
            return  # sent before the last one was drawn a conclusion from
        if now < self._judged_at + PATIENCE_S:
            self._lower("requests", meter.limit * SHRUNK_TO, now=now)
        self._judged_at = now

    def read(
        self, readings: Mapping[Resource, LimitReading], reservation: Reservation, *, now: float
    ) -> None:
        """Compare what headers say with what was sent.

        Headers of requests that were sent earlier than others already read are out of date.
        """
        for resource, reading in readings.items():
            if reservation.number <= self._read_up_to.get(resource, 0):
                continue
            self._read_up_to[resource] = reservation.number
            if reading.limit is None or reading.remaining is None:
                continue  # every provider that means it states both
            if self._is_of_a_minute(resource, reading, now):
                self._read_limit(resource, float(reading.limit), now)
            meter = self._meters.get(resource)
            if meter is not None:
                self._read_remaining(resource, meter, reading, reservation, now)

    def _is_of_a_minute(self, resource: Resource, reading: LimitReading, now: float) -> bool:
        """Tell whether a stated limit can be that of a minute: gateways state a second's as well.

        What is used of a minute's limit is not free again before its share of a minute is over,
        and more than the limit is not answered in a minute.
        """
        limit, meter = float(reading.limit or 0), self._meters.get(resource)
        own = _admitted(self._recent, now - MINUTE_S) if meter is None else meter.own(now)
        if not limit or own > MORE_THAN_ALLOWED * limit:
            return False
        if reading.reset_s is None or (meter is None and resource != "requests"):
            return True
        used = min(own, max(0.0, limit - float(reading.remaining or 0)))
        return reading.reset_s >= SOONEST_RESET * used * MINUTE_S / limit

    def _read_limit(self, resource: Resource, limit: float, now: float) -> None:
        meter, told = self._meters.get(resource), self._told.get(resource)
        if meter is None:
            is_requests = resource == "requests"
            meter = self._meters[resource] = Meter(
                limit, burst_s=self._usual_burst_s if is_requests else None, paced=is_requests
            )
            if is_requests:
                for charge in self._recent:
                    if charge.at > now - MINUTE_S:
                        meter.adopt(charge)
                self._pacer = None
            self.source = "header"
        elif told is None:
            if limit != meter.limit and resource not in self._lowered:
                meter.set_limit(limit, now=now)
        elif limit < told * 0.99 and limit < meter.limit:
            self._read_lower_limit(resource, meter, limit, told, now)
        elif resource in self._configured and told < limit:
            # The provider grants more again, never more than what was configured.
            self._told[resource] = min(limit, self._configured[resource])
            meter.set_limit(self._told[resource], now=now)

    def _read_lower_limit(
        self, resource: Resource, meter: Meter, limit: float, told: float, now: float
    ) -> None:
        if resource == "requests":
            # Azure states the limit of ten seconds or of one where others state a minute's.
            span_s = limit * MINUTE_S / told
            for usual in (1.0, 10.0):
                if abs(span_s - usual) <= 0.05 * usual:
                    if not self._burst_told and meter.burst_s is None:
                        meter.set_burst(usual, now=now)
                    return
        self.source = "header"
        self._configured.setdefault(resource, told)
        self._stated.setdefault(resource, told)
        self._told[resource] = limit
        meter.set_limit(limit, now=now)

    def _read_remaining(
        self,
        resource: Resource,
        meter: Meter,
        reading: LimitReading,
        reservation: Reservation,
        now: float,
    ) -> None:
        remaining, reset_s = float(reading.remaining or 0), reading.reset_s
        own = reservation.own.get(resource, meter.own(now))
        if reset_s is not None and meter.burst_s is None and not self._burst_told:
            rate = meter.limit / MINUTE_S
            # A bucket that is full again in `reset_s` holds this much.
            capacity = remaining + reset_s * rate
            refilled_alone = reset_s <= 1.5 * (own + 1.0) / rate
            is_less = capacity < CLEARLY_LESS * meter.limit
            if refilled_alone and is_less and own + remaining < CLEARLY_LESS * meter.limit:
                meter.set_burst(max(capacity, 1.0) / rate, now=now)
                self.source = "header"
        if meter.burst_s is not None and meter.burst_s < MINUTE_S:
            meter.foreign = 0.0
            return
        if reset_s is not None and reset_s > LONGEST_RESET_S:
            return  # what is left of a day says nothing about this minute
        limit = float(reading.limit or meter.limit)
        meter.foreign = max(0.0, min(limit, meter.limit) - remaining - own)
        meter.foreign_until = now + min(MINUTE_S if reset_s is None else reset_s, MINUTE_S)

    def _find_window(self, meter: Meter, freed_at: float, *, now: float) -> bool:
        """Tell from the wait which span is enforced: it begins at a request of ours."""
        charges = [charge for charge in meter.charges_since(now - MINUTE_S) if not charge.refused]
        for span_s in KNOWN_WINDOWS_S:
            if freed_at - now < TELLING_WAIT * span_s:
                continue  # where requests are dense, a short wait fits every span
            begin, tolerance = freed_at - span_s, 0.02 * span_s + 0.1
            starts = sum(abs(charge.at - begin) <= tolerance for charge in charges)
            if not starts or (charges[0].at < begin - tolerance and span_s < MINUTE_S):
                # Requests before it would have been enough for a longer span to be refused.
                continue
            admitted = sum(charge.at >= begin - tolerance for charge in charges)
            effective = admitted * MINUTE_S / span_s
            if span_s < MINUTE_S and not self._burst_told and effective <= 1.1 * meter.limit:
                self._set_shorter_burst(meter, span_s, now)
            if effective < CLEARLY_LESS * meter.limit:
                self._lower("requests", effective, now=now)
            return True
        return False

    def _find_burst(self, meter: Meter, now: float) -> bool:
        """Take what was admitted before a refusal for the capacity of a shorter span."""
        if meter.own(now) >= CLEARLY_LESS * meter.limit and meter.burst_s is None:
            return False
        span_s = 1.0
        while span_s < MINUTE_S:
            wider = meter.admitted_since(now - span_s) * MINUTE_S / meter.limit
            if wider <= span_s:
                break
            span_s = wider
        return self._set_shorter_burst(meter, span_s, now)

    def _set_shorter_burst(self, meter: Meter, span_s: float, now: float) -> bool:
        known = meter.burst_s or CLEARLY_LESS * MINUTE_S
        if span_s >= known - ROUNDING:
            return False
        meter.set_burst(span_s, now=now)
        return True

    def _suspect_minute(self, wait_s: float, now: float) -> None:
        """Learn from a long wait where nothing is known, if it points to a limit of a minute.

        It does if it ends a minute after one of our requests, or if it is not the first one; and
        never if hardly anything was admitted.
        """
        begin, again = now + wait_s - MINUTE_S, self._long_wait_until <= now
        self._long_wait_until = min(self._long_wait_until, now + wait_s)
        is_minute = any(
            abs(charge.at - begin) <= BEGIN_TOLERANCE_S and not charge.refused
            for charge in self._recent
        )
        enough = self._admitted_since(now - MINUTE_S) >= LEAST_ADMITTED
        if enough and wait_s <= MINUTE_S + BEGIN_TOLERANCE_S and (is_minute or again):
            self._take_for_minute(now)

    def _take_for_minute(self, now: float) -> None:
        """Where nothing is known and the wait is long: the last minute's requests were too many."""
        admitted = max(1.0, self._admitted_since(now - MINUTE_S))
        meter = self._meters["requests"] = Meter(admitted, burst_s=self._usual_burst_s, paced=True)
        for charge in self._recent:
            if charge.at > now - MINUTE_S:
                meter.adopt(charge)
        self._pacer = None
        # It may have been less than is allowed, so it grows until it is refused again.
        self._told["requests"] = math.inf
        self._lowered["requests"] = admitted, now

    def _hold_to_admitted(self, now: float) -> None:
        first = self._first_sent if self._first_sent is not None else now
        span_s = min(max(now - first, 1.0), MEASURED_S)
        rate = REFUSED_RATE * self._admitted_since(now - span_s) / span_s
        if not rate:
            return  # nothing was admitted of late, so there is nothing to go by
        if self._pacer is None or rate < self._pacer.rate:
            self._hold(rate, growth=GROWTH_A_SECOND, now=now)

    def _hold(self, rate: float, *, growth: float, now: float) -> None:
        self._rate, self._rate_since, self._growth = max(rate, 1.0 / MINUTE_S), now, growth
        pacer = Pacer(self._rate, 1.0 + 0.05 * self._rate)
        pacer.add(now)
        self._pacer = pacer

    def _lower(self, resource: Resource, limit: float, *, now: float) -> None:
        meter = self._meters[resource]
        limit = max(1.0, min(limit, meter.limit))
        if resource not in self._lowered:
            self._refusing[resource] = self._told.setdefault(resource, meter.limit)
        self._lowered[resource] = limit, now
        meter.set_limit(limit, now=now)

    def _admitted_since(self, time: float) -> float:
        meter = self._meters.get("requests")
        if meter is not None:
            return meter.admitted_since(time)
        return _admitted(self._recent, time)


def _admitted(charges: Iterable[Charge], time: float) -> float:
    return sum(charge.amount for charge in charges if charge.at > time and not charge.refused)


def _shown(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= _SMALL_RATE else f"{rate:.1f}"
