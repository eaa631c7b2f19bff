"""The command line: ``python -m lbgpt_pandas`` with demo, complete, plan and cache."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING

import lbgpt_pandas as lb
from lbgpt_pandas.command_line.keys import refuse_keys
from lbgpt_pandas.command_line.options import whole_number
from lbgpt_pandas.command_line.progress import say
from lbgpt_pandas.command_line.questions import INTERRUPTED, add_questions
from lbgpt_pandas.command_line.stored import add_stored
from lbgpt_pandas.datasets import load_openings
from lbgpt_pandas.notebook.arguments import Help, Misuse, Parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    import pandas as pd

TEMPLATE = "{opening}"
# The best of forty wordings: right on 23 of 32 openings that were labelled by hand (chance: 16),
# 19 of which helped to choose it; on the other 13 it was right 8 times.
SYSTEM = "Classify the sentiment of the text as positive or negative."
GRAMMAR = 'root ::= "positive" | "negative"'
"""The model may answer nothing else; llama.cpp's own notation."""

SHOWN_ROWS = 12
FAILED, MISUSED = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.

    Returns
    -------
    int
        0; 1 if rows failed; 2 if the command cannot run as given; 130 after Ctrl-C.
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        refuse_keys(given)
        options = _parser().parse(given)
        status: int = options.run(options)
    except Help as text:
        print(text, end="")
        return 0
    except (Misuse, lb.ConfigurationError, lb.TemplateError) as error:
        say(str(error))
        return MISUSED
    except BrokenPipeError:
        # The reader, such as head, has gone; Python would complain once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (lb.LbgptError, OSError) as error:
        say(f"{type(error).__name__}: {error}")
        return FAILED
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    return status


def demo(options: argparse.Namespace) -> int:
    """Ask the embedded model about every row of a table, twice."""
    table = load_openings().head(options.rows)
    with ExitStack() as stack:
        if options.fresh:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            stack.enter_context(lb.using(cache=directory))
        print(f"{len(table)} opening sentences, one question each:\n\n  {SYSTEM}\n")
        print(
            "First run. A model of 135 million parameters answers on this processor; it is often "
            "wrong, a larger one takes the same line.\n"
        )
        table["sentiment"] = _ask(table)
        first = lb.last_run()
        print(_excerpt(table), first, sep="\n\n")
        print("\nSecond run: the same line again.")
        again = _ask(table)
        second = lb.last_run()
        print(second)
    if first is None or second is None or first.summary.snapshot.failed:
        return FAILED
    is_same = again.equals(table["sentiment"])
    print(
        f"\n{second.summary.snapshot.cached} of {len(table)} rows came from the cache, "
        f"{second.summary.calls} calls were made, the column is "
        f"{'the same' if is_same else 'DIFFERENT'}."
    )
    return 0 if is_same and not second.summary.calls else FAILED


def _ask(table: pd.DataFrame) -> pd.Series:
    return table.lbgpt.complete(  # type: ignore[no-any-return]  # accessors have no types
        TEMPLATE, system=SYSTEM, model="local", temperature=0, max_tokens=8, grammar=GRAMMAR
    )


def _excerpt(table: pd.DataFrame) -> str:
    short = table[["title", "opening", "sentiment"]].head(SHOWN_ROWS).copy()
    short["title"] = short["title"].str.slice(0, 32)
    short["opening"] = short["opening"].str.slice(0, 56) + " ..."
    left_out = len(table) - len(short)
    return short.to_string(index=False) + (f"\n... and {left_out} more" if left_out > 0 else "")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lbgpt_pandas", description="Run a language model over every row of a table."
    )
    commands = parser.add_commands("command")
    show = commands.add(
        "demo", demo, "ask the embedded language model about a table that ships with the package"
    )
    show.add_argument("--rows", type=whole_number, help="only the first ROWS rows")
    show.add_argument("--fresh", action="store_true", help="do not use answers of an earlier demo")
    add_questions(commands)
    add_stored(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
