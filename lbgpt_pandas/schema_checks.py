"""Does an object fit a shape: what is put right without harm, and what is said of the rest."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.replies import Rounded
from lbgpt_pandas.schema_shapes import (
    TEMPORAL,
    alternatives,
    demanded,
    is_nullable,
    shown,
    sketch,
)
from lbgpt_pandas.schema_types import column_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import BaseModel
    from pydantic_core import ErrorDetails, SchemaValidator

    from lbgpt_pandas.schema_shapes import Shape

Path = tuple[str | int, ...]

_A_NUMBER = re.compile(r"\s*[-+]?[\d_]*\.?\d*(?:e[-+]?\d+)?\s*", re.IGNORECASE)
_OF_A_TYPE = ("_type", "_parsing", "_from_float", "literal_error", "enum", "is_instance_of")
_SCALARS = {"string": str, "integer": int, "number": float, "boolean": bool}
_NARROW = frozenset({"enum", "format"})
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not a key that was asked for",
    "json_invalid": "the JSON is nested too deeply",
}
_PLAIN = str | int | float | dt.date | dt.time | dt.timedelta | Decimal | None
_NAMED_PROBLEMS = 5
_LONGEST_SKETCH = 200


class Settling:
    """One pass over an object, before pydantic sees it.

    pydantic's lax mode reads ``"3"`` as 3, which is welcome, but also ``true`` as 1, 2024 as a
    second of the year 1970, and ``"NaN"`` as a float: these become problems. What is harmless
    and pydantic refuses is put right: a nullable field that is left out is null, a field with a
    default that is null is left out, and an option is found by its text whatever its case.

    Attributes
    ----------
    problems : dict of tuple to str
        What is wrong at a path.
    """

    def __init__(self) -> None:
        self.problems: dict[Path, str] = {}

    def settle(self, value: Any, shape: Shape, path: Path = ()) -> Any:
        """Return the value as pydantic is to see it."""
        kinds = alternatives(shape)
        if isinstance(value, dict):
            objects = [kind for kind in kinds if "properties" in kind]
            return self._object(value, objects[0], path) if len(objects) == 1 else value
        if isinstance(value, list):
            arrays = [kind for kind in kinds if "items" in kind]
            if len(arrays) != 1:
                return value
            items = arrays[0]["items"]
            return [self.settle(each, items, (*path, at)) for at, each in enumerate(value)]
        if value is None:
            return None
        return self._scalar(value, shape, path)

    def _object(self, value: dict[str, Any], shape: Shape, path: Path) -> dict[str, Any]:
        settled = dict(value)
        for key, each in shape["properties"].items():
            is_required = key in shape["required"]
            if value.get(key) is not None:
                settled[key] = self.settle(value[key], demanded(shape, key), (*path, key))
            elif is_required and is_nullable(each):
                settled[key] = None
            elif not is_required and not is_nullable(each):
                settled.pop(key, None)
        return settled

    def _scalar(self, value: Any, shape: Shape, path: Path) -> Any:
        kinds = alternatives(shape)
        for kind in kinds:
            if _SCALARS.get(kind.get("type", "")) is type(value) and kind.keys().isdisjoint(
                _NARROW
            ):
                return value
        options = [option for kind in kinds for option in kind.get("enum", ())]
        types = {kind.get("type") for kind in kinds if "enum" not in kind}
        texts = {kind.get("format") for kind in kinds if kind.get("type") == "string"}
        option = find_option(value, options, exact="string" in types)
        if option is not None:
            return option
        temporal, has_text = bool(texts & TEMPORAL), bool(texts - TEMPORAL)
        is_number = not types.isdisjoint({"integer", "number"})
        match value:
            case bool():
                is_harmful = "boolean" not in types
            case int() | float():
                is_harmful = temporal and not is_number
                is_harmful |= "integer" not in types and "number" in types and not _is_float(value)
            case _:
                is_digits = bool(value.strip()) and _A_NUMBER.fullmatch(value) is not None
                is_harmful = temporal and not is_number and not has_text and is_digits
                is_harmful |= "number" in types and not has_text and not _is_float(value)
        if is_harmful:
            self.problems[path] = mismatch(value, shape)
        if isinstance(value, Rounded) and "string" in types and is_number:
            return str(value)  # of a Decimal, which has all digits only as a text
        return value


def find_option(value: object, options: Sequence[Any], *, exact: bool = False) -> Any:
    """Find the option that a scalar stands for, None without one.

    The same value comes first; then, unless `exact`, the one option whose text is the same but
    for case and outer space. Never a similar one.

    Examples
    --------
    >>> find_option("GOOD ", ["good", "not good"])
    'good'
    >>> find_option("goo", ["good", "not good"]) is None
    True
    """
    for option in options:
        if option == value and isinstance(option, bool) == isinstance(value, bool):
            return option
    if exact or not isinstance(value, str):
        return None
    wanted = value.strip().casefold()
    found = [option for option in options if str(option).strip().casefold() == wanted]
    return found[0] if len(found) == 1 else None


def mismatch(value: object, shape: Shape) -> str:
    """Say that a value is not of a shape."""
    wanted = sketch(shape)
    if len(wanted) > _LONGEST_SKETCH:
        wanted = f"{wanted[: _LONGEST_SKETCH - 1]}…"
    return f"{shown(value)} is not {wanted}"


def problems_of(
    errors: Iterable[ErrorDetails], value: Mapping[str, Any], shape: Shape
) -> dict[Path, str]:
    """Turn pydantic's errors into problems that a model understands, one a path."""
    found: dict[Path, list[ErrorDetails]] = {}
    for error in errors:
        found.setdefault(_path(error, value), []).append(error)
    return {path: _problem(each, path, value, shape) for path, each in found.items()}


def written(problems: Mapping[Path, str]) -> str:
    """Write problems as one text, at most five of them.

    Examples
    --------
    >>> written({("lines", 0, "price"): "is missing"})
    'lines[0].price: is missing'
    """
    texts = []
    for path, text in islice(problems.items(), _NAMED_PROBLEMS):
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
        texts.append(f"{place.removeprefix('.')}: {text}" if place else text)
    more = len(problems) - _NAMED_PROBLEMS
    return "; ".join([*texts, *([f"and {more} more"] if more > 0 else [])])


def plain(value: object) -> Any:
    """Return a value of a model as a cell holds it.

    Models become dicts, options their values, tuples lists; dates and decimals stay; what JSON
    knows as text only (UUID, URL) becomes text.
    """
    if type(value) in _SCALARS.values() or value is None:
        return value
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    members = _members(value)
    if members is not None:
        return {key: plain(each) for key, each in members.items()}
    inner = getattr(value, "root", value) if hasattr(value, "model_fields_set") else value
    inner = inner.value if isinstance(inner, Enum) else inner
    if inner is not value:
        return plain(inner)
    return value if isinstance(value, _PLAIN) else str(value)


@lru_cache(maxsize=64)
def field_validators(model: type[BaseModel]) -> dict[str, SchemaValidator]:
    """Return what validates each field of a model alone, with its own validators.

    Empty if pydantic's schema is not built as it is known to be: then no field of an object
    with a problem is said to be valid.
    """
    from pydantic_core import SchemaValidator  # noqa: PLC0415  # heavy

    core: Any = model.__pydantic_core_schema__
    definitions: list[Any] = []
    config = None
    while core.get("type") != "model-fields":
        if core["type"] == "definitions":
            definitions = core["definitions"]
        if core["type"] == "definition-ref":
            core = next(each for each in definitions if each["ref"] == core["schema_ref"])
            continue
        config = core.get("config", config) if core["type"] == "model" else config
        if "schema" not in core:
            return {}
        core = core["schema"]
    return {
        name: SchemaValidator(
            {"type": "definitions", "schema": field["schema"], "definitions": definitions}
            if definitions
            else field["schema"],
            config,
        )
        for name, field in core["fields"].items()
    }


def _members(value: object) -> dict[str, Any] | None:
    """Return what a dict, model or dataclass holds, by the names that the user gave."""
    from pydantic import BaseModel, RootModel  # noqa: PLC0415  # heavy

    if isinstance(value, dict):
        return value
    if isinstance(value, BaseModel) and not isinstance(value, RootModel):
        names = column_names(type(value))
        return {name: getattr(value, each) for name, each in names.items()}
    if dataclasses.is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    return None


def _is_float(value: object) -> bool:
    """Tell whether a number or text is finite as a float; a text that is none passes for it."""
    try:
        number = float(value)  # type: ignore[arg-type]  # a scalar of JSON
    except OverflowError:
        return False
    except ValueError:
        return True
    return number - number == 0


def _path(error: ErrorDetails, value: Any) -> Path:
    """Return the place in the answer, without the names that pydantic gives to a union's parts."""
    path: list[str | int] = []
    loc = error["loc"]
    for at, part in enumerate(loc):
        is_missing = error["type"] == "missing" and at == len(loc) - 1
        if isinstance(value, dict) and (part in value or is_missing):
            value = value.get(part)
            path.append(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
            path.append(part)
    return tuple(path)


def _problem(errors: list[ErrorDetails], path: Path, value: Any, shape: Shape) -> str:
    kinds = {error["type"] for error in errors}
    if kinds <= _WORDS.keys():
        return _WORDS[errors[0]["type"]]
    for part in path:
        value = value.get(part) if isinstance(value, dict) else value[part]
    inner = _at(shape, path)
    if inner is not None and (len(errors) > 1 or any(kind.endswith(_OF_A_TYPE) for kind in kinds)):
        return mismatch(value, inner)
    text = errors[0]["msg"]
    text = re.sub(r"^(Value error|Assertion failed), ", "", text)
    text = text.replace("Input should", "should", 1)
    return text[:1].lower() + text[1:]


def _at(shape: Shape, path: Path) -> Shape | None:
    """Return the shape at a path, None where a union makes it unclear."""
    for part in path:
        wanted = "items" if isinstance(part, int) else "properties"
        found = [kind for kind in alternatives(shape) if wanted in kind]
        if len(found) != 1 or (isinstance(part, str) and part not in found[0][wanted]):
            return None
        shape = found[0][wanted] if isinstance(part, int) else demanded(found[0], part)
    return shape
