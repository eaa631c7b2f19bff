"""Deployments of a run: how they are, what is left of their limits, what they did."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from lbgpt_pandas.drawing.amounts import count, percent, several, short, wait
from lbgpt_pandas.drawing.parts import (
    AMBER,
    BLUE,
    GREEN,
    LOW,
    ORANGE,
    RED,
    apart,
    below,
    coloured,
    fold,
    meter,
    muted,
    name_html,
    row,
    shortened,
    stack,
)
from lbgpt_pandas.engine.markup import inert_html

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lbgpt_pandas.engine.states import DeploymentState, Gauge

HEADING = "deployments · what is free of each minute's limits"

SHOWN = 8
"""More deployments than these are folded."""

SYMBOLS = {
    "ready": ("●", GREEN),
    "waiting": ("◐", AMBER),
    "blocked": ("■", RED),
    "resting": ("▲", ORANGE),
    "probing": ("◇", BLUE),
}
_NAMED = 3
_LONGEST_NAMED = 24


def health(state: DeploymentState) -> str:
    """Return a deployment's health in words.

    Examples
    --------
    >>> from lbgpt_pandas.engine.states import DeploymentState
    >>> health(DeploymentState("east", "resting", wait_s=11.2, fault="ServerError 503"))
    'resting 12 s after ServerError 503'
    """
    seconds = wait(state.wait_s)
    lasting = f" {seconds}" if seconds else ""
    fault = f" after {shortened(state.fault)}" if state.fault else ""
    match state.health:
        case "waiting":
            return f"waiting{lasting} for its limits"
        case "blocked":
            return f"blocked{lasting} (provider asked to wait)"
        case "resting":
            return f"resting{lasting}{fault or ' after failures'}"
        case "probing":
            return f"probing{fault}"
        case _:
            return "ready"


def headroom(gauge: Gauge | None, unit: str) -> str:
    """Return how much of a limit of one minute is free.

    Examples
    --------
    >>> from lbgpt_pandas.engine.states import Gauge
    >>> headroom(Gauge(88_000, 200_000), "tokens"), headroom(None, "requests")
    ('88 k of 200 k tokens', 'requests: no limit')
    """
    if gauge is None:
        return f"{unit}: no limit"
    return f"{short(gauge.left)} of {short(gauge.limit)} {unit}"


def deployment_text(state: DeploymentState, *, is_over: bool) -> str:
    """Return everything about a deployment as one line of text."""
    parts = [_calls(state)]
    if not is_over:
        room = f"{headroom(state.requests, 'requests')}, {headroom(state.tokens, 'tokens')}"
        parts = [health(state), f"free: {room}", _in_flight(state), *parts]
    return f"{shortened(state.name)}: {', '.join(parts)}"


def deployments_html(states: Sequence[DeploymentState], *, is_over: bool) -> str:
    """Draw deployments; once the run is over, only what they did.

    Parameters
    ----------
    states : sequence of DeploymentState
        In the order of the engine, which stays the same while they are drawn.
    is_over : bool
        The run has ended, so that headroom and health are not its concern any more.
    """
    if not states:
        return ""
    total = sum(state.answered for state in states)
    drawn = [_done_html(state, total) if is_over else state_html(state) for state in states]
    heading = muted("deployments" if is_over else HEADING)
    folded = _folded(states[SHOWN:], drawn[SHOWN:], is_over=is_over)
    return apart(f"{heading}{''.join(drawn[:SHOWN])}{folded}")


def state_html(state: DeploymentState, lines: tuple[str, str, str] = ("", "", "")) -> str:
    """Draw how a deployment is.

    Parameters
    ----------
    state : DeploymentState
        As it is now.
    lines : tuple of str, optional
        HTML to be put below the calls, the requests and the tokens.
    """
    symbol, colour = SYMBOLS.get(state.health, SYMBOLS["ready"])
    who = (
        f"<div>{coloured(symbol, colour)} <b>{name_html(state.name)}</b>"
        f"{below(inert_html(health(state)))}</div>"
    )
    what = stack(f"<div>{_in_flight(state)}{below(_calls(state))}</div>", lines[0])
    source = "stated by the provider" if state.source == "header" else "as configured"
    requests = _gauge_html(state.requests, "requests", source, lines[1])
    return row((who, what), (requests, _gauge_html(state.tokens, "tokens", source, lines[2])))


def why_they_wait(states: Sequence[DeploymentState]) -> str:
    """Say in one sentence why no call can start; empty if one can.

    Parameters
    ----------
    states : sequence of DeploymentState
        All that a run may use.
    """
    if not states or any(state.health in {"ready", "probing"} for state in states):
        return ""
    first = min(states, key=lambda state: state.wait_s)
    seconds = wait(first.wait_s)
    when = f"the next call can start in {seconds}" if seconds else "nobody knows for how long"
    kinds = {state.health for state in states}
    if len(kinds) > 1:
        return f"Waiting: no deployment takes calls ({_tally(states)}); {when}."
    who = shortened(first.name) if len(states) == 1 else f"each of {len(states)} deployments"
    return f"Waiting: {who} {_reason(first)}; {when}."


def _reason(state: DeploymentState) -> str:
    match state.health:
        case "waiting":
            return "has used up its limits"
        case "blocked":
            return "was asked to wait by its provider"
        case _:
            return f"rests after {shortened(state.fault) or 'failures'}"


def _calls(state: DeploymentState) -> str:
    return f"{count(state.answered)} answered · {count(state.refused)} × 429"


def _in_flight(state: DeploymentState) -> str:
    places = f" of {count(state.places)}" if state.places else ""
    return f"{count(state.in_flight)}{places} in flight"


def _tally(states: Sequence[DeploymentState]) -> str:
    kinds = Counter(state.health for state in states)
    return ", ".join(f"{count(number)} {kind}" for kind, number in kinds.most_common())


def _folded(states: Sequence[DeploymentState], drawn: Sequence[str], *, is_over: bool) -> str:
    """Fold the deployments that there is no room for, naming those that are not well."""
    if not states:
        return ""
    if is_over:
        said = f"{count(sum(state.answered for state in states))} answered"
    else:
        odd = [state for state in states if state.health != "ready"]
        named = [f"{shortened(s.name, _LONGEST_NAMED)} {health(s)}" for s in odd[:_NAMED]]
        named += [f"{len(odd) - _NAMED} more"] if len(odd) > _NAMED else []
        said = _tally(states) + (f": {', '.join(named)}" if named else "")
    summary = f"{several(len(states), 'more deployment')}: {said}"
    return fold(inert_html(summary), "".join(drawn))


def _done_html(state: DeploymentState, total: int) -> str:
    who = f"<div><b>{name_html(state.name)}</b></div>"
    share = state.answered / total if total else 0.0
    bar = meter(share, f"{percent(state.answered, total)} of the answers")
    return row((who, muted(_calls(state))), (bar,))


def _gauge_html(gauge: Gauge | None, unit: str, source: str, line: str) -> str:
    text = headroom(gauge, unit)
    if gauge is None:
        return stack(muted(text), line)
    title = f"{count(gauge.left)} of {count(gauge.limit)} {unit} a minute are free, {source}"
    colour = BLUE if gauge.fraction >= LOW else AMBER
    return stack(meter(gauge.fraction, text, colour=colour, title=title), line)
