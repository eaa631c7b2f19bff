"""The counts of a run while it goes on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.report import RunSnapshot
from lbgpt_pandas.engine.states import Failures
from lbgpt_pandas.engine.types import EXACT, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lbgpt_pandas.engine.deployment import Deployment
    from lbgpt_pandas.engine.errors import LbgptError
    from lbgpt_pandas.engine.states import DeploymentState
    from lbgpt_pandas.engine.types import Outcome


class Figures:
    """Counts rows by what became of them; read from any thread while one thread counts.

    Parameters
    ----------
    broken : iterable of LbgptError
        Errors of rows that have no request.
    skipped : int
        Rows that need none.

    Attributes
    ----------
    done, failed, skipped, cached, semantic, shared : int
        Rows, as in `RunSnapshot`.
    requests : int
        Requests that a provider answered.
    retries, prompt_tokens, completion_tokens : int
        Of the calls of this run.
    cost_usd, saved_usd : float or None
        List price of what was billed and of what needed no call; None once one is unknown.
    answered : Counter of str
        Answered calls by deployment.
    """

    def __init__(self, *, broken: Iterable[LbgptError] = (), skipped: int = 0) -> None:
        self.done = self.failed = self.cached = self.semantic = self.shared = 0
        self.skipped = skipped
        self.requests = self.retries = self.prompt_tokens = self.completion_tokens = 0
        self.cost_usd: float | None = 0.0
        self.saved_usd: float | None = 0.0
        self.answered: Counter[str] = Counter()
        self._failures: dict[str, tuple[int, str]] = {}
        for error in broken:
            self._fail(error, 1)
        self._broken, self._broken_kinds = self.failed, self._failures.copy()

    def settle(self, outcome: Outcome, rows: int) -> None:
        """Count a request's rows.

        Parameters
        ----------
        outcome : Outcome
            What became of the request.
        rows : int
            How many rows it stands for.
        """
        if outcome.attempts > 1:
            self.retries += outcome.attempts - 1
        if outcome.error is not None:
            self._fail(outcome.error, rows)
            return
        self.done += rows
        source = outcome.source
        if source is EXACT:  # first, because a cached column has nothing else
            self.cached += rows
            self._save(outcome.price_usd, rows)
        elif source is Source.PROVIDER:
            self.shared += rows - 1
            self.charge(outcome)
            self._save(outcome.price_usd, rows - 1)
        else:
            if source is Source.SEMANTIC_CACHE:
                self.semantic += rows
                self.cached += rows
            else:
                self.shared += rows
            self._save(outcome.price_usd, rows)

    def recounted(self, outcomes: Iterable[tuple[Outcome | None, int]]) -> Figures:
        """Count the rows anew by what became of them in the end; what was spent stays.

        Parameters
        ----------
        outcomes : iterable of (Outcome or None, int)
            What became of each request, and its rows.
        """
        fresh = Figures(skipped=self.skipped)
        fresh.failed, fresh._failures = self._broken, self._broken_kinds.copy()
        for outcome, rows in outcomes:
            if outcome is not None:
                fresh.settle(outcome, rows)
        fresh._broken, fresh._broken_kinds = self._broken, self._broken_kinds
        fresh.requests, fresh.retries, fresh.answered = self.requests, self.retries, self.answered
        fresh.prompt_tokens = self.prompt_tokens
        fresh.completion_tokens = self.completion_tokens
        fresh.cost_usd, fresh.saved_usd = self.cost_usd, self.saved_usd
        return fresh

    def spend(self, other: Figures) -> None:
        """Add what the calls of another count have used; its rows are those of this one."""
        self.requests += other.requests
        self.retries += other.retries + other.requests
        self.answered += other.answered
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.cost_usd = _sum(self.cost_usd, other.cost_usd)

    def states(
        self, deployments: Iterable[Deployment], refusals: Mapping[str, int]
    ) -> tuple[DeploymentState, ...]:
        """Say how deployments are, with the calls of this run only."""
        return tuple(
            replace(
                each.state(), answered=self.answered[each.name], refused=refusals.get(each.name, 0)
            )
            for each in deployments
        )

    def snapshot(self, **others: Any) -> RunSnapshot:
        """Return the state of the run; `others` are what is not counted here."""
        return RunSnapshot(
            done=self.done,
            failed=self.failed,
            skipped=self.skipped,
            cached=self.cached,
            shared=self.shared,
            retries=self.retries,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cost_usd=self.cost_usd,
            semantic=self.semantic,
            saved_usd=self.saved_usd,
            failures=self.failures(),
            **others,
        )

    def failures(self) -> tuple[Failures, ...]:
        """Failed rows by kind, most frequent first, with one message each."""
        kinds = sorted(self._failures.copy().items(), key=lambda item: -item[1][0])
        return tuple(Failures(kind, rows, example) for kind, (rows, example) in kinds)

    def charge(self, outcome: Outcome) -> None:
        """Count a call that was answered, and what it cost.

        Parameters
        ----------
        outcome : Outcome
            Of a row; without attempts if another row's stands for the same call.
        """
        self.requests += 1
        self.answered[outcome.deployment] += bool(outcome.attempts)
        if outcome.completion is not None:
            self.prompt_tokens += outcome.completion.tokens.prompt
            self.completion_tokens += outcome.completion.tokens.completion
            self.cost_usd = _sum(self.cost_usd, outcome.price_usd)

    def _save(self, usd: float | None, rows: int) -> None:
        if rows and self.saved_usd is not None:
            self.saved_usd = None if usd is None else self.saved_usd + usd * rows

    def _fail(self, error: LbgptError, rows: int) -> None:
        self.failed += rows
        kind = type(error).__name__
        known, example = self._failures.get(kind) or (0, str(error))
        self._failures[kind] = known + rows, example


def _sum(total: float | None, usd: float | None) -> float | None:
    return None if total is None or usd is None else total + usd
