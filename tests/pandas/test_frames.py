"""Rows to requests and answers to a column."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine.errors import ConfigurationError, InvalidInput, TemplateError
from lbgpt_pandas.engine.types import Request
from lbgpt_pandas.frames import col, to_requests, to_series
from lbgpt_pandas.rows import BLOCK_ROWS
from lbgpt_pandas.testing import ScriptedGPT

PANDAS_3 = int(pd.__version__.split(".")[0]) >= 3


def plan_of(data, template="{t}", *, params=None, options=None, **keywords):
    return to_requests(
        data, template=template, params=params or {}, options=options or {}, **keywords
    )


def prompts(plan):
    return [request.messages[-1]["content"] for request in plan.requests]


def upper(plan, **keywords):
    return to_series(plan, [text.upper() for text in prompts(plan)], name="out", **keywords)


def test_equal_rows_share_a_request_in_the_order_of_first_use():
    plan = plan_of(pd.DataFrame({"t": list("bab")}))
    assert prompts(plan) == ["b", "a"]
    assert plan.codes.tolist() == [0, 1, 0]
    assert plan.rows_of() == [2, 1]
    assert plan.rows == 3
    assert {request.sample for request in plan.requests} == {0}


def test_independent_duplicates_are_numbered():
    plan = plan_of(pd.DataFrame({"t": ["b", "a", None, "b", "b"]}), duplicates="independent")
    assert [(text, r.sample) for text, r in zip(prompts(plan), plan.requests, strict=True)] == [
        ("b", 0), ("a", 0), ("b", 1), ("b", 2),
    ]  # fmt: skip
    assert plan.codes.tolist() == [0, 1, -1, 2, 3]
    assert plan.rows_of() == [1, 1, 1, 1]


def test_requests_share_params_and_options_which_are_copies():
    params, options = {"model": "m"}, {"request_timeout": 3}
    plan = plan_of(pd.DataFrame({"t": list("ab")}), params=params, options=options)
    params["model"] = "other"
    first, second = plan.requests
    assert first.params is second.params
    assert first.options is second.options
    assert (first.params, first.options) == ({"model": "m"}, {"request_timeout": 3})


def test_requests_are_a_sequence_made_anew():
    plan = plan_of(pd.DataFrame({"t": list("abc")}))
    assert isinstance(plan.requests[0], Request)
    assert plan.requests[-1].messages == [{"role": "user", "content": "c"}]
    assert [r.messages for r in plan.requests[1:]] == [r.messages for r in plan.requests][1:]
    with pytest.raises(IndexError):
        plan.requests[3]
    plan.requests[0].messages.append("damage")
    assert len(plan.requests[0].messages) == 1


def test_a_series_has_value_its_name_and_the_index():
    series = pd.Series(["x", "y"], index=["i", "j"], name="text")
    for template in ("{value}", "{text}", "{}"):
        assert prompts(plan_of(series, template)) == ["x", "y"]
    assert prompts(plan_of(series, "{index}-{}")) == ["i-x", "j-y"]
    assert prompts(plan_of(pd.Series(["x"]), "{value}")) == ["x"]
    assert plan_of(series, "{}").name == "text"
    assert prompts(plan_of(series.rename("value"), "{value}")) == ["x", "y"]
    with pytest.raises(TemplateError, match="did you mean 'text'"):
        plan_of(series, "{test}")


def test_index_and_level_names():
    index = pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["n", "letter"])
    frame = pd.DataFrame({"t": ["x", "y"], "letter": ["own", "own"]}, index=index)
    assert prompts(plan_of(frame, "{n} {t}")) == ["1 x", "2 y"]
    assert prompts(plan_of(frame, "{letter}")) == ["own"]
    assert prompts(plan_of(frame, "{index}")) == ['[1, "a"]', '[2, "b"]']
    named = pd.DataFrame({"t": ["x"]}, index=pd.Index([7], name="id"))
    assert prompts(plan_of(named, "{id} {index}")) == ["7 7"]
    assert prompts(plan_of(named.reset_index(names="index"), "{index}")) == ["7"]
    twins = pd.DataFrame({"t": ["x"]}, index=pd.MultiIndex.from_tuples([(1, 2)], names=["k", "k"]))
    assert prompts(plan_of(twins, "{k}")) == ["1"]


INDEXES = {
    "range": pd.RangeIndex(5, 30, 5),
    "duplicate": pd.Index(list("aabba"), name="k"),
    "unsorted": pd.Index([3, 1, 2, 0, -1]),
    "multi": pd.MultiIndex.from_tuples([(1, "a"), (1, "a"), (0, "b"), (0, "c"), (1, "a")]),
    "tz": pd.date_range("2024-03-31", periods=5, freq="h", tz="Europe/Berlin", name="when"),
    "category": pd.CategoricalIndex(list("xyxyx")),
    "interval": pd.interval_range(0, 5),
    "missing": pd.Index([1.0, np.nan, np.nan, 2.0, 3.0]),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_answers_stand_where_their_rows_do(kind):
    frame = pd.DataFrame({"t": ["a", "b", None, "a", "c"]}, index=INDEXES[kind])
    answers = upper(plan_of(frame))
    assert answers.array.to_numpy(dtype=object, na_value=None).tolist() == [
        "A",
        "B",
        None,
        "A",
        "C",
    ]
    pd.testing.assert_index_equal(answers.index, frame.index)
    assert answers.name == "out"
    frame["answer"] = answers
    assert frame["answer"].iloc[3] == "A"
    texts = prompts(plan_of(frame.iloc[:1], "{index}"))
    assert len(texts) == 1


@pytest.mark.parametrize(
    "data",
    [pd.DataFrame({"t": []}), pd.DataFrame({"t": ["x"]}).iloc[:0],
     pd.DataFrame({"t": pd.Series(dtype="datetime64[ns]")}), pd.Series([], dtype=object, name="t"),
     pd.DataFrame({"t": []}, index=pd.MultiIndex.from_arrays([[], []]))],
)  # fmt: skip
@pytest.mark.parametrize("template", ["{t}", "none", lambda row: row.t])
def test_an_empty_frame_is_an_empty_column_of_text(data, template):
    plan = plan_of(data, template)
    assert len(plan.requests) == plan.rows == 0
    answers = to_series(plan, [], name=None)
    assert len(answers) == 0
    assert answers.dtype == to_series(plan_of(pd.Series(["x"]), "{}"), ["y"], name=None).dtype
    pd.testing.assert_index_equal(answers.index, data.index)


def test_a_missing_column_is_found_in_an_empty_frame_too():
    with pytest.raises(TemplateError, match="did you mean 't'"):
        plan_of(pd.DataFrame({"t": []}), "{tt}")


def test_the_dtype_is_the_text_dtype_of_this_pandas():
    answers = upper(plan_of(pd.Series(["x", None]), "{}"))
    assert isinstance(answers.dtype, pd.StringDtype)
    assert answers.dtype == ("str" if PANDAS_3 else "string")
    assert answers.isna().tolist() == [False, True]
    nothing = to_series(plan_of(pd.Series([None, None], dtype=object), "{}"), [], name=None)
    assert nothing.dtype == answers.dtype
    assert nothing.isna().all()


def test_object_answers_stay_what_they_are():
    plan = plan_of(pd.Series(["a", None, "b", "a"]), "{}")
    values = [[1, 2], [3, 4]]
    answers = to_series(plan, values, name=None, dtype=object)
    assert answers.tolist() == [[1, 2], None, [3, 4], [1, 2]]
    assert answers.dtype == object
    assert answers.iloc[0] is values[0]


def test_answers_may_be_missing_and_halves_of_characters_fit_into_files(tmp_path):
    plan = plan_of(pd.Series(["a", "b"]), "{}")
    answers = to_series(plan, ["x\ud800", None], name=None)
    assert answers.iloc[0] == "x\ufffd"
    answers.to_frame("answer").to_csv(tmp_path / "answers.csv")
    assert answers.isna().tolist() == [False, True]
    assert answers.dtype == ("str" if PANDAS_3 else "string")
    with pytest.raises(ValueError, match="1 values for 2 requests"):
        to_series(plan, ["x"], name=None)


NA_CELLS = ["x", None, np.nan, pd.NA, pd.NaT]


def test_missing_cells_follow_na():
    frame = pd.DataFrame({"t": pd.Series(NA_CELLS, dtype=object), "n": range(5)})
    skipped = plan_of(frame)
    assert skipped.codes.tolist() == [0, -1, -1, -1, -1]
    assert skipped.skipped.tolist() == [1, 2, 3, 4]
    assert skipped.errors == {}
    assert prompts(plan_of(frame, "[{t}]", na="empty")) == ["[x]", "[]"]
    assert prompts(plan_of(frame, "[{t}]", na="n/a")) == ["[x]", "[n/a]"]
    assert prompts(plan_of(frame, "[{t:>4}]", na="-")) == ["[   x]", "[   -]"]
    assert prompts(plan_of(pd.Series([1.5, None]), "{:.2f}", na="unknown")) == ["1.50", "unknown"]
    assert plan_of(frame, "{n}").codes.tolist() == [0, 1, 2, 3, 4]


def test_na_raise_names_the_first_rows():
    frame = pd.DataFrame({"t": ["x"] * 3 + [None] * 7}, index=list("abcdefghij"))
    with pytest.raises(TemplateError) as caught:
        plan_of(frame, na="raise")
    assert "row 3 (index 'd'), column 't'; row 4 (index 'e')" in str(caught.value)
    assert "row 7 (index 'h'), column 't'; and 2 more in the first 10 rows" in str(caught.value)
    assert plan_of(frame.head(3), na="raise").codes.tolist() == [0, 0, 0]


def test_missing_comes_before_faulty():
    plan = plan_of(pd.DataFrame({"t": [b"raw", b"raw"], "u": [None, "x"]}), "{t}{u}")
    assert plan.skipped.tolist() == [0]
    assert list(plan.errors) == [1]


def test_lone_surrogates_are_row_errors():
    cells = pd.Series(
        ["ok", "bad \ud800", "ok", "bad \ud800", "👩‍🚀"], dtype=object, index=list("abcde")
    )
    plan = plan_of(cells, "{}")
    assert plan.codes.tolist() == [0, -1, 0, -1, 1]
    assert list(plan.errors) == [1, 3]
    assert plan.skipped.tolist() == []
    assert "row 3 (index 'd')" in str(plan.errors[3])
    assert isinstance(plan.errors[1], InvalidInput)
    assert "bad" not in str(plan.errors[1])
    system = plan_of(cells, "fine", system=col("value"))
    assert list(system.errors) == [1, 3]
    chat = plan_of(cells, [{"role": "user", "content": "{}"}, {"role": "user", "content": "x"}])
    assert list(chat.errors) == [1, 3]


@pytest.mark.parametrize(
    "keywords",
    [{"template": None}, {"messages": "t"}, {"na": None}, {"na": 0}, {"duplicates": "drop"}],
)
def test_arguments_that_cannot_work(keywords):
    with pytest.raises(ConfigurationError):
        plan_of(pd.DataFrame({"t": ["x"]}), **{"template": "{t}", **keywords})


def test_the_input_is_only_read_and_only_once():
    lists = [["a"], ["b"]]
    frame = pd.DataFrame({"t": ["x", "y"], "l": lists}, index=pd.Index([1, 2], name="k"))
    before = frame.copy(deep=True)
    plan = plan_of(frame, "{t} {l} {k}")
    chat = plan_of(frame, lambda row: [{"role": "user", "content": row.l}])
    pd.testing.assert_frame_equal(frame, before)
    frame.loc[1, "t"] = "changed"
    frame.index.name = "renamed"
    lists[0].append("changed")
    assert prompts(plan) == ['x ["a"] 1', 'y ["b"] 2']
    assert prompts(chat) == [["a"], ["b"]]
    assert upper(plan).index.name == "k"


def test_columns_that_are_not_used_are_not_read():
    class Trap:
        def __str__(self):
            raise AssertionError("read")

    assert prompts(plan_of(pd.DataFrame({"t": ["x"], "trap": [Trap()]}))) == ["x"]


def test_positions_and_labels_are_right_beyond_the_first_block():
    cells = pd.Series([f"{n % 7}" for n in range(2 * BLOCK_ROWS + 3)], dtype=object)
    cells.iloc[BLOCK_ROWS + 1] = None
    cells.iloc[2 * BLOCK_ROWS + 1] = b"raw"
    cells.index += 1000
    plan = plan_of(cells, "{}")
    assert len(plan.requests) == 7
    assert plan.skipped.tolist() == [BLOCK_ROWS + 1]
    position = 2 * BLOCK_ROWS + 1
    assert f"row {position} (index {position + 1000})" in str(plan.errors[position])
    answers = upper(plan)
    fine = answers.notna()
    assert (answers[fine] == cells[fine]).all()
    assert fine.sum() == len(cells) - 2


def test_a_long_frame_is_not_rendered_side_by_side():
    rows, distinct = 300_000, 1_000
    frame = pd.DataFrame({"t": [f"number {n % distinct}" for n in range(rows)]})
    tracemalloc.start()
    try:
        plan = plan_of(frame, "A rather long prompt about {t}. " * 5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(plan.requests) == distinct
    # All prompts at once would be 60 MB of text; codes and one block are below 15.
    assert peak < 15e6


CELLS = st.lists(st.none() | st.text(alphabet="ab\ud800é{}", max_size=2), max_size=12)


@given(CELLS, st.sampled_from(["share", "independent"]), st.sampled_from(["skip", "empty", "zz"]))
def test_every_row_has_exactly_one_fate(cells, duplicates, na):
    plan = plan_of(pd.Series(cells, dtype=object), "{}", duplicates=duplicates, na=na)
    answers = to_series(plan, prompts(plan), name=None, dtype=object)
    skipped = set(plan.skipped.tolist())
    fill = {"skip": None, "empty": ""}.get(na, na)
    for position, cell in enumerate(cells):
        text = fill if cell is None else cell
        code = plan.codes[position]
        fates = (code >= 0, position in skipped, position in plan.errors)
        assert sum(fates) == 1
        assert fates == (
            text is not None and "\ud800" not in text,
            text is None,
            text is not None and "\ud800" in text,
        )
        assert answers.iloc[position] == (text if code >= 0 else None)
    keys = [(request.messages[0]["content"], request.sample) for request in plan.requests]
    assert len(set(keys)) == len(keys)
    assert sum(plan.rows_of()) == (plan.codes >= 0).sum()
    assert all(plan.rows_of())


MEMORY = """
import pathlib, psutil, resource, numpy as np, pandas as pd
from lbgpt_pandas.frames import to_requests, to_series
rows, distinct = 1_000_000, 10_000
texts = np.array([f"review {n} " + "word " * 20 for n in range(distinct)], dtype=object)
frame = pd.DataFrame({"t": texts[np.arange(rows) % distinct]})
to_series(to_requests(frame.head(9), template="{t}", params={}, options={}), ["x"] * 9, name=None)
before = psutil.Process().memory_info().rss
plan = to_requests(frame, template="Classify: {t}", params={}, options={})
answers = to_series(plan, ["positive"] * distinct, name=None)
assert len(plan.requests) == distinct and answers.notna().all()
status = pathlib.Path("/proc/self/status")
if status.exists():  # ru_maxrss counts what the parent held at the fork
    lines = status.read_text().splitlines()
    peak = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((peak - before) // 1_000_000)
"""


@pytest.mark.process
def test_a_million_rows_fit_beside_the_frame():
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True
    )
    # The promise is 200 MB; the string arrays of pandas 2 hold an object for each cell.
    bound = 200 if pd.__version__ >= "3" else 400
    assert int(done.stdout) < bound, done.stdout


def test_the_bare_field_of_a_series_is_called_value_in_messages() -> None:
    with pytest.raises(TemplateError, match=r"row 1 .*column 'value'"):
        pd.Series(["a", None]).lbgpt.complete("{}", na="raise", engine=ScriptedGPT())


@pytest.mark.parametrize("template", ["", " \n"])
def test_an_empty_template_is_refused_before_a_call(template: str) -> None:
    engine = ScriptedGPT()
    with pytest.raises(TemplateError, match="empty"):
        pd.Series(["a"]).lbgpt.complete(template, engine=engine)
    assert engine.requests == []
