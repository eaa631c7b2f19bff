"""From replies to values: what is read, what is put right, and what is refused."""

# ruff: noqa: PD011, DTZ001, PYI051  a Parsed has values; times without a zone are meant

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Literal
from uuid import UUID

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, RootModel, field_validator
from pydantic import model_validator as check_model

from lbgpt_pandas.schema_checks import field_validators
from lbgpt_pandas.schemas import Schema


class Color(Enum):
    RED = "red"
    DARK_RED = "dark red"
    EMPTY = ""


class Grade(IntEnum):
    ONE = 1
    TWO = 2


class Item(BaseModel):
    what: str
    price: float | None


class Order(BaseModel):
    number: int = Field(ge=1)
    items: list[Item] = []
    note: str | None = None
    color: Color = Color.RED

    @field_validator("note")
    @classmethod
    def _short(cls, value):
        if value and len(value) > 10:
            raise ValueError("longer than ten characters")
        return value and value.upper()

    @check_model(mode="after")
    def _complete(self):
        if self.number == 13:
            raise ValueError("13 brings bad luck")
        if self.number == 14:
            raise KeyError("secret")
        return self


def read(kind, value):
    parsed = Schema.of({"x": kind}).parse(json.dumps({"x": value}))
    assert (parsed.values is None) == bool(parsed.error) == (parsed.model is None)
    if parsed.error:
        assert parsed.partial == {}
        return parsed.error
    return parsed.values["x"]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, "3", 3),
        (int, " 3 ", 3),
        (int, "3.0", 3),
        (int, 3.0, 3),
        (float, "2.5", 2.5),
        (float, 2, 2.0),
        (bool, "yes", True),
        (bool, "No", False),
        (bool, "true", True),
        (bool, 1, True),
        (bool, 0, False),
        (str, "", ""),
        (str | None, None, None),
        (date, "2024-02-29", date(2024, 2, 29)),
        (datetime, "2024-02-29T10:00:00", datetime(2024, 2, 29, 10)),
        (datetime, "2024-02-29", datetime(2024, 2, 29)),
        (datetime, "2024-02-29T10:00:00Z", datetime(2024, 2, 29, 10, tzinfo=UTC)),
        (time, "10:30:00", time(10, 30)),
        (timedelta, "PT1H30M", timedelta(hours=1.5)),
        (UUID, "0" * 32, "00000000-0000-0000-0000-000000000000"),
        (pydantic.HttpUrl, "https://example.com", "https://example.com/"),
        (Decimal, "1.10", Decimal("1.10")),
        (Literal["good", "not good"], "Not Good ", "not good"),
        (Literal["a", "A"], "A", "A"),
        (Literal[1, 2], "2", 2),
        (Literal[1, 2], 2.0, 2),
        (Literal["1", 1], "1", "1"),
        (Literal["1", 1], 1, 1),
        (Color, "RED", "red"),
        (Color, "Dark red", "dark red"),
        (Color, "", ""),
        (Color, " ", ""),
        (Grade, "1", 1),
        (Color | None, None, None),
        (Literal["a"] | int, 3, 3),
        (Literal["a"] | str, "A", "A"),
        (int | str, "3", "3"),
        (int | str, 3, 3),
        (date | int, 2024, 2024),
        (date | str, "2024", "2024"),
        (list[int], ["1", 2], [1, 2]),
        (tuple[str, ...], ["a"], ["a"]),
        (list[Color], ["RED"], ["red"]),
        (Item, {"what": "x", "price": "3"}, {"what": "x", "price": 3.0}),
        (Item, {"what": "x"}, {"what": "x", "price": None}),
        (Item, {"what": "x", "more": [1]}, {"what": "x", "price": None}),
        (Item | None, {"what": "x"}, {"what": "x", "price": None}),
        (list[Item] | None, [{"what": "x"}], [{"what": "x", "price": None}]),
        (RootModel[list[int]], [1], [1]),
    ],
)
def test_what_is_harmless_is_read(kind, value, expected):
    found = read(kind, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "error"),
    [
        (int, "three", 'x: "three" is not integer'),
        (int, 3.5, "x: 3.5 is not integer"),
        (int, True, "x: true is not integer"),
        (int, "", 'x: "" is not integer'),
        (int, None, "x: null is not integer"),
        (int, [1], "x: [1] is not integer"),
        (int, 2**63, "x: 9223372036854775808 does not fit a column of Int64"),
        (int, -(2**63) - 1, "x: -9223372036854775809 does not fit a column of Int64"),
        (int | None, 10**30, "does not fit a column of Int64"),
        (float, True, "x: true is not number"),
        (float, "NaN", 'x: "NaN" is not number'),
        (float, "inf", 'x: "inf" is not number'),
        (float, "1e999", 'x: "1e999" is not number'),
        (float | None, "nan", 'x: "nan" is not number | null'),
        (float, 10**400, "is not number"),
        (int | float, 10**400, "does not fit a column of Float64"),
        (bool, "maybe", 'x: "maybe" is not boolean'),
        (bool, 2, "x: 2 is not boolean"),
        (str, 3, "x: 3 is not string"),
        (str, True, "x: true is not string"),
        (str, ["a"], 'x: ["a"] is not string'),
        (date, 2024, 'x: 2024 is not date "YYYY-MM-DD"'),
        (date, "2024", 'x: "2024" is not date "YYYY-MM-DD"'),
        (date, 0, "x: 0 is not date"),
        (date, "2023-02-29", 'x: "2023-02-29" is not date'),
        (date, "soon", 'x: "soon" is not date'),
        (date, "10000-01-01", "is not date"),
        (date | None, 86400, "x: 86400 is not date"),
        (datetime, 1700000000, "is not ISO 8601 datetime"),
        (datetime, "1700000000", "is not ISO 8601 datetime"),
        (datetime, True, "is not ISO 8601 datetime"),
        (datetime, "9999-12-31T23:00:00-05:00", "does not fit a column of datetime64[us]"),
        (AwareDatetime, "2024-01-01T00:00:00", "x: "),
        (timedelta, 90, "x: 90 is not ISO 8601 duration"),
        (Literal["good", "not good"], "goo", 'x: "goo" is not "good" | "not good"'),
        (Literal["good", "not good"], "good, not good", "is not"),
        (Literal["a", "A"], " a", 'x: " a" is not "a" | "A"'),
        (Literal["1", "2"], 1, 'x: 1 is not "1" | "2"'),
        (Literal[1, 2], True, "x: true is not 1 | 2"),
        (Color, "reddish", 'x: "reddish" is not "red" | "dark red" | ""'),
        (list[int], [1, "b"], 'x[1]: "b" is not integer'),
        (list[int], "1, 2", 'x: "1, 2" is not integer[]'),
        (Item, {"price": 1}, "x.what: is missing"),
        (Item, {"what": 1, "price": "?"}, 'x.what: 1 is not string; x.price: "?" is not number | null'),
        (Item, "x", 'x: "x" is not {"what": string, "price": number | null}'),
        (list[Item], [{"what": "a"}, {}], "x[1].what: is missing"),
        (Item | list[int], {"what": 1}, "x"),
        (Annotated[int, Field(ge=0)], -1, "x: should be greater than or equal to 0"),
        (Annotated[list[int], Field(max_length=1)], [1, 2], "x: list should have at most 1 item"),
    ],
)  # fmt: skip
def test_what_is_not_harmless_is_refused_and_said(kind, value, error):
    found = read(kind, value)
    assert isinstance(found, str)
    assert error in found
    for internal in ("pydantic", "Input", "<class", "Traceback", "Error", "typing"):
        assert internal not in found


def test_null_of_a_field_with_a_default_is_the_default():
    schema = Schema.of(Order)
    parsed = schema.parse('{"number": 1, "items": null, "note": null, "color": null}')
    assert parsed.values == {"number": 1, "items": [], "note": None, "color": "red"}
    assert parsed.model == Order(number=1)
    assert schema.parse('{"number": null}').error == "number: null is not integer"


def test_the_models_own_checks_are_made_and_their_words_used():
    schema = Schema.of(Order)
    assert schema.parse('{"number": 1, "note": "short"}').values["note"] == "SHORT"
    assert schema.parse('{"number": 13}').error == "13 brings bad luck"
    long = schema.parse('{"number": 2, "note": "far too long a note"}')
    assert long.error == "note: longer than ten characters"
    assert long.partial == {"number": 2}
    broken = schema.parse('{"number": 14, "note": "a"}')
    assert broken.error == "a check of Order could not be made (KeyError)"
    assert "secret" not in broken.error


def test_partial_has_the_fields_that_are_valid_each_by_itself():
    schema = Schema.of(Order)
    parsed = schema.parse('{"number": 0, "items": [{"what": "x"}], "note": "a", "color": "blue"}')
    assert parsed.values is None
    assert parsed.partial == {"items": [{"what": "x", "price": None}], "note": "A"}
    assert parsed.error == (
        "number: should be greater than or equal to 1; "
        'color: "blue" is not "red" | "dark red" | "" | null'
    )
    assert schema.parse('{"number": 13, "note": "a"}').partial == {"number": 13, "note": "A"}
    big = Schema.of({"a": int, "b": str}).parse(json.dumps({"a": 2**70, "b": "x"}))
    assert big.partial == {"b": "x"}
    harmful = Schema.of({"a": date, "b": int, "c": str}).parse('{"a": 0, "b": "?", "c": "x"}')
    assert harmful.partial == {"c": "x"}
    assert 'a: 0 is not date "YYYY-MM-DD"' in harmful.error
    assert 'b: "?" is not integer' in harmful.error


def test_partial_of_models_that_share_a_model():
    class Two(BaseModel):
        a: Item
        b: Item
        c: list[Item]

    good, bad = {"what": "x", "price": 1}, {"what": 1}
    parsed = Schema.of(Two).parse(json.dumps({"a": good, "b": bad, "c": [good]}))
    assert parsed.partial == {"a": {"what": "x", "price": 1.0}, "c": [{"what": "x", "price": 1.0}]}
    assert set(field_validators(Two)) == {"a", "b", "c"}


def test_only_the_first_problems_are_named():
    schema = Schema.of({f"f{number}": int for number in range(9)})
    error = schema.parse("{}").error
    assert error == "; ".join(f"f{number}: is missing" for number in range(5)) + "; and 4 more"
    long = Schema.of({"a": Literal[tuple(f"option {number}" for number in range(500))]})
    assert len(long.parse('{"a": "' + "x" * 5000 + '"}').error) < 300


def test_strict_and_forbidding_models_keep_their_rules():
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True, extra="forbid")
        a: int
        b: date
        c: Color

    schema = Schema.of(Strict)
    assert schema.parse('{"a": 1, "b": "2024-01-01", "c": "red"}').values == {
        "a": 1, "b": date(2024, 1, 1), "c": "red"
    }  # fmt: skip
    assert (
        schema.parse('{"a": "1", "b": "2024-01-01", "c": "red"}').error == 'a: "1" is not integer'
    )
    extra = schema.parse('{"a": 1, "b": "2024-01-01", "c": "red", "d": 1}')
    assert extra.error == "d: is not a key that was asked for"


def test_serializers_do_not_change_what_a_cell_holds():
    class Shown(BaseModel):
        when: date

        @pydantic.field_serializer("when")
        def _text(self, value):
            return f"on {value}"

    assert Schema.of(Shown).parse('{"when": "2024-01-01"}').values == {"when": date(2024, 1, 1)}


@pytest.mark.parametrize(
    "reply",
    [
        '{"a": 1}', '```json\n{"a": 1}\n```', 'Here: {"a": 1}.', '{"a": 1,}', '[{"a": 1}]',
        '{"a": "x"} no, {"a": 1}', '{"example": {"a": 5}} {"a": 1}', '{"a": 1} {"a": 1}',
        '<think>{"a": 2}</think>{"a": 1}', '{"a": 1, "why": "because"}',
    ],
)  # fmt: skip
def test_the_object_that_fits_is_taken(reply):
    assert Schema.of({"a": int}).parse(reply).values == {"a": 1}


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("", "empty"), (None, "empty"), ("I cannot", "no JSON object"), ("[]", "no JSON object"),
        ('{"a": 1} {"a": 2}', "there are 2 JSON objects"), ('{"a": 1', "cut off"),
        ('{"a": NaN}', "NaN is not JSON"), ('{"a": 1, "a": 2}', "given twice"),
        ('{"a": "x"} {"a": }', 'a: "x" is not integer; the JSON is broken'),
        ('{"b": 1}', 'none of the keys "a"'), ("{}", "a: is missing"),
        ('{"a":' + "[" * 500 + "]" * 500 + "}", "nested too deeply"),
    ],
)  # fmt: skip
def test_a_reply_without_the_object_says_why(reply, error):
    parsed = Schema.of({"a": int}).parse(reply)
    assert parsed.values is None
    assert error in parsed.error
    assert len(parsed.error) < 300


def test_an_object_of_something_else_is_not_taken_for_nothing_found():
    schema = Schema.of({"a": int | None, "b": str | None})
    assert schema.parse("{}").values == {"a": None, "b": None}
    assert schema.parse('{"b": "x"}').values == {"a": None, "b": "x"}
    assert "none of the keys" in schema.parse('{"answer": {"a": 1, "b": "x"}}').error


def test_half_of_a_character_in_an_answer_is_replaced():
    schema = Schema.of({"a": str})
    assert schema.parse('{"a": "x\\ud83d"}').values == {"a": "x\ufffd"}
    assert schema.parse('{"a": "\\ud83d\\ude42"}').values == {"a": "🙂"}


@given(st.text())
def test_any_reply_is_read_without_an_exception(text):
    for spec in (Order, {"a": int, "b": date | None}):
        parsed = Schema.of(spec).parse(text)
        assert (parsed.values is None) == bool(parsed.error)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["NaN", "2024", "red", "yes", "1e999", 2**63, 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["what", "price", "x"]), inner),
    max_leaves=5,
)  # fmt: skip

EVERYTHING = Schema.of(
    {
        "a": int, "b": float | None, "c": bool, "d": Color, "e": date | None, "f": datetime, "g": str,
        "h": list[int], "i": Item | None, "j": int | str, "k": AwareDatetime | None, "l": int | float,
        "m": Decimal, "n": Literal["x", 3] | None, "o": timedelta,
    }
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([each.key for each in EVERYTHING.fields]), json_values))
def test_any_object_is_checked_without_an_exception(value):
    parsed = EVERYTHING.parse(json.dumps(value))
    assert (parsed.values is None) == bool(parsed.error)
    # What is said to be valid is so in the frame as well.
    import pandas as pd

    columns = EVERYTHING.columns([parsed.values, parsed.partial], index=pd.RangeIndex(2))
    assert columns.errors == {}
    present = {key for key, each in parsed.partial.items() if each is not None}
    assert {key for key in columns.frame if columns.frame[key].notna().iloc[1]} == present


def test_zones_of_all_kinds_are_read():
    zone = timezone(timedelta(hours=2))
    assert read(datetime, "2024-01-01T02:00:00+02:00") == datetime(2024, 1, 1, 2, tzinfo=zone)
