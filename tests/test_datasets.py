"""The tables of the package are whole."""

from __future__ import annotations

from lbgpt_pandas.datasets import load_review_sentences


def test_the_sentences_are_rated_one_way_or_the_other():
    table = load_review_sentences()
    assert list(table.columns) == ["id", "rating", "text"]
    assert table.notna().all(axis=None)
    assert table["id"].is_unique
    assert table["text"].is_unique
    assert table["text"].str.len().between(40, 140).all()
    assert (table["rating"] >= 1.5).sum() == (table["rating"] <= -1.2).sum() == 90
