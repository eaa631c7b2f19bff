"""Templates: what turns rows into prompts.

Four kinds, all compiled once for the columns of a frame and rendered block by block: texts
with ``{column}`` fields, callables of a row, jinja2 templates, and lists of chat messages
whose contents are any of these. Texts of cells are put in as they are and never parsed.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

from lbgpt_pandas.cells import cell_value
from lbgpt_pandas.engine.errors import InvalidInput, TemplateError
from lbgpt_pandas.fields import parse_fields
from lbgpt_pandas.rendering import (
    ChatTemplate,
    RowTemplate,
    TextTemplate,
    Turn,
    accept_content,
    accept_messages,
    accept_prompt,
    accept_text,
    as_messages,
)

if TYPE_CHECKING:
    import jinja2

    from lbgpt_pandas.rendering import Accept, Template
    from lbgpt_pandas.rows import Block, FieldNames


def compile_template(template: object, *, fields: FieldNames) -> Template:
    """Compile a template for the columns of a frame.

    Parameters
    ----------
    template : str, callable, jinja2.Template or list of messages
        A text with ``{column}`` fields; a callable that takes a `Row` and returns a str, a list
        of chat messages, or None to leave the row out; a jinja2 template; or a list of dicts
        with role and content, where the content is one of these or a list of parts whose
        ``"text"`` is one of these.
    fields : FieldNames
        What it may name.

    Returns
    -------
    Template

    Raises
    ------
    TemplateError
        If a field is no column (with the nearest ones), names several, or is more than a name
        and a plain format spec; if a brace stands alone (with its position); if a jinja2
        template has blocks.

    Examples
    --------
    >>> from lbgpt_pandas.rows import FieldNames
    >>> compile_template("{city}: {price:.2f} {{EUR}}", fields=FieldNames(["city", "price"])).used()
    ('city', 'price')
    """
    if isinstance(template, list | tuple):
        return _compile_chat(template, fields=fields)
    return _compile_one(template, fields=fields, accept=accept_prompt, what="template")


def compile_text(template: object, *, fields: FieldNames, what: str) -> Template:
    """Compile a template that gives one text, such as a system message.

    Raises
    ------
    TemplateError
        As `compile_template`, and for a list of messages.
    """
    return _compile_one(template, fields=fields, accept=accept_text, what=what)


def compile_messages(source: object, *, fields: FieldNames) -> Template:
    """Compile what ``messages=`` is given: a column, or a callable, with whole lists of messages.

    Raises
    ------
    TemplateError
        If there is no such column.
    """
    if callable(source):
        return RowTemplate(_calling(source, what="messages"), accept=accept_messages)
    if not isinstance(source, Hashable):
        raise TemplateError(
            "messages= takes a column or a callable; a list of chat messages for every row goes "
            "into template="
        )
    fields.place(source)
    return RowTemplate(
        lambda block, offset: _stored_messages(block, offset, source),
        accept=as_messages,
        used=(str(source),),
    )


def column_template(name: Hashable, *, fields: FieldNames) -> Template:
    """Compile the template that is the text of one column, whatever its name.

    Raises
    ------
    TemplateError
        If there is no such column.
    """
    fields.place(name)
    return TextTemplate(["", ""], [(name, "")])


def sandboxed(source: str) -> jinja2.Template:
    """Compile a jinja2 template in a sandbox, with its limits from the start.

    Parameters
    ----------
    source : str
        Text of the template.

    Returns
    -------
    jinja2.Template
        To be given as a template; its names are columns, ``index``, and ``row``.

    Raises
    ------
    TemplateError
        For a syntax error, with its line.

    Examples
    --------
    >>> sandboxed("{{ city | upper }}").render(city="Rome")
    'ROME'
    """
    from lbgpt_pandas.sandbox import compile_source  # noqa: PLC0415  # it imports jinja2

    return compile_source(source)


def _stored_messages(block: Block, offset: int, name: Hashable) -> object:
    value = block.value(name, offset)
    # What stands for NA is a text, and becomes the one user message.
    if block.fill is None or value is not block.fill:
        return value
    return [{"role": "user", "content": value}]


def _compile_one(template: object, *, fields: FieldNames, accept: Accept, what: str) -> Template:
    if isinstance(template, str):
        return TextTemplate(*parse_fields(template, fields=fields, what=what))
    # A jinja2 template can only exist if its module was imported.
    jinja = sys.modules.get("jinja2")
    if jinja is not None and isinstance(template, jinja.Template):
        from lbgpt_pandas.sandbox import SandboxedTemplate  # noqa: PLC0415  # it imports jinja2

        return RowTemplate(SandboxedTemplate(template).render, accept=accept_text)
    if callable(template):
        return RowTemplate(_calling(template, what=what), accept=accept)
    raise TemplateError(
        f"{what} is a {type(template).__name__}; give a str with {{column}} fields, a callable, or "
        "a jinja2 template"
    )


def _calling(function: Callable[..., object], *, what: str) -> Callable[[Block, int], object]:
    if inspect.iscoroutinefunction(function):
        raise TemplateError(f"{what} is a coroutine function; give a plain one")
    return lambda block, offset: function(block.row(offset))


def _compile_chat(template: Sequence[object], *, fields: FieldNames) -> ChatTemplate:
    if not template:
        raise TemplateError("the chat template is an empty list")
    turns = []
    for number, message in enumerate(template):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise TemplateError(f"message {number} of the chat template is not a dict with a role")
        fixed = {key: value for key, value in message.items() if key != "content"}
        content = message.get("content")
        what = f"the content of message {number}"
        if content is None:
            turns.append(Turn(_plain(dict(message), what=what), None))
        elif isinstance(content, list | tuple):
            parts = [_compile_part(part, fields=fields, what=what) for part in content]
            turns.append(Turn(_plain(fixed, what=what), parts))
        else:
            compiled = _compile_one(content, fields=fields, accept=accept_content, what=what)
            turns.append(Turn(_plain(fixed, what=what), compiled))
    return ChatTemplate(turns)


def _compile_part(
    part: object, *, fields: FieldNames, what: str
) -> tuple[dict[str, object], Template | None]:
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        raise TemplateError(f"{what} has a part that is not a dict with a type")
    if "text" not in part:
        return _plain(part, what=what), None
    fixed = {key: value for key, value in part.items() if key != "text"}
    text = _compile_one(part["text"], fields=fields, accept=accept_text, what=what)
    return _plain(fixed, what=what), text


def _plain(value: Mapping[str, object], *, what: str) -> dict[str, object]:
    try:
        plain: dict[str, object] = cell_value(value)
    except InvalidInput as error:
        raise TemplateError(f"{what}: {error}") from error
    return plain
