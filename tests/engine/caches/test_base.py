"""Whatever a user calls a cache works behind the port, or is refused at once."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, UserDict

import pytest

from lbgpt_pandas.engine.caches.base import MemoryCache, adapt
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

    def __delitem__(self, key):
        del self.texts[key]


class GetSet:
    """As redis clients are: bytes come back."""

    def __init__(self):
        self.texts, self.threads = {}, set()

    def get(self, key):
        self.threads.add(threading.current_thread())
        return self.texts.get(key)

    def set(self, key, value):
        self.texts[key] = value.encode()

    def delete(self, key):
        self.texts.pop(key, None)


class AsyncGetSet:
    def __init__(self):
        self.texts = {}

    async def aget(self, key):
        return self.texts.get(key)

    async def aset(self, key, value):
        self.texts[key] = value


STORES = [dict, OrderedDict, UserDict, BareMapping, GetSet, AsyncGetSet, MemoryCache]


@pytest.mark.parametrize("kind", STORES)
async def test_texts_go_in_and_come_out(kind):
    cache = adapt(kind())
    assert await cache.get_many(["a"]) == {}
    await cache.set("a", "1")
    await cache.set("b", "ü")
    assert await cache.get_many(["a", "x", "b"]) == {"a": "1", "b": "ü"}
    await cache.close()
    assert await cache.get_many(["a"]) == {"a": "1"}


async def test_the_first_writer_wins_unless_it_is_replaced():
    cache = MemoryCache()
    await cache.set("a", "first")
    await cache.set("a", "second")
    assert await cache.get_many(["a"]) == {"a": "first"}
    await cache.set("a", "third", replace=True)
    assert await cache.get_many(["a"]) == {"a": "third"}


@pytest.mark.parametrize("kind", STORES)
async def test_what_is_set_again_to_be_replaced_is_replaced(kind):
    cache = adapt(kind())
    await cache.set("a", "first")
    await cache.set("a", "second", replace=True)
    assert await cache.get_many(["a"]) == {"a": "second"}


@pytest.mark.parametrize("kind", [dict, UserDict, BareMapping, GetSet, MemoryCache])
async def test_deleting_what_is_not_there_is_no_error(kind):
    cache = adapt(kind())
    await cache.delete("a")
    await cache.set("a", "1")
    await cache.delete("a")
    assert await cache.get_many(["a"]) == {}


@pytest.mark.parametrize("kind", [BareMapping, GetSet])
async def test_a_store_that_may_block_is_kept_off_the_event_loop(kind):
    store = kind()
    await adapt(store).set("a", "1")
    await adapt(store).get_many(["a"])
    assert threading.main_thread() not in store.threads


@pytest.mark.parametrize("store", [3, "redis://x", object(), dict, [], None])
def test_what_is_no_cache_is_refused_with_what_is_accepted(store):
    with pytest.raises(ConfigurationError, match=r"give|class"):
        adapt(store)


def test_a_pickling_diskcache_is_refused(tmp_path):
    diskcache = pytest.importorskip("diskcache")
    for disk in (diskcache.Disk, diskcache.JSONDisk):
        with (
            diskcache.Cache(str(tmp_path / disk.__name__), disk=disk) as store,
            pytest.raises(ConfigurationError, match="pickle"),
        ):
            adapt(store)


async def test_memory_forgets_what_was_used_longest_ago():
    cache = MemoryCache(max_entries=2)
    await cache.set("a", "1")
    await cache.set("b", "2")
    await cache.get_many(["a"])
    await cache.set("c", "3")
    assert await cache.get_many(["a", "b", "c"]) == {"a": "1", "c": "3"}
    assert len(cache) == 2


def test_one_object_over_several_loops():
    cache = adapt(BareMapping())
    asyncio.run(cache.set("a", "1"))
    assert asyncio.run(cache.get_many(["a"])) == {"a": "1"}
