"""`examples=`: turns before each row, rendered as the rows are."""

from __future__ import annotations

import json
from enum import Enum

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.errors import ConfigurationError, TemplateError
from lbgpt_pandas.engine.portal import run_sync
from lbgpt_pandas.frames import col, to_requests
from lbgpt_pandas.testing import ScriptedGPT

FRAME = pd.DataFrame({"text": ["fine", "poor", None], "stars": [4, 1, 3]})
PAIRS = [({"text": "great", "stars": 5}, "good"), ({"text": "awful", "stars": 1}, "bad")]
TURNS = [
    {"role": "user", "content": "great (5)"},
    {"role": "assistant", "content": "good"},
    {"role": "user", "content": "awful (1)"},
    {"role": "assistant", "content": "bad"},
]


def plan_of(examples, data=FRAME, *, template="{text} ({stars})", **keywords):
    return to_requests(
        data, template=template, examples=examples, params={}, options={}, **keywords
    )


def messages(plan, number=0):
    return plan.requests[number].messages


def inputs(plan):
    return [each["content"] for each in messages(plan)[:-1] if each["role"] == "user"]


def answers(plan):
    return [each["content"] for each in messages(plan) if each["role"] == "assistant"]


@pytest.mark.parametrize(
    "examples",
    [
        PAIRS,
        tuple(map(list, PAIRS)),
        [(pd.Series(row), answer) for row, answer in PAIRS],
        pd.DataFrame({"text": ["great", "awful"], "stars": [5, 1], "answer": ["good", "bad"]}),
        pd.DataFrame({"mood": ["good", "bad"], "stars": [5, 1], "text": ["great", "awful"]}),
        pd.DataFrame(
            {"text": ["great", "awful"], "stars": [5, 1], "answer": ["good", "bad"], "more": 0},
            index=["same", "same"],
        ),
    ],
)
def test_examples_are_turns_before_each_row(examples):
    plan = plan_of(examples)
    assert plan.codes.tolist() == [0, 1, -1]
    assert messages(plan, 0) == [*TURNS, {"role": "user", "content": "fine (4)"}]
    assert messages(plan, 1) == [*TURNS, {"role": "user", "content": "poor (1)"}]


def test_they_follow_the_system_message_wherever_it_comes_from():
    given = messages(plan_of(PAIRS, system="Judge {text}"))
    assert given[0] == {"role": "system", "content": "Judge fine"}
    assert given[1:5] == TURNS
    chat = [
        {"role": "developer", "content": "Judge"},
        {"role": "user", "content": "{text} ({stars})"},
    ]
    given = messages(plan_of(PAIRS, template=chat))
    assert [each["role"] for each in given] == ["developer", *["user", "assistant"] * 2, "user"]
    assert given[1:5] == TURNS


def test_every_kind_of_template_renders_them():
    jinja2 = pytest.importorskip("jinja2")
    for template in (
        lambda row: f"{row.text} ({row['stars']})",
        jinja2.Template("{{ text }} ({{ stars }})"),
        [{"role": "user", "content": "{text} ({stars})"}],
    ):
        assert messages(plan_of(PAIRS, template=template))[:4] == TURNS
    chats = [[{"role": "user", "content": text}] for text in ("a", "b")]
    frame = pd.DataFrame({"chat": chats})
    plan = to_requests(frame, messages="chat", examples=[(chats[1], "yes")], params={}, options={})
    assert [each["content"] for each in messages(plan)] == ["b", "yes", "a"]


def test_an_input_may_be_the_cell_where_there_is_one_column():
    assert inputs(plan_of([("x", "y")], template="<{text}>")) == ["<x>"]
    assert inputs(plan_of([("x", "y")], template=col("text"))) == ["x"]
    with pytest.raises(ConfigurationError, match="item 0 is a str; give a dict"):
        plan_of([("x", "y")])


@pytest.mark.parametrize("name", [None, "review"])
def test_a_series_takes_cells_or_two_columns(name):
    data = pd.Series(["fine"], name=name)
    frame = pd.DataFrame({"anything": ["x"], "answer": ["y"]})
    for examples in ([("x", "y")], frame):
        for template in ("<{}>", "<{value}>"):
            assert inputs(plan_of(examples, data, template=template)) == ["<x>"]
    assert inputs(plan_of([({"a": 1}, "y")], data, template="{}")) == ['{"a": 1}']
    with pytest.raises(ConfigurationError, match="two columns"):
        plan_of(frame.assign(more=1), data, template="{}")


def test_the_column_of_answers_is_found_or_asked_for():
    labelled = pd.DataFrame({"text": ["x"], "stars": [1], "answer": ["y"], "note": ["z"]})
    assert answers(plan_of(labelled, labelled)) == ["y"]
    # Here the template uses it, so that it is an input.
    given = plan_of(labelled, labelled.drop(columns="note"), template="{text} {answer}")
    assert (inputs(given), answers(given)) == (["x y"], ["z"])
    with pytest.raises(ConfigurationError, match="not clear which column has the answers"):
        plan_of(labelled.drop(columns="answer"), labelled)
    twice = labelled.set_axis(["text", "stars", "answer", "answer"], axis=1)
    with pytest.raises(ConfigurationError, match="not clear"):
        plan_of(twice)


class Mood(Enum):
    GOOD = "good"


class Review(BaseModel):
    mood: str


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("  kept as it is\n", "  kept as it is\n"), (3, "3"), (np.float32(0.1), "0.1"),
        (True, "True"), (Mood.GOOD, "good"), ({"a": [1, None]}, '{"a": [1, null]}'),
        (Review(mood="ä"), '{"mood":"ä"}'),
    ],
)  # fmt: skip
def test_answers_are_what_a_model_would_have_given(answer, text):
    assert answers(plan_of([(PAIRS[0][0], answer)])) == [text]


def test_who_asks_for_a_form_writes_the_answers():
    plan = plan_of(PAIRS, write_example=lambda answer: json.dumps({"label": answer}))
    assert answers(plan) == ['{"label": "good"}', '{"label": "bad"}']


def test_columns_of_a_frame_keep_their_types():
    frame = pd.DataFrame({"text": ["x", "y"], "stars": [1, 2], "answer": [1, None]})
    plan = plan_of(frame.iloc[:1])
    assert (inputs(plan), answers(plan)) == (["x (1)"], ["1.0"])
    assert inputs(plan_of(frame.head(1), template="{stars:.2f}")) == ["1.00"]


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([(PAIRS[0][0], None)], "row 0 (index 0): the answer is NA"),
        ([PAIRS[0], (PAIRS[1][0], float("nan"))], "row 1 (index 1): the answer is NA"),
        ([(PAIRS[0][0], " \n")], "the answer is empty"),
        ([({"text": None, "stars": 1}, "x")], "column 'text', which the template uses, is NA"),
        ([PAIRS[0], ({"text": "only"}, "x")], "row 1 (index 1): column 'stars'"),
        ([({"text": b"x", "stars": 1}, "x")], "bytes cannot be sent as text"),
        ([(PAIRS[0][0], b"x")], "bytes cannot be sent as text"),
        ([(PAIRS[0][0], "\ud800")], "lone surrogate"),
        ([({"text": "\ud800", "stars": 1}, "x")], "lone surrogate"),
        ([], "there are none"),
        (FRAME.iloc[:0].assign(answer=""), "there are none"),
        (pd.concat([FRAME.assign(answer="x")] * 400), "1,200 are more than 1,000"),
        (["ab"], "item 0 is no pair"),
        ([(1, 2, 3)], "item 0 is no pair"),
        ("ab", "a str: give a DataFrame"),
        ({"great": "good"}, "a dict: give a DataFrame"),
    ],
)
def test_bad_examples_are_told_before_any_call(examples, said):
    for na in ("skip", "empty"):
        with pytest.raises(ConfigurationError) as caught:
            plan_of(examples, na=na)
        assert said in str(caught.value)
        assert str(caught.value).startswith("examples=: ")


@pytest.mark.parametrize(
    ("examples", "template", "said"),
    [
        ([({"txt": "x", "stars": 1}, "y")], "{text}", "no column 'text'; did you mean 'txt'"),
        (pd.DataFrame({"txt": ["x"], "answer": ["y"]}), "{text}", "did you mean 'txt'"),
        ([({"text": "x"}, "y")], "{index}: {text}", "which a pair has not"),
        ([({"text": "x", "stars": "five"}, "y")], "{stars:.2f}", "does not fit the cell"),
        ([({"text": "x"}, "y")], lambda row: row.stars, "the callable raised AttributeError"),
        ([({"text": "x"}, "y")], lambda row: None if row.text == "x" else "", "gave nothing"),
    ],
)
def test_inputs_that_do_not_fit_the_template_are_told_before_any_call(examples, template, said):
    with pytest.raises(TemplateError) as caught:
        plan_of(examples, template=template)
    assert said in str(caught.value)
    assert str(caught.value).startswith("examples=: ")


def test_the_index_of_a_frame_of_examples_can_be_used():
    frame = pd.DataFrame({"text": ["x"], "answer": ["y"]}, index=["label"])
    assert inputs(plan_of(frame, template="{index} {text}")) == ["label x"]


def test_the_given_objects_are_not_changed():
    frame = pd.DataFrame({"text": ["x"], "stars": [1], "answer": ["y"]})
    before, series = frame.copy(), pd.Series(["a"], name="s")
    plan_of(frame)
    plan_of(frame[["text", "answer"]], series, template="{s}")
    pd.testing.assert_frame_equal(frame, before)


def test_what_becomes_of_a_frame_later_changes_nothing():
    frame = pd.DataFrame({"text": ["x"], "stars": [1], "answer": ["y"]})
    plan = plan_of(frame)
    frame.loc[:, "text"] = "changed"
    assert inputs(plan) == ["x (1)"]


def test_examples_have_their_images(tmp_path):
    data = pd.DataFrame({"photo": ["https://example.com/a.png"]})
    examples = [({"photo": b"\xff\xd8\xff"}, "a cat")]
    plan = plan_of(examples, data, template="What?", images="photo")
    kinds = [[part["type"] for part in each["content"]] for each in messages(plan)[::2]]
    assert kinds == [["text", "image_url"]] * 2
    gone = [({"photo": tmp_path / "gone.png"}, "x")]
    with pytest.raises(ConfigurationError, match="there is nothing at"):
        plan_of(gone, data, template="What?", images="photo", image_root=tmp_path)
    # The manifest has a digest in the place of the image.
    assert "sha256" in plan.provenance.template
    assert "base64" not in plan.provenance.template


def test_the_manifest_tells_of_them():
    one, two = plan_of(PAIRS), plan_of(PAIRS[::-1])
    assert one.provenance.sha256 != two.provenance.sha256
    assert "awful (1)" in one.provenance.template
    assert one.provenance.columns == ("text", "stars")


def test_a_model_is_asked_with_them_and_other_examples_are_another_key():
    engine = ScriptedGPT(lambda request: str(len(request.messages)), cache={})

    def ask(examples):
        plan = plan_of(examples, FRAME.head(1))
        return run_sync(Batch(engine, plan.requests, caching=engine.caching()).arun())[0]

    first, again, other = ask(PAIRS), ask(PAIRS), ask(PAIRS[:1])
    assert [first.completion.text, other.completion.text] == ["5", "3"]
    assert first.key == again.key != other.key
    assert len(engine.requests) == 2
