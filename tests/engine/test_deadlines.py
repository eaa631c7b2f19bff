"""Time limits that share their timers: they end what is late, and nothing else."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from lbgpt_pandas.engine import deadlines as module
from lbgpt_pandas.engine.deadlines import Deadlines


@pytest.fixture
def shared(monkeypatch):
    """Limits that end with the loop's next hundredth of a second."""
    monkeypatch.setattr(module, "EXACT_S", 0.0)
    monkeypatch.setattr(module, "TICKS_A_SECOND", 100)
    return Deadlines()


async def test_what_is_late_is_ended_with_a_timeout(shared):
    with pytest.raises(TimeoutError):
        async with shared.after(0.01):
            await asyncio.Event().wait()
    assert asyncio.current_task().cancelling() == 0


async def test_none_ends_too_early(shared):
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        async with shared.after(0.015):
            await asyncio.Event().wait()
    assert loop.time() - began >= 0.015


async def test_what_is_in_time_is_left_alone(shared):
    async with shared.after(0.01):
        await asyncio.sleep(0)
    await asyncio.sleep(0.03)


async def test_errors_of_the_block_pass(shared):
    with pytest.raises(ValueError, match="own"):
        async with shared.after(1.0):
            raise ValueError("own")


async def test_somebody_elses_cancellation_passes(shared):
    async def work():
        async with shared.after(1.0):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_that_comes_with_the_end_of_time_wins(shared):
    async def work():
        async with shared.after(0.01):
            try:
                await asyncio.Event().wait()
            finally:
                task.cancel()

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timer_keeps_no_settings_alive(shared, monkeypatch):
    setting = ContextVar("setting")
    setting.set("the caller's")
    loop, contexts = asyncio.get_running_loop(), []
    set_up = loop.call_at
    monkeypatch.setattr(
        loop, "call_at", lambda *a, context: contexts.append(context) or set_up(*a, context=context)
    )
    async with shared.after(50.0):
        await asyncio.sleep(0)
    assert [context.get(setting) for context in contexts] == [None]


async def test_many_calls_share_a_timer(shared, monkeypatch):
    loop = asyncio.get_running_loop()
    timers = []
    set_up = loop.call_at
    monkeypatch.setattr(loop, "call_at", lambda *a, **k: timers.append(a) or set_up(*a, **k))

    async def work():
        with pytest.raises(TimeoutError):
            async with shared.after(0.02):
                await asyncio.Event().wait()

    await asyncio.gather(*(work() for _ in range(100)))
    assert len(timers) <= 2


@pytest.mark.parametrize("seconds", [None, 0.01])
async def test_short_limits_and_none_are_exact(seconds):
    assert isinstance(Deadlines().after(seconds), asyncio.Timeout)
