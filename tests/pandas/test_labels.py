"""Labels and yes or no: what a reply says, never what it resembles."""

from __future__ import annotations

import json
import math
from enum import Enum, IntEnum

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.label_confidence import label_confidence
from lbgpt_pandas.labels import Labels, YesNo


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Grade(IntEnum):
    ONE = 1


INDEXES = {
    "duplicate": pd.Index(["a", "a", "b"], name="k"),
    "multi": pd.MultiIndex.from_tuples([(1, "a"), (1, "a"), (0, "b")]),
    "missing": pd.Index([np.nan, np.nan, 1.0]),
}

NESTED = ["good", "not good", "very good", "goo", "good and bad", "bad"]


@pytest.mark.parametrize("label", NESTED)
@pytest.mark.parametrize(
    "form",
    [
        "{}", " {}\n", '"{}"', "'{}'", "**{}**", "`{}`", "{}.", '"{}."', "“{}”", "Label: {}",
        "label: **{}**", '{{"label": "{}"}}', '```json\n{{"label": "{}"}}\n```', "Answer: {}",
        'I think:\n{{"label": "{}"}} is right', '{{"Label": "{}",}}', '["x"', "<think>bad</think>{}",
    ],
)  # fmt: skip
def test_a_label_is_told_by_its_whole_text(label, form):
    labels = Labels.of(NESTED)
    for text in (label, label.upper()):
        value, error = labels.parse(form.format(text))
        if form == '["x"':
            assert (value, error != "") == (None, True)
        else:
            assert (value, error) == (label, "")


@pytest.mark.parametrize(
    "reply",
    [
        "goodish", "not  good", "rather good", "good bad", "good or bad", "go", "goods", "", None,
        "  ", "The mood is good", '{"label": "goo d"}', '{"label": null}', '{"label": ["good"]}',
        '{"label": "good"} {"label": "bad"}', '{"label": "good"', '{"mood": "good"}', "null",
        '{"label": true}', '{"label": {"label": "good"}}', "[", '{"label": "good", "label": "bad"}',
        "good, bad", "good\nbad", '{"not": "good"}', "1",
    ],
)  # fmt: skip
def test_nothing_is_coerced(reply):
    value, error = Labels.of(NESTED).parse(reply)
    assert value is None
    assert error
    assert len(error) < 300


def test_the_error_says_what_is_wanted():
    _, error = Labels.of(["a", "b"]).parse("c")
    assert error == '"c" is not one of the labels "a", "b"'
    _, error = Labels.of([f"label {number}" for number in range(1000)]).parse("c")
    assert error.endswith('"label 19", and 980 more')


ODD = ["", 'say "hi"', "line\nend", "ünïcode 🙂", "true", "null", "3", "3.10", "[]", '["a"]',
       "{x}", "U.S.", "U.S", "a, b", "a", "label: a", "-", "*", '{"label": "x"}', "\\", "it's"]  # fmt: skip


@pytest.mark.parametrize("label", ODD[1:])
def test_odd_labels_are_found_as_text_and_in_json(label):
    labels = Labels.of(ODD[1:])
    assert labels.parse(label) == (label, "")
    assert labels.parse(json.dumps({"label": label})) == (label, "")
    assert labels.parse(json.dumps({"label": label}, ensure_ascii=False)) == (label, "")
    several = Labels.of(ODD[1:], multi=True)
    assert several.parse(json.dumps({"labels": [label]})) == ([label], "")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), min_size=1))
def test_no_label_is_confused_with_another(names):
    try:
        labels = Labels.of(names)
    except ConfigurationError:
        return
    for name in names:
        assert labels.parse(json.dumps({"label": name})) == (name, "")
    column = labels.column([*names, None], index=pd.RangeIndex(len(names) + 1))
    assert column[:-1].tolist() == names
    assert column.isna().tolist() == [False] * len(names) + [True]


@given(st.text())
def test_any_reply_is_read_without_an_exception(text):
    for labels in (Labels.of(NESTED), Labels.of(NESTED, multi=True), YesNo()):
        value, error = labels.parse(text)
        assert (value is None) == bool(error)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "there are none"),
        ({}, "there are none"),
        (["a", "a"], "are the same"),
        (["a", " A "], "are the same"),
        (["a", '"a"'], "are the same"),
        (["é", "e\u0301"], "are the same"),
        (["a", ""], "no text"),
        (["a", "  "], "no text"),
        (["a", None], "NoneType.*drop what is missing"),
        (["a", np.nan], "drop what is missing"),
        (pd.Series(["a", None]), "drop what is missing"),
        (["a", pd.NA], "drop what is missing"),
        ([1, 2], "write it as text"),
        ([True, False], "matches"),
        (Grade, "labels are text"),
        ("good", "give a list"),
        (b"good", "give a list"),
        (3, "give a list"),
        (None, "give a list"),
        ({"a", "b"}, "no order"),
        ({"a": 3}, "description of 'a'"),
        (["\ud800"], "lone surrogate"),
        ([f"l{number}" for number in range(1001)], r"1,001 are more than 1,000.*embed"),
    ],
)
def test_labels_that_cannot_work_are_refused(labels, message):
    with pytest.raises(ConfigurationError, match=message):
        Labels.of(labels)


def test_labels_come_from_lists_enums_mappings_and_pandas():
    assert Labels.of(Mood).names == ("good", "bad")
    assert Labels.of([Mood.BAD, "x"]).names == ("bad", "x")
    assert Labels.of(pd.Series(["b", "a"])).names == ("b", "a")
    assert Labels.of(pd.CategoricalDtype(["b", "a"])).names == ("b", "a")
    described = Labels.of({"good": "all is\nwell", "bad": None})
    assert described.names == ("good", "bad")
    assert described.descriptions == ("all is\nwell", "")
    assert Labels.of(described, multi=True).multi
    assert len(Labels.of([f"l{number}" for number in range(1000)])) == 1000
    assert repr(Labels.of(["a", "b"])) == "Labels(one of 'a', 'b')"
    assert "and 5 more" in repr(Labels.of([f"l{number}" for number in range(25)], multi=True))


def test_what_is_sent():
    labels = Labels.of({"good": "all is\nwell", 'b"d': None})
    form = labels.response_format
    assert form["type"] == "json_schema"
    assert form["json_schema"] == {
        "name": "label",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "label": {
                    "type": "string",
                    "enum": ["good", 'b"d'],
                    "description": '"good": all is\nwell',
                }
            },
            "required": ["label"],
            "additionalProperties": False,
        },
    }
    assert labels.instructions.splitlines()[1:] == ['- "good": all is well', '- "b\\"d"']
    several = Labels.of(["a"], multi=True)
    inner = several.response_format["json_schema"]["schema"]["properties"]
    assert inner == {"labels": {"type": "array", "items": {"type": "string", "enum": ["a"]}}}
    assert '{"labels": [...]}' in several.instructions


def test_a_column_of_labels_has_all_categories_in_order():
    labels = Labels.of(["c", "a", "b"])
    column = labels.column(["a", None, "a"], index=INDEXES["duplicate"], name="out")
    assert column.dtype == labels.dtype
    assert column.cat.categories.tolist() == ["c", "a", "b"]
    assert not column.cat.ordered
    assert column.name == "out"
    assert labels.column([], index=pd.Index([])).dtype == labels.dtype
    with pytest.raises(ValueError, match="none of the labels"):
        labels.column(["x"], index=pd.RangeIndex(1))
    with pytest.raises(ValueError, match="2 values"):
        labels.column(["a", "b"], index=pd.RangeIndex(1))


@pytest.mark.parametrize("kind", INDEXES)
def test_columns_are_aligned_by_position(kind):
    index = INDEXES[kind]
    column = Labels.of(["a", "b"]).column(["b", None, "a"], index=index)
    assert column.index is index or column.index.equals(index)
    assert column.astype(object).where(column.notna(), None).tolist() == ["b", None, "a"]
    lists = Labels.of(["a", "b"], multi=True).column([["b"], None, []], index=index)
    assert lists.dtype == object
    assert lists.tolist() == [["b"], None, []]
    answers = YesNo().column([True, None, False], index=index)
    assert str(answers.dtype) == "boolean"
    assert answers.isna().tolist() == [False, True, False]
    assert answers.fillna(value=False).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"labels": ["b", "A", "b"]}', ["a", "b"]),
        ('{"labels": []}', []),
        ("[]", []),
        ('["b"]', ["b"]),
        ('{"labels": "b"}', ["b"]),
        ("b", ["b"]),
        ("b, a", ["a", "b"]),
        ("- b\n- a", ["a", "b"]),
        ("1. b\n2) a", ["a", "b"]),
        ('"b"; "a"', ["a", "b"]),
        ("c, d", ["c, d"]),
        ('{"labels": ["c, d", "a"]}', ["a", "c, d"]),
    ],
)
def test_several_labels(reply, expected):
    assert Labels.of(["a", "b", "c, d"], multi=True).parse(reply) == (expected, "")


@pytest.mark.parametrize(
    "reply",
    ["a, x", '{"labels": ["a", null]}', '{"labels": null}', '{"labels": [["a"]]}', "none", "",
     '{"labels": ["a"]} {"labels": ["b"]}', "a b", '{"labels": {"a": true}}', '{"label": "a"}'],
)  # fmt: skip
def test_several_labels_are_not_coerced_either(reply):
    value, error = Labels.of(["a", "b"], multi=True).parse(reply)
    assert value is None
    assert error


def test_a_text_that_is_one_label_or_two_is_refused():
    labels = Labels.of(["a", "b", "a, b"], multi=True)
    value, error = labels.parse("a, b")
    assert value is None
    assert "answer with JSON" in error or "one label or several" in error
    assert labels.parse('{"labels": ["a, b"]}') == (["a, b"], "")


def test_labels_of_lists_of_equal_length_stay_lists():
    column = Labels.of(["a", "b"], multi=True).column([["a"], ["b"]], index=pd.RangeIndex(2))
    assert column.tolist() == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("yes", True), ("Yes.", True), ("NO", False), ("true", True), ("False", False),
        ('"yes"', True), ("**No**", False), ('{"answer": true}', True), ('{"answer": "no"}', False),
        ('```json\n{"answer": false}\n```', False), ("<think>no</think> yes", True),
        ("Answer: yes", True), ('{"Answer": true}', True),
    ],
)  # fmt: skip
def test_yes_and_no(reply, expected):
    assert YesNo().parse(reply) == (expected, "")


@pytest.mark.parametrize(
    "reply",
    ["maybe", "yes and no", "Yes, it is", "", None, "1", "0", '{"answer": null}', "null",
     '{"answer": 1}', '{"match": true}', '{"answer": true} {"answer": false}', "[true]", "y"],
)  # fmt: skip
def test_neither_yes_nor_no(reply):
    value, error = YesNo().parse(reply)
    assert value is None
    assert error


def test_the_form_of_yes_and_no():
    schema = YesNo().response_format["json_schema"]["schema"]
    assert schema["properties"] == {"answer": {"type": "boolean"}}
    assert YesNo().column([], index=pd.Index([])).dtype == YesNo().dtype
    with pytest.raises(ValueError, match="1 values"):
        YesNo().column([True], index=pd.RangeIndex(2))


def logprobs(*tokens, with_bytes=False):
    return {
        "content": [
            {
                "token": text if isinstance(text, str) else "\\x",
                "logprob": logprob,
                "bytes": list(text.encode() if isinstance(text, str) else text)
                if with_bytes
                else None,
            }
            for text, logprob in tokens
        ]
    }


@pytest.mark.parametrize("with_bytes", [False, True])
def test_confidence_is_of_the_labels_tokens_alone(with_bytes):
    parts = [('{"', -9.0), ("label", -9.0), ('":', -9.0), (' "', -0.0), ("not", -0.1), (" go", -0.2),
             ("od", -0.3), ('"}', -9.0)]  # fmt: skip
    found = label_confidence(logprobs(*parts, with_bytes=with_bytes), ["good", "not good"])
    assert found == pytest.approx(math.exp(-0.6))
    plain = logprobs((" not", -0.1), (" good", -0.2), (".", -9.0), with_bytes=with_bytes)
    assert label_confidence(plain, Labels.of(NESTED)) == pytest.approx(math.exp(-0.3))


def test_confidence_with_a_character_in_two_tokens():
    first, second = "é".encode()[:1], "é".encode()[1:]
    content = logprobs((b"caf", -0.1), (first, -0.2), (second, -0.3), with_bytes=True)
    assert label_confidence(content, ["café"]) == pytest.approx(math.exp(-0.6))


def test_confidence_of_yes_and_of_several_labels():
    assert label_confidence(logprobs(("Yes", -0.5)), YesNo()) == pytest.approx(math.exp(-0.5))
    json_yes = logprobs(('{"answer": ', -9.0), ("true", -0.25), ("}", -9.0))
    assert label_confidence(json_yes, YesNo()) == pytest.approx(math.exp(-0.25))
    several = logprobs(('{"labels": [', -9.0), ('"a"', -0.1), (', "b"', -0.2), ("]}", -9.0))
    labels = Labels.of(["a", "b"], multi=True)
    assert label_confidence(several, labels) == pytest.approx(math.exp(-0.3))


def test_confidence_after_thoughts_is_of_the_answer():
    parts = [('<think>{"label": "bad"}', -5.0), ("</think>", -5.0), ('{"label": "', -5.0), ("good", -0.5), ('"}', -5.0)]  # fmt: skip
    assert label_confidence(logprobs(*parts), NESTED) == pytest.approx(math.exp(-0.5))
    plain = [("<think>bad", -5.0), ("</think>\n\n", -5.0), ("good", -0.5)]
    assert label_confidence(logprobs(*plain), NESTED) == pytest.approx(math.exp(-0.5))


@pytest.mark.parametrize(
    "content",
    [
        None, {}, {"content": None}, {"content": []}, {"refusal": []}, {"content": "x"},
        logprobs(("other", -0.1)), logprobs(("good", None)), logprobs(("good", math.nan)),
        logprobs(("good", "-0.1")),
    ],
)  # fmt: skip
def test_no_confidence_without_log_probabilities_or_a_label(content):
    assert label_confidence(content, NESTED) is None


def test_confidence_is_from_0_to_1():
    assert label_confidence(logprobs(("good", 0.0001)), NESTED) == 1.0
    assert label_confidence(logprobs(("good", -9999.0)), NESTED) == 0.0
    assert label_confidence(logprobs(("good", -math.inf)), NESTED) == 0.0
