"""The rows of a run by where their answers came from, as one bar and its legend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lbgpt_pandas.drawing.amounts import count, fraction, percent
from lbgpt_pandas.drawing.parts import BLUE, GREEN, GREY, RED, TEAL, VIOLET, coloured, muted
from lbgpt_pandas.engine.markup import inert_attribute, inert_html

if TYPE_CHECKING:
    from lbgpt_pandas.engine.report import RunSnapshot

_TRACK = (
    "display:flex;gap:2px;height:12px;border-radius:4px;overflow:hidden;margin:10px 0 5px;"
    "background:rgba(128,128,128,.28)"
)
_WHOLE = "white-space:nowrap"
_LIGHT, _CLEAR = "rgba(255,255,255,.45)", "rgba(255,255,255,0)"


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one kind.

    Attributes
    ----------
    rows : int
        How many.
    word, meaning : str
        What the legend calls them, and what that means.
    symbol, colour : str
        Of the legend.
    pattern : str
        Angle of the lines over the colour, so that it is told apart without; empty for none.
    """

    rows: int
    word: str
    meaning: str
    symbol: str
    colour: str
    pattern: str = ""


def parts_of(snapshot: RunSnapshot) -> list[Part]:
    """Return the kinds of settled rows that occur, in the order of the bar."""
    exact = snapshot.cached - snapshot.semantic
    parts = [
        Part(snapshot.asked, "asked", "answered by a provider", "■", GREEN),
        Part(exact, "exact", "the same question was in the cache", "▥", BLUE, "90deg"),
        Part(
            snapshot.semantic, "semantic", "nearly the same question was in the cache", "▨",
            VIOLET, "135deg",
        ),
        Part(snapshot.shared, "shared", "took the answer of an equal row", "▤", TEAL, "180deg"),
        Part(snapshot.failed, "failed", "no answer", "✖", RED),
        Part(snapshot.skipped, "skipped (NA)", "a cell it needs is empty", "□", GREY),
    ]  # fmt: skip
    return [part for part in parts if part.rows > 0]


def bar_html(snapshot: RunSnapshot) -> str:
    """Draw all rows as one bar."""
    parts = parts_of(snapshot)
    said = ", ".join(f"{count(part.rows)} {part.word}" for part in parts) or "nothing yet"
    segments = "".join(_segment(part, snapshot.rows) for part in parts)
    title = inert_attribute(f"{said}, of {count(snapshot.rows)} rows")
    return f'<div title="{title}" style="{_TRACK}">{segments}</div>'


def legend_html(snapshot: RunSnapshot) -> str:
    """Say in words what the bar shows."""
    total = snapshot.rows
    cells = [f"<b>{count(snapshot.done)} of {count(total)} rows</b>"]
    if not snapshot.finished or snapshot.settled < total:
        cells.append(inert_html(percent(snapshot.settled, total)))
    cells += [
        f'<span title="{inert_attribute(part.meaning)}" style="{_WHOLE}">'
        f"{coloured(part.symbol, part.colour)} {count(part.rows)} {part.word}</span>"
        for part in parts_of(snapshot)
    ]
    if not snapshot.finished:
        sent = under_way(snapshot)
        calls = ((sent, "in flight"), (snapshot.in_flight - sent, "waiting to be sent"))
        cells += [f'<span style="{_WHOLE}">{count(n)} {word}</span>' for n, word in calls if n > 0]
    split = tiers(snapshot)
    below = muted(inert_html(f"cache hits, of all answers: {split}")) if split else ""
    return f'<div style="font-size:12px">{" · ".join(cells)}</div>{below}'


def under_way(snapshot: RunSnapshot) -> int:
    """Calls of a run that are sent; the others that it works on wait for a place or a limit."""
    if not snapshot.deployments:
        return snapshot.in_flight
    return min(snapshot.in_flight, sum(state.in_flight for state in snapshot.deployments))


def tiers(snapshot: RunSnapshot) -> str:
    """Return the share of the answers that each way to need no call has; empty if none does."""
    return " + ".join(
        f"{percent(part.rows, snapshot.done)} {part.word}"
        for part in parts_of(snapshot)
        if part.word in {"exact", "semantic", "shared"}
    )


def legend(snapshot: RunSnapshot) -> str:
    """Return the kinds of rows as plain text."""
    return ", ".join(f"{count(part.rows)} {part.word}" for part in parts_of(snapshot))


def _segment(part: Part, total: int) -> str:
    style = (
        f"flex:0 1 {fraction(part.rows, total) * 100:.2f}%;min-width:3px;"
        f"background-color:{part.colour}"
    )
    if part.pattern:
        style += (
            f";background-image:repeating-linear-gradient({part.pattern},"
            f"{_CLEAR} 0,{_CLEAR} 3px,{_LIGHT} 3px,{_LIGHT} 4px)"
        )
    return f'<span style="{style}"></span>'
