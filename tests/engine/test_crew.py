"""Rows that wait for something else hold up nobody, though there is one worker a call."""

from __future__ import annotations

import asyncio

import pytest

from lbgpt_pandas.engine import lanes, run_state
from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.caches.base import MemoryCache
from lbgpt_pandas.engine.caches.disk import DiskCache
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.caching import Caching
from lbgpt_pandas.engine.crew import SPARE_WORKERS
from lbgpt_pandas.engine.errors import AuthError, ServerError
from lbgpt_pandas.engine.run_state import ROWS_A_TURN
from lbgpt_pandas.engine.types import Request
from lbgpt_pandas.testing import FakeClock, ScriptedGPT


def ask(number):
    return [Request([{"role": "user", "content": str(n)}], {"model": "m"}) for n in range(number)]


def last_text(request):
    return request.messages[-1]["content"]


async def test_others_go_on_while_a_row_waits_for_its_retry(clock):
    answered = []

    def answer(request):
        text = last_text(request)
        answered.append(text)
        if text == "0" and answered.count("0") == 1:
            raise ServerError("for now", status=503)
        return text

    engine = ScriptedGPT(answer, max_parallel_calls=1, latency_s=0.001, clock=clock)
    engine.proven.add("m")
    outcomes = await Batch(engine, ask(20), clock=clock).arun()
    assert [o.completion.text for o in outcomes] == [str(n) for n in range(20)]
    assert answered[:2] == ["0", "1"]
    assert engine.in_flight_peak == 1


class SlowCache(MemoryCache):
    """A store that takes a second for an answer."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    async def set(self, key, value, *, replace=False):
        await self.clock.sleep(1.0)
        await super().set(key, value, replace=replace)


async def test_others_go_on_while_a_row_is_stored(clock):
    engine = ScriptedGPT(last_text, max_parallel_calls=2, latency_s=0.01, clock=clock)
    engine.proven.add("m")
    caching = Caching.of(StandardTier(SlowCache(clock), clock=clock), "use")
    began = clock.monotonic()
    await Batch(engine, ask(60), caching=caching, clock=clock).arun()
    # One after the other it would take half a minute.
    assert clock.monotonic() - began < 3.0


async def most_tasks(clock, caching):
    engine = ScriptedGPT(last_text, max_parallel_calls=4, latency_s=0.01, clock=clock)
    engine.proven.add("m")
    most = 0

    batch = Batch(engine, ask(300), caching=caching, clock=clock)

    async def look():
        nonlocal most
        while not batch.snapshot().finished:
            most = max(most, len(asyncio.all_tasks()))
            await clock.sleep(0.002)

    looking = asyncio.create_task(look())
    await batch.arun()
    await looking
    return most


async def test_there_are_no_more_workers_than_calls_while_nobody_waits(clock):
    # Beside them this test, and who looks.
    assert await most_tasks(clock, Caching()) == 4 + 2


async def test_those_who_stand_in_are_bounded(clock):
    caching = Caching.of(StandardTier(SlowCache(clock), clock=clock), "use")
    assert await most_tasks(clock, caching) == 4 + SPARE_WORKERS + 2


async def test_a_failing_worker_leaves_no_one_behind(clock):
    engine = ScriptedGPT(last_text, max_parallel_calls=2, latency_s=0.01, clock=clock)
    engine.proven.add("m")
    caching = Caching.of(StandardTier(SlowCache(clock), clock=clock), "use")
    batch = Batch(engine, ask(50), caching=caching, clock=clock)
    defect = RuntimeError("a defect")

    def fail(_request):
        raise defect

    engine.prepare = lambda request: fail(request) if last_text(request) == "9" else request
    before = asyncio.all_tasks()
    try:
        await batch.arun()
    except RuntimeError as error:
        assert error is defect  # noqa: PT017  # whichever it was, nobody is left
    assert asyncio.all_tasks() == before


async def test_others_on_the_loop_have_their_turn_while_answers_come_at_once(tmp_path):
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    tier = StandardTier(DiskCache(tmp_path / "cache"))
    engine = ScriptedGPT(last_text)
    engine.proven.add("m")
    await Batch(engine, ask(1_000), caching=Caching.of(tier, "use")).arun()
    counting.cancel()
    assert turns >= 1_000 / ROWS_A_TURN


class Cautious(ScriptedGPT):
    """Begins as engines do whose limits are unknown, and answers when it is let."""

    slow_start = 8

    def __init__(self, reply, **settings):
        super().__init__(reply, latency_s=30.0, clock=FakeClock(auto_advance=False), **settings)

    async def let_answer(self, run):
        while not run.done():
            self.clock.advance(30.0)
            await asyncio.sleep(0)


@pytest.fixture
def short_silence(monkeypatch):
    monkeypatch.setattr(lanes, "SILENCE_S", 0.005)
    monkeypatch.setattr(run_state, "SILENCE_S", 0.005)


@pytest.mark.usefixtures("short_silence")
async def test_slow_answers_are_not_waited_for_before_more_is_asked():
    engine = Cautious("ok")
    run = asyncio.create_task(Batch(engine, ask(100)).arun())
    async with asyncio.timeout(5):
        while engine.in_flight_peak < engine.max_parallel_calls:
            await asyncio.sleep(0.002)
        await engine.let_answer(run)
    assert [outcome.completion.text for outcome in run.result()] == ["ok"] * 100


async def test_until_then_there_is_one_call_and_few_after_it():
    engine = Cautious("ok")
    run = asyncio.create_task(Batch(engine, ask(100)).arun())
    for _ in range(100):
        await asyncio.sleep(0)
    assert engine.in_flight_peak == 1
    engine.clock.advance(30.0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert engine.in_flight_peak == Cautious.slow_start
    await engine.let_answer(run)


@pytest.mark.usefixtures("short_silence")
async def test_a_wrong_key_that_is_told_late_ends_the_run_all_the_same():
    engine = Cautious(AuthError("wrong key", status=401))
    run = asyncio.create_task(Batch(engine, ask(1_000)).arun())
    await asyncio.sleep(0.03)
    await engine.let_answer(asyncio.ensure_future(asyncio.wait({run})))
    with pytest.raises(AuthError):
        await run
    assert len(engine.requests) <= engine.max_parallel_calls


@pytest.mark.usefixtures("short_silence")
async def test_silence_leaves_no_timer_behind():
    engine = Cautious("ok")
    async with engine:
        run = asyncio.create_task(Batch(engine, ask(1)).arun())
        await asyncio.sleep(0.02)  # twice: what is not used is not opened further
        assert engine.deployment.cap == Cautious.slow_start
        await engine.let_answer(run)
