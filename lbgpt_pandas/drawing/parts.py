"""Pieces of HTML that all views are made of.

Notebooks take `<style>`, `<svg>` and styles with variables out of outputs they do not trust, and
some pages take every style. So each piece is a block whose text says everything, and styles only
arrange it. Colours of text are the theme's, or the page's where there is no theme; all other
colours are seen on white and on black.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbgpt_pandas.drawing.amounts import fraction
from lbgpt_pandas.engine.markup import WRAP, inert_attribute, inert_html, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GREEN, BLUE, VIOLET, TEAL = "#1f8f4d", "#2f7de1", "#8f6fd8", "#5b8fa0"
RED, ORANGE, AMBER, GREY = "#e0483e", "#d9622b", "#c27800", "#808080"

LONGEST_NAME = 48
LONGEST_TITLE = 500
LONGEST_MESSAGE = 300
LOW = 0.1
"""A bar with less than this share left changes its colour."""

MUTED = "font-size:12px;opacity:.8"
_CARD = (
    "font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;line-height:1.4;"
    "color:var(--jp-ui-font-color1,inherit);background:var(--jp-layout-color1,transparent);"
    "border:1px solid rgba(128,128,128,.5);border-radius:6px;"
    "padding:12px 14px;margin:2px 0;max-width:960px;box-sizing:border-box;text-align:left;"
    "white-space:normal;font-variant-numeric:tabular-nums;"
    f"{WRAP}"
)
_HEAD = "display:flex;justify-content:space-between;align-items:baseline;flex-wrap:wrap;gap:0 16px"
_TRACK = (
    "height:6px;border-radius:3px;overflow:hidden;margin:6px 0 2px;background:rgba(128,128,128,.28)"
)
_RULE = "border-top:1px solid rgba(128,128,128,.35)"
_SIGN = "border-left:4px solid {};padding:3px 0 3px 10px;margin:8px 0"


def card(parts: Iterable[str]) -> str:
    """Frame the pieces of one view."""
    return f'<div style="{_CARD}">{"".join(parts)}</div>'


def head(title: str, about: str) -> str:
    """Draw the first line, of HTML: what it is, and at the other end what there is to say of it."""
    return f'<div style="{_HEAD}"><div style="font-size:14px">{title}</div>{muted(about)}</div>'


def muted(html: str) -> str:
    """Draw a line of smaller print."""
    return f'<div style="{MUTED}">{html}</div>'


def below(html: str) -> str:
    """Draw smaller print in a line of its own; on the same one where styles are taken out."""
    return f' <span style="display:block;{MUTED}">{html}</span>'


def apart(html: str) -> str:
    """Keep a block away from what stands above it."""
    return f'<div style="margin-top:12px">{html}</div>'


def sign(symbol: str, text: str, colour: str) -> str:
    """Draw a sentence that should not be missed."""
    style = _SIGN.format(colour)
    return f'<div style="{style}">{coloured(symbol, colour)} {inert_html(text)}</div>'


def coloured(symbol: str, colour: str) -> str:
    """Draw a symbol."""
    return f'<span style="color:{colour}">{symbol}</span>'


def name_html(name: str) -> str:
    """Draw a name that is anybody's text; a long one is shortened, its title says it all."""
    if len(name) <= LONGEST_NAME:
        return f"<bdi>{inert_html(name)}</bdi>"
    title = inert_attribute(shortened(name, LONGEST_TITLE))
    return f'<bdi title="{title}">{inert_html(shortened(name))}</bdi>'


def shortened(text: str, longest: int = LONGEST_NAME) -> str:
    """Cut a text in the middle, because both ends of names tell them apart.

    Examples
    --------
    >>> shortened("gpt-4o-mini-2024-07-18-eu", 15)
    'gpt-4o-…7-18-eu'
    """
    if len(text) > longest:
        begin = longest // 2
        text = f"{text[:begin]}…{text[begin + 1 - longest :]}"
    return printable(text)


def message(text: str, longest: int = LONGEST_MESSAGE) -> str:
    r"""Cut a message at its end.

    Examples
    --------
    >>> message("no\nsuch model")
    'no such model'
    """
    if len(text) > longest:
        text = f"{text[: longest - 1]}…"
    return printable(text)


def tiles(cells: Iterable[str], *, width: int) -> str:
    """Put cells side by side, as many as there is room for.

    Parameters
    ----------
    cells : iterable of str
        HTML.
    width : int
        Pixels that a cell needs.
    """
    grid = f"repeat(auto-fit,minmax(min(100%,{width}px),1fr))"
    style = f"display:grid;grid-template-columns:{grid};gap:8px 16px;margin:10px 0 0"
    return f'<div style="{style}">{"".join(cells)}</div>'


def tile(figure: str, label: str, *, title: str = "") -> str:
    """Draw a figure with what it means below.

    Parameters
    ----------
    figure, label : str
        Plain text.
    title : str, default ""
        What is shown to who points at it.
    """
    number = f'<b style="font-size:16px;font-weight:600">{inert_html(figure)}</b>'
    return f"<div{_titled(title)}>{number}{below(inert_html(label))}</div>"


def meter(share: float, text: str, *, colour: str = BLUE, title: str = "") -> str:
    """Draw a bar that is filled to a share, with its text below."""
    fill = f"width:{fraction(share, 1) * 100:.1f}%;height:6px;background:{colour}"
    bar = f'<div style="{_TRACK}"><div style="{fill}"></div></div>'
    return f"<div{_titled(title)}>{bar}{muted(inert_html(text))}</div>"


def beside(cells: Sequence[str]) -> str:
    """Put cells of the same width side by side however narrow it is."""
    style = f"display:grid;grid-template-columns:repeat({len(cells)},minmax(0,1fr));gap:4px 16px"
    return f'<div style="{style}">{"".join(cells)}</div>'


def row(left: Sequence[str], right: Sequence[str]) -> str:
    """Draw two pairs of cells: side by side, or below each other where it is narrow."""
    grid = "repeat(auto-fit,minmax(min(100%,300px),1fr))"
    style = f"display:grid;grid-template-columns:{grid};gap:2px 16px;padding:7px 0;{_RULE}"
    return f'<div style="{style}">{beside(left)}{beside(right)}</div>'


def stack(cell: str, last: str) -> str:
    """Draw a cell whose last piece stands at its bottom, level with those of its neighbours."""
    if not last:
        return f"<div>{cell}</div>"
    style = "display:flex;flex-direction:column"
    return f'<div style="{style}">{cell}<div style="margin-top:auto">{last}</div></div>'


def fold(summary: str, body: str, *, is_open: bool = False) -> str:
    """Hide `body` behind a line; both are HTML."""
    return (
        f'<details{" open" if is_open else ""} style="margin-top:8px">'
        f'<summary style="cursor:pointer;font-size:12px">{summary}</summary>{body}</details>'
    )


def _titled(title: str) -> str:
    return f' title="{inert_attribute(title)}"' if title else ""
