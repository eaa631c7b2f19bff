"""A long column over a provider that fails in every way: nothing is lost, swapped or paid twice.

The wire is a double under the real SDK; `test_provider_faults` has the same faults on sockets.
"""

from __future__ import annotations

import collections
import json
import random
import re

import httpx
import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.testing import FakeClock

ROWS = 10_000
BAD = {"error": {"message": "no such thing", "type": "invalid_request_error", "code": "bad"}}
FILTERED = {"error": {"message": "not this", "type": "invalid", "code": "content_filter"}}


def failing(status, body, **headers):
    return lambda _: httpx.Response(status, json=body, headers=headers)


def raising(kind):
    def fail(request):
        raise kind("on the wire", request=request)

    return fail


PASSING = [
    failing(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}),
    failing(429, {"error": {"message": "slow down"}}, **{"retry-after-ms": "10"}),
    failing(500, {"error": {"message": "oops"}}),
    failing(503, {"error": {"message": "overloaded"}}),
    failing(200, {"choices": []}),
    failing(200, None),
    lambda _: httpx.Response(200, content=b'{"choices": [{"mess'),
    lambda _: httpx.Response(200, content=b""),
    lambda _: httpx.Response(502, content=b"<html>", headers={"content-type": "text/html"}),
    raising(httpx.ReadTimeout),
    raising(httpx.ConnectTimeout),
    raising(httpx.ConnectError),
    raising(httpx.ReadError),
    raising(httpx.RemoteProtocolError),
]
"""What is over when the request is sent again."""

LASTING = {"BadRequest": failing(400, BAD), "ContentFiltered": failing(400, FILTERED)}
"""What the provider says of a text each time."""

INVALID = ["Sorry, I cannot.", '{"n": "many"}', '{"n": 1', '{"other": 2}', ""]


class Wire:
    """A provider whose mind is made up about each row.

    Attributes
    ----------
    faults : dict of int to list
        Failures by row that come before its answer.
    lasting : dict of int to str
        Rows that are refused each time, and the error that this is.
    invalid : dict of int to str
        Rows that are answered with this at first.
    times : dict of int to int
        How often such a row is answered like that; 3 is more often than it is asked.
    calls : collections.Counter
        Calls by row.
    """

    def __init__(self):
        draw = random.Random(2026)
        kinds = draw.choices(["fine", "fault", "lasting", "invalid"], [95, 2.5, 0.5, 2], k=ROWS)
        self.faults, self.lasting, self.invalid, self.times = {}, {}, {}, {}
        for row, kind in enumerate(kinds):
            if kind == "fault" or draw.random() < 0.001:
                self.faults[row] = draw.choices(PASSING, k=draw.choice([1, 1, 2]))
            if kind == "lasting":
                self.lasting[row] = draw.choice(list(LASTING))
            if kind == "invalid":
                self.invalid[row], self.times[row] = draw.choice(INVALID), draw.choice([1, 2, 3])
        self.calls = collections.Counter()

    def heal(self):
        self.calls.clear()
        self.lasting, self.invalid = {}, {}

    def client(self):
        return httpx.AsyncClient(transport=httpx.MockTransport(self.answer))

    def expected_calls(self):
        """Calls that each row takes: one for each failure that passes, and each time it asks."""
        calls = {row: 1 + len(self.faults.get(row, ())) for row in range(ROWS)}
        for row, times in self.times.items():
            calls[row] += min(times, 2)
        return calls

    def failing(self):
        return self.lasting.keys() | {row for row, times in self.times.items() if times > 2}

    def answer(self, request):
        messages = json.loads(request.content)["messages"]
        row = row_of(messages)
        coming, place = self.faults.get(row, ()), self.calls[row]
        self.calls[row] += 1
        if place < len(coming):
            return coming[place](request)
        if row in self.lasting:
            return LASTING[self.lasting[row]](request)
        rounds = sum(each["role"] == "assistant" for each in messages)
        is_wrong = row in self.invalid and rounds < self.times[row]
        text = self.invalid[row] if is_wrong else json.dumps({"n": row, "half": row / 2})
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        body = {"id": "x", "object": "chat.completion", "model": "gpt-4o-mini", "usage": usage}
        return httpx.Response(200, json=body | {"choices": [choice]})


def row_of(messages):
    texts = [each["content"] for each in messages if each["role"] == "user"]
    return int(re.search(r"row (\d+)", texts[0])[1])


@pytest.fixture
def wire():
    return Wire()


@pytest.fixture
def ask(wire, tmp_path):
    """Runs the column; its rows stand in another order than their numbers."""
    frame = pd.DataFrame({"text": [f"row {number}" for number in range(ROWS)]})
    frame = frame.sample(frac=1, random_state=1)
    engine = lb.ChatGPT("sk-CANARY", http_client=wire.client, clock=FakeClock())
    keywords = {"engine": engine, "model": "gpt-4o-mini", "progress": "none"}

    def extract():
        found = frame.lbgpt.extract("{text}", {"n": int, "half": float}, **keywords)
        assert found.index.equals(frame.index)
        return found

    with lb.using(cache=tmp_path / "cache"):
        yield extract


def test_every_row_has_its_value_or_its_reason(wire, ask):
    assert len(wire.faults) > 0.025 * ROWS
    assert len(wire.failing()) > 80
    with pytest.warns(lb.RowErrorsWarning):
        found = ask()
    report = lb.last_run()
    failed = report.rows["status"].eq("failed")
    assert set(report.rows.index[failed]) == wire.failing()
    well = found[~failed.to_numpy()]
    assert well["n"].tolist() == well.index.tolist()
    assert well["half"].tolist() == [row / 2 for row in well.index]
    assert found[failed.to_numpy()].isna().all(axis=None)

    errors = report.errors
    kinds = dict.fromkeys(wire.failing(), "SchemaMismatch") | wire.lasting
    assert errors["error_type"].to_dict() == kinds
    assert errors["message"].str.len().gt(10).all()
    assert wire.calls == wire.expected_calls()
    assert report.summary.calls == sum(wire.calls.values())

    failing_rows = wire.failing()
    wire.heal()
    again = report.retry_failed()
    assert wire.calls.keys() == failing_rows
    assert again["n"].tolist() == again.index.tolist()
    wire.calls.clear()
    assert ask().equals(again)
    assert not wire.calls
