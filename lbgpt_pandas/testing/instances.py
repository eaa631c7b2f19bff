"""The smallest JSON value that a JSON schema accepts: how a fake model fills in a form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "a@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_DEPTHS = (4, 8, 16, 32, 64)
_MOST_STEPS = 10_000


class NoInstance(ValueError):
    """The schema asks for something that cannot be made up."""


def minimal_instance(schema: object) -> Any:
    """Make the smallest value that fits a schema.

    Objects have their required properties only, arrays their fewest items, texts and numbers
    are as short and as near to 0 as their bounds allow, and of alternatives the first is taken
    that leads to an end.

    Parameters
    ----------
    schema : dict or bool
        A JSON schema with the keywords that providers accept for structured output: ``type``,
        ``properties``, ``required``, ``items``, ``prefixItems``, ``enum``, ``const``,
        ``anyOf``, ``oneOf``, ``allOf``, ``$ref``, ``format`` and the bounds.

    Raises
    ------
    NoInstance
        For a ``pattern``, an unknown ``$ref``, or a schema without a finite instance.

    Examples
    --------
    >>> minimal_instance({
    ...     "type": "object",
    ...     "properties": {
    ...         "mood": {"enum": ["good", "bad"]},
    ...         "score": {"type": "integer", "minimum": 1},
    ...         "tags": {"type": "array", "items": {"type": "string"}},
    ...     },
    ...     "required": ["mood", "score", "tags"],
    ... })
    {'mood': 'good', 'score': 1, 'tags': []}
    """
    failure: NoInstance | None = None
    for deepest in _DEPTHS:
        try:
            return _Form(schema, deepest).fill(schema)
        except NoInstance as error:
            failure = error
    raise failure or NoInstance("no depth was tried")


class _Form:
    """One attempt, up to a depth: a schema that refers to itself is filled in shallowly first."""

    def __init__(self, root: object, deepest: int) -> None:
        self._root = root
        self._deepest = deepest
        self._steps = 0

    def fill(self, schema: object, depth: int = 0) -> Any:
        self._steps += 1
        if depth > self._deepest or self._steps > _MOST_STEPS:
            raise NoInstance("the schema refers to itself without end")
        if not isinstance(schema, Mapping):
            if schema is False:
                raise NoInstance("the schema `false` accepts nothing")
            return {}
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        for keyword in ("$ref", "allOf", "anyOf", "oneOf"):
            if keyword in schema:
                rest = {name: value for name, value in schema.items() if name != keyword}
                return self._fill_composed(keyword, schema[keyword], rest, depth + 1)
        return self._fill_type(schema, depth)

    def _fill_composed(
        self, keyword: str, value: Any, rest: Mapping[str, object], depth: int
    ) -> Any:
        match keyword:
            case "$ref":
                return self.fill(_merge(_resolve(value, self._root), rest), depth)
            case "allOf":
                for part in value:
                    known = _resolve(part["$ref"], self._root) if "$ref" in part else part
                    rest = _merge(known, rest)
                return self.fill(rest, depth)
            case _:
                return self._fill_first([_merge(choice, rest) for choice in value], depth)

    def _fill_first(self, choices: Sequence[object], depth: int) -> Any:
        failure: NoInstance | None = None
        for choice in choices:
            try:
                return self.fill(choice, depth)
            except NoInstance as error:
                failure = failure or error
        raise failure or NoInstance("a choice of nothing accepts nothing")

    def _fill_type(self, schema: Mapping[str, Any], depth: int) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            return self._fill_first([{**schema, "type": each} for each in kind], depth)
        if kind is None:
            kind = "array" if "items" in schema or "prefixItems" in schema else "object"
        match kind:
            case "object":
                properties = schema.get("properties", {})
                return {
                    name: self.fill(properties.get(name, {}), depth + 1)
                    for name in schema.get("required", ())
                }
            case "array":
                first = schema.get("prefixItems", [])
                more = max(0, schema.get("minItems", 0) - len(first))
                parts = [*first, *[schema.get("items", {})] * more]
                return [self.fill(part, depth + 1) for part in parts]
            case "string":
                return _string(schema)
            case "integer" | "number":
                return _number(schema, whole=kind == "integer")
            case "boolean" | "null":
                return False if kind == "boolean" else None
        raise NoInstance(f"type {kind!r} is not a JSON type")


def _string(schema: Mapping[str, Any]) -> str:
    if "pattern" in schema:
        raise NoInstance(
            f"no text is made up for the pattern {schema['pattern']!r}; give the provider reply="
        )
    text = _FORMATS.get(schema.get("format", ""), "")
    return text or "a" * int(schema.get("minLength", 0))


def _number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    step = schema.get("multipleOf", 1 if whole else None)
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    half = _half_of_span(low, high, above, below)
    if above is not None:
        low = max(low, (math.floor(above / step) + 1) * step if step else above + half)
    if below is not None:
        high = min(high, (math.ceil(below / step) - 1) * step if step else below - half)
    number = min(max(0, low), high)
    if step:
        number = math.ceil(number / step) * step
        number = number if number <= high else math.floor(high / step) * step
    if not low <= number <= high:
        raise NoInstance(f"no number lies between {low} and {high}")
    return int(number) if whole else number


def _half_of_span(low: float, high: float, above: float | None, below: float | None) -> float:
    bottom = max(low, -math.inf if above is None else above)
    top = min(high, math.inf if below is None else below)
    return (top - bottom) / 2 if math.isfinite(top - bottom) else 1.0


def _merge(schema: object, more: Mapping[str, object]) -> Mapping[str, object]:
    if not isinstance(schema, Mapping):
        return more
    merged = {**schema, **more}
    for keyword in ("properties", "$defs"):
        if keyword in schema and keyword in more:
            merged[keyword] = {**schema[keyword], **_as_mapping(more[keyword])}
    if "required" in schema and "required" in more:
        merged["required"] = [*schema["required"], *_as_list(more["required"])]
    return merged


def _as_mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _as_list(value: object) -> list[object]:
    return list(value) if isinstance(value, Sequence) else []


def _resolve(reference: object, root: object) -> Any:
    where: Any = root
    for part in str(reference).removeprefix("#").strip("/").split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if not name:
            continue
        if not isinstance(where, Mapping) or name not in where:
            raise NoInstance(f"{reference!r} refers to nothing in the schema")
        where = where[name]
    return where
