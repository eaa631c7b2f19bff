"""What may be written behind ``complete`` and ``plan``."""

from __future__ import annotations

import json
import re
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lbgpt_pandas.command_line.progress import CHOICES
from lbgpt_pandas.engine.caching import SUPPORTED_MODES
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.keywords import OWN_KEYWORDS, split_params
from lbgpt_pandas.notebook.arguments import Misuse
from lbgpt_pandas.settings import ErrorMode

if TYPE_CHECKING:
    import argparse

    from lbgpt_pandas.notebook.arguments import Parser

PASSED_KEYWORDS = {"tools", "response_format"}
"""Keywords of ours that go to the provider, and may be given as parameters."""

PLAIN_WORD = re.compile(r"[A-Za-z][\w.-]*")
OF_PYTHON = {"True": "true", "False": "false", "None": "null"}


def add_question(parser: Parser) -> None:
    """Add what says which rows are asked what, and of whom."""
    add = parser.add_argument
    add("input", metavar="INPUT", help="a .csv, .tsv, .jsonl (also .gz) or .parquet file")
    add("--template", metavar="TEXT", help="the prompt, with {column} fields")
    add("--template-file", metavar="FILE", help="the prompt from a file (UTF-8)")
    add("--system", metavar="TEXT", help="system message, with fields as well")
    add("--model", required=True, help="model name; 'local' for the embedded one")
    add("--column", default="answer", help="name of the answers' column (default: answer)")
    add("--limit", type=whole_number, metavar="N", help="only the first N rows")
    add(
        "--param", action="append", default=[], type=parameter, metavar="NAME=VALUE",
        help="sent to the provider, the value as JSON: temperature=0, stop='[\"END\"]'",
    )  # fmt: skip
    add(
        "--errors", choices=get_args(ErrorMode),
        help="failed rows are left empty and listed (coerce, the default) or not listed (ignore), "
        "or end the run (raise)",
    )  # fmt: skip
    add(
        "--na", default="skip", metavar="WAY",
        help="rows with an empty cell: skip (default), raise, empty, or a text to put in",
    )  # fmt: skip
    add("--max-parallel", type=whole_number, metavar="N", help="requests worked on at once")
    add("--budget-usd", type=float, metavar="USD", help="what the calls may cost at list price")
    add_cache_directory(parser)
    add("--cache-mode", choices=SUPPORTED_MODES, help="what is done with stored answers")


def add_result(parser: Parser, *, required: bool) -> None:
    """Add what says where the answers go and how progress is shown."""
    add = parser.add_argument
    add(
        "--out", required=required, metavar="OUTPUT",
        help="where all columns and the answers go, in the format of its name; - is stdout",
    )  # fmt: skip
    add("--force", action="store_true", help="replace a file or column that is there")
    add(
        "--progress", choices=CHOICES, default="auto",
        help="on stderr; auto is a bar in a terminal and a line every few seconds elsewhere",
    )  # fmt: skip
    add("--quiet", action="store_true", help="say nothing but what went wrong")


def add_cache_directory(parser: Parser) -> None:
    """Add the option for another cache than the default one."""
    parser.add_argument("--cache-dir", metavar="DIR", help="cache; by default this user's own")


def whole_number(text: str) -> int:
    """Read a whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"{text!r}: give a whole number of at least 1")
    return number


def parameter(text: str) -> tuple[str, object]:
    """Take ``name=value`` apart; the value is JSON, or a plain word.

    Examples
    --------
    >>> parameter("temperature=0.5"), parameter("reasoning_effort=low")
    (('temperature', 0.5), ('reasoning_effort', 'low'))
    """
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ArgumentTypeError(f"{text!r}: write name=value, such as temperature=0")
    if name in OWN_KEYWORDS and name not in PASSED_KEYWORDS:
        raise ArgumentTypeError(f"{name!r} is no parameter of a provider; see --help")
    if value in OF_PYTHON:
        raise ArgumentTypeError(f"{text!r}: JSON writes {OF_PYTHON[value]}")
    try:
        return name, json.loads(value)
    except ValueError:
        if PLAIN_WORD.fullmatch(value):
            return name, value
        raise ArgumentTypeError(
            f"{text!r}: the value is no JSON; a text needs quotes, --param 'stop=\"two words\"'"
        ) from None


def question_of(options: argparse.Namespace) -> dict[str, Any]:
    """Turn options into the keywords of ``df.lbgpt.complete``.

    Raises
    ------
    Misuse
        If they do not fit together, or a parameter is misspelt.
    ConfigurationError
        If a parameter cannot be sent, or the template's file not be read.
    """
    params = dict(options.param)
    try:
        split_params(params)
    except TypeError as error:
        raise Misuse(f"--param: {error}") from None
    return {
        "template": _template(options),
        "system": options.system,
        "model": options.model,
        "na": options.na,
        "cache_mode": options.cache_mode,
        "budget": options.budget_usd,
        "max_parallel": options.max_parallel,
        **params,
    }


def _template(options: argparse.Namespace) -> str:
    given: str | None = options.template
    if (given is None) == (options.template_file is None):
        raise Misuse("give --template or --template-file, one of the two")
    if given is not None:
        return given
    try:
        text = Path(options.template_file).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"--template-file {options.template_file!r} cannot be read: {error}"
        ) from None
    # Editors end a file with a newline that is no part of the prompt.
    return text.removesuffix("\n")
