"""A fork waits for work on databases, closes them, and leaves no lock taken in the child."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

import pytest

from lbgpt_pandas.engine.caches.base import MemoryCache, adapt
from lbgpt_pandas.engine.caches.disk import DiskCache
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.lifetime import no_fork

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def true_in_child(condition):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if condition() else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def test_a_fork_waits_for_those_who_are_inside():
    inside, left = threading.Event(), []

    def work():
        with no_fork, no_fork:
            inside.set()
            threading.Event().wait(0.03)
            left.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    assert true_in_child(lambda: left == [True])
    thread.join()
    with no_fork:
        pass


def files_open_below(directory):
    links = list(Path("/proc/self/fd").iterdir())
    return [link for link in links if str(directory) in os.path.realpath(link)]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_no_database_is_carried_over_a_fork(tmp_path):
    cache = DiskCache(tmp_path / "cache")
    asyncio.run(cache.set("a", "1"))
    asyncio.run(cache.get_many(["a"]))
    assert files_open_below(tmp_path)
    assert true_in_child(lambda: not files_open_below(tmp_path))
    assert asyncio.run(cache.get_many(["a"])) == {"a": "1"}
    asyncio.run(cache.close())


class Waits(dict):
    """Waits inside, with whatever lock its adapter holds."""

    def __init__(self):
        super().__init__(a="1")
        self.inside, self.go_on = threading.Event(), threading.Event()

    def __contains__(self, key):
        self.inside.set()
        self.go_on.wait(5)
        return super().__contains__(key)

    def move_to_end(self, key):
        pass


class WaitsUnlikeDict:
    def __init__(self):
        self.inside, self.go_on = threading.Event(), threading.Event()

    def __getitem__(self, key):
        self.inside.set()
        self.go_on.wait(5)
        return "1"

    def __setitem__(self, key, value):
        pass


def memory_that_waits():
    cache = MemoryCache()
    cache._texts = Waits()
    return cache, cache._texts


def mapping_that_waits():
    mapping = WaitsUnlikeDict()
    return adapt(mapping), mapping


@pytest.mark.parametrize("make", [memory_that_waits, mapping_that_waits])
def test_a_lock_that_a_thread_holds_is_free_in_the_child(make):
    cache, waits = make()
    thread = threading.Thread(target=asyncio.run, args=(cache.get_many(["a"]),))
    thread.start()
    waits.inside.wait()

    def child():
        waits.go_on.set()
        return asyncio.run(asyncio.wait_for(cache.get_many(["a"]), 5)) == {"a": "1"}

    try:
        assert true_in_child(child)
    finally:
        waits.go_on.set()
        thread.join()


def test_a_tier_works_in_the_child_of_a_thread_that_was_counting():
    tier = StandardTier(MemoryCache())
    tier._lock.acquire()

    def child():
        asyncio.run(asyncio.wait_for(tier.find(["a"]), 5))
        return tier.misses == 1

    assert true_in_child(child)
