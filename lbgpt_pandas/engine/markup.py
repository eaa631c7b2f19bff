"""Text as inert HTML."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

WRAP = "overflow-wrap:break-word;overflow-wrap:anywhere"
"""Long words are broken; notebooks that do not trust an output leave the first half of this."""

_TABLE = (
    "border-collapse:collapse;border:0;margin:0;table-layout:auto;font-size:13px;line-height:1.4;"
    "font-family:var(--jp-code-font-family,monospace);background:none;"
    "color:var(--jp-ui-font-color1,inherit)"
)
_CAPTION = f"caption-side:top;text-align:left;font-weight:bold;padding:2px 0;color:inherit;{WRAP}"
_CELL = "text-align:left;vertical-align:top;border:0;background:none;line-height:1.4"
_LABEL = f"{_CELL};font-weight:normal;padding:2px 14px 2px 0;opacity:.8"
_FIGURE = f"{_CELL};padding:2px 0;{WRAP}"


def inert_html(text: str) -> str:
    r"""Escape a text so that a notebook shows it as it is: no markup, formula or control code.

    Notebooks typeset what stands between two dollar signs or after a backslash, unless each has
    an element of its own.

    Examples
    --------
    >>> inert_html(r"<b> \(x")
    '&lt;b&gt; <span>\\</span>(x'
    """
    shown = html.escape(printable(text))
    if "$" in shown:
        shown = shown.replace("$", "<span>$</span>")
    if "\\" in shown:
        shown = shown.replace("\\", "<span>\\</span>")
    return shown


def inert_attribute(text: str) -> str:
    """Escape a text for an attribute in double quotes, where elements would be shown as text.

    Examples
    --------
    >>> inert_attribute('5 $ "or" less')
    '5 &#36; &quot;or&quot; less'
    """
    return html.escape(printable(text)).replace("$", "&#36;")


def printable(text: str) -> str:
    r"""Put a space for every control code, line break and mark that turns the reading direction.

    Examples
    --------
    >>> printable("east\x1b[31m")
    'east [31m'
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else " " for letter in text)


def table_html(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """Make a table of labels and texts that every notebook shows, trusted or not.

    Parameters
    ----------
    title : str
        Stands above it; nothing does if it is empty.
    rows : iterable of (str, str)
        A label and its text each, which may be anybody's.

    Examples
    --------
    >>> table_html("cache", [("entries", "12")]).count("<tr")
    1
    """
    caption = f'<caption style="{_CAPTION}">{inert_html(title)}</caption>' if title else ""
    body = "".join(
        f'<tr style="background:none"><th style="{_LABEL}">{inert_html(label)}</th>'
        f'<td style="{_FIGURE}">{inert_html(text)}</td></tr>'
        for label, text in rows
    )
    return f'<table style="{_TABLE}">{caption}<tbody>{body}</tbody></table>'
