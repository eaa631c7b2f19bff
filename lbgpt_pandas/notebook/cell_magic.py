"""``%%lbgpt``: a prompt in a cell, asked once or about every row of a frame."""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from lbgpt_pandas.frames import to_requests
from lbgpt_pandas.keywords import check_sendable
from lbgpt_pandas.notebook.answer_forms import FORMS, value_of
from lbgpt_pandas.notebook.answer_stream import Answer, Question, Screen, ask
from lbgpt_pandas.notebook.arguments import Misuse, Parser, split_words
from lbgpt_pandas.notebook.dry_run import DryRun
from lbgpt_pandas.notebook.names import Scope, check_target, frame_of
from lbgpt_pandas.notebook.prompt_fields import RULES, compose
from lbgpt_pandas.resolution import caching_of, resolve_engine
from lbgpt_pandas.rows import Table
from lbgpt_pandas.settings import settings

if TYPE_CHECKING:
    from lbgpt_pandas.frames import RowPlan
    from lbgpt_pandas.notebook.answer_forms import Form

LAST = "_lbgpt"
"""Variable of the last answer that was given no other."""

HOTTEST = 2.0

_ASSIGNMENT = re.compile(r"\s*(\S+)\s*<<(?:\s+|$)")

DESCRIPTION = """Ask a model what the cell says, and show the answer while it comes.

With --df, ask about every row: the result is a Series under the frame's index, or with --col a
new column of the frame. Answers are kept in the cache that df.lbgpt.complete uses.
NAME << in front of the options puts the result into a variable; nothing is shown then.
Without a name it is in _lbgpt. Keys do not belong into a cell: they are refused."""

EXAMPLE = """example:
  %%lbgpt --df reviews --col mood -m gpt-4o-mini -t 0
  Is this review positive or negative? One word.
  {text}"""


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A prompt and what goes with it, ready for the accessor."""

    template: str
    system: str | None
    model: str | None
    params: dict[str, Any]
    mode: Any


def cell_parser() -> Parser:
    """Return the parser of the options behind ``%%lbgpt``."""
    parser = Parser(
        prog="%%lbgpt",
        usage="%%%%lbgpt [NAME <<] [options]\n       prompt ...",
        description=DESCRIPTION,
        epilog=f"{RULES}\n\n{EXAMPLE}",
    )
    add = parser.add_argument
    add("-m", "--model", help="name of the model; by default the configured one", words=_models)
    add("-s", "--system", metavar="TEXT", help="system message, with the same braces")
    add("-t", "--temperature", type=_temperature, metavar="TEMP", help="from 0 to 2")
    add("--max-tokens", type=_positive, metavar="N", help="longest answer")
    add("--df", metavar="FRAME", help="ask about each row of this DataFrame or Series", words=_df)
    add("--col", metavar="NEWCOL", help="with --df: write the answers into this column")
    add("-o", "--out", metavar="NAME", help="the same as NAME <<")
    add(
        "-f", "--format", choices=FORMS, default=None, metavar="FORM",
        help="of a single answer: text, markdown (as if nothing is given), json (the variable "
        "gets the data), code (the variable gets the first code block)",
    )  # fmt: skip
    add("-n", "--no-cache", action="store_true", help="neither look the answer up nor keep it")
    add("--no-stream", action="store_true", help="ask for the answer in one piece")
    add("-q", "--quiet", action="store_true", help="show nothing")
    add("--dry-run", action="store_true", help="show prompts and an estimate; call nobody")
    add("--raw", action="store_true", help="braces in the prompt mean nothing")
    return parser


def run_cell(line: str, cell: str, scope: Scope) -> object:
    """Run a ``%%lbgpt`` cell.

    Parameters
    ----------
    line : str
        What follows ``%%lbgpt``.
    cell : str
        The lines below.
    scope : Scope
        The user's names.

    Returns
    -------
    object
        What the notebook is to show; None if it has been shown.

    Raises
    ------
    Misuse
        If it cannot run as it is written.
    LbgptError
        If it fails.
    """
    options = _parsed(line)
    if not cell.strip():
        raise Misuse("the cell holds no prompt; write it below the line with %%lbgpt")
    body = cell.strip("\n").rstrip()
    if options.df is None:
        return _ask_once(options, body, scope)
    return _ask_rows(options, body, scope)


def _parsed(line: str) -> argparse.Namespace:
    assignment = _ASSIGNMENT.match(line)
    options = cell_parser().parse(split_words(line[assignment.end() :] if assignment else line))
    if assignment is not None:
        if options.out is not None:
            raise Misuse("give the result one name, by NAME << or by -o NAME")
        options.out = assignment[1]
    if options.out is not None:
        check_target(options.out)
    if options.col is not None and options.df is None:
        raise Misuse("--col needs --df: the frame whose rows are asked about")
    if options.df is not None and options.format not in (None, "text"):
        raise Misuse("-f is for a single answer; a column has texts")
    return options


def _prompt(options: argparse.Namespace, body: str, scope: Scope, fields: Any) -> _Prompt:
    def composed(text: str) -> str:
        return compose(text, names=scope.names, fields=fields, raw=options.raw)

    params = {"temperature": options.temperature, "max_tokens": options.max_tokens}
    return _Prompt(
        template=composed(body),
        system=None if options.system is None else composed(options.system),
        model=options.model,
        params={name: value for name, value in params.items() if value is not None},
        mode="off" if options.no_cache else settings().cache_mode,
    )


def _plan(prompt: _Prompt, data: pd.DataFrame | pd.Series[Any], model: str) -> RowPlan:
    return to_requests(
        data,
        template=prompt.template,
        system=prompt.system,
        params=check_sendable({"model": model, **prompt.params}),
        options={},
    )


def _ask_once(options: argparse.Namespace, body: str, scope: Scope) -> object:
    prompt = _prompt(options, body, scope, None)
    keyless = options.dry_run or prompt.mode == "replay" or settings().replay is not None
    engine, model = resolve_engine(prompt.model, keyless=keyless)
    plan = _plan(prompt, pd.Series([""]), model)
    if options.dry_run:
        return DryRun.of(plan, model=model, engine=engine)
    caching = caching_of(engine, prompt.mode)
    question = Question(plan.requests[0], engine, caching, settings().budget)
    form: Form = options.format or "markdown"
    is_shown = options.out is None and not options.quiet
    answer = Answer()
    try:
        ask(
            question,
            answer,
            streams=is_shown and not options.no_stream,
            screen=Screen(form) if is_shown else None,
        )
    finally:
        scope.home[LAST] = answer.text
    value = value_of(answer.text, form)
    scope.home[options.out or LAST] = value
    return None


def _ask_rows(options: argparse.Namespace, body: str, scope: Scope) -> object:
    frame = frame_of(options.df, scope.names)
    prompt = _prompt(options, body, scope, Table(frame).fields)
    column = options.col
    if column is not None:
        _check_column(column, frame, prompt)
        if frame_of(options.df, scope.names) is not frame:
            raise Misuse(
                f"--col: {options.df} is made anew each time, so its new column would be lost; "
                "give it a name first"
            )
    if options.dry_run:
        engine, model = resolve_engine(prompt.model, keyless=True)
        return DryRun.of(_plan(prompt, frame, model), model=model, engine=engine)
    answers = frame.lbgpt.complete(
        prompt.template,
        system=prompt.system,
        model=prompt.model,
        cache_mode=prompt.mode,
        progress="none" if options.quiet else None,
        name=column or options.out,
        **prompt.params,
    )
    if column is not None:
        frame[column] = answers
    if options.out is not None:
        scope.home[options.out] = answers
    if column is not None or options.out is not None:
        return None
    scope.home[LAST] = answers
    return None if options.quiet else answers


def _check_column(column: str, frame: pd.DataFrame | pd.Series[Any], prompt: _Prompt) -> None:
    if isinstance(frame, pd.Series):
        raise Misuse("--col: a Series has no columns; NAME << puts the answers into a variable")
    if frame.columns.nlevels > 1:
        raise Misuse("--col: the frame's columns have several levels; use NAME << and assign it")
    asked = f"{prompt.template} {prompt.system or ''}"
    if re.search(r"(?<!\{)\{" + re.escape(column) + r"(?::[^{}]*)?\}", asked):
        raise Misuse(
            f"--col {column}: the prompt reads this column, and the answers would replace it; "
            "give another name"
        )


def _temperature(text: str) -> float:
    number = float(text)
    if not (math.isfinite(number) and 0 <= number <= HOTTEST):
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {HOTTEST:g}")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return number


def _df(scope: Scope) -> list[str]:
    return [
        name
        for name, value in scope.names.items()
        if isinstance(value, pd.DataFrame | pd.Series) and not name.startswith("_")
    ]


def _models(_scope: Scope) -> list[str]:
    from lbgpt_pandas.notebook.known_models import model_names  # noqa: PLC0415  # for Tab only

    return model_names()
