"""``complete`` and ``plan``: a model is asked about every row of a file."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from lbgpt_pandas.accessor import LbgptAccessor
from lbgpt_pandas.command_line.options import add_question, add_result, question_of
from lbgpt_pandas.command_line.outputs import Output
from lbgpt_pandas.command_line.progress import drawn_as, plain_warnings, say
from lbgpt_pandas.command_line.tables import (
    Table,
    cells_of,
    check_writable,
    read_table,
    write_table,
)
from lbgpt_pandas.engine.errors import ConfigurationError, LbgptError, RowErrors, TemplateError
from lbgpt_pandas.engine.report import money
from lbgpt_pandas.frames import text_array
from lbgpt_pandas.runs import last_run
from lbgpt_pandas.settings import settings, using

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from lbgpt_pandas.notebook.arguments import Commands
    from lbgpt_pandas.reports import RunReport
    from lbgpt_pandas.settings import ErrorMode

DONE, FAILED, INTERRUPTED = 0, 1, 130
LISTED_ROWS = 10
ERROR_SUFFIX = "_error"


def add_questions(commands: Commands) -> None:
    """Add ``complete`` and ``plan``."""
    parser = commands.add("complete", complete, "ask a model about every row of a file")
    add_question(parser)
    add_result(parser, required=True)
    parser = commands.add("plan", plan, "say what complete would do and cost, and call nobody")
    add_question(parser)
    add_result(parser, required=False)


def plan(options: argparse.Namespace) -> int:
    """Print what `complete` with the same arguments would do."""
    question = question_of(options)
    table = read_table(options.input, limit=options.limit)
    with _settings(options), plain_warnings():
        sys.stdout.write(f"{LbgptAccessor(table.frame).plan(**question)}\n")
    return DONE


def complete(options: argparse.Namespace) -> int:
    """Ask, and write the table with its answers."""
    question = question_of(options)
    output = Output.of(options.out, source=options.input, replaces=options.force)
    table = read_table(options.input, limit=options.limit)
    _check_columns(table.frame, options.column, replaces=options.force)
    check_writable(table, output.form)
    # The list of failed rows takes the place of a warning that there are some.
    errors: ErrorMode = "raise" if options.errors == "raise" else "ignore"
    with _settings(options), plain_warnings():
        try:
            with drawn_as(options.progress, quiet=options.quiet):
                answers = LbgptAccessor(table.frame).complete(
                    **question, errors=errors, progress=True, name=options.column
                )
        except (ConfigurationError, TemplateError):
            raise  # before anything was asked
        except (LbgptError, KeyboardInterrupt) as error:
            return _unfinished(error)
        return _deliver(options, table, answers, output)


def _deliver(
    options: argparse.Namespace, table: Table, answers: pd.Series[Any], output: Output
) -> int:
    report: Any = last_run()
    failures = report.first_failures(len(answers))
    finished = _answered(table, answers, failures)
    try:
        with output.opened() as file:
            write_table(finished, output.form, file)
    except BrokenPipeError:
        raise
    except OSError as error:
        say(f"{options.out!r} could not be written: {error}. {_way_on(report)}")
        return FAILED
    if not options.quiet:
        say(f"{options.out}: {_figures(report)}")
    if failures and options.errors != "ignore":
        _list(report)
    return FAILED if failures else DONE


def _unfinished(error: BaseException) -> int:
    """Say why there is no output and how to get one; return the exit code."""
    report = last_run()
    if isinstance(error, RowErrors) and report is not None:
        _list(report)
    is_interrupt = isinstance(error, KeyboardInterrupt)
    what = "interrupted" if is_interrupt else f"{type(error).__name__}: {error}"
    say(f"{what}. Nothing was written. {_way_on(report)}")
    return INTERRUPTED if is_interrupt else FAILED


def _way_on(report: RunReport | None) -> str:
    if report is None:
        return ""
    shot, current = report.summary.snapshot, settings()
    if not shot.done:
        return f"None of {shot.rows:,} rows has an answer"
    has = f"{shot.done:,} of {shot.rows:,} rows have an answer"
    if current.cache is None or current.cache_mode not in {"use", "refresh"}:
        return f"{has}; cache_mode={current.cache_mode!r} keeps none of them"
    again = " with --cache-mode use" if current.cache_mode == "refresh" else ""
    return f"{has}, which are stored; the same command{again} goes on with the others"


@contextmanager
def _settings(options: argparse.Namespace) -> Iterator[None]:
    given: dict[str, Any] = {"cache": options.cache_dir, "cache_mode": options.cache_mode}
    with using(**{name: value for name, value in given.items() if value is not None}):
        yield


def _check_columns(frame: pd.DataFrame, column: str, *, replaces: bool) -> None:
    for name in (column, column + ERROR_SUFFIX):
        if name in frame.columns and not replaces:
            raise ConfigurationError(
                f"the table has a column {name!r} already; --column gives the answers another "
                "name, --force replaces it"
            )


def _answered(
    table: Table, answers: pd.Series[Any], failures: Sequence[tuple[int, LbgptError]]
) -> Table:
    """Add the column of answers and, if rows failed, one that says why."""
    column = str(answers.name)
    texts = [_encodable(text) for text in cells_of(answers)]
    frame = table.frame.drop(columns=column + ERROR_SUFFIX, errors="ignore")
    frame = frame.assign(**{column: _texts(texts)})
    if failures:
        reasons: list[str | None] = [None] * len(frame)
        for row, error in failures:
            reasons[row] = _encodable(_reason(error))
        frame[column + ERROR_SUFFIX] = _texts(reasons)
    return table.with_frame(frame)


def _texts(texts: list[str | None]) -> Any:
    return text_array(np.fromiter(texts, dtype=object, count=len(texts)))


def _encodable(text: str | None) -> str | None:
    """Write halves of characters as their numbers; no file takes them as they are."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()


def _list(report: RunReport) -> None:
    for row, error in report.first_failures(LISTED_ROWS):
        say(f"row {row} failed: {_reason(error)}")
    more = report.summary.snapshot.failed - LISTED_ROWS
    say(f"{f'and {more:,} rows more; ' if more > 0 else ''}rows are counted from 0")


def _reason(error: LbgptError) -> str:
    return f"{type(error).__name__}: {error}"


def _figures(report: RunReport) -> str:
    shot = report.summary.snapshot
    parts = [
        f"{shot.rows:,} rows",
        f"{shot.asked + shot.shared:,} asked",
        f"{shot.cached:,} from the cache",
        f"{shot.failed:,} failed",
        f"{shot.skipped:,} skipped (NA)",
        f"{money(shot.cost_usd)} billed",
        f"{shot.elapsed_s:.1f} s",
    ]
    return ", ".join(parts)
