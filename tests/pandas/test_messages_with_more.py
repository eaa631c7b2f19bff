"""Examples, images, tools and pydantic models as arguments of the accessor's methods."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from pydantic import BaseModel, Field

import lbgpt_pandas as lb
from lbgpt_pandas.testing import ScriptedGPT

TEXTS = pd.Series(["a", "b", None, "a"], index=["i", "j", "k", "i"], name="text")
PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f"
    b"\x15\xc4\x89\x00\x00\x00\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\x00\x05\x00\x01\xff\x89\x99=\x1d"
    b"\x00\x00\x00\x00IEND\xaeB`\x82"
)
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path):
    with lb.using(cache=tmp_path / "cache", progress="none"):
        yield


def turns(engine):
    return [[each["content"] for each in request.messages] for request in engine.requests]


def test_examples_stand_before_each_row_and_in_its_key():
    engine = ScriptedGPT("said")
    TEXTS.lbgpt.complete("Is {} nice?", examples=[("x", "yes"), ("y", "no")], engine=engine)
    assert turns(engine) == [
        ["Is x nice?", "yes", "Is y nice?", "no", f"Is {text} nice?"] for text in "ab"
    ]
    TEXTS.lbgpt.complete("Is {} nice?", examples=[("x", "yes"), ("y", "no")], engine=engine)
    assert len(engine.requests) == 2
    TEXTS.lbgpt.complete("Is {} nice?", examples=[("x", "yes")], engine=engine)
    assert len(engine.requests) == 4


def test_answers_of_examples_have_the_form_that_is_asked_for():
    engine = ScriptedGPT('{"label": "good"}')
    TEXTS.lbgpt.classify("{}", ["good", "bad"], examples=[("x", "bad")], engine=engine)
    assert turns(engine)[0][1:] == ["x", '{"label": "bad"}', "a"]
    engine = ScriptedGPT("yes")
    TEXTS.lbgpt.matches("{}?", examples=[("x", True), ("y", False)], engine=engine)
    assert turns(engine)[0][1:] == ["x?", "yes", "y?", "no", "a?"]
    engine = ScriptedGPT('{"n": 1}')
    TEXTS.lbgpt.extract("{}", {"n": int}, examples=[("x", {"n": 3})], engine=engine)
    assert turns(engine)[0][1:] == ["x", '{"n": 3}', "a"]


@pytest.mark.parametrize(
    ("verb", "arguments", "answer"),
    [
        ("classify", [["good", "bad"]], "ugly"),
        ("matches", [], "maybe"),
        ("extract", [{"n": int}], {"n": "x"}),
        ("complete", [], None),
    ],
)
def test_an_example_that_does_not_fit_is_refused_before_any_call(verb, arguments, answer):
    engine = ScriptedGPT("x")
    with pytest.raises(lb.ConfigurationError, match="examples="):
        getattr(TEXTS.lbgpt, verb)("{}", *arguments, examples=[("x", answer)], engine=engine)
    assert engine.requests == []


def test_images_are_sent_and_equal_ones_share_a_call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.png").write_bytes(PNG)
    frame = pd.DataFrame({"what": ["dot", "dot", "dot"], "image": [PNG, Path("one.png"), None]})
    engine = ScriptedGPT("seen")
    seen = frame.lbgpt.complete("A {what}?", images="image", engine=engine)
    assert seen.isna().tolist() == [False, False, True]
    assert len(engine.requests) == 1
    text, image = engine.requests[0].messages[-1]["content"]
    assert text == {"type": "text", "text": "A dot?"}
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    frame.lbgpt.complete("A {what}?", images=lb.Images("image", detail="low"), engine=engine)
    assert len(engine.requests) == 2


def test_a_bad_image_is_its_rows_error_and_costs_no_call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = [PNG, Path("no.png"), Path("/etc/passwd"), b"none", "http://169.254.169.254/x.png"]
    engine = ScriptedGPT("seen")
    with pytest.warns(lb.RowErrorsWarning, match="4 of 5 rows failed"):
        seen = pd.DataFrame({"image": bad}).lbgpt.complete("?", images="image", engine=engine)
    assert seen.notna().tolist() == [True, False, False, False, False]
    assert len(engine.requests) == 1
    report = lb.last_run()
    assert all("column 'image'" in message for message in report.errors["message"])


def called(name="look_up", arguments='{"q": 1}'):
    call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
    return {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice]}


def test_tool_calls_are_values_also_from_the_cache(tmp_path):
    engine = ScriptedGPT(
        lambda request: called() if request.messages[-1]["content"] == "a" else "plain"
    )
    wanted = {"name": "look_up", "arguments": {"q": 1}, "id": "c1"}
    for _ in range(2):
        column = TEXTS.lbgpt.complete("{}", tools=TOOLS, engine=engine)
        assert column.tolist() == [[wanted], "plain", None, [wanted]]
        assert column.dtype == object
        calls = lb.last_run().tool_calls
        assert calls["row"].tolist() == [0, 3]
        assert calls["name"].tolist() == ["look_up", "look_up"]
    assert len(engine.requests) == 2
    path = lb.last_run().export(tmp_path / "x.lbgpt.zip")
    with lb.replay(path):
        assert TEXTS.lbgpt.complete("{}", tools=TOOLS).tolist()[0] == [wanted]
    TEXTS.lbgpt.complete("{}", engine=ScriptedGPT("text"))
    assert lb.last_run().tool_calls.empty


class Verdict(BaseModel):
    score: int = Field(ge=0, le=5)
    tags: dict[str, list[str]] = {}


def test_a_model_makes_instances_and_what_does_not_fit_is_asked_again():
    def reply(request):
        tried = any(each["role"] == "assistant" for each in request.messages)
        if "b" in str(request.messages[1]["content"]) and not tried:
            return '{"score": 9}'
        return 'Here: {"score": 4, "tags": {"x": ["y"]}}'

    engine = ScriptedGPT(reply)
    column = TEXTS.lbgpt.complete("{}", response_format=Verdict, engine=engine, name="v")
    assert column.tolist()[:2] == [Verdict(score=4, tags={"x": ["y"]})] * 2
    assert column.iloc[2] is None
    assert column.iloc[0] is not column.iloc[3]
    assert (column.name, column.index.tolist()) == ("v", ["i", "j", "k", "i"])
    assert len(engine.requests) == 3
    assert "score: Input should be less than or equal to 5" in turns(engine)[2][-1]


def test_a_schema_is_sent_where_the_model_takes_one():
    engine = ScriptedGPT('{"score": 1}', model="gpt-4o-mini")
    TEXTS.lbgpt.complete("{}", response_format=Verdict, engine=engine)
    sent = engine.requests[0].params["response_format"]
    assert sent["json_schema"]["schema"]["properties"]["score"]["maximum"] == 5
    assert [each["role"] for each in engine.requests[0].messages] == ["user"]


def test_dict_formats_are_sent_as_they_are():
    engine = ScriptedGPT('{"a": 1}')
    column = TEXTS.lbgpt.complete("{}", response_format={"type": "json_object"}, engine=engine)
    assert json.loads(column.iloc[0]) == {"a": 1}
    assert engine.requests[0].params["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"response_format": int}, "no pydantic model"),
        ({"response_format": Verdict, "tools": TOOLS}, "give one of the two"),
        ({"images": "nothing"}, "nothing"),
        ({"examples": []}, "there are none"),
    ],
)
def test_what_cannot_work_is_refused_before_any_call(arguments, message):
    engine = ScriptedGPT("x")
    with pytest.raises((lb.ConfigurationError, lb.TemplateError), match=message):
        TEXTS.lbgpt.complete("{}", engine=engine, **arguments)
    assert engine.requests == []


def test_a_plan_counts_examples_and_images():
    engine = ScriptedGPT("x")
    plain = TEXTS.lbgpt.plan("{}", engine=engine)
    longer = TEXTS.lbgpt.plan("{}", examples=[("x " * 100, "y")] * 5, engine=engine)
    assert longer.prompt_tokens.total > 5 * plain.prompt_tokens.total
    frame = pd.DataFrame({"image": [PNG, None]})
    plan = frame.lbgpt.plan("?", images="image", engine=engine)
    assert (plan.rows, plan.na_rows, plan.requests_to_send) == (2, 1, 1)
    assert "base64" not in plan._repr_html_()
    assert engine.requests == []
