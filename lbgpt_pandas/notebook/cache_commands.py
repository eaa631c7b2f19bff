"""``%lbgpt cache``: what ``lb.cache`` does, as commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from lbgpt_pandas.answers import cache
from lbgpt_pandas.engine.caches.entries import is_key
from lbgpt_pandas.notebook.arguments import Misuse, age
from lbgpt_pandas.notebook.names import look_up

if TYPE_CHECKING:
    import argparse

    from lbgpt_pandas.notebook.arguments import Commands, Parser
    from lbgpt_pandas.notebook.names import Scope


def add_cache_commands(commands: Commands) -> None:
    """Add ``cache`` and its commands."""
    parser = commands.add("cache", _info, "stored answers: look, remove, move")
    parts = parser.add_commands("part", required=False)
    parts.add("info", _info, "what is stored, where, and how often it was used")
    parts.add("stats", _stats, "stored answers by model, as a frame")
    parts.add("path", _path, "where the exact answers lie")
    _add_clear(parts.add("clear", _clear, "remove answers for good; needs --yes"))
    forget = parts.add("forget", _forget, "remove the answers of certain rows")
    forget.add_argument(
        "what", nargs="+", metavar="WHAT",
        help="keys (column key of lb.last_run().rows), or the name of a mask or of such lines",
    )  # fmt: skip
    export = parts.add("export", _export, "write all answers into an archive")
    export.add_argument("file", metavar="FILE", help="such as answers.lbgpt.zip")
    load = parts.add("load", _load, "store the answers of an archive")
    load.add_argument("file", metavar="FILE", help="of export, or of a run's report")
    parts.add("near", _near, "the near hits of this process: questions that were taken as alike")


def _add_clear(parser: Parser) -> None:
    parser.add_argument("--model", help="only those of this model", words=_stored_models)
    parser.add_argument(
        "--older", metavar="T", type=age, help='only those older than 7d, "2 hours", a date'
    )
    parser.add_argument("--run", dest="of_run", metavar="RUN", help="only those of this run")
    parser.add_argument("--yes", action="store_true", help="really do it")


def _info(_options: argparse.Namespace, _scope: Scope) -> object:
    return cache.info()


def _stats(_options: argparse.Namespace, _scope: Scope) -> object:
    return cache.info().by_model


def _path(_options: argparse.Namespace, _scope: Scope) -> object:
    place = cache.info().location
    if place is None:
        raise Misuse("there is no exact cache here; %lbgpt config cache=DIRECTORY sets one")
    return place


def _clear(options: argparse.Namespace, _scope: Scope) -> object:
    if not options.yes:
        conditions = {
            "of model": options.model,
            "older than": options.older,
            "of run": options.of_run,
        }
        given = [f"{name} {value}" for name, value in conditions.items() if value is not None]
        which = ", ".join(given) or f"all {cache.info().entries:,}"
        raise Misuse(f"this would remove answers for good ({which}); add --yes to do it")
    return cache.clear(options.model, before=options.older, run=options.of_run)


def _forget(options: argparse.Namespace, scope: Scope) -> object:
    if all(is_key(word) for word in options.what):
        return cache.forget(options.what)
    if len(options.what) > 1:
        raise Misuse("give keys, or one name of a mask or frame")
    chosen: Any = look_up(options.what[0], scope.names)
    if isinstance(chosen, str) or not isinstance(chosen, pd.DataFrame | pd.Series | list):
        try:
            iter(chosen)
        except TypeError:
            raise Misuse(
                f"{options.what[0]} is a {type(chosen).__name__}; give a mask over the rows of the "
                "last run, lines of its report, or keys"
            ) from None
    return cache.forget(chosen)


def _export(options: argparse.Namespace, _scope: Scope) -> object:
    return cache.export(options.file)


def _load(options: argparse.Namespace, _scope: Scope) -> object:
    return cache.load(options.file)


def _near(_options: argparse.Namespace, _scope: Scope) -> object:
    return cache.semantic_report()


def _stored_models(_scope: Scope) -> list[str]:
    return list(cache.info().models)
