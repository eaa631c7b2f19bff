"""What Tab offers behind ``%lbgpt`` and ``%%lbgpt``, and nothing else beside it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pandas as pd

from lbgpt_pandas.engine.errors import LbgptError
from lbgpt_pandas.notebook.arguments import Misuse, split_words
from lbgpt_pandas.notebook.cell_magic import cell_parser
from lbgpt_pandas.notebook.commands import line_parser
from lbgpt_pandas.notebook.names import Scope, frame_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from IPython.core.completer import CompletionContext, Matcher
    from IPython.core.interactiveshell import InteractiveShell

    from lbgpt_pandas.notebook.arguments import Parser

_LINE = re.compile(r"(?:^|.*[=(\s])%lbgpt\s+(?P<written>.*)")
_CELL = re.compile(r"\s*%%lbgpt\s+(?:\S+\s*<<\s+)?(?P<written>.*)")
_FIELD = re.compile(r"(?<!\\)(?P<braces>\{\{?)(?P<begun>[^{}\n]*)")
_FRAME = re.compile(r"--df[\s=]+(?P<path>\S+)")


def candidates(text: str, line_number: int, before: str, scope: Scope) -> list[str] | None:
    """Return what may be written next; None if the cursor is in no magic of ours.

    Parameters
    ----------
    text : str
        Of the whole cell.
    line_number : int
        Of the line with the cursor.
    before : str
        What stands in that line before the cursor.
    scope : Scope
        The user's names.

    Returns
    -------
    list of str or None
        Whole words that begin with what is written of the last one.
    """
    head = text.split("\n", 1)[0]
    in_cell = head.lstrip().startswith("%%lbgpt")
    if in_cell and line_number > 0:
        return _fields(head, before, scope)
    found = _CELL.fullmatch(before) if in_cell else _LINE.fullmatch(before)
    if found is None:
        return None
    parser = cell_parser() if in_cell else line_parser()
    done, _, begun = found["written"].rpartition(" ")
    try:
        words = split_words(done)
    except Misuse:  # inside a quoted text
        return None
    return [word for word in _offers(parser, words, begun, scope) if word.startswith(begun)]


def _offers(parser: Parser, words: list[str], begun: str, scope: Scope) -> list[str]:
    rest = list(words)
    while rest and rest[0] in parser.commands:
        parser = parser.commands[rest.pop(0)]
    options = {name: action for action in parser.offered for name in action.option_strings}
    last = options.get(rest[-1]) if rest else None
    if last is not None and last.nargs != 0:
        return _values(parser, last, scope)
    if begun.startswith("-"):
        return [name for name in options if name.startswith("--") or begun == name]
    if parser.commands and not rest:
        return list(parser.commands)
    for action in parser.offered:
        if not action.option_strings:
            return _values(parser, action, scope)
    return [name for name in options if name.startswith("--")]


def _values(parser: Parser, action: Any, scope: Scope) -> list[str]:
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    words = parser.words.get(action.dest)
    if words is None:
        return []
    try:
        return [str(word) for word in words(scope)]
    except (LbgptError, OSError):  # a cache that cannot be read offers no words
        return []


def _fields(head: str, before: str, scope: Scope) -> list[str] | None:
    """Return the fields of a prompt: columns behind one brace, variables behind two."""
    found = None
    for found in _FIELD.finditer(before):  # noqa: B007  # the last one is meant
        pass
    if found is None or found.end() != len(before):
        return None
    begun = found["begun"]
    if found["braces"] == "{{":
        known: Iterable[str] = (
            name
            for name, value in scope.names.items()
            if not name.startswith("_") and not callable(value)
        )
    else:
        frame = _FRAME.search(head)
        if frame is None:
            return None
        try:
            data = frame_of(frame["path"], scope.names)
        except Misuse:
            return None
        known = map(str, data.columns) if isinstance(data, pd.DataFrame) else ["value"]
    return [name for name in known if name.startswith(begun)]


def matcher_of(shell: InteractiveShell) -> Matcher:
    """Make the matcher that IPython asks at each Tab."""
    from IPython.core.completer import (  # noqa: PLC0415  # only a notebook completes
        SimpleCompletion,
        context_matcher,
    )

    @context_matcher(identifier="lbgpt_pandas", priority=100)  # type: ignore[untyped-decorator]  # IPython's has no types
    def match(context: CompletionContext) -> dict[str, Any]:
        scope = Scope(shell.user_ns, shell.user_ns)
        before = context.text_until_cursor
        words = candidates(context.full_text, context.cursor_line, before, scope)
        if words is None:
            return {"completions": [], "suppress": False}
        begun = context.token
        whole = re.search(r"[^\s{]*$", before)
        # IPython's token may begin later than the word, behind a "-" or "=".
        cut = len(whole[0]) - len(begun) if whole is not None and whole[0].endswith(begun) else 0
        return {
            "completions": [SimpleCompletion(text=word[cut:], type="magic") for word in words],
            "matched_fragment": begun,
            "suppress": True,
            "ordered": True,
        }

    found: Matcher = match
    return found
