"""What `classify` and `matches` ask for: one of some labels, or yes or no."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from lbgpt_pandas.cells import is_missing
from lbgpt_pandas.engine.errors import ConfigurationError, InvalidInput
from lbgpt_pandas.label_forms import (
    bare_form,
    find_answer,
    folded,
    forms_of,
    object_format,
    parts_of,
    quoted,
    without_bullet,
)
from lbgpt_pandas.replies import answer_text
from lbgpt_pandas.schema_columns import option_array, option_dtype
from lbgpt_pandas.schema_shapes import shown

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

MOST_LABELS = 1_000

_NAMED_LABELS = 20


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Labels:
    """Labels to choose from, made with `Labels.of`.

    Attributes
    ----------
    names : tuple of str
        The labels, in order.
    descriptions : tuple of str
        What each means; empty where nothing is said.
    multi : bool
        A row may have several of them, or none.
    """

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    multi: bool
    _by_text: Mapping[str, str]

    @classmethod
    def of(cls, labels: object, *, multi: bool = False) -> Labels:
        """Read labels.

        Parameters
        ----------
        labels : list of str, Enum with values of str, or mapping of str to description
            At most 1,000. A Series, an Index and another ``Labels`` are taken as well.
        multi : bool, default False
            A row may have several of them, or none.

        Raises
        ------
        ConfigurationError
            If there are none or too many, or one is not text, is empty, or is the same as
            another but for case, outer space and quotes.

        Examples
        --------
        >>> Labels.of(["good", "not good"]).parse("**Not good**")
        ('not good', '')
        """
        described = _described(labels)
        if not described:
            raise ConfigurationError("labels: there are none; give at least one")
        if len(described) > MOST_LABELS:
            raise ConfigurationError(
                f"labels: {len(described):,} are more than {MOST_LABELS:,}, too many for a prompt; "
                "embed the labels and the rows with .lbgpt.embed, keep the nearest labels of each "
                "row, and classify among those"
            )
        by_text: dict[str, str] = {}
        for name, _ in described:
            text = bare_form(name)
            if not text:
                raise ConfigurationError(f"labels: {name!r} has no text to be told by")
            if text in by_text:
                raise ConfigurationError(
                    f"labels: {by_text[text]!r} and {name!r} are the same but for case, space and "
                    "quotes; keep one of them"
                )
            by_text[text] = name
        by_text |= {folded(name): name for name, _ in described}
        names, descriptions = zip(*described, strict=True)
        return cls(names, descriptions, multi, by_text)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        more = len(self.names) - _NAMED_LABELS
        tail = f", and {more} more" if more > 0 else ""
        kind = "any of" if self.multi else "one of"
        return f"Labels({kind} {', '.join(map(repr, self.names[:_NAMED_LABELS]))}{tail})"

    @property
    def key(self) -> Literal["label", "labels"]:
        """The key of the JSON object that is asked for."""
        return "labels" if self.multi else "label"

    @property
    def dtype(self) -> pd.CategoricalDtype | np.dtype[np.object_]:
        """Category of all labels in order; object where a row may have several."""
        return np.dtype(object) if self.multi else option_dtype(self.names)

    @property
    def response_format(self) -> dict[str, Any]:
        """What a request sends as ``response_format``, for an object with `key`."""
        shape: dict[str, Any] = {"type": "string", "enum": list(self.names)}
        if self.multi:
            shape = {"type": "array", "items": shape}
        meanings = [
            f"{quoted(name)}: {text}"
            for name, text in zip(self.names, self.descriptions, strict=True)
            if text
        ]
        if meanings:
            shape["description"] = "; ".join(meanings)
        return object_format(self.key, shape)

    @property
    def instructions(self) -> str:
        """Text that asks for the label, for a model that takes no ``response_format``."""
        if self.multi:
            head = (
                'Answer with JSON only: {"labels": [...]}, with every label that applies, and [] '
                "if none does. The labels are exactly these:"
            )
        else:
            head = 'Answer with JSON only: {"label": "..."}, with exactly one of these labels:'
        lines = [
            f"- {quoted(name)}{': ' if text else ''}{' '.join(text.split())}"
            for name, text in zip(self.names, self.descriptions, strict=True)
        ]
        return "\n".join([head, *lines])

    def write(self, answer: object, *, as_json: bool) -> str:
        """Write the answer of an example, as JSON in any case.

        Raises
        ------
        InvalidInput
            If it is none of the labels.
        """
        del as_json
        found, problem = self._several(answer) if self.multi else (self._named(answer), "")
        if found is None:
            raise InvalidInput(f"the answer {problem or self._refusal(answer)}")
        return json.dumps({self.key: found}, ensure_ascii=False)

    def parse(self, text: str | None) -> tuple[Any, str]:
        """Read the label of a reply, as JSON or as plain text.

        A label is told by its whole text, whatever its case, outer space, quotes, emphasis and
        full stop; never by a part of it or by likeness.

        Parameters
        ----------
        text : str or None
            The reply.

        Returns
        -------
        str, list of str or None
            The label as it was given, or None; with `multi` a list in the order of the labels,
            each once, empty if none applies.
        str
            What is wrong, as a model can be told; empty where nothing is.
        """
        literal = self._by_text.get(folded(answer_text(text)))
        found, error = (literal, "") if literal else find_answer(text, self.key)
        if error:
            return None, error
        if self.multi:
            return self._several(found)
        name = self._named(found)
        return (name, "") if name is not None else (None, self._refusal(found))

    def column(
        self,
        values: Sequence[Any],
        *,
        index: pd.Index[Any],
        name: Hashable | None = None,
    ) -> pd.Series[Any]:
        """Put parsed labels in a column, by position.

        Parameters
        ----------
        values : sequence of str, list of str or None, as long as `index`
            None is NA.
        index : Index
            Any, also with duplicates.
        name : hashable, optional
            Of the Series.

        Raises
        ------
        ValueError
            If there are not as many values as places, or one of them is no label.
        """
        _check_length(values, index)
        known = {*self.names, None}
        for value in values:
            for each in value if isinstance(value, list) else [value]:
                if each not in known:
                    raise ValueError(f"{each!r} is none of the labels")
        if not self.multi:
            return pd.Series(option_array(values, self.names), index=index, name=name)
        cells = np.empty(len(values), dtype=object)
        for position, value in enumerate(values):
            cells[position] = value
        return pd.Series(cells, index=index, name=name, dtype=object)

    def _named(self, value: object) -> str | None:
        if isinstance(value, list | dict):
            return None
        for text in forms_of(value if isinstance(value, str) else json.dumps(value)):
            if text in self._by_text:
                return self._by_text[text]
        return None

    def _several(self, found: object) -> tuple[list[str] | None, str]:
        if isinstance(found, str):
            whole, parts = self._named(found), parts_of(found)
            if self._named(parts[0]) is None:
                parts = [without_bullet(part) for part in parts]
            if whole is not None and len(parts) > 1 and None not in map(self._named, parts):
                return None, f"{shown(found)} may be one label or several; answer with JSON"
            found = [found] if whole is not None else parts
        if not isinstance(found, list):
            return None, self._refusal(found)
        chosen = set()
        for each in found:
            name = self._named(each)
            if name is None:
                return None, self._refusal(each)
            chosen.add(name)
        return [name for name in self.names if name in chosen], ""

    def _refusal(self, value: object) -> str:
        more = len(self.names) - _NAMED_LABELS
        tail = f", and {more} more" if more > 0 else ""
        labels = ", ".join(map(quoted, self.names[:_NAMED_LABELS]))
        return f"{shown(value)} is not one of the labels {labels}{tail}"


@dataclass(frozen=True, slots=True)
class YesNo:
    """A question that is answered with yes or no.

    Examples
    --------
    >>> YesNo().parse("Yes."), YesNo().parse('{"answer": false}')
    ((True, ''), (False, ''))
    """

    key = "answer"
    dtype = pd.BooleanDtype()
    instructions = "Answer with yes or no only, without any other text."

    @property
    def response_format(self) -> dict[str, Any]:
        """What a request sends as ``response_format``: ``{"answer": true}``."""
        return object_format(self.key, {"type": "boolean"})

    def write(self, answer: object, *, as_json: bool) -> str:
        """Write the answer of an example.

        Raises
        ------
        InvalidInput
            If it is neither yes nor no.
        """
        is_plain = isinstance(answer, bool | np.bool_)
        found, problem = (bool(answer), "") if is_plain else self.parse(str(answer))
        if found is None:
            raise InvalidInput(f"the answer {problem}")
        if as_json:
            return json.dumps({self.key: found})
        return "yes" if found else "no"

    def parse(self, text: str | None) -> tuple[bool | None, str]:
        """Read yes, no, true or false, as JSON (``{"answer": true}``) or as plain text.

        The whole text counts, whatever its case, outer space, quotes and full stop.

        Returns
        -------
        bool or None
        str
            What is wrong, as a model can be told; empty where nothing is.
        """
        found, error = find_answer(text, self.key)
        if error:
            return None, error
        if isinstance(found, bool):
            return found, ""
        for form in forms_of(found) if isinstance(found, str) else ():
            if form in {"yes", "true"}:
                return True, ""
            if form in {"no", "false"}:
                return False, ""
        return None, f"{shown(found)} is neither yes nor no"

    def column(
        self,
        values: Sequence[bool | None],
        *,
        index: pd.Index[Any],
        name: Hashable | None = None,
    ) -> pd.Series[Any]:
        """Put answers in a nullable boolean column, by position; None is NA.

        Raises
        ------
        ValueError
            If there are not as many values as places in the index.
        """
        _check_length(values, index)
        cells = np.array(list(values), dtype=object)
        return pd.Series(cells, index=index, name=name, dtype=pd.BooleanDtype())


def _described(labels: object) -> list[tuple[str, str]]:
    """Return labels with their descriptions."""
    if isinstance(labels, Labels):
        return list(zip(labels.names, labels.descriptions, strict=True))
    if isinstance(labels, Mapping):
        return [(_label(name), _meaning(name, text)) for name, text in labels.items()]
    if isinstance(labels, type) and issubclass(labels, Enum):
        return [(_label(member.value), "") for member in labels]
    if isinstance(labels, pd.CategoricalDtype):
        labels = labels.categories
    if isinstance(labels, set | frozenset):
        raise ConfigurationError("labels: a set has no order; give a list, as sorted(labels)")
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        raise ConfigurationError(
            f"labels={labels!r}: give a list such as ['good', 'bad'], an Enum, or a mapping of "
            "labels to descriptions"
        )
    return [(_label(name), "") for name in labels]


def _label(name: object) -> str:
    if isinstance(name, Enum):
        name = name.value
    if not isinstance(name, str):
        hint = "use .lbgpt.matches for yes and no" if isinstance(name, bool) else "write it as text"
        hint = "drop what is missing" if is_missing(name) else hint
        raise ConfigurationError(
            f"labels: {name!r} is of type {type(name).__name__}, and labels are text; {hint}"
        )
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"labels: {name!r} has half of a character (a lone surrogate)"
        ) from None
    return str.__str__(name)


def _meaning(name: object, text: object) -> str:
    if text is None or isinstance(text, str):
        return text or ""
    raise ConfigurationError(
        f"labels: the description of {name!r} is of type {type(text).__name__}; give text or None"
    )


def _check_length(values: Sequence[object], index: pd.Index[Any]) -> None:
    if len(values) != len(index):
        raise ValueError(f"{len(values)} values for an index of {len(index)}")
