"""The book of calls: three ledgers, by minute, deployment and model."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine.accounts import MOST_MINUTES, UsageBook
from lbgpt_pandas.engine.errors import BadRequest
from lbgpt_pandas.engine.types import Completion, Outcome, Source, TokenCount

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
TOKENS = TokenCount(prompt=10, completion=4, cached=6)


@pytest.fixture
def book():
    return UsageBook()


def test_the_three_ledgers_are_kept_apart(book):
    book.billed("azure", "gpt-4o", TOKENS, 0.5, at=NOON)
    book.billed("azure", "gpt-4o", TOKENS, 0.5, at=NOON)
    book.saved("azure", "gpt-4o", TOKENS, 0.25, at=NOON, times=3)
    book.estimated("azure", "gpt-4o", TokenCount(7, 5, estimated=True), 0.125, at=NOON)
    (row,) = book.rows()
    assert (row.minute, row.deployment, row.model) == (NOON, "azure", "gpt-4o")
    billed, saved, estimated = row.billed, row.saved, row.estimated
    assert (billed.requests, billed.prompt, billed.completion, billed.cached) == (2, 20, 8, 12)
    assert (saved.requests, saved.prompt, saved.completion, saved.cached) == (3, 30, 12, 18)
    assert (estimated.requests, estimated.prompt, estimated.completion) == (1, 7, 5)
    assert (billed.usd, saved.usd, estimated.usd) == (1.0, 0.75, 0.125)


@pytest.mark.parametrize(
    ("source", "deployment", "rows", "booked"),
    [(Source.PROVIDER, "azure", 1, []), (Source.PROVIDER, "azure", 3, [("azure", 2, 1.0)]),
     (Source.EXACT_CACHE, "", 3, [("mine", 3, 1.5)]), (Source.SHARED, "azure", 1, [("azure", 1, 0.5)])],
)  # fmt: skip
def test_rows_without_a_call_of_their_own_save(book, source, deployment, rows, booked):
    answer = Completion(None, "text", "stop", "m", TOKENS, deployment)
    book.spared([(Outcome(answer, None, source, "k", price_usd=0.5), rows)], engine="mine", at=NOON)
    book.spared([(Outcome(None, BadRequest("no"), source, "k"), rows)], engine="mine", at=NOON)
    found = [(row.deployment, row.saved.requests, row.saved.usd) for row in book.rows()]
    assert found == booked


def test_minutes_deployments_and_models_are_told_apart_in_order(book):
    entries = [("b", "m", 1), ("a", "n", 0), ("a", "m", 0), ("a", "m", 0)]
    for deployment, model, minute in entries:
        at = NOON + timedelta(minutes=minute, seconds=59.9)
        book.billed(deployment, model, TOKENS, 1.0, at=at)
    found = [(row.minute, row.deployment, row.model, row.billed.requests) for row in book.rows()]
    later = NOON + timedelta(minutes=1)
    assert found == [(NOON, "a", "m", 2), (NOON, "a", "n", 1), (later, "b", "m", 1)]


def test_one_unknown_price_makes_the_sum_unknown_in_its_ledger_only(book):
    book.billed("a", "m", TOKENS, 1.0, at=NOON)
    book.billed("a", "m", TOKENS, None, at=NOON)
    book.saved("a", "m", TOKENS, 1.0, at=NOON)
    (row,) = book.rows()
    assert row.billed.usd is None
    assert row.billed.requests == 2
    assert (row.saved.usd, row.estimated.usd) == (1.0, 0.0)


@pytest.mark.parametrize(("cached", "counted"), [(-3, 0), (0, 0), (10, 10), (99, 10)])
def test_cached_tokens_are_a_part_of_the_prompt(book, cached, counted):
    book.billed("a", "m", TokenCount(10, 1, cached=cached), 1.0, at=NOON)
    assert book.rows()[0].billed.cached == counted


def test_since_gives_the_minute_it_falls_into_whole(book):
    for minute in range(3):
        book.billed("a", "m", TOKENS, 1.0, at=NOON + timedelta(minutes=minute, seconds=5))
    since = NOON + timedelta(minutes=1, seconds=30)
    assert [row.minute.minute for row in book.rows(since)] == [1, 2]
    assert book.rows(NOON + timedelta(days=1)) == []


def test_what_is_handed_out_does_not_change_afterwards(book):
    book.billed("a", "m", TOKENS, 1.0, at=NOON)
    (row,) = book.rows()
    book.billed("a", "m", TOKENS, 1.0, at=NOON)
    assert row.billed.requests == 1


def test_the_book_of_a_long_life_keeps_old_days_by_the_hour(book):
    last = NOON
    for minute in range(2 * MOST_MINUTES):
        last = NOON + timedelta(minutes=minute)
        book.billed("a", "m", TOKENS, 0.5, at=last)
    rows = book.rows()
    assert len(rows) <= MOST_MINUTES + 24 * 60
    assert sum(row.billed.requests for row in rows) == 2 * MOST_MINUTES
    assert sum(row.billed.usd for row in rows) == MOST_MINUTES
    assert {row.minute.minute for row in rows[:50]} == {0}
    recent = [row for row in rows if row.minute > last - timedelta(hours=23)]
    assert all(row.billed.requests == 1 for row in recent)


def test_threads_lose_nothing(book):
    def work():
        for _ in range(2_000):
            book.billed("a", "m", TOKENS, 0.5, at=NOON)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (row,) = book.rows()
    assert (row.billed.requests, row.billed.usd) == (8_000, 4_000.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_while_the_book_is_being_written_leaves_the_child_a_free_lock(book):
    with book._lock:
        child = os.fork()
        if not child:
            book.billed("a", "m", TOKENS, 1.0, at=NOON)
            os._exit(len(book.rows()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


entry = st.tuples(
    st.sampled_from(["billed", "saved", "estimated"]),
    st.sampled_from(["a", "b"]),
    st.integers(0, 3),
    st.none() | st.integers(0, 1_000),
)


@given(st.lists(entry))
def test_the_rows_add_up_to_what_was_entered(entries):
    book = UsageBook()
    for kind, deployment, minute, usd in entries:
        at = NOON + timedelta(minutes=minute)
        getattr(book, kind)(deployment, "m", TOKENS, usd, at=at)
    rows = book.rows()
    for kind in ("billed", "saved", "estimated"):
        prices = [usd for each, *_, usd in entries if each == kind]
        ledgers = [getattr(row, kind) for row in rows]
        assert sum(ledger.requests for ledger in ledgers) == len(prices)
        assert sum(ledger.unpriced for ledger in ledgers) == prices.count(None)
        assert sum(ledger.priced_usd for ledger in ledgers) == sum(filter(None, prices))
