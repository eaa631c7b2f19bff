"""What a run would do and cost, found out without any call."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from lbgpt_pandas.engine.collection import no_collection
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.portal import run_sync
from lbgpt_pandas.engine.types import Source
from lbgpt_pandas.plan_costs import saved_by
from lbgpt_pandas.plan_groups import figures_of
from lbgpt_pandas.plan_lines import plan_html, plan_line, plan_text
from lbgpt_pandas.plan_lookups import look_up
from lbgpt_pandas.plan_samples import sampled_rows

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from lbgpt_pandas.plan_figures import PromptTokens
    from lbgpt_pandas.plan_lookups import Stored
    from lbgpt_pandas.runs import RowRun
    from lbgpt_pandas.token_estimates import Estimate

NOTHING = "nothing to send"

SAMPLE = 20
"""Rendered rows that a plan shows."""


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """What `complete` with the same arguments would do; nothing was sent for it.

    Templates were rendered once a row, callables called once; `run` uses what they gave. Caches
    were only read. Figures of tokens, cost and time are of the requests that would be sent.

    Attributes
    ----------
    model, engine : str
        What is asked for, and who answers.
    rows : int
        Rows of the input.
    na_rows : int
        Rows without a call, because a used cell is NA.
    unsendable_rows : int
        Rows that fail without a call.
    unique_requests : int
        Different requests of the other rows.
    exact_hits : int
        Requests whose answer is stored.
    semantic_hits : int or None
        Requests with a stored answer to nearly the same question; None: not looked for, because
        a provider would have to embed the questions.
    requests_to_send : int
        What is left; with ``rows_per_request`` the groups of it.
    prompt_tokens : PromptTokens
        Estimated.
    completion_tokens : Estimate
        Of all answers together.
    prompt_source, answer_source : str
        What these two rest on.
    cost_usd : Estimate or None
        At list price; None if that is unknown. 0.0 if nothing is to be sent, or it costs nothing.
    saved_usd : float or None
        List price of the stored answers, for all rows that they stand for; None if unknown.
    eta_s : float or None
        Seconds, by the limits of all deployments and the measured time of calls; None if
        neither is known.
    context_window : int or None
        Tokens of a request that the model takes; None if unknown.
    rows_over_window : ndarray of int64 or None
        Positions of the rows whose request is longer by our estimate; None if unknown.
    budget_suffices : bool or None
        Whether the budget is enough for what is expected; None without one, or if the price
        is unknown.
    notes : tuple of str
        What else is to be known.
    samples : DataFrame
        Rows at random, always the same, under the input's index: ``prompt`` (str),
        ``prompt_tokens`` (Int64) and ``cached`` (boolean; NA where near answers were not
        looked for).
    """

    model: str
    engine: str
    rows: int
    na_rows: int
    unsendable_rows: int
    unique_requests: int
    exact_hits: int
    semantic_hits: int | None
    requests_to_send: int
    prompt_tokens: PromptTokens
    completion_tokens: Estimate
    prompt_source: str
    answer_source: str
    cost_usd: Estimate | None
    saved_usd: float | None
    eta_s: float | None
    context_window: int | None
    rows_over_window: NDArray[np.int64] | None
    budget_suffices: bool | None
    notes: tuple[str, ...]
    samples: pd.DataFrame
    _run: RowRun
    _is_keyless: bool = False

    def __repr__(self) -> str:
        return plan_line(self)

    def __str__(self) -> str:
        return plan_text(self)

    def _repr_html_(self) -> str:
        return plan_html(self)

    def run(self) -> pd.Series[Any]:
        """Run exactly this plan: same requests, engine, caches and budget.

        May be repeated; what is stored by then is not asked again.

        Returns
        -------
        Series
            As `complete` returns it.

        Raises
        ------
        ConfigurationError
            If there was no key when the plan was made.
        LbgptError
            What `complete` raises.
        """
        if self._is_keyless:
            raise ConfigurationError(
                "this plan was made without a key, and nobody would answer: set OPENAI_API_KEY, or "
                "give engine=, and make it anew"
            )
        column: pd.Series[Any] = self._run.again(()).run()
        return column

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON data, without the samples."""
        figures: dict[str, Any] = {}
        for each in fields(self):
            if each.name == "samples" or each.name.startswith("_"):
                continue
            value = getattr(self, each.name)
            if isinstance(value, np.ndarray):
                value = value.tolist()
            elif hasattr(value, "_asdict"):
                value = value._asdict()
            figures[each.name] = list(value) if isinstance(value, tuple) else value
        return figures


def make_plan(run: RowRun, *, sample: int = SAMPLE, keyless: bool = False) -> Plan:
    """Find out what a run would do, and do none of it.

    Parameters
    ----------
    run : RowRun
        The run; it is not begun.
    sample : int, default 20
        Rendered rows that are shown.
    keyless : bool, default False
        The engine has no key and is good for planning only.

    Raises
    ------
    ConfigurationError
        If `sample` is not a whole number of at least 0, or as the run itself.
    MissingExtraError, CacheCorrupt
        As the run itself.
    """
    if not isinstance(sample, int) or isinstance(sample, bool) or sample < 0:
        raise ConfigurationError(f"sample={sample!r}: give a whole number of at least 0")
    with no_collection():
        return _planned(run, run_sync(look_up(run)), sample=sample, keyless=keyless)


def _planned(run: RowRun, stored: Stored, *, sample: int, keyless: bool) -> Plan:
    rows, figures = run.plan, figures_of(run, stored)
    tokens, answers, cost = figures.prompt_tokens(), figures.answer_tokens(), figures.cost_usd()
    window, over = figures.window()
    failed, exact = _counts(run, stored)
    prompt_rule, answer_rule = figures.prompt_rule, figures.answer_rule
    return Plan(
        model=run.model,
        engine=run.engine.name,
        rows=rows.rows,
        na_rows=len(rows.skipped),
        unsendable_rows=len(rows.errors) + failed,
        unique_requests=len(rows.requests),
        exact_hits=exact,
        semantic_hits=stored.near,
        requests_to_send=figures.sent,
        prompt_tokens=tokens,
        completion_tokens=answers,
        prompt_source=NOTHING if prompt_rule is None else prompt_rule.source,
        answer_source=NOTHING if answer_rule is None else answer_rule.source,
        cost_usd=cost,
        saved_usd=_sum(saved_by(stored.outcomes, run.batch.rows_of), stored.sampled_usd),
        eta_s=figures.eta_s(answers.expected),
        context_window=None if window is None else window.total,
        rows_over_window=over,
        budget_suffices=figures.budget_suffices(tokens.total + answers.expected, cost),
        samples=sampled_rows(rows, stored, prompt_rule, size=sample),
        notes=(*stored.notes, *figures.notes, *_notes(run, keyless=keyless)),
        _run=run,
        _is_keyless=keyless,
    )


def _counts(run: RowRun, stored: Stored) -> tuple[int, int]:
    """Rows that fail without a call, and requests whose answer is stored."""
    failed = exact = 0
    for number, outcome in stored.outcomes.items():
        if outcome.error is not None:
            failed += run.batch.rows_of[number]
        elif outcome.source is Source.EXACT_CACHE:
            exact += 1
    return failed, exact


def _notes(run: RowRun, *, keyless: bool) -> list[str]:
    notes = []
    if run.plan.provenance.columns is None:
        notes.append("each row was rendered once; run() uses what came of it")
    if not run.caching.reads:
        notes.append(f"cache_mode={run.caching.mode!r}: no answer is looked up")
    if keyless:
        notes.append("there is no key: run() needs one")
    return notes


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
