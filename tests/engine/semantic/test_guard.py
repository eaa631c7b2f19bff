"""Texts that vectors take for one another, and are not."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbgpt_pandas.engine.semantic.guard import MOST_CHARACTERS, same_facts

with Path(__file__).with_name("traps.csv").open(encoding="utf-8", newline="") as file:
    PAIRS = [(row["a"], row["b"], row["kind"]) for row in csv.DictReader(file)]
TRAPS = [pair for pair in PAIRS if pair[2] != "paraphrase"]
PARAPHRASES = [(a, b) for a, b, kind in PAIRS if kind == "paraphrase"]

WORDS = """
not never the a is Paris paris US us 10 1,000 1000 ten do what's isn't I you? ! . , x_y 'a'
"b" Please thanks can you tell me -r C++ °C 🙂 ist kein ² a@b.de https://x.y/a
"""
texts = st.one_of(
    st.text(max_size=60), st.lists(st.sampled_from([*WORDS.split(), "\n", "   "])).map(" ".join)
)


def test_the_table_is_large_enough_and_holds_no_pair_twice():
    kinds = [kind for *_, kind in TRAPS]
    assert len(TRAPS) >= 420
    assert len(PARAPHRASES) >= 60
    assert len({frozenset((a, b)) for a, b, _ in PAIRS}) == len(PAIRS)
    assert min(kinds.count(kind) for kind in ("number", "negation", "date", "unit")) >= 19


@pytest.mark.parametrize(("a", "b", "kind"), TRAPS)
def test_no_trap_passes_whatever_the_vectors_say(a, b, kind):
    assert not same_facts(a, b)
    assert not same_facts(b, a)


def test_what_changes_no_question_is_no_difference():
    refused = [pair for pair in PARAPHRASES if not same_facts(*pair)]
    assert len(refused) <= 37, refused


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("It's 1,000 or two?", "it is 1000 or 2?"),
        ("Explain: what's the colour of it", "What's the color of it"),
        ("I WANT A REFUND", "I want a refund"),
        ("In Paris it is warm.", "in Paris it's warm"),
        ("Who purchased “it”?", 'who purchased "it"'),
        ("MY ORDER IS LATE AGAIN", "my order is late again"),
        ("Is Paris the capital of France?", "is paris the capital of france"),
        ("It's broken. Please help.", "it's broken. please help"),
        ("Who's the author of it?", "who is the author of it"),
        ("What is 10 – 3?", "what is 10 - 3"),
        ("Delivery took 3 weeks, terrible!", "delivery took 3 weeks; terrible"),
    ],
)  # fmt: skip
def test_spelling_case_and_contractions_make_no_difference(a, b):
    assert same_facts(a, b)


@pytest.mark.parametrize(("a", "b"), [("", ""), (" ", " "), ("", "a"), ("the", "a"), ("?", "!")])
def test_where_nothing_is_said_nothing_is_the_same(a, b):
    assert not same_facts(a, b)


def test_very_long_texts_are_the_same_only_as_a_whole():
    text = "word " * (MOST_CHARACTERS // 5 + 1)
    assert same_facts(text, text)
    assert not same_facts(text, text + ".")


@given(texts)
def test_a_text_is_the_same_as_itself(text):
    assert same_facts(text, text) is bool(text.strip())


@settings(max_examples=300)
@given(texts, texts)
def test_the_order_of_the_two_does_not_matter(a, b):
    assert same_facts(a, b) is same_facts(b, a)


@settings(max_examples=300)
@given(texts, st.sampled_from(["not", "42", "never", "Berlin", "$", "nicht", "more"]), st.data())
def test_a_word_that_counts_is_missed_wherever_it_stands(text, word, data):
    words = text.split()
    at = data.draw(st.integers(0, len(words)))
    longer = " ".join([*words[:at], word, *words[at:]])
    assert not same_facts(" ".join(words), longer)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(["Anna", "Ben", "hit", "10", "20", "old", "not", "from"]), min_size=2), st.data())  # fmt: skip
def test_two_words_that_change_places_are_another_question(words, data):
    i = data.draw(st.integers(0, len(words) - 1))
    j = data.draw(st.integers(0, len(words) - 1))
    swapped = list(words)
    swapped[i], swapped[j] = swapped[j], swapped[i]
    assert same_facts(" ".join(words), " ".join(swapped)) is (words[i] == words[j])


@pytest.mark.parametrize(
    "part",
    ["?", ".", "-", " ,", "+1", "'", '"a', "please ", "x@", "a\n\t", "w.", " please", "hi, "],
)
def test_no_text_takes_long(part):
    text = part * (MOST_CHARACTERS // len(part) - 1)
    begin = time.perf_counter()
    same_facts(text, text + "x")
    assert time.perf_counter() - begin < 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Turkey", "turkey"),
        ("March", "march"),
        ("Essen", "essen"),
        ("Turkey exports", "turkey exports"),
        ("Rose is what I like most", "rose is what I like most"),
        ("10 Mg", "10 mg"),
        ("The samples were kept at 20 °C.", "The samples were kept at –20 °C."),  # as it is typed
        ("of which a few patients survived", "of which few patients survived"),
        ("there is a little hope in this", "there is little hope in this"),
        ("it is out of the question", "it is out of question"),
        ("No, price increase", "No price increase"),
    ],
)
def test_what_a_capital_a_dash_or_an_article_changes_is_a_difference(a, b):
    assert not same_facts(a, b)
    assert not same_facts(b, a)


def test_a_capital_at_the_beginning_changes_no_question():
    assert same_facts("Will it rain in Rome?", "will it rain in Rome?")
    assert same_facts("The parcel is late", "the parcel is late")
    assert same_facts("Pages 10–20 of it", "pages 10–20 of it")  # as it is typed
