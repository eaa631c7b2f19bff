"""What was spent and what may be: lb.usage, lb.headroom, prices, and budgets of runs."""

from __future__ import annotations

import asyncio
import importlib
import threading
import time
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.engine import pricing
from lbgpt_pandas.engine.accounts import SESSION_BOOK, UsageBook
from lbgpt_pandas.engine.types import TokenCount
from lbgpt_pandas.testing import ScriptedGPT

TOKENS = TokenCount(prompt=100, completion=20, cached=30)
FRAME = pd.DataFrame({"t": [f"row {number}" for number in range(10)]})
COLUMNS = [
    "requests", "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens",
    "cost_usd", "saved_usd", "estimated_usd",
]  # fmt: skip


@pytest.fixture
def book(monkeypatch):
    """An empty book in the place of the session's."""
    fresh = UsageBook()
    monkeypatch.setattr(SESSION_BOOK, "_entries", fresh._entries)
    return SESSION_BOOK


@pytest.fixture(autouse=True)
def no_engines(monkeypatch):
    monkeypatch.setattr(importlib.import_module("lbgpt_pandas.resolution"), "_engines", {})
    module = importlib.import_module("lbgpt_pandas.settings")
    monkeypatch.setattr(module, "_used", type(module._used)())


@pytest.fixture(autouse=True)
def table_prices(monkeypatch):
    monkeypatch.setattr(pricing, "_overrides", {})


def ago(**span):
    return datetime.now(UTC) - timedelta(**span)


def test_usage_adds_up_by_model_and_deployment(book):
    now = ago()
    for deployment in ("east", "west", "west"):
        book.billed(deployment, "gpt-4o", TOKENS, 0.5, at=now)
    book.saved("east", "gpt-4o", TOKENS, 0.25, at=now, times=4)
    book.estimated("east", "gpt-4o", TokenCount(10, 5, estimated=True), 0.125, at=now)
    frame = lb.usage()
    assert frame.index.names == ["model", "deployment"]
    assert list(frame.columns) == COLUMNS
    assert frame.loc[("gpt-4o", "east")].tolist() == [2, 110, 25, 135, 30, 0.5, 1.0, 0.125]
    assert frame.loc[("gpt-4o", "west")].tolist() == [2, 200, 40, 240, 60, 1.0, 0.0, 0.0]
    assert lb.usage("model").loc["gpt-4o", "total_tokens"] == 375
    assert lb.usage(["deployment"])["requests"].to_dict() == {"east": 2, "west": 2}


def test_an_unknown_price_is_na_and_not_too_low_a_sum(book):
    book.billed("east", "gpt-4o", TOKENS, 0.5, at=ago())
    book.billed("east", "own", TOKENS, None, at=ago())
    assert lb.usage("model")["cost_usd"].isna().to_dict() == {"gpt-4o": False, "own": True}
    assert lb.usage("deployment")["cost_usd"].isna().all()
    assert lb.usage("deployment")["saved_usd"].tolist() == [0.0]


def test_days_and_minutes_are_levels(book):
    for minute in (0, 1, 24 * 60):
        at = datetime(2026, 3, 1, 23, 30, 20, tzinfo=UTC) + timedelta(minutes=minute)
        book.billed("east", "gpt-4o", TOKENS, 0.5, at=at)
    days = lb.usage("day")
    assert days.index.tolist() == [pd.Timestamp(f"2026-03-0{day}", tz="UTC") for day in (1, 2)]
    assert days["requests"].tolist() == [2, 1]
    assert lb.usage(("minute", "model")).index.nlevels == 2
    assert len(lb.usage("minute")) == 3
    assert lb.usage("minute").index[0] == pd.Timestamp("2026-03-01 23:30", tz="UTC")


@pytest.mark.parametrize("by", ["model", ("model", "deployment"), ("day", "minute")])
def test_the_dtypes_of_an_empty_frame_are_those_of_a_full_one(book, by):
    empty = lb.usage(by)
    assert len(empty) == 0
    book.billed("east", "gpt-4o", TOKENS, 0.5, at=ago())
    full = lb.usage(by)
    assert empty.dtypes.to_dict() == full.dtypes.to_dict()
    assert full["cost_usd"].dtype == "Float64"
    assert full["requests"].dtype == "int64"
    assert empty.index.names == full.index.names
    assert empty.reset_index().dtypes.to_dict() == full.reset_index().dtypes.to_dict()


@pytest.mark.parametrize(
    "since",
    ["2 hours", "2h", "P0DT2H", timedelta(hours=2), pd.Timedelta("2h"), np.timedelta64(2, "h"),
     lambda: ago(hours=2), lambda: ago(hours=2).astimezone(None).replace(tzinfo=None),
     lambda: pd.Timestamp(ago(hours=2)), lambda: ago(hours=2).isoformat(),
     lambda: ago(hours=2).strftime("%d %b %Y %H:%M:%S UTC"),
     lambda: np.datetime64(ago(hours=2).astimezone(None).replace(tzinfo=None))],
    ids=str,
)  # fmt: skip
def test_since_takes_what_pandas_takes(book, since):
    for hours in (0, 1, 3):
        book.billed("east", "gpt-4o", TOKENS, 0.5, at=ago(hours=hours))
    moment = since() if callable(since) else since
    assert lb.usage(since=moment)["requests"].tolist() == [2]


def test_since_a_naive_time_is_local_time(book, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        book.billed("east", "gpt-4o", TOKENS, 0.5, at=datetime(2026, 3, 1, 12, tzinfo=UTC))
        assert len(lb.usage(since="2026-03-01 20:59")) == 1
        assert len(lb.usage(since="2026-03-01 21:01")) == 0
        assert len(lb.usage(since=date(2026, 3, 1))) == 1
        assert len(lb.usage(since="2026")) == 1
        assert len(lb.usage(since="2026-03-01 12:01+00:00")) == 0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "since", ["yesterdays", "-2 hours", timedelta(-1), 3, pd.NaT, object(), "", "NaT", "1e99 days"]
)
def test_a_since_that_means_nothing_is_refused(since):
    with pytest.raises(lb.ConfigurationError, match="since="):
        lb.usage(since=since)


@pytest.mark.parametrize("by", ["week", (), ("model", "model"), ["model", "hour"]])
def test_unknown_levels_are_refused(by):
    with pytest.raises(lb.ConfigurationError, match="by="):
        lb.usage(by)


def test_runs_are_entered_once_and_what_they_save(book):
    engine = ScriptedGPT("ok", name="east")
    doubled = pd.concat([FRAME, FRAME])
    lb.set_price("scripted", lb.Price(1.0, 1.0))
    doubled.lbgpt.complete("{t}", engine=engine)
    cost = lb.last_run().cost_usd
    first = lb.usage("deployment").loc["east"]
    assert first["requests"] == 10
    assert first["cost_usd"] == pytest.approx(cost)
    assert first["saved_usd"] == pytest.approx(cost)
    assert cost > 0
    FRAME.lbgpt.complete("{t}", engine=engine)
    FRAME.lbgpt.complete("{t}", engine=engine)
    again = lb.usage("deployment").loc["east"]
    assert again["requests"] == 10
    assert again["saved_usd"] == pytest.approx(3 * cost)


def test_retry_failed_saves_nothing_twice(book):
    lb.set_price("scripted", lb.Price(1.0, 1.0))
    FRAME.lbgpt.complete("{t}", engine=ScriptedGPT("ok", name="east"))
    flaky = ScriptedGPT(["ok", lb.BadRequest("no", status=400)] + ["ok"] * 2, name="east")
    longer = pd.DataFrame({"t": [*FRAME["t"], "x", "y", "z"]})
    with pytest.warns(lb.RowErrorsWarning):
        longer.lbgpt.complete("{t}", engine=flaky)
    before = lb.usage().iloc[0]["saved_usd"]
    lb.last_run().retry_failed()
    assert lb.usage().iloc[0]["saved_usd"] == before


def test_a_call_that_failed_and_may_have_been_charged_is_estimated(book):
    lb.set_price("m", lb.Price(1.0, 1.0))
    refusal = lb.ContentFiltered("cut off", status=200, maybe_billed=True)
    with pytest.warns(lb.RowErrorsWarning):
        FRAME.head(1).lbgpt.complete("{t}", model="m", engine=ScriptedGPT(refusal, name="east"))
    line = lb.usage().loc[("m", "east")]
    assert line["requests"] == 1
    assert line["estimated_usd"] > 0
    assert line["cost_usd"] == 0
    assert lb.last_run().rows["maybe_billed"].all()


def test_set_price_prices_what_had_none():
    engine = ScriptedGPT("ok")
    FRAME.head(1).lbgpt.complete("{t}", engine=engine)
    assert lb.last_run().cost_usd is None
    lb.set_price("scripted", lb.Price(2.0, 4.0))
    assert lb.price_of("scripted").completion_usd_per_million == 4.0
    FRAME.tail(1).lbgpt.complete("{t}", engine=engine)
    assert lb.last_run().cost_usd > 0


def test_headroom_has_a_row_for_each_deployment():
    frame = lb.headroom()
    assert frame.index.name == "deployment"
    assert len(frame) == 0
    lb.configure(lb.ChatGPT("sk-test", name="east", limit_rpm=100))
    FRAME.head(3).lbgpt.complete("{t}", engine=(west := ScriptedGPT("ok", name="west")))
    full = lb.headroom()
    assert sorted(full.index) == ["east", "west"]
    assert full.dtypes.to_dict() == frame.dtypes.to_dict()
    assert full.loc["east", "requests"] == 100
    assert full["tokens"].isna().all()
    assert full["in_flight"].tolist() == [0, 0]
    assert full["blocked_until"].isna().all()
    del west


def test_headroom_counts_what_was_sent():
    engine = ScriptedGPT("ok", name="east", limit_rpm=100)
    FRAME.lbgpt.complete("{t}", engine=engine)
    assert lb.headroom().loc["east", "requests"] == 90


def test_headroom_lists_the_environments_engine_before_any_call(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    assert lb.headroom().index.tolist() == ["ChatGPT"]
    assert lb.headroom().index.tolist() == ["ChatGPT"]


def test_a_budget_bounds_the_calls_of_a_run_and_keeps_what_was_answered():
    engine = ScriptedGPT("ok")
    with pytest.raises(lb.BudgetExceeded, match="4 requests of 4 requests are spent") as caught:
        FRAME.lbgpt.complete("{t}", engine=engine, budget=lb.Budget(requests=4), max_parallel=3)
    assert len(engine.requests) == 4
    report = lb.last_run()
    assert report.result.notna().sum() == 4
    assert report.rows["status"].value_counts().to_dict() == {"ok": 4, "not_run": 6}
    assert any("4 of 10 rows" in note for note in caught.value.__notes__)
    report.budget.add(requests=6)
    assert report.retry_failed().tolist() == ["ok"] * 10
    assert len(engine.requests) == 10


def test_calls_in_flight_are_finished_before_the_budget_raises():
    engine = ScriptedGPT("ok", latency_s=0.02)
    engine.proven.add("scripted")
    with pytest.raises(lb.BudgetExceeded):
        FRAME.lbgpt.complete("{t}", engine=engine, budget=lb.Budget(requests=5))
    assert lb.last_run().result.notna().sum() == len(engine.requests) == 5


def test_nothing_new_is_started_once_the_budget_is_used_up():
    frame = pd.DataFrame({"t": ["short", "long " * 40_000, *"abcdef"]})
    engine = ScriptedGPT("ok")
    with pytest.raises(lb.BudgetExceeded):
        frame.lbgpt.complete(
            "{t}", engine=engine, budget=lb.Budget(tokens=1_000), max_tokens=50, max_parallel=2
        )
    assert len(engine.requests) == 1  # the small ones would have fitted


def test_null_gives_na_for_the_rows_that_do_not_fit():
    engine = ScriptedGPT("ok")
    budget = lb.Budget(requests=4, on_exceeded="null")
    with pytest.warns(lb.RowErrorsWarning, match="6 BudgetExceeded"):
        answers = FRAME.lbgpt.complete("{t}", engine=engine, budget=budget)
    assert answers.notna().sum() == len(engine.requests) == 4
    assert set(lb.last_run().errors["error_type"]) == {"BudgetExceeded"}
    assert lb.last_run().errors["attempts"].sum() == 0


def test_null_lets_smaller_rows_in():
    frame = pd.DataFrame({"t": ["short", "long " * 40_000, "brief"]})
    budget = lb.Budget(tokens=1_000, on_exceeded="null")
    engine = ScriptedGPT("ok")
    with pytest.warns(lb.RowErrorsWarning, match="1 BudgetExceeded"):
        answers = frame.lbgpt.complete("{t}", engine=engine, budget=budget, max_tokens=50)
    assert answers.isna().tolist() == [False, True, False]


def test_pause_waits_for_add_from_another_thread():
    engine = ScriptedGPT("ok")
    budget = lb.Budget(requests=4, on_exceeded="pause")

    def add_when_paused():
        while not budget.paused:
            time.sleep(0.001)
        budget.add(requests=6)

    thread = threading.Thread(target=add_when_paused)
    thread.start()
    answers = FRAME.lbgpt.complete("{t}", engine=engine, budget=budget)
    thread.join()
    assert answers.notna().all()
    assert budget.spent.requests == 10


async def test_a_paused_run_can_be_cancelled():
    engine = ScriptedGPT("ok")
    budget = lb.Budget(requests=4, on_exceeded="pause")
    run = asyncio.create_task(FRAME.lbgpt.acomplete("{t}", engine=engine, budget=budget))
    while not budget.paused:
        await asyncio.sleep(0.001)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert not budget.paused
    assert budget.reserved.requests == 0
    again = ScriptedGPT("again")
    FRAME.lbgpt.complete("{t}", engine=again)
    assert len(again.requests) == 6  # what was paid for is in the cache


@pytest.mark.parametrize("on_exceeded", ["raise", "null", "pause"])
def test_cached_rows_cost_nothing_and_are_served(on_exceeded):
    FRAME.head(9).lbgpt.complete("{t}", engine=ScriptedGPT("old"))
    budget = lb.Budget(requests=1, on_exceeded=on_exceeded)
    answers = FRAME.lbgpt.complete("{t}", engine=ScriptedGPT("new"), budget=budget)
    assert answers.tolist() == ["old"] * 9 + ["new"]
    assert budget.left.requests == 0


def test_cached_rows_are_served_with_nothing_left():
    FRAME.head(9).lbgpt.complete("{t}", engine=ScriptedGPT("old"))
    budget = lb.Budget(requests=1)
    budget.reserve(0.0, 0).commit(0.0, 0)
    with pytest.raises(lb.BudgetExceeded):
        FRAME.lbgpt.complete("{t}", engine=ScriptedGPT("new"), budget=budget)
    assert lb.last_run().result.tolist()[:9] == ["old"] * 9


def test_a_number_means_usd_at_list_price():
    lb.set_price("m", lb.Price(0.0, 1_000_000.0))
    lb.set_price("scripted", lb.Price(0.0, 1_000_000.0))
    engine = ScriptedGPT("one")  # the answer is a token
    with pytest.raises(lb.BudgetExceeded, match="USD"):
        FRAME.lbgpt.complete("{t}", model="m", engine=engine, budget=3, max_tokens=1)
    spent = lb.last_run().budget.spent.usd
    assert spent == pytest.approx(lb.last_run().cost_usd)
    assert spent <= 3
    assert 1 <= len(engine.requests) <= 3


def test_a_budget_in_usd_needs_a_price_before_the_first_call():
    engine = ScriptedGPT("ok")
    with pytest.raises(lb.ConfigurationError, match=r"'nobodys'.*set_price.*tokens="):
        FRAME.lbgpt.complete("{t}", model="nobodys", engine=engine, budget=3)
    assert engine.requests == []
    FRAME.lbgpt.complete("{t}", model="nobodys", engine=engine, budget=lb.Budget(tokens=10_000))


def test_refused_calls_cost_nothing():
    script = [lb.RateLimited("slow", status=429, retry_after=0.01)] * 3 + ["ok"]
    budget = lb.Budget(requests=1)
    answers = FRAME.head(1).lbgpt.complete("{t}", engine=ScriptedGPT(script), budget=budget)
    assert answers.tolist() == ["ok"]
    assert budget.spent.requests == 1


def test_calls_that_failed_count_as_requests():
    script = [lb.ServerError("boom", status=500)] * 2 + ["ok"]
    budget = lb.Budget(requests=5)
    FRAME.head(1).lbgpt.complete("{t}", engine=ScriptedGPT(script), budget=budget)
    assert budget.spent.requests == 3


def test_a_configured_budget_is_shared_by_all_runs_and_a_calls_own_comes_first():
    engine = ScriptedGPT("ok")
    lb.configure(engine, budget=lb.Budget(requests=12))
    FRAME.lbgpt.complete("a {t}")
    with pytest.raises(lb.BudgetExceeded):
        FRAME.lbgpt.complete("b {t}")
    assert lb.settings().budget.spent.requests == 12
    FRAME.lbgpt.complete("c {t}", budget=lb.Budget(requests=10))
    with lb.using(budget=None):
        FRAME.lbgpt.complete("d {t}")
    assert lb.settings().budget.spent.requests == 12
    with lb.using(budget=2.5) as inside:
        assert inside.budget.usd == 2.5


@pytest.mark.parametrize("budget", [0, -1, float("nan"), "5", True])
def test_budgets_that_cannot_work_are_refused_before_any_call(budget):
    engine = ScriptedGPT("ok")
    with pytest.raises(lb.ConfigurationError):
        FRAME.lbgpt.complete("{t}", engine=engine, budget=budget)
    with pytest.raises(lb.ConfigurationError):
        lb.configure(budget=budget)
    assert engine.requests == []
    assert lb.settings().budget is None
