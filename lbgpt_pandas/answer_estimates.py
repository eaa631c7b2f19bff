"""Tokens and seconds that answers are likely to take, by answers that are known."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lbgpt_pandas.engine.accounts import SESSION_BOOK
from lbgpt_pandas.engine.context_windows import bare_model
from lbgpt_pandas.token_estimates import LEAST_ANSWERS, Answered, Estimate, correlation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from lbgpt_pandas.engine.base import _BaseGPT
    from lbgpt_pandas.engine.types import Request, Usage

    Counts = NDArray[np.int64]

LINKED = 0.9
"""Correlation from which on answers grow with their prompts."""

ANSWERS_A_MINUTE = 200

_WIDE = 0.5
_REASONING = re.compile(r"\A(?:o\d|gpt-[56])")


@dataclass(frozen=True, slots=True)
class CompletionRule:
    """How many tokens answers take.

    Attributes
    ----------
    each : Estimate
        Tokens of an answer, all its choices together; or for one token of its prompt.
    grows : bool
        Whether it is the latter, as for translations.
    most : int or None
        The request's own limit for all choices together.
    source : str
        What it rests on.
    choices : int, default 1
        Answers to one request.
    """

    each: Estimate
    grows: bool
    most: int | None
    source: str
    choices: int = 1

    @property
    def longest(self) -> int:
        """Tokens that are kept free for one choice; 0 without a limit."""
        return 0 if self.most is None else self.most // self.choices

    def tokens(self, prompts: Counts, each: float) -> Counts:
        """Tokens of each answer, at least 1 and at most the limit."""
        tokens = each * prompts if self.grows else np.full(len(prompts), each)
        whole: Counts = np.clip(np.rint(tokens), 1, self.most).astype(np.int64)
        return whole


def completion_rule(engine: _BaseGPT, request: Request, *, answered: Answered) -> CompletionRule:
    """Find out how many tokens answers take.

    Parameters
    ----------
    engine, request
        As for `prompt_rule`.
    answered : Answered
        Tokens of requests of this frame whose answers are stored.
    """
    params = request.params
    choices = params.get("n")
    times = choices if isinstance(choices, int) and choices > 0 else 1
    limit = params.get("max_completion_tokens") or params.get("max_tokens")
    most = limit * times if isinstance(limit, int) and limit > 0 else None
    if len(answered.completions) >= LEAST_ANSWERS:
        source = f"{len(answered.completions):,} stored answers of this frame"
        return replace(_from_answers(answered, most, source, doubt=0.1), choices=times)
    earlier = earlier_answers(engine, request.model or "")
    if len(earlier.completions) >= LEAST_ANSWERS:
        source = f"{len(earlier.completions):,} earlier answers of this engine"
        return replace(_from_answers(earlier, most, source, doubt=0.5), choices=times)
    low, expected, high = _unknown_answers(request.model or "", params)
    each = Estimate(low * times, expected * times, high * times if most is None else most)
    source = f"no answers known: {expected:,} tokens taken for each, {low:,} to {high:,}"
    if most is not None:
        each = Estimate(*(min(tokens, most) for tokens in each))
        source = f"no answers known: {each.expected:,} tokens taken for each, at most {most:,}"
    return CompletionRule(each, grows=False, most=most, source=source, choices=times)


def _unknown_answers(model: str, params: Mapping[str, object]) -> tuple[int, int, int]:
    """Low, usual and high tokens of an answer of which nothing is known."""
    thinks = _REASONING.match(bare_model(model)) is not None
    if thinks and params.get("reasoning_effort") not in {"none", "minimal"}:
        return 64, 1_024, 8_192  # thoughts are billed as well
    return 4, 256, 1_024


def _from_answers(
    answered: Answered, most: int | None, source: str, *, doubt: float
) -> CompletionRule:
    prompts, completions = answered
    grows = correlation(prompts, completions) >= LINKED
    values = completions / prompts if grows else completions
    each = float(completions.sum() / prompts.sum() if grows else completions.mean())
    spread = 2.0 * float(values.std()) / len(values) ** 0.5 / (each or 1.0)
    off = min(0.9, max(doubt, spread))
    high = each / (1 - off) if off >= _WIDE else each * (1 + off)
    return CompletionRule(Estimate(each * (1 - off), each, high), grows, most, source)


def earlier_answers(engine: _BaseGPT, model: str) -> Answered:
    """Tokens of calls that an engine made in this process with this model.

    Its last calls; where it was called with other models as well, means by the minute.
    """
    pairs: list[tuple[float, float]] = []
    if engine.proven == {model}:
        pairs = [(call.prompt_tokens, call.completion_tokens) for call in answered_calls(engine)]
    elif model in engine.proven:
        names = {deployment.name for deployment in engine.deployments()}
        for row in SESSION_BOOK.rows():
            count = row.billed.requests
            if count and row.deployment in names and bare_model(row.model) == bare_model(model):
                mean = row.billed.prompt / count, row.billed.completion / count
                pairs += [mean] * min(count, ANSWERS_A_MINUTE)
    return Answered.of(pairs)


def answered_calls(engine: _BaseGPT) -> list[Usage]:
    """Last calls of an engine in this process; embeddings, which answer nothing, are left out."""
    return [call for call in engine.usage_cache_list if call.completion_tokens > 0]
