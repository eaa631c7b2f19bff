"""The JSON in a model's reply: found between prose and code fences, never evaluated."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from typing import Self

_THOUGHT_ENDS = "</think>"
_MARKS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]|,(?=\s*[}\]])', re.DOTALL)
_MEMBER = re.compile(r'\{\s*"(?:[^"\\{}]*(?:"|$)|[^"\\]*(?:\\.[^"\\]*)*"\s*:)', re.DOTALL)
_MEMBER_OF_SORTS = re.compile(r"\{\s*(?:'|\w+\s*:)")
_MOST_STRAY_BRACES = 20
_NEAR = 20


class _Broken(ValueError):
    """The text is no JSON; the message says why."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a reply holds.

    Attributes
    ----------
    objects : tuple of dict
        Its different JSON objects, in the order of the text; those inside others are not
        listed.
    error : str
        What is wrong with the last one that is broken, or that there is none; empty where
        all is well.
    """

    objects: tuple[dict[str, Any], ...]
    error: str


def answer_text(text: str | None) -> str:
    """Return a reply without what the model thought aloud before it, and without outer space."""
    return (text or "").rpartition(_THOUGHT_ENDS)[2].strip()


def find_objects(text: str | None) -> Reply:
    r"""Find the JSON objects of a reply.

    Text and code fences around an object do not matter, nor do raw line ends inside strings,
    and one comma before a closing bracket is passed over. NaN, numbers beyond a float, keys
    that are given twice with different values and objects that are cut off are errors. Nothing
    is looked for inside an object that is broken; braces of the prose are passed over. Half of
    a character in a string (``"\ud800"``) becomes U+FFFD.

    Examples
    --------
    >>> find_objects('Sure:\n```json\n{"a": [1, 2,]}\n```').objects
    ({'a': [1, 2]},)
    >>> find_objects("I do not know.").error
    'there is no JSON object in the answer'
    """
    body = answer_text(text)
    with suppress(ValueError):
        whole = _loads(body, [])
        if isinstance(whole, dict):
            return Reply((whole,), "")
    found: dict[str, dict[str, Any]] = {}
    error, end, stray = "", 0, 0
    while stray < _MOST_STRAY_BRACES and (start := body.find("{", end)) >= 0:
        is_object = _MEMBER.match(body, start) is not None
        end, commas = _span(body, start)
        if end < 0 and is_object:
            error = "the JSON object is cut off before its end"
            break
        try:
            # One brace, which is no JSON, where its end is not found.
            part = body[start : max(end, start + 1)]
            value = _loads(part, [comma - start for comma in commas if end > 0])
            found[json.dumps(value, sort_keys=True)] = value
        except _Broken as broken:
            error = str(broken)
            if end < 0 or not (is_object or _MEMBER_OF_SORTS.match(body, start)):
                end, stray = start + 1, stray + 1
    if not found and not error:
        error = "there is no JSON object in the answer" if body else "the answer is empty"
    return Reply(tuple(found.values()), error)


def load_json(text: str) -> Any:
    """Read a text that is JSON as a whole, by the rules of `find_objects`.

    Raises
    ------
    ValueError
        If it is none; the message says why.
    """
    commas = [mark.start() for mark in _MARKS.finditer(text) if mark.group() == ","]
    return _loads(text, commas)


def _span(text: str, start: int) -> tuple[int, list[int]]:
    """Find the end of the object that begins at `start`, -1 without one, and idle commas."""
    depth = 0
    commas: list[int] = []
    for mark in _MARKS.finditer(text, start):
        match mark.group():
            case "{" | "[":
                depth += 1
            case "}" | "]":
                depth -= 1
                if not depth:
                    return mark.end(), commas
            case ",":
                commas.append(mark.start())
    return -1, commas


def _loads(text: str, commas: list[int]) -> Any:
    if len(commas) == 1:
        text = f"{text[: commas[0]]} {text[commas[0] + 1 :]}"
    try:
        value = json.loads(
            text,
            strict=False,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_unique,
        )
        return whole(value) if "\\u" in text else value
    except json.JSONDecodeError as error:
        near = text[max(0, error.pos - _NEAR) : error.pos + _NEAR]
        raise _Broken(f"the JSON is broken: {error.msg} near {near!r}") from None
    except RecursionError:
        raise _Broken("the JSON is nested too deeply") from None
    except _Broken:
        raise
    except ValueError:  # beyond sys.get_int_max_str_digits()
        raise _Broken("the JSON has a number of thousands of digits") from None


def _refuse_constant(name: str) -> NoReturn:
    raise _Broken(f"{name} is not JSON; use null")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _Broken(f"the number {digits[:_NEAR]} is too large")
    return number if Decimal(repr(number)) == Decimal(digits) else Rounded(number, digits)


class Rounded(float):
    """A number with more digits than a float holds; `str` gives all of them."""

    _digits: str

    def __new__(cls, number: float, digits: str) -> Self:
        """Take a number and how it was written."""
        rounded = super().__new__(cls, number)
        rounded._digits = digits
        return rounded

    def __str__(self) -> str:
        return self._digits


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        for key, value in pairs:
            if json.dumps(value) != json.dumps(members[key]):
                raise _Broken(f"the key {json.dumps(key)} is given twice, with different values")
    return members


def whole(value: Any) -> Any:
    """Return JSON data with U+FFFD in the place of halves of characters (lone surrogates)."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [whole(each) for each in value]
        case dict():
            return {whole(key): whole(each) for key, each in value.items()}
    return value
