"""What a call has set aside of a budget is given back or spent, however the call ends."""

from __future__ import annotations

import asyncio

import pytest

from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.budget import Budget
from lbgpt_pandas.engine.types import Request
from lbgpt_pandas.testing import ScriptedGPT


class Held:
    """An engine with one place whose calls are not answered."""

    def __init__(self):
        self.never = asyncio.Event()
        self.engine = ScriptedGPT(self.answer, max_parallel_calls=1, auto_cache=False)
        self.budget = Budget(requests=5)

    async def answer(self, request):
        await self.never.wait()

    def begin(self, text, *, budget=None):
        request = Request([{"role": "user", "content": text}], {"model": "m"})
        batch = Batch(self.engine, [request], budget=budget)
        return batch, asyncio.create_task(batch.arun())

    async def until_sent(self):
        while not self.engine.requests:
            await asyncio.sleep(0)


async def test_a_call_that_never_had_a_place_gives_back_what_was_set_aside():
    held = Held()
    _, before = held.begin("first")
    await held.until_sent()
    batch, waiting = held.begin("second", budget=held.budget)
    while not held.budget.reserved.requests:
        await asyncio.sleep(0)
    batch.stop()
    assert await asyncio.wait_for(waiting, 2) == [None]
    assert held.budget.reserved.requests == held.budget.spent.requests == 0
    before.cancel()
    with pytest.raises(asyncio.CancelledError):
        await before


async def test_a_call_that_was_sent_and_left_is_spent():
    held = Held()
    _, running = held.begin("first", budget=held.budget)
    await held.until_sent()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert held.budget.reserved.requests == 0
    assert held.budget.spent.requests == 1
