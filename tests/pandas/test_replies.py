"""The JSON in a reply."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.replies import answer_text, find_objects, load_json


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, 2]}', ' \n{"a": [1, 2]}\n', '```json\n{"a": [1, 2]}\n```', '```\n{"a":[1,2]}```',
        'Sure! {"a": [1, 2]} Anything else?', '{"a": [1, 2],}', '{"a": [1, 2,]}', '[{"a": [1, 2]}]',
        'A set {x, y}: {"a": [1, 2]}', 'An { alone: {"a": [1, 2]}', '{"a": [1, 2]} }',
        '{"a": [1, 2]} {"a": [1, 2]}', '<think>{"a": 3}</think>{"a": [1, 2]}',
        'He said "hi {" and {"a": [1, 2]}', '{"a": [1, 2], "a": [1, 2]}', '\ufeff{"a": [1, 2]}',
    ],
)  # fmt: skip
def test_one_object_is_found(text):
    assert find_objects(text).objects == ({"a": [1, 2]},)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "the answer is empty"),
        (None, "the answer is empty"),
        ("no idea", "no JSON object"),
        ("[1, 2]", "no JSON object"),
        ('{"a": 1', "cut off"),
        ('{"a": "x', "cut off"),
        ('{"a": 1,, }', "broken"),
        ('{"a": [1,], "b": 2,}', "broken"),
        ("{'a': 1}", "broken"),
        ("{a: 1}", "broken"),
        ('{"a": __import__("os")}', "broken"),
        ('{"a" 1, "b": {"a": 1}}', "broken"),
        ('{"a": NaN}', "NaN is not JSON; use null"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": 1e999}', "too large"),
        ('{"a": 1, "a": 2}', 'key "a" is given twice'),
        ('{"a": 1, "a": true}', "given twice"),
        (f'{{"a": {"9" * 5000}}}', "thousands of digits"),
        ('{"a":' * 20_000 + "1" + "}" * 20_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_is_said(text, error):
    reply = find_objects(text)
    assert reply.objects == ()
    assert error in reply.error
    assert len(reply.error) < 200


def test_several_objects_are_all_there():
    reply = find_objects('{"a": 1} or {"b": 2} or {"c": }')
    assert reply.objects == ({"a": 1}, {"b": 2})
    assert "broken" in reply.error
    assert find_objects('{"a": 1}{"a": true}{"a": 1.0}').objects == (
        {"a": 1},
        {"a": True},
        {"a": 1.0},
    )


def test_strings_are_left_alone():
    text = '{"a": "x, ] {\\" }", "b": "raw\nline,}"}'
    assert find_objects(text).objects == ({"a": 'x, ] {" }', "b": "raw\nline,}"},)


def test_half_of_a_character_becomes_its_replacement():
    text = '{"a": "\\ud83d", "\\udc00": ["\\ud83d\\ude42"]}'
    assert find_objects(text).objects == ({"a": "\ufffd", "\ufffd": ["🙂"]},)


def test_thoughts_are_passed_over():
    assert answer_text("<think>so</think>\n\nyes ") == "yes"
    assert answer_text(None) == ""


def test_a_whole_text():
    assert load_json("[1,]") == [1]
    for text in ("", "x", "[1,2", "NaN"):
        with pytest.raises(ValueError):
            load_json(text)


@pytest.mark.parametrize("text", ["{" * 200_000, '{"a' * 100_000, '"' * 200_001, "{," * 100_000,
                                  "{ }" * 50_000, '{"a":[' * 50_000])  # fmt: skip
def test_hostile_replies_take_no_time(text):
    started = time.perf_counter()
    find_objects(text)
    assert time.perf_counter() - started < 10


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)  # fmt: skip


@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values),
    st.sampled_from(["{}", "```json\n{}\n```", "So: {}. Done."]),
    st.booleans(),
)
def test_any_object_is_found_as_it_is(value, form, ascii_only):
    text = form.replace("{}", json.dumps(value, ensure_ascii=ascii_only))
    if "</think>" in text:
        return
    assert find_objects(text).objects == (value,)


@given(st.text(st.sampled_from('{}[]",:\\a1 \n')))
def test_any_text_is_read_without_an_exception(text):
    reply = find_objects(text)
    assert reply.objects or reply.error
