"""Kinds of compiled templates, and what a row may be rendered to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from lbgpt_pandas.cells import cell_text, cell_value, is_missing
from lbgpt_pandas.engine.errors import InvalidInput, TemplateError
from lbgpt_pandas.rows import MissingCell

if TYPE_CHECKING:
    from collections.abc import Hashable

    from lbgpt_pandas.engine.types import Message
    from lbgpt_pandas.rows import Block

Accept = Callable[[object], "Hashable"]
"""Checks what a row was rendered to and makes it comparable."""


@dataclass(frozen=True, slots=True)
class Structure:
    """JSON data that a row was rendered to; equal if its JSON is.

    Attributes
    ----------
    json : bytes
        The data as JSON with sorted keys.
    data : list of dict
        Chat messages, or the parts of one message.
    """

    json: bytes
    data: list[dict[str, object]] = field(compare=False)


class Template(ABC):
    """A compiled template."""

    @abstractmethod
    def used(self) -> tuple[str, ...] | None:
        """Names of the fields it uses; None if each row decides that."""

    def frame(self) -> tuple[str, str] | None:
        """Fixed texts around what the rows differ in, in the last message; None if unknown."""
        return None

    @abstractmethod
    def render(self, block: Block) -> Sequence[Hashable]:
        """Render every row of a block.

        Parameters
        ----------
        block : Block of length n
            Rows that are NA or cannot be sent are noted in it.

        Returns
        -------
        sequence of hashable, of length n
            Equal exactly where the prompts are; None where a row has none. What stands for rows
            that the block has noted means nothing.

        Raises
        ------
        TemplateError
            If the template does not fit a row.
        """

    def messages(self, rendered: Any) -> list[Message]:
        """Chat messages of one rendered row."""
        if isinstance(rendered, Structure):
            return rendered.data
        return [{"role": "user", "content": rendered}]


class TextTemplate(Template):
    """A text with fields.

    Parameters
    ----------
    literals : sequence of str, of length m + 1
        What stands around the fields.
    fields : sequence of tuple of str, of length m
        Name and format spec of each field.
    """

    def __init__(self, literals: Sequence[str], fields: Sequence[tuple[Hashable, str]]) -> None:
        escaped = [each.replace("{", "{{").replace("}", "}}") for each in literals]
        self._pattern = "{}".join(escaped)
        self._fields = fields
        self._ends = literals[0], literals[-1]

    def used(self) -> tuple[str, ...]:
        """Names of the fields, each once."""
        return tuple(dict.fromkeys(str(name) for name, _ in self._fields))

    def frame(self) -> tuple[str, str] | None:
        """What stands before the first field and after the last one."""
        return self._ends if self._fields and any(self._ends) else None

    def render(self, block: Block) -> Sequence[str]:
        """Render column by column."""
        if not self._fields:
            return [self._pattern.format()] * len(block)
        columns = [block.texts(name, spec) for name, spec in self._fields]
        if self._pattern == "{}":
            return columns[0]
        return list(map(self._pattern.format, *columns))


class RowTemplate(Template):
    """A template that is rendered row by row.

    Parameters
    ----------
    render : callable
        Takes a block and the offset of a row.
    accept : callable
        Checks the result.
    used : tuple of str, optional
        The fields, where they are known.
    """

    def __init__(
        self,
        render: Callable[[Block, int], object],
        *,
        accept: Accept,
        used: tuple[str, ...] | None = None,
    ) -> None:
        self._render, self._accept, self._used = render, accept, used

    def used(self) -> tuple[str, ...] | None:
        """Names of the fields, where they are known."""
        return self._used

    def render(self, block: Block) -> Sequence[Hashable]:
        """Render row by row."""
        return [self._one(block, offset) for offset in range(len(block))]

    def _one(self, block: Block, offset: int) -> Hashable:
        if offset in block.missing or offset in block.faulty:
            return None
        try:
            result = self._accept(self._render(block, offset))
        except MissingCell as missing:
            block.missing[offset] = str(missing)
        except InvalidInput as error:
            block.faulty[offset] = InvalidInput(f"{block.where(offset)}: {error.message}")
        except TemplateError as error:
            cause = error.__cause__ or error
            raise TemplateError(f"{block.where(offset)}: {error}") from cause
        except Exception as error:
            # A callable that caught the end of its row may stumble over what it has not got.
            if offset not in block.missing:
                raise TemplateError(
                    f"{block.where(offset)}: the callable raised {type(error).__name__}"
                ) from error
        else:
            return result
        return None


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a chat template.

    Attributes
    ----------
    fixed : dict
        The message without what is templated.
    content : Template, list or None
        Template of the content; or its parts, each with the template of its text or None; or
        None where `fixed` is all.
    """

    fixed: dict[str, object]
    content: Template | list[tuple[dict[str, object], Template | None]] | None

    def templates(self) -> list[Template]:
        """What is templated, in order."""
        if isinstance(self.content, list):
            return [text for _, text in self.content if text is not None]
        return [] if self.content is None else [self.content]

    def message(self, rendered: Iterator[object]) -> Message:
        """Fill in what its templates were rendered to, in order."""
        if self.content is None:
            return self.fixed
        if isinstance(self.content, list):
            return self.fixed | {
                "content": [
                    part if text is None else part | {"text": next(rendered)}
                    for part, text in self.content
                ]
            }
        value = next(rendered)
        return self.fixed | {"content": value.data if isinstance(value, Structure) else value}


class ChatTemplate(Template):
    """A list of chat messages with templated contents.

    Parameters
    ----------
    turns : sequence of Turn
        Its messages.
    """

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._turns = turns
        self._templates = [each for turn in turns for each in turn.templates()]

    def frame(self) -> tuple[str, str] | None:
        """What stands around the fields of the last message, if that is one text."""
        last = self._turns[-1].content
        return last.frame() if isinstance(last, Template) else None

    def used(self) -> tuple[str, ...] | None:
        """Names of the fields of all messages; None if one of them depends on the row."""
        names: dict[str, None] = {}
        for template in self._templates:
            used = template.used()
            if used is None:
                return None
            names |= dict.fromkeys(used)
        return tuple(names)

    def render(self, block: Block) -> Sequence[Hashable]:
        """Render message by message."""
        if not self._templates:
            return [()] * len(block)
        columns = [template.render(block) for template in self._templates]
        return [None if None in texts else texts for texts in zip(*columns, strict=True)]

    def messages(self, rendered: Any) -> list[Message]:
        """Chat messages of one rendered row."""
        contents = iter(rendered)
        return [turn.message(contents) for turn in self._turns]


def accept_text(result: object) -> Hashable:
    """Take a text; None and NA leave the row out."""
    if is_missing(result):
        return None
    if isinstance(result, str | bytes):
        return cell_text(result)
    raise TemplateError(f"gave a {type(result).__name__} where a str is expected")


def accept_messages(result: object) -> Hashable:
    """Take a list of chat messages; None leaves the row out."""
    if is_missing(result):
        return None
    try:
        return as_messages(result)
    except NotMessages as error:
        raise TemplateError(f"gave no chat messages: {error}") from error


def accept_prompt(result: object) -> Hashable:
    """Take a text or a list of chat messages; None and NA leave the row out."""
    return accept_messages(result) if isinstance(result, list | tuple) else accept_text(result)


def accept_content(result: object) -> Hashable:
    """Take a text or the list of parts of a message; None and NA leave the row out."""
    if not isinstance(result, list | tuple):
        return accept_text(result)
    if not result or not all(isinstance(part, Mapping) and "type" in part for part in result):
        raise TemplateError("gave a list that is not one of content parts: dicts with a type")
    return _structure(result)


class NotMessages(InvalidInput):
    """Data that are not a list of chat messages."""


def as_messages(value: object) -> Structure:
    """Copy a list of chat messages as plain data.

    Raises
    ------
    NotMessages
        If it is no such list.
    InvalidInput
        If something inside cannot be sent.
    """
    messages = cell_value(value) if not isinstance(value, str) else value
    if not isinstance(messages, list) or not messages:
        kind = "an empty list" if messages == [] else f"a {type(value).__name__}"
        raise NotMessages(f"{kind} where a list of dicts with role and content is expected")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise NotMessages(f"message {number} is not a dict with a role")
    return _structure(messages)


def _structure(value: object) -> Structure:
    plain = cell_value(value)
    try:
        return Structure(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS), plain)
    except TypeError as error:
        raise InvalidInput(f"a message cannot be written as JSON: {error}") from error
