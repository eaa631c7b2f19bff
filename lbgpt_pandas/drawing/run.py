"""A run as HTML, as text and as one line; live while it goes on, a report when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbgpt_pandas.drawing.amounts import count, duration, money, several
from lbgpt_pandas.drawing.deployments import deployment_text, deployments_html, why_they_wait
from lbgpt_pandas.drawing.failures import failures_html, failures_text
from lbgpt_pandas.drawing.figures import budget_text, figures_html, figures_of
from lbgpt_pandas.drawing.parts import (
    AMBER,
    RED,
    apart,
    card,
    head,
    message,
    muted,
    name_html,
    shortened,
    sign,
)
from lbgpt_pandas.drawing.sources import bar_html, legend, legend_html, tiers, under_way
from lbgpt_pandas.engine.markup import inert_html

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lbgpt_pandas.drawing.pace import Pace
    from lbgpt_pandas.engine.report import RunSnapshot
    from lbgpt_pandas.engine.states import RunHeading

RETRY = "lb.last_run().retry_failed()"
_CODE = "font-family:var(--jp-code-font-family,monospace);background:none;color:inherit;padding:0"


def run_html(
    heading: RunHeading,
    snapshot: RunSnapshot,
    *,
    pace: Pace | None = None,
    hint: str = "",
    notes: Sequence[str] = (),
) -> str:
    """Draw a run for a notebook.

    Parameters
    ----------
    heading : RunHeading
        What the run is.
    snapshot : RunSnapshot
        How it stands; a finished one is drawn as a report.
    pace : Pace, optional
        Its rate of late; without it rate and time left follow from the average.
    hint : str, default ""
        How to stop it; not shown in a report.
    notes : sequence of str, optional
        Further lines at the end.

    Returns
    -------
    str
        One element without scripts and style sheets, in which every text from outside is inert.
    """
    state = _state(snapshot)
    parts = [
        _head_html(heading, snapshot, hint),
        sign(*state) if state else "",
        bar_html(snapshot),
        legend_html(snapshot),
        figures_html(snapshot, pace),
        deployments_html(snapshot.deployments, is_over=snapshot.finished),
        failures_html(snapshot, _retry_hint(heading, snapshot)),
    ]
    if notes:
        lines = (f"<div>{inert_html(message(note))}</div>" for note in notes)
        parts.append(apart(muted("".join(lines))))
    return card(parts)


def run_text(heading: RunHeading, snapshot: RunSnapshot, *, notes: Sequence[str] = ()) -> str:
    """Describe a run in several lines of text, with the same figures as `run_html`.

    Parameters
    ----------
    heading : RunHeading
        What the run is.
    snapshot : RunSnapshot
        How it stands.
    notes : sequence of str, optional
        Further lines at the end.
    """
    kinds, split, state = legend(snapshot), tiers(snapshot), _state(snapshot)
    rows = f"{count(snapshot.done)} of {count(snapshot.rows)} rows"
    hint = _retry_hint(heading, snapshot)
    lines = [("rows", f"{rows}: {kinds}" if kinds else rows)]
    lines += [("", f"cache hits, of all answers: {split}")] if split else []
    lines += [(each.subject, f"{each.value} {each.label}") for each in figures_of(snapshot, None)]
    lines += [("budget", budget_text(limit)) for limit in snapshot.budget]
    is_over = snapshot.finished
    lines += [("", deployment_text(each, is_over=is_over)) for each in snapshot.deployments]
    body = [f"{state[0]} {state[1]}"] if state else []
    body += [f"{subject:<9}{text}" for subject, text in lines]
    body += [*failures_text(snapshot), *([hint] if hint else []), *map(message, notes)]
    run = f" · run {shortened(heading.run)}" if heading.run else ""
    return "\n  ".join([_title(heading) + run, *body])


def run_line(heading: RunHeading, snapshot: RunSnapshot) -> str:
    """Describe a run in one line of text.

    Parameters
    ----------
    heading : RunHeading
        What the run is.
    snapshot : RunSnapshot
        How it stands.
    """
    parts = [f"{count(snapshot.done)} of {count(snapshot.rows)} rows"]
    parts += [f"{count(snapshot.cached)} from cache"] if snapshot.cached else []
    parts.append(f"{count(snapshot.failed)} failed")
    parts += [f"{count(snapshot.skipped)} skipped (NA)"] if snapshot.skipped else []
    parts += [duration(snapshot.elapsed_s), money(snapshot.cost_usd)]
    if not snapshot.finished:
        word = "paused" if snapshot.paused else "running"
        parts.append("stopping" if snapshot.stopped else word)
    elif _is_cut_short(snapshot):
        parts.append("stopped early")
    return f"{_title(heading)}: {', '.join(parts)}"


def _title(heading: RunHeading) -> str:
    return " ".join(shortened(word) for word in ("lbgpt", heading.verb, heading.model) if word)


def _head_html(heading: RunHeading, snapshot: RunSnapshot, hint: str) -> str:
    what = [f"<b>{name_html(heading.verb or 'run')}</b>"]
    if heading.model:
        what.append(name_html(heading.model))
    if heading.column:
        what.append(f'→ <code style="{_CODE}">{name_html(heading.column)}</code>')
    about = [f"run {name_html(heading.run)}"] if heading.run else []
    if heading.engine and heading.engine != heading.model:
        about.append(name_html(heading.engine))
    if hint and not snapshot.finished:
        about.append(inert_html(hint))
    return head(" ".join(what), " · ".join(about))


def _is_cut_short(snapshot: RunSnapshot) -> bool:
    return snapshot.stopped or snapshot.settled < snapshot.rows


def _state(snapshot: RunSnapshot) -> tuple[str, str, str] | None:
    """Symbol, sentence and colour of a state that is out of the ordinary."""
    sent = under_way(snapshot)
    going_on = f"nothing new is started, {several(sent, 'call')} under way."
    missing = snapshot.rows - snapshot.settled
    if snapshot.finished:
        if not _is_cut_short(snapshot):
            return None
        left = f"{several(missing, 'row')} not reached" if missing > 0 else "every row was reached"
        return "■", f"Stopped early: {left}; finished rows are kept.", RED
    if snapshot.stopped:
        return "■", f"Stopping: {going_on}", RED
    if snapshot.paused:
        return "‖", f"Paused: {going_on}", AMBER
    has_unsent = snapshot.settled + sent < snapshot.rows
    why = why_they_wait(snapshot.deployments) if has_unsent else ""
    return ("◐", why, AMBER) if why else None


def _retry_hint(heading: RunHeading, snapshot: RunSnapshot) -> str:
    """How to ask rows again; empty where there are none, or no run that knows them."""
    missing = snapshot.finished and snapshot.settled < snapshot.rows
    if not heading.run or not (snapshot.failed or missing):
        return ""
    when = "" if snapshot.finished else "when the run is over, "
    return f"{when}{RETRY} asks them again"
