"""Shapes: the JSON schema of pydantic made plain, made strict, and written for a prompt.

A shape is a JSON schema without references, titles and defaults, in which a choice is always
``anyOf`` and a fixed value an ``enum``.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

Shape = dict[str, Any]

MOST_FIELDS, MOST_SHAPES = 100, 1_000
TEMPORAL = frozenset({"date", "date-time", "time", "duration"})
POSSIBLE = (
    "possible are str, int, float, bool, Literal, Enum, date, datetime, list[...], nested models "
    "and mappings, and `X | None` for what may be missing"
)

_KEPT = (
    "description", "type", "format", "pattern", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "multipleOf", "minItems", "maxItems", "minLength", "maxLength",
)  # fmt: skip
_NOT_STRICT = frozenset({"minLength", "maxLength"})
_STRICT_FORMATS = TEMPORAL | {"email", "hostname", "ipv4", "ipv6", "uuid"}
_BOUNDS = {
    "minimum": "at least", "maximum": "at most", "exclusiveMinimum": "above",
    "exclusiveMaximum": "below", "multipleOf": "a multiple of", "minItems": "items at least",
    "maxItems": "items at most", "minLength": "characters at least",
    "maxLength": "characters at most", "pattern": "matching",
}  # fmt: skip
_FORMATS = {
    "date": 'date "YYYY-MM-DD"',
    "date-time": "ISO 8601 datetime",
    "time": 'time "HH:MM:SS"',
    "duration": 'ISO 8601 duration, as "PT1H30M"',
}
_LONGEST_VALUE = 40


class Shaper:
    """Turns a JSON schema of pydantic into a shape, or says which field has none.

    Parameters
    ----------
    definitions : dict
        Its ``$defs``.
    what : str
        What the user calls the schema, for the errors.
    root : str, default ""
        Which of the definitions is the schema itself.
    """

    def __init__(self, definitions: dict[str, Shape], *, what: str, root: str = "") -> None:
        self._definitions, self._what = definitions, what
        self._open = [root] if root else []
        self._made = 0

    def shape(self, schema: Shape, path: str) -> Shape:
        """Return the shape of the part of a schema that stands at `path`.

        Raises
        ------
        ConfigurationError
            If it is recursive, has too many parts, or a type that has no strict schema.
        """
        self._made += 1
        if self._made > MOST_SHAPES:
            raise ConfigurationError(
                f"{self._what}: more than {MOST_SHAPES:,} fields with the nested ones; ask for "
                "them in several calls"
            )
        if "$ref" in schema:
            return self._referred(schema, path)
        if not schema.keys().isdisjoint({"anyOf", "oneOf", "allOf"}):
            return self._choice(schema, path)
        if "const" in schema or "enum" in schema:
            return self._options(schema, path)
        kept = {key: schema[key] for key in _KEPT if key in schema}
        match schema.get("type"):
            case "object":
                return {**kept, **self._object(schema, path)}
            case "array":
                return {**kept, **self._array(schema, path)}
            case "string" | "integer" | "number" | "boolean" | "null":
                if schema.get("format") in {"binary", "base64", "base64url"}:
                    raise self.refusal(path, "holds bytes, which JSON does not know; use str")
                return kept
        raise self.refusal(path, f"can be anything (Any), which is no column; {POSSIBLE}")

    def refusal(self, path: str, reason: str) -> ConfigurationError:
        """Return the error for a field."""
        return ConfigurationError(f"{self._what}: the field {path!r} {reason}")

    def _referred(self, schema: Shape, path: str) -> Shape:
        name = schema["$ref"].rpartition("/")[2]
        if name in self._open:
            raise self.refusal(
                path,
                f"is recursive ({' > '.join([*self._open, name])}): it would need columns without "
                "end; use a nested model of fixed depth, or lists of plain values",
            )
        self._open.append(name)
        inner = self.shape(self._definitions[name], path)
        self._open.pop()
        return {**inner, **_described(schema)}

    def _choice(self, schema: Shape, path: str) -> Shape:
        parts = schema.get("anyOf") or schema.get("oneOf") or schema["allOf"]
        if "allOf" in schema and len(parts) > 1:
            raise self.refusal(path, "is to fit several schemas at once (allOf)")
        kinds = [part for each in parts for part in alternatives(self.shape(each, path))]
        return {**(kinds[0] if len(kinds) == 1 else {"anyOf": kinds}), **_described(schema)}

    def _options(self, schema: Shape, path: str) -> Shape:
        options = [schema["const"]] if "const" in schema else list(schema["enum"])
        if not all(map(_is_option, options)):
            raise self.refusal(path, "has options that are not text, finite numbers or bools")
        values = [each for each in options if each is not None]
        if len(set(values)) < len(values):
            raise self.refusal(
                path, f"has options that Python takes for equal: {values}; write them as text"
            )
        if any(isinstance(each, str) and _is_torn(each) for each in values):
            raise self.refusal(path, "has an option with half of a character (a lone surrogate)")
        if not values:
            raise self.refusal(path, f"can only be null; {POSSIBLE}")
        kinds = {_json_type(each) for each in values}
        typed = {"type": kinds.pop()} if len(kinds) == 1 else {}
        shape: Shape = {**typed, "enum": values}
        if None in options:
            return {"anyOf": [shape, {"type": "null"}], **_described(schema)}
        return {**shape, **_described(schema)}

    def _object(self, schema: Shape, path: str) -> Shape:
        if "properties" not in schema:
            free = schema.get("additionalProperties", True)
            what = "has free keys (dict)" if free is not False else "is a model without fields"
            raise self.refusal(
                path, f"{what}; name them in a nested model, or use a list of key-value models"
            )
        inner = {
            key: self.shape(each, f"{path}.{key}") for key, each in schema["properties"].items()
        }
        return {"properties": inner, "required": list(schema.get("required", ()))}

    def _array(self, schema: Shape, path: str) -> Shape:
        if "prefixItems" in schema:
            raise self.refusal(
                path, "is a tuple of fixed parts; use a nested model, or list[...] of one type"
            )
        if schema.get("uniqueItems"):
            raise self.refusal(path, "is a set, which has no order; use list[...]")
        return {"items": self.shape(schema.get("items", {}), f"{path}[]")}


def alternatives(shape: Shape) -> list[Shape]:
    """Return what a value may be, one by one; null is one of them."""
    kinds: list[Shape] = shape.get("anyOf") or [shape]
    return kinds


def is_nullable(shape: Shape) -> bool:
    """Tell whether a value may be null."""
    return any(kind.get("type") == "null" for kind in alternatives(shape))


def demanded(shape: Shape, key: str) -> Shape:
    """Return the shape of a property as it is asked for: or null, if it may be left out."""
    inner: Shape = shape["properties"][key]
    return inner if key in shape["required"] else _or_null(inner)


def strict(shape: Shape) -> Shape:
    """Return the schema for a provider's strict mode.

    Each object names all its properties as required and allows no others; what has a default
    may be null instead. Keywords that OpenAI's strict mode does not know are left out: the
    answer is checked against them all the same.
    """
    if "anyOf" in shape:
        return {**_described(shape), "anyOf": [strict(each) for each in shape["anyOf"]]}
    kept = {key: value for key, value in shape.items() if key not in _NOT_STRICT}
    if kept.get("format") not in _STRICT_FORMATS:
        kept.pop("format", None)
    if "(?" in kept.get("pattern", ""):
        del kept["pattern"]
    if "items" in shape:
        kept["items"] = strict(shape["items"])
    if "properties" in shape:
        kept["properties"] = {key: strict(demanded(shape, key)) for key in shape["properties"]}
        kept["required"] = list(shape["properties"])
        kept["additionalProperties"] = False
    return kept


def sketch(shape: Shape, indent: str | None = None) -> str:
    """Write what a value may be as a prompt says it: ``"good" | "bad" | null``.

    With `indent`, an object whose fields have descriptions or bounds is written over several
    lines, with these as comments.
    """
    kinds = alternatives(shape)
    return " | ".join(dict.fromkeys(_sketch_one(kind, indent) for kind in kinds))


def outline(shape: Shape, indent: str = "") -> str:
    """Write an object over several lines, with descriptions and bounds as comments."""
    lines = []
    for key, each in shape["properties"].items():
        text = sketch(demanded(shape, key), indent + "  ")
        remark = "; ".join(_remarks(each))
        comment = f"  // {remark}" if remark else ""
        lines.append(f"{indent}  {_quoted(key)}: {text},{comment}")
    return "\n".join(["{", *lines, f"{indent}}}"])


def shown(value: object) -> str:
    """Write a value of a reply for an error: JSON, shortened."""
    text = _quoted(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _described(schema: Shape) -> Shape:
    return {"description": schema["description"]} if schema.get("description") else {}


def _is_option(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int | None)


def _is_torn(text: str) -> bool:
    return re.search("[\ud800-\udfff]", text) is not None


def _json_type(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
    return "string"


def _or_null(shape: Shape) -> Shape:
    if is_nullable(shape):
        return shape
    inner = {key: value for key, value in shape.items() if key != "description"}
    return {**_described(shape), "anyOf": [*alternatives(inner), {"type": "null"}]}


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _sketch_one(shape: Shape, indent: str | None) -> str:
    if "enum" in shape:
        return " | ".join(map(_quoted, shape["enum"]))
    if "items" in shape:
        inner = sketch(shape["items"], indent)
        return f"({inner})[]" if " " in inner and not inner.startswith("{") else f"{inner}[]"
    if "properties" in shape:
        if indent is not None and any(map(_has_remarks, shape["properties"].values())):
            return outline(shape, indent)
        members = (f"{_quoted(key)}: {sketch(demanded(shape, key))}" for key in shape["properties"])
        return f"{{{', '.join(members)}}}"
    kind: str = shape["type"]
    if kind == "string" and "format" in shape:
        name: str = shape["format"]
        return _FORMATS.get(name, name)
    return kind


def _has_remarks(shape: Shape) -> bool:
    if next(_remarks(shape), None) is not None:
        return True
    return any(
        any(map(_has_remarks, kind.get("properties", {}).values()))
        or ("items" in kind and _has_remarks(kind["items"]))
        for kind in alternatives(shape)
    )


def _remarks(shape: Shape) -> Iterator[str]:
    texts = [kind["description"] for kind in (shape, *alternatives(shape)) if "description" in kind]
    if texts:
        yield " ".join(texts[0].split())
    for kind in alternatives(shape):
        for keyword, text in _BOUNDS.items():
            if keyword in kind:
                yield f"{text} {kind[keyword]}"
