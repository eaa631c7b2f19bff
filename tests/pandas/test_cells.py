"""The text of a cell, for every kind of cell and column."""

from __future__ import annotations

import datetime as dt
import enum
import json
import uuid
from decimal import Decimal
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.cells import cell_text, cell_value, column_texts, format_cell, is_missing
from lbgpt_pandas.engine.errors import InvalidInput
from lbgpt_pandas.frames import to_requests


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Mixed(enum.StrEnum):
    A = "a"


class Opaque:
    pass


class Spoken:
    def __str__(self):
        return "spoken"


class Scalar:
    def as_py(self):
        return Decimal("1.50")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("  as it is\u0301 \x00 👩‍🚀 שלום ", "  as it is\u0301 \x00 👩‍🚀 שלום "),
        (3, "3"),
        (3.0, "3.0"),
        (1e100, "1e+100"),
        (float("inf"), "inf"),
        (True, "True"),
        (np.str_("s"), "s"),
        (np.int64(3), "3"),
        (np.uint8(3), "3"),
        (np.float64(0.1), "0.1"),
        (np.float32(0.1), "0.1"),
        (np.float16(0.1), "0.1"),
        (np.bool_(True), "True"),
        (np.longdouble(1.5), "1.5"),
        (np.complex128(1 + 2j), "(1+2j)"),
        (np.datetime64("2024-05-01T10:00", "ns"), "2024-05-01T10:00:00"),
        (np.timedelta64(90, "s"), "0 days 00:01:30"),
        (pd.Timestamp("2024-05-01", tz="Europe/Berlin"), "2024-05-01T00:00:00+02:00"),
        (dt.datetime.fromisoformat("2024-05-01T10:00"), "2024-05-01T10:00:00"),
        (dt.date(2024, 5, 1), "2024-05-01"),
        (dt.time(10, 30), "10:30:00"),
        (pd.Timedelta(days=1), "1 days 00:00:00"),
        (dt.timedelta(days=1), "1 days 00:00:00"),
        (pd.Period("2024-05", "M"), "2024-05"),
        (pd.Interval(0, 1), "(0, 1]"),
        (Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("a/b"), "a/b"),
        (Color.RED, "red"),
        (Level.LOW, "1"),
        (Mixed.A, "a"),
        (["é", None, np.nan, pd.NA, 1.5, (2,)], '["é", null, null, null, 1.5, [2]]'),
        ({"k": pd.Timestamp("2024-05-01"), 1: Decimal(2)}, '{"k": "2024-05-01T00:00:00", "1": "2"}'),
        ({"b", "a"}, '["a", "b"]'),
        (np.array([[1, 2]]), "[[1, 2]]"),
        ([Color.RED, np.int64(1), np.float32(0.1)], '["red", 1, 0.1]'),
        (Spoken(), "spoken"),
        (Scalar(), "1.50"),
    ],
)  # fmt: skip
def test_the_rule(cell, text):
    assert cell_text(cell) == text
    assert type(cell_text(cell)) is str


@pytest.mark.parametrize("cell", [b"x", bytearray(b"x"), memoryview(b"x"), [b"x"], {"k": b"x"}])
def test_bytes_have_no_text(cell):
    with pytest.raises(InvalidInput, match="cannot be sent as text; decode"):
        cell_text(cell)


def test_an_address_in_memory_is_no_text():
    with pytest.raises(InvalidInput, match="Opaque objects have no text"):
        cell_text(Opaque())


@pytest.mark.parametrize(
    "cell",
    [None, float("nan"), np.nan, np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT"),
     np.timedelta64("NaT"), Decimal("NaN")],
)  # fmt: skip
def test_what_is_missing(cell):
    assert is_missing(cell)


@pytest.mark.parametrize("cell", ["", 0, False, [], {}, [None], np.array([np.nan]), "nan", "None"])
def test_what_is_not_missing(cell):
    assert not is_missing(cell)


def test_plain_data_are_copies_of_plain_types():
    source = {"a": [np.int64(1), (True, np.bool_(False))], "e": Color.RED, "n": np.nan}
    plain = cell_value(source)
    assert plain == {"a": [1, [True, False]], "e": "red", "n": None}
    assert type(plain["a"][0]) is int
    assert plain["a"][1][1] is False
    source["a"].append(2)
    assert len(plain["a"]) == 2


NA_COLUMNS = {
    "object": pd.Series(["x", None, np.nan, pd.NA, pd.NaT], dtype=object),
    "str": pd.Series(["x", None, None, None, None]),
    "string": pd.Series(["x", None, None, None, None], dtype="string[python]"),
    "arrow": pd.Series(["x", None, None, None, None], dtype=pd.ArrowDtype(pa.string())),
    "category": pd.Series(["x", None, None, None, None], dtype="category"),
    "float": pd.Series([1.5, None, None, None, None]),
    "float32": pd.Series([0.1, None, None, None, None], dtype="float32"),
    "Float32": pd.Series([0.1, None, None, None, None], dtype="Float32"),
    "Int64": pd.Series([1, None, None, None, None], dtype="Int64"),
    "boolean": pd.Series([True, None, None, None, None], dtype="boolean"),
    "datetime": pd.Series([pd.Timestamp("2024-05-01"), None, None, None, None]),
    "sparse": pd.Series([1.5, None, None, None, None], dtype="Sparse[float]"),
    "arrow int": pd.Series([1, None, None, None, None], dtype=pd.ArrowDtype(pa.int8())),
    "arrow null": pd.Series([None] * 5, dtype=pd.ArrowDtype(pa.null())),
}


@pytest.mark.parametrize("kind", NA_COLUMNS)
def test_missing_cells_are_found_in_every_kind_of_column(kind):
    texts, missing, faulty = column_texts(NA_COLUMNS[kind].array, fill="-")
    assert missing == ([0, 1, 2, 3, 4] if kind == "arrow null" else [1, 2, 3, 4])
    assert texts[1:] == ["-"] * 4
    assert faulty == {}
    assert "nan" not in "".join(texts).lower()


COLUMNS = [
    (pd.Series([1, 2], dtype="int8"), ["1", "2"]),
    (pd.Series([1, 2], dtype="Int64"), ["1", "2"]),
    (pd.Series([0.1, 2], dtype="float32"), ["0.1", "2.0"]),
    (pd.Series([0.1, 2], dtype="Float32"), ["0.1", "2.0"]),
    (pd.Series([0.1, 2], dtype=pd.ArrowDtype(pa.float32())), ["0.1", "2.0"]),
    (pd.Series([0.1, 2], dtype="Sparse[float32]"), ["0.1", "2.0"]),
    (pd.Series([0, 2], dtype="Sparse[int]"), ["0", "2"]),
    (pd.Series([True, False]), ["True", "False"]),
    (pd.Series([True, False], dtype="boolean"), ["True", "False"]),
    (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
    (pd.Series([1, 2], dtype="category"), ["1", "2"]),
    (pd.Series(pd.to_datetime(["2024-05-01", "2024-05-02"])).astype("category"),
     ["2024-05-01T00:00:00", "2024-05-02T00:00:00"]),
    (pd.Series(pd.to_datetime(["2024-05-01 10:00:00.000000001", "2024-05-02"], format="ISO8601")),
     ["2024-05-01T10:00:00.000000001", "2024-05-02T00:00:00"]),
    (pd.Series(pd.to_datetime(["2024-05-01", "2024-05-02"])).dt.tz_localize("Asia/Tokyo"),
     ["2024-05-01T00:00:00+09:00", "2024-05-02T00:00:00+09:00"]),
    (pd.Series(pd.to_timedelta([1, 2], unit="D")), ["1 days 00:00:00", "2 days 00:00:00"]),
    (pd.Series(pd.period_range("2024-01", periods=2, freq="M")), ["2024-01", "2024-02"]),
    (pd.Series(pd.interval_range(0, 2)), ["(0, 1]", "(1, 2]"]),
    (pd.Series(["é", "b"], dtype=pd.ArrowDtype(pa.string())), ["é", "b"]),
    (pd.Series([[1, None], [2]], dtype=pd.ArrowDtype(pa.list_(pa.int64()))), ["[1, null]", "[2]"]),
    (pd.Series([{"a": 1}, {"a": 2}], dtype=pd.ArrowDtype(pa.struct([("a", pa.int64())]))),
     ['{"a": 1}', '{"a": 2}']),
    (pd.Series([Decimal("1.10"), Decimal("2.00")], dtype=pd.ArrowDtype(pa.decimal128(5, 2))),
     ["1.10", "2.00"]),
    (pd.Series([dt.date(2024, 5, 1)] * 2, dtype=pd.ArrowDtype(pa.date32())), ["2024-05-01"] * 2),
    (pd.Series([dt.datetime.fromisoformat("2024-05-01")] * 2, dtype=pd.ArrowDtype(pa.timestamp("us"))),
     ["2024-05-01T00:00:00"] * 2),
    (pd.Series([1, "b"], dtype=object), ["1", "b"]),
    (pd.Series([np.array([1, 2]), {"k": 1}]), ["[1, 2]", '{"k": 1}']),
    (pd.Series([1 + 2j, 0j]), ["(1+2j)", "0j"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "texts"), COLUMNS, ids=lambda value: str(getattr(value, "dtype", ""))
)
def test_the_rule_in_columns(column, texts):
    found, missing, faulty = column_texts(column.array)
    assert (found, missing, faulty) == (texts, [], {})
    frame = pd.DataFrame({"c": column})
    plan = to_requests(frame, template=lambda row: cell_text(row.c), params={}, options={})
    assert [plan.requests[code].messages[0]["content"] for code in plan.codes] == texts


def test_arrow_bytes_and_bad_cells_are_row_errors_with_column_and_label():
    loop: list = []
    loop.append(loop)
    frame = pd.DataFrame(
        {"t": [b"raw", "ok", Opaque(), loop, 10**5000, bytearray(b"x"), None]},
        index=list("abcdefg"),
    )
    plan = to_requests(frame, template="{t}", params={}, options={})
    assert plan.codes.tolist() == [-1, 0, -1, -1, -1, -1, -1]
    assert sorted(plan.errors) == [0, 2, 3, 4, 5]
    assert plan.skipped.tolist() == [6]
    assert all(isinstance(error, InvalidInput) for error in plan.errors.values())
    assert "row 2 (index 'c'), column 't'" in str(plan.errors[2])
    binary = pd.Series([b"raw"], dtype=pd.ArrowDtype(pa.binary()))
    assert len(to_requests(binary, template="{value}", params={}, options={}).errors) == 1


def test_a_long_cell_passes_whole():
    text = "é" * 1_000_000
    plan = to_requests(pd.Series([text]), template="{}", params={}, options={})
    assert plan.requests[0].messages[0]["content"] == text


def test_composed_and_decomposed_text_stay_different():
    plan = to_requests(pd.Series(["\u00e9", "e\u0301"]), template="{}", params={}, options={})
    assert len(plan.requests) == 2


def test_formats():
    assert format_cell(Decimal("1.005"), ".2f") == "1.00"
    assert format_cell(True, ">6") == "  True"
    assert format_cell(True, "d") == "1"
    assert format_cell(np.float32(0.1), ".3f") == "0.100"
    assert format_cell(pd.Timestamp("2024-05-01"), ".10") == "2024-05-01"
    for cell in ("x", [1], dt.date(2024, 5, 1)):
        with pytest.raises(ValueError, match="for numbers"):
            format_cell(cell, ".1f")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.lists(JSON) | st.dictionaries(st.text(), JSON))
def test_containers_survive_the_way_through_json(cell):
    assert json.loads(cell_text(cell)) == cell
    assert cell_value(cell) == cell


CELLS = (
    st.text()
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.none()
    | st.decimals(allow_nan=False)
)


@given(st.lists(CELLS, max_size=6))
def test_a_column_has_the_texts_of_its_cells(cells):
    texts, missing, faulty = column_texts(pd.Series(cells, dtype=object).array)
    assert missing == [n for n, cell in enumerate(cells) if is_missing(cell)]
    assert faulty == {}
    for cell, text in zip(cells, texts, strict=True):
        assert text == ("" if is_missing(cell) else cell_text(cell))


@pytest.mark.parametrize(
    "array",
    [
        pd.arrays.FloatingArray(np.array([1.5, np.nan, 2.5]), np.array([False, False, True])),
        pd.arrays.ArrowExtensionArray(pa.array([1.5, float("nan"), None])),
    ],
)
def test_a_nan_that_isna_does_not_see_is_missing(array: pd.api.extensions.ExtensionArray) -> None:
    assert column_texts(array)[1] == [1, 2]
