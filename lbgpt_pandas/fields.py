"""The syntax of text templates: ``{column}``, ``{price:.2f}``, ``{{`` and ``}}``.

It is deliberately small. A field is the name of a column and at most a plain format spec: no
attribute, index or conversion, through which ``str.format`` would give away whatever an object
refers to.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lbgpt_pandas.cells import short
from lbgpt_pandas.engine.errors import TemplateError
from lbgpt_pandas.rows import BARE

if TYPE_CHECKING:
    from collections.abc import Hashable

    from lbgpt_pandas.rows import FieldNames

MAX_WIDTH = 10_000
"""Largest width and precision of a format spec: more would be a way to fill the memory."""

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_SPEC = re.compile(r"[<>^]?(\d*)(?:\.(\d+))?[dfeg%s]?")
_CONVERSION = re.compile(r"![A-Za-z]*$")
_EXCERPT = 20


def parse_fields(
    source: str, *, fields: FieldNames, what: str
) -> tuple[list[str], list[tuple[Hashable, str]]]:
    """Take a text template apart.

    Parameters
    ----------
    source : str
        The template.
    fields : FieldNames
        What it may name.
    what : str
        What it is, for messages.

    Returns
    -------
    literals : list of str, of length m + 1
        What stands around the fields, with single braces.
    used : list of tuple of str, of length m
        Name and format spec of each field.

    Raises
    ------
    TemplateError
        If a field is no column or more than a name and a plain format spec, or a brace stands
        alone; with its position.

    Examples
    --------
    >>> from lbgpt_pandas.rows import FieldNames
    >>> parse_fields("{n:.1f} in {{x}}", fields=FieldNames(["n"]), what="template")
    (['', ' in {x}'], [('n', '.1f')])
    """
    literals, end = [""], 0
    used: list[tuple[Hashable, str]] = []
    for token in _TOKEN.finditer(source):
        literals[-1] += source[end : token.start()]
        end = token.end()
        text = token.group()
        if text in {"{{", "}}"}:
            literals[-1] += text[0]
        elif token.group(1) is None:
            raise TemplateError(
                f"{what}: {_at(source, token.start())}: {text!r} has no partner; literal "
                "braces are written {{ and }}"
            )
        else:
            try:
                used.append(_parse_field(token.group(1), fields))
            except TemplateError as error:
                raise TemplateError(f"{what}: {_at(source, token.start())}: {error}") from None
            literals.append("")
    literals[-1] += source[end:]
    return literals, used


def _at(source: str, position: int) -> str:
    line = source.count("\n", 0, position) + 1
    column = position - source.rfind("\n", 0, position)
    excerpt = source[max(0, position - _EXCERPT) : position + _EXCERPT]
    return f"position {position} (line {line}, column {column}, near {excerpt!r})"


def _parse_field(text: str, fields: FieldNames) -> tuple[str, str]:
    """Name and format spec of what stands between two braces."""
    if text in fields:
        fields.place(text)
        return text, ""
    name, colon, spec = text.rpartition(":")
    name, spec = (name, spec) if colon else (text, "")
    if name not in fields:
        raise TemplateError(_field_fault(name, fields))
    fields.place(name)
    parsed = _SPEC.fullmatch(spec)
    if parsed is None:
        raise TemplateError(
            f"the format {spec!r} is not supported; there is [<>^]width.precision and one of d f e "
            "g % s"
        )
    # The length first: int() refuses thousands of digits with an error of its own.
    numbers = [number.lstrip("0") for number in parsed.groups(default="")]
    if any(len(each) > len(str(MAX_WIDTH)) or int(each or 0) > MAX_WIDTH for each in numbers):
        raise TemplateError(f"the format {spec!r} is wider than {MAX_WIDTH:,} characters")
    return name, spec


def _field_fault(name: str, fields: FieldNames) -> str:
    """Say what is wrong with a field that is no column."""
    braces = "literal braces are written {{ and }}"
    if name == BARE:
        return (
            f"{{}} stands for the value of a Series; in a frame name a column: {fields.suggest('')}"
        )
    if name.isdigit():
        return f"{{{name}}}: fields have names, not numbers; {fields.suggest(name)}"
    if name.isidentifier():
        return f"there is no column {name!r}; {fields.suggest(name)}"
    if _CONVERSION.search(name):
        return f"{{{name}}}: conversions such as !r are not supported"
    if re.search(r"[.\[]", name) and re.match(r"\w", name):
        return (
            f"{{{short(name)}}}: attributes and indices are not reached from a template; put the "
            "value into a column, or give a callable"
        )
    return f"{short(name)} is no column; {fields.suggest(name)}; {braces}"
