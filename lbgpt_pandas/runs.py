"""A frame's run from plan to result, and the report that stays when it is over."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.errors import CacheWarning, LimitsWarning, RowErrors, RowErrorsWarning
from lbgpt_pandas.engine.portal import run_async, run_sync
from lbgpt_pandas.engine.report import RunSummary, billed_usd, count_errors, saved_usd
from lbgpt_pandas.engine.types import Source
from lbgpt_pandas.engine.views import close_quietly, drawn, open_view
from lbgpt_pandas.frames import to_series
from lbgpt_pandas.report_lines import COLUMNS, line, line_without_request

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from lbgpt_pandas.engine.base import _BaseGPT
    from lbgpt_pandas.engine.budget import Budget
    from lbgpt_pandas.engine.caching import Caching
    from lbgpt_pandas.engine.errors import LbgptError
    from lbgpt_pandas.engine.types import Outcome
    from lbgpt_pandas.frames import RowPlan
    from lbgpt_pandas.settings import ErrorMode, Progress

TOKEN_COLUMNS = ["prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens"]
WARNING_DEPTH = 4
"""Frames between `warnings.warn` and the line of the user's that called the accessor."""

_last: RunReport | None = None


def last_run() -> RunReport | None:
    """Return the report of the run of this process that ended last; None before the first.

    A run that was interrupted or aborted counts: its report holds the finished rows.
    """
    return _last


class RowRun:
    """A plan on its way to a result; made by the accessor, used once.

    Parameters
    ----------
    plan : RowPlan
        Requests, and which rows they answer.
    engine : engine
        Who answers.
    caching : Caching
        The exact cache and what may be done with it.
    model : str
        Model name, for the report.
    errors : {"coerce", "raise", "ignore"}
        What becomes of failed rows.
    progress : {"auto", "widget", "tqdm", "none"} or bool
        How progress is drawn.
    budget : Budget or None
        What the run may spend.
    max_parallel : int or None
        Cap on the requests that are worked on at once.
    name : hashable or None
        Name of the resulting Series.
    earlier : sequence of Outcome or None, optional
        Outcomes of an earlier run of the same plan.
    """

    def __init__(
        self,
        plan: RowPlan,
        engine: _BaseGPT,
        *,
        caching: Caching,
        model: str,
        errors: ErrorMode,
        progress: Progress | bool,
        budget: Budget | None,
        max_parallel: int | None,
        name: Hashable | None,
        earlier: Sequence[Outcome | None] = (),
    ) -> None:
        self.plan, self.engine, self.caching = plan, engine, caching
        self.model, self.errors, self.name = model, errors, name
        self.progress, self.budget, self.max_parallel = progress, budget, max_parallel
        self.batch = Batch(
            engine,
            plan.requests,
            caching=caching,
            rows_of=plan.rows_of(),
            failed=len(plan.errors),
            skipped=len(plan.skipped),
            max_parallel=max_parallel,
            stop_on_error=errors == "raise",
            earlier=earlier,
            budget=budget,
            clock=engine.clock,
        )
        if errors == "raise" and plan.errors:
            # Known before the first paid call: what is cached is looked up, nothing is sent.
            self.batch.stop()

    def run(self) -> pd.Series[Any]:
        """Run on the engine's loop while this thread draws progress."""
        view = open_view(self.progress)
        with self._recorded():
            try:
                run_sync(
                    self.batch.arun(),
                    tick=lambda: view.update(self.batch.snapshot()),
                    on_interrupt=self.batch.stop,
                )
            finally:
                close_quietly(view, self.batch.snapshot())
        return self._deliver()

    async def arun(self) -> pd.Series[Any]:
        """Run on the engine's loop, awaited from the caller's."""
        with self._recorded():
            async with drawn(open_view(self.progress), self.batch.snapshot):
                await run_async(self.batch.arun())
        return self._deliver()

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        """Leave a report behind however the block ends, and say so when it ends badly."""
        global _last  # noqa: PLW0603  # lb.last_run() is one per process by definition
        try:
            yield
        except BaseException as error:
            done = self.batch.snapshot().done
            error.add_note(
                f"{done:,} of {self.plan.rows:,} rows have an answer: lb.last_run().result"
            )
            raise
        finally:
            self._report = _last = RunReport(self)
            if self.caching.tier is not None:
                for notice in self.caching.tier.take_notices():
                    warnings.warn(notice, CacheWarning, stacklevel=WARNING_DEPTH + 1)
            for notice in self.engine.take_notices():
                warnings.warn(notice, LimitsWarning, stacklevel=WARNING_DEPTH + 1)

    def _deliver(self) -> pd.Series[Any]:
        report = self._report
        failed = report.summary.snapshot.failed
        if failed and self.errors == "raise":
            # Rows that share a request share its error, which is named once.
            errors = list(dict.fromkeys(error for _, error in report.first_failures(10)))
            raise RowErrors(
                report.failure_message(), errors, report=report, result=report.result
            ) from errors[0]
        if failed and self.errors == "coerce":
            warnings.warn(report.failure_message(), RowErrorsWarning, stacklevel=WARNING_DEPTH)
        return report.result


class RunReport:
    """What a run did: the result, a line for each row, tokens, cost, errors.

    Attributes
    ----------
    summary : RunSummary
        The figures.
    """

    def __init__(self, run: RowRun) -> None:
        self._run = run
        self._outcomes = list(run.batch.outcomes)
        rows_of = run.batch.rows_of
        counts, example = count_errors(self._outcomes, rows_of)
        for error in run.plan.errors.values():
            kind = type(error).__name__
            counts[kind] = counts.get(kind, 0) + 1
            example.setdefault(kind, str(error))
        self.summary = RunSummary(
            snapshot=run.batch.snapshot(),
            model=run.model,
            engine=run.engine.name,
            requests=len(self._outcomes),
            calls=sum(outcome.attempts for outcome in self._outcomes if outcome),
            saved_usd=saved_usd(self._outcomes, rows_of),
            errors=counts,
            example=example,
            truncated=sum(
                rows
                for outcome, rows in zip(self._outcomes, rows_of, strict=True)
                if outcome and outcome.completion and outcome.completion.finish_reason == "length"
            ),
        )

    def __repr__(self) -> str:
        shot = self.summary.snapshot
        return (
            f"<RunReport {self.summary.model}: {shot.done:,} of {shot.rows:,} rows done, "
            f"{shot.failed:,} failed, {shot.elapsed_s:.2f} s>"
        )

    def __str__(self) -> str:
        return self.summary.to_text()

    def _repr_html_(self) -> str:
        return self.summary.to_html()

    @property
    def cost_usd(self) -> float | None:
        """List price of the calls of this run in USD; None if a price is unknown."""
        return billed_usd(self._outcomes)

    @property
    def saved_usd(self) -> float | None:
        """List price of what cache and equal rows saved in USD; None if a price is unknown."""
        return self.summary.saved_usd

    @property
    def budget(self) -> Budget | None:
        """What the run was allowed to spend, to be looked at and raised; None: no bound."""
        return self._run.budget

    @property
    def wall_s(self) -> float:
        """Seconds from the first lookup to the last answer."""
        return self.summary.snapshot.elapsed_s

    @cached_property
    def result(self) -> pd.Series[Any]:
        """The column as `complete` returned it; rows without an answer are NA."""
        texts = [
            outcome.completion.text if outcome and outcome.completion else None
            for outcome in self._outcomes
        ]
        return to_series(self._run.plan, texts, name=self._run.name)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """A frame with a line for each row of the input, under the same index.

        Columns: ``status`` (ok, failed, skipped, not_run), ``source`` (provider, exact_cache,
        semantic_cache, shared, skipped), ``error_type``, ``error_code``, ``message``,
        ``attempts``, ``deployment``, ``latency_s``, ``prompt_tokens``, ``completion_tokens``,
        ``cost_usd`` (billed by this run; NA if the price is unknown), ``finish_reason``,
        ``similarity``, ``key``, ``request_id``, ``maybe_billed``.

        Tokens of a cached row are those of the call that once answered it. A request that
        several rows share is charged to the first of them; the others say ``shared``.
        """
        plan = self._run.plan
        first_row: set[int] = set()
        lines: list[tuple[object, ...]] = []
        shared_lines = [line(outcome, first=False) for outcome in self._outcomes]
        for position, code in enumerate(plan.codes.tolist()):
            if code < 0:
                lines.append(line_without_request(plan.errors.get(position)))
            elif code in first_row:
                lines.append(shared_lines[code])
            else:
                first_row.add(code)
                lines.append(line(self._outcomes[code], first=True))
        frame = pd.DataFrame(lines, columns=list(COLUMNS), index=plan.index)
        return frame.astype(COLUMNS)

    @property
    def errors(self) -> pd.DataFrame:
        """The lines of `rows` that failed."""
        return self.rows[self.rows["status"] == "failed"]

    @property
    def usage(self) -> pd.DataFrame:
        """A frame with a line for each deployment and model that was called.

        Columns: ``requests`` (answered calls), ``prompt_tokens``, ``completion_tokens``,
        ``total_tokens``, ``cached_tokens`` (the part of the prompt from the provider's own
        cache), ``cost_usd`` (NA if the price is unknown).
        """
        calls = [
            (
                outcome.deployment,
                outcome.completion.model,
                outcome.completion.tokens.prompt,
                outcome.completion.tokens.completion,
                outcome.completion.tokens.total,
                outcome.completion.tokens.cached,
                outcome.price_usd,
            )
            for outcome in self._outcomes
            if outcome and outcome.completion and outcome.source is Source.PROVIDER
        ]
        columns = ["deployment", "model", *TOKEN_COLUMNS, "cost_usd"]
        frame = pd.DataFrame(calls, columns=columns).astype({"cost_usd": "Float64"})
        groups = frame.groupby(["deployment", "model"])
        sums = groups[TOKEN_COLUMNS].sum().astype("int64")
        sums.insert(0, "requests", groups.size().astype("int64"))
        # A sum that skipped unknown prices would be too low and look exact.
        sums["cost_usd"] = groups["cost_usd"].agg(lambda prices: prices.sum(skipna=False))
        return sums

    def first_failures(self, limit: int) -> list[tuple[int, LbgptError]]:
        """Position and error of the first failed rows, in row order; at most `limit`."""
        plan = self._run.plan
        found: list[tuple[int, LbgptError]] = []
        for position, code in enumerate(plan.codes.tolist()):
            outcome = self._outcomes[code] if code >= 0 else None
            error = plan.errors.get(position) if code < 0 else outcome and outcome.error
            if error is not None:
                found.append((position, error))
                if len(found) >= limit:
                    break
        return found

    def failure_message(self) -> str:
        """One sentence on how many rows failed, of what, the first one, and what to do."""
        shot = self.summary.snapshot
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.summary.errors.items())
        first = ""
        for position, error in self.first_failures(1):
            where = f"row {position} (index {self._run.plan.index[position]!r})"
            text = str(error)
            # A cell that cannot be sent names its row itself.
            first = f" First: {text if text.startswith('row ') else f'{where}: {text}'}"
        return (
            f"{shot.failed:,} of {shot.rows:,} rows failed ({kinds}).{first} "
            "See lb.last_run().errors; lb.last_run().retry_failed() asks them again."
        )

    def retry_failed(self) -> pd.Series[Any]:
        """Ask the rows again that failed or were not reached; keep the others as they are.

        Returns
        -------
        Series
            The whole column. `lb.last_run()` then reports on both runs together.
        """
        earlier = self._run
        again = RowRun(
            earlier.plan,
            earlier.engine,
            caching=earlier.caching,
            model=earlier.model,
            errors=earlier.errors,
            progress=earlier.progress,
            budget=earlier.budget,
            max_parallel=earlier.max_parallel,
            name=earlier.name,
            earlier=self._outcomes,
        )
        return again.run()
