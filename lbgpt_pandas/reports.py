"""The report that stays when a run is over."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from lbgpt_pandas.cells import short
from lbgpt_pandas.differences import difference, side_of_archive, side_of_run
from lbgpt_pandas.drawing.run import run_html
from lbgpt_pandas.engine.archive import write_archive
from lbgpt_pandas.engine.portal import run_sync
from lbgpt_pandas.engine.report import RunSummary, billed_usd, count_errors, saved_usd
from lbgpt_pandas.engine.types import Source
from lbgpt_pandas.frames import to_series
from lbgpt_pandas.manifest import (
    Ended,
    entries_of,
    manifest_of,
    recorded_answers,
    row_details,
)
from lbgpt_pandas.report_lines import COLUMNS, line, line_without_request
from lbgpt_pandas.run_file import Keys
from lbgpt_pandas.tool_calls import tool_calls_frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from os import PathLike

    from lbgpt_pandas.differences import Side
    from lbgpt_pandas.engine.budget import Budget
    from lbgpt_pandas.engine.caching import Caching
    from lbgpt_pandas.engine.errors import LbgptError
    from lbgpt_pandas.engine.grouped_rows import Batching
    from lbgpt_pandas.engine.states import RunHeading
    from lbgpt_pandas.engine.types import Outcome
    from lbgpt_pandas.forms import Form

TOKEN_COLUMNS = ["prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens"]


class Reported(Ended, Protocol):
    """A run as its report sees it."""

    @property
    def heading(self) -> RunHeading:
        """What the run is."""
        ...

    @property
    def form(self) -> Form | None:
        """What replies become; None for texts."""
        ...

    def again(self, outcomes: Sequence[Outcome | None]) -> Reported:
        """Return a run for what is missing from these outcomes."""
        ...

    def run(self) -> Any:
        """Run it, and return the whole column."""
        ...


class RunReport:
    """What a run did: the result, a line for each row, tokens, cost, errors.

    Attributes
    ----------
    summary : RunSummary
        The figures.
    """

    def __init__(self, run: Reported) -> None:
        self._run, self._id = run, run.id
        self._outcomes = list(run.batch.outcomes)
        self._calls = [*self._outcomes, *getattr(run.batch, "unkept", ())]
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
            calls=sum(outcome.attempts for outcome in self._calls if outcome),
            saved_usd=saved_usd(self._outcomes, rows_of),
            errors=counts,
            example=example,
            resumed=str(run.resumed or ""),
            batching=str(self.batching or ""),
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
        summary = self.summary
        return run_html(self._run.heading, summary.snapshot, notes=summary.notes())

    @property
    def id(self) -> str:
        """Name of the run in `lb.runs`; names sort by time."""
        return self._id

    @property
    def resumed_from(self) -> str | None:
        """Id of the run of the same requests that this one went on with, as it did not finish."""
        return self._run.resumed.id if self._run.resumed else None

    @property
    def cost_usd(self) -> float | None:
        """List price of the calls of this run in USD; None if a price is unknown."""
        return billed_usd(self._calls)

    @property
    def list_price_usd(self) -> float | None:
        """List price of all answers in USD, asked or cached, each different request once.

        None if a price is unknown.
        """
        prices = [each.price_usd for each in self._outcomes if each and each.completion]
        known = [price for price in prices if price is not None]
        return sum(known) if len(known) == len(prices) else None

    @property
    def saved_usd(self) -> float | None:
        """List price of what cache and equal rows saved in USD; None if a price is unknown."""
        return self.summary.saved_usd

    @property
    def budget(self) -> Budget | None:
        """What the run was allowed to spend, to be looked at and raised; None: no bound."""
        return self._run.budget

    @property
    def batching(self) -> Batching | None:
        """What came of ``rows_per_request``: requests, rows asked alone, whether it was off."""
        return getattr(self._run.batch, "batching", None)

    @property
    def wall_s(self) -> float:
        """Seconds from the first lookup to the last answer."""
        return self.summary.snapshot.elapsed_s

    @cached_property
    def result(self) -> Any:
        """The column, or the frame of `extract`, as the call returned it; NA without an answer."""
        run = self._run
        if run.form is not None:
            return run.form.result(run.plan, self._outcomes, name=run.name)
        texts = [
            outcome.completion.text if outcome and outcome.completion else None
            for outcome in self._outcomes
        ]
        return to_series(run.plan, texts, name=run.name)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """A frame with a line for each row of the input, under the same index.

        Columns: ``status`` (ok, failed, skipped, not_run), ``source`` (provider, exact_cache,
        semantic_cache, shared, skipped), ``error_type``, ``error_code``, ``message``,
        ``attempts``, ``deployment``, ``latency_s``, ``prompt_tokens``, ``completion_tokens``,
        ``cost_usd`` (billed by this run; NA if the price is unknown), ``finish_reason``,
        ``similarity``, ``key``, ``request_id``, ``maybe_billed``, ``confidence`` (from 0 to 1, how
        probable the model held its label; NA unless ``confidence=True`` asked for it).

        Tokens of a cached row are those of the call that once answered it. A request that
        several rows share is charged to the first of them; the others say ``shared``. What calls
        cost of which no row kept anything (``rows_per_request``) is in `cost_usd` only.
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
                # Texts of one call share it; its attempts stand in the first of them.
                outcome.attempts > 0,
            )
            for outcome in self._calls
            if outcome and outcome.completion and outcome.source is Source.PROVIDER
        ]
        columns = ["deployment", "model", *TOKEN_COLUMNS, "cost_usd", "calls"]
        frame = pd.DataFrame(calls, columns=columns).astype({"cost_usd": "Float64"})
        groups = frame.groupby(["deployment", "model"])
        sums = groups[TOKEN_COLUMNS].sum().astype("int64")
        sums.insert(0, "requests", groups["calls"].sum().astype("int64"))
        # A sum that skipped unknown prices would be too low and look exact.
        sums["cost_usd"] = groups["cost_usd"].agg(lambda prices: prices.sum(skipna=False))
        return sums

    @property
    def tool_calls(self) -> pd.DataFrame:
        """A frame with a line for each tool call of each row; empty without ``tools=``.

        Columns: ``row`` (position), ``name``, ``arguments`` (dict, or the text where it is no
        JSON object) and ``id``, under the labels of the input's index.
        """
        return tool_calls_frame(self._run.plan, self._outcomes)

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
            where = f"row {position} (index {short(self._run.plan.index[position])})"
            text = str(error)
            # A cell that cannot be sent names its row itself.
            first = f" First: {text if text.startswith('row ') else f'{where}: {text}'}"
            first += "" if first.endswith(".") else "."
        is_replay = self._run.caching.recording is not None
        again = (
            "replay repeats what was recorded and asks nobody"
            if is_replay
            else "lb.last_run().retry_failed() asks them again"
        )
        return (
            f"{shot.failed:,} of {shot.rows:,} rows failed ({kinds}).{first} "
            f"See lb.last_run().errors; {again}."
        )

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What identifies this run, as JSON data without secrets.

        Versions, template and its digest, parameters, columns, keys in row order and a
        fingerprint of them, failures, counts, tokens, cost and deployments.
        """
        about = manifest_of(self._run, self._outcomes, self.summary)
        return about | row_details(self._run, self._outcomes)

    def export(self, path: str | PathLike[str]) -> Path:
        """Write an archive of this run: its manifest, requests and answers.

        `lb.replay` serves a column from it without key and network, `lb.load_run` puts its
        answers into a cache. It holds prompts and answers as they are, and is for this user
        alone (mode 0600) until you pass it on. Answers to nearly the same question are not in
        it: its manifest names their rows (``near``), and replay of them is a `CacheMiss`.

        Parameters
        ----------
        path : path
            Usually ``*.lbgpt.zip``. A file there is replaced.

        Returns
        -------
        Path
            Where it lies.

        Raises
        ------
        ConfigurationError
            If the cache does not hold all answers of the run, or cannot be read.
        CacheCorrupt
            If a stored answer is damaged.
        OSError
            If the file cannot be written.
        """
        place = Path(path).expanduser()
        envelopes = run_sync(recorded_answers(self._run, self._outcomes))
        write_archive(place, self.manifest, entries_of(self._run, envelopes))
        return place

    def diff(self, other: RunReport | str | PathLike[str]) -> pd.DataFrame:
        """Compare with another run, row by row.

        Rows are paired by position if there are as many of them, else by their requests.

        Parameters
        ----------
        other : RunReport or path
            The other run, or the archive of one.

        Returns
        -------
        DataFrame
            A line for each pair that differs: ``change`` (``request``: another question,
            ``status``, ``answer``, ``only_left``, ``only_right``), ``field`` (the first in
            which the requests differ, such as ``messages[0].content``), ``left_row`` and
            ``right_row`` (positions), ``left`` and ``right`` (answers of this run and the
            other).

        Raises
        ------
        ConfigurationError
            If `other` is neither, or a newer version wrote it.
        CacheCorrupt, OSError
            If the archive cannot be used.
        """
        right = other.side() if isinstance(other, RunReport) else side_of_archive(other)
        return difference(self.side(), right)

    def for_registry(self) -> tuple[dict[str, Any], Keys]:
        """Return what `lb.runs` lists of this run, and its keys."""
        keys = Keys.of(self._run.batch.keys, self._run.plan.codes)
        return manifest_of(self._run, self._outcomes, self.summary), keys

    def caching_of(self, keys: Iterable[str]) -> Caching | None:
        """Return the caches of this run if one of these keys is its own."""
        return None if set(keys).isdisjoint(self._run.batch.keys) else self._run.caching

    def side(self) -> Side:
        """Return what `diff` compares of this run."""
        return side_of_run(self._run, self._outcomes)

    def retry_failed(self) -> Any:
        """Ask the rows again that failed or were not reached; keep the others as they are.

        Returns
        -------
        Series
            The whole column. `lb.last_run()` then reports on both runs together.
        """
        return self._run.again(self._outcomes).run()
