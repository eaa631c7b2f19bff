r"""The user's names in a magic: frames, engines, and the ``{{value}}`` of a prompt.

A name is looked up, never evaluated: ``rows[0].title`` walks attributes and indices, and that is
all there is. So a prompt that was pasted from anywhere can run nothing, and does not reach what a
module holds, such as the environment.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from lbgpt_pandas.notebook.arguments import Misuse

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

MOST_ROWS = 1_000
"""Of a frame in a prompt: more is taken for a mistake, because each of them is paid for."""

_LONGEST_QUOTE = 60


@dataclass(frozen=True, slots=True)
class Scope:
    """The names that a magic sees.

    Attributes
    ----------
    names : mapping
        What may be read: the notebook's variables, and for a line inside a function its own.
    home : mutable mapping
        The notebook's variables, where results are put.
    """

    names: Mapping[str, Any]
    home: MutableMapping[str, Any]


def look_up(path: str, names: Mapping[str, Any]) -> Any:
    """Return what a path such as ``data.train['text'][0]`` leads to.

    Parameters
    ----------
    path : str
        A name, with attributes and indices. An index is a number, a text, or a slice of numbers.
    names : mapping
        The variables.

    Raises
    ------
    Misuse
        If it is anything else, or leads nowhere.

    Examples
    --------
    >>> look_up("rows[-1]['title']", {"rows": [{"title": "Ulysses"}]})
    'Ulysses'
    """
    try:
        return _walk(ast.parse(path.strip(), mode="eval").body, names, path)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise Misuse(f"{_quoted(path)} is no name; {_WHAT}") from None


_WHAT = "there are names, attributes and indices, as in rows[0].title, and no calls or operators"


def _walk(node: ast.expr, names: Mapping[str, Any], path: str) -> Any:
    match node:
        case ast.Name(id=name):
            if name not in names:
                raise Misuse(_unknown(name, names))
            return names[name]
        case ast.Attribute(value=inner, attr=name):
            return _attribute(_walk(inner, names, path), name, path)
        case ast.Subscript(value=inner, slice=index):
            return _item(_walk(inner, names, path), _index(index, path), path)
    raise Misuse(f"{_quoted(path)} is more than a name; {_WHAT}")


def _attribute(value: Any, name: str, path: str) -> Any:
    if name.startswith("_"):
        raise Misuse(f"{_quoted(path)}: names that begin with _ are not reached from a magic")
    if inspect.ismodule(value):
        raise Misuse(
            f"{_quoted(path)}: what a module holds is not reached from a magic; give the value "
            "a name of its own first"
        )
    try:
        return getattr(value, name)
    except Exception as error:
        raise Misuse(f"{_quoted(path)}: {type(error).__name__}: {_quoted(str(error))}") from error


def _item(value: Any, index: object, path: str) -> Any:
    if isinstance(value, type(os.environ)):
        raise Misuse(f"{_quoted(path)}: the environment is not reached from a magic")
    try:
        return value[index]
    except Exception as error:
        raise Misuse(
            f"{_quoted(path)}: there is no {_quoted(repr(index))} ({type(error).__name__})"
        ) from error


def _index(node: ast.expr, path: str) -> object:
    if isinstance(node, ast.Slice):
        parts = (node.lower, node.upper, node.step)
        return slice(*(None if part is None else _constant(part, path) for part in parts))
    return _constant(node, path)


def _constant(node: ast.expr, path: str) -> object:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise Misuse(f"{_quoted(path)}: an index is a number or a quoted text") from None


def _unknown(name: str, names: Mapping[str, Any]) -> str:
    known = [each for each in names if not each.startswith("_")]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"the notebook has no variable {_quoted(name)}{hint}"


def as_text(value: object, *, path: str) -> str:
    """Return a value as it stands in a prompt.

    Parameters
    ----------
    value : object
        A frame or Series is written out whole.
    path : str
        What the user calls it.

    Raises
    ------
    Misuse
        If it makes no sense there: nothing, code, bytes, or a frame too long to be meant.
    """
    if isinstance(value, str):
        return value
    if value is None or value is pd.NA or value is pd.NaT:
        raise Misuse(f"{{{{{path}}}}} is {value!r}; give it a value, or leave it out")
    if isinstance(value, pd.DataFrame | pd.Series):
        if len(value) > MOST_ROWS:
            raise Misuse(
                f"{{{{{path}}}}} has {len(value):,} rows, and a prompt takes {MOST_ROWS:,} at "
                f"most; give {{{{{path}[:20]}}}} to show some, or --df to ask about each row"
            )
        return value.to_string()
    if isinstance(value, bytes | bytearray) or callable(value) or inspect.ismodule(value):
        raise Misuse(f"{{{{{path}}}}} is a {type(value).__name__}, which is no text for a prompt")
    return str(value)


def frame_of(path: str, names: Mapping[str, Any]) -> pd.DataFrame | pd.Series[Any]:
    """Return the DataFrame or Series that ``--df`` names.

    Raises
    ------
    Misuse
        If it is none; names those that there are.
    """
    frames = [
        name
        for name, value in names.items()
        if isinstance(value, pd.DataFrame | pd.Series) and not name.startswith("_")
    ]
    try:
        value = look_up(path, names)
    except Misuse as error:
        there = f"; the frames are {', '.join(frames[:8])}" if frames else ""
        raise Misuse(f"--df: {error}{there}") from None
    if not isinstance(value, pd.DataFrame | pd.Series):
        raise Misuse(
            f"--df {_quoted(path)} is a {type(value).__name__}; give a DataFrame or Series"
        )
    return value


def check_target(name: str) -> str:
    """Return the name of a variable to be set; `Misuse` if it is none."""
    if not name.isidentifier():
        raise Misuse(f"{_quoted(name)} cannot be the name of a variable")
    try:
        ast.parse(f"{name} = 0")
    except SyntaxError:
        raise Misuse(f"{_quoted(name)} is a word of Python, not the name of a variable") from None
    return name


def _quoted(text: str) -> str:
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…"
