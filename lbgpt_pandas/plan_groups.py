"""Tokens, cost and time of rows that would go several in one request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lbgpt_pandas.answer_estimates import completion_rule
from lbgpt_pandas.engine.group_request import ENTRY_TOKENS, request_of
from lbgpt_pandas.engine.grouped_batch import FEWEST, GroupedBatch
from lbgpt_pandas.engine.types import Request
from lbgpt_pandas.plan_figures import Figures
from lbgpt_pandas.token_estimates import (
    LEAST_ANSWERS,
    TOKENIZED,
    Answered,
    measure,
    prompt_rule,
    some_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lbgpt_pandas.answer_estimates import CompletionRule
    from lbgpt_pandas.plan_lookups import Stored
    from lbgpt_pandas.runs import RowRun
    from lbgpt_pandas.token_estimates import PromptRule

AROUND_ANSWER = 18
"""Tokens of the JSON around an answer."""


class GroupRequests(Sequence[Request]):
    """Requests for groups of rows, made when they are asked for."""

    def __init__(self, batch: GroupedBatch, groups: Sequence[Sequence[int]]) -> None:
        self._batch, self._groups = batch, groups

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, number: Any) -> Any:
        rows = [self._batch.requests[each] for each in self._groups[number]]
        takes_schema = self._batch.grouping.takes_schema
        return rows[0] if len(rows) == 1 else request_of(rows, takes_schema=takes_schema)[0]


class GroupFigures(Figures):
    """Figures of a run in which several rows go in one request.

    Parameters
    ----------
    run : RowRun
        The run.
    batch : GroupedBatch
        That it would send.
    stored : Stored
        What the caches have for it; something is left to be asked.
    """

    def __init__(self, run: RowRun, batch: GroupedBatch, stored: Stored) -> None:
        rows, note = batch.grouping.rows, ""
        groups = batch.groups_of(stored.to_ask)
        if rows == "auto" and len(stored.to_ask) < FEWEST:
            groups = [[number] for number in stored.to_ask]
            note = f'rows_per_request="auto" does not try groups with fewer than {FEWEST} rows'
        elif rows == "auto":
            note = (
                f'rows_per_request="auto": the figures are those of {batch.rows_at_most} rows in '
                "a request, without its sample; if groups change answers, each row is asked alone"
            )
        self._starts = np.cumsum([0, *map(len, groups[:-1])])
        self._sizes = np.array([*map(len, groups)])
        super().__init__(run, stored, requests=GroupRequests(batch, groups))
        self.notes += [note] if note else []
        self.numbers = [number for group in groups for number in group]
        if self.prompt_rule is not None:
            self.row_prompts = self.prompt_rule.tokens(measure(run.plan.requests, self.numbers))

    def _rules(self) -> tuple[PromptRule, CompletionRule]:
        # Tokens of a stored answer are shares of a call, which say nothing about whole prompts.
        engine, (_, answered) = self.run.engine, self._answered()
        self._around = 0 if len(answered.completions) >= LEAST_ANSWERS else AROUND_ANSWER
        prompts = prompt_rule(
            engine,
            self.requests[0],
            measured=measure((), ()),
            answered=Answered.of(()),
            texts=[self.requests[number] for number in some_of(self.to_ask, TOKENIZED)],
        )
        return prompts, completion_rule(engine, self.run.plan.requests[0], answered=answered)

    @property
    def most(self) -> int | None:
        """Tokens to which the answer to a request is limited."""
        most, size = super().most, int(self._sizes.max())
        return most if most is None or size == 1 else (most + ENTRY_TOKENS) * size

    def completions(self, rule: CompletionRule, each: float) -> NDArray[np.int64]:
        """Tokens of the answer to each request, if those of a row are `each`."""
        sums = np.add.reduceat(rule.tokens(self.row_prompts, each), self._starts)
        whole: NDArray[np.int64] = sums + self._around * self._sizes * (self._sizes > 1)
        return whole


def figures_of(run: RowRun, stored: Stored) -> Figures:
    """Figures of a run, however many rows go in one request."""
    if isinstance(run.batch, GroupedBatch) and stored.to_ask:
        return GroupFigures(run, run.batch, stored)
    return Figures(run, stored)
