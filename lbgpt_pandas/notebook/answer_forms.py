"""The forms of an answer in a notebook: text, Markdown, JSON, code; and the value each gives."""

from __future__ import annotations

import json
import re
from typing import Any, Literal, get_args

from lbgpt_pandas.drawing.prose import code_html, markdown_html
from lbgpt_pandas.notebook.arguments import Misuse

Form = Literal["text", "markdown", "json", "code"]
FORMS: tuple[Form, ...] = get_args(Form)

MOST_SHOWN = 50_000
"""Characters of an answer that are shown; the variable holds all of them."""

_FENCED = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[^`\n]*\n(.*?)(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
_KEPT = frozenset("\n\t")


def bundle_of(text: str, form: Form, *, note: str = "") -> dict[str, object]:
    """Return an answer by media type, as an output of a cell holds it; nothing in it is run.

    Parameters
    ----------
    text : str
        What the model has said so far.
    form : {"text", "markdown", "json", "code"}
        How it is shown.
    note : str, optional
        A line below, such as why it ends here.
    """
    cut = len(text) - MOST_SHOWN
    if cut > 0:
        text, note = text[:MOST_SHOWN], f"{cut:,} more characters are not shown. {note}".strip()
    shown = printable(text)
    plain = f"{shown}\n[{printable(note)}]" if note else shown
    if form == "text":
        return {"text/plain": plain}
    drawn = markdown_html(text) if form == "markdown" else code_html(_without_fence(text))
    below = markdown_html(f"*{note}*") if note else ""
    return {"text/html": drawn + below, "text/plain": plain}


def value_of(text: str, form: Form) -> Any:
    """Return what a variable gets: the text, the data that its JSON says, or its code.

    Raises
    ------
    Misuse
        If the answer was to be JSON and is none.
    """
    if form == "code":
        return _without_fence(text)
    if form != "json":
        return text
    try:
        return json.loads(_without_fence(text))
    except ValueError as error:
        raise Misuse(
            f"the answer is not JSON ({error}); its text is in _lbgpt. Ask for JSON in the prompt"
        ) from None


def printable(text: str) -> str:
    r"""Return a text without control characters, which a terminal would obey.

    Examples
    --------
    >>> printable("a\x1b[2Jb")
    'a [2Jb'
    """
    return "".join(c if c.isprintable() or c in _KEPT else " " for c in text)


def _without_fence(text: str) -> str:
    """Return what stands in the first code block; without one all of it."""
    found = _FENCED.search(text)
    return text.strip("\n") if found is None else found[2].rstrip("\n")
