"""The dashboard: headroom of all deployments and the caches' hit rate over the last minutes."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lbgpt_pandas.drawing.amounts import count, percent, several
from lbgpt_pandas.drawing.deployments import HEADING, state_html
from lbgpt_pandas.drawing.parts import (
    BLUE,
    GREEN,
    TEAL,
    VIOLET,
    apart,
    beside,
    card,
    head,
    muted,
    tile,
    tiles,
)
from lbgpt_pandas.drawing.sparkline import sparkline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lbgpt_pandas.engine.states import DeploymentState, Gauge

SPAN_S = 300.0
"""Seconds that a line shows."""
STEPS = 100
"""Points of a line."""
RATE_STEPS = 10
"""A point of the hit rate looks back over so many steps, for there are few lookups in one."""
MOST_DEPLOYMENTS = 24
"""More deployments are counted, but not drawn."""

_STEP_S = SPAN_S / STEPS


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """Lookups of this process so far.

    Attributes
    ----------
    hits : int
        Found: the same question.
    misses : int
        Not found, so that a provider was asked.
    semantic : int
        Found: nearly the same question.
    """

    hits: int = 0
    misses: int = 0
    semantic: int = 0

    @property
    def found(self) -> int:
        """Lookups that found an answer."""
        return self.hits + self.semantic

    @property
    def lookups(self) -> int:
        """All of them."""
        return self.found + self.misses

    def since(self, before: CacheCounts) -> CacheCounts:
        """Return what was counted since; counts that began anew count from zero."""
        new = CacheCounts(
            hits=self.hits - before.hits,
            misses=self.misses - before.misses,
            semantic=self.semantic - before.semantic,
        )
        return self if min(new.hits, new.misses, new.semantic) < 0 else new


@dataclass(slots=True)
class _Low:
    """The worst of one deployment within a step: a line should show every dip."""

    requests: float | None = None
    tokens: float | None = None
    in_flight: float = 0.0

    def note(self, state: DeploymentState) -> None:
        self.requests = _lower(self.requests, state.requests)
        self.tokens = _lower(self.tokens, state.tokens)
        self.in_flight = max(self.in_flight, float(state.in_flight))


@dataclass(slots=True)
class _Step:
    number: int
    cache: CacheCounts
    lows: dict[str, _Low] = field(default_factory=dict)


class History:
    """The states of the last five minutes in a hundred steps; older ones are forgotten.

    Attributes
    ----------
    deployments : tuple of DeploymentState
        As noted last.
    cache : CacheCounts
        As noted last.
    """

    def __init__(self) -> None:
        self.deployments: tuple[DeploymentState, ...] = ()
        self.cache = CacheCounts()
        self._first = CacheCounts()
        self._steps: deque[_Step] = deque()

    def note(self, at: float, deployments: Sequence[DeploymentState], cache: CacheCounts) -> None:
        """Take a moment into account.

        Parameters
        ----------
        at : float
            Seconds on a clock that only moves forward.
        deployments : sequence of DeploymentState
            All of them.
        cache : CacheCounts
            Of the process.
        """
        number = math.floor(at / _STEP_S)
        steps = self._steps
        if not steps:
            self._first = cache
        if not steps or number > steps[-1].number:
            steps.append(_Step(number, cache))
        step = steps[-1]
        step.cache = cache
        for state in deployments:
            step.lows.setdefault(state.name, _Low()).note(state)
        self.deployments, self.cache = tuple(deployments), cache
        while steps[0].number <= step.number - STEPS:
            self._first = steps.popleft().cache

    @property
    def recent(self) -> CacheCounts:
        """Lookups of the time that is kept."""
        return self.cache.since(self._first)

    def free(self, name: str, unit: str) -> list[float | None]:
        """Free share of a limit, lowest of each step; None where nothing is known."""
        return [getattr(low, unit) if low else None for low in self._line(name)]

    def in_flight(self, name: str) -> list[float | None]:
        """Calls under way, most of each step; None where nothing is known."""
        return [low.in_flight if low else None for low in self._line(name)]

    def hit_rates(self) -> list[float | None]:
        """Share of lookups that found an answer; None where there was no lookup."""
        rates: list[float | None] = []
        before: deque[CacheCounts] = deque([self._first], maxlen=RATE_STEPS)
        for step in self._grid():
            now = before[-1] if step is None else step.cache
            new = now.since(before[0])
            rates.append(new.found / new.lookups if new.lookups else None)
            before.append(now)
        return rates

    def _line(self, name: str) -> list[_Low | None]:
        return [step.lows.get(name) if step else None for step in self._grid()]

    def _grid(self) -> list[_Step | None]:
        """A place for each step of the span, the last at the end."""
        grid: list[_Step | None] = [None] * STEPS
        for step in self._steps:
            grid[step.number - self._steps[-1].number - 1] = step
        return grid


def panel_html(history: History) -> str:
    """Draw the dashboard.

    Parameters
    ----------
    history : History
        What was noted; the newest state is drawn in figures, all of it as lines.
    """
    states = history.deployments
    drawn = [_deployment_html(history, state) for state in states[:MOST_DEPLOYMENTS]]
    if len(states) > MOST_DEPLOYMENTS:
        drawn.append(muted(f"and {several(len(states) - MOST_DEPLOYMENTS, 'more deployment')}"))
    about = f"lines: the last {SPAN_S / 60:.0f} minutes"
    title = f"<b>dashboard</b> {several(len(states), 'deployment')}"
    rows = apart(f"{muted(HEADING)}{''.join(drawn)}") if drawn else ""
    return card([head(title, about), _cache_html(history), rows])


def _cache_html(history: History) -> str:
    recent, ever = history.recent, history.cache
    if not ever.lookups:
        return muted("cache: no lookup yet in this process")
    lookups = f"cache hits · {several(recent.lookups, 'lookup')}"
    asked = f"asked · {percent(ever.found, ever.lookups)} hits since the start"
    cells = [
        tile(percent(recent.found, recent.lookups), lookups),
        tile(count(recent.hits), "exact"),
        tile(count(recent.semantic), "semantic"),
        tile(count(recent.misses), asked),
    ]
    rates = history.hit_rates()
    line = sparkline(rates, f"cache hit rate: {_course(rates)}", colour=GREEN)
    return tiles((beside(cells[:2]), beside(cells[2:])), width=300) + line


def _deployment_html(history: History, state: DeploymentState) -> str:
    calls = history.in_flight(state.name)
    most = max((number for number in calls if number is not None), default=0.0)
    top = max(float(state.places), most, 1.0)
    said = f"in flight: now {count(state.in_flight)}, at most {count(most)}"
    shares = [None if number is None else number / top for number in calls]
    flight = sparkline(shares, said, colour=TEAL)
    requests = _headroom_line(history, state.name, "requests", BLUE) if state.requests else ""
    tokens = _headroom_line(history, state.name, "tokens", VIOLET) if state.tokens else ""
    return state_html(state, (flight, requests, tokens))


def _headroom_line(history: History, name: str, unit: str, colour: str) -> str:
    shares = history.free(name, unit)
    return sparkline(shares, f"{unit} free: {_course(shares)}", colour=colour)


def _course(shares: Sequence[float | None]) -> str:
    """The last, the lowest and the highest of a line in words."""
    known = [share for share in shares if share is not None]
    if not known:
        return "nothing yet"
    last, low, high = known[-1], min(known), max(known)
    return f"now {percent(last, 1)}, from {percent(low, 1)} to {percent(high, 1)}"


def _lower(low: float | None, gauge: Gauge | None) -> float | None:
    if gauge is None:
        return low
    return gauge.fraction if low is None else min(low, gauge.fraction)
