"""A run that is paused, resumed and cancelled from outside, and what a view is told of it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.budget import Budget
from lbgpt_pandas.engine.caches.base import MemoryCache
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.caching import Caching
from lbgpt_pandas.engine.errors import BadRequest, RateLimited, RunAborted, ServerError
from lbgpt_pandas.engine.interrupts import DRAIN_S
from lbgpt_pandas.engine.states import BudgetState, Gauge
from lbgpt_pandas.engine.types import Request
from lbgpt_pandas.testing import ScriptedGPT


def ask(*texts):
    shared = {"model": "gpt-4o-mini"}
    return [Request([{"role": "user", "content": text}], shared) for text in texts]


def rows(number):
    return ask(*map(str, range(number)))


async def let(condition):
    while not condition():
        await asyncio.sleep(0)


async def idle():
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_paused_run_sends_nothing_and_goes_on_where_it_stood(clock):
    engine = ScriptedGPT(latency_s=1.0, max_parallel_calls=10, clock=clock)
    batch = Batch(engine, rows(100), clock=clock)
    run = asyncio.create_task(batch.arun())
    await let(lambda: batch.snapshot().done >= 20)
    batch.pause()
    await let(lambda: not engine.deployment.in_flight)
    await idle()
    sent = len(engine.requests)
    assert sent < 100
    assert batch.snapshot().paused
    await idle()
    assert len(engine.requests) == sent
    threading.Thread(target=batch.resume).start()
    outcomes = await run
    assert len(engine.requests) == 100
    assert all(outcome.completion for outcome in outcomes)
    assert not batch.snapshot().paused


async def test_a_run_that_waits_for_its_limits_sends_nothing_while_it_is_paused(clock):
    engine = ScriptedGPT(limit_rpm=10, limit_burst_s=60, max_parallel_calls=64, clock=clock)
    batch = Batch(engine, rows(30), clock=clock)
    run = asyncio.create_task(batch.arun())
    await let(lambda: batch.snapshot().done == 10)
    batch.pause()
    await clock.sleep(300.0)
    assert len(engine.requests) == 10
    batch.resume()
    await run
    assert len(engine.requests) == 30


async def test_a_paused_run_that_is_stopped_ends():
    batch = Batch(ScriptedGPT(), rows(3))
    batch.pause()
    run = asyncio.create_task(batch.arun())
    await idle()
    batch.stop()
    assert await run == [None] * 3


async def test_cancel_lets_answers_on_the_wire_arrive_and_says_what_to_do(clock):
    tier = StandardTier(MemoryCache())
    engine = ScriptedGPT(latency_s=DRAIN_S / 2, max_parallel_calls=10, clock=clock)
    batch = Batch(engine, rows(100), caching=Caching.of(tier, "use"), clock=clock)
    run = asyncio.create_task(batch.arun())
    await let(lambda: batch.snapshot().done >= 20)
    batch.cancel()
    with pytest.raises(RunAborted, match=r"cancelled.*retry_failed"):
        await run
    sent = len(engine.requests)
    assert sent < 100
    assert sum(outcome is not None for outcome in batch.outcomes) == sent
    assert batch.snapshot().stopped


async def test_cancel_leaves_what_does_not_arrive_soon(clock):
    engine = ScriptedGPT(latency_s=1_000.0, max_parallel_calls=10, clock=clock)
    batch = Batch(engine, rows(100), clock=clock)
    run = asyncio.create_task(batch.arun())
    await let(lambda: len(engine.requests) == 1)
    began = clock.monotonic()
    batch.cancel()
    with pytest.raises(RunAborted):
        await run
    assert clock.monotonic() - began < 2 * DRAIN_S
    assert engine.deployment.in_flight == 0


async def test_cancel_before_the_start_sends_nothing():
    engine = ScriptedGPT()
    batch = Batch(engine, rows(3))
    batch.cancel()
    with pytest.raises(RunAborted):
        await batch.arun()
    assert not engine.requests
    assert batch.snapshot().finished


async def test_cancel_after_the_end_changes_nothing():
    batch = Batch(ScriptedGPT(), rows(3))
    outcomes = await batch.arun()
    batch.cancel()
    assert batch.outcomes == outcomes


async def test_the_owner_of_the_task_still_cancels_it(clock):
    engine = ScriptedGPT(latency_s=1_000.0, clock=clock)
    run = asyncio.create_task(Batch(engine, rows(3), clock=clock).arun())
    await let(lambda: engine.requests)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


async def test_the_snapshot_says_who_answers_and_what_is_left_of_limits_and_budget(clock):
    engine = ScriptedGPT(limit_rpm=100, limit_burst_s=60, name="east", clock=clock)
    batch = Batch(engine, rows(40), budget=Budget(requests=50), clock=clock)
    await batch.arun()
    shot = batch.snapshot()
    (state,) = shot.deployments
    assert (state.name, state.health, state.answered) == ("east", "ready", 40)
    assert state.requests == Gauge(60.0, 100.0)
    assert state.tokens is None
    assert shot.budget == (BudgetState("requests", 40, 50),)


async def test_a_view_counts_only_the_calls_of_its_own_run():
    engine = ScriptedGPT()
    await Batch(engine, rows(5)).arun()
    batch = Batch(engine, rows(3))
    await batch.arun()
    assert batch.snapshot().deployments[0].answered == 3
    assert engine.deployment.state().answered == 8


async def test_refused_calls_are_counted_and_a_block_is_seen(clock):
    script = [RateLimited("slow", status=429, retry_after=7.0), "ok"]
    engine = ScriptedGPT(lambda _: script.pop(0), clock=clock)
    batch = Batch(engine, rows(1), clock=clock)
    run = asyncio.create_task(batch.arun())
    await let(lambda: batch.snapshot().refused)
    state = batch.snapshot().deployments[0]
    assert (state.health, state.refused) == ("blocked", 1)
    assert 0 < state.wait_s <= 8
    await run
    assert batch.snapshot().deployments[0].health == "ready"


async def test_a_deployment_that_rests_says_why(clock):
    engine = ScriptedGPT(lambda _: ServerError("down", status=503), clock=clock)
    run = asyncio.create_task(Batch(engine, rows(30), clock=clock).arun())
    await let(lambda: engine.deployment.breaker.state(clock.monotonic()) == "open")
    state = engine.deployment.state()
    assert (state.health, state.fault) == ("resting", "ServerError 503")
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


async def test_failures_are_counted_by_kind_with_one_example():
    answers = {"0": BadRequest("bad zero", status=400), "1": BadRequest("bad one", status=400)}
    engine = ScriptedGPT(lambda r: answers.get(r.messages[-1]["content"], "ok"))
    batch = Batch(engine, rows(4), rows_of=[1, 2, 1, 1])
    await batch.arun()
    (failures,) = batch.snapshot().failures
    assert (failures.kind, failures.rows) == ("BadRequest", 3)
    assert "bad" in failures.example


async def test_what_needed_no_call_is_counted_as_saved():
    tier = StandardTier(MemoryCache())
    engine = ScriptedGPT(lambda _: "ok", model="gpt-4o-mini")
    first = Batch(engine, rows(2), caching=Caching.of(tier, "use"), rows_of=[3, 1])
    await first.arun()
    billed, saved = first.snapshot().cost_usd, first.snapshot().saved_usd
    assert billed > 0
    assert saved == pytest.approx(billed)
    second = Batch(engine, rows(2), caching=Caching.of(tier, "use"), rows_of=[3, 1])
    await second.arun()
    assert second.snapshot().saved_usd == pytest.approx(2 * billed)
