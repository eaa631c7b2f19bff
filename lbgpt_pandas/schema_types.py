"""From what the user wrote (model, TypedDict, mapping of types) to a pydantic model."""

from __future__ import annotations

import collections.abc
import operator
import types
import unicodedata
from enum import Enum
from functools import cache, reduce
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.schema_shapes import MOST_FIELDS, POSSIBLE, Shaper

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel
    from pydantic.json_schema import GenerateJsonSchema

    from lbgpt_pandas.schema_shapes import Shape

COLUMN_NAMES = "__column_names__"
"""Where a model that was made here keeps the names that are no names of attributes."""

_HINTS = {
    "str": "write the type itself, not its name, as in {'age': int}",
    "list": "for a list write list[str], for a choice Literal['good', 'bad']",
    "tuple": "for a choice write Literal['good', 'bad'], for a description "
    "Annotated[str, 'what it is']",
    "set": "for a choice write Literal['good', 'bad']",
    "NoneType": "write `X | None` for what may be missing",
}


def model_of(spec: object, *, what: str) -> type[BaseModel]:
    """Return the pydantic model of a specification; a model is its own.

    Parameters
    ----------
    spec : class of a pydantic model or TypedDict, or mapping of str to type
        A str in ``Annotated[int, "in years"]`` is a description. Mappings may be nested.
    what : str
        What the user calls it, for the errors.

    Raises
    ------
    ConfigurationError
        If it is none of these, is empty or recursive, or a field's name or type cannot be
        a column.
    """
    from pydantic import BaseModel  # noqa: PLC0415  # heavy

    if isinstance(spec, type) and issubclass(spec, BaseModel):
        return spec
    if isinstance(spec, collections.abc.Mapping):
        return _Builder(what).from_mapping(spec, "")
    if _is_typed_dict(spec):
        return _Builder(what).from_typed_dict(spec, "")
    kind = spec.__name__ if isinstance(spec, type) else type(spec).__name__
    instance = isinstance(spec, BaseModel)
    hint = f"; give the class {kind}, not an object of it" if instance else ""
    raise ConfigurationError(
        f"{what}: give a pydantic model (version 2), a TypedDict, or a mapping of names to types "
        f"such as {{'city': str, 'stars': int | None}}; got {kind}{hint}"
    )


def shape_of(model: type[BaseModel], *, what: str) -> Shape:
    """Return the shape of a model.

    Raises
    ------
    ConfigurationError
        If one of its fields has none; says which.
    """
    schema = _json_schema(model, what=what)
    definitions = schema.pop("$defs", {})
    top = schema.get("allOf", [schema])[0]  # as older pydantic wraps a reference
    root = top.get("$ref", "").rpartition("/")[2]
    if root:
        schema = definitions[root]
    names = schema.get("properties")
    if not names:
        raise ConfigurationError(f"{what}: {model.__name__} has no fields; {POSSIBLE}")
    if len(names) != len(model.model_fields):
        raise ConfigurationError(
            f"{what}: the JSON schema of {model.__name__} has {len(names)} keys for "
            f"{len(model.model_fields)} fields; two fields have the same alias, or the schema was "
            "changed by hand"
        )
    if len(names) > MOST_FIELDS:
        raise ConfigurationError(
            f"{what}: {len(names)} fields are more than {MOST_FIELDS}, which models fill badly; "
            "ask for them in several calls"
        )
    shaper = Shaper(definitions, what=what, root=root)
    properties = {
        key: shaper.shape(each, name)
        for (key, each), name in zip(names.items(), column_names(model), strict=True)
    }
    for name, info in model.model_fields.items():
        reason = _unreadable(info.annotation)
        if reason:
            raise shaper.refusal(name, reason)
    described = {"description": schema["description"]} if schema.get("description") else {}
    required = list(schema.get("required", ()))
    return {**described, "type": "object", "properties": properties, "required": required}


def _json_schema(model: type[BaseModel], *, what: str) -> dict[str, Any]:
    """Return pydantic's schema of a model, or say which field has none."""
    from pydantic import TypeAdapter  # noqa: PLC0415  # heavy

    refused = _pydantic_errors()
    try:
        return model.model_json_schema(schema_generator=_generator())
    except refused as error:
        for name, info in model.model_fields.items():
            try:
                annotation: Any = info.annotation
                TypeAdapter(annotation).json_schema(schema_generator=_generator())
            except refused:
                raise ConfigurationError(_impossible(what, name, info.annotation)) from error
        raise ConfigurationError(
            f"{what}: {model.__name__} has no JSON schema: {_first_line(error)}"
        ) from error


def column_names(model: type[BaseModel]) -> dict[str, str]:
    """Return the attributes of a model by what they are called in a frame."""
    own: Mapping[str, str] = getattr(model, COLUMN_NAMES, {})
    return {own.get(attribute, attribute): attribute for attribute in model.model_fields}


def has_aware_time(annotation: object) -> bool:
    """Tell whether a type is, or may be, pydantic's ``AwareDatetime``."""
    from pydantic import AwareDatetime  # noqa: PLC0415  # heavy

    return annotation is AwareDatetime or any(map(has_aware_time, get_args(annotation)))


class _Builder:
    """Makes models of mappings and TypedDicts, also of nested ones."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._open: list[int] = []

    def from_mapping(self, spec: Mapping[Any, object], path: str) -> type[BaseModel]:
        fields: dict[str, tuple[Any, bool]] = {}
        for name, kind in spec.items():
            if not isinstance(name, str):
                raise ConfigurationError(
                    f"{self._what}: the field name {name!r} is a {type(name).__name__}; names of "
                    "fields are text"
                )
            fields[name] = (kind, False)
        return self._model(fields, path, name="answer", spec=spec)

    def from_typed_dict(self, spec: Any, path: str) -> type[BaseModel]:
        try:
            hints = get_type_hints(spec, include_extras=True)
        except (NameError, TypeError) as error:
            raise ConfigurationError(
                f"{self._what}: a type that {spec.__name__} mentions is not known ({error}); "
                "define both at the top of a module, or give a mapping of names to types"
            ) from error
        fields: dict[str, tuple[Any, bool]] = {}
        for name, hint in hints.items():
            kind, marks = _unqualified(hint)
            is_optional = Required not in marks and (
                NotRequired in marks or name in spec.__optional_keys__
            )
            fields[name] = (kind, is_optional)
        return self._model(fields, path, name=spec.__name__, spec=spec)

    def _model(
        self, fields: dict[str, tuple[Any, bool]], path: str, *, name: str, spec: object
    ) -> type[BaseModel]:
        from pydantic import ConfigDict, Field, create_model  # noqa: PLC0415  # heavy

        self._check_names(list(fields), path)
        if id(spec) in self._open:
            raise ConfigurationError(
                f"{self._what}: {path or name} is recursive: it would need columns without end"
            )
        self._open.append(id(spec))
        attributes = _attributes(list(fields))
        made: dict[str, Any] = {}
        for attribute, column in attributes.items():
            kind, is_optional = fields[column]
            annotation = self._annotation(kind, f"{path}.{column}" if path else column)
            alias = None if attribute == column else column
            made[attribute] = (
                (annotation | None, Field(None, alias=alias))
                if is_optional
                else (annotation, Field(alias=alias))
            )
        self._open.pop()
        model: type[BaseModel] = create_model(
            name, __config__=ConfigDict(protected_namespaces=()), **made
        )
        model.__doc__ = getattr(spec, "__doc__", None) if isinstance(spec, type) else None
        setattr(model, COLUMN_NAMES, attributes)
        return model

    def _check_names(self, names: list[str], path: str) -> None:
        where = f" of {path!r}" if path else ""
        if not names:
            raise ConfigurationError(f"{self._what}: there are no fields{where}; {POSSIBLE}")
        seen: dict[str, str] = {}
        for name in names:
            plain = unicodedata.normalize("NFC", name).strip()
            if not plain or any(unicodedata.category(each) in {"Cc", "Cs"} for each in name):
                raise ConfigurationError(
                    f"{self._what}: the field name {name!r}{where} is empty, or has characters "
                    "that cannot be printed"
                )
            if plain in seen:
                raise ConfigurationError(
                    f"{self._what}: the field names {seen[plain]!r} and {name!r}{where} look the "
                    "same; no model could tell them apart"
                )
            seen[plain] = name

    def _annotation(self, kind: Any, path: str) -> Any:
        """Return a type with nested mappings and TypedDicts made models, and check it."""
        if isinstance(kind, collections.abc.Mapping):
            return self.from_mapping(kind, path)
        if _is_typed_dict(kind):
            return self.from_typed_dict(kind, path)
        if get_origin(kind) is None:
            if kind is None or isinstance(kind, str | list | tuple | set | frozenset):
                raise ConfigurationError(_impossible(self._what, path, kind))
            return self._checked(kind, path)
        return self._checked(self._with_inner(kind, path), path)

    def _with_inner(self, kind: Any, path: str) -> Any:
        origin, args = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return Annotated[(self._annotation(args[0], path), *map(_description, args[1:]))]
        if origin is Literal:
            return Literal[tuple(each.value if isinstance(each, Enum) else each for each in args)]
        if origin is collections.abc.Callable:
            raise ConfigurationError(_impossible(self._what, path, kind))
        inner = tuple(
            each if each is ... or each is type(None) else self._annotation(each, path)
            for each in args
        )
        if origin in {Union, types.UnionType}:
            return reduce(operator.or_, inner)
        return origin[inner]

    def _checked(self, kind: Any, path: str) -> Any:
        from pydantic import TypeAdapter  # noqa: PLC0415  # heavy

        refused: tuple[type[Exception], ...] = (*_pydantic_errors(), TypeError)
        try:
            TypeAdapter(kind).json_schema(schema_generator=_generator())
        except refused as error:
            raise ConfigurationError(_impossible(self._what, path, kind, error=error)) from error
        return kind


def _attributes(columns: list[str]) -> dict[str, str]:
    """Return a name that an attribute of a model can have for each column."""
    from pydantic import BaseModel  # noqa: PLC0415  # heavy

    attributes: dict[str, str] = {}
    for position, column in enumerate(columns):
        name = column
        if not name.isidentifier() or name.startswith("_") or hasattr(BaseModel, name):
            name = f"field_{position}"
            while name in columns:
                name += "_"
        attributes[name] = column
    return attributes


def _is_typed_dict(kind: object) -> bool:
    # typing.is_typeddict does not know those of typing_extensions.
    return is_typeddict(kind) or (
        isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__total__")
    )


def _unqualified(hint: Any) -> tuple[Any, set[object]]:
    """Return a TypedDict's type without Required, NotRequired and ReadOnly, and these."""
    marks = set()
    while (origin := get_origin(hint)) in {Required, NotRequired} or str(origin).endswith(
        ".ReadOnly"
    ):
        marks.add(origin)
        hint = get_args(hint)[0]
    return hint, marks


def _description(mark: object) -> object:
    from pydantic import Field  # noqa: PLC0415  # heavy

    return Field(description=mark) if isinstance(mark, str) else mark


def _unreadable(annotation: Any) -> str:
    """Say why a type with a JSON schema cannot be read from JSON; empty where it can."""
    from pydantic import BaseModel  # noqa: PLC0415  # heavy

    args = get_args(annotation)
    if annotation in {complex, type(None)}:
        return f"is of type {annotation.__name__}, which cannot be a column; {POSSIBLE}"
    if get_origin(annotation) is Literal:
        if any(isinstance(each, Enum) for each in args):
            return (
                "has members of an Enum in a Literal, which pydantic does not read from JSON; use "
                "the Enum itself, or a Literal of its values"
            )
        return "has bytes in a Literal; use text" if bytes in map(type, args) else ""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        args = tuple(info.annotation for info in annotation.model_fields.values())
    parts = (each for each in args if each is not type(None))
    return next(filter(None, map(_unreadable, parts)), "")


def _impossible(what: str, path: str, kind: object, *, error: Exception | None = None) -> str:
    plain = kind.__name__ if isinstance(kind, type) else str(kind)
    instance = _HINTS.get(type(kind).__name__)
    shown = repr(kind) if instance else plain
    reason = _first_line(error) if error is not None and "typing_extensions" in str(error) else ""
    hint = instance or reason or POSSIBLE
    return f"{what}: the field {path!r} is of type {shown}, which cannot be a column; {hint}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")


def _pydantic_errors() -> tuple[type[Exception], ...]:
    from pydantic.errors import (  # noqa: PLC0415  # heavy
        PydanticUndefinedAnnotation,
        PydanticUserError,
    )
    from pydantic_core import SchemaError  # noqa: PLC0415  # heavy

    return PydanticUserError, PydanticUndefinedAnnotation, SchemaError


@cache
def _generator() -> type[GenerateJsonSchema]:
    """Return a generator that does not warn of defaults that JSON does not know."""
    from pydantic.json_schema import GenerateJsonSchema  # noqa: PLC0415  # heavy

    class Quiet(GenerateJsonSchema):
        ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012  # as the base has it

    return Quiet
