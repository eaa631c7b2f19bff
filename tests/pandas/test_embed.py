"""`embed`: a column of vectors, with the rules of `complete`."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lbgpt_pandas as lb
from lbgpt_pandas.embeddings import resolve_embedder
from lbgpt_pandas.engine.errors import (
    BadRequest,
    BudgetExceeded,
    CacheMiss,
    ConfigurationError,
    RequestError,
    RowErrors,
    RowErrorsWarning,
    TemplateError,
)
from lbgpt_pandas.engine.gpt import LocalGPT
from lbgpt_pandas.engine.local_embeddings import LocalEmbeddingGPT
from lbgpt_pandas.similarity import similarity
from lbgpt_pandas.testing import ScriptedGPT
from lbgpt_pandas.testing.embeddings import embed as vector_for

FRAME = pd.DataFrame(
    {
        "text": ["late parcel", None, "kind staff", "late parcel", "late parcel"],
        "n": [1, 2, 3, 4, 5],
    },
    index=["a", "b", "b", "c", "d"],
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path):
    with lb.using(cache=tmp_path / "cache", progress="none"):
        yield


def embed(data, given=None, **keywords):
    keywords.setdefault("dimensions", 8)
    return data.lbgpt.embed(given, **keywords)


def sent(engine):
    return [request.params["input"] for request in engine.requests]


class Picky(ScriptedGPT):
    """Refuses calls with some texts, until it is told otherwise."""

    def __init__(self, *bad):
        super().__init__()
        self.bad = set(bad)

    async def embed(self, model, inputs, params):
        reply = await super().embed(model, inputs, params)
        if self.bad & set(inputs):
            raise BadRequest("this text is not liked", status=400)
        return reply


def test_vectors_stand_under_the_frames_index():
    engine = ScriptedGPT()
    column = embed(FRAME, "text", engine=engine, name="v")
    assert column.index.equals(FRAME.index)
    assert (column.name, column.dtype) == ("v", object)
    assert column.isna().tolist() == [False, True, False, False, False]
    assert column.iloc[1] is None
    for text, vector in zip(FRAME["text"], column, strict=True):
        if vector is not None:
            assert (vector.dtype, vector.ndim) == (np.float32, 1)
            assert np.array_equal(vector, vector_for(text, 8))
    assert np.stack(column.dropna()).shape == (4, 8)
    assert sent(engine) == [["late parcel", "kind staff"]]
    assert lb.last_run().result.equals(column)


@given(st.lists(st.sampled_from(["a", "b b", "c", None, ""]), max_size=12), st.integers(1, 4))
def test_any_column_is_aligned_by_position(cells, size):
    engine = ScriptedGPT()
    engine.most_inputs = size
    index = pd.Index([position % 3 for position in range(len(cells))], dtype="int64")
    data = pd.Series(cells, index=index, dtype=object)
    column = embed(data, engine=engine, errors="ignore", cache_mode="off")
    assert column.index.equals(index)
    for cell, vector in zip(cells, column, strict=True):
        assert (vector is None) if not cell else np.array_equal(vector, vector_for(cell, 8))
    assert all(len(texts) <= size for texts in sent(engine))


def test_equal_rows_share_a_vector_that_nobody_can_change():
    column = embed(FRAME, "text", engine=ScriptedGPT())
    assert column["c"] is column["d"]
    with pytest.raises(ValueError, match="read-only"):
        column["c"][0] = 1.0
    writable = np.stack(column.dropna())
    writable[0] = 0


def test_each_text_is_cached_whatever_it_was_embedded_with():
    engine = ScriptedGPT()
    first = embed(FRAME, "text", engine=engine)
    again = embed(FRAME["text"].iloc[::-1], engine=engine)
    assert len(engine.requests) == 1
    assert all(
        a is b is None or np.array_equal(a, b) for a, b in zip(first, again.iloc[::-1], strict=True)
    )
    assert lb.last_run().rows["source"].value_counts().to_dict() == {
        "exact_cache": 4, "skipped": 1,
    }  # fmt: skip
    embed(FRAME, "text", engine=engine, dimensions=9)
    embed(FRAME, "text", engine=engine, model="other")
    assert len(engine.requests) == 3


def test_a_series_a_template_a_col_and_a_callable():
    engine = ScriptedGPT()
    embed(FRAME["text"], engine=engine)
    embed(FRAME["text"], "text", engine=engine)
    embed(FRAME["text"], "{}", engine=engine)
    assert len(engine.requests) == 1
    embed(FRAME, "{n}: {text}", engine=engine)
    assert sent(engine)[-1][0] == "1: late parcel"
    embed(FRAME, lambda row: row.text.upper(), engine=engine)
    assert sent(engine)[-1] == ["LATE PARCEL", "KIND STAFF"]
    braces = FRAME.rename(columns={"text": "{n}"})
    embed(braces, "{n}", engine=engine)
    embed(braces, lb.col("{n}"), engine=engine)
    assert len(engine.requests) == 3  # a column comes before a template, and these are known


def test_numbers_are_embedded_as_they_are_written():
    engine = ScriptedGPT()
    embed(FRAME, "n", engine=engine)
    embed(pd.DataFrame([["x"]]), 0, engine=engine)
    assert sent(engine) == [["1", "2", "3", "4", "5"], ["x"]]


def test_an_empty_frame_needs_no_call():
    engine = ScriptedGPT()
    column = embed(FRAME.head(0), "text", engine=engine)
    assert (len(column), column.dtype) == (0, object)
    assert not engine.requests


def test_empty_texts_are_row_errors_without_a_call():
    data = pd.Series(["fine", "", "  ", None], index=list("wxyz"))
    engine = ScriptedGPT()
    with pytest.warns(RowErrorsWarning, match=r"2 of 4 rows failed.*row 1 \(index 'x'\).*empty"):
        column = embed(data, engine=engine)
    assert column.isna().tolist() == [False, True, True, True]
    rows = lb.last_run().rows
    assert rows["status"].tolist() == ["ok", "failed", "failed", "skipped"]
    assert rows["error_code"].tolist()[1:3] == ["empty_text"] * 2
    assert sent(engine) == [["fine"]]


def test_errors_raise_before_the_first_call():
    engine = ScriptedGPT()
    with pytest.raises(RowErrors, match="empty"):
        embed(pd.Series(["fine", ""]), engine=engine, errors="raise")
    assert not engine.requests


def test_a_refused_text_fails_alone_and_is_asked_again_alone():
    texts = pd.Series([f"text {number}" for number in range(9)])
    engine = Picky("text 4")
    with pytest.warns(RowErrorsWarning, match="1 of 9 rows failed"):
        column = embed(texts, engine=engine)
    assert column.isna().tolist() == [number == 4 for number in range(9)]
    report = lb.last_run()
    assert report.errors["message"].tolist() == ["this text is not liked"]
    assert report.summary.calls == len(engine.requests)
    engine.requests.clear()
    engine.bad.clear()
    whole = report.retry_failed()
    assert sent(engine) == [["text 4"]]
    assert whole.notna().all()
    assert np.array_equal(whole.iloc[0], column.iloc[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed(texts, engine=Picky("text 1"), errors="ignore", cache_mode="off")


@pytest.mark.parametrize(("na", "texts"), [("empty", ["x:", "x:a"]), ("-", ["x:-", "x:a"])])
def test_na_may_have_a_text(na, texts):
    engine = ScriptedGPT()
    column = embed(pd.Series([None, "a"]), "x:{}", engine=engine, na=na)
    assert sent(engine) == [texts]
    assert column.notna().all()
    with pytest.raises(TemplateError, match="NA"):
        embed(pd.Series([None, "a"]), engine=engine, na="raise")


def test_independent_rows_are_asked_each_by_itself():
    engine = ScriptedGPT()
    embed(FRAME, "text", engine=engine, duplicates="independent")
    assert sent(engine) == [["late parcel", "kind staff", "late parcel", "late parcel"]]
    embed(FRAME, "text", engine=engine, duplicates="independent")
    assert len(engine.requests) == 1


def test_the_report_adds_up():
    engine = ScriptedGPT()
    embed(FRAME, "text", engine=engine, model="text-embedding-3-small")
    report = lb.last_run()
    assert report.summary.calls == 1
    assert report.rows["attempts"].sum() == 1
    shot = report.summary.snapshot
    assert (shot.rows, shot.done, shot.skipped, shot.shared) == (5, 4, 1, 2)
    assert report.cost_usd == pytest.approx(shot.prompt_tokens * 0.02 / 1e6)
    assert report.rows["cost_usd"].sum() == pytest.approx(report.cost_usd)
    assert report.usage["prompt_tokens"].sum() == shot.prompt_tokens
    assert "embed" in report._repr_html_()
    assert lb.runs().loc[0, ["template", "rows", "status"]].tolist()[1:] == [5, "done"]
    assert report.manifest["model"] == "text-embedding-3-small"


async def test_the_awaited_run_gives_the_same():
    engine = ScriptedGPT()
    column = await FRAME.lbgpt.aembed("text", engine=engine, dimensions=8)
    assert column.equals(lb.last_run().result)
    assert column.notna().sum() == 4


def test_replay_asks_nobody():
    engine = ScriptedGPT()
    first = embed(FRAME, "text", engine=engine)
    again = embed(FRAME, "text", engine=engine, cache_mode="replay")
    assert np.array_equal(np.stack(first.dropna()), np.stack(again.dropna()))
    with pytest.raises(CacheMiss, match="row 0"):
        embed(pd.Series(["new"]), engine=engine, cache_mode="replay")
    assert len(engine.requests) == 1


def test_an_archive_serves_the_same_vectors_and_its_differences(tmp_path):
    engine = ScriptedGPT()
    first = embed(FRAME, "text", engine=engine, name="v")
    report = lb.last_run()
    path = report.export(tmp_path / "vectors.lbgpt.zip")
    with lb.using(cache=tmp_path / "other"), lb.replay(path):
        again = embed(FRAME, "text", name="v")
    assert [None if v is None else v.tobytes() for v in again] == [
        None if v is None else v.tobytes() for v in first
    ]
    assert len(engine.requests) == 1
    assert report.diff(path).empty
    embed(FRAME.assign(text=FRAME["text"].str.upper()), "text", engine=engine)
    changed = report.diff(lb.last_run())
    assert changed["left_row"].tolist() == [0, 2, 3, 4]
    assert "8 numbers" in changed["left"].iloc[0]


def test_usage_counts_calls_and_not_texts():
    engine = ScriptedGPT()
    embed(pd.Series([f"text {number}" for number in range(30)]), engine=engine)
    usage = lb.last_run().usage
    assert usage["requests"].sum() == len(engine.requests) == 1
    assert usage["prompt_tokens"].sum() >= 30


def test_a_budget_ends_the_run_and_keeps_what_it_bought():
    texts = pd.Series([f"{number:03d} " + "x" * 96 for number in range(30)])
    with pytest.raises(BudgetExceeded):
        embed(texts, engine=ScriptedGPT(), budget=lb.Budget(tokens=400))
    assert 5 <= lb.last_run().result.notna().sum() <= 20
    with pytest.raises(ConfigurationError, match="price"):
        embed(texts, engine=ScriptedGPT(), model="unknown-embedder", budget=1.0)


@pytest.mark.parametrize(
    ("given", "keywords", "kind", "message"),
    [
        ("txt", {}, TemplateError, "no column 'txt'; did you mean 'text'"),
        ("{txt}", {}, TemplateError, "no column 'txt'"),
        (None, {}, ConfigurationError, "say what is to be embedded"),
        ([{"role": "user", "content": "{text}"}], {}, ConfigurationError, "chat messages"),
        ("text", {"dimensions": 0}, ConfigurationError, "dimensions=0: give a whole number"),
        ("text", {"dimensions": True}, ConfigurationError, "dimensions=True"),
        ("text", {"temperature": 1}, ConfigurationError, "temperature= has no meaning for embed"),
        ("text", {"system": "x"}, ConfigurationError, "system= has no meaning"),
        ("text", {"encoding_format": "base64"}, ConfigurationError, "leave encoding_format= out"),
        ("text", {"errors": "x"}, ConfigurationError, "errors='x' is not one of"),
        ("text", {"progress": "x"}, ConfigurationError, "progress='x' is not one of"),
        ("text", {"cache_mode": "x"}, ConfigurationError, "cache_mode='x' is not one of"),
        ("text", {"max_parallel": 0}, ConfigurationError, "max_parallel=0"),
        ("text", {"na": 5}, ConfigurationError, "na=5"),
        ("text", {"name": []}, ConfigurationError, "a name must be hashable"),
        ("text", {"max_paralel": 3}, TypeError, "did you mean 'max_parallel'"),
        ("text", {"engine": "x"}, ConfigurationError, "is not an engine"),
    ],
)
def test_bad_input_is_told_before_any_call(given, keywords, kind, message):
    engine = ScriptedGPT()
    with pytest.raises(kind, match=message):
        embed(FRAME, given, **{"engine": engine, **keywords})
    assert not engine.requests


def test_a_callable_that_gives_messages_is_a_row_error():
    with pytest.warns(RowErrorsWarning, match="chat messages have no embedding"):
        column = embed(
            FRAME,
            lambda row: [{"role": "system", "content": "x"}, {"role": "user", "content": row.text}],
            engine=ScriptedGPT(),
        )
    assert column.isna().all()


def test_other_parameters_are_sent():
    engine = ScriptedGPT()
    embed(FRAME, "text", engine=engine, user="me", request_timeout=5)
    assert set(engine.requests[0].params) == {"model", "input", "dimensions", "user"}


# Who embeds


def test_a_model_must_be_named_and_the_one_for_chats_is_none():
    with pytest.raises(ConfigurationError, match="model='local', which needs no key"):
        embed(FRAME, "text")
    with (
        lb.using(model="gpt-4o-mini"),
        pytest.raises(ConfigurationError, match="no embedding model is named"),
    ):
        embed(FRAME, "text")
    with lb.using(ScriptedGPT(), model="gpt-4o-mini"):
        assert resolve_embedder(None)[1] == "scripted"
    with lb.using(ScriptedGPT(), model="text-embedding-3-large"):
        assert resolve_embedder(None)[1] == "text-embedding-3-large"
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        embed(FRAME, "text", model="text-embedding-3-small")


def test_local_is_the_embedded_model_however_it_is_said():
    one, name = resolve_embedder("local")
    assert isinstance(one, LocalEmbeddingGPT)
    assert name == "local"
    with lb.using(model="local"):
        assert resolve_embedder(None)[0] is one
    with lb.using(LocalGPT()):
        assert resolve_embedder(None)[0] is one
    with lb.using(ScriptedGPT()):
        assert resolve_embedder("local")[0] is one
    assert resolve_embedder(None, engine=LocalGPT())[0] is one
    assert resolve_embedder("local", engine=LocalGPT())[0] is one
    own = LocalEmbeddingGPT()
    assert resolve_embedder(None, engine=own) == (own, "local")
    scripted = ScriptedGPT()
    assert resolve_embedder("local", engine=scripted) == (scripted, "local")


def test_the_local_model_has_one_length():
    with pytest.raises(ConfigurationError, match="have 384 numbers"):
        embed(FRAME, "text", model="local", dimensions=8)


@pytest.mark.local_model
def test_the_local_model_embeds_a_column():
    data = pd.Series(["a red car", None, "the red car", "two green pears", "word " * 300])
    with pytest.warns(RowErrorsWarning, match="reads 256"):
        column = embed(data, model="local", dimensions=384)
    assert column.isna().tolist() == [False, True, False, False, True]
    nearest = similarity(column, k=1)
    assert nearest.loc[0, "match"] == 2
    assert np.linalg.norm(column[0]) == pytest.approx(1, abs=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RowErrorsWarning)
        again = embed(data, model="local", dimensions=384)
    assert np.array_equal(again[0], column[0])
    assert lb.last_run().rows["source"].tolist()[0] == "exact_cache"
    assert lb.last_run().cost_usd == 0
    assert all(isinstance(error, RequestError) for _, error in lb.last_run().first_failures(5))
