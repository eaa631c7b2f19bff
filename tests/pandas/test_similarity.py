"""`lb.similarity`: all pairs, and the nearest of each row."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.similarity import similarity

# The function of the same name may hide the module from attribute access.
module = importlib.import_module("lbgpt_pandas.similarity")

SHADES = pd.Series(
    [[1.0, 0.0], [0.8, 0.6], None, [0.0, 2.0]], index=["red", "pink", "none", "blue"]
)


def matrices():
    numbers = st.floats(-100, 100, width=32)
    return st.integers(1, 12).flatmap(lambda n: hnp.arrays(np.float32, (n, 3), elements=numbers))


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    return np.divide(a @ b.T, lengths, out=np.zeros(lengths.shape), where=lengths > 0)


@pytest.fixture(params=["numpy", "faiss"])
def search(request, monkeypatch):
    if request.param == "faiss":
        pytest.importorskip("faiss")
        monkeypatch.setattr(module, "FAISS_FROM", 0)
    return request.param


def test_all_pairs_stand_under_both_indexes():
    pairs = similarity(SHADES, SHADES.iloc[::-1])
    assert pairs.index.equals(SHADES.index)
    assert pairs.columns.equals(SHADES.index[::-1])
    assert (pairs.dtypes == np.float32).all()
    assert pairs.loc["red", "pink"] == pytest.approx(0.8)
    assert pairs.loc["blue", "pink"] == pytest.approx(0.6)
    assert pairs["none"].isna().all()
    assert pairs.loc["none"].isna().all()
    assert similarity(SHADES, metric="dot").loc["blue", "pink"] == pytest.approx(1.2)


@given(matrices(), matrices())
def test_all_pairs_are_the_cosines(a, b):
    assert np.allclose(similarity(a, b).to_numpy(), cosine(a, b), atol=1e-5)


@given(matrices(), matrices(), st.integers(1, 15))
def test_the_nearest_are_the_largest_of_all_pairs(a, b, k):
    pairs = cosine(a, b)
    lines = similarity(a, b, k=k)
    width = min(k, len(b))
    assert lines["rank"].tolist() == list(range(1, width + 1)) * len(a)
    assert lines.index.tolist() == np.repeat(np.arange(len(a)), width).tolist()
    scores = lines["similarity"].to_numpy().reshape(len(a), width)
    assert np.allclose(scores, -np.sort(-pairs, axis=1)[:, :width], atol=1e-5)
    positions = lines["position"].to_numpy(dtype=np.int64).reshape(len(a), width)
    assert np.allclose(np.take_along_axis(pairs, positions, axis=1), scores, atol=1e-5)
    assert all(len(set(row)) == width for row in positions.tolist())


def test_many_rows_go_block_by_block(search, monkeypatch):
    monkeypatch.setattr(module, "CELLS_A_BLOCK", 130)
    vectors = np.random.default_rng(0).standard_normal((60, 8))
    lines = similarity(vectors, vectors[:40], k=3)
    pairs = cosine(vectors, vectors[:40])
    expected = np.argsort(-pairs, axis=1)[:, :3].ravel()
    assert lines["position"].tolist() == expected.tolist()
    assert lines["match"].tolist() == expected.tolist()


def test_faiss_is_used_for_much_only(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setitem(sys.modules, "faiss", SimpleNamespace(__spec__=True))
    assert len(similarity(np.eye(3), k=1)) == 3
    monkeypatch.setattr(module, "FAISS_FROM", 9)
    with pytest.raises(AttributeError, match="IndexFlatIP"):
        similarity(np.eye(3), k=1)


def test_without_faiss_numpy_searches(monkeypatch):
    monkeypatch.setattr(module, "FAISS_FROM", 0)
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert similarity(np.eye(2), np.eye(2), k=1)["match"].tolist() == [0, 1]


def test_a_row_is_not_its_own_neighbour(search):
    lines = similarity(SHADES, k=5)
    assert lines.index.tolist() == np.repeat(SHADES.index, 3).tolist()
    assert lines.loc["red", "match"].iloc[:2].tolist() == ["pink", "blue"]
    assert lines["match"].isna().tolist() == [False, False, True] * 2 + [True] * 3 + [
        False, False, True,
    ]  # fmt: skip
    assert lines["position"].dtype == "Int64"
    assert similarity(SHADES, SHADES, k=1).loc["red", "match"] == "red"


def test_equal_rows_find_each_other_and_not_themselves(search):
    vectors = np.tile([1.0, 0.0], (9, 1))
    lines = similarity(vectors, k=2)
    assert (lines["similarity"] == 1).all()
    assert (lines["position"].to_numpy(dtype=np.int64) != lines.index).all()


@pytest.mark.parametrize(
    ("index", "dtype"),
    [
        (pd.Index([3, 3, 5]), "Int64"),
        (pd.date_range("2026-01-01", periods=3, tz="Europe/Berlin"), None),
        (pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)]), object),
        (pd.CategoricalIndex(["x", "y", "x"]), None),
        (pd.Index(["x", "y", "z"]), None),
    ],
)
def test_matches_are_labels_in_their_own_dtype(index, dtype):
    vectors = pd.Series([[1.0, 0.0], None, [0.0, 1.0]], index=index)
    lines = similarity(vectors, k=1)
    assert lines.index.equals(index)
    assert lines["match"].dtype == (dtype or index.dtype)
    assert lines["match"].isna().tolist() == [False, True, False]
    assert lines["match"].iloc[0] == index[2]
    assert lines["match"].iloc[2] == index[0]


def test_a_single_vector_a_list_and_nothing():
    assert similarity([1.0, 0.0], SHADES, k=1)["match"].tolist() == ["red"]
    assert similarity(np.array([1.0, 0.0]), [[2.0, 0.0]]).to_numpy().tolist() == [[1.0]]
    empty = pd.Series([], dtype=object)
    assert similarity(empty, SHADES).shape == (0, 4)
    assert similarity(SHADES, empty).shape == (4, 0)
    assert similarity(empty, k=3).columns.tolist() == ["rank", "match", "position", "similarity"]
    assert len(similarity(SHADES, empty, k=3)) == 0
    nothing = similarity(SHADES, pd.Series([None, np.nan], dtype=object), k=1)
    assert nothing["match"].isna().all()
    assert len(nothing) == 4


def test_zeros_are_near_to_nothing_and_large_numbers_do_not_overflow():
    pairs = similarity([[0.0, 0.0], [1e30, 1e30]], [[1.0, 1.0]])
    assert pairs[0].tolist() == [0.0, pytest.approx(1.0)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: similarity([[1.0, 2.0]], [[1.0]]), "of a have 2 numbers, those of b 1: embed"),
        (lambda: similarity([[1.0, 2.0], None, [1.0]]), "row 2 of a has 1 numbers, row 0 has 2"),
        (lambda: similarity([[1.0], ["x"]]), "row 1 of a is no vector but a list"),
        (lambda: similarity(["ab", "cd"]), "row 0 of a is no vector but a str|no vector"),
        (lambda: similarity([[1.0]], [[np.inf]]), "row 0 of b has a number that is not finite"),
        (lambda: similarity("text"), "a=str: give a column of vectors"),
        (lambda: similarity(SHADES.to_frame()), "a=DataFrame"),
        (lambda: similarity(5), "a=int holds no vectors"),
        (lambda: similarity(SHADES, metric="manhattan"), "metric='manhattan' is not 'cosine'"),
        (lambda: similarity(SHADES, k=0), "k=0: give a whole number"),
        (lambda: similarity(SHADES, k=True), "k=True"),
    ],
)
def test_bad_input_is_told(call, message):
    with pytest.raises(ConfigurationError, match=message):
        call()


def test_a_matrix_that_is_too_large_is_refused_with_advice(monkeypatch):
    monkeypatch.setattr(module, "MOST_PAIRS", 3)
    with pytest.raises(ConfigurationError, match="give k="):
        similarity(np.eye(2))
    assert len(similarity(np.eye(2), k=1)) == 2


def test_input_is_not_changed():
    matrix = np.array([[3.0, 4.0]], dtype=np.float32)
    matrix.setflags(write=False)
    similarity(matrix, matrix, k=1)
    assert matrix.tolist() == [[3.0, 4.0]]
