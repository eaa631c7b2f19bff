r"""The braces of a ``%%lbgpt`` prompt.

``{column}`` is the row's cell, ``{{name}}`` a value of the notebook, ``\{`` and ``\}`` are
literal braces, and any other brace stands for itself, so that JSON needs no escapes. What is put
in is never looked at again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.notebook.arguments import Misuse
from lbgpt_pandas.notebook.names import as_text, look_up

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lbgpt_pandas.rows import FieldNames

RULES = r"""braces in the prompt and in --system:
  {column}    the row's cell, with --df; {price:.2f} works too, {} is a Series' value
  {{name}}    a value of the notebook: a name, its .attributes and [indices], no calls
  \{ \}       literal braces, where they would be one of these
  others      stay as they are: {"answer": 42} needs no escape
  --raw       all braces stay as they are"""

_TOKEN = re.compile(r"\\(?P<literal>[{}])|\{\{(?P<path>[^{}\n\\]*)\}\}|\{(?P<field>[^{}\n\\]*)\}")
_NAME = re.compile(r"\s*[^\W\d]")
_MEANT_AS_FIELD = re.compile(
    r"[^\W\d]\w*(?:|:[<>^]?\d*(?:\.\d+)?[dfeg%s]?|![A-Za-z]|\.[^\W\d]\w*|\[[^\]]*\])"
)


def compose(
    source: str, *, names: Mapping[str, Any], fields: FieldNames | None, raw: bool = False
) -> str:
    r"""Turn a prompt into a template as ``df.lbgpt.complete`` takes it.

    Parameters
    ----------
    source : str
        The prompt.
    names : mapping
        Of the notebook.
    fields : FieldNames or None
        Columns; None where there is no frame.
    raw : bool, default False
        No brace means anything.

    Raises
    ------
    Misuse
        If a value is not there, or a single pair of braces holds the name of a variable where
        there is no frame.

    Examples
    --------
    >>> compose('{{who}} says {"a": 1}', names={"who": "{Ann}"}, fields=None)
    '{{Ann}} says {{"a": 1}}'
    """
    if raw:
        return _literal(source)
    parts, end = [], 0
    for token in _TOKEN.finditer(source):
        parts += [_literal(source[end : token.start()]), _replacement(token, names, fields)]
        end = token.end()
    return "".join([*parts, _literal(source[end:])])


def _replacement(token: re.Match[str], names: Mapping[str, Any], fields: FieldNames | None) -> str:
    if token["literal"]:
        return _literal(token["literal"])
    if token["path"] is not None:
        return _value(token["path"], token.group(), names)
    field = token["field"]
    if fields is None:
        if field in names and not callable(names[field]):
            raise Misuse(
                f"{{{field}}} is no column, because there is no --df; {{{{{field}}}}} is the "
                f"value of the variable, and \\{{{field}\\}} the text itself"
            )
        return _literal(token.group())
    name, colon, _ = field.rpartition(":")
    if field in fields or (colon and name in fields) or _MEANT_AS_FIELD.fullmatch(field):
        return token.group()
    return _literal(token.group())


def _value(path: str, written: str, names: Mapping[str, Any]) -> str:
    if not _NAME.match(path):
        return _literal(written)
    try:
        return _literal(as_text(look_up(path, names), path=path.strip()))
    except Misuse as error:
        raise Misuse(f"{error} (literal braces are written \\{{, or give --raw)") from None


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
