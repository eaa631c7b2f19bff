"""Ten thousand rows through a provider that fails in every way, and a model that does too."""

from __future__ import annotations

import json
import re
import threading
import zlib
from collections import Counter

import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.engine.errors import BadRequest, ContentFiltered, RequestError, SchemaMismatch
from lbgpt_pandas.testing import FakeClock, FakeProvider, Fault

ROWS = 10_000
PASSING = [
    Fault.rate_limited(0.2),
    Fault.server_error(500),
    Fault.server_error(503),
    Fault.reset(),
    Fault.cut(after=40),
    Fault.respond(200, b"{"),
    Fault.respond(200, {"choices": []}),
]
FINAL = [Fault.respond(400, {"error": {"message": "bad", "code": "invalid_value"}})]
FILTERED = [Fault.content_filter()]


def row_of(body):
    question = next(each for each in body["messages"] if each["role"] == "user")
    return int(re.search(r"row (\d+)", question["content"])[1])


def draw(row, what):
    """A number from 0 to 99 that is the row's."""
    return zlib.crc32(f"{what} {row}".encode()) % 100


class Storm:
    """3 % of rows meet a fault, most of which pass; 2 % get replies that are not what is asked."""

    def __init__(self):
        self.calls, self.answered = Counter(), Counter()
        self.is_over = False
        self._lock = threading.Lock()

    def fault(self, record):
        row = row_of(record.body)
        with self._lock:
            self.calls[row] += 1
            tries = self.calls[row]
        if self.is_over or draw(row, "fault") >= 3:
            return None
        kinds = PASSING if draw(row, "final") >= 20 else [*FINAL, *FILTERED]
        if kinds is PASSING and tries > 1 + row % 2:
            return None
        return kinds[row % len(kinds)]

    def reply(self, body):
        row = row_of(body)
        again = sum(each["role"] == "assistant" for each in body["messages"])
        with self._lock:
            self.answered[row] += 1
        # Of replies that are no JSON half are better at the second or third time.
        is_wrong = draw(row, "wrong") < 2 and (row % 2 == 0 or again < 1 + row % 3)
        if is_wrong and not self.is_over:
            return "Sure! The number is " + str(row)
        return json.dumps({"number": row, "word": f"w{row}"})


@pytest.mark.timeout(240)
def test_every_row_has_its_value_or_its_reason(tmp_path):
    storm = Storm()
    frame = pd.DataFrame({"n": range(ROWS)}, index=[f"i{n % 977}" for n in range(ROWS)])
    with FakeProvider(reply=storm.reply, faults=storm.fault) as provider:
        engine = lb.ChatGPT("sk-test-0123456789", base_url=provider.base_url, clock=FakeClock())
        with lb.using(engine=engine, cache=tmp_path, errors="ignore", progress="none"):
            schema = {"number": int, "word": str}
            made = frame.lbgpt.extract("row {n}", schema, model="gpt-4o-mini")
            report = lb.last_run()
            check(report, made, frame)
            asked, storm.is_over = Counter(storm.calls), True
            fixed = report.retry_failed()
    failed = report.rows["status"].eq("failed").to_numpy()
    assert fixed["number"].tolist() == list(range(ROWS))
    assert fixed["word"].tolist() == [f"w{n}" for n in range(ROWS)]
    again = storm.calls - asked
    assert sorted(again) == [n for n in range(ROWS) if failed[n]]
    assert set(again.values()) == {1}
    assert len(storm.calls) == ROWS


def check(report, made, frame):
    rows = report.rows
    assert made.index.equals(frame.index)
    failed = rows["status"].eq("failed").to_numpy()
    assert set(rows["status"]) == {"ok", "failed"}
    for n, (number, word) in enumerate(zip(made["number"], made["word"], strict=True)):
        if failed[n]:
            assert number is pd.NA
        else:
            assert (number, word) == (n, f"w{n}")
    kinds = Counter(rows["error_type"].dropna())
    assert set(kinds) == {SchemaMismatch.__name__, BadRequest.__name__, ContentFiltered.__name__}
    assert 0.005 * ROWS < kinds["SchemaMismatch"] < 0.02 * ROWS
    assert rows["message"].notna().tolist() == failed.tolist()
    for _, error in report.first_failures(ROWS):
        assert isinstance(error, RequestError)
        assert isinstance(error, SchemaMismatch) == bool(getattr(error, "raw", ""))
