"""Equal requests under way at the same time make one call."""

from __future__ import annotations

import asyncio

import pytest

from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.errors import BudgetExceeded
from lbgpt_pandas.engine.flights import SingleFlight
from lbgpt_pandas.engine.types import Request
from lbgpt_pandas.testing import ScriptedGPT


class Work:
    """Counts its runs and ends when told to."""

    def __init__(self) -> None:
        self.runs = 0
        self.release = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.runs += 1
        await self.release.wait()
        if self.error:
            raise self.error
        return self.runs


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_500_equal_requests_make_one_call():
    flights, work = SingleFlight[int](), Work()
    tasks = [asyncio.create_task(flights.share("k", work)) for _ in range(500)]
    await settle()
    work.release.set()
    results = await asyncio.gather(*tasks)
    assert work.runs == 1
    assert {result for result, _ in results} == {1}
    assert sum(led for _, led in results) == 1


async def test_a_cancelled_leader_is_followed_by_the_next_waiter():
    flights, work = SingleFlight[int](), Work()
    leader, *waiters = [asyncio.create_task(flights.share("k", work)) for _ in range(3)]
    await settle()
    leader.cancel()
    await settle()
    work.release.set()
    assert sorted(await asyncio.gather(*waiters)) == [(2, False), (2, True)]
    assert leader.cancelled()
    assert work.runs == 2


async def test_who_waits_has_what_a_leader_was_given_before_it_was_cancelled():
    flights, storing = SingleFlight[int](), Work()

    async def work():
        await flights.finish("k", 7, storing())
        return 7

    leader, waiter = [asyncio.create_task(flights.share("k", work)) for _ in range(2)]
    await settle()
    leader.cancel()
    assert await waiter == (7, False)
    assert leader.cancelled()


async def test_an_answer_that_is_being_stored_is_not_asked_for_again_when_its_run_is_cancelled():
    class Slow(dict):
        release = asyncio.Event()

        async def aget(self, key):
            return self.get(key)

        async def aset(self, key, value):
            await self.release.wait()
            self[key] = value

    store = Slow()
    engine = ScriptedGPT("hi", cache=store)
    request = Request([{"role": "user", "content": "a"}], {"model": "m"})
    async with engine:
        runs = [Batch(engine, [request], caching=engine.caching()) for _ in range(2)]
        first, second = [asyncio.create_task(run.arun()) for run in runs]
        while not engine.requests:
            await asyncio.sleep(0)
        await settle()
        first.cancel()
        await settle()
        store.release.set()
        (outcome,) = await second
    assert outcome.completion.text == "hi"
    assert len(engine.requests) == len(store) == 1


async def test_a_failure_is_shared_and_not_repeated_for_each():
    flights, work = SingleFlight[int](), Work()
    work.error = ValueError("no")
    tasks = [asyncio.create_task(flights.share("k", work)) for _ in range(50)]
    await settle()
    work.release.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert work.runs == 1
    assert all(isinstance(result, ValueError) for result in results)


async def test_a_cancelled_waiter_leaves_the_leader_alone():
    flights, work = SingleFlight[int](), Work()
    leader, waiter = [asyncio.create_task(flights.share("k", work)) for _ in range(2)]
    await settle()
    waiter.cancel()
    work.release.set()
    assert await leader == (1, True)
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_a_key_is_free_again_afterwards():
    flights, work = SingleFlight[int](), Work()
    work.release.set()
    assert await flights.share("k", work) == (1, True)
    assert await flights.share("k", work) == (2, True)


async def test_if_the_leader_cannot_pay_the_next_one_takes_over():
    flights, work = SingleFlight[int](), Work()
    started = asyncio.Event()

    async def broke():
        await started.wait()
        raise BudgetExceeded("spent")

    leader = asyncio.create_task(flights.share("k", broke))
    await settle()
    waiter = asyncio.create_task(flights.share("k", work))
    await settle()
    work.release.set()
    started.set()
    with pytest.raises(BudgetExceeded):
        await leader
    assert await waiter == (1, True)
