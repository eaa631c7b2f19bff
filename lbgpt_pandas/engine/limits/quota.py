"""The quota of one owner: what is reserved before a call, and settled when it has ended.

A log of the last minute admits at most the limit in any 60 seconds, so it conforms to a
provider that counts sliding windows, fixed minutes or a bucket of one minute's capacity. Where
a provider enforces its limits over a shorter span, that span is a second window.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.lifetime import renew_after_fork
from lbgpt_pandas.engine.limits.learning import Learner
from lbgpt_pandas.engine.limits.watchers import Watchers
from lbgpt_pandas.engine.limits.windows import MINUTE_S, Meter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lbgpt_pandas.engine.limits.headers import LimitReading, Resource
    from lbgpt_pandas.engine.limits.windows import Charge


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider allows in a minute; None where it is not known.

    Attributes
    ----------
    rpm, tpm : int or None
        Requests and tokens.
    burst_s : float or None
        Seconds over which the limit on requests is really enforced: 60 for the whole minute,
        10 on Azure, 1 for each second; None to find out.
    burst_is_told : bool, default True
        Whether `burst_s` is certain; False for what is usual with this provider.
    """

    rpm: int | None = None
    tpm: int | None = None
    burst_s: float | None = None
    burst_is_told: bool = True

    def __post_init__(self) -> None:
        given: list[tuple[str, Any]] = [("limit_rpm", self.rpm), ("limit_tpm", self.tpm)]
        for name, value in given:
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            if value is not None and not (whole and value >= 1):
                raise ConfigurationError(
                    f"{name}={value!r}: give a whole number of at least 1, or None for no limit"
                )
        burst: Any = self.burst_s
        is_number = isinstance(burst, Real) and not isinstance(burst, bool)
        if burst is not None and not (is_number and 0 < burst <= MINUTE_S):
            raise ConfigurationError(
                f"limit_burst_s={burst!r}: give seconds above 0 and at most {MINUTE_S:.0f}, or None"
            )


class Reservation:
    """What one call has taken from a quota; settled exactly once.

    A second settlement of any kind does nothing.

    Attributes
    ----------
    at : float
        When it was made, in monotonic seconds.
    number : int
        Order of the reservations of one quota.
    own : mapping of resource to float
        What the quota's last minute held just after it, by resource.
    """

    __slots__ = ("_charges", "_floor", "_quota", "at", "number", "own")

    def __init__(
        self,
        quota: Quota,
        charges: dict[Resource, Charge],
        *,
        at: float,
        number: int,
        floor: float,
        own: dict[Resource, float],
    ) -> None:
        self._quota: Quota | None = quota
        self._charges, self._floor = charges, floor
        self.at, self.number, self.own = at, number, own

    def stamp(self, *, now: float) -> None:
        """Note that the call is sent now, if it was reserved a while ago."""
        if self._quota is not None and self._quota.meters:
            self._quota.stamp(self._charges, now=now)

    def commit(self, amounts: Mapping[Resource, float], *, now: float) -> None:
        """Settle a call that was answered with what it really cost.

        Tokens do not fall below what the provider counts at admission, whatever the answer's
        length.
        """
        quota, self._quota = self._quota, None
        if quota is not None:
            quota.settle(self._charges, {**amounts, "requests": 1.0}, self._floor, now=now)

    def keep(self, *, now: float) -> None:
        """Settle a call that was sent and failed: the provider may have counted all of it."""
        quota, self._quota = self._quota, None
        if quota is not None:
            quota.settle(self._charges, {}, 0.0, now=now)

    def refuse(self, *, now: float) -> None:
        """Settle a call that the provider turned down: it counts as a request without tokens."""
        quota, self._quota = self._quota, None
        if quota is not None:
            for charge in self._charges.values():
                charge.refused = True
            rest: dict[Resource, float] = {
                resource: 0.0 for resource in self._charges if resource != "requests"
            }
            quota.settle(self._charges, rest, 0.0, now=now)

    def cancel(self, *, now: float) -> None:
        """Give everything back: nothing was sent."""
        quota, self._quota = self._quota, None
        if quota is not None:
            nothing = dict.fromkeys(self._charges, 0.0)
            quota.settle(self._charges, nothing, 0.0, now=now)


class Quota:
    """Limits of one owner and what was taken from them; safe from any thread.

    Parameters
    ----------
    limits : Limits
        As they were told.

    Attributes
    ----------
    blocked_until : float
        Monotonic second before which nothing is sent, because the provider asked for it.
    watchers : Watchers
        Who may be waiting for it.
    reserved, committed, released : dict of resource to float
        Sums since the start; the first is always the sum of the others and of what is open.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.blocked_until = 0.0
        self.reserved: dict[Resource, float] = {}
        self.committed: dict[Resource, float] = {}
        self.released: dict[Resource, float] = {}
        self.meters: dict[Resource, Meter] = {}
        if limits.rpm is not None:
            self.meters["requests"] = Meter(limits.rpm, burst_s=limits.burst_s, paced=True)
        if limits.tpm is not None:
            self.meters["tokens"] = Meter(limits.tpm, burst_s=None, paced=False)
        self._learner = Learner(self.meters, limits)
        self._numbers = 0
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Make a new lock: in a forked child nobody releases the old one."""
        self._lock = threading.Lock()
        self.watchers = Watchers()

    @property
    def source(self) -> str:
        """``"header"`` once what a provider said has changed a limit, else ``"local"``."""
        return self._learner.source

    @property
    def knows_its_burst(self) -> bool:
        """Whether the span over which requests are counted was told or found out."""
        meter = self.meters.get("requests")
        found = meter is not None and meter.burst_s is not None
        return found or self.limits.burst_s is not None

    @property
    def counts_tokens(self) -> bool:
        """Whether any limit is one on tokens."""
        meters = self.meters
        return bool(meters) and any(resource != "requests" for resource in meters)

    def fits(self, least: Mapping[Resource, float]) -> bool:
        """Tell whether a request that takes at least this can ever be sent.

        By the limits that were told; about one that was only read its provider decides.
        """
        return self.limits.tpm is None or least.get("tokens", 0.0) <= self.limits.tpm

    def ready_at(self, cost: Mapping[Resource, float], now: float) -> float:
        """Return the earliest time at which a request of this cost may be sent.

        An estimate above a limit waits for the whole limit: what `fits` is sent some time.
        """
        with self._lock:
            return self._ready_at(cost, now)

    def reserve(
        self, cost: Mapping[Resource, float], now: float, *, floor: float = 0.0
    ) -> Reservation | None:
        """Take what a request may cost, if it fits now; choice and reservation in one step.

        Parameters
        ----------
        cost : mapping of resource to float
            What it is expected to take; one request.
        now : float
            Monotonic seconds.
        floor : float, default 0
            Tokens that the provider counts whatever the answer's length.
        """
        with self._lock:
            if self._ready_at(cost, now) > now + 1e-6:
                return None
            charges: dict[Resource, Charge] = {}
            own: dict[Resource, float] = {}
            for resource, meter in self.meters.items():
                amount = min(cost.get(resource, 0.0), meter.limit)
                charges[resource] = meter.add(amount, now)
                own[resource] = meter.own(now)
                self.reserved[resource] = self.reserved.get(resource, 0.0) + amount
            unmetered = self._learner.sent(now)
            if unmetered is not None:
                charges["requests"] = unmetered
                self.reserved["requests"] = self.reserved.get("requests", 0.0) + 1.0
            self._numbers += 1
            return Reservation(self, charges, at=now, number=self._numbers, floor=floor, own=own)

    def stamp(self, charges: Mapping[Resource, Charge], *, now: float) -> None:
        """Count charges from now on; reservations call this when their call is sent."""
        with self._lock:
            for resource, charge in charges.items():
                meter = self.meters.get(resource)
                if meter is not None:
                    meter.stamp(charge, now)

    def settle(
        self,
        charges: Mapping[Resource, Charge],
        amounts: Mapping[Resource, float],
        floor: float,
        *,
        now: float,
    ) -> None:
        """Replace what was reserved by what it came to; reservations call this.

        Parameters
        ----------
        charges : mapping of resource to Charge
            Of the reservation.
        amounts : mapping of resource to float
            New amounts; a resource that is missing stays as reserved.
        floor : float
            Least tokens.
        now : float
            Monotonic seconds.
        """
        with self._lock:
            for resource, charge in charges.items():
                reserved = charge.amount
                amount = amounts.get(resource, reserved)
                if resource == "tokens":
                    amount = max(amount, floor) if floor else amount
                kept = min(amount, reserved)
                self.committed[resource] = self.committed.get(resource, 0.0) + kept
                self.released[resource] = self.released.get(resource, 0.0) + reserved - kept
                meter = self.meters.get(resource)
                if meter is None:
                    charge.amount = amount
                elif amount != reserved:
                    meter.change(charge, amount, now)

    def observe(
        self,
        readings: Mapping[Resource, LimitReading],
        reservation: Reservation,
        *,
        now: float,
    ) -> None:
        """Take to heart what an answer's headers say about the limits."""
        with self._lock:
            self._learner.read(readings, reservation, now=now)

    def refused(
        self,
        reservation: Reservation,
        wait_s: float,
        *,
        asked: bool,
        learns: bool,
        rare: bool = False,
        now: float,
    ) -> None:
        """Block the whole owner after a 429, and learn from it.

        Parameters
        ----------
        reservation : Reservation
            Of the call that was refused; settled by `Reservation.refuse` before.
        wait_s : float
            Seconds to wait.
        asked : bool
            Whether the provider asked for them, so that they tell something.
        learns : bool
            Whether the number of requests was the cause.
        rare : bool, default False
            Whether nearly all calls of late were answered, so that no limit is too high.
        now : float
            Monotonic seconds.
        """
        with self._lock:
            self.blocked_until = max(self.blocked_until, now + wait_s)
            if learns:
                self._learner.refused(reservation, wait_s if asked else None, rare=rare, now=now)

    def slow_down(self, reservation: Reservation, *, now: float) -> None:
        """Send at four fifths of the rate of this refusal, and 5 % more each minute."""
        with self._lock:
            self._learner.slow_down(reservation, now=now)

    def left(self, resource: Resource, now: float) -> float | None:
        """What may be sent at once; None without a limit."""
        with self._lock:
            meter = self.meters.get(resource)
            return None if meter is None else meter.left(now)

    def share(self, now: float) -> float | None:
        """Free share of the scarcest limit, from 0 to 1; None without any limit."""
        with self._lock:
            return min((meter.share(now) for meter in self.meters.values()), default=None)

    def limit(self, resource: Resource) -> float | None:
        """Limit of a minute; None without one."""
        meter = self.meters.get(resource)
        return None if meter is None else meter.limit

    def take_notices(self) -> list[str]:
        """Return what users should be warned of, once."""
        with self._lock:
            return self._learner.take_notices()

    def _ready_at(self, cost: Mapping[Resource, float], now: float) -> float:
        self._learner.recover(now)
        ready = max(now, self.blocked_until, self._learner.ready_at(now))
        for resource, meter in self.meters.items():
            amount = min(cost.get(resource, 0.0), meter.limit)
            ready = max(ready, meter.ready_at(amount, now))
        return ready


_groups: WeakValueDictionary[str, Quota] = WeakValueDictionary()
_groups_lock = threading.Lock()


def _renew_lock() -> None:
    global _groups_lock  # noqa: PLW0603  # in a forked child nobody releases the parent's
    _groups_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def shared_quota(group: str | None, limits: Limits) -> Quota:
    """Return the quota of a group, one for the process, or a new one without a group.

    Raises
    ------
    ConfigurationError
        If the group has other limits already.
    """
    if group is None:
        return Quota(limits)
    with _groups_lock:
        quota = _groups.get(group)
        if quota is None:
            quota = _groups[group] = Quota(limits)
    if quota.limits != limits:
        raise ConfigurationError(
            f"quota_group={group!r} has {quota.limits} already and cannot also have {limits}: "
            "engines that share a quota have the same limits"
        )
    return quota
