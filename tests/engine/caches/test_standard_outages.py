"""A store that fails for a while, or forgets: no paid answer is lost, and none is too old."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from lbgpt_pandas.engine.caches import held_back, standard
from lbgpt_pandas.engine.caches.base import MemoryCache
from lbgpt_pandas.engine.caches.disk import DiskCache
from lbgpt_pandas.engine.caches.envelope import seal
from lbgpt_pandas.engine.caches.held_back import HeldBack
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.caches.ttl import ttl_seconds
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.testing import FakeClock

WHOSE = {"family": "f", "model": "m"}


class Outages(MemoryCache):
    """Fails as long as it is told to, and counts how often it is asked."""

    def __init__(self, *, ttl_s=None):
        super().__init__()
        self.ttl_s = ttl_s
        self.reads_fail = self.writes_fail = False
        self.reads = self.writes = 0
        self.at_once = self.most_at_once = 0
        self.gate = None

    async def get_many(self, keys):
        self.reads += 1
        if self.reads_fail:
            raise OSError("no reading")
        return await super().get_many(keys)

    async def set(self, key, value, *, replace=False):
        self.writes += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await (self.gate.wait() if self.gate else asyncio.sleep(0))
        finally:
            self.at_once -= 1
        if self.writes_fail:
            raise OSError("no writing")
        await super().set(key, value, replace=replace)


@pytest.fixture
def store():
    return Outages()


@pytest.fixture
def tier(store, clock):
    return StandardTier(store, clock=clock)


async def save(tier, *keys, **more):
    done = await asyncio.gather(
        *(tier.save(key, **WHOSE, payload={"of": key}, **more) for key in keys)
    )
    return all(done)


async def test_what_was_not_taken_is_found_and_written_later(store, tier, clock):
    store.writes_fail = True
    assert not await save(tier, *"abc")
    assert await tier.find([*"abcx"]) == {key: {"of": key} for key in "abc"}
    assert (tier.hits, tier.misses) == (3, 1)
    [notice] = tier.take_notices()
    assert "kept in memory" in notice
    assert "no writing" in notice
    store.writes_fail = False
    clock.advance(1)
    assert await save(tier, "d")
    assert set(await store.get_many([*"abcd"])) == set("abcd")
    assert await StandardTier(store).find([*"abcd"]) == {key: {"of": key} for key in "abcd"}
    assert tier.take_notices() == []
    # And is not written once more.
    store.writes = 0
    await tier.flush()
    assert store.writes == 0


async def test_writes_rest_longer_and_longer(store, tier, clock):
    store.writes_fail = True
    asked_at = []
    for second in range(100):
        before = store.writes
        await save(tier, f"k{second}")
        if store.writes > before:
            asked_at.append(second)
        clock.advance(1)
    assert asked_at == [0, 1, 3, 7, 15, 31, 61, 91]
    assert len(tier.take_notices()) == 1


async def test_one_answer_tries_while_the_others_wait_in_memory(store, tier, clock):
    store.writes_fail = True
    await save(tier, "a")
    clock.advance(1)
    store.writes_fail, store.gate, store.writes = False, asyncio.Event(), 0
    trying = asyncio.create_task(save(tier, "b"))
    await asyncio.sleep(0)
    assert not await save(tier, *"cde")
    assert store.writes == 1
    store.gate.set()
    assert await trying
    assert set(await store.get_many([*"abcde"])) == set("abcde")


async def test_a_broken_off_attempt_does_not_stop_the_next(store, tier, clock):
    store.writes_fail = True
    await save(tier, "a")
    clock.advance(1)
    store.writes_fail, store.gate = False, asyncio.Event()
    trying = asyncio.create_task(save(tier, "b"))
    await asyncio.sleep(0)
    trying.cancel()
    await asyncio.wait([trying])
    store.gate = None
    assert await save(tier, "c")
    assert set(await store.get_many([*"abc"])) == set("ac")


async def test_flush_tries_at_once_and_keeps_what_is_not_taken(store, tier):
    store.writes_fail = True
    await save(tier, *"ab")
    await tier.flush()
    assert set(await tier.find([*"ab"])) == set("ab")
    store.writes_fail = False
    await tier.flush()
    assert set(await store.get_many([*"ab"])) == set("ab")


async def test_a_flush_writes_some_at_a_time(store, tier):
    store.writes_fail = True
    keys = [f"k{number}" for number in range(200)]
    await save(tier, *keys)
    store.writes_fail, store.most_at_once = False, 0
    await tier.flush()
    assert len(await store.get_many(keys)) == 200
    assert 1 < store.most_at_once <= held_back.WRITES_AT_ONCE


async def test_a_store_that_fails_again_stops_the_flush(store, tier):
    store.writes_fail = True
    keys = [f"k{number}" for number in range(200)]
    await save(tier, *keys)
    store.writes = 0
    await tier.flush()
    assert store.writes <= held_back.WRITES_AT_ONCE
    assert len(await tier.find(keys)) == 200


async def test_what_was_stored_first_stays_also_if_others_were_held_back(store, tier, clock):
    store.writes_fail = True
    await save(tier, "a")
    store.writes_fail = False
    theirs = seal("a", **WHOSE, payload={"of": "others"}, created=clock.wall())
    await store.set("a", theirs)
    await tier.flush()
    assert await tier.find(["a"]) == {"a": {"of": "others"}}


async def test_a_newer_answer_is_not_overwritten_by_one_that_was_held_back(store, tier, clock):
    store.writes_fail = True
    await tier.save("a", **WHOSE, payload={"n": 1}, replace=True)
    store.writes_fail = False
    clock.advance(1)
    assert await tier.save("a", **WHOSE, payload={"n": 2}, replace=True)
    await tier.flush()
    assert await StandardTier(store).find(["a"]) == {"a": {"n": 2}}


async def test_memory_is_bounded_and_that_is_told_once(store, tier, monkeypatch):
    monkeypatch.setattr(tier, "_held", HeldBack(max_entries=10))
    store.writes_fail = True
    keys = [f"k{number}" for number in range(30)]
    await save(tier, *keys)
    assert set(await tier.find(keys)) == set(keys[-10:])
    _, notice = tier.take_notices()
    assert "oldest are dropped" in notice


async def test_reads_rest_and_recover(store, tier, clock):
    await save(tier, "a")
    store.reads_fail = True
    for _ in range(100):
        assert await tier.find(["a"]) == {}
    assert store.reads == 1
    assert tier.read_failures == 100
    store.reads_fail = False
    assert await tier.find(["a"]) == {}
    clock.advance(1)
    assert await tier.find(["a"]) == {"a": {"of": "a"}}
    assert len(tier.take_notices()) == 1


async def test_a_reset_reads_at_once(store, tier):
    await save(tier, "a")
    store.reads_fail = True
    assert await tier.find(["a"]) == {}
    store.reads_fail = False
    tier.reset()
    assert await tier.find(["a"]) == {"a": {"of": "a"}}


async def test_reads_that_fail_do_not_stop_writes(store, tier):
    store.reads_fail = True
    await tier.find(["a"])
    assert await save(tier, "a")


async def test_a_store_that_does_nothing_is_told_in_one_notice(store, tier):
    store.reads_fail = store.writes_fail = True
    await tier.find(["a"])
    await save(tier, "a")
    [notice] = tier.take_notices()
    assert "neither read nor written" in notice
    tier.reset()
    await tier.find(["b"])
    [notice] = tier.take_notices()
    assert "cannot be read" in notice


async def test_a_failure_in_the_midst_of_a_long_column_keeps_what_was_read(store, clock):
    class HalfDead(MemoryCache):
        async def get_many(self, keys):
            if "last" in keys:
                raise OSError("gone")
            return await super().get_many(keys)

    cache = HalfDead()
    tier = StandardTier(cache, clock=clock)
    await save(tier, "first")
    keys = ["first", *map(str, range(standard.KEYS_A_LOOKUP)), "last"]
    assert await tier.find(keys) == {"first": {"of": "first"}}


# How old an answer may be.


async def test_an_answer_is_a_miss_once_it_is_too_old_and_gives_way(clock):
    store = Outages(ttl_s=60)
    tier = StandardTier(store, clock=clock)
    await tier.save("a", **WHOSE, payload={"n": 1})
    clock.advance(60)
    assert await tier.find(["a"]) == {"a": {"n": 1}}
    clock.advance(0.001)
    assert await tier.find(["a"]) == {}
    assert (tier.hits, tier.misses, tier.corrupt) == (1, 1, 0)
    assert await tier.save("a", **WHOSE, payload={"n": 2})
    assert await tier.find(["a"]) == {"a": {"n": 2}}
    # From then on the first one stays again.
    assert await tier.save("a", **WHOSE, payload={"n": 3})
    assert await tier.find(["a"]) == {"a": {"n": 2}}
    assert tier.take_notices() == []


async def test_what_is_held_in_memory_grows_old_as_well(clock):
    store = Outages(ttl_s=60)
    tier = StandardTier(store, clock=clock)
    store.writes_fail = True
    await tier.save("a", **WHOSE, payload={"n": 1})
    clock.advance(61)
    assert await tier.find(["a"]) == {}
    await tier.save("a", **WHOSE, payload={"n": 2})
    store.writes_fail = False
    await tier.flush()
    assert await tier.find(["a"]) == {"a": {"n": 2}}


@pytest.mark.parametrize("shift_s", [-3600, 3600])
async def test_a_clock_that_is_set_back_or_forward_by_an_hour(shift_s):
    clock = FakeClock()
    tier = StandardTier(Outages(ttl_s=1800), clock=clock)
    await save(tier, "a")
    clock.shift_wall(shift_s)
    # From the future: fresh. An hour ago: too old.
    assert set(await tier.find(["a"])) == (set() if shift_s > 0 else {"a"})
    await save(tier, "b")
    assert set(await tier.find(["b"])) == {"b"}


async def test_rests_do_not_follow_the_wall_clock(store, tier, clock):
    store.writes_fail = True
    await save(tier, "a")
    store.writes_fail = False
    clock.shift_wall(3600)
    assert not await save(tier, "b")
    clock.shift_wall(-7200)
    clock.advance(1)
    assert await save(tier, "c")


async def test_an_answer_that_does_not_say_when_it_was_made_is_too_old(clock):
    store = Outages(ttl_s=60)
    tier = StandardTier(store, clock=clock)
    naive = datetime(2026, 1, 1)  # noqa: DTZ001  # as another program may have written it
    for key, created in (("a", naive), ("b", naive.replace(tzinfo=UTC))):
        await store.set(key, seal(key, **WHOSE, payload={}, created=created))
    assert set(await tier.find(["a", "b"])) == {"b"}
    store.ttl_s = None
    assert set(await tier.find(["a", "b"])) == {"a", "b"}


async def test_a_key_cannot_pretend_an_age(clock):
    store = Outages(ttl_s=60)
    key = '","created":"9999-01-01T00:00:00+00:00"'
    old = clock.wall() - timedelta(days=1)
    await store.set(key, seal(key, **WHOSE, payload={}, created=old))
    assert await StandardTier(store, clock=clock).find([key]) == {}


async def test_a_ttl_beyond_all_calendars_is_for_ever(clock):
    store = Outages(ttl_s=1e15)
    tier = StandardTier(store, clock=clock)
    await save(tier, "a")
    assert set(await tier.find(["a"])) == {"a"}


@pytest.mark.parametrize("ttl", [0, -1, True, "1", float("inf"), timedelta(0)])
def test_a_ttl_that_cannot_be_is_refused(ttl):
    with pytest.raises(ConfigurationError, match="ttl="):
        ttl_seconds(ttl)


@pytest.mark.parametrize(("ttl", "seconds"), [(None, None), (5, 5.0), (timedelta(minutes=1), 60.0)])
def test_a_ttl_is_seconds_or_a_timedelta(ttl, seconds):
    assert ttl_seconds(ttl) == seconds


async def test_caches_of_this_machine_take_an_age_as_well(clock, tmp_path):
    for cache in (MemoryCache(ttl=60), DiskCache(tmp_path / "cache", ttl=timedelta(minutes=1))):
        tier = StandardTier(cache, clock=clock)
        await tier.save("k", family="f", model="m", payload={"a": 1})
        assert await tier.find(["k"]) == {"k": {"a": 1}}
        await clock.sleep(61)
        assert await tier.find(["k"]) == {}
        await cache.close()
