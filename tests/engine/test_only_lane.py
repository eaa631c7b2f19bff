"""The only deployment of an engine is taken on a short way, by the rules of the long one."""

from __future__ import annotations

import asyncio

import pytest

from lbgpt_pandas.engine import errors
from lbgpt_pandas.engine.lanes import Lane, Place, Ticket
from lbgpt_pandas.engine.limits.estimate import TokenEstimator
from lbgpt_pandas.engine.run_state import RunState
from lbgpt_pandas.engine.scheduler import Scheduler
from lbgpt_pandas.engine.types import Request, TokenCount
from lbgpt_pandas.testing import FakeClock, ScriptedGPT


class Cautious(ScriptedGPT):
    """Makes one call until the first is answered."""

    slow_start = 2


def ticket(order=0, *, model="m", run=None, **about):
    request = Request([{"role": "user", "content": "hi"}], {"model": model})
    return Ticket(order=order, request=request, run=run or RunState(), **about)


def scheduler_of(engine, *, places=64):
    lane = Lane(engine.deployment, engine._new_transport())
    return Scheduler([lane], engine.choose, clock=engine.clock, places=places)


@pytest.mark.parametrize(
    ("engine", "places"), [(ScriptedGPT, 1), (Cautious, 64)], ids=["engine", "deployment"]
)
async def test_no_more_are_sent_than_there_are_places(engine, places):
    scheduler = scheduler_of(engine(clock=FakeClock()), places=places)
    first = await scheduler.acquire(ticket(0))
    second = asyncio.create_task(scheduler.acquire(ticket(1)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not second.done()
    first.abandoned(sent=False)
    assert isinstance(await asyncio.wait_for(second, 2), Place)


async def test_a_deployment_that_is_out_is_not_called():
    engine, run = ScriptedGPT(clock=FakeClock()), RunState()
    scheduler = scheduler_of(engine)
    run.disable(engine.deployment, "m", errors.NotFound("no such model", status=404))
    with pytest.raises(errors.NotFound):
        await scheduler.acquire(ticket(run=run))
    assert isinstance(await scheduler.acquire(ticket(run=run, model="other")), Place)
    run.disable(engine.deployment, None, errors.AuthError("wrong key", status=401))
    with pytest.raises(errors.AuthError):
        await scheduler.acquire(ticket(run=run, model="other"))


async def test_a_deployment_that_cannot_take_a_request_is_not_called_for_it():
    engine = ScriptedGPT(clock=FakeClock())
    error = errors.RequestExceedsQuota("too long", status=400)
    barred = ticket(barred=frozenset({engine.deployment}), error=error)
    with pytest.raises(errors.RequestExceedsQuota, match="too long"):
        await scheduler_of(engine).acquire(barred)


async def test_a_request_above_the_whole_quota_is_not_sent():
    scheduler = scheduler_of(ScriptedGPT(clock=FakeClock(), limit_tpm=1_000))
    large = ticket()
    params = {"model": "m", "max_tokens": 5_000}
    large.request = Request(large.request.messages, params)
    with pytest.raises(errors.RequestExceedsQuota, match="limit_tpm=1000"):
        await scheduler.acquire(large)


@pytest.mark.parametrize(("limits", "at_once"), [({}, 10), ({"limit_rpm": 600}, 1)])
async def test_where_nothing_is_counted_all_that_have_room_set_off_together(limits, at_once):
    engine = ScriptedGPT(max_parallel_calls=1, clock=FakeClock(), **limits)
    scheduler = scheduler_of(engine)
    await scheduler.acquire(ticket(0))
    waiting = [ticket(number) for number in range(1, 11)]
    tasks = [asyncio.create_task(scheduler.acquire(each)) for each in waiting]
    await asyncio.sleep(0)
    engine.deployment.places = 11
    scheduler.look()
    assert sum(each.future.done() for each in waiting) == at_once
    await asyncio.wait_for(asyncio.gather(*tasks), 2)


@pytest.mark.parametrize(("limits", "lessons"), [({}, 256 + 744 // 8), ({"limit_tpm": 10**7}, 999)])
async def test_where_nobody_counts_tokens_few_answers_are_enough_to_learn_from(limits, lessons):
    engine = ScriptedGPT(clock=FakeClock(), **limits)
    seen = []

    class Pupil(TokenEstimator):
        def observe(self, *about, **more):
            seen.append(about)
            super().observe(*about, **more)

    engine.deployment.estimator = Pupil()
    scheduler = scheduler_of(engine)
    for number in range(999):
        place = await scheduler.acquire(ticket(number))
        place.answered(TokenCount(prompt=10, completion=1), {})
    assert len(seen) == pytest.approx(lessons, abs=1)
