"""The failed rows of a run by kind, with an example each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbgpt_pandas.drawing.amounts import count, several
from lbgpt_pandas.drawing.parts import (
    LONGEST_MESSAGE,
    RED,
    coloured,
    fold,
    message,
    muted,
    shortened,
)
from lbgpt_pandas.engine.markup import WRAP, inert_attribute, inert_html

if TYPE_CHECKING:
    from lbgpt_pandas.engine.report import RunSnapshot
    from lbgpt_pandas.engine.states import Failures

MOST_KINDS = 3
"""Kinds of failures that a live view and the folded table's line name."""

_LONGEST_KIND, _LONGEST_LIVE = 28, 160
_TABLE = (
    "border-collapse:collapse;border:0;margin:4px 0 0;width:100%;table-layout:auto;"
    "font-size:12px;color:inherit"
)
_CELL = "border:0;background:none;text-align:left;vertical-align:top;line-height:1.4"
_KIND = f"{_CELL};padding:3px 14px 3px 0;white-space:nowrap"
_EXAMPLE = f"{_CELL};padding:3px 0;width:100%;white-space:normal;{WRAP}"


def failures_html(snapshot: RunSnapshot, hint: str) -> str:
    """Draw a table of the kinds of failures behind a line that counts them.

    It is open while the run goes on: a live view is drawn anew all the time, which would close
    what a reader opens.

    Parameters
    ----------
    snapshot : RunSnapshot
        How the run stands.
    hint : str
        What can be done about it, as plain text; may be empty.
    """
    kinds, live = snapshot.failures, not snapshot.finished
    below = muted(inert_html(hint)) if hint else ""
    if not kinds:
        return below and f'<div style="margin-top:8px">{below}</div>'
    named = ", ".join(_counted(each) for each in kinds[:MOST_KINDS])
    if len(kinds) > MOST_KINDS:
        named += f" and {several(len(kinds) - MOST_KINDS, 'other kind')}"
    summary = f"{several(sum(each.rows for each in kinds), 'row')} failed: {named}"
    shown, longest = (kinds[:MOST_KINDS], _LONGEST_LIVE) if live else (kinds, LONGEST_MESSAGE)
    lines = "".join(_line_html(each, longest) for each in shown)
    table = f'<table style="{_TABLE}"><tbody>{lines}</tbody></table>'
    line = f"{coloured('✖', RED)} {inert_html(summary)}"
    return fold(line, table, is_open=live) + below


def failures_text(snapshot: RunSnapshot) -> list[str]:
    """Return a line of text for each kind."""
    return [f"! {_counted(each)}: {message(each.example)}" for each in snapshot.failures]


def _line_html(each: Failures, longest: int) -> str:
    kind = f'title="{inert_attribute(shortened(each.kind, 100))}" style="{_KIND}"'
    return (
        f'<tr style="background:none"><td {kind}>{inert_html(_counted(each))}</td>'
        f'<td style="{_EXAMPLE}">{inert_html(message(each.example, longest))}</td></tr>'
    )


def _counted(each: Failures) -> str:
    return f"{count(each.rows)} × {shortened(each.kind, _LONGEST_KIND)}"
