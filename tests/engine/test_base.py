"""The pipeline of one request, and LBGPT's methods on top of it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time

import pytest

from lbgpt_pandas.engine.balanced import MultiLoadBalancedGPT
from lbgpt_pandas.engine.caches.base import MemoryCache
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.caching import Caching
from lbgpt_pandas.engine.errors import (
    BadRequest,
    ConfigurationError,
    MalformedResponse,
    RateLimited,
    ServerError,
    Timeout,
)
from lbgpt_pandas.engine.gpt import ChatGPT
from lbgpt_pandas.engine.types import Request
from lbgpt_pandas.testing import ScriptedGPT

MESSAGES = [{"role": "user", "content": "hi"}]


def content(answer):
    return None if answer is None else answer.choices[0].message.content


def requests(*texts):
    return [{"model": "m", "messages": [{"role": "user", "content": t}]} for t in texts]


async def test_the_first_attempt_does_not_wait_and_failures_are_retried(clock):
    engine = ScriptedGPT([ServerError("a", status=500), ServerError("b", status=500), "ok"],
                         clock=clock)  # fmt: skip
    answer = await engine.cached_chat_completion({"model": "m", "messages": MESSAGES})
    assert content(answer) == "ok"
    assert answer.attempts == 3


async def test_retry_after_is_a_floor(clock):
    engine = ScriptedGPT([RateLimited("wait", status=429, retry_after=7.0), "ok"], clock=clock)
    began = clock.monotonic()
    await engine.cached_chat_completion({"model": "m", "messages": MESSAGES})
    assert 7.0 <= clock.monotonic() - began <= 8.0


async def test_a_place_is_free_while_a_request_waits_for_its_retry(clock):
    def reply(request):
        first = request.messages[0]["content"] == "slow"
        if first and sum(r.messages[0]["content"] == "slow" for r in engine.requests) == 1:
            return ServerError("wait", status=500, retry_after=50.0)
        return "ok"

    engine = ScriptedGPT(reply, max_parallel_calls=1, clock=clock)
    engine.proven.add("m")
    answers = await engine.achat_completion_list(requests("slow", "a", "b"), show_progress=False)
    assert [content(a) for a in answers] == ["ok"] * 3
    order = [r.messages[0]["content"] for r in engine.requests]
    assert order == ["slow", "a", "b", "slow"]


async def test_the_last_error_is_raised_itself(clock):
    engine = ScriptedGPT(lambda _: ServerError("down", status=500), stop_after_attempts=3,
                         clock=clock)  # fmt: skip
    with pytest.raises(ServerError, match="down"):
        await engine.cached_chat_completion({"model": "m", "messages": MESSAGES})
    assert len(engine.requests) == 3


async def test_what_cannot_be_cured_is_not_retried(clock):
    engine = ScriptedGPT(lambda _: BadRequest("no", status=400), clock=clock)
    with pytest.raises(BadRequest):
        await engine.cached_chat_completion({"model": "m", "messages": MESSAGES})
    assert len(engine.requests) == 1
    assert clock.slept == []


async def test_a_malformed_answer_is_retried_and_not_cached(clock):
    engine = ScriptedGPT([{"choices": []}, "ok"], clock=clock)
    answer = await engine.cached_chat_completion({"model": "m", "messages": MESSAGES})
    assert content(answer) == "ok"
    always = ScriptedGPT(lambda _: {"nothing": 1}, clock=clock)
    with pytest.raises(MalformedResponse):
        await always.cached_chat_completion({"model": "m", "messages": MESSAGES})
    assert len(always.requests) == 3


async def test_an_attempt_that_hangs_times_out():
    engine = ScriptedGPT(latency_s=30.0, request_timeout=0.02, stop_after_attempts=1)
    with pytest.raises(Timeout) as caught:
        await engine.cached_chat_completion({"model": "m", "messages": MESSAGES})
    assert caught.value.maybe_billed
    outcome = (await _outcomes(engine, {"request_timeout": 0.01}))[0]
    assert "0.01 s" in str(outcome.error)
    assert outcome.maybe_billed


async def _outcomes(engine, options):
    request = Request(MESSAGES, {"model": "m"}, options)
    return [await engine.afetch(request, key="k", caching=Caching())]


async def test_a_paid_answer_is_stored_although_the_row_is_cancelled_meanwhile():
    class SlowCache(MemoryCache):
        def __init__(self):
            super().__init__()
            self.begun, self.go_on = asyncio.Event(), asyncio.Event()

        async def set(self, key, value, **options):
            self.begun.set()
            await self.go_on.wait()
            await super().set(key, value, **options)

    cache = SlowCache()
    engine = ScriptedGPT("paid")
    caching = Caching.of(StandardTier(cache), "use")
    async with engine:
        task = asyncio.create_task(
            engine.afetch(Request(MESSAGES, {"model": "m"}), key="k", caching=caching)
        )
        await cache.begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        cache.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert list(await cache.get_many(["k"])) == ["k"]


async def test_a_cache_that_cannot_write_does_not_lose_the_answer():
    class Full(dict):
        def __setitem__(self, key, value):
            raise OSError(28, "No space left on device")

    engine = ScriptedGPT("paid", cache=Full())
    answer = await engine.cached_chat_completion({"model": "m", "messages": MESSAGES})
    assert content(answer) == "paid"
    assert engine.tier.take_notices()


async def test_lbgpt_list_keeps_order_with_a_failing_middle_row():
    engine = ScriptedGPT(
        lambda r: BadRequest("no", status=400) if r.messages[0]["content"] == "b" else "ok"
    )
    answers = await engine.achat_completion_list(requests("a", "b", "c"), show_progress=False)
    assert [content(answer) for answer in answers] == ["ok", None, "ok"]
    strict = ScriptedGPT(lambda _: BadRequest("no", status=400), stop_on_exception=True)
    with pytest.raises(BadRequest):
        await strict.achat_completion_list(requests("a", "b"), show_progress=False)


def test_sync_twice_and_from_threads():
    engine = ScriptedGPT("ok", auto_cache=False)
    results = []

    def call():
        results.append(engine.chat_completion_list(requests(*"abcde"), show_progress=False))

    call()
    call()
    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all([content(a) for a in answers] == ["ok"] * 5 for answers in results)
    assert len(results) == 6


def test_over_three_event_loops():
    engine = ScriptedGPT("ok", auto_cache=False)
    for _ in range(3):
        answers = asyncio.run(engine.achat_completion_list(requests(*"abc"), show_progress=False))
        assert [content(a) for a in answers] == ["ok"] * 3
    gc.collect()


async def test_sync_inside_a_running_loop():
    engine = ScriptedGPT("ok")
    answers = engine.chat_completion_list(requests("a"), show_progress=False)
    assert content(answers[0]) == "ok"


async def test_connections_live_for_the_outermost_block():
    engine = ScriptedGPT("ok", auto_cache=False)
    assert engine._sessions == {}
    async with engine:
        session = next(iter(engine._sessions.values()))
        await engine.chat_completion(model="m", messages=MESSAGES)
        async with engine:
            assert next(iter(engine._sessions.values())) is session
        assert engine._sessions
    assert engine._sessions == {}


async def test_chat_completion_is_one_call_without_cache(clock):
    engine = ScriptedGPT(["one", "two", ServerError("x", status=500)], clock=clock)
    assert content(await engine.chat_completion(model="m", messages=MESSAGES)) == "one"
    assert content(await engine.chat_completion(model="m", messages=MESSAGES)) == "two"
    with pytest.raises(ServerError):
        await engine.chat_completion(model="m", messages=MESSAGES)
    assert len(engine.requests) == 3


async def test_flags_of_cached_and_fresh_answers():
    engine = ScriptedGPT("ok")
    request = {"model": "m", "messages": MESSAGES}
    fresh = await engine.cached_chat_completion(request)
    cached = await engine.cached_chat_completion(request)
    assert (fresh.is_cached, fresh.is_exact, fresh.attempts) == (False, True, 1)
    assert (cached.is_cached, cached.is_exact, cached.attempts) == (True, True, 0)
    assert fresh.model_class == "ScriptedGPT"
    uncached = await engine.cached_chat_completion(request, use_cache=False)
    assert not uncached.is_cached


async def test_an_alias_shares_answers_between_model_names():
    engine = ScriptedGPT("ok")
    for model in ("gpt-a-2024", "gpt-a-2025"):
        await engine.cached_chat_completion(
            {"model": model, "messages": MESSAGES, "model_name_cache_alias": "gpt-a"}
        )
    assert len(engine.requests) == 1
    assert "model_name_cache_alias" not in engine.requests[0].params


async def test_engine_tools_are_sent_and_are_in_the_key():
    tools = [{"type": "function", "function": {"name": "f"}}]
    cache = {}
    plain, tooled = ScriptedGPT("a", cache=cache), ScriptedGPT("b", cache=cache, tools=tools)
    request = {"model": "m", "messages": MESSAGES}
    assert content(await plain.cached_chat_completion(request)) == "a"
    assert content(await tooled.cached_chat_completion(request)) == "b"
    assert tooled.requests[0].params["tools"] == tools
    assert "tools" not in plain.requests[0].params


async def test_usage_counts_the_prompt_once(clock):
    engine = ScriptedGPT("ok", clock=clock)
    for text in "abc":
        await engine.cached_chat_completion(requests(text)[0])
    await engine.cached_chat_completion(requests("a")[0])
    usage = engine.usage_cache_list
    assert len(usage) == 3
    assert all(u.total_tokens == u.prompt_tokens + u.completion_tokens for u in usage)
    assert all(u.output_tokens == u.total_tokens for u in usage)
    stats = engine.get_usage_stats()
    assert (stats.requests, stats.tokens) == (3, sum(u.total_tokens for u in usage))
    assert engine.expected_tokens_per_request() == stats.tokens / 3
    clock.advance(61)
    assert engine.get_usage_stats().requests == 0


async def test_the_last_minute_is_not_cut_by_the_size_of_the_list():
    engine = ScriptedGPT("ok", max_usage_cache_size=5, auto_cache=False)
    await engine.achat_completion_list(requests(*map(str, range(20))), show_progress=False)
    assert len(engine.usage_cache_list) == 5
    assert engine.get_usage_stats().requests == 20


async def test_calls_in_flight_are_reserved_in_the_stats(clock):
    engine = ScriptedGPT(latency_s=5.0, clock=clock)
    async with engine:
        task = asyncio.create_task(engine.chat_completion(model="m", messages=MESSAGES))
        while not engine.requests:
            await asyncio.sleep(0)
        assert engine.get_usage_stats().requests == 0
        assert engine.get_usage_stats(include_usage_reservation=True).requests == 1
        await task


@pytest.mark.parametrize(
    "settings",
    [{"max_parallel_calls": 0}, {"max_parallel_calls": True}, {"max_parallel_calls": 1.5},
     {"stop_after_attempts": 0}, {"cache": 3}, {"request_timeout": -1},
     {"request_timeout": "5"}, {"max_usage_cache_size": -1}],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigurationError):
        ScriptedGPT("ok", **settings)


def test_an_interrupted_list_keeps_what_arrives_in_time():
    engine = ScriptedGPT("ok", latency_s=0.1)
    engine.proven.add("m")

    def press():
        while len(engine.requests) < 8:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    # A test run in the background of a shell inherits a SIGINT that is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    presser = threading.Thread(target=press)
    presser.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.chat_completion_list(requests(*"abcdefgh"), show_progress=False)
    finally:
        presser.join()
        signal.signal(signal.SIGINT, before)
    answers = engine.chat_completion_list(requests(*"abcdefgh"), show_progress=False)
    assert all(answer.is_cached for answer in answers)
    assert len(engine.requests) == 8


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_another_thread_holds_a_lock_does_not_hang():
    engine = ScriptedGPT("ok", auto_cache=False)
    with engine._lock, engine._usage._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            asyncio.run(engine.achat_completion_list(requests("a"), show_progress=False))
            os._exit(0 if engine.get_usage_stats().requests == 1 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize(
    "request_",
    [{}, {"messages": "hi"}, {"messages": ["hi"]}, {"messages": MESSAGES, "stream": True}],
)
async def test_a_request_without_messages_is_refused(request_):
    with pytest.raises(TypeError, match=r"messages|stream"):
        await ScriptedGPT("ok").chat_completion(**request_)


async def test_a_thousand_cancelled_runs_leave_nothing_behind():
    engine = ScriptedGPT(latency_s=10.0, max_parallel_calls=4)
    engine.proven.add("m")
    async with engine:
        session = next(iter(engine._sessions.values()))
        for _ in range(1_000):
            tasks = [
                asyncio.create_task(
                    engine.afetch(Request(MESSAGES, {"model": "m"}), key=str(k), caching=Caching())
                )
                for k in range(6)
            ]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert engine.deployment.in_flight == session.scheduler.in_flight == 0
        assert session.lanes[0].in_flight == 0
        quota = engine.deployment.quota
        settled = {name: quota.committed[name] + quota.released[name] for name in quota.reserved}
        assert quota.reserved == settled
        assert session.users == 1
        assert session.flights._flights == {}
    assert engine._sessions == {}


def test_an_engine_shows_itself_as_html_without_its_key():
    members = [
        ChatGPT("sk-CANARY0123456789abcdef", limit_rpm=500, name="<b>east</b>"),
        ChatGPT("sk-CANARY0123456789abcdef", name="west"),
    ]
    shown = MultiLoadBalancedGPT(members)._repr_html_()
    assert "500 of 500 requests left" in shown
    assert "west" in shown
    assert "<b>" not in shown
    assert "CANARY" not in shown
