"""Tables keep every row, column and cell, whatever is in them."""

from __future__ import annotations

import datetime as dt
import decimal
import gzip
import io
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.command_line.tables import (
    Format,
    Table,
    cells_of,
    check_writable,
    read_table,
    write_table,
)
from lbgpt_pandas.engine.errors import ConfigurationError

# Without halves of characters, which are no text, NUL, which ends one for many readers, and the
# mark that says at the start of a file that it is UTF-8.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=8)
CELLS = st.one_of(st.none(), TEXTS.filter(bool))
ROWS = st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6)


def save(table, path):
    form = Format.of(path)
    check_writable(table, form)
    file = io.BytesIO()
    write_table(table, form, file)
    path.write_bytes(file.getvalue())
    return path


def lists(frame):
    return [cells_of(frame.iloc[:, position]) for position in range(frame.shape[1])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@pytest.mark.parametrize(
    "name", ["t.csv", "t.tsv", "t.csv.gz", "t.jsonl", "t.ndjson.gz", "t.parquet"]
)
@given(rows=ROWS, names=st.tuples(TEXTS, TEXTS).filter(lambda two: two[0] != two[1]))
def test_texts_come_back(folder, name, rows, names):
    columns = [list(column) for column in zip(*rows, strict=True)]
    frame = pd.DataFrame(dict(zip(names, columns, strict=True)), dtype=object)
    again = read_table(save(Table(frame), folder / name)).frame
    assert list(again.columns) == list(names)
    assert lists(again) == columns
    assert isinstance(again.index, pd.RangeIndex)


def test_csv_cells_are_texts_and_empty_ones_are_na(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffid,n,,n\r\n007,NA,1e3,null\r\n,"",nan,1\n'.encode())
    frame = read_table(path).frame
    assert list(frame.columns) == ["id", "n", "", "n"]
    assert lists(frame) == [["007", None], ["NA", None], ["1e3", "nan"], ["null", "1"]]


def test_jsonl_keeps_types_and_nesting(tmp_path):
    lines = [
        {"n": 1, "big": 2**70, "x": 0.1, "d": "2026-01-01", "l": [1, {"a": None}]},
        {"n": None, "x": 1e300, "b": True, "half": "\ud83d"},
    ]
    path, again = tmp_path / "t.jsonl", tmp_path / "u.jsonl"
    path.write_text("\n\n".join(map(json.dumps, lines)))
    save(read_table(path), again)
    found = [json.loads(line) for line in again.read_text().splitlines()]
    names = dict.fromkeys(name for line in lines for name in line)
    assert found == [{name: line.get(name) for name in names} for line in lines]


def test_parquet_keeps_types_and_metadata(tmp_path):
    frame = pd.DataFrame(
        {
            "i": pd.array([1, None], dtype="Int64"),
            "f": [1.5, None],
            "c": pd.Categorical(["x", "y"]),
            "at": pd.to_datetime(["2020-01-01", "2021-01-01"], utc=True),
            "l": [[1, 2], None],
            "o": [{"a": 1}, None],
            "raw": [b"\xff", None],
            "dec": [decimal.Decimal("1.10"), None],
        },
        index=pd.Index([7, 9], name="id"),
    )
    frame.to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    save(table, tmp_path / "u.parquet")
    one, other = (pq.read_table(tmp_path / name) for name in ("t.parquet", "u.parquet"))
    assert other.equals(one, check_metadata=True)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "u.parquet"), frame)
    with pytest.raises(ConfigurationError, match="'raw' holds bytes"):
        check_writable(table, Format("jsonl"))
    rest = table.with_frame(table.frame.drop(columns="raw"))
    (first, second) = save(rest, tmp_path / "u.jsonl").read_text().splitlines()
    assert json.loads(first) == {
        "i": 1, "f": 1.5, "c": "x", "at": "2020-01-01T00:00:00+00:00", "l": [1, 2],
        "o": {"a": 1}, "dec": "1.10", "id": 7,
    }  # fmt: skip
    assert json.loads(second)["i"] is None
    written = save(rest, tmp_path / "u.csv")
    assert read_table(written).frame.loc[0, ["i", "l", "o"]].tolist() == ["1", "[1,2]", '{"a":1}']


def test_dates_of_parquet_are_written_as_iso(tmp_path):
    pq.write_table(pa.table({"d": [dt.date(2026, 1, 2)]}), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert save(table, tmp_path / "t.jsonl").read_text() == '{"d":"2026-01-02"}\n'
    assert save(table, tmp_path / "t.csv").read_text() == "d\n2026-01-02\n"


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_limit_is_of_rows(tmp_path, name):
    path = save(Table(pd.DataFrame({"a": ["x", "y", "z"]})), tmp_path / name)
    assert lists(read_table(path, limit=2).frame) == [["x", "y"]]
    assert len(read_table(path, limit=9).frame) == 3


def test_gzip_has_no_time_in_it(tmp_path):
    table = Table(pd.DataFrame({"a": ["x"]}))
    one, other = (save(table, tmp_path / name).read_bytes() for name in ("a.csv.gz", "b.csv.gz"))
    assert one == other
    assert gzip.decompress(one) == b"a\nx\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"", "name the columns"),
        ("t.csv", b"a,b\n1,2,3\n", "line 2"),
        ("t.csv", "a\nä".encode("latin1"), "not UTF-8"),
        ("t.jsonl", b'{"a": 1}\n{"a": \n', "line 2 is no JSON"),
        ("t.jsonl", b"[1]\n", "line 1 is no object"),
        ("t.parquet", b"PAR2", "cannot be read"),
        ("t.csv.gz", b"a\n1\n", "cannot be read"),
        ("t.xlsx", b"", "no format that is known"),
        ("t.parquet.gz", b"", "no format that is known"),
    ],
)
def test_what_is_damaged_is_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=words):
        read_table(tmp_path / name)


def test_what_a_format_cannot_hold_is_refused_before():
    mixed = Table(pd.DataFrame({"a": [1, "x"]}, dtype=object))
    with pytest.raises(ConfigurationError, match=r"column 'a'.*one type"):
        check_writable(mixed, Format("parquet"))
    check_writable(mixed, Format("jsonl"))
    twice = Table(pd.DataFrame([["x", "y"]], columns=["a", "a"]))
    for kind in ("parquet", "jsonl"):
        with pytest.raises(ConfigurationError, match="two columns are called 'a'"):
            check_writable(twice, Format(kind))
    check_writable(twice, Format("csv"))
