"""What a planned run will cost, and whether its budget is enough for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lbgpt_pandas.engine.amounts import count_usd, show
from lbgpt_pandas.engine.types import TokenCount
from lbgpt_pandas.token_estimates import Estimate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from lbgpt_pandas.engine.base import _BaseGPT
    from lbgpt_pandas.engine.types import Outcome, Request
    from lbgpt_pandas.runs import RowRun

    Counts = NDArray[np.int64]


class Verdict(NamedTuple):
    """Whether a budget is enough.

    Attributes
    ----------
    suffices : bool or None
        None without a budget, or where it cannot be told.
    note : str
        Why not, or how close it is; may be empty.
    """

    suffices: bool | None
    note: str = ""


def cost_of(
    engine: _BaseGPT, models: Iterable[str], prompts: Counts, completions: Counts
) -> float | None:
    """Sum the list prices of requests.

    Parameters
    ----------
    engine : engine
        Who would answer.
    models : iterable of str
        Names under which there may be a price, the best first.
    prompts, completions : ndarray of int64, of equal length
        Tokens of each.

    Returns
    -------
    float or None
        None if the price is unknown; 0.0 for no requests.
    """
    if not len(prompts):
        return 0.0
    pairs, times = np.unique(np.stack([prompts, completions]), axis=1, return_counts=True)
    rows = [*zip(*pairs.tolist(), times.tolist(), strict=True)]
    for model in models:
        total: float | None = 0.0
        for prompt, completion, count in rows:
            price = engine.price_of_tokens(model, TokenCount(prompt, completion, estimated=True))
            total = None if price is None or total is None else total + price * count
            if total is None:
                break
        if total is not None:
            return total
    return None


def saved_by(outcomes: Mapping[int, Outcome], rows_of: Sequence[int]) -> float | None:
    """List price of stored answers, for all rows that they stand for; None if one is unknown."""
    total = 0.0
    for number, outcome in outcomes.items():
        if outcome.completion is None:
            continue
        if outcome.price_usd is None:
            return None
        total += outcome.price_usd * rows_of[number]
    return total


def budget_verdict(
    run: RowRun, *, requests: int, tokens: float, cost_usd: Estimate | None, dearest: Request | None
) -> Verdict:
    """Compare what is expected with what is left of a run's budget.

    Before a call the budget sets its estimate aside, which is often more than it comes to; the
    last call has to fit in that way.

    Parameters
    ----------
    run : RowRun
        The run.
    requests : int
        To be sent.
    tokens : float
        Expected in all.
    cost_usd : Estimate or None
        Expected cost; None if it is unknown.
    dearest : Request or None
        The one with the longest prompt.
    """
    if run.budget is None:
        return Verdict(suffices=None)
    if not requests or dearest is None:
        return Verdict(suffices=True)
    left = run.budget.left
    if left.usd is not None and cost_usd is None:
        note = "the price is unknown, so a budget in USD cannot be kept: see lb.set_price"
        return Verdict(suffices=None, note=note)
    aside_tokens, aside_usd = _set_aside(run.engine, dearest)
    others = 1.0 - 1.0 / requests
    usd = Estimate(0.0, 0.0, 0.0) if cost_usd is None else cost_usd
    needed = {
        "requests": requests,
        "tokens": math.ceil(max(tokens, tokens * others + aside_tokens)),
        "usd": count_usd(max(usd.expected, usd.expected * others + aside_usd)),
    }
    left_usd = None if left.usd is None else count_usd(left.usd)
    most = {"requests": left.requests, "tokens": left.tokens, "usd": left_usd}
    short = [
        f"about {show(unit, needed[unit])} are needed and {show(unit, amount)} left"
        for unit, amount in most.items()
        if amount is not None and needed[unit] > amount
    ]
    if short:
        note = f"the budget does not suffice: {'; '.join(short)}"
        return Verdict(suffices=False, note=note)
    is_close = left.usd is not None and usd.high > left.usd
    note = "the budget suffices for what is expected, not for the high estimate"
    return Verdict(suffices=True, note=note if is_close else "")


def _set_aside(engine: _BaseGPT, request: Request) -> tuple[int, float]:
    """Tokens and USD that the budget sets aside for a call."""
    most, usd = 0, 0.0
    for deployment in engine.deployments():
        demand = deployment.demand(request, counted=True)
        tokens = TokenCount(demand.prompt, demand.completion, estimated=True)
        most = max(most, tokens.total)
        usd = max(usd, deployment.price(request.model or "", tokens) or 0.0)
    return most, usd
