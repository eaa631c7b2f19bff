"""Tokens, cost and time of a run that has not begun."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lbgpt_pandas.answer_estimates import completion_rule
from lbgpt_pandas.durations import Load, answering, duration, measured_latency_s
from lbgpt_pandas.engine.context_windows import ContextWindow, context_window
from lbgpt_pandas.engine.gpt import LocalGPT
from lbgpt_pandas.engine.types import Source
from lbgpt_pandas.plan_costs import budget_verdict, cost_of
from lbgpt_pandas.token_estimates import (
    TOKENIZED,
    Answered,
    Estimate,
    measure,
    prompt_rule,
    some_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lbgpt_pandas.answer_estimates import CompletionRule
    from lbgpt_pandas.engine.base import _BaseGPT
    from lbgpt_pandas.engine.types import Request, TokenCount
    from lbgpt_pandas.plan_lookups import Stored
    from lbgpt_pandas.runs import RowRun
    from lbgpt_pandas.token_estimates import PromptRule

MOST_FITTED = 500
"""Stored answers that tokens are estimated by."""


class PromptTokens(NamedTuple):
    """Tokens of the prompts that would be sent; zeros where there are none.

    Attributes
    ----------
    p50, p95, max : int
        Median, 95th percentile and largest of a request.
    total : int
        Of all together.
    """

    p50: int
    p95: int
    max: int
    total: int


class Figures:
    """Tokens, cost and time of what a run would send.

    Parameters
    ----------
    run : RowRun
        The run.
    stored : Stored
        What the caches have for it.
    requests : sequence of Request, optional
        What is sent; by default one request for each row that is left.

    Attributes
    ----------
    prompt_rule : PromptRule or None
        How tokens of prompts are estimated; None where there is no request.
    answer_rule : CompletionRule or None
        The same of answers.
    notes : list of str
        What is to be told beside the figures.
    """

    def __init__(
        self, run: RowRun, stored: Stored, *, requests: Sequence[Request] | None = None
    ) -> None:
        self.run, self.stored = run, stored
        self.requests: Sequence[Request] = run.plan.requests
        self.to_ask: Sequence[int] = stored.to_ask
        if requests is not None:
            self.requests, self.to_ask = requests, range(len(requests))
        self.notes: list[str] = []
        # Where near answers are estimated, each request counts for the share that is sent.
        self.share = stored.sent / len(stored.to_ask) if stored.to_ask else 0.0
        self.prompt_rule: PromptRule | None = None
        self.answer_rule: CompletionRule | None = None
        if len(self.requests):
            self.prompt_rule, self.answer_rule = self._rules()
        self.prompts = np.zeros(0, dtype=np.int64)
        if self.prompt_rule is not None:
            self.prompts = self.prompt_rule.tokens(measure(self.requests, self.to_ask))
        # Of each row, which may be a part of a request.
        self.numbers, self.row_prompts = stored.to_ask, self.prompts

    @property
    def sent(self) -> int:
        """Requests that a provider is asked."""
        return round(len(self.to_ask) * self.share)

    @property
    def most(self) -> int | None:
        """Tokens to which the answer to a request is limited."""
        return None if self.answer_rule is None else self.answer_rule.most

    def _answered(self) -> tuple[Sequence[int], Answered]:
        """Numbers of stored answers, and their tokens."""
        hits: dict[int, TokenCount] = {
            number: outcome.completion.tokens
            for number, outcome in self.stored.outcomes.items()
            if outcome.source is Source.EXACT_CACHE and outcome.completion is not None
        }
        counted = [number for number, tokens in hits.items() if not tokens.estimated]
        fitted = some_of(counted, MOST_FITTED)
        return fitted, Answered.of([(hits[n].prompt, hits[n].completion) for n in fitted])

    def _rules(self) -> tuple[PromptRule, CompletionRule]:
        engine, request = self.run.engine, self.requests[0]
        fitted, answered = self._answered()
        prompts = prompt_rule(
            engine,
            request,
            measured=measure(self.requests, fitted),
            answered=answered,
            texts=[self.requests[number] for number in some_of(self.to_ask, TOKENIZED)],
        )
        return prompts, completion_rule(engine, request, answered=answered)

    def prompt_tokens(self) -> PromptTokens:
        """Tokens of the prompts."""
        if not len(self.prompts):
            return PromptTokens(0, 0, 0, 0)
        p50, p95 = np.percentile(self.prompts, [50, 95], method="nearest").tolist()
        total = round(float(self.prompts.sum()) * self.share)
        return PromptTokens(p50, p95, int(self.prompts.max()), total)

    def completions(self, rule: CompletionRule, each: float) -> NDArray[np.int64]:
        """Tokens of the answer to each request, if those of a row are `each`."""
        return rule.tokens(self.prompts, each)

    def answer_tokens(self) -> Estimate:
        """Tokens of all answers together."""
        rule = self.answer_rule
        if rule is None:
            return Estimate(0, 0, 0)
        sums = (float(self.completions(rule, each).sum()) for each in rule.each)
        return Estimate(*(round(total * self.share) for total in sums))

    def cost_usd(self) -> Estimate | None:
        """List price in USD; None if it is unknown."""
        prompts, answers = self.prompt_rule, self.answer_rule
        if prompts is None or answers is None or not self.stored.sent:
            return Estimate(0.0, 0.0, 0.0)
        answered = Counter(
            outcome.completion.model
            for outcome in self.stored.outcomes.values()
            if outcome.completion is not None
        )
        names = [self.run.model, *(name for name, _ in answered.most_common(1))]
        costs = []
        for factor, each in zip(
            (1 - prompts.error, 1.0, 1 + prompts.error), answers.each, strict=True
        ):
            completions = self.completions(answers, each)
            counts = np.rint(self.prompts * factor).astype(np.int64)
            cost = cost_of(self.run.engine, names, counts, completions)
            if cost is None:
                return None
            costs.append(cost * self.share)
        return Estimate(*costs)

    def window(self) -> tuple[ContextWindow | None, NDArray[np.int64] | None]:
        """The model's window, and the positions of the rows over it."""
        window = window_of(self.run.engine, self.run.model)
        if window is None:
            return None, None
        kept = 0 if self.answer_rule is None else self.answer_rule.longest
        is_over = self.row_prompts > min(window.prompt, window.total - kept)
        over = np.asarray(self.numbers, dtype=np.int64)[is_over]
        return window, np.flatnonzero(np.isin(self.run.plan.codes, over))

    def budget_suffices(self, tokens: float, cost: Estimate | None) -> bool | None:
        """Whether the budget is enough; None without one, or if that cannot be told."""
        dearest = self.requests[self.to_ask[int(self.prompts.argmax())]] if self.to_ask else None
        verdict = budget_verdict(
            self.run,
            requests=self.sent,
            tokens=tokens,
            cost_usd=cost,
            dearest=dearest,
        )
        if verdict.note:
            self.notes.append(verdict.note)
        return verdict.suffices

    def eta_s(self, answer_tokens: float) -> float | None:
        """Seconds that it takes; None if nothing is known."""
        engine, requests = self.run.engine, self.sent
        load = Load(
            requests,
            prompt=float(self.prompts.mean()) if len(self.prompts) else 0.0,
            completion=answer_tokens / max(1, requests),
            most=self.most,
        )
        latency_s = measured_latency_s(engine)
        told = duration(engine, load, latency_s=latency_s, max_parallel=self.run.max_parallel)
        if told.note:
            self.notes.append(told.note)
        return told.seconds


def window_of(engine: _BaseGPT, model: str) -> ContextWindow | None:
    """Context window of a model where an engine asks it; None if one of its members' is unknown."""
    windows: list[ContextWindow | None] = []
    for gpt in answering(engine):
        if isinstance(gpt, LocalGPT):
            windows.append(ContextWindow(gpt.context, gpt.context))
        else:
            windows.append(context_window(model))
    known = [window for window in windows if window is not None]
    return min(known) if len(known) == len(windows) else None
