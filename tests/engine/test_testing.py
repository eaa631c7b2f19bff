"""The test doubles that are shipped: virtual time and the scripted engine."""

from __future__ import annotations

import asyncio
import threading
import traceback
from datetime import UTC, datetime, timedelta, timezone

import pytest

from lbgpt_pandas.engine.completions import read_completion
from lbgpt_pandas.engine.errors import ConfigurationError, ServerError
from lbgpt_pandas.engine.types import Request
from lbgpt_pandas.testing import FakeClock, ScriptedGPT
from lbgpt_pandas.testing.clock import FIRST_MONOTONIC_S, PATIENCE
from lbgpt_pandas.testing.wire import count_tokens


def ask(text="hi", **more):
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


async def said(engine, text="hi", **more):
    return (await engine.chat_completion(**ask(text, **more))).choices[0].message.content


# FakeClock


async def test_sleepers_wake_in_the_order_of_their_deadlines(clock):
    woken = []

    async def sleeper(seconds):
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic() - FIRST_MONOTONIC_S))

    await asyncio.gather(*[sleeper(seconds) for seconds in (30, 1, 86_400, 2.5, 30)])
    assert woken == [(1, 1), (2.5, 2.5), (30, 30), (30, 30), (86_400, 86_400)]
    assert clock.slept == [30, 1, 86_400, 2.5, 30]


async def test_equal_deadlines_wake_in_the_order_of_falling_asleep(clock):
    woken = []

    async def sleeper(name):
        await clock.sleep(5)
        woken.append(name)

    await asyncio.gather(*[sleeper(name) for name in range(50)])
    assert woken == list(range(50))


async def test_time_stands_still_while_another_task_can_run(clock):
    seen = set()

    async def busy():
        for _ in range(PATIENCE // 4):
            seen.add(clock.monotonic())
            await asyncio.sleep(0)

    sleeper = asyncio.create_task(clock.sleep(1))
    await busy()
    assert seen == {FIRST_MONOTONIC_S}
    await sleeper
    assert clock.monotonic() == FIRST_MONOTONIC_S + 1


async def test_what_a_woken_task_starts_runs_before_time_moves_on(clock):
    seen = []

    async def first():
        await clock.sleep(1)
        for _ in range(20):
            await asyncio.sleep(0)
        seen.append(clock.monotonic())
        await clock.sleep(0.5)
        seen.append(clock.monotonic())

    await asyncio.gather(first(), clock.sleep(2))
    assert [moment - FIRST_MONOTONIC_S for moment in seen] == [1, 1.5]


async def test_data_on_a_socket_is_read_before_time_moves(clock):
    seen = []

    async def serve(reader, writer):
        seen.append((await reader.readline(), clock.monotonic()))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"now\n")
        await clock.sleep(3_600)
        assert seen == [(b"now\n", FIRST_MONOTONIC_S)]
        writer.close()
        await writer.wait_closed()


async def test_a_poller_does_not_stop_time_for_ever(clock):
    task = asyncio.create_task(clock.sleep(10))
    while not task.done():
        await asyncio.sleep(0)
    assert clock.monotonic() == FIRST_MONOTONIC_S + 10


async def test_a_cancelled_sleeper_holds_nothing_up(clock):
    cancelled = asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0)
    cancelled.cancel()
    await clock.sleep(2)
    assert cancelled.cancelled()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await clock.sleep(1)
    await clock.sleep(3)
    assert clock.monotonic() == FIRST_MONOTONIC_S + 5


async def test_by_hand_only(clock):
    clock = FakeClock(auto_advance=False)
    woken = []

    async def sleeper(seconds):
        await clock.sleep(seconds)
        woken.append(seconds)

    tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (3, 1, 2)]
    for _ in range(50):
        await asyncio.sleep(0)
    assert woken == []
    clock.advance(2)
    for _ in range(5):
        await asyncio.sleep(0)
    assert woken == [1, 2]
    clock.advance(1)
    await asyncio.gather(*tasks)
    assert clock.monotonic() == FIRST_MONOTONIC_S + 3


def test_advance_wakes_sleepers_of_a_loop_in_another_thread():
    clock = FakeClock(auto_advance=False)
    asleep = threading.Event()

    async def main():
        asyncio.get_running_loop().call_later(0.001, asleep.set)
        await clock.sleep(60)
        return clock.monotonic()

    result = []
    thread = threading.Thread(target=lambda: result.append(asyncio.run(main())))
    thread.start()
    assert asleep.wait(5)
    clock.advance(60)
    thread.join(5)
    assert result == [FIRST_MONOTONIC_S + 60]


def test_two_loops_share_one_time():
    clock = FakeClock()
    woken = []
    ready = threading.Barrier(2)

    async def main(seconds):
        ready.wait(5)
        for each in seconds:
            await clock.sleep(each)
            woken.append(clock.monotonic() - FIRST_MONOTONIC_S)

    threads = [
        threading.Thread(target=asyncio.run, args=(main(seconds),))
        for seconds in ((5, 5, 5), (4, 5, 5))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert len(woken) == 6
    assert woken == sorted(woken)


def test_one_clock_over_several_runs():
    clock = FakeClock()
    for _ in range(3):
        asyncio.run(clock.sleep(7))
    assert clock.monotonic() == FIRST_MONOTONIC_S + 21

    async def leave_a_sleeper_behind():
        task = asyncio.create_task(clock.sleep(1))
        await asyncio.sleep(0)
        return task

    asyncio.run(leave_a_sleeper_behind())
    asyncio.run(clock.sleep(9))
    assert clock.monotonic() == FIRST_MONOTONIC_S + 30


def test_a_loop_that_does_not_show_what_is_ready():
    uvloop = pytest.importorskip("uvloop")
    clock, woken = FakeClock(), []

    async def sleeper(seconds):
        await clock.sleep(seconds)
        woken.append(clock.monotonic() - FIRST_MONOTONIC_S)

    async def main():
        await asyncio.gather(*[sleeper(seconds) for seconds in (3, 1, 2)])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert woken == [1, 2, 3]


async def test_wall_time_follows_and_can_be_set_alone(clock):
    began = clock.wall()
    assert began == datetime(2026, 1, 1, tzinfo=UTC)
    await clock.sleep(90)
    assert clock.wall() - began == timedelta(seconds=90)
    clock.shift_wall(-3_600)
    assert clock.wall() < began
    assert clock.monotonic() == FIRST_MONOTONIC_S + 90
    east = FakeClock(start=datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=5))))
    assert east.wall() == datetime(2029, 12, 31, 19, tzinfo=UTC)
    assert east.wall().tzinfo is UTC


async def test_times_that_make_no_sense_are_refused(clock):
    for seconds in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            await clock.sleep(seconds)
        with pytest.raises(ValueError, match="forward"):
            clock.advance(seconds)
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="time zone"):
        FakeClock(start=datetime(2030, 1, 1))  # noqa: DTZ001
    await clock.sleep(0)
    await clock.sleep(-1)
    assert clock.monotonic() == FIRST_MONOTONIC_S


def test_the_same_run_twice_is_the_same():
    def run():
        clock, log = FakeClock(), []

        async def worker(number):
            for step in range(5):
                await clock.sleep((number * 7 + step * 3) % 11 / 10)
                log.append((number, step, clock.monotonic()))

        async def main():
            await asyncio.gather(*[worker(number) for number in range(20)])

        asyncio.run(main())
        return log

    assert run() == run()


# ScriptedGPT


async def test_by_default_the_last_user_message_comes_back():
    engine = ScriptedGPT()
    messages = [
        {"role": "user", "content": "first"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "la"}, {"type": "text", "text": "st"}],
        },
        {"role": "assistant", "content": "not me"},
    ]
    answer = await engine.chat_completion(messages=messages)
    assert answer.choices[0].message.content == "last"
    assert answer.model == "scripted"


async def test_a_text_answers_everything():
    engine = ScriptedGPT("yes")
    assert [await said(engine, text) for text in "ab"] == ["yes", "yes"]


async def test_a_mapping_answers_by_the_prompt():
    engine = ScriptedGPT({"a": "1", "b": ServerError("down", status=500)})
    assert await said(engine, "a") == "1"
    with pytest.raises(ServerError):
        await said(engine, "b")
    with pytest.raises(ConfigurationError, match="no answer to 'c'"):
        await said(engine, "c")


async def test_a_sequence_is_used_up_in_order_and_its_end_is_told():
    lines = ["one", ServerError("down", status=500), {"choices": [{"message": {"content": "3"}}]}]
    engine = ScriptedGPT(lines)
    lines.clear()
    assert await said(engine) == "one"
    with pytest.raises(ServerError):
        await said(engine)
    assert await said(engine) == "3"
    with pytest.raises(ConfigurationError, match=r"3 answers is at its end.*'more"):
        await said(engine, "more" * 100)
    assert len(engine.requests) == 4


def test_a_sequence_serves_threads_without_repeating_itself():
    engine = ScriptedGPT([str(number) for number in range(200)], auto_cache=False)
    got = []

    def work():
        answers = engine.chat_completion_list([ask() for _ in range(25)], show_progress=False)
        got.extend(answer.choices[0].message.content for answer in answers)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 100
    assert len(engine.requests) == len({*got})


async def test_an_exception_is_raised_for_every_request_and_its_trace_does_not_grow():
    error = ServerError("down", status=500)
    engine = ScriptedGPT(error)
    depths = []
    for _ in range(5):
        with pytest.raises(ServerError) as caught:
            await said(engine)
        assert caught.value is error
        depths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len({*depths}) == 1


async def test_a_callable_gets_the_request_and_may_be_a_coroutine():
    async def slow(request):
        await asyncio.sleep(0)
        return f"{request.messages[0]['content']} at {request.params['temperature']}"

    assert await said(ScriptedGPT(slow), "x", temperature=0.5) == "x at 0.5"
    assert await said(ScriptedGPT(lambda r: r.model)) == "m"


async def test_private_options_are_not_among_what_is_sent():
    engine = ScriptedGPT("ok")
    await said(engine, model_name_cache_alias="x", request_timeout=3)
    request = engine.requests[0]
    assert isinstance(request, Request)
    assert set(request.params) == {"model"}


async def test_an_answer_of_the_wrong_kind_is_told():
    with pytest.raises(TypeError, match="answered with int"):
        await said(ScriptedGPT([3]))
    with pytest.raises(TypeError, match="int is not understood"):
        ScriptedGPT(3)


async def test_latency_is_slept_on_the_clock_by_request(clock):
    engine = ScriptedGPT(latency_s=lambda r: float(r.messages[0]["content"]), clock=clock)
    began = clock.monotonic()
    await asyncio.gather(said(engine, "3"), said(engine, "5"))
    assert clock.monotonic() - began == 5
    assert clock.slept == [3, 5]
    assert engine.in_flight_peak == 2


async def test_in_flight_returns_to_zero_after_a_cancellation(clock):
    clock = FakeClock(auto_advance=False)
    engine = ScriptedGPT(latency_s=1, clock=clock)
    async with engine:
        task = asyncio.create_task(said(engine))
        while not engine.requests:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        other = asyncio.create_task(said(engine))
        while len(engine.requests) < 2:
            await asyncio.sleep(0)
        clock.advance(1)
        await other
    assert engine.in_flight_peak == 1


async def test_answers_are_completions_with_usage_by_the_documented_rule(clock):
    engine = ScriptedGPT("x" * 41, clock=clock)
    answer = await engine.chat_completion(**ask("y" * 22, n=2, max_tokens=5))
    assert [choice.message.content for choice in answer.choices] == ["x" * 20] * 2
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.prompt_tokens == count_tokens("y" * 22) == 5
    assert answer.usage.completion_tokens == 10
    assert answer.usage.total_tokens == 15
    assert answer.created == int(clock.wall().timestamp())
    assert answer.id
    assert answer.deployment == "ScriptedGPT"


async def test_ids_are_the_same_in_every_run():
    for _ in range(2):
        engine = ScriptedGPT("x")
        replies = [await engine.answer(Request([], {})) for _ in range(2)]
        assert [reply.request_id for reply in replies] == ["req_00000001", "req_00000002"]
        assert read_completion(replies[0].payload, messages=[], deployment="d").text == "x"
