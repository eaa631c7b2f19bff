"""`Streams.stream_request`: caches and budget are the caller's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lbgpt_pandas.engine.budget import Budget
from lbgpt_pandas.engine.caches.base import adapt
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.caching import NO_CACHING, Caching
from lbgpt_pandas.engine.errors import BudgetExceeded
from lbgpt_pandas.engine.run_state import RunState
from lbgpt_pandas.engine.types import Request
from lbgpt_pandas.testing import ScriptedGPT


def request(text):
    return Request([{"role": "user", "content": text}], {"model": "m"})


async def text_of(engine, asked, **keywords):
    chunks = [chunk async for chunk in engine.stream_request(asked, **keywords)]
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


async def test_the_callers_cache_is_used_and_not_the_engines():
    engine = ScriptedGPT()
    caching = Caching.of(StandardTier(adapt({})), "use")
    assert await text_of(engine, request("a b"), caching=caching) == "a b"
    assert await text_of(engine, request("a b"), caching=caching) == "a b"
    assert len(engine.requests) == 1
    assert await text_of(engine, request("a b"), caching=engine.caching()) == "a b"
    assert len(engine.requests) == 2
    await text_of(engine, request("a b"), caching=NO_CACHING)
    assert len(engine.requests) == 3


async def test_a_cache_that_is_not_read_is_still_written():
    engine = ScriptedGPT()
    caching = Caching.of(StandardTier(adapt({})), "use")
    for _ in range(2):
        await text_of(engine, request("a"), caching=replace(caching, reads=False))
    assert len(engine.requests) == 2
    await text_of(engine, request("a"), caching=caching)
    assert len(engine.requests) == 2


async def test_a_stream_is_paid_from_the_budget_of_its_run():
    engine, budget = ScriptedGPT(), Budget(requests=1)
    await text_of(engine, request("a"), caching=NO_CACHING, run=RunState(budget=budget))
    with pytest.raises(BudgetExceeded):
        await text_of(engine, request("b"), caching=NO_CACHING, run=RunState(budget=budget))
    assert len(engine.requests) == 1
