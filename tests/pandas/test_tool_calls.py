"""Tool calls: sent through, given back as values, never executed."""

from __future__ import annotations

import builtins
import json
from fractions import Fraction
from typing import Any

import pandas as pd
import pytest

from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.errors import BadRequest, ConfigurationError
from lbgpt_pandas.engine.portal import run_sync
from lbgpt_pandas.engine.types import Source
from lbgpt_pandas.frames import to_requests
from lbgpt_pandas.keywords import split_params
from lbgpt_pandas.testing import ScriptedGPT
from lbgpt_pandas.tool_calls import ToolForm, calls_of, read_calls, tool_calls_frame

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
FRAME = pd.DataFrame(
    {"city": ["Rome", "Oslo", None, "Rome", "nowhere"]}, index=["a", "b", "b", "c", "d"]
)


def call(arguments, *, name="weather", number=1):
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{number}", "type": "function", "function": function}


def body(*calls, content=None):
    message = {"role": "assistant", "content": content, "tool_calls": list(calls)}
    return {
        "id": "x",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
    }


def script(request):
    city = request.messages[-1]["content"]
    if city == "nowhere":
        return "There is no such city."
    first = call(json.dumps({"city": city}))
    return body(first, call("{}", name="clock", number=2)) if city == "Oslo" else body(first)


def asked(engine, data=FRAME, **keywords):
    plan = to_requests(data, template="{city}", params={"tools": TOOLS}, options={}, **keywords)
    batch = Batch(
        engine,
        plan.requests,
        caching=engine.caching(),
        keep_payloads=ToolForm.keeps_payloads,
        check=ToolForm.check,
    )
    return plan, run_sync(batch.arun())


ROME = [{"name": "weather", "arguments": {"city": "Rome"}, "id": "call_1"}]
OSLO = [
    {"name": "weather", "arguments": {"city": "Oslo"}, "id": "call_1"},
    {"name": "clock", "arguments": {}, "id": "call_2"},
]


def test_calls_are_values_and_texts_are_texts():
    engine = ScriptedGPT(script, cache={})
    plan, outcomes = asked(engine)
    column = ToolForm().result(plan, outcomes, name="out")
    assert column.index.equals(FRAME.index)
    assert (column.name, column.dtype) == ("out", object)
    assert column.tolist() == [ROME, OSLO, None, ROME, "There is no such city."]
    assert engine.requests[0].params["tools"] == TOOLS


def test_stored_calls_are_read_back():
    engine = ScriptedGPT(script, cache={})
    asked(engine)
    plan, outcomes = asked(engine)
    assert {outcome.source for outcome in outcomes} == {Source.EXACT_CACHE}
    column = ToolForm().result(plan, outcomes, name=None)
    assert column.tolist() == [ROME, OSLO, None, ROME, "There is no such city."]
    assert len(engine.requests) == 3


def test_no_row_shares_its_list_with_another_or_with_the_answer():
    plan, outcomes = asked(ScriptedGPT(script, cache={}))
    column = ToolForm().result(plan, outcomes, name=None)
    column["a"][0]["arguments"]["city"] = "changed"
    assert column["c"] == ROME
    given = {"city": ["Rome"]}
    payload = body(call(given))
    read_calls(payload)[0]["arguments"]["city"].append("changed")
    assert given == {"city": ["Rome"]}


def test_the_dtype_does_not_hang_on_the_answers():
    for reply in ("just text", body(call("{}"))):
        plan, outcomes = asked(ScriptedGPT(lambda _, reply=reply: reply, cache={}))
        assert ToolForm().result(plan, outcomes, name=None).dtype == object
    plan, outcomes = asked(ScriptedGPT("x", cache={}), FRAME.iloc[:0])
    empty = ToolForm().result(plan, outcomes, name="n")
    assert (len(empty), empty.dtype, empty.name) == (0, object, "n")


def test_calls_win_over_the_text_beside_them():
    reply = body(call("{}"), content="I look it up.")
    plan, outcomes = asked(ScriptedGPT(lambda _: reply, cache={}))
    assert ToolForm().result(plan, outcomes, name=None)["a"][0]["name"] == "weather"
    assert outcomes[0].completion.text == "I look it up."


def test_rows_that_failed_or_were_not_asked_have_no_value():
    def answer(request):
        return BadRequest("no") if "Oslo" in str(request.messages) else script(request)

    plan, outcomes = asked(ScriptedGPT(answer, cache={}))
    values = ToolForm().result(plan, outcomes, name=None).tolist()
    assert values == [ROME, None, None, ROME, "There is no such city."]
    assert ToolForm().result(plan, [None] * 3, name=None).tolist() == [None] * 5
    assert calls_of(None) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"a": 1}', {"a": 1}), ("", {}), (" ", {}), (None, {}), ("{}", {}),
        ('{"a": 1', '{"a": 1'), ("[1]", "[1]"), ("NaN", "NaN"), ('{"a": NaN}', '{"a": NaN}'),
        ("__import__('os')", "__import__('os')"), ({"a": 1}, {"a": 1}),
        ('{"a": 1, "a": 2}', '{"a": 1, "a": 2}'), ("[" * 100_000, "[" * 100_000),
    ],
)  # fmt: skip
def test_arguments_are_parsed_or_kept_as_they_came(arguments, expected):
    assert read_calls(body(call(arguments)))[0]["arguments"] == expected


@pytest.mark.parametrize("calls", [None, {}, "x", [None], ["x"], []])
def test_what_is_no_list_of_calls_is_none(calls):
    assert read_calls({"choices": [{"message": {"tool_calls": calls}}]}) == []
    assert read_calls({"choices": [{"message": {}}]}) == []
    assert read_calls(None) == []


def test_malformed_calls_do_not_stop_a_column():
    found = read_calls(body({"id": 3}, {"function": "f"}, {"function": {"name": "f"}}))
    assert [each["name"] for each in found] == [None, None, "f"]


def test_tools_with_free_text_give_their_text():
    custom = {"id": "c", "type": "custom", "custom": {"name": "sql", "input": '{"a": 1}'}}
    assert read_calls(body(custom)) == [{"name": "sql", "arguments": '{"a": 1}', "id": "c"}]


def test_the_report_lists_every_call_under_the_labels_of_its_row():
    plan, outcomes = asked(ScriptedGPT(script, cache={}))
    frame = tool_calls_frame(plan, outcomes)
    assert frame.index.tolist() == ["a", "b", "b", "c"]
    assert frame["row"].tolist() == [0, 1, 1, 3]
    assert frame["name"].tolist() == ["weather", "weather", "clock", "weather"]
    assert frame["arguments"].tolist()[1:3] == [{"city": "Oslo"}, {}]
    assert frame.dtypes.astype(str).tolist() == ["int64", "string", "object", "string"]
    none = tool_calls_frame(plan, [None] * len(outcomes))
    assert len(none) == 0
    assert none.dtypes.astype(str).tolist() == frame.dtypes.astype(str).tolist()


def test_nothing_is_called(monkeypatch):
    called = []
    monkeypatch.setattr(builtins, "weather", called.append, raising=False)
    plan, outcomes = asked(ScriptedGPT(script, cache={}))
    ToolForm().result(plan, outcomes, name=None)
    tool_calls_frame(plan, outcomes)
    assert called == []


def test_several_answers_are_rows_and_not_n():
    with pytest.raises(ConfigurationError, match='duplicates="independent"'):
        split_params({"n": 3})
    data = FRAME.loc[["a"]].iloc[[0, 0, 0]]
    engine = ScriptedGPT([body(call(f'{{"n": {n}}}')) for n in range(3)], max_parallel_calls=1,
                         cache={})  # fmt: skip
    plan, outcomes = asked(engine, data, duplicates="independent")
    drawn = {calls[0]["arguments"]["n"] for calls in ToolForm().result(plan, outcomes, name=None)}
    assert drawn == {0, 1, 2}
    _, again = asked(engine, data, duplicates="independent")
    assert [each.key for each in again] == [each.key for each in outcomes]
    assert len(engine.requests) == 3


@pytest.mark.parametrize("tools", ["find", ["find"], [("name", "find")], [{"name": "find"}]])
def test_tools_that_are_no_dicts_are_refused_before_a_call(tools: Any) -> None:
    engine = ScriptedGPT("paid")
    with pytest.raises(ConfigurationError, match="list of dicts"):
        pd.Series(["lamp"]).lbgpt.complete("{}", tools=tools, engine=engine)
    assert engine.requests == []


@pytest.mark.parametrize("response_format", ["json", 3, Fraction(1, 2)])
def test_a_response_format_of_no_kind_is_refused_before_a_call(response_format: Any) -> None:
    engine = ScriptedGPT("paid")
    with pytest.raises(ConfigurationError, match="not an object of it"):
        pd.Series(["lamp"]).lbgpt.complete("{}", response_format=response_format, engine=engine)
    assert engine.requests == []
