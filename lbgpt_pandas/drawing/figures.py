"""The figures of a run: time, rate, hits, cost, tokens, retries, budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lbgpt_pandas.drawing.amounts import (
    PRICE_UNKNOWN,
    count,
    duration,
    fraction,
    money,
    percent,
    rate,
    short,
)
from lbgpt_pandas.drawing.pace import average, worked
from lbgpt_pandas.drawing.parts import AMBER, BLUE, RED, beside, meter, tile, tiles

if TYPE_CHECKING:
    from lbgpt_pandas.drawing.pace import Pace
    from lbgpt_pandas.engine.report import RunSnapshot
    from lbgpt_pandas.engine.states import BudgetState

ENOUGH_ROWS = 20
"""So many answered rows tell what the others will cost."""
_NEARLY_SPENT = 0.8


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and what it means, as plain text.

    Attributes
    ----------
    subject : str
        Word at the beginning of its line of text.
    value, label : str
        The number, and what follows it.
    title : str
        More of it, for who points at it.
    """

    subject: str
    value: str
    label: str
    title: str = ""


def figures_of(snapshot: RunSnapshot, pace: Pace | None) -> list[Figure]:
    """Return the figures in reading order."""
    return [
        _time(snapshot, pace),
        _rate(snapshot, pace),
        _hits(snapshot),
        _cost(snapshot),
        _tokens(snapshot),
        Figure("retries", count(snapshot.retries), f"retries · {count(snapshot.refused)} × 429"),
    ]


def figures_html(snapshot: RunSnapshot, pace: Pace | None) -> str:
    """Draw the figures side by side, the budget's limits below."""
    cells = [tile(each.value, each.label, title=each.title) for each in figures_of(snapshot, pace)]
    drawn = tiles((beside(cells[:3]), beside(cells[3:])), width=330)
    if snapshot.budget:
        drawn += tiles((_limit_html(limit) for limit in snapshot.budget), width=200)
    return drawn


def budget_text(limit: BudgetState) -> str:
    """Return what was spent of a limit, and what is left.

    Examples
    --------
    >>> from lbgpt_pandas.engine.states import BudgetState
    >>> budget_text(BudgetState("usd", 1.27, 5.0))
    '$1.27 of $5.00 · $3.73 left'
    >>> budget_text(BudgetState("usd", None, 5.0))
    '$5.00, of which nobody knows how much is spent: price unknown'
    """
    full, unit = _amount(limit, limit.limit), "" if limit.unit == "usd" else f" {limit.unit}"
    if limit.spent is None or math.isnan(limit.spent):
        return f"{full}{unit}, of which nobody knows how much is spent: {PRICE_UNKNOWN}"
    left = max(0.0, limit.limit - limit.spent)
    spent = f"{_amount(limit, limit.spent)} of {full}{unit}"
    return f"{spent} · {_amount(limit, left)} left"


def _amount(limit: BudgetState, amount: float) -> str:
    return money(amount) if limit.unit == "usd" else short(amount)


def _limit_html(limit: BudgetState) -> str:
    share = fraction(limit.spent or 0.0, limit.limit)
    colour = BLUE if share < _NEARLY_SPENT else AMBER if share < 1 else RED
    return meter(share, f"budget {budget_text(limit)}", colour=colour)


def _time(snapshot: RunSnapshot, pace: Pace | None) -> Figure:
    gone = duration(snapshot.elapsed_s)
    if snapshot.finished:
        return Figure("time", gone, "from start to end")
    if snapshot.paused:
        return Figure("time", gone, "gone · paused")
    left_s = pace.left_s if pace is not None else _left_on_average(snapshot)
    if left_s is None or not math.isfinite(left_s):
        return Figure("time", gone, "gone · time left not known")
    return Figure("time", duration(left_s), f"left · {gone} gone")


def _left_on_average(snapshot: RunSnapshot) -> float | None:
    rows = worked(snapshot)
    left = max(0, snapshot.rows - snapshot.settled)
    return left * snapshot.elapsed_s / rows if rows > 0 else None


def _rate(snapshot: RunSnapshot, pace: Pace | None) -> Figure:
    overall = average(snapshot)
    if pace is None or pace.rate is None or snapshot.finished:
        return Figure("rate", rate(overall), "rows, on average")
    return Figure("rate", rate(pace.rate), f"rows · {rate(overall)} on average")


def _hits(snapshot: RunSnapshot) -> Figure:
    spared = snapshot.cached + snapshot.shared
    label = "cache hits"
    if spared:
        saved = money(snapshot.saved_usd)
        label += f" · saving: {saved}" if saved == PRICE_UNKNOWN else f" · saved {saved}"
    title = "answers that needed no call: exact, semantic, and shared with an equal row"
    return Figure("hits", percent(spared, snapshot.done), label, title)


def _cost(snapshot: RunSnapshot) -> Figure:
    value = money(snapshot.cost_usd)
    if value == PRICE_UNKNOWN:
        return Figure("cost", value, "billed · one model has no known price")
    expected = "" if snapshot.finished else _expected(snapshot)
    return Figure("cost", value, f"billed{f' · about {expected} in all' if expected else ''}")


def _expected(snapshot: RunSnapshot) -> str:
    """What the whole run will cost if the rows to come are like those that took a call."""
    rows, left = worked(snapshot), snapshot.rows - snapshot.settled
    if snapshot.cost_usd is None or rows < ENOUGH_ROWS or left <= 0:
        return ""
    return money(snapshot.cost_usd * (1 + left / rows))


def _tokens(snapshot: RunSnapshot) -> Figure:
    prompt, answer = snapshot.prompt_tokens, snapshot.completion_tokens
    title = f"billed: {count(prompt)} of prompts, {count(answer)} of answers"
    label = f"tokens · {short(prompt)} in, {short(answer)} out"
    return Figure("tokens", short(prompt + answer), label, title)
