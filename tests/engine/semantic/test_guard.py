"""What two texts must have in common before one gets the other's answer."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine.semantic.guard import same_facts

with Path(__file__).with_name("traps.csv").open(encoding="utf-8") as file:
    PAIRS = list(csv.DictReader(file, delimiter="|"))
TRAPS = [pair for pair in PAIRS if pair["kind"] != "paraphrase"]
PARAPHRASES = [pair for pair in PAIRS if pair["kind"] == "paraphrase"]


def test_the_table_is_as_large_as_promised():
    assert len(TRAPS) >= 200
    assert len(PARAPHRASES) >= 60
    assert len({(pair["a"], pair["b"]) for pair in PAIRS}) == len(PAIRS)


@pytest.mark.parametrize("pair", TRAPS, ids=lambda pair: f"{pair['kind']}: {pair['b']}")
def test_every_trap_is_seen_whatever_the_vectors_say(pair):
    assert not same_facts(pair["a"], pair["b"])
    assert not same_facts(pair["b"], pair["a"])


def test_most_paraphrases_pass():
    passed = [pair for pair in PARAPHRASES if same_facts(pair["a"], pair["b"])]
    assert len(passed) >= 0.7 * len(PARAPHRASES)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Where is my order?", "  where is my order "),
        ("It costs 1,000.0 euros", "it costs 1000 euros"),
        ("Can you tell me where Rome is?", "Where is Rome?"),
        (
            "How do I obtain a refund for the broken lamp",
            "How do I get my money back for the broken lamp",
        ),
    ],
)
def test_what_says_the_same(a, b):
    # The last pair has another person in it, and so is a difference.
    assert same_facts(a, b) is ("my money" not in b)


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_the_empty_text_is_like_nothing(text):
    assert not same_facts(text, text)


def test_texts_of_stop_words_alone_are_not_alike():
    assert not same_facts("the", "a")
    assert not same_facts("?", "!")


def test_texts_of_a_book_are_not_compared():
    assert not same_facts("word " * 5_000, "word " * 5_000 + ".")


@given(st.text(max_size=80))
def test_a_text_is_like_itself(text):
    assert same_facts(text, text) is bool(text.strip())


@given(st.text(max_size=60), st.text(max_size=60))
def test_the_order_of_the_two_does_not_matter(a, b):
    assert same_facts(a, b) is same_facts(b, a)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_other_numbers_are_another_question(one, other):
    texts = [f"Is {number} a prime number?" for number in (one, other)]
    assert same_facts(*texts) is (one == other)
