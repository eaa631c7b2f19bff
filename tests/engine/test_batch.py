"""Runs over many requests: order, bounds, sharing, caching, stopping."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from lbgpt_pandas.engine.batch import LOOKUP_SIZE, Batch
from lbgpt_pandas.engine.caches.base import MemoryCache
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.caching import Caching
from lbgpt_pandas.engine.crew import SPARE_WORKERS
from lbgpt_pandas.engine.errors import (
    AuthError,
    BadRequest,
    ConfigurationError,
    ContentFiltered,
    ContextTooLong,
    InvalidInput,
    NotFound,
    QuotaExhausted,
    RunAborted,
    ServerError,
)
from lbgpt_pandas.engine.prospects import ABORT_AFTER
from lbgpt_pandas.engine.types import Request, Source
from lbgpt_pandas.testing import ScriptedGPT


def ask(*texts, **params):
    shared = {"model": "m", **params}
    return [Request([{"role": "user", "content": text}], shared) for text in texts]


def texts(outcomes):
    return [o.completion.text if o and o.completion else None for o in outcomes]


def last_text(request):
    return request.messages[-1]["content"]


def use(mode="use", tier=None):
    return Caching.of(tier or StandardTier(MemoryCache()), mode)


async def test_outcomes_stand_in_the_order_of_the_requests_whatever_finishes_first(clock):
    engine = ScriptedGPT(
        lambda r: f"answer {last_text(r)}",
        latency_s=lambda r: 100 - int(last_text(r)),
        clock=clock,
    )
    outcomes = await Batch(engine, ask(*map(str, range(100))), clock=clock).arun()
    assert texts(outcomes) == [f"answer {number}" for number in range(100)]


async def test_equal_requests_make_one_call_and_say_shared():
    engine = ScriptedGPT(lambda _: "same")
    outcomes = await Batch(engine, ask(*["q"] * 500)).arun()
    assert len(engine.requests) == 1
    assert texts(outcomes) == ["same"] * 500
    assert sorted({str(o.source) for o in outcomes}) == ["provider", "shared"]


async def test_tasks_and_calls_in_flight_are_bounded(clock):
    engine = ScriptedGPT(max_parallel_calls=8, latency_s=1.0, clock=clock)
    engine.proven.add("m")
    batch = Batch(engine, ask(*map(str, range(1_000))), clock=clock)
    peak = 0

    async def watch():
        nonlocal peak
        while not batch.snapshot().finished:
            peak = max(peak, len(asyncio.all_tasks()))
            await clock.sleep(0.1)

    watcher = asyncio.create_task(watch())
    await batch.arun()
    await watcher
    assert engine.in_flight_peak == 8
    assert peak <= 8 + SPARE_WORKERS + 3


async def test_max_parallel_caps_one_run(clock):
    engine = ScriptedGPT(max_parallel_calls=64, latency_s=1.0, clock=clock)
    await Batch(engine, ask(*map(str, range(50))), max_parallel=3, clock=clock).arun()
    assert engine.in_flight_peak == 3


async def test_a_second_run_asks_nothing_and_opens_no_client():
    caching = use()
    first = ScriptedGPT(lambda r: last_text(r).upper())
    await Batch(first, ask("a", "b"), caching=caching).arun()
    second = ScriptedGPT(lambda _: "never")
    outcomes = await Batch(second, ask("b", "a"), caching=caching).arun()
    assert texts(outcomes) == ["B", "A"]
    assert second.requests == []
    assert {o.source for o in outcomes} == {Source.EXACT_CACHE}
    assert all(o.attempts == 0 for o in outcomes)


@pytest.mark.parametrize(
    ("mode", "asked_again", "stored"),
    [("use", 0, "old"), ("read_only", 0, "old"), ("refresh", 1, "new"), ("off", 1, "old")],
)
async def test_cache_modes(mode, asked_again, stored):
    tier = StandardTier(MemoryCache())
    await Batch(ScriptedGPT("old"), ask("q"), caching=use(tier=tier)).arun()
    engine = ScriptedGPT("new")
    outcomes = await Batch(engine, ask("q"), caching=use(mode, tier)).arun()
    assert len(engine.requests) == asked_again
    assert texts(outcomes) == ["new" if asked_again else "old"]
    after = await Batch(ScriptedGPT("none"), ask("q"), caching=use("read_only", tier)).arun()
    assert texts(after) == [stored]


async def test_read_only_stores_nothing():
    tier = StandardTier(MemoryCache())
    for _ in range(2):
        engine = ScriptedGPT("x")
        await Batch(engine, ask("q"), caching=use("read_only", tier)).arun()
        assert len(engine.requests) == 1


def test_unknown_modes_are_refused():
    with pytest.raises(ConfigurationError, match="not known"):
        Caching.of(None, "usee")


async def test_failures_are_not_cached():
    tier = StandardTier(MemoryCache())
    script = [BadRequest("no", status=400), "yes"]
    engine = ScriptedGPT(script)
    for expected in ([None], ["yes"]):
        outcomes = await Batch(engine, ask("q"), caching=use(tier=tier)).arun()
        assert texts(outcomes) == expected


async def test_a_wrong_key_costs_one_call():
    engine = ScriptedGPT(AuthError_for_all)
    with pytest.raises(AuthError):
        await Batch(engine, ask(*map(str, range(100)))).arun()
    assert len(engine.requests) == 1


def AuthError_for_all(_request):  # noqa: N802
    return AuthError("key refused", status=401)


async def test_one_unknown_model_among_several_fails_its_row_alone():
    def reply(request):
        if request.params["model"] == "none":
            return NotFound("no such model", status=404)
        return "ok"

    requests = [*ask("a"), *ask("b", model="none"), *ask("c")]
    outcomes = await Batch(ScriptedGPT(reply), requests).arun()
    assert texts(outcomes) == ["ok", None, "ok"]


async def test_spent_credit_stops_the_run_and_keeps_what_is_done():
    tier = StandardTier(MemoryCache())

    def reply(request):
        if int(last_text(request)) < 30:
            return "paid"
        return QuotaExhausted("no credit", status=429, code="insufficient_quota")

    engine = ScriptedGPT(reply, max_parallel_calls=4)
    batch = Batch(engine, ask(*map(str, range(1_000))), caching=use(tier=tier), max_parallel=4)
    with pytest.raises(RunAborted, match="no credit") as caught:
        await batch.arun()
    assert isinstance(caught.value.__cause__, QuotaExhausted)
    assert len(engine.requests) <= 30 + 4
    assert texts(batch.outcomes)[:30] == ["paid"] * 30
    again = await Batch(ScriptedGPT("x"), ask("0"), caching=use("read_only", tier)).arun()
    assert texts(again) == ["paid"]


async def test_a_template_that_every_row_shares_the_failure_of_stops_the_run():
    engine = ScriptedGPT(lambda _: BadRequest("bad tool", status=400, code="invalid"))
    with pytest.raises(RunAborted):
        await Batch(engine, ask(*map(str, range(1_000))), max_parallel=4).arun()
    assert ABORT_AFTER <= len(engine.requests) <= ABORT_AFTER + 4


async def test_different_failures_do_not_stop_the_run():
    def reply(request):
        return BadRequest("no", status=400, code=str(int(last_text(request)) % 2))

    engine = ScriptedGPT(reply)
    outcomes = await Batch(engine, ask(*map(str, range(60)))).arun()
    assert len(engine.requests) == 60
    assert all(o.error for o in outcomes)


async def test_stop_on_error_starts_nothing_new():
    def reply(request):
        return BadRequest("no", status=400) if last_text(request) == "5" else "ok"

    engine = ScriptedGPT(reply)
    batch = Batch(engine, ask(*map(str, range(100))), max_parallel=1, stop_on_error=True)
    outcomes = await batch.arun()
    assert texts(outcomes[:6]) == ["ok"] * 5 + [None]
    assert outcomes[6:] == [None] * 94


async def test_after_a_stop_nothing_more_is_sent(clock):
    engine = ScriptedGPT(latency_s=1.0, max_parallel_calls=4, clock=clock)
    engine.proven.add("m")
    batch = Batch(engine, ask(*map(str, range(200))), clock=clock)
    run = asyncio.create_task(batch.arun())
    while batch.snapshot().done < 20:
        await asyncio.sleep(0)
    sent = len(engine.requests)
    batch.stop()
    outcomes = await run
    assert len(engine.requests) == sent
    assert sum(outcome is not None for outcome in outcomes) == sent


async def test_a_stopped_run_hands_a_shared_request_to_the_other_run(clock):
    engine = ScriptedGPT(latency_s=1.0, max_parallel_calls=1, clock=clock)
    engine.proven.add("m")
    one = Batch(engine, ask("first", "shared"), clock=clock)
    two = Batch(engine, ask("shared"), clock=clock)
    runs = [asyncio.create_task(batch.arun()) for batch in (one, two)]
    while not engine.requests:
        await asyncio.sleep(0)
    one.stop()
    first, second = await asyncio.gather(*runs)
    assert [outcome is not None for outcome in first] == [True, False]
    assert second[0].completion is not None


async def test_a_request_without_a_key_fails_alone_and_makes_no_call():
    engine = ScriptedGPT("ok")
    outcomes = await Batch(engine, ask("a", "lone \ud800", "c")).arun()
    assert texts(outcomes) == ["ok", None, "ok"]
    assert isinstance(outcomes[1].error, InvalidInput)
    assert len(engine.requests) == 2


async def test_a_cancelled_run_keeps_what_is_finished(clock):
    tier = StandardTier(MemoryCache())
    engine = ScriptedGPT(latency_s=1.0, max_parallel_calls=10, clock=clock)
    batch = Batch(engine, ask(*map(str, range(100))), caching=use(tier=tier), clock=clock)
    run = asyncio.create_task(batch.arun())
    while batch.snapshot().done < 30:
        await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    done = [number for number, outcome in enumerate(batch.outcomes) if outcome]
    assert 30 <= len(done) < 60
    found = await Batch(
        ScriptedGPT("x"), [batch.requests[number] for number in done], caching=use(tier=tier)
    ).arun()
    assert {o.source for o in found} == {Source.EXACT_CACHE}
    assert batch.snapshot().in_flight == 0


async def test_the_snapshot_counts_rows_and_money():
    engine = ScriptedGPT(lambda r: ServerError("x") if last_text(r) == "b" else "ok",
                         stop_after_attempts=1)  # fmt: skip
    batch = Batch(
        engine,
        ask("a", "b", "c"),
        rows_of=[3, 2, 1],
        broken=[InvalidInput("no text")] * 4,
        skipped=5,
        caching=use(),
    )
    await batch.arun()
    shot = batch.snapshot()
    assert (shot.rows, shot.done, shot.failed, shot.skipped) == (15, 4, 2 + 4, 5)
    assert (shot.shared, shot.cached, shot.settled, shot.finished) == (2, 0, 15, True)
    assert shot.prompt_tokens > 0


async def test_earlier_outcomes_are_kept_and_not_asked():
    flaky = ScriptedGPT(lambda r: BadRequest("x", status=400) if last_text(r) == "b" else "one")
    first = Batch(flaky, ask("a", "b", "c"))
    await first.arun()
    engine = ScriptedGPT("two")
    second = Batch(engine, first.requests, earlier=first.outcomes)
    assert texts(await second.arun()) == ["one", "two", "one"]
    assert [last_text(request) for request in engine.requests] == ["b"]


async def test_a_defect_in_the_engine_is_raised_not_swallowed():
    def reply(_):
        raise ZeroDivisionError("a bug in the script")

    with pytest.raises(ZeroDivisionError):
        await Batch(ScriptedGPT(reply), ask("a", "b")).arun()


async def test_an_empty_run_does_nothing():
    assert await Batch(ScriptedGPT("x"), []).arun() == []


async def test_equal_requests_fail_once_not_once_each():
    engine = ScriptedGPT(lambda r: BadRequest("no", status=400) if last_text(r) == "bad" else "ok")
    outcomes = await Batch(engine, ask(*["bad"] * 40, *map(str, range(100)))).arun()
    assert len(engine.requests) == 101
    assert texts(outcomes)[40:] == ["ok"] * 100


@pytest.mark.parametrize("kind", [ContentFiltered, ContextTooLong])
async def test_failures_of_the_row_itself_never_stop_the_run(kind):
    engine = ScriptedGPT(lambda r: kind("no", status=400) if int(last_text(r)) < 40 else "ok")
    outcomes = await Batch(engine, ask(*map(str, range(60)))).arun()
    assert texts(outcomes)[40:] == ["ok"] * 20


async def test_a_failure_of_another_kind_in_between_keeps_the_run_going():
    def reply(request):
        if last_text(request) == "3":
            return ServerError("down", status=500)
        return BadRequest("no", status=400)

    engine = ScriptedGPT(reply, stop_after_attempts=1)
    await Batch(engine, ask(*map(str, range(60))), max_parallel=1).arun()
    assert len(engine.requests) == 60


async def test_a_new_model_is_tried_with_one_call_first():
    def reply(request):
        if request.params["model"] == "none":
            return NotFound("no such model", status=404)
        return "ok"

    engine = ScriptedGPT(reply)
    await Batch(engine, ask(*map(str, range(5)))).arun()
    with pytest.raises(NotFound):
        await Batch(engine, ask(*map(str, range(100)), model="none")).arun()
    assert len(engine.requests) == 6


async def test_a_stop_does_not_wait_for_rows_that_wait_to_be_retried(clock):
    def reply(request):
        if last_text(request) == "wait":
            return ServerError("later", status=503, retry_after=600.0)
        return QuotaExhausted("no credit", status=429)

    engine = ScriptedGPT(reply, clock=clock)
    engine.proven.add("m")
    began = clock.monotonic()
    with pytest.raises(RunAborted):
        await Batch(engine, ask("wait", "spent"), clock=clock).arun()
    assert clock.monotonic() - began < 5
    assert len(engine.requests) == 2


async def test_a_run_that_joins_a_call_of_another_stores_it_under_its_own_rules(clock):
    engine = ScriptedGPT("paid", latency_s=1.0, clock=clock)
    engine.proven.add("m")
    tier = StandardTier(MemoryCache())
    off = Batch(engine, ask("q"), clock=clock)
    on = Batch(engine, ask("q"), caching=use(tier=tier), clock=clock)
    await asyncio.gather(off.arun(), on.arun())
    assert len(engine.requests) == 1
    assert len(await tier.find([on.outcomes[0].key])) == 1


async def test_a_stored_answer_that_is_none_is_asked_again():
    tier = StandardTier(MemoryCache())
    first = Batch(ScriptedGPT("old"), ask("q"), caching=use(tier=tier))
    (outcome,) = await first.arun()
    await tier.save(outcome.key, family="f", model="m", payload={"choices": []}, replace=True)
    engine = ScriptedGPT("new")
    assert texts(await Batch(engine, ask("q"), caching=use(tier=tier)).arun()) == ["new"]


class Passing(Sequence):
    """Makes each request when it is asked for, as a frame's requests are made."""

    messages, options = ask("q")[0].messages, {}

    def __len__(self):
        return 50

    def __getitem__(self, number):
        return Request(self.messages, {"model": "m", "seed": number}, self.options)


async def test_parameters_that_live_for_a_moment_have_keys_of_their_own():
    engine = ScriptedGPT(lambda request: str(request.params["seed"]))
    outcomes = await Batch(engine, Passing()).arun()
    assert len({outcome.key for outcome in outcomes}) == 50
    assert texts(outcomes) == [str(number) for number in range(50)]


async def test_runs_that_meet_from_both_ends_make_each_call_once(clock):
    tier = StandardTier(MemoryCache())
    engine = ScriptedGPT(latency_s=1.0, max_parallel_calls=4, clock=clock)
    requests = ask(*map(str, range(400)))
    batches = [
        Batch(engine, some, caching=use(tier=tier), clock=clock)
        for some in (requests, requests[::-1])
    ]
    outcomes = await asyncio.gather(*(batch.arun() for batch in batches))
    assert len(engine.requests) == 400
    assert texts(outcomes[0]) == texts(outcomes[1][::-1])
    late = [outcome for batch in outcomes for outcome in batch if outcome.source == "exact_cache"]
    assert late
    assert not any(outcome.attempts for outcome in late)
    assert not tier.is_news(batches[0].keys[0])


async def test_what_another_run_stored_meanwhile_is_asked_all_the_same_where_nothing_is_read(clock):
    tier = StandardTier(MemoryCache())
    engine = ScriptedGPT(latency_s=1.0, max_parallel_calls=1, clock=clock)
    requests = ask(*map(str, range(200)))
    batches = [
        Batch(engine, some, caching=use("refresh", tier=tier), clock=clock)
        for some in (requests, requests[::-1])
    ]
    await asyncio.gather(*(batch.arun() for batch in batches))
    assert len(engine.requests) > 200


class Stumbling(MemoryCache):
    """Fails one read of many."""

    def __init__(self, *, fails_at):
        super().__init__()
        self.reads, self.fails_at = 0, fails_at

    async def get_many(self, keys):
        self.reads += 1
        if self.reads == self.fails_at:
            raise OSError("for a moment")
        return await super().get_many(keys)


async def test_what_could_not_be_read_for_a_moment_is_not_paid_again(clock):
    store = Stumbling(fails_at=0)
    requests = ask(*map(str, range(5 * LOOKUP_SIZE)))
    await Batch(ScriptedGPT(), requests, caching=use(tier=StandardTier(store))).arun()
    store.reads, store.fails_at = 0, 2
    engine = ScriptedGPT()
    tier = StandardTier(store, clock=clock)
    outcomes = await Batch(engine, requests, caching=use(tier=tier), clock=clock).arun()
    assert {outcome.source for outcome in outcomes} == {Source.EXACT_CACHE}
    assert not engine.requests


async def test_a_run_that_asks_nobody_writes_what_an_earlier_one_could_not(clock):
    class Locked(MemoryCache):
        is_locked = True

        async def set(self, key, value, *, replace=False):
            if self.is_locked:
                raise OSError("locked")
            await super().set(key, value, replace=replace)

    store = Locked()
    tier = StandardTier(store, clock=clock)
    await Batch(ScriptedGPT(), ask("a", "b"), caching=use(tier=tier), clock=clock).arun()
    store.is_locked = False
    outcomes = await Batch(ScriptedGPT(), ask("a", "b"), caching=use(tier=tier), clock=clock).arun()
    assert {outcome.source for outcome in outcomes} == {Source.EXACT_CACHE}
    keys = [outcome.key for outcome in outcomes]
    assert set(await store.get_many(keys)) == set(keys)
