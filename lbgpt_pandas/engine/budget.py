"""What runs may spend: set aside before a call, charged after it, given back if none was made."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from numbers import Real
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, get_args

from lbgpt_pandas.engine.amounts import UNITS, Amounts, count, count_usd, show
from lbgpt_pandas.engine.errors import BudgetExceeded, ConfigurationError
from lbgpt_pandas.engine.lifetime import renew_after_fork
from lbgpt_pandas.engine.states import BudgetState, Unit

if TYPE_CHECKING:
    from collections.abc import Callable

OnExceeded = Literal["pause", "raise", "null"]

T = TypeVar("T")


class Waits(Protocol):
    """Whoever waits for futures until nobody wants their results any more."""

    async def wait_for(self, future: asyncio.Future[T]) -> T:
        """Wait for `future`, or raise once it is not wanted any more."""
        ...


class Budget:
    """What one run or several together may spend on calls. Cached answers cost nothing.

    Before each call its expected cost is set aside, and only then is it sent; afterwards it is
    charged what it really cost. A call that cost more than expected is charged in full, so
    that `spent` can pass the limit by as much as the estimates of the calls in flight were too
    low; ``max_tokens=`` bounds them. Failed calls that the provider may have charged are
    charged as estimated, other failed calls cost nothing.

    A budget is used up only when the next call does not fit and no call under way can give
    anything back. It may be shared between runs, threads and event loops, and looked at and
    raised from any of them.

    Parameters
    ----------
    usd : float, optional
        At list price; `lb.set_price` gives a price to models that have none.
    tokens : int, optional
        Of prompts and answers.
    requests : int, optional
        Calls, repeated attempts included.
    on_exceeded : {"raise", "null", "pause"}, default "raise"
        What becomes of the next row once the budget is used up. ``"raise"``: nothing new is
        started, calls in flight are finished, then `BudgetExceeded` is raised; finished rows
        are in ``lb.last_run().result``. ``"null"``: the row fails with `BudgetExceeded` and is
        NA, smaller ones may still fit. ``"pause"``: it waits for `add` from another thread,
        cell or task, or for the interrupt.

    Raises
    ------
    ConfigurationError
        If no unit is given, or one is not a number above 0.

    Examples
    --------
    >>> budget = Budget(usd=2, requests=1_000)
    >>> budget.left
    Amounts(usd=2.0, tokens=None, requests=1000)
    """

    def __init__(
        self,
        usd: float | None = None,
        *,
        tokens: int | None = None,
        requests: int | None = None,
        on_exceeded: OnExceeded = "raise",
    ) -> None:
        if on_exceeded not in get_args(OnExceeded):
            choices = ", ".join(map(repr, get_args(OnExceeded)))
            raise ConfigurationError(f"on_exceeded={on_exceeded!r} is not one of {choices}")
        self.on_exceeded = on_exceeded
        self._limits = count({"usd": usd, "tokens": tokens, "requests": requests})
        if not self._limits:
            raise ConfigurationError("a budget needs usd=, tokens= or requests=")
        self._spent = dict.fromkeys(UNITS, 0)
        self._unpriced = False
        self.after_fork()
        renew_after_fork(self)

    @classmethod
    def of(cls, value: object) -> Budget | None:
        """Return what a ``budget=`` keyword means: a number is USD, None is no budget.

        Raises
        ------
        ConfigurationError
            If it is neither a budget nor a number above 0.
        """
        if value is None or isinstance(value, Budget):
            return value
        if not isinstance(value, bool) and isinstance(value, Real):
            return cls(usd=float(value))
        raise ConfigurationError(
            f"budget={value!r}: give a number of USD, or lb.Budget(usd=, tokens=, requests=)"
        )

    def after_fork(self) -> None:
        """In a forked child: nobody releases the parent's lock or ends its calls."""
        # Reentrant, because a collected coroutine leaves the queue wherever it is collected.
        self._lock = threading.RLock()
        self._reserved = dict.fromkeys(UNITS, 0)
        self._waiting: deque[_Waiter] = deque()

    def __repr__(self) -> str:
        with self._lock:
            figures = [
                f"{show(unit, self._spent[unit])} of {show(unit, limit)}"
                for unit, limit in self._limits.items()
            ]
        return f"<Budget: {', '.join(figures)} spent, on_exceeded={self.on_exceeded!r}>"

    @property
    def usd(self) -> float | None:
        """The limit in USD; None if there is none."""
        return self.limits.usd

    @property
    def limits(self) -> Amounts:
        """What may be spent in all; None where there is no limit."""
        with self._lock:
            return Amounts.of(self._limits)

    @property
    def spent(self) -> Amounts:
        """What ended calls cost; USD are None if a price was unknown."""
        with self._lock:
            spent = dict(self._spent)
            if self._unpriced:
                del spent["usd"]
            return Amounts.of(spent)

    @property
    def reserved(self) -> Amounts:
        """What is set aside for calls that have not ended."""
        with self._lock:
            return Amounts.of(self._reserved)

    @property
    def left(self) -> Amounts:
        """What is neither spent nor set aside, at least 0; None where there is no limit."""
        with self._lock:
            return Amounts.of({unit: max(0, self._free(unit)) for unit in self._limits})

    def states(self) -> tuple[BudgetState, ...]:
        """What a view shows of it: each limit, and what is spent of it."""
        limits, spent = self.limits, self.spent
        units: tuple[Unit, ...] = get_args(Unit)
        return tuple(
            BudgetState(unit, getattr(spent, unit), limit)
            for unit in units
            if (limit := getattr(limits, unit)) is not None
        )

    @property
    def paused(self) -> bool:
        """Whether calls wait for `add`: none is under way that could give something back."""
        with self._lock:
            return bool(self._waiting) and not self._reserved["requests"]

    def add(
        self, usd: float | None = None, *, tokens: int | None = None, requests: int | None = None
    ) -> None:
        """Raise the limits; what waits and now fits goes on. From any thread.

        Raises
        ------
        ConfigurationError
            If a number is not above 0, or of a unit that this budget does not limit.
        """
        more = count({"usd": usd, "tokens": tokens, "requests": requests})
        with self._lock:
            for unit in more:
                if unit not in self._limits:
                    raise ConfigurationError(f"this budget has no limit in {unit} to be raised")
            for unit, amount in more.items():
                self._limits[unit] += amount
            self._advance()

    def reserve(self, usd: float, tokens: int) -> BudgetReservation | None:
        """Set the expected cost of one call aside.

        Returns
        -------
        BudgetReservation or None
            None if it does not fit now, or others are waiting already.
        """
        with self._lock:
            return None if self._waiting else self._take(_cost(usd, tokens))

    async def acquire(
        self, *, usd: float, tokens: int, run: Waits | None = None
    ) -> BudgetReservation:
        """Set the expected cost of one call aside, first come, first served.

        Parameters
        ----------
        usd : float
            Expected list price.
        tokens : int
            Expected tokens.
        run : RunState, optional
            Ends the waiting when it is stopped.

        Raises
        ------
        BudgetExceeded
            If it does not fit and no call under way can give anything back; never under
            ``on_exceeded="pause"``.
        """
        cost = _cost(usd, tokens)
        with self._lock:
            if not self._waiting:
                if (reservation := self._take(cost)) is not None:
                    return reservation
                if self._is_final():
                    raise self._exceeded(cost)
            waiter = _Waiter(cost, asyncio.get_running_loop().create_future())
            self._waiting.append(waiter)
        try:
            if run is None:
                return await waiter.future
            return await run.wait_for(waiter.future)
        except BaseException:
            self._give_up(waiter)
            raise

    def _give_up(self, waiter: _Waiter) -> None:
        """Leave the queue; what was granted and has not arrived is given back."""
        with self._lock:
            with suppress(ValueError):  # it has left the queue: granted or refused
                self._waiting.remove(waiter)
            if waiter.granted is not None:
                waiter.granted.cancel()
            else:
                self._advance()

    def _free(self, unit: str) -> int:
        return self._limits[unit] - self._spent[unit] - self._reserved[unit]

    def _take(self, cost: dict[str, int]) -> BudgetReservation | None:
        if any(cost[unit] > self._free(unit) for unit in self._limits):
            return None
        for unit in UNITS:
            self._reserved[unit] += cost[unit]
        return BudgetReservation(cost, self._end)

    def _end(self, cost: dict[str, int], charged: dict[str, int], *, priced: bool = True) -> None:
        """Give back what was set aside and charge what it came to."""
        with self._lock:
            self._release(cost)
            for unit, amount in charged.items():
                self._spent[unit] += amount
            # Under a limit in USD an unknown price is charged as expected.
            self._unpriced |= not priced and "usd" not in self._limits
            self._advance()

    def _release(self, cost: dict[str, int]) -> None:
        for unit in UNITS:
            # At least 0, because a fork forgets what its parent has set aside.
            self._reserved[unit] = max(0, self._reserved[unit] - cost[unit])

    def _is_final(self) -> bool:
        """Tell whether what does not fit now never will."""
        return self.on_exceeded != "pause" and not self._reserved["requests"]

    def _advance(self) -> None:
        """Grant what fits to whoever waits, oldest first, and refuse what never will."""
        is_over = False
        while self._waiting:
            waiter = self._waiting.popleft()
            granted = None if is_over else self._take(waiter.cost)
            if granted is None and not (is_over or self._is_final()):
                self._waiting.appendleft(waiter)
                return
            if granted is None:
                waiter.refused = self._exceeded(waiter.cost)
                is_over = self.on_exceeded == "raise"
            waiter.granted = granted
            if not waiter.wake() and granted is not None:
                waiter.granted = None  # its loop is closed: nobody makes the call
                self._release(waiter.cost)

    def _exceeded(self, cost: dict[str, int]) -> BudgetExceeded:
        short = [unit for unit in self._limits if cost[unit] > self._free(unit)]
        units = short or list(self._limits)
        figures = "; ".join(
            f"{show(unit, self._spent[unit])} of {show(unit, self._limits[unit])} are spent, "
            f"and the next call is expected to take {show(unit, cost[unit])}"
            for unit in units
        )
        return BudgetExceeded(
            f"the budget is used up: {figures}. Raise it, as with "
            f"lb.last_run().budget.add({units[0]}=...), and ask for the other rows with "
            "lb.last_run().retry_failed()"
        )


class BudgetReservation:
    """The expected cost of one call, set aside; ended once, by `commit` or `cancel`.

    Parameters
    ----------
    cost : dict of str to int
        By unit.
    end : callable
        Told the cost and what is charged of it.
    """

    __slots__ = ("_cost", "_end", "_open")

    def __init__(self, cost: dict[str, int], end: Callable[..., None]) -> None:
        self._cost, self._end, self._open = cost, end, True

    def commit(self, usd: float | None, tokens: int | None) -> None:
        """Charge what the call cost.

        Parameters
        ----------
        usd : float or None
            List price. None: unknown, and charged as expected.
        tokens : int or None
            None: charged as expected, and so is the price.
        """
        if not self._open:
            return
        self._open = False
        charged = dict(self._cost)
        if usd is not None:
            charged["usd"] = count_usd(usd)
        if tokens is not None:
            charged["tokens"] = tokens
        self._end(self._cost, charged, priced=usd is not None or tokens is None)

    def cancel(self) -> None:
        """Give everything back: the call was not made, or certainly not charged."""
        if self._open:
            self._open = False
            self._end(self._cost, {})


class _Waiter:
    """A call that waits for its share, on whatever loop."""

    __slots__ = ("cost", "future", "granted", "refused")

    def __init__(self, cost: dict[str, int], future: asyncio.Future[BudgetReservation]) -> None:
        self.cost, self.future = cost, future
        self.granted: BudgetReservation | None = None
        self.refused: BudgetExceeded | None = None

    def wake(self) -> bool:
        """Have it told on its own loop; False if that is closed."""
        try:
            self.future.get_loop().call_soon_threadsafe(self._tell)
        except RuntimeError:
            return False
        return True

    def _tell(self) -> None:
        if self.future.done():
            return
        if self.refused is not None:
            self.future.set_exception(self.refused)
        elif self.granted is not None:
            self.future.set_result(self.granted)


def _cost(usd: float, tokens: int) -> dict[str, int]:
    return {"usd": count_usd(usd), "tokens": tokens, "requests": 1}
