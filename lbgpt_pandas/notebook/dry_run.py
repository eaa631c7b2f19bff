"""What a ``%%lbgpt`` cell would send, and about what it would cost; nobody is called."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.drawing.prose import code_html
from lbgpt_pandas.engine.limits.estimate import prompt_tokens
from lbgpt_pandas.engine.markup import inert_html
from lbgpt_pandas.engine.report import money
from lbgpt_pandas.engine.types import TokenCount
from lbgpt_pandas.notebook.answer_forms import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lbgpt_pandas.engine.base import _BaseGPT
    from lbgpt_pandas.engine.types import Message, Request
    from lbgpt_pandas.frames import RowPlan

SHOWN = 3
MEASURED = 2_000
"""Prompts whose tokens are counted; of more a sample stands for all."""
LONGEST_PROMPT = 2_000


@dataclass(frozen=True, slots=True)
class DryRun:
    """Counts, an estimate, and the first prompts.

    Attributes
    ----------
    model, engine : str
        What would be asked for, and who would answer.
    rows, requests, skipped, broken : int
        Rows of the frame, different requests, rows without one because a cell is NA, and rows
        that cannot be sent.
    prompt_tokens : int
        Of all requests, by rule of thumb.
    most_completion_tokens : int or None
        As many as ``--max-tokens`` allows; None without it.
    prompt_usd, most_usd : float or None
        List price of the prompts alone, and with answers of full length; None if it is unknown.
    prompts : tuple of str
        The first ones, as they would be sent.
    """

    model: str
    engine: str
    rows: int
    requests: int
    skipped: int
    broken: int
    prompt_tokens: int
    most_completion_tokens: int | None
    prompt_usd: float | None
    most_usd: float | None
    prompts: tuple[str, ...]

    @classmethod
    def of(cls, plan: RowPlan, *, model: str, engine: _BaseGPT) -> DryRun:
        """Look at a plan."""
        count = len(plan.requests)
        tokens = _tokens(plan.requests)
        limit = plan.requests[0].params.get("max_tokens") if count else None
        most = limit * count if isinstance(limit, int) else None
        return cls(
            model=model,
            engine=engine.name,
            rows=plan.rows,
            requests=count,
            skipped=len(plan.skipped),
            broken=len(plan.errors),
            prompt_tokens=tokens,
            most_completion_tokens=most,
            prompt_usd=engine.price_of_tokens(model, TokenCount(tokens, 0)),
            most_usd=None
            if most is None
            else engine.price_of_tokens(model, TokenCount(tokens, most)),
            prompts=tuple(_shown(plan.requests[n].messages) for n in range(min(SHOWN, count))),
        )

    def lines(self) -> list[tuple[str, str]]:
        """Label and text of each figure, in reading order."""
        rows = f"{self.rows:,}: {self.requests:,} different requests, {self.skipped:,} skipped (NA)"
        if self.broken:
            rows += f", {self.broken:,} that cannot be sent"
        most = self.most_completion_tokens
        answers = "no --max-tokens, so no bound" if most is None else f"at most {most:,}"
        cost = f"{money(self.prompt_usd)} for the prompts"
        if most is not None and self.most_usd is not None:
            cost += f", at most {money(self.most_usd)} with the answers"
        return [
            ("rows", rows),
            ("prompt tokens", f"about {self.prompt_tokens:,}"),
            ("answer tokens", answers),
            ("cost", f"{cost}; cached answers cost nothing"),
        ]

    def __repr__(self) -> str:
        head = f"lbgpt dry run · {self.model} · {self.engine} · nothing was sent"
        body = [f"  {label:<15}{text}" for label, text in self.lines()]
        prompts = [
            f"--- prompt {number} of {self.requests:,}\n{printable(prompt)}"
            for number, prompt in enumerate(self.prompts, 1)
        ]
        return "\n".join([head, *body, *prompts])

    def _repr_html_(self) -> str:
        cell = 'style="text-align:left;padding:2px 12px 2px 0;vertical-align:top"'
        rows = "".join(
            f"<tr><th {cell}>{inert_html(label)}</th><td {cell}>{inert_html(text)}</td></tr>"
            for label, text in self.lines()
        )
        title = inert_html(f"lbgpt dry run · {self.model} · {self.engine} · nothing was sent")
        prompts = "".join(
            f"<div>prompt {number} of {self.requests:,}</div>{code_html(prompt)}"
            for number, prompt in enumerate(self.prompts, 1)
        )
        return f"<div><b>{title}</b><table><tbody>{rows}</tbody></table>{prompts}</div>"


def _tokens(requests: Sequence[Request]) -> int:
    count = len(requests)
    chosen: Sequence[int] = range(count)
    if count > MEASURED:
        # A fixed seed: the same frame has the same estimate.
        chosen = random.Random(0).sample(range(count), MEASURED)  # noqa: S311  # no secret
    measured = sum(prompt_tokens(requests[number].messages) for number in chosen)
    return round(measured * count / len(chosen)) if count else 0


def _shown(messages: Sequence[Message]) -> str:
    parts = [f"{message.get('role')}: {_content(message.get('content'))}" for message in messages]
    text = "\n".join(parts)
    if len(text) <= LONGEST_PROMPT:
        return text
    return f"{text[:LONGEST_PROMPT]}… ({len(text) - LONGEST_PROMPT:,} more characters)"


def _content(content: Any) -> str:
    return content if isinstance(content, str) else repr(content)
