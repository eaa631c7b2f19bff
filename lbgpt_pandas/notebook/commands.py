"""The commands of ``%lbgpt``: state, usage, models, runs."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lbgpt_pandas.engine.report import money
from lbgpt_pandas.notebook.arguments import (
    Misuse,
    Parser,
    age,
    check_command,
    split_words,
    suggestion,
)
from lbgpt_pandas.notebook.cache_commands import add_cache_commands
from lbgpt_pandas.notebook.config_command import add_config_command
from lbgpt_pandas.notebook.known_models import known_models
from lbgpt_pandas.registry import registry, runs
from lbgpt_pandas.resolution import known_engines
from lbgpt_pandas.runs import last_run
from lbgpt_pandas.settings import settings
from lbgpt_pandas.submissions import submissions
from lbgpt_pandas.usage import headroom, usage
from lbgpt_pandas.version import __version__

if TYPE_CHECKING:
    import argparse

    from lbgpt_pandas.engine.states import DeploymentState, Gauge
    from lbgpt_pandas.notebook.arguments import Commands
    from lbgpt_pandas.notebook.names import Scope
    from lbgpt_pandas.reports import RunReport
    from lbgpt_pandas.submissions import Run

LEVELS = ("model", "deployment", "day", "minute")
LAST, ALL = "last", "all"

EPILOG = """%lbgpt COMMAND --help explains a command, %%lbgpt --help the cell. A result can be kept:
u = %lbgpt usage. Keys do not belong into a line, they are refused."""

_STATUS = {
    "state": "string",
    "wait_s": "float64",
    "requests_left": "Float64",
    "requests_limit": "Float64",
    "tokens_left": "Float64",
    "tokens_limit": "Float64",
    "in_flight": "int64",
    "places": "int64",
    "answered": "int64",
    "refused": "int64",
    "fault": "string",
    "source": "string",
}


class Printed(str):
    """A text that a notebook shows as it is, without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def line_parser() -> Parser:
    """Return the parser of what follows ``%lbgpt``."""
    parser = Parser(prog="%lbgpt", description="State and settings of lbgpt-pandas.", epilog=EPILOG)
    commands = parser.add_commands("command", required=False)
    _add_state_commands(commands)
    add_config_command(commands)
    add_cache_commands(commands)
    _add_run_commands(commands)
    return parser


def run_line(line: str, scope: Scope) -> object:
    """Run a ``%lbgpt`` line.

    Raises
    ------
    Misuse
        If it cannot run as it is written.
    Help
        If it asks for help, or says nothing: then with the state in one line.
    LbgptError
        If it fails.
    """
    parser, words = line_parser(), split_words(line)
    check_command(parser, words)
    options = parser.parse(words)
    if options.command is None:
        return Printed(f"{parser.format_help()}\n{state_line()}")
    return options.run(options, scope)


def state_line() -> str:
    """One line on who answers, what is cached, and what was spent."""
    current, engines = settings(), known_engines()
    names = ", ".join(dict.fromkeys(engine.name for engine in engines)) or "no engine yet"
    flying = sum(room.in_flight for each in engines for room in each.deployment_headrooms())
    cache = "no cache" if current.cache is None else f"cache {_place(current.cache.cache)}"
    open_runs = sum(not run.done for run in submissions())
    return (
        f"lbgpt-pandas {__version__} · {names} · model {current.model or 'not set'} · {cache} · "
        f"{flying:,} calls in flight, {open_runs:,} runs in the background · {_spent()}"
    )


def _spent() -> str:
    frame = usage()
    cost = frame["cost_usd"].sum(skipna=False) if len(frame) else 0.0
    return f"{frame['requests'].sum():,} calls, {money(None if pd.isna(cost) else float(cost))}"


def _place(cache: object) -> str:
    return str(getattr(cache, "location", type(cache).__name__))


# --- state ----------------------------------------------------------------------------------


def _add_state_commands(commands: Commands) -> None:
    status = commands.add("status", _status, "limits, headroom and health of each deployment")
    status.add_argument("--watch", action="store_true", help="draw it live, while other cells run")
    commands.add("headroom", _headroom, "what each deployment may still send, as lb.headroom()")
    used = commands.add("usage", _usage, "tokens and cost of this process")
    used.add_argument(
        "--by", metavar="LEVELS", default="model,deployment", words=lambda _: LEVELS,
        help=f"one or more of {', '.join(LEVELS)}, with commas between",
    )  # fmt: skip
    used.add_argument(
        "--since",
        metavar="T",
        type=age,
        help='a time, or how long ago: 2026-11-01, 2h, "30 minutes"',
    )
    used.add_argument("--df", action="store_true", help="with the levels as columns")
    used.add_argument("--json", action="store_true", help="as JSON text")
    models = commands.add("models", _models, "models of the engines, and those with a price")
    models.add_argument("pattern", nargs="?", default="", metavar="PATTERN", help="such as gpt-4*")


def _status(options: argparse.Namespace, _scope: Scope) -> object:
    if options.watch:
        from lbgpt_pandas.notebook.dashboard import dashboard  # noqa: PLC0415  # only for --watch

        return dashboard()
    found = dict.fromkeys(each for engine in known_engines() for each in engine.deployments())
    lines = [_status_line(deployment.state()) for deployment in found]
    frame = pd.DataFrame(lines, columns=["deployment", *_STATUS])
    return frame.astype({"deployment": "string"} | _STATUS).set_index("deployment")


def _status_line(state: DeploymentState) -> tuple[object, ...]:
    def both(gauge: Gauge | None) -> tuple[object, object]:
        return (pd.NA, pd.NA) if gauge is None else (gauge.left, gauge.limit)

    return (
        state.name, state.health, state.wait_s, *both(state.requests), *both(state.tokens),
        state.in_flight, state.places, state.answered, state.refused, state.fault or pd.NA,
        state.source,
    )  # fmt: skip


def _headroom(_options: argparse.Namespace, _scope: Scope) -> object:
    return headroom()


def _usage(options: argparse.Namespace, _scope: Scope) -> object:
    levels: Any = [level.strip() for level in options.by.split(",") if level.strip()]
    wrong = [level for level in levels if level not in LEVELS]
    if wrong or not levels:
        what = wrong[0] if wrong else options.by
        raise Misuse(f"--by: there is no level {what!r}; {suggestion(what, LEVELS)}")
    frame = usage(levels, since=options.since)
    if options.json:
        return Printed(frame.reset_index().to_json(orient="records", date_format="iso", indent=2))
    return frame.reset_index() if options.df else frame


def _models(options: argparse.Namespace, _scope: Scope) -> object:
    found = known_models(options.pattern)
    if found.empty:
        names = list(known_models().index)
        raise Misuse(
            f"no known model matches {options.pattern!r}; {suggestion(options.pattern, names[:12])}"
            ". A model need not be known to be used"
        )
    return found


# --- runs -----------------------------------------------------------------------------------


def _add_run_commands(commands: Commands) -> None:
    shown = commands.add("report", _report, "the report of a run")
    shown.add_argument(
        "run_id", nargs="?", default=LAST, metavar="RUN", words=_run_ids,
        help="an id of %%lbgpt runs; by default the last run",
    )  # fmt: skip
    shown.add_argument("--json", action="store_true", help="its registered figures as JSON text")
    shown.add_argument(
        "--save", metavar="FILE",
        help="write it to FILE: .html or .txt, .json (the manifest), .csv (a line a row), or "
        ".zip (the archive for lb.replay, with prompts and answers)",
    )  # fmt: skip
    commands.add("runs", _runs, "runs in the background, and those of this cache")
    stop = commands.add("cancel", _cancel, "end a run in the background; finished rows are kept")
    stop.add_argument("run_id", nargs="?", metavar="RUN|all", words=_open_ids, help="which one")
    again = commands.add("retry", _retry, "ask for the rows again that failed or were not reached")
    again.add_argument("run_id", nargs="?", default=LAST, metavar="RUN", words=_run_ids)


def _report(options: argparse.Namespace, _scope: Scope) -> object:
    report = _find_report(options.run_id)
    if report is None:
        if options.save:
            raise Misuse(f"run {options.run_id} is of another process; --save needs its rows")
        about = _registered(options.run_id)
        return _json(about) if options.json else pd.Series(about, name=options.run_id)
    if options.save:
        place = _save(report, Path(options.save).expanduser())
        return Printed(f"saved to {place}")
    return _json(report.for_registry()[0]) if options.json else report


def _find_report(run: str) -> RunReport | None:
    """Return a report of this process, None if it has none of this name."""
    last = last_run()
    if run == LAST:
        if last is None:
            raise Misuse("there was no run yet in this process; %lbgpt runs lists earlier ones")
        return last
    if last is not None and last.id == run:
        return last
    return next((each.report for each in submissions() if each.id == run), None)


def _registered(run: str) -> dict[str, Any]:
    for about in registry().all():
        if about["id"] == run:
            return about
    raise Misuse(f"no run {run!r} is registered; %lbgpt runs lists those that are")


def _save(report: RunReport, place: Path) -> Path:
    match place.suffix.lower():
        case ".zip":
            return report.export(place)
        case ".html" | ".htm":
            title = html.escape(f"lbgpt run {report.id}")
            head = f'<!doctype html><html><head><meta charset="utf-8"><title>{title}</title></head>'
            text = f"{head}<body>{report._repr_html_()}</body></html>"
        case ".txt" | ".md":
            text = f"{report}\n"
        case ".json":
            text = json.dumps(report.manifest, indent=2, default=str)
        case ".csv":
            text = report.rows.to_csv()
        case other:
            raise Misuse(f"--save: {other or 'no suffix'}; give .html, .txt, .json, .csv or .zip")
    place.write_text(text, encoding="utf-8")
    return place


def _json(about: dict[str, Any]) -> Printed:
    return Printed(json.dumps(about, indent=2, default=str))


def _runs(_options: argparse.Namespace, _scope: Scope) -> object:
    registered = runs()
    lines = [_open_line(run) for run in reversed(submissions()) if not run.done]
    if not lines:
        return registered
    going = pd.DataFrame(lines).reindex(columns=registered.columns).astype(registered.dtypes)
    return pd.concat([going, registered], ignore_index=True)


def _open_line(run: Run) -> dict[str, object]:
    shot = run.progress()
    counts = {
        name: getattr(shot, name)
        for name in ("rows", "done", "failed", "skipped", "cached", "semantic", "shared")
    }
    return {
        "id": run.id,
        "status": "paused" if shot.paused else "running",
        "wall_s": shot.elapsed_s,
        "prompt_tokens": shot.prompt_tokens,
        "completion_tokens": shot.completion_tokens,
        "cost_usd": shot.cost_usd,
        "saved_usd": shot.saved_usd,
        **counts,
    }


def _cancel(options: argparse.Namespace, _scope: Scope) -> object:
    going = [run for run in submissions() if not run.done]
    wanted = options.run_id
    if not going:
        raise Misuse("no run is going on in the background; the stop button ends a cell")
    chosen = [run for run in going if wanted in (None, ALL, run.id)]
    ids = ", ".join(run.id for run in going)
    if not chosen:
        raise Misuse(f"no run {wanted!r} is going on in the background; there are {ids}")
    if wanted is None and len(going) > 1:
        raise Misuse(f"{len(going)} runs are going on: give one of {ids}, or all")
    for run in chosen:
        run.cancel()
    return Printed(f"cancelled {', '.join(run.id for run in chosen)}; finished rows are kept")


def _retry(options: argparse.Namespace, _scope: Scope) -> object:
    report = _find_report(options.run_id)
    if report is None:
        raise Misuse(
            f"run {options.run_id!r} is not of this process, so its rows are not here; run its "
            "cell again: rows that are cached are not asked for again"
        )
    return report.retry_failed()


def _run_ids(_scope: Scope) -> list[str]:
    known = [about["id"] for about in registry().all(limit=20)]
    return list(dict.fromkeys([LAST, *_open_ids(_scope), *known]))


def _open_ids(_scope: Scope) -> list[str]:
    return [run.id for run in submissions() if not run.done]
