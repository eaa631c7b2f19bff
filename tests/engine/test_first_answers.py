"""Two processes ask the same: both give the answer that is stored, and none is lost."""

from __future__ import annotations

import pytest

from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.caches.base import MemoryCache
from lbgpt_pandas.engine.caches.disk import DiskCache
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.caching import Caching
from lbgpt_pandas.engine.types import Request, Source
from lbgpt_pandas.testing import FakeClock, ScriptedGPT


def called(name, text=None):
    """An answer that calls a tool."""
    call = {"id": "1", "type": "function", "function": {"name": name, "arguments": "{}"}}
    return {
        "id": "x",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {"role": "assistant", "content": text, "tool_calls": [call]},
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }


def chosen(*texts):
    """An answer of several choices."""
    choices = [
        {"index": at, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        for at, text in enumerate(texts)
    ]
    return {"id": "x", "model": "m", "choices": choices}


def saying(answer):
    return ScriptedGPT(lambda _request: answer, auto_cache=False)


class Overtaken(MemoryCache):
    """Shared with a process that stores its own answer just before or after ours."""

    is_shared = True

    def __init__(self, theirs, *, after=False):
        super().__init__()
        self.theirs, self.after = theirs, after

    async def set(self, key, value, *, replace=False):
        other = MemoryCache()
        await run(saying(self.theirs), other)
        [text] = (await other.get_many([key])).values()
        if self.after:
            await super().set(key, value, replace=replace)
        await super().set(key, text, replace=True)
        if not self.after:
            await super().set(key, value, replace=replace)


async def run(engine, cache, mode="use", *, keep_payloads=False):
    requests = [Request([{"role": "user", "content": "q"}], {"model": "m"})]
    caching = Caching.of(StandardTier(cache), mode)
    [outcome] = await Batch(engine, requests, caching=caching, keep_payloads=keep_payloads).arun()
    return outcome


@pytest.mark.parametrize("keep_payloads", [True, False])
@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("mine", "theirs"),
        (called("mine"), called("theirs")),
        (called("mine", "the same"), called("theirs", "the same")),
        (called("mine", "the same"), "the same"),
        (chosen("one", "mine"), chosen("one", "theirs")),
        (chosen("one"), chosen("one", "theirs")),
    ],
)
async def test_what_was_stored_first_is_the_answer_whatever_differs(mine, theirs, keep_payloads):
    cache = Overtaken(theirs)
    engine = saying(mine)
    first = await run(engine, cache, keep_payloads=keep_payloads)
    second = await run(engine, cache, keep_payloads=keep_payloads)
    assert second.source is Source.EXACT_CACHE
    assert first.completion.is_same_answer(second.completion)
    assert first.completion.payload == second.completion.payload
    other = await run(saying(theirs), MemoryCache())
    assert first.completion.is_same_answer(other.completion)


async def test_refresh_keeps_the_answer_that_it_asked_for():
    outcome = await run(saying("mine"), Overtaken("theirs", after=True), "refresh")
    assert outcome.completion.text == "mine"


async def test_what_a_failing_store_did_not_take_is_written_at_the_end_of_the_run():
    class Failing(MemoryCache):
        broken = True

        async def set(self, key, value, *, replace=False):
            if self.broken:
                raise OSError("full")
            await super().set(key, value, replace=replace)

    cache, clock = Failing(), FakeClock()
    tier = StandardTier(cache, clock=clock)
    requests = [Request([{"role": "user", "content": "q"}], {"model": "m"})]
    engine = ScriptedGPT("mine", auto_cache=False)
    for broken, stored in ((True, 0), (False, 1)):
        # The second run asks and stores nothing of its own, so only its end can write.
        cache.broken = broken
        await Batch(engine, requests, caching=Caching.of(tier, "use")).arun()
        assert len(cache) == stored
    assert len(engine.requests) == 1


class Counting(DiskCache):
    """Counts the keys that are looked up."""

    looked_up = 0

    async def get_many(self, keys):
        self.looked_up += len(keys)
        return await super().get_many(keys)

    async def peek_many(self, keys):
        self.looked_up += len(keys)
        return await super().peek_many(keys)


async def test_what_nobody_else_has_stored_is_not_read_again(tmp_path):
    cache = Counting(tmp_path)
    outcome = await run(saying("ours"), cache)
    assert outcome.completion.text == "ours"
    assert cache.looked_up == 1
    await cache.close()


async def test_what_another_process_has_stored_first_is_given_from_the_disk_as_well(tmp_path):
    cache, theirs = Counting(tmp_path), DiskCache(tmp_path)

    async def late(_request):
        # Theirs is stored between our look-up and our own answer.
        await run(saying("theirs"), theirs)
        return "ours"

    outcome = await run(ScriptedGPT(late, auto_cache=False), cache)
    assert outcome.completion.text == "theirs"
    assert cache.looked_up == 2
    await cache.close()
    await theirs.close()
