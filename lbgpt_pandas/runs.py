"""A frame's run from plan to result."""

from __future__ import annotations

import asyncio
import threading
import warnings
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.embargo import check_embargo
from lbgpt_pandas.engine.errors import (
    CacheMiss,
    CacheWarning,
    LimitsWarning,
    RowErrors,
    RowErrorsWarning,
    SchemaMismatch,
)
from lbgpt_pandas.engine.grouped_batch import GroupedBatch
from lbgpt_pandas.engine.portal import run_async, run_sync
from lbgpt_pandas.engine.states import RunHeading
from lbgpt_pandas.engine.views import close_quietly, drawn, open_view
from lbgpt_pandas.manifest import new_id
from lbgpt_pandas.misses import explained
from lbgpt_pandas.registry import register, registry
from lbgpt_pandas.reports import RunReport
from lbgpt_pandas.resumption import ABORTED, FAILURES, INTERRUPTED, RUNNING, begun, resumed
from lbgpt_pandas.run_file import Keys

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence
    from datetime import datetime

    from lbgpt_pandas.engine.base import _BaseGPT
    from lbgpt_pandas.engine.budget import Budget
    from lbgpt_pandas.engine.caching import Caching
    from lbgpt_pandas.engine.types import Outcome
    from lbgpt_pandas.engine.views import View
    from lbgpt_pandas.forms import Form
    from lbgpt_pandas.frames import RowPlan
    from lbgpt_pandas.resumption import Resumed
    from lbgpt_pandas.settings import ErrorMode, Progress

WARNING_DEPTH = 4
"""Frames between `warnings.warn` and the line of the user's that called the accessor."""

_last: RunReport | None = None


def last_run() -> RunReport | None:
    """Return the report of the run of this process that ended last; None before the first.

    A run that was interrupted or aborted counts: its report holds the finished rows.
    """
    return _last


def _unfit(outcomes: Sequence[Outcome | None]) -> list[int]:
    """Numbers of those whose stored reply would only fail again."""
    return [
        number
        for number, outcome in enumerate(outcomes)
        if outcome is not None and isinstance(outcome.error, SchemaMismatch)
    ]


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
    form : Form, optional
        What replies have to be, and what they become; by default any text.
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
        form: Form | None = None,
        earlier: Sequence[Outcome | None] = (),
    ) -> None:
        self.plan, self.engine, self.caching = plan, engine, caching
        self.model, self.errors, self.name = model, errors, name
        self.form = form
        self.progress, self.budget, self.max_parallel = progress, budget, max_parallel
        self.status = RUNNING
        self.resumed: Resumed | None = None
        self.started: datetime = engine.clock.wall()
        self.id = new_id(self.started)
        self._report: RunReport | None = None
        self._notices: list[str] = []
        self.batch = self._new_batch(earlier)
        self.batch.on_asking = self._begin
        self._beginning: threading.Thread | None = None
        self._looked_back = threading.Event()
        if errors == "raise" and plan.errors:
            # Known before the first paid call: what is cached is looked up, nothing is sent.
            self.batch.stop()

    def _new_batch(self, earlier: Sequence[Outcome | None]) -> Batch:
        form, grouping = self.form, self.plan.grouping
        if grouping is not None:
            keywords = self._batch_keywords(earlier)
            return GroupedBatch(self.engine, self.plan.requests, grouping=grouping, **keywords)
        return Batch(
            self.engine,
            self.plan.requests,
            **self._batch_keywords(earlier),
            check=None if form is None else form.check,
            measure=None if form is None else form.measure,
            keep_payloads=form is not None and form.keeps_payloads,
        )

    def _batch_keywords(self, earlier: Sequence[Outcome | None]) -> dict[str, Any]:
        return {
            "caching": self.caching,
            "rows_of": self.plan.rows_of(),
            "broken": list(self.plan.errors.values()),
            "skipped": len(self.plan.skipped),
            "max_parallel": self.max_parallel,
            "stop_on_error": self.errors == "raise",
            "earlier": earlier,
            "afresh": [] if self.caching.recording else _unfit(earlier),
            "budget": self.budget,
            "clock": self.engine.clock,
        }

    def run(self) -> Any:
        """Run on the engine's loop while this thread draws progress."""
        try:
            self.work(open_view(self.progress, self.heading))
        finally:
            self.tell(depth=WARNING_DEPTH)
        return self.deliver(depth=WARNING_DEPTH)

    def work(self, view: View) -> None:
        """Run on the engine's loop while this thread draws, and leave the report behind."""
        try:
            with self._judged():
                try:
                    run_sync(
                        self.batch.arun(),
                        tick=lambda: view.update(self.batch.snapshot()),
                        on_interrupt=self.batch.stop,
                    )
                finally:
                    close_quietly(view, self.batch.snapshot())
        finally:
            self._record()

    async def arun(self) -> Any:
        """Run on the engine's loop, awaited from the caller's."""
        view = open_view(self.progress, self.heading, controls=self.batch, awaited=True)
        try:
            with self._judged():
                async with drawn(view, self.batch.snapshot):
                    await run_async(self.batch.arun())
        finally:
            # Another process may hold the file of runs, and this loop has other work.
            await asyncio.to_thread(self._record)
            self.tell(depth=WARNING_DEPTH)
        return self.deliver(depth=WARNING_DEPTH)

    @property
    def heading(self) -> RunHeading:
        """What the run is, for its view."""
        column = "" if self.name is None else str(self.name)
        verb = "complete" if self.form is None else self.form.verb
        return RunHeading(verb, self.model, self.engine.name, column, self.id)

    @property
    def report(self) -> RunReport:
        """What the run did; until it has ended, what it has done so far."""
        return self._report or RunReport(self)

    @contextmanager
    def _judged(self) -> Iterator[None]:
        """Note how the block ends, and say what is left when it ends badly."""
        if self.caching.recording is None:
            check_embargo(f"this {self.heading.verb}")
        self.started = self.engine.clock.wall()
        try:
            yield
            self.status = "done"
        except CacheMiss as miss:
            self.status = ABORTED
            raise explained(miss, self) from None
        except BaseException as error:
            self.status = ABORTED if isinstance(error, Exception) else INTERRUPTED
            shot, failure = self.batch.snapshot(), self.batch.last_failure
            last = "" if failure is None or failure is error else f". Last failure: {failure}"
            error.add_note(
                f"{shot.done:,} of {shot.rows:,} rows have an answer: lb.last_run().result{last}"
            )
            raise

    def _record(self) -> None:
        """Leave the report behind, and enter it in the file of runs."""
        global _last  # noqa: PLW0603  # lb.last_run() is one per process by definition
        if self._beginning is not None:
            self._looked_back.wait()
        elif self.status == "done":
            self._look_back(self.batch.snapshot().done)
        if self.status == "done" and self.batch.snapshot().failed:
            self.status = "failed"
        self._report = _last = RunReport(self)
        if self._beginning is not None:
            self._beginning.join()
        self._notices += [*register(_last), *self.caching.take_notices()]

    def _begin(self) -> None:
        """Enter the run in the file of runs, in case that this process ends before it does."""
        if self.caching.mode == "read_only":
            return  # which makes no file
        work = partial(copy_context().run, self._enter, self.batch.snapshot().done)
        # The loop goes on to ask meanwhile; another process may hold the file.
        self._beginning = threading.Thread(target=work, daemon=True)
        self._beginning.start()

    def _enter(self, there: int) -> None:
        self._look_back(there)
        with suppress(*FAILURES):
            further = begun(registry().prepared(), self.caching)
            self._notices += register(RunReport(self), **further)

    def _look_back(self, there: int) -> None:
        """Note which run this one goes on with."""
        batch, mode = self.batch, self.caching.mode
        # Runs that only read mend no file.
        if mode in {"use", "refresh"}:
            with suppress(*FAILURES):
                keys, rows = Keys.of(batch.keys, self.plan.codes), batch.snapshot().rows
                self.resumed = resumed(
                    registry(), keys, run=self.id, mode=mode, there=there, rows=rows
                )
        self._looked_back.set()

    def tell(self, *, depth: int) -> None:
        """Warn of what caches and limits had to say, once.

        Parameters
        ----------
        depth : int
            Frames between `warnings.warn` and the user's line.
        """
        notices, self._notices = self._notices, []
        for notice in notices:
            warnings.warn(notice, CacheWarning, stacklevel=depth)
        for notice in self.engine.take_notices():
            warnings.warn(notice, LimitsWarning, stacklevel=depth)

    def deliver(self, *, depth: int) -> Any:
        """Return the column, or say about failed rows what `errors` asks for.

        Raises
        ------
        RowErrors
            With ``errors="raise"``, if a row failed.
        """
        report = self.report
        failed = report.summary.snapshot.failed
        if failed and self.errors == "raise":
            # Rows that share a request share its error, which is named once.
            errors = list(dict.fromkeys(error for _, error in report.first_failures(10)))
            raise RowErrors(
                report.failure_message(), errors, report=report, result=report.result
            ) from errors[0]
        if failed and self.errors == "coerce":
            warnings.warn(report.failure_message(), RowErrorsWarning, stacklevel=depth)
        return report.result

    def again(self, outcomes: Sequence[Outcome | None]) -> RowRun:
        """Return a run of the same plan for what is missing from these outcomes."""
        run = type(self)(
            self.plan,
            self.engine,
            caching=self.caching,
            model=self.model,
            errors=self.errors,
            progress=self.progress,
            budget=self.budget,
            max_parallel=self.max_parallel,
            name=self.name,
            form=self.form,
            earlier=outcomes,
        )
        run.batch.rounds.update(self.batch.rounds)
        if outcomes and isinstance(run.batch, GroupedBatch):
            run.batch.follow(self.batch)
        for number in _unfit(outcomes):
            run.batch.rounds.forget(self.batch.keys[number])
        return run
