"""``cache``: what is stored is counted, removed, moved."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lbgpt_pandas.answers import cache
from lbgpt_pandas.command_line.options import add_cache_directory
from lbgpt_pandas.command_line.outputs import check_target
from lbgpt_pandas.command_line.progress import plain_warnings
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.notebook.arguments import Misuse, age
from lbgpt_pandas.settings import using

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from lbgpt_pandas.notebook.arguments import Commands, Parser


def add_stored(commands: Commands) -> None:
    """Add ``cache`` and its commands."""
    parts = commands.add("cache", info, "stored answers: look, remove, move").add_commands("part")

    def add(name: str, run: Callable[[argparse.Namespace], str], text: str) -> Parser:
        parser = parts.add(name, lambda options: _printed(run, options), text)
        add_cache_directory(parser)
        return parser

    add("info", info, "what is stored, where, by which model")
    parser = add("clear", clear, "remove answers for good; needs --yes")
    parser.add_argument("--model", help="only those of this model")
    parser.add_argument(
        "--older", metavar="T", type=age, help='only those older than 7d, "2 hours", a date'
    )
    parser.add_argument("--run", dest="of_run", metavar="ID", help="only those of this run")
    parser.add_argument("--yes", action="store_true", help="really do it")
    parser = add("export", export, "write all answers into an archive")
    parser.add_argument("file", metavar="FILE", help="such as answers.lbgpt.zip")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser = add("load", load, "store the answers of an archive that are not there yet")
    parser.add_argument("file", metavar="FILE", help="of export, or of a run's report")


def info(_options: argparse.Namespace) -> str:
    """Count what is stored."""
    return str(cache.info())


def clear(options: argparse.Namespace) -> str:
    """Remove answers, if that is really meant."""
    if not options.yes:
        conditions = {"--model": options.model, "--older": options.older, "--run": options.of_run}
        given = [f"{name} {value}" for name, value in conditions.items() if value is not None]
        which = ", ".join(given) or f"all {cache.info().entries:,}"
        raise Misuse(f"this would remove answers for good ({which}); add --yes to do it")
    removed = cache.clear(options.model, before=options.older, run=options.of_run)
    return f"{removed:,} answers removed"


def export(options: argparse.Namespace) -> str:
    """Write an archive of all answers."""
    check_target(Path(options.file), replaces=options.force)
    return f"{cache.export(options.file):,} answers in {options.file}"


def load(options: argparse.Namespace) -> str:
    """Store the answers of an archive."""
    if not Path(options.file).is_file():
        raise ConfigurationError(f"there is no file {options.file!r}")
    merged = cache.load(options.file)
    return f"{merged.added:,} answers added, {merged.present:,} were there already"


def _printed(run: Callable[[argparse.Namespace], str], options: argparse.Namespace) -> int:
    directory = options.cache_dir
    if directory is not None and run is not load and not Path(directory).expanduser().is_dir():
        raise ConfigurationError(f"there is no folder {directory!r}")  # looking would make one
    given = {} if directory is None else {"cache": directory}
    with using(**given), plain_warnings():
        sys.stdout.write(f"{run(options)}\n")
    return 0
