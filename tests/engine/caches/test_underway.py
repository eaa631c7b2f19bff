"""Answers that a store writes while the run goes on are found, and never lost."""

from __future__ import annotations

import pytest

from lbgpt_pandas.engine.caches.base import MemoryCache
from lbgpt_pandas.engine.caches.disk import DiskCache
from lbgpt_pandas.engine.caches.envelope import unseal
from lbgpt_pandas.engine.caches.standard import StandardTier

WHOSE = {"family": "f", "model": "m"}
PAYLOAD = {"choices": [1]}


class Slow(MemoryCache):
    """Writes what it has taken when it is told to."""

    def __init__(self):
        super().__init__()
        self.taken, self.takes, self.awaited = [], True, 0

    def set_soon(self, key, value, *, replace, settled):
        if self.takes:
            self.taken.append((key, value, replace, settled))
        return self.takes

    async def set(self, key, value, *, replace=False):
        self.awaited += 1
        await super().set(key, value, replace=replace)

    async def finish(self, error=None):
        taken, self.taken = self.taken, []
        for key, value, replace, settled in taken:
            if error is None:
                await super().set(key, value, replace=replace)
            settled([(key, value, replace)], error)


@pytest.fixture
def store():
    return Slow()


@pytest.fixture
def tier(store, clock):
    return StandardTier(store, clock=clock)


async def save(tier, key, answer=1, **how):
    return await tier.save(key, payload={"choices": [answer]}, **WHOSE, **how)


async def test_in_a_run_an_answer_is_found_before_it_is_written(store, tier):
    with tier.in_use():
        assert await save(tier, "a")
        assert await store.get_many(["a"]) == {}
        assert await tier.find(["a", "b"]) == {"a": PAYLOAD}
        await tier.flush()
    assert list(await store.get_many(["a"])) == ["a"]
    assert await tier.find(["a"]) == {"a": PAYLOAD}
    assert store.awaited == 0


async def test_outside_a_run_it_is_written_when_it_is_saved(store, tier):
    assert await save(tier, "a")
    assert list(await store.get_many(["a"])) == ["a"]


async def test_what_cannot_be_written_is_held_and_told_once(store, tier):
    with tier.in_use():
        for key in "ab":
            await save(tier, key)
        await store.finish(OSError("disk full"))
        assert await tier.find(["a", "b"]) == {"a": PAYLOAD, "b": PAYLOAD}
    (notice,) = tier.take_notices()
    assert "cannot be written" in notice
    assert "disk full" in notice
    assert tier.write_failures == 2
    await tier.flush()
    assert sorted(await store.get_many(["a", "b"])) == ["a", "b"]


async def test_after_a_failure_nothing_goes_the_fast_way_until_the_store_works(store, tier):
    with tier.in_use():
        await save(tier, "a")
        await store.finish(OSError("disk full"))
        assert not await save(tier, "b")
        assert (store.taken, store.awaited) == ([], 0)


async def test_of_answers_that_replace_the_last_one_stays(store, tier):
    with tier.in_use():
        for number in range(3):
            await save(tier, "a", number, replace=True)
        await tier.flush()
    assert await tier.find(["a"]) == {"a": {"choices": [2]}}


async def test_a_store_that_takes_no_more_is_waited_for(store, tier):
    store.takes = False
    with tier.in_use():
        assert await save(tier, "a")
    assert store.awaited == 1


async def test_a_forked_child_forgets_what_its_parent_writes(store, tier):
    with tier.in_use():
        await save(tier, "a")
        tier.after_fork()
        assert await tier.find(["a"]) == {}


async def test_the_default_cache_writes_a_runs_answers_in_one_go(tmp_path):
    cache = DiskCache(tmp_path)
    tier = StandardTier(cache)
    with tier.in_use():
        for number in range(700):
            assert await save(tier, f"k{number}", number)
        await tier.flush()
        assert len(await cache.get_many([f"k{number}" for number in range(700)])) == 700
    await cache.close()


async def test_envelopes_are_those_held_those_underway_and_those_stored(store, tier):
    await save(tier, "stored", 1)
    with tier.in_use():
        await save(tier, "held", 2)
        await store.finish(OSError("full"))
    assert tier.unwritten_keys() == ["held"]
    found = await tier.envelopes(["stored", "held", "missing"])
    assert {key: unseal(key, text)["choices"] for key, text in found.items()} == {
        "stored": [1],
        "held": [2],
    }


async def test_envelopes_of_what_is_underway_need_no_store(store, tier, monkeypatch):
    async def down(keys):
        raise TimeoutError(f"no answer for {keys}")

    with tier.in_use():
        await save(tier, "a")
        assert tier.unwritten_keys() == ["a"]
        monkeypatch.setattr(store, "get_many", down)
        assert unseal("a", (await tier.envelopes(["a"]))["a"]) == PAYLOAD
        with pytest.raises(TimeoutError, match="'b'"):
            await tier.envelopes(["a", "b"])
        await tier.flush()
