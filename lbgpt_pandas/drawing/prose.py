"""Model answers in Markdown as HTML that can do nothing.

Notebooks run the HTML inside ``text/markdown`` of a live output, and load its images. So answers
are drawn here: everything is escaped first, and only then do a few marks become tags of our own.
An image stays text, because to load one tells its server what the model has put into the address.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.markup import inert_html

if TYPE_CHECKING:
    from collections.abc import Iterator

_FENCE = re.compile(r"\s*(`{3,}|~{3,})[^`]*")
_HEADING = re.compile(r" {0,3}(#{1,6})\s(.*)")
_RULE = re.compile(r" {0,3}(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,})")
_ITEM = re.compile(r"(\s*)(?:([-*+])|(\d{1,9})[.)])\s+(.*)")
_QUOTE = re.compile(r" {0,3}> ?(.*)")
_ROW = re.compile(r"\s*\|.*\|\s*")
_DASHES = re.compile(r"\s*\|(?:\s*:?-+:?\s*\|)+\s*")
_STRONG = re.compile(r"\*\*(?=\S)((?:(?!\*\*).)+?)(?<=\S)\*\*")
_EM = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*<]*?[^\s*<])\*(?![\w*])")
_LINK = re.compile(r"(?<!!)\[([^\[\]<>]+)\]\((https?://[^\s<>()]+)\)")

_BOX = "line-height:1.5;overflow-wrap:anywhere;color:var(--jp-content-font-color1, inherit)"
_CODE = (
    "font-family:var(--jp-code-font-family, monospace);"
    "background:var(--jp-layout-color2, rgba(128,128,128,.15))"
)
_PRE = f"{_CODE};padding:8px 10px;margin:6px 0;overflow-x:auto;white-space:pre;line-height:1.35"
_CELL = (
    "text-align:left;padding:3px 10px;"
    "border:1px solid var(--jp-border-color2, rgba(128,128,128,.4))"
)
_BAR = (
    "margin:6px 0;padding:2px 12px;"
    "border-left:3px solid var(--jp-border-color1, rgba(128,128,128,.6))"
)
_ANCHOR = "color:var(--jp-content-link-color, inherit);text-decoration:underline"
_LINE = "margin:10px 0;border-top:1px solid var(--jp-border-color1, rgba(128,128,128,.6))"
_SIZES = ("1.5em", "1.3em", "1.15em", "1.05em", "1em", "1em")


def markdown_html(text: str) -> str:
    """Draw headings, lists, tables, quotes, code, emphasis and web links; all else is text.

    Parameters
    ----------
    text : str
        Anybody's.

    Examples
    --------
    >>> print(markdown_html("**No** <script>").split(">", 1)[1])
    <p style="margin:6px 0"><strong>No</strong> &lt;script&gt;</p></div>
    """
    return f'<div style="{_BOX}">{"".join(_blocks(text.splitlines()))}</div>'


def code_html(text: str) -> str:
    """Draw a text as it is, in the font of code.

    Examples
    --------
    >>> print(code_html("a <b").split(">", 1)[1])
    a &lt;b</pre>
    """
    lines = "\n".join(_escaped(line) for line in text.splitlines())
    return f'<pre style="{_PRE}">{lines}</pre>'


def _blocks(lines: list[str]) -> Iterator[str]:
    at = 0
    while at < len(lines):
        line = lines[at]
        if _FENCE.fullmatch(line):
            end = _end_of_code(lines, at)
            yield code_html("\n".join(lines[at + 1 : end]))
            at = end + 1
        elif _ROW.fullmatch(line) and at + 1 < len(lines) and _DASHES.fullmatch(lines[at + 1]):
            end = _first_without(_ROW, lines, at + 2)
            yield _table([line, *lines[at + 2 : end]])
            at = end
        elif _QUOTE.fullmatch(line):
            end = _first_without(_QUOTE, lines, at)
            inner = "<br>".join(_inline(_QUOTE.sub(r"\1", each)) for each in lines[at:end])
            yield f'<div style="{_BAR}">{inner}</div>'
            at = end
        elif not line.strip() or (single := _single(line)) is None:
            end = at + 1 if not line.strip() else _end_of_paragraph(lines, at)
            if line.strip():
                inner = "<br>".join(_inline(each) for each in lines[at:end])
                yield f'<p style="margin:6px 0">{inner}</p>'
            at = end
        else:
            yield single
            at += 1


def _single(line: str) -> str | None:
    """Draw a block that is one line: a heading, a rule, an item of a list."""
    if heading := _HEADING.fullmatch(line):
        size = _SIZES[len(heading[1]) - 1]
        style = f"font-weight:bold;font-size:{size};margin:10px 0 4px"
        return f'<div style="{style}">{_inline(heading[2].strip(" #"))}</div>'
    if _RULE.fullmatch(line):
        return f'<div style="{_LINE}"></div>'
    if item := _ITEM.fullmatch(line):
        inset = 1.4 + 0.7 * min(len(item[1].expandtabs(4)), 16)
        mark = "•" if item[2] else f"{item[3]}."
        style = f"margin:2px 0 2px {inset:g}em;text-indent:-1.2em"
        return f'<div style="{style}">{mark} {_inline(item[4])}</div>'
    return None


def _end_of_code(lines: list[str], start: int) -> int:
    """Number of the line that closes the code; of the line after the last if none does."""
    fence = _FENCE.fullmatch(lines[start])
    mark = "```" if fence is None else fence[1]
    for number in range(start + 1, len(lines)):
        line = lines[number].strip()
        if len(line) >= len(mark) and line == mark[0] * len(line):
            return number
    return len(lines)


def _first_without(kind: re.Pattern[str], lines: list[str], start: int) -> int:
    return next((n for n in range(start, len(lines)) if not kind.fullmatch(lines[n])), len(lines))


def _end_of_paragraph(lines: list[str], start: int) -> int:
    for number in range(start + 1, len(lines)):
        line = lines[number]
        if not line.strip() or _FENCE.fullmatch(line) or _QUOTE.fullmatch(line):
            return number
        if _ROW.fullmatch(line) or _single(line) is not None:
            return number
    return len(lines)


def _table(rows: list[str]) -> str:
    drawn = []
    for number, row in enumerate(rows):
        tag = "td" if number else "th"
        cells = row.strip().strip("|").split("|")
        drawn.append(
            "".join(f'<{tag} style="{_CELL}">{_inline(cell.strip())}</{tag}>' for cell in cells)
        )
    body = "".join(f"<tr>{row}</tr>" for row in drawn)
    # In a page without a doctype a table takes over neither colour nor size of its text.
    style = "border-collapse:collapse;margin:6px 0;color:inherit;font-size:inherit"
    table = f'<table style="{style}"><tbody>{body}</tbody></table>'
    return f'<div style="overflow-x:auto">{table}</div>'


def _inline(text: str) -> str:
    """Draw one line; the parts between two backticks are code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # the last backtick has no partner
        parts[-2:] = ["`".join(parts[-2:])]
    return "".join(
        f'<code style="{_CODE}">{_escaped(part)}</code>' if number % 2 else _marked(part)
        for number, part in enumerate(parts)
        if part
    )


def _marked(text: str) -> str:
    html = _LINK.sub(
        rf'<a href="\2" title="\2" style="{_ANCHOR}" target="_blank" '
        r'rel="noopener noreferrer">\1</a>',
        _escaped(text),
    )
    return _EM.sub(r"<em>\1</em>", _STRONG.sub(r"<strong>\1</strong>", html))


def _escaped(text: str) -> str:
    return inert_html(text.expandtabs(4))
