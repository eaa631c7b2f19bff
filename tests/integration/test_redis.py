"""Answers in a real Redis: shared, forked, killed, restarted, slow, and refused."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.engine.caches.base import Cache, Scannable
from lbgpt_pandas.engine.caches.redis import KEYS_A_COMMAND, RedisCache
from lbgpt_pandas.engine.caches.redis_line import RedisLine
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.errors import CacheWarning, ConfigurationError, MissingExtraError
from lbgpt_pandas.testing import FakeClock, ScriptedGPT

pytest.importorskip("redis")

pytestmark = pytest.mark.process

SECRET = "canary-password"
WHOSE = {"family": "f", "model": "m"}


@pytest.fixture
async def cache(redis_url):
    cache = RedisCache(redis_url)
    yield cache
    await cache.close()


@pytest.fixture
def closing():
    """Closes caches of synchronous tests on the loop that they were used on."""
    caches = []
    yield lambda cache: caches.append(cache) or cache
    for cache in caches:
        lb.engine.portal.run_sync(cache.close())


def complete(tier, engine, rows=40):
    frame = pd.DataFrame({"text": [f"row {number}" for number in range(rows)]})
    with lb.using(cache=tier, progress=False, errors="raise"):
        answers = frame.lbgpt.complete("{text}", model="m", engine=engine)
    assert answers.tolist() == frame["text"].tolist()


def complete_with_one_warning(tier, engine, *, match, rows=40):
    with pytest.warns(CacheWarning, match=match) as caught:
        complete(tier, engine, rows)
    assert [each.category for each in caught] == [CacheWarning]
    assert SECRET not in str(caught[0].message)


async def contents(cache):
    return {key: text async for page in cache.scan() for key, text in page.items()}


async def test_texts_go_in_and_come_out(cache):
    assert isinstance(cache, Cache)
    assert isinstance(cache, Scannable)
    assert await cache.get_many([]) == {}
    assert await cache.get_many(["a"]) == {}
    texts = {f"k{number}": f"ü {number} \0" for number in range(2 * KEYS_A_COMMAND + 1)}
    await asyncio.gather(*(cache.set(key, text) for key, text in texts.items()))
    assert await cache.get_many([*texts, "missing"]) == texts
    assert await contents(cache) == texts
    await cache.delete("k0")
    await cache.delete("k0")
    assert await cache.delete_many(["k0", "k1", "k2"]) == 2
    assert await cache.get_many(["k0", "k1", "k3"]) == {"k3": texts["k3"]}


async def test_the_first_writer_wins_unless_it_is_replaced(redis_url, cache):
    other = RedisCache(redis_url)
    await asyncio.gather(*((cache, other)[n % 2].set("a", str(n)) for n in range(32)))
    first = await cache.get_many(["a"])
    await other.set("a", "late")
    assert await other.get_many(["a"]) == first
    await other.set("a", "new", replace=True)
    assert await cache.get_many(["a"]) == {"a": "new"}
    await other.close()


async def test_prefixes_keep_caches_apart_whatever_they_hold(redis_url, cache):
    odd = RedisCache(redis_url, prefix="l*?[b]\\^")
    await cache.set("a", "1")
    await odd.set("a", "2")
    assert await contents(cache) == {"a": "1"}
    assert await contents(odd) == {"a": "2"}
    await odd.close()


async def test_redis_forgets_after_the_ttl(redis_server, redis_url):
    cache = RedisCache(redis_url, ttl=100)
    await cache.set("a", "1")
    await cache.set("b", "2", replace=True)
    with redis_server.client() as client:
        assert all(90_000 < client.pttl(f"lbgpt:{key}") <= 100_000 for key in "ab")
    brief = RedisCache(redis_url, ttl=0.01)
    await brief.set("c", "3")
    deadline = time.monotonic() + 5
    while await brief.get_many(["c"]):
        assert time.monotonic() < deadline
    await cache.close()
    await brief.close()


async def test_texts_that_are_no_utf_8_fail_alone(redis_server, cache):
    with redis_server.client() as client:
        client.set("lbgpt:bad", b"\xff")
    await cache.set("a", "1")
    assert await cache.get_many(["bad", "a"]) == {"bad": "\ufffd", "a": "1"}


def test_a_list_under_our_key_is_a_miss_and_gives_way(redis_server, redis_url, closing):
    engine = ScriptedGPT()
    complete(StandardTier(closing(RedisCache(redis_url))), engine, rows=3)
    with redis_server.client() as client:
        names = client.keys("lbgpt:*")
        client.delete(*names)
        client.rpush(names[0], "a", "b")
    for calls in (6, 6):
        complete(StandardTier(closing(RedisCache(redis_url))), engine, rows=3)
        assert len(engine.requests) == calls


async def test_a_long_column_leaves_the_loop_to_others(cache):
    texts = {f"k{number}": "x" * 1_000 for number in range(5_000)}
    for start in range(0, len(texts), 500):
        some = list(texts.items())[start : start + 500]
        await asyncio.gather(*(cache.set(*each) for each in some))
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    assert await cache.get_many(list(texts)) == texts
    counting.cancel()
    assert turns > len(texts) / KEYS_A_COMMAND


def test_over_several_loops_and_threads(redis_server, redis_url):
    cache = RedisCache(redis_url)
    use_on_several_loops(cache)
    # Each loop has closed its own connections at its end, although nobody closed the cache.
    wait_for_no_connections(redis_server)
    assert len(asyncio.run(contents(cache))) == 6 * 64


def test_a_cache_that_is_forgotten_closes_its_connections(redis_server, redis_url):
    async def use_and_forget():
        await RedisCache(redis_url).set("a", "1")
        gc.collect()
        deadline = time.monotonic() + 5
        with redis_server.client() as client:
            while len(client.client_list()) > 1:
                assert time.monotonic() < deadline
                await asyncio.sleep(0)

    # What was not closed would be a warning, and warnings are errors.
    asyncio.run(use_and_forget())


def test_caches_that_are_replaced_close_their_connections(redis_server, redis_url):
    engine, numbers = ScriptedGPT(), []
    for number in range(6):
        frame = pd.DataFrame({"text": [f"row {number} {row}" for row in range(100)]})
        with lb.using(cache=RedisCache(redis_url), progress=False, errors="raise"):
            frame.lbgpt.complete("{text}", model="m", engine=engine)
        gc.collect()
        with redis_server.client() as client:
            numbers.append(len(client.client_list()) - 1)
    # The last run's report keeps its cache; the one before it may still be closing.
    assert max(numbers) <= 2 * 32
    with lb.using(cache={}, progress=False):
        frame.lbgpt.complete("{text}", model="m", engine=engine)
    gc.collect()
    wait_for_no_connections(redis_server)


def use_on_several_loops(cache):
    async def work(name):
        await asyncio.gather(*(cache.set(f"{name}{n}", "x") for n in range(64)))
        assert len(await cache.get_many([f"{name}{n}" for n in range(64)])) == 64

    for name in "ab":
        asyncio.run(work(name))
    threads = [threading.Thread(target=asyncio.run, args=(work(name),)) for name in "cdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def wait_for_no_connections(server):
    deadline = time.monotonic() + 5
    with server.client() as client:
        while len(client.client_list()) > 1:
            assert time.monotonic() < deadline


async def test_closing_reaches_the_connections_of_other_loops(redis_server, cache):
    ready, over = threading.Event(), threading.Event()

    async def use_elsewhere():
        await cache.set("a", "1")
        ready.set()
        await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(use_elsewhere(),))
    thread.start()
    await asyncio.to_thread(ready.wait)
    assert await cache.get_many(["a"]) == {"a": "1"}
    await cache.close()
    wait_for_no_connections(redis_server)
    over.set()
    await asyncio.to_thread(thread.join)
    assert await cache.get_many(["a"]) == {"a": "1"}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(redis_url, in_child):
    cache = RedisCache(redis_url)
    run = lb.engine.portal.run_sync
    run(cache.set("parent", "1"))

    def child():
        run(cache.set("child", "2"))
        assert run(cache.get_many(["parent"])) == {"parent": "1"}
        run(cache.close())
        gc.collect()

    in_child(child)
    assert run(cache.get_many(["parent", "child"])) == {"parent": "1", "child": "2"}
    run(cache.close())


def test_a_script_that_closes_nothing_ends_quietly(redis_url):
    script = f"""
import asyncio, pandas as pd, lbgpt_pandas as lb
from lbgpt_pandas.engine.caches.redis import RedisCache
from lbgpt_pandas.testing import ScriptedGPT
cache = RedisCache({redis_url!r})
lb.configure(engine=ScriptedGPT(), cache=cache, model="m", progress=False)
print(pd.DataFrame({{"t": ["a", "b"]}}).lbgpt.complete("{{t}}").tolist())
asyncio.run(cache.get_many(["a"]))
"""
    command = [sys.executable, "-W", "error", "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout.strip(), ended.stderr) == ("['a', 'b']", "")


def test_down_at_the_start_and_up_later(own_redis, closing):
    server, engine, clock = own_redis(), ScriptedGPT(), FakeClock()
    cache = closing(RedisCache(server.url))
    tier = StandardTier(cache, clock=clock)
    complete_with_one_warning(tier, engine, match="neither read nor written.*cannot be reached")
    assert len(engine.requests) == 40
    # What is held in memory is found there, and stored once the server is up.
    server.start()
    complete(tier, engine)
    lb.engine.portal.run_sync(tier.flush())
    assert len(lb.engine.portal.run_sync(contents(cache))) == 40
    complete(StandardTier(cache), engine)
    assert len(engine.requests) == 40


def test_killed_in_the_middle_of_a_run_and_restarted(own_redis, closing):
    server, clock = own_redis().start(), FakeClock()
    sent = 0

    def answer(request):
        nonlocal sent
        sent += 1
        if sent == 50:
            server.kill()
        if sent == 150:
            server.start()
            clock.advance(60)
        return request.messages[-1]["content"]

    engine = ScriptedGPT(answer, max_parallel_calls=8)
    cache = closing(RedisCache(server.url))
    tier = StandardTier(cache, clock=clock)
    complete_with_one_warning(tier, engine, match="written", rows=200)
    lb.engine.portal.run_sync(tier.flush())
    # Lost with the server is what it had before; everything after that moment is there.
    stored = lb.engine.portal.run_sync(contents(cache))
    assert len(stored) >= 200 - 50
    engine = ScriptedGPT()
    complete(StandardTier(cache), engine, rows=200)
    assert len(engine.requests) == 200 - len(stored)


def test_a_line_that_is_too_slow_costs_few_time_outs(redis_server, redis_url, slow_line, closing):
    line = slow_line(redis_server.port)
    cache = closing(RedisCache(f"redis://127.0.0.1:{line.port}", timeout_s=0.1))
    tier, engine = StandardTier(cache, clock=FakeClock()), ScriptedGPT(max_parallel_calls=4)
    complete(tier, engine, rows=5)
    line.delay_s = 0.5
    start = time.monotonic()
    complete_with_one_warning(tier, engine, match="did not answer within 0.1 s", rows=300)
    # 300 time-outs would take 7 seconds with 4 at a time.
    assert time.monotonic() - start < 4
    line.delay_s = 0.0
    before = len(engine.requests)
    complete(tier, engine, rows=300)
    assert len(engine.requests) == before
    lb.engine.portal.run_sync(tier.flush())
    assert len(lb.engine.portal.run_sync(contents(closing(RedisCache(redis_url))))) == 300


def test_a_slow_line_within_the_time_out_is_no_failure(redis_server, redis_url, slow_line, closing):
    line = slow_line(redis_server.port)
    line.delay_s = 0.1
    tier = StandardTier(closing(RedisCache(f"redis://127.0.0.1:{line.port}", timeout_s=2)))
    engine = ScriptedGPT()
    complete(tier, engine, rows=32)
    complete(tier, engine, rows=32)
    assert len(engine.requests) == 32


def test_a_queue_for_a_connection_is_no_outage(redis_server, redis_url, slow_line, closing):
    line = slow_line(redis_server.port)
    line.delay_s = 0.02
    # 2,000 answers over 32 connections wait longer than the time-out for their turn.
    cache = closing(RedisCache(f"redis://127.0.0.1:{line.port}", timeout_s=0.8))
    tier, engine = StandardTier(cache), ScriptedGPT(max_parallel_calls=2_000)
    complete(tier, engine, rows=3_000)
    assert tier.write_failures == 0
    engine = ScriptedGPT()
    complete(StandardTier(closing(RedisCache(redis_url))), engine, rows=3_000)
    assert not engine.requests


@pytest.mark.parametrize("end", ["hangs", "dies"])
async def test_the_queue_ends_with_the_server(own_redis, end):
    server = own_redis().start()
    cache = RedisCache(server.url, timeout_s=0.2, max_connections=2)
    await cache.set("a", "1")
    with server.client() as client:
        client.client_pause(60_000)
    start = time.monotonic()
    waiting = [asyncio.create_task(cache.set(f"k{n}", "x")) for n in range(300)]
    await asyncio.sleep(0.02)
    if end == "dies":
        server.kill()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(each) for each in ended} == {{"hangs": TimeoutError, "dies": ConnectionError}[end]}
    # One after the other they would take 30 seconds.
    assert time.monotonic() - start < 3
    await cache.close()


async def test_one_lost_connection_ends_no_queue_that_moves():
    from redis.asyncio import Redis

    line = RedisLine(Redis(max_connections=2))

    async def wait():
        async with line.place():
            return "served"

    for is_answered in (False, True):
        async with line.place(), line.place():
            waiting = [asyncio.create_task(wait()) for _ in range(3)]
            await asyncio.sleep(0)
            line.fell_silent(ConnectionError("lost"))
            if is_answered:
                line.is_heard()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert list(map(str, ended)) == ["served" if is_answered else "lost"] * 3


async def test_after_an_outage_the_next_one_tries_again(own_redis):
    server = own_redis()
    cache = RedisCache(server.url, max_connections=1)
    for _ in range(2):
        failed = await asyncio.gather(
            *(cache.get_many(["a"]) for _ in range(20)), return_exceptions=True
        )
        assert {type(each) for each in failed} == {ConnectionError}
    server.start()
    assert await asyncio.gather(*(cache.get_many(["a"]) for _ in range(20))) == [{}] * 20
    await cache.close()


async def test_those_who_give_up_waiting_keep_no_connection(redis_server, slow_line):
    line = slow_line(redis_server.port)
    cache = RedisCache(f"redis://127.0.0.1:{line.port}", max_connections=2)
    line.delay_s = 0.01
    waiting = [asyncio.create_task(cache.set(f"k{n}", "x")) for n in range(100)]
    for number, task in enumerate(waiting):
        await asyncio.sleep(0.001)
        if number % 3:
            task.cancel()
            task.cancel()
    async with asyncio.timeout(20):
        await asyncio.gather(*waiting, return_exceptions=True)
        assert len(await cache.get_many([f"k{n}" for n in range(0, 100, 3)])) == 34
        assert await asyncio.gather(*(cache.get_many(["no"]) for _ in range(20))) == [{}] * 20
    await cache.close()


async def test_an_answer_that_is_lost_once_is_asked_for_again(redis_server, redis_url, slow_line):
    line = slow_line(redis_server.port)
    cache = RedisCache(f"redis://127.0.0.1:{line.port}")
    await cache.set("a", "1")
    line.cuts = 1
    assert await cache.get_many(["a"]) == {"a": "1"}
    line.cuts = 2
    with pytest.raises(ConnectionError, match=f"127.0.0.1:{line.port} cannot be reached"):
        await cache.get_many(["a"])
    assert await cache.get_many(["a"]) == {"a": "1"}
    await cache.close()


@pytest.mark.parametrize("user", ["", "somebody"])
def test_a_wrong_password_is_one_warning_without_it(own_redis, closing, user):
    server = own_redis("--requirepass", "right").start()
    cache = closing(RedisCache(f"redis://{user}:{SECRET}@127.0.0.1:{server.port}"))
    assert SECRET not in repr(cache) + cache.location
    tier = StandardTier(cache, clock=FakeClock())
    complete_with_one_warning(tier, ScriptedGPT(), match="refused the user")


def test_a_user_who_may_only_read(redis_server, redis_url, closing):
    engine = ScriptedGPT()
    complete(StandardTier(closing(RedisCache(redis_url))), engine, rows=10)
    with redis_server.client() as client:
        client.acl_setuser(
            "reader", enabled=True, passwords=[f"+{SECRET}"], keys=["*"], commands=["+mget"]
        )
    url = redis_url.replace("redis://", f"redis://reader:{SECRET}@")
    tier = StandardTier(closing(RedisCache(url)), clock=FakeClock())
    complete(tier, engine, rows=10)
    assert len(engine.requests) == 10
    complete_with_one_warning(tier, engine, match="cannot be written.*MGET, SET", rows=20)
    assert len(engine.requests) == 20


def test_a_full_redis_refuses_and_is_tried_again(own_redis, closing):
    server = own_redis().start()
    cache, engine = closing(RedisCache(server.url)), ScriptedGPT()
    tier = StandardTier(cache, clock=FakeClock())
    complete(tier, engine, rows=5)
    with server.client() as client:
        client.config_set("maxmemory", "1")
        complete_with_one_warning(tier, engine, match="cannot be written.*refused", rows=20)
        client.config_set("maxmemory", "0")
    lb.engine.portal.run_sync(tier.flush())
    complete(StandardTier(cache), engine, rows=20)
    assert len(engine.requests) == 20


def test_two_engines_share_it(redis_url, closing):
    engines = ScriptedGPT(), ScriptedGPT()
    for engine in engines:
        complete(closing(RedisCache(redis_url)), engine)
    assert [len(engine.requests) for engine in engines] == [40, 0]


@pytest.mark.parametrize(
    "url",
    [f"{SECRET}@host", f"http://u:{SECRET}@host", f"redis://:{SECRET}@host:port", 3, ""],
)
def test_what_is_no_address_is_refused_at_once(url):
    with pytest.raises(ConfigurationError, match="redis://host") as caught:
        RedisCache(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "location"),
    [
        (f"redis://u:{SECRET}@Host/2?password={SECRET}", "redis://host:6379/2"),
        ("rediss://[::1]:1234/", "rediss://[::1]:1234"),
        (f"unix://:{SECRET}@/run/redis.sock?db=1", "unix:///run/redis.sock"),
    ],
)
def test_where_it_lies_is_told_without_secrets(url, location):
    cache = RedisCache(url)
    assert cache.location == location
    assert SECRET not in repr(cache) + repr(vars(cache))


@pytest.mark.parametrize(
    "wrong",
    [{"timeout_s": 0}, {"max_connections": 0}, {"ttl": 0}, {"ttl": -1}, {"ttl": float("nan")}],
)
def test_arguments_that_cannot_work_are_refused_at_once(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RedisCache("redis://localhost", **wrong)


async def test_options_that_the_client_refuses_are_told_without_the_password():
    cache = RedisCache(f"redis://:{SECRET}@localhost/?socket_timeout={SECRET}")
    with pytest.raises(ConfigurationError, match="socket_timeout") as caught:
        await cache.get_many(["a"])
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_without_the_package_the_install_line_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    tier = StandardTier(RedisCache("redis://localhost"))
    with pytest.raises(MissingExtraError, match=r"lbgpt-pandas\[redis\]"):
        await tier.find(["a"])


def test_nothing_is_loaded_or_opened_by_making_one():
    script = """
import sys
from lbgpt_pandas.engine.caches.redis import RedisCache
RedisCache("redis://localhost")
assert "redis" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_composed_redis_if_it_runs(closing, composed):
    url = f"redis://127.0.0.1:{composed('redis', 6379)}"
    cache = closing(RedisCache(url, prefix=f"lbgpt-test-{time.time_ns()}:", ttl=60))
    engine = ScriptedGPT()
    for _ in range(2):
        complete(StandardTier(cache), engine)
    assert len(engine.requests) == 40
    assert len(lb.engine.portal.run_sync(contents(cache))) == 40


async def test_an_abandoned_call_leaves_no_connection_in_between(cache, slow_line, redis_server):
    line = slow_line(redis_server.port)
    slow = RedisCache(f"redis://127.0.0.1:{line.port}", max_connections=1)
    await slow.set("a", "1")
    line.delay_s = 0.2
    task = asyncio.create_task(slow.get_many(["a"]))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    line.delay_s = 0.0
    # The late answer is not taken for that of another question.
    assert await slow.get_many(["b"]) == {}
    assert await slow.get_many(["a"]) == {"a": "1"}
    await slow.close()
