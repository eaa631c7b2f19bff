"""Specifications: what becomes of them, and which are refused before any call."""

# ruff: noqa: PD011, PYI030, PYI061, UP007, UP045  a Parsed has values; all spellings are meant

from __future__ import annotations

import collections
import json
import re
import uuid
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NotRequired, Optional, Required, TypedDict, Union

import numpy as np
import pandas as pd
import pydantic
import pytest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, RootModel
from typing_extensions import TypedDict as ExtendedTypedDict

from lbgpt_pandas.engine.canonical import canonical_json
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.schemas import Schema
from lbgpt_pandas.testing.instances import minimal_instance

STRICT_KEYWORDS = {
    "type", "properties", "required", "additionalProperties", "items", "enum", "anyOf", "description",
    "format", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minItems", "maxItems",
}  # fmt: skip


class Color(Enum):
    RED = "red"
    QUOTED = 'say "hi"'
    LINES = "a\nb"
    EMOJI = "🙂"
    EMPTY = ""


class Grade(IntEnum):
    ONE = 1
    TWO = 2


class Address(BaseModel):
    """Where somebody lives."""

    street: str = Field(description="with the number", min_length=1)
    zip_code: str | None = None


class Person(BaseModel):
    """Somebody."""

    name: str
    age: Annotated[int | None, Field(ge=0, description="in years")]
    color: Color = Color.RED
    home: Address = Field(description="now")
    past: list[Address] = []


class Node(BaseModel):
    value: int
    next: Node | None = None


class Flat(BaseModel):
    x: float


class Left(BaseModel):
    right: Right | None


class Right(BaseModel):
    left: Left | None


class Film(TypedDict):
    title: Annotated[str, "as on the poster"]
    year: NotRequired[Annotated[int, "of the premiere"]]


class Loose(ExtendedTypedDict, total=False):
    """A loose one."""

    a: Required[int]
    b: Film


class Tree(TypedDict):
    children: list[Tree]


class Opaque:
    pass


def keywords_of(schema):
    yield from schema
    for each in schema.get("anyOf", []):
        yield from keywords_of(each)
    for each in schema.get("properties", {}).values():
        yield from keywords_of(each)
    if "items" in schema:
        yield from keywords_of(schema["items"])


def objects_of(schema):
    if "properties" in schema:
        yield schema
    for each in [*schema.get("anyOf", []), *schema.get("properties", {}).values()]:
        yield from objects_of(each)
    if "items" in schema:
        yield from objects_of(schema["items"])


ENTRY = {"x": float}

SPECS = {
    "model": Person,
    "typed dict": Film,
    "loose typed dict": Loose,
    "scalars": {"a": str, "b": int, "c": float, "d": bool, "e": date, "f": datetime},
    "options": {"a": Literal["x", "y"], "b": Color, "c": Grade, "d": Literal["x", None, 3]},
    "optional": {"a": int | None, "b": Optional[str], "c": Union[Color, None]},
    "unions": {"a": int | str, "b": int | float, "c": Flat | str, "d": Literal["a"] | Literal["b"]},
    "nested": {"a": {"b": {"c": int}}, "l": list[ENTRY], "m": list[list[str]], "t": tuple[int, ...]},
    "odd names": {"order id": int, "_x": int, "json": str, "class": str, "model_name": str, "é 🙂": int,
                  'q"': int, "copy": int, "field_1": int, "self": int, "schema": float, "fields": int},
    "other types": {"a": uuid.UUID, "b": time, "c": timedelta, "d": pydantic.HttpUrl, "e": Decimal,
                    "f": pydantic.PositiveInt, "g": pydantic.AwareDatetime},
}  # fmt: skip


@pytest.mark.parametrize("name", SPECS)
def test_the_json_schema_is_strict(name):
    schema = Schema.of(SPECS[name])
    form = schema.json_schema
    assert form["type"] == "object"
    assert set(keywords_of(form)) <= STRICT_KEYWORDS
    for each in objects_of(form):
        assert each["additionalProperties"] is False
        assert each["required"] == list(each["properties"])
    sent = schema.response_format
    assert sent["type"] == "json_schema"
    assert sent["json_schema"]["strict"] is True
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", sent["json_schema"]["name"])
    assert json.loads(json.dumps(sent)) == sent
    assert canonical_json(sent)


@pytest.mark.parametrize("name", [name for name in SPECS if name != "other types"])
def test_what_fits_the_json_schema_is_taken(name):
    # The provider's form is not stricter and not looser than the check of the answer.
    schema = Schema.of(SPECS[name])
    value = minimal_instance(schema.json_schema)
    if name == "model":
        value["home"]["street"] = "x"  # minLength is no keyword of the strict mode
    parsed = schema.parse(json.dumps(value))
    assert parsed.error == ""
    assert list(parsed.values) == [each.name for each in schema.fields]
    assert parsed.partial == parsed.values
    assert isinstance(parsed.model, BaseModel)


def test_the_json_schema_of_a_model():
    assert Schema.of(Person).json_schema == {
        "description": "Somebody.",
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {
                "anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}],
                "description": "in years",
            },
            "color": {
                "anyOf": [
                    {"type": "string", "enum": ["red", 'say "hi"', "a\nb", "🙂", ""]},
                    {"type": "null"},
                ]
            },
            "home": ADDRESS | {"description": "now"},
            "past": {"anyOf": [{"type": "array", "items": ADDRESS}, {"type": "null"}]},
        },
        "required": ["name", "age", "color", "home", "past"],
        "additionalProperties": False,
    }


ADDRESS = {
    "description": "Where somebody lives.",
    "type": "object",
    "properties": {
        "street": {"type": "string", "description": "with the number"},
        "zip_code": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["street", "zip_code"],
    "additionalProperties": False,
}


def test_the_instructions_of_a_model():
    assert Schema.of(Person).instructions.splitlines() == [
        "Answer with JSON only: one object with exactly these keys, no other text.",
        "Somebody.",
        "{",
        '  "name": string,',
        '  "age": integer | null,  // in years; at least 0',
        '  "color": "red" | "say \\"hi\\"" | "a\\nb" | "🙂" | "" | null,',
        '  "home": {',
        '    "street": string,  // with the number; characters at least 1',
        '    "zip_code": string | null,',
        "  },  // now",
        '  "past": {',
        '    "street": string,  // with the number; characters at least 1',
        '    "zip_code": string | null,',
        "  }[] | null,",
        "}",
        "Use null where the text does not say.",
    ]
    plain = Schema.of({"a": list[int | str], "b": {"c": date}, "t": datetime}).instructions
    assert '"a": (integer | string)[]' in plain
    assert '"b": {"c": date "YYYY-MM-DD"}' in plain
    assert "null" not in plain


def test_typed_dicts_keep_descriptions_and_what_may_be_missing():
    schema = Schema.of(Film)
    assert schema.name == "Film"
    assert schema.json_schema["properties"]["title"] == {
        "type": "string", "description": "as on the poster"
    }  # fmt: skip
    assert "of the premiere" in json.dumps(schema.json_schema)
    assert '"year": integer | null,  // of the premiere' in schema.instructions
    assert schema.parse('{"title": "Heat"}').values == {"title": "Heat", "year": None}
    loose = Schema.of(Loose)
    assert loose.json_schema["description"] == "A loose one."
    assert loose.parse('{"a": 1}').values == {"a": 1, "b": None}
    assert loose.parse('{"b": null}').error == "a: is missing"
    nested = loose.parse('{"a": 1, "b": {"title": "Heat"}}').values
    assert nested == {"a": 1, "b": {"title": "Heat", "year": None}}


def test_odd_names_are_columns_and_keys():
    schema = Schema.of(SPECS["odd names"])
    names = list(SPECS["odd names"])
    assert [each.name for each in schema.fields] == names
    assert list(schema.json_schema["properties"]) == names
    nested = Schema.of({"x": {"_y": {"a b": int}}})
    assert nested.parse('{"x": {"_y": {"a b": 1}}}').values == {"x": {"_y": {"a b": 1}}}


def test_a_models_aliases_are_keys_and_its_names_columns():
    class Aliased(BaseModel):
        order_id: int = Field(alias="orderId")
        who: str = Field(validation_alias="WHO", serialization_alias="w")

    schema = Schema.of(Aliased)
    assert list(schema.json_schema["properties"]) == ["orderId", "WHO"]
    assert schema.parse('{"orderId": 1, "WHO": "x"}').values == {"order_id": 1, "who": "x"}
    assert schema.parse('{"order_id": 1, "WHO": "x"}').error == "orderId: is missing"

    class Generated(BaseModel):
        model_config = ConfigDict(alias_generator=str.upper)
        a: int

    assert Schema.of(Generated).parse('{"A": 1}').values == {"a": 1}


def test_a_schema_is_its_own_and_has_a_fingerprint():
    schema = Schema.of(Person)
    assert Schema.of(schema) is schema
    assert re.fullmatch("[0-9a-f]{64}", schema.fingerprint)
    assert schema.fingerprint == Schema.of(Person).fingerprint
    prints = [
        Schema.of(each).fingerprint
        for each in ({"a": int}, {"b": int}, {"a": float}, {"a": int | None}, {"a": int, "b": int},
                     {"b": int, "a": int}, {"a": datetime}, {"a": AwareDatetime}, {"a": Annotated[int, "x"]})
    ]  # fmt: skip
    assert len(set(prints)) == len(prints)
    assert repr(Schema.of({"a": int, "b": Color})) == "Schema(answer: a: Int64, b: category)"


def test_a_generic_models_name_is_sendable():
    def box(kind):
        return pydantic.create_model(f"Box[{'ü' * 80}]", item=(kind, ...))

    assert re.fullmatch(r"[a-zA-Z0-9_-]{64}", Schema.of(box(int)).name)


recursive_mapping: dict[str, Any] = {"a": int}
recursive_mapping["inner"] = recursive_mapping


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (int, "got int"),
        ("a: int", "got str"),
        (None, "got NoneType"),
        (["a"], "got list"),
        (list[Address], "give a pydantic model"),
        (Address(street="x"), "give the class Address"),
        (Opaque, "got Opaque"),
        (RootModel[list[int]], "has no fields"),
        ({}, "there are no fields"),
        ({"a": {}}, "no fields of 'a'"),
        (pydantic.create_model("Empty"), "Empty has no fields"),
        ({1: int}, "field name 1 is a int"),
        ({"": int}, "field name ''"),
        ({" ": int}, "field name ' '"),
        ({"a\nb": int}, "cannot be printed"),
        ({"\ud800": int}, "cannot be printed"),
        ({"a": int, "a ": int}, "'a' and 'a ' look the same"),
        ({"é": int, "e\u0301": int}, "look the same"),
        ({f"f{number}": int for number in range(101)}, "101 fields are more than 100"),
        ({"a": Any}, "'a' can be anything"),
        ({"a": object}, "'a' can be anything"),
        ({"a": list}, r"'a\[\]' can be anything"),
        ({"a": {"b": list[Any]}}, r"'a.b\[\]' can be anything"),
        ({"a": dict}, "'a' has free keys"),
        ({"a": dict[str, int]}, "'a' has free keys"),
        ({"a": bytes}, "'a' holds bytes"),
        ({"a": set[int]}, "'a' is a set"),
        ({"a": frozenset[str]}, "'a' is a set"),
        ({"a": tuple[int, str]}, "'a' is a tuple of fixed parts"),
        ({"a": Opaque}, "'a' is of type Opaque.*possible are"),
        ({"a": list[Opaque]}, "'a' is of type Opaque"),
        ({"a": {"b": Opaque}}, "'a.b' is of type Opaque"),
        ({"a": Callable[[], int]}, "'a' is of type .*Callable"),
        ({"a": Callable}, "'a' is of type .*Callable"),
        ({"a": len}, "'a' is of type"),
        ({"a": complex}, "'a'"),
        ({"a": np.int64}, "'a' is of type int64"),
        ({"a": pd.Timestamp}, "'a' is of type Timestamp"),
        ({"a": type[int]}, "'a'"),
        ({"a": None}, "'a' is of type None.*X | None"),
        ({"a": type(None)}, "'a'"),
        ({"a": Literal[None]}, "'a'"),
        ({"a": "int"}, "'a' is of type 'int'.*not its name"),
        ({"a": ["x", "y"]}, r"Literal\['good', 'bad'\]"),
        ({"a": {"x", "y"}}, r"Literal\['good', 'bad'\]"),
        ({"a": (int, "in years")}, r"Annotated\[str"),
        ({"a": 3}, "'a' is of type 3"),
        ({"a": Literal[b"x"]}, "'a'"),
        ({"a": Literal[1, True]}, "takes for equal"),
        ({"a": Literal["\ud800"]}, "'a' is of type"),
        ({"a": Enum("Odd", {"A": "\ud800"})}, "'a'"),
        ({"a": Enum("Odd", {"A": (1, 2)})}, "options that are not text"),
        ({"a": Enum("Odd", {"A": float("nan")})}, "options that are not text"),
        (Node, r"'next' is recursive \(Node > Node\)"),
        (Left, r"'right.*' is recursive"),
        ({"a": Node}, r"'a.next' is recursive"),
        (Tree, "recursive"),
        (recursive_mapping, "recursive"),
    ],
)
def test_what_cannot_be_columns_is_refused(spec, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        Schema.of(spec, what="extract(schema=)")
    assert str(caught.value).startswith("extract(schema=): ")


def test_refused_fields_of_models_are_named():
    class Calls(BaseModel):
        fine: int
        call: Callable[[], int]

    with pytest.raises(ConfigurationError, match="'call' is of type"):
        Schema.of(Calls)

    class Held(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        fine: int
        thing: Opaque

    with pytest.raises(ConfigurationError, match="'thing' is of type Opaque"):
        Schema.of(Held)

    class Twice(BaseModel):
        a: int = Field(alias="x")
        b: int = Field(alias="x")

    with pytest.raises(ConfigurationError, match="same alias"):
        Schema.of(Twice)

    class Members(BaseModel):
        inner: list[Literal[Color.RED]]

    with pytest.raises(ConfigurationError, match="'inner' has members of an Enum in a Literal"):
        Schema.of(Members)

    class Unknown(BaseModel):
        a: NowhereDefined  # noqa: F821

    with pytest.raises(ConfigurationError, match=r"(?s)Unknown|'a'"):
        Schema.of(Unknown)


def test_a_typed_dict_with_unknown_types_is_refused():
    class Local(BaseModel):
        x: int

    class Uses(TypedDict):
        a: Local

    with pytest.raises(ConfigurationError, match="top of a module"):
        Schema.of(Uses)


def test_members_of_an_enum_in_a_mappings_literal_are_their_values():
    schema = Schema.of({"a": Literal[Color.RED, "x"]})
    assert schema.parse('{"a": "red"}').values == {"a": "red"}


def test_too_many_nested_fields_are_refused():
    inner = {f"f{number}": int for number in range(60)}
    for _ in range(2):
        inner = {f"g{number}": inner for number in range(5)}
    with pytest.raises(ConfigurationError, match="more than 1,000 fields"):
        Schema.of(inner)


def test_any_mapping_will_do_and_is_only_read():
    spec = collections.OrderedDict(a=int, b={"c": str})
    assert [each.name for each in Schema.of(spec).fields] == ["a", "b"]
    assert spec == {"a": int, "b": {"c": str}}


def test_a_default_that_json_does_not_know_is_no_warning():
    class Odd(BaseModel):
        a: Decimal = Decimal("nan")
        b: datetime = Field(default_factory=datetime.now)
        c: Any = Field(default=object(), exclude=True)

    with pytest.raises(ConfigurationError, match="'c' can be anything"):
        Schema.of(Odd)


def test_a_pattern_with_a_lookahead_is_checked_and_not_sent():
    class Coded(BaseModel):
        a: Annotated[str, Field(pattern="^[a-z]+$")]

    assert Schema.of(Coded).json_schema["properties"]["a"]["pattern"] == "^[a-z]+$"
    assert Schema.of(Coded).parse('{"a": "A"}').error.startswith("a: ")

    class Looking(BaseModel):
        model_config = ConfigDict(regex_engine="python-re")
        a: Annotated[str, Field(pattern="^(?!x)[a-z]+$")]

    schema = Schema.of(Looking)
    assert schema.json_schema["properties"]["a"] == {"type": "string"}
    assert schema.parse('{"a": "xa"}').error.startswith("a: ")
    assert schema.parse('{"a": "ax"}').error == ""
