"""What a run did, as plain values: a snapshot while it runs, a summary when it is over."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.types import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lbgpt_pandas.engine.states import BudgetState, DeploymentState, Failures
    from lbgpt_pandas.engine.types import Outcome


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """The state of a run at one moment; what a progress view draws.

    Attributes
    ----------
    rows : int
        Rows of the input.
    done : int
        Rows that have a value, from whatever source.
    failed, skipped : int
        Rows that failed, rows that needed no call because a used cell was NA.
    cached : int
        The part of `done` that came from a cache.
    shared : int
        The part of `done` that took the answer of an equal row.
    in_flight : int
        Requests that are being worked on.
    retries : int
        Attempts beyond the first of each request.
    prompt_tokens, completion_tokens : int
        Billed by this run so far.
    cost_usd : float or None
        Billed by this run so far, None once an answer's price is unknown.
    elapsed_s : float
        Seconds since the run began.
    finished : bool
        No further change will come.
    semantic : int, default 0
        The part of `cached` that took the answer to nearly the same question.
    saved_usd : float or None, default 0.0
        List price of the answers that needed no call so far; None if one is unknown.
    refused : int, default 0
        Calls of this run that met a 429.
    paused : bool, default False
        Nothing new is started until somebody resumes the run.
    stopped : bool, default False
        Nothing new is started any more: the run was interrupted, cancelled, or cannot go on.
    deployments : tuple of DeploymentState, optional
        Who answers.
    budget : tuple of BudgetState, optional
        Its limits; empty without a budget.
    failures : tuple of Failures, optional
        Most frequent first.
    """

    rows: int
    done: int
    failed: int
    skipped: int
    cached: int
    shared: int
    in_flight: int
    retries: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    elapsed_s: float
    finished: bool
    semantic: int = 0
    saved_usd: float | None = 0.0
    refused: int = 0
    paused: bool = False
    stopped: bool = False
    deployments: tuple[DeploymentState, ...] = ()
    budget: tuple[BudgetState, ...] = ()
    failures: tuple[Failures, ...] = ()

    @property
    def asked(self) -> int:
        """Rows that a provider answered for this run."""
        return self.done - self.cached - self.shared

    @property
    def settled(self) -> int:
        """Rows about which nothing will change any more."""
        return self.done + self.failed + self.skipped


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The figures of a run that is over.

    Attributes
    ----------
    snapshot : RunSnapshot
        The last state.
    model, engine : str
        What was asked for, and the engine's one-line description.
    requests : int
        Different requests; equal rows make one.
    calls : int
        Attempts sent to providers.
    saved_usd : float or None
        List price of the answers that came from a cache or an equal row; None if one is unknown.
    errors : mapping of str to int
        Failed rows by error type.
    example : mapping of str to str
        One message for each error type.
    truncated : int
        Rows whose answer stopped at the token limit (``finish_reason="length"``).
    resumed : str, default ""
        Which run this one went on with, and how much of it was there.
    batching : str, default ""
        What came of several rows in one request.
    """

    snapshot: RunSnapshot
    model: str
    engine: str
    requests: int
    calls: int
    saved_usd: float | None
    errors: Mapping[str, int]
    example: Mapping[str, str]
    truncated: int
    resumed: str = ""
    batching: str = ""

    def lines(self) -> list[tuple[str, str]]:
        """Label and text of each figure, in reading order."""
        shot = self.snapshot
        rate = shot.rows / shot.elapsed_s if shot.elapsed_s else 0.0
        na = f"{shot.skipped:,} skipped (NA)"
        tokens = f"{shot.prompt_tokens:,} prompt, {shot.completion_tokens:,} completion"
        calls = f"{self.requests:,} different, {self.calls:,} sent, {shot.retries:,} retries"
        near = f", {shot.semantic:,} from near ones" if shot.semantic else ""
        cached = f"{shot.cached - shot.semantic:,} from cache{near}"
        rows = [
            ("rows", f"{shot.rows:,}: {shot.done:,} done, {shot.failed:,} failed, {na}"),
            ("answers", f"{shot.asked:,} asked, {cached}, {shot.shared:,} shared"),
            ("requests", calls),
            ("tokens billed", tokens),
            ("cost", f"{money(shot.cost_usd)} billed, {money(self.saved_usd)} saved"),
            ("time", f"{shot.elapsed_s:.2f} s, {rate:,.1f} rows/s"),
        ]
        if self.batching:
            rows.append(("grouped", self.batching))
        if self.resumed:
            rows.append(("resumes", self.resumed))
        if self.truncated:
            rows.append(("truncated", f"{self.truncated:,} answers stopped at the token limit"))
        return rows

    def to_text(self) -> str:
        """Several lines of plain text."""
        head = f"lbgpt run · {self.model} · {self.engine}"
        body = [f"  {label:<14}{text}" for label, text in self.lines()]
        body += [
            f"  ! {count:,} × {name}: {self.example.get(name, '')}"
            for name, count in self.errors.items()
        ]
        return "\n".join([head, *body])

    def notes(self) -> list[str]:
        """What the counts of a view do not say."""
        notes = [f"{self.requests:,} different requests, {self.calls:,} calls sent"]
        if self.batching:
            notes.append(f"grouped: {self.batching}")
        if self.resumed:
            notes.append(f"resumes {self.resumed}")
        if self.truncated:
            notes.append(f"{self.truncated:,} answers stopped at the token limit")
        return notes


def money(usd: float | None) -> str:
    """Dollars with four decimals, or that the price is unknown."""
    return "price unknown" if usd is None else f"${usd:,.4f}"


def billed_usd(outcomes: Sequence[Outcome | None]) -> float | None:
    """List price of what a provider answered; None if one price is unknown."""
    return _sum(o.price_usd for o in outcomes if o and _is_billed(o) and _was_answered(o))


def saved_usd(outcomes: Sequence[Outcome | None], rows_of: Sequence[int]) -> float | None:
    """List price of what caches and equal rows saved; None if one price is unknown.

    Parameters
    ----------
    outcomes : sequence of Outcome
        One for each different request.
    rows_of : sequence of int
        How many rows each of them answered.
    """
    return _sum(
        None if outcome.price_usd is None else outcome.price_usd * spared
        for outcome, rows in zip(outcomes, rows_of, strict=True)
        if outcome and outcome.completion
        for spared in (rows - _is_billed(outcome),)
        if spared
    )


def count_errors(
    outcomes: Sequence[Outcome | None], rows_of: Sequence[int]
) -> tuple[dict[str, int], dict[str, str]]:
    """Failed rows by error type, most frequent first, and one message for each type."""
    counts: Counter[str] = Counter()
    example: dict[str, str] = {}
    for outcome, rows in zip(outcomes, rows_of, strict=True):
        if outcome and outcome.error:
            name = type(outcome.error).__name__
            counts[name] += rows
            example.setdefault(name, str(outcome.error))
    return dict(counts.most_common()), example


def _was_answered(outcome: Outcome) -> bool:
    """Tell whether there was a reply, also one that did not fit and has made the row fail."""
    return outcome.completion is not None or outcome.price_usd is not None


def _is_billed(outcome: Outcome) -> bool:
    return outcome.source is Source.PROVIDER


def _sum(prices: Iterable[float | None]) -> float | None:
    total = 0.0
    for price in prices:
        if price is None:
            return None
        total += price
    return total
