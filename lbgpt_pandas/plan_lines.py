"""A plan as text and as HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbgpt_pandas.engine.markup import inert_html

if TYPE_CHECKING:
    from collections.abc import Callable

    from lbgpt_pandas.plan import Plan
    from lbgpt_pandas.token_estimates import Estimate

_CENT = 0.01
_MINUTE_S, _HOUR_S = 60, 3_600
_NAMED_ROWS, _SHOWN_SAMPLES, _SHOWN_CHARACTERS = 5, 5, 200

_CELL = 'style="text-align:left;padding:2px 12px 2px 0;vertical-align:top;white-space:pre-wrap"'
_TABLE = (
    "font-family:var(--jp-code-font-family, monospace);color:var(--jp-ui-font-color1, inherit);"
    "background:var(--jp-layout-color0, transparent)"
)


def plan_line(plan: Plan) -> str:
    """One line."""
    cost = "price unknown" if plan.cost_usd is None else f"about {usd(plan.cost_usd.expected)}"
    rows = f"{plan.rows:,} rows, {plan.requests_to_send:,} requests to send"
    return f"<Plan {plan.model}: {rows}, {cost}, {time(plan.eta_s)}>"


def plan_text(plan: Plan) -> str:
    """Several lines of plain text."""
    body = [f"  {label:<19}{text}" for label, text in plan_lines(plan)]
    return "\n".join([_head(plan), *body, *(f"  ! {note}" for note in plan.notes)])


def plan_html(plan: Plan) -> str:
    """Two tables with inline styles; every text from outside is escaped."""
    rows = [(label, text) for label, text in plan_lines(plan)]
    rows += [("note", note) for note in plan.notes]
    body = "".join(
        f"<tr><th {_CELL}>{inert_html(label)}</th><td {_CELL}>{inert_html(text)}</td></tr>"
        for label, text in rows
    )
    return (
        f'<div><table style="{_TABLE}">{_caption(_head(plan))}<tbody>{body}</tbody></table>'
        f"{_samples(plan)}</div>"
    )


def plan_lines(plan: Plan) -> list[tuple[str, str]]:
    """Label and text of each figure, in reading order."""
    unsent = f"{plan.na_rows:,} skipped (NA), {plan.unsendable_rows:,} cannot be sent"
    near = "near ones not counted" if plan.semantic_hits is None else f"{plan.semantic_hits:,} near"
    stored = f"{plan.exact_hits:,} stored, {near}, {plan.requests_to_send:,} to send"
    prompt = plan.prompt_tokens
    spread = f"p50 {prompt.p50:,}, p95 {prompt.p95:,}, max {prompt.max:,}, total {prompt.total:,}"
    cost = "price unknown"
    if plan.cost_usd is not None:
        cost = _range(plan.cost_usd, usd)
    lines = [
        ("rows", f"{plan.rows:,}: {unsent}"),
        ("requests", f"{plan.unique_requests:,} different: {stored}"),
        ("prompt tokens", f"{spread} ({plan.prompt_source})"),
        ("completion tokens", f"{_range(plan.completion_tokens, _whole)} ({plan.answer_source})"),
        ("cost", cost),
        ("saved by the cache", "price unknown" if plan.saved_usd is None else usd(plan.saved_usd)),
        ("time", time(plan.eta_s)),
        ("context window", _window(plan)),
    ]
    if plan.budget_suffices is not None:
        lines.append(("budget", "suffices" if plan.budget_suffices else "does not suffice"))
    return lines


def usd(amount: float) -> str:
    """Dollars; small amounts with two figures that say something.

    Examples
    --------
    >>> usd(12.3456), usd(0.0001234), usd(0.0)
    ('$12.35', '$0.00012', '$0.00')
    """
    return f"${amount:,.2f}" if amount >= 1 or not amount else _small(amount)


def time(seconds: float | None) -> str:
    """Say how long something takes.

    Examples
    --------
    >>> time(0.4), time(90), time(7_200), time(None)
    ('under a second', '1.5 min', '2.0 h', 'time unknown')
    """
    if seconds is None:
        return "time unknown"
    if seconds < 1:
        return "under a second"
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.1f} min"
    return f"{seconds / _HOUR_S:,.1f} h"


def _small(amount: float) -> str:
    return f"${amount:.4f}" if amount >= _CENT else f"${float(f'{amount:.2g}'):.10f}".rstrip("0")


def _whole(tokens: float) -> str:
    return f"{tokens:,.0f}"


def _range(estimate: Estimate, text: Callable[[float], str]) -> str:
    low, expected, high = map(text, estimate)
    return f"about {expected}, {low} to {high}" if low != high else expected


def _window(plan: Plan) -> str:
    if plan.context_window is None or plan.rows_over_window is None:
        return "unknown for this model"
    over = plan.rows_over_window.tolist()
    named = ", ".join(f"{row:,}" for row in over[:_NAMED_ROWS])
    more = ", ..." if len(over) > _NAMED_ROWS else ""
    which = f": positions {named}{more}" if over else ""
    return f"{plan.context_window:,} tokens, {len(over):,} rows over it{which}"


def _head(plan: Plan) -> str:
    return f"lbgpt plan · {plan.model} · {plan.engine}"


def _caption(text: str) -> str:
    return f'<caption style="text-align:left;font-weight:bold">{inert_html(text)}</caption>'


def _samples(plan: Plan) -> str:
    shown = plan.samples.head(_SHOWN_SAMPLES)
    if shown.empty:
        return ""
    head = "".join(f"<th {_CELL}>{inert_html(name)}</th>" for name in ("index", *shown.columns))
    body = "".join(
        "<tr>"
        + "".join(f"<td {_CELL}>{inert_html(_shortened(str(value)))}</td>" for value in row)
        + "</tr>"
        for row in shown.itertuples()
    )
    caption = _caption(f"{len(shown):,} of {len(plan.samples):,} samples")
    rows = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<table style="{_TABLE}">{caption}{rows}</table>'


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
