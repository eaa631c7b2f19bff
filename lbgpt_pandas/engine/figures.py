"""The counts of a run while it goes on."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.states import Failures
from lbgpt_pandas.engine.types import EXACT, Source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lbgpt_pandas.engine.errors import LbgptError
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
        Answered requests by deployment.
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
            self._charge(outcome)
            self._save(outcome.price_usd, rows - 1)
        else:
            if source is Source.SEMANTIC_CACHE:
                self.semantic += rows
                self.cached += rows
            else:
                self.shared += rows
            self._save(outcome.price_usd, rows)

    def failures(self) -> tuple[Failures, ...]:
        """Failed rows by kind, most frequent first, with one message each."""
        kinds = sorted(self._failures.copy().items(), key=lambda item: -item[1][0])
        return tuple(Failures(kind, rows, example) for kind, (rows, example) in kinds)

    def _charge(self, outcome: Outcome) -> None:
        self.requests += 1
        self.answered[outcome.deployment] += 1
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
