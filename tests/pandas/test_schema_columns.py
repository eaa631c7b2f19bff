"""From values to columns, for each dtype and index."""

# ruff: noqa: PD011, DTZ001, PYI030, PYI061  a Parsed has values; all spellings of types are meant

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel

from lbgpt_pandas.frames import text_array
from lbgpt_pandas.schemas import Schema

TEXT = "str" if int(pd.__version__.split(".")[0]) >= 3 else "string"


class Color(Enum):
    RED = "red"
    ODD = 'a"b\n🙂'
    EMPTY = ""


class Grade(IntEnum):
    ONE = 1
    TWO = 2


class Item(BaseModel):
    what: str
    when: date | None


KINDS = {
    "int": (int, "Int64", [1, -(2**63), 2**63 - 1]),
    "int or null": (int | None, "Int64", [2**53 + 1]),
    "float": (float, "Float64", [1.5, -0.0, 1e308]),
    "int or float": (int | float, "Float64", [1, 2.5]),
    "bool": (bool, "boolean", [True, False]),
    "str": (str, TEXT, ["a", "", "ü🙂\n"]),
    "date": (date, "datetime64[us]", [date(1, 1, 1), date(2024, 2, 29), date(9999, 12, 31)]),
    "datetime": (datetime, "datetime64[us]", [datetime(2024, 2, 29, 1, 2, 3, 456789)]),
    "aware": (AwareDatetime, "datetime64[us, UTC]", [datetime(2024, 1, 1, tzinfo=UTC)]),
    "aware or null": (AwareDatetime | None, "datetime64[us, UTC]", [datetime(1700, 1, 1, tzinfo=UTC)]),
    "date or datetime": (date | datetime, "datetime64[us]", [date(2024, 1, 1), datetime(2024, 1, 1, 1)]),
    "literal": (Literal["b", "a", ""], "category", ["a", "b", ""]),
    "numbers": (Literal[3, 1], "category", [1, 3]),
    "mixed": (Literal["x", 1], "category", ["x", 1]),
    "bools": (Literal[True, False], "category", [True, False]),
    "two literals": (Literal["b"] | Literal["a"] | None, "category", ["a", "b"]),
    "enum": (Color, "category", ['a"b\n🙂', "", "red"]),
    "int enum": (Grade | None, "category", [2, 1]),
    "list": (list[str], "object", [["a", "b"], [], ["c"]]),
    "lists of one length": (list[int], "object", [[1], [2]]),
    "nested": (Item, "object", [{"what": "x", "when": date(2024, 1, 1)}, {"what": "y", "when": None}]),
    "union": (int | str, "object", ["a", 1]),
    "union of text": (int | str, "object", ["a", "b"]),
    "literal or int": (Literal["a"] | int, "object", ["a", 1]),
    "date or text": (date | str, "object", ["soon", date(2024, 1, 1)]),
    "time": (time, "object", [time(10, 30)]),
    "duration": (timedelta, "object", [timedelta(hours=1)]),
    "decimal": (Decimal, "object", [Decimal("1.10")]),
}  # fmt: skip


def encode(value):
    if isinstance(value, timedelta):
        return f"PT{value.total_seconds()}S"
    return value.isoformat() if isinstance(value, date | time) else str(value)


def normal(value, dtype):
    if dtype.startswith("datetime"):
        return pd.Timestamp(value)
    return value


@pytest.mark.parametrize("kind", KINDS)
def test_values_go_to_json_and_back_into_a_column(kind):
    type_, dtype, values = KINDS[kind]
    schema = Schema.of({"x": type_})
    rows = [None]
    for value in values:
        parsed = schema.parse(json.dumps({"x": value}, default=encode))
        assert parsed.error == ""
        assert parsed.values == {"x": value}
        rows.append(parsed.values)
    frame, errors = schema.columns(rows, index=pd.RangeIndex(len(rows)))
    column = frame["x"]
    assert errors == {}
    assert str(column.dtype) == dtype
    assert column.isna().tolist() == [True] + [False] * len(values)
    found = column.iloc[1:].tolist()
    assert found == [normal(value, dtype) for value in values]
    for one, other in zip(found, values, strict=True):
        if dtype in {"category", "object"}:
            assert type(one) is type(other)
    assert schema.dtypes == {"x": column.dtype}


def test_categories_are_all_options_in_order():
    schema = Schema.of({"a": Literal["b", "a"], "b": Color, "c": Literal["x", None, 3], "d": Grade})
    dtypes = schema.dtypes
    assert dtypes["a"].categories.tolist() == ["b", "a"]
    assert dtypes["b"].categories.tolist() == ["red", 'a"b\n🙂', ""]
    assert dtypes["c"].categories.tolist() == ["x", 3]
    assert dtypes["d"].categories.tolist() == [1, 2]
    assert not any(dtype.ordered for dtype in dtypes.values())


INDEXES = {
    "range": pd.RangeIndex(5, 20, 5),
    "duplicate": pd.Index(["a", "a", "b"], name="k"),
    "unsorted": pd.Index([3, 1, 2]),
    "multi": pd.MultiIndex.from_tuples([(1, "a"), (1, "a"), (0, "b")], names=["i", None]),
    "tz": pd.date_range("2024-03-31", periods=3, freq="h", tz="Europe/Berlin"),
    "missing": pd.Index([np.nan, np.nan, 1.0]),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_columns_are_aligned_by_position(kind):
    index = INDEXES[kind]
    schema = Schema.of({name: type_ for name, (type_, _, _) in KINDS.items()})
    row = {name: values[0] for name, (_, _, values) in KINDS.items()}
    frame, errors = schema.columns([row, None, row | {"int": 5}], index=index, prefix="p_")
    assert errors == {}
    assert frame.index.equals(index)
    assert frame.index.names == index.names
    assert list(frame.columns) == [f"p_{name}" for name in KINDS]
    assert frame.iloc[1].isna().all()
    assert frame.iloc[[0, 2]].notna().all(axis=None)
    assert frame["p_int"].fillna(0).tolist() == [1, 0, 5]
    assert [str(dtype) for dtype in frame.dtypes] == [dtype for _, dtype, _ in KINDS.values()]


def test_an_empty_frame_keeps_the_dtypes():
    schema = Schema.of({name: type_ for name, (type_, _, _) in KINDS.items()})
    frame, errors = schema.columns([], index=pd.Index([], name="k"))
    assert frame.shape == (0, len(KINDS))
    assert frame.index.name == "k"
    assert errors == {}
    assert [str(dtype) for dtype in frame.dtypes] == [dtype for _, dtype, _ in KINDS.values()]
    nothing, _ = schema.columns([None, None], index=pd.RangeIndex(2))
    assert nothing.dtypes.tolist() == frame.dtypes.tolist()
    assert nothing.isna().all(axis=None)


def test_times_with_a_zone_are_in_utc_whatever_the_others_are():
    schema = Schema.of({"naive": datetime, "aware": AwareDatetime})
    zone = timezone(timedelta(hours=5))
    rows = [
        {"naive": datetime(2024, 1, 1, 6, tzinfo=zone), "aware": datetime(2024, 1, 1, 6, tzinfo=zone)},
        {"naive": datetime(2024, 1, 1, 6), "aware": None},
    ]  # fmt: skip
    frame, _ = schema.columns(rows, index=pd.RangeIndex(2))
    assert frame["naive"].tolist() == [
        pd.Timestamp("2024-01-01 01:00"),
        pd.Timestamp("2024-01-01 06:00"),
    ]
    assert frame["aware"][0] == pd.Timestamp("2024-01-01 01:00", tz="UTC")


def test_what_does_not_fit_is_a_row_error():
    schema = Schema.of(
        {"a": int, "b": Literal["x"], "c": datetime, "d": float, "e": bool, "f": str}
    )
    fine = {"a": 1, "b": "x", "c": date(2024, 1, 1), "d": 1, "e": True, "f": "t"}
    late = datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))
    rows = [
        fine, fine | {"a": 2**63, "b": "y"}, fine | {"c": late}, fine | {"d": 10**400},
        fine | {"e": 1}, fine | {"f": 3}, fine | {"a": True}, fine | {"d": float("nan")}, {"a": 1}, fine,
    ]  # fmt: skip
    frame, errors = schema.columns(rows, index=pd.RangeIndex(len(rows)))
    assert sorted(errors) == [1, 2, 3, 4, 5, 6, 7]
    assert errors[1] == (
        'a: 9223372036854775808 does not fit a column of Int64; b: "y" does not fit a column of category'
    )
    assert frame.isna().sum(axis=1).tolist() == [0, 2, 1, 1, 1, 1, 1, 1, 5, 0]


def test_as_many_rows_as_places():
    with pytest.raises(ValueError, match="1 rows for an index of 2"):
        Schema.of({"a": int}).columns([None], index=pd.RangeIndex(2))


def test_text_with_half_of_a_character_is_kept_but_for_that():
    torn = text_array(np.array(["a\ud800", None], dtype=object))
    assert torn[0] == "a\ufffd"
    assert isinstance(torn.dtype, pd.StringDtype)
    frame, errors = Schema.of({"a": str}).columns([{"a": "\ud800"}], index=pd.RangeIndex(1))
    assert frame["a"].tolist() == ["\ufffd"]
    assert errors == {}


def test_the_rows_are_not_changed():
    rows = [{"a": [1]}]
    frame, _ = Schema.of({"a": list[int]}).columns(rows, index=pd.RangeIndex(1))
    assert frame["a"][0] == [1]
    assert rows == [{"a": [1]}]


texts = st.text(st.characters(exclude_categories=["Cs"]))
options = ["red", 'a"b\n🙂', ""]
fields = st.fixed_dictionaries(
    {
        "a": st.integers(-(2**63), 2**63 - 1),
        "b": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "c": st.booleans(),
        "d": st.sampled_from(options),
        "e": st.none() | st.dates(),
        "f": st.datetimes(),
        "g": texts,
        "h": st.lists(st.integers()),
        "i": st.fixed_dictionaries({"what": texts, "when": st.none() | st.dates()}),
        "j": st.none() | st.datetimes(timezones=st.just(UTC)),
        "k": st.none() | st.sampled_from(["x", 3]),
    }
)


@given(st.lists(st.none() | fields, max_size=5), st.booleans())
def test_whatever_fits_survives_json_parse_and_columns(rows, ascii_only):
    schema = Schema.of(
        {
            "a": int, "b": float | None, "c": bool, "d": Color, "e": date | None, "f": datetime,
            "g": str, "h": list[int], "i": Item, "j": AwareDatetime | None, "k": Literal["x", 3] | None,
        }
    )  # fmt: skip
    parsed = []
    for row in rows:
        if row is None:
            parsed.append(None)
            continue
        text = json.dumps(row, default=encode, ensure_ascii=ascii_only)
        found = schema.parse(text)
        assert found.error == ""
        assert found.values == row
        parsed.append(found.values)
    frame, errors = schema.columns(parsed, index=pd.Index([0] * len(rows)))
    assert errors == {}
    assert dict(frame.dtypes) == schema.dtypes
    for position, row in enumerate(rows):
        for name, cell in frame.iloc[position].items():
            expected = None if row is None else row[name]
            if expected is None:
                assert cell is None or pd.isna(cell)
            elif name in {"e", "f", "j"}:
                assert cell == pd.Timestamp(expected)
            else:
                assert cell == expected
