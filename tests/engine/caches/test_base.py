"""Whatever a user calls a cache works behind the port, or is refused at once."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
from collections import OrderedDict, UserDict, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import diskcache
import pytest

from lbgpt_pandas.engine.caches.adapters import UNREADABLE, AsyncMethodCache, MethodCache
from lbgpt_pandas.engine.caches.base import MemoryCache, adapt
from lbgpt_pandas.engine.caches.safedisk import SafeDisk
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.errors import ConfigurationError


class BareMapping:
    """As some caches are: nothing but item access, KeyError for a miss."""

    def __init__(self):
        self.texts, self.threads = {}, set()

    def __getitem__(self, key):
        self.threads.add(threading.current_thread())
        return self.texts[key]

    def __setitem__(self, key, value):
        self.threads.add(threading.current_thread())
        self.texts[key] = value


class GetSet:
    """As redis clients are: bytes come back."""

    def __init__(self):
        self.texts, self.threads = {}, set()

    def get(self, key):
        self.threads.add(threading.current_thread())
        return self.texts.get(key)

    def set(self, key, value):
        self.threads.add(threading.current_thread())
        self.texts[key] = value.encode()

    def delete(self, key):
        self.texts.pop(key, None)


class StrictGetSet(GetSet):
    """Says KeyError for a miss, has no delete."""

    delete = None

    def get(self, key):
        return self.texts[key]


class AsyncGetSet:
    """As LBGPT's S3Cache is."""

    def __init__(self):
        self.texts = {}

    async def aget(self, key):
        await asyncio.sleep(0)
        return self.texts.get(key)

    async def aset(self, key, value):
        self.texts[key] = value

    async def adelete(self, key):
        self.texts.pop(key, None)


class PlainNamesAsync:
    """As redis.asyncio is: get and set return what has to be awaited."""

    def __init__(self):
        self.texts = {}

    async def execute_command(self, name, key, value=None):
        if name == "SET":
            self.texts[key] = value.encode()
        return self.texts.get(key)

    def get(self, key):
        return self.execute_command("GET", key)

    def set(self, key, value):
        return self.execute_command("SET", key, value)


STORES = [
    dict, OrderedDict, UserDict, BareMapping, GetSet, StrictGetSet, AsyncGetSet, PlainNamesAsync,
    MemoryCache, lambda: defaultdict(str),
]  # fmt: skip


@pytest.mark.parametrize("kind", STORES)
async def test_texts_go_in_and_come_out(kind):
    cache = adapt(kind())
    assert await cache.get_many(["a"]) == {}
    await cache.set("a", "1")
    await cache.set("b", "ü")
    assert await cache.get_many(["a", "x", "b"]) == {"a": "1", "b": "ü"}
    assert await cache.get_many([]) == {}
    await cache.close()
    assert await cache.get_many(["a"]) == {"a": "1"}


@pytest.mark.parametrize("kind", STORES)
async def test_what_is_set_again_to_be_replaced_is_replaced(kind):
    cache = adapt(kind())
    await cache.set("a", "first")
    await cache.set("a", "second", replace=True)
    assert await cache.get_many(["a"]) == {"a": "second"}


@pytest.mark.parametrize("kind", [dict, UserDict, GetSet, AsyncGetSet, MemoryCache])
async def test_deleting_what_is_not_there_is_no_error(kind):
    cache = adapt(kind())
    await cache.delete("a")
    await cache.set("a", "1")
    await cache.delete("a")
    assert await cache.get_many(["a"]) == {}


@pytest.mark.parametrize("kind", [BareMapping, StrictGetSet, PlainNamesAsync])
async def test_a_store_that_cannot_delete_keeps_what_it_has(kind):
    cache = adapt(kind())
    await cache.set("a", "1")
    await cache.delete("a")
    assert await cache.get_many(["a"]) == {"a": "1"}


@pytest.mark.parametrize("kind", [BareMapping, GetSet])
async def test_a_store_that_may_block_is_kept_off_the_event_loop(kind):
    store = kind()
    await adapt(store).set("a", "1")
    await adapt(store).get_many(["a"])
    assert store.threads
    assert threading.main_thread() not in store.threads


async def test_a_mapping_is_used_by_one_thread_at_a_time():
    class NotForThreads(BareMapping):
        inside = 0

        def __setitem__(self, key, value):
            self.inside += 1
            assert self.inside == 1
            threading.Event().wait(0.001)
            self.inside -= 1
            super().__setitem__(key, value)

    store = NotForThreads()
    cache = adapt(store)
    await asyncio.gather(*(cache.set(str(number), "x") for number in range(20)))
    assert len(store.texts) == 20


async def test_asking_a_defaultdict_does_not_fill_it():
    store = defaultdict(str, a="1")
    assert await adapt(store).get_many(["a", "b"]) == {"a": "1"}
    assert list(store) == ["a"]


async def test_an_asynchronous_store_is_asked_several_things_at_a_time():
    class Slow(AsyncGetSet):
        inside = peak = 0

        async def aget(self, key):
            self.inside += 1
            self.peak = max(self.peak, self.inside)
            await asyncio.sleep(0)
            self.inside -= 1
            return key

    store = Slow()
    keys = list(map(str, range(100)))
    assert await adapt(store).get_many(keys) == dict(zip(keys, keys, strict=True))
    assert 1 < store.peak <= 16


async def test_the_error_of_an_asynchronous_store_arrives_as_it_is():
    class Gone(AsyncGetSet):
        async def aget(self, key):
            raise ConnectionError("store is gone")

    with pytest.raises(ConnectionError, match="store is gone"):
        await adapt(Gone()).get_many(["a", "b"])


class Broken(GetSet):
    def get(self, key):
        return {"bytes": b"\xff", "number": 3, "ok": "1"}.get(key) or json.loads("{")


class BrokenAsync(AsyncGetSet):
    async def aget(self, key):
        return Broken().get(key)


@pytest.mark.parametrize("kind", [Broken, BrokenAsync])
async def test_an_entry_that_is_no_text_does_not_hide_the_others(kind):
    found = await adapt(kind()).get_many(["bytes", "number", "json", "ok"])
    assert found == {"bytes": "\ufffd", "number": UNREADABLE, "json": UNREADABLE, "ok": "1"}


@pytest.mark.parametrize("store", [3, "redis://x", object(), dict, [], None, b"", print])
def test_what_is_no_cache_is_refused_with_what_is_accepted(store):
    with pytest.raises(ConfigurationError, match=r"give DiskCache|is a class"):
        adapt(store)


def test_redis_clients_are_recognised():
    redis = pytest.importorskip("redis")
    from redis import asyncio as aioredis

    assert isinstance(adapt(redis.Redis()), MethodCache)
    assert isinstance(adapt(aioredis.Redis()), AsyncMethodCache)


# diskcache objects of the user


@pytest.mark.parametrize("disk", [diskcache.Disk, diskcache.JSONDisk])
@pytest.mark.parametrize("kind", [diskcache.Cache, diskcache.FanoutCache])
def test_a_pickling_diskcache_is_refused(tmp_path, disk, kind):
    store = kind(str(tmp_path), disk=disk)
    with pytest.raises(ConfigurationError, match=r"DiskCache\(directory\).*SafeDisk"):
        adapt(store)
    if kind is diskcache.Cache:
        with pytest.raises(ConfigurationError, match="SafeDisk"):
            adapt(diskcache.Index.fromcache(store))
    store.close()


def test_a_class_derived_from_diskcache_is_refused_like_it(tmp_path):
    class Mine(diskcache.Cache):
        pass

    with Mine(str(tmp_path)) as store, pytest.raises(ConfigurationError, match="SafeDisk"):
        adapt(store)


def fanout(path):
    return diskcache.FanoutCache(path, shards=2, disk=SafeDisk)


def index(path):
    return diskcache.Index.fromcache(diskcache.Cache(path, disk=SafeDisk))


@pytest.mark.parametrize("make", [lambda p: diskcache.Cache(p, disk=SafeDisk), fanout, index])
async def test_a_safe_diskcache_is_used(tmp_path, make):
    store = make(str(tmp_path))
    cache = adapt(store)
    long = "x" * 100_000
    await cache.set("a", "1")
    await cache.set("long", long)
    assert await cache.get_many(["a", "long", "x"]) == {"a": "1", "long": long}
    await cache.delete("a")
    assert await cache.get_many(["a"]) == {}
    (store.cache if isinstance(store, diskcache.Index) else store).close()


def files_open_below(directory):
    links = list(Path("/proc/self/fd").iterdir())
    return [link for link in links if str(directory) in os.path.realpath(link)]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
async def test_threads_leave_no_connection_of_a_diskcache_open(tmp_path):
    with diskcache.Cache(str(tmp_path), disk=SafeDisk) as store:
        cache = adapt(store)
        await cache.set("a", "1")
        await asyncio.gather(*(cache.get_many(["a"]) for _ in range(8)))
    assert not files_open_below(tmp_path)


class Bomb:
    """Leaves a directory behind if it is ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


async def test_a_pickle_in_a_safe_diskcache_is_one_miss_and_gone(tmp_path):
    with diskcache.Cache(str(tmp_path / "cache"), disk=SafeDisk) as store:
        tier = StandardTier(adapt(store))
        for key in "ab":
            await tier.save(key, family="f", model="m", payload={"text": key})
        connection = sqlite3.connect(tmp_path / "cache" / "cache.db")
        with connection:
            bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
            connection.execute("UPDATE Cache SET mode = 4, value = ? WHERE key = 'a'", (bomb,))
        connection.close()
        assert await tier.find(["a", "b"]) == {"b": {"text": "b"}}
        assert tier.corrupt == 1
        assert len(tier.take_notices()) == 1
        assert "a" not in store
    assert not (tmp_path / "exploded").exists()


# MemoryCache


async def test_memory_keeps_the_first_text_unless_it_is_replaced():
    cache = MemoryCache()
    await cache.set("a", "first")
    await cache.set("a", "second")
    assert await cache.get_many(["a"]) == {"a": "first"}
    await cache.set("a", "third", replace=True)
    assert await cache.get_many(["a"]) == {"a": "third"}


async def test_memory_forgets_what_was_used_longest_ago():
    cache = MemoryCache(max_entries=2)
    await cache.set("a", "1")
    await cache.set("b", "2")
    await cache.get_many(["a"])
    await cache.set("c", "3")
    assert await cache.get_many(["a", "b", "c"]) == {"a": "1", "c": "3"}
    assert len(cache) == 2


@pytest.mark.parametrize("number", [0, -1, 1.5, True, None])
def test_memory_needs_a_size(number):
    with pytest.raises(ConfigurationError, match="max_entries"):
        MemoryCache(number)


def test_memory_is_shared_by_threads():
    cache = MemoryCache(max_entries=50)

    async def work(name):
        for number in range(500):
            await cache.set(f"{name}{number}", "x")
            await cache.get_many([f"{name}{number - 1}"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: asyncio.run(work(name)), "abcd"))
    assert len(cache) == 50


@pytest.mark.parametrize("kind", [BareMapping, MemoryCache, GetSet])
def test_one_object_over_several_loops(kind):
    cache = adapt(kind())
    asyncio.run(cache.set("a", "1"))
    assert [asyncio.run(cache.get_many(["a"])) for _ in range(2)] == [{"a": "1"}] * 2


@pytest.mark.process
def test_neither_the_port_nor_an_adapter_loads_diskcache():
    script = (
        "import sys; from lbgpt_pandas.engine.caches import base, disk, standard; "
        "base.adapt({}); disk.DiskCache('x'); print('diskcache' in sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert output.stdout.strip() == "False"
