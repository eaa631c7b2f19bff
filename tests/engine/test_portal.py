"""The portal: one engine loop, three ways into it, from every kind of caller."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from lbgpt_pandas.engine.loop import STOP_S, stop_engine
from lbgpt_pandas.engine.portal import Job, engine_loop, run_async, run_sync

PLACE = contextvars.ContextVar("PLACE", default="nowhere")


async def double(number):
    await asyncio.sleep(0)
    return 2 * number


async def fail(error):
    await asyncio.sleep(0)
    raise error


async def where():
    return PLACE.get(), threading.current_thread().name


async def hang(log):
    try:
        await asyncio.sleep(60)
    finally:
        log.append("stopped")


FORKING = ("-W", "ignore:This process:DeprecationWarning")
"""From 3.12 on Python warns of every fork beside threads."""


def run_script(tmp_path, source, *, options=("-W", "error")):
    """Run Python source in a process of its own; 8 seconds at most."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(source))
    return subprocess.run(
        [sys.executable, *options, str(script)],
        capture_output=True,
        text=True,
        timeout=8,
        check=False,
    )


# --- the loop ---------------------------------------------------------------------------------


def test_there_is_one_loop_in_one_daemon_thread():
    loop = engine_loop()
    assert engine_loop() is loop
    threads = [thread for thread in threading.enumerate() if thread.name == "lbgpt-engine"]
    assert len(threads) == 1
    assert threads[0].daemon


def test_threads_that_start_together_get_the_same_loop():
    stop_engine()
    with ThreadPoolExecutor(8) as pool:
        loops = list(pool.map(lambda _: engine_loop(), range(8)))
    assert len(set(map(id, loops))) == 1


def test_a_new_loop_replaces_one_whose_thread_has_ended():
    old = engine_loop()
    stop_engine()
    assert old.is_closed()
    assert engine_loop() is not old
    assert run_sync(double(1)) == 2


def test_stopping_cancels_what_is_pending_and_runs_its_finally():
    log = []
    job = Job(hang(log))
    run_sync(double(1))  # the job has certainly begun
    stop_engine()
    assert log == ["stopped"]
    with pytest.raises(asyncio.CancelledError):
        job.done.result(timeout=0)


def test_stopping_ends_the_wait_for_a_job_that_refuses_to_end():
    started = threading.Event()

    async def stubborn():
        started.set()
        deadline = time.monotonic() + 2 * STOP_S
        while time.monotonic() < deadline:
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                continue

    job = Job(stubborn())
    started.wait(2)
    began = time.monotonic()
    logging.getLogger("asyncio").disabled = True  # it says that a task was destroyed, as it was
    try:
        stop_engine()
        with pytest.raises(asyncio.CancelledError):
            job.done.result(timeout=1)
        assert time.monotonic() - began < STOP_S + 0.4
        job = None
        gc.collect()
    finally:
        logging.getLogger("asyncio").disabled = False


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_a_coroutine_that_wants_to_end_the_process_ends_only_its_own_job(error):
    loop, log = engine_loop(), []
    other = Job(hang(log))
    with pytest.raises(type(error)):
        run_sync(fail(error))
    assert engine_loop() is loop
    assert run_sync(double(4)) == 8
    assert not other.done.done()
    other.cancel()
    with pytest.raises(asyncio.CancelledError):
        other.done.result(timeout=2)


# --- Job --------------------------------------------------------------------------------------


def test_a_job_gives_its_result_or_its_error():
    assert Job(double(3)).done.result(timeout=2) == 6
    with pytest.raises(ValueError, match="no such row"):
        Job(fail(ValueError("no such row"))).done.result(timeout=2)


def test_a_job_sees_the_callers_context_and_leaves_it_alone():
    async def move():
        PLACE.set("engine")
        return await where()

    token = PLACE.set("cell")
    try:
        assert Job(where()).done.result(timeout=2) == ("cell", "lbgpt-engine")
        assert run_sync(move()) == ("engine", "lbgpt-engine")
        assert PLACE.get() == "cell"
    finally:
        PLACE.reset(token)


def test_cancelling_a_job_stops_its_work():
    log = []
    job = Job(hang(log))
    run_sync(double(1))
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        job.done.result(timeout=2)
    assert log == ["stopped"]


def test_a_job_cancelled_before_its_start_never_runs():
    log = []
    gate = threading.Event()
    engine_loop().call_soon_threadsafe(gate.wait, 2)  # the loop is busy, nothing can start
    job = Job(hang(log))
    job.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        job.done.result(timeout=2)
    assert log == []


def test_a_job_may_be_started_later_or_never(caplog):
    later, never = Job(double(3), start=False), Job(double(4), start=False)
    assert not later.done.done()
    later.start()
    assert later.done.result(timeout=2) == 6
    never.cancel()
    never.start()
    with pytest.raises(asyncio.CancelledError):
        never.done.result(timeout=0)
    run_sync(double(1))
    assert caplog.records == []


def test_the_future_of_a_job_cannot_be_cancelled_behind_its_back():
    log = []
    job = Job(hang(log))
    assert not job.done.cancel()
    assert not job.done.done()
    job.cancel()


def test_cancelling_a_finished_job_does_nothing():
    job = Job(double(3))
    assert job.done.result(timeout=2) == 6
    job.cancel()
    stop_engine()
    job.cancel()
    assert job.done.result(timeout=0) == 6


# --- run_sync ---------------------------------------------------------------------------------


def test_run_sync_gives_the_result_or_the_error():
    assert run_sync(double(21)) == 42
    with pytest.raises(ValueError, match="no such row"):
        run_sync(fail(ValueError("no such row")))


@pytest.mark.parametrize("error", [TimeoutError("provider"), asyncio.CancelledError("provider")])
def test_a_time_out_of_the_coroutine_is_raised_and_not_waited_on(error):
    ticks = []
    began = time.monotonic()
    with pytest.raises(type(error)):
        run_sync(fail(error), tick=lambda: ticks.append(1), interval=0.02)
    assert time.monotonic() - began < 1
    assert len(ticks) <= 2


def test_run_sync_inside_a_running_loop():
    async def cell():
        return run_sync(double(5)), run_sync(where())

    assert asyncio.run(cell()) == (10, ("nowhere", "lbgpt-engine"))


def test_a_client_lives_on_from_call_to_call_and_from_sync_to_async():
    async def make():
        return asyncio.Lock(), asyncio.Event()

    async def use(lock, event):
        async def waiter():
            async with lock:
                await event.wait()

        waiting = asyncio.create_task(waiter())
        await asyncio.sleep(0)
        event.set()
        async with asyncio.timeout(2), lock:
            await waiting if not waiting.done() else None
        return asyncio.get_running_loop()

    lock, event = run_sync(make())

    async def cell():
        return await run_async(use(lock, event))

    assert run_sync(use(lock, event)) is asyncio.run(cell()) is engine_loop()


def test_user_threads_may_call_at_the_same_time():
    barrier = threading.Barrier(4, timeout=2)

    async def meet(number):
        await asyncio.to_thread(barrier.wait)
        return number

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda number: run_sync(meet(number)), range(4))) == [0, 1, 2, 3]


def test_run_sync_on_the_engine_loop_is_refused_instead_of_hanging():
    async def inner():
        return run_sync(double(1))

    with pytest.raises(RuntimeError, match="await its async twin"):
        run_sync(inner())


def test_run_sync_beside_a_uvloop_loop():
    uvloop = pytest.importorskip("uvloop")

    async def cell():
        return run_sync(double(5)), await run_async(double(6))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(cell()) == (10, 12)


def test_the_tick_is_called_while_waiting_and_once_at_the_end():
    done, seen = [], []

    async def work():
        await asyncio.sleep(0.09)
        done.append(1)

    thread = threading.current_thread()
    run_sync(
        work(),
        tick=lambda: seen.append((len(done), threading.current_thread() is thread)),
        interval=0.02,
    )
    assert seen[0] == (0, True)
    assert seen[-1] == (1, True)
    assert 3 <= len(seen) <= 8


def test_a_tick_that_raises_is_logged_once_and_the_run_goes_on(caplog):
    calls = []

    def tick():
        calls.append(1)
        raise ZeroDivisionError("broken view")

    async def work():
        await asyncio.sleep(0.08)
        return "result"

    assert run_sync(work(), tick=tick, interval=0.01) == "result"
    assert calls == [1]
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]


def test_an_error_keeps_no_caller_alive():
    class Rows:
        pass

    async def broken():
        raise ValueError("a frame that holds this error would be a cycle of its own")

    def call():
        rows = Rows()
        kept.append(weakref.ref(rows))
        with suppress(ValueError):
            run_sync(broken())

    async def acall():
        rows = Rows()
        kept.append(weakref.ref(rows))
        with suppress(ValueError):
            await run_async(broken())

    kept = []
    gc.disable()
    try:
        call()
        asyncio.run(acall())
        run_sync(double(1))  # the loop has let go of the task
        assert [ref() for ref in kept] == [None, None]
    finally:
        gc.enable()


# --- run_async --------------------------------------------------------------------------------


def test_run_async_gives_the_result_or_the_error_and_keeps_the_context():
    async def cell():
        PLACE.set("cell")
        assert await run_async(double(2)) == 4
        with pytest.raises(TimeoutError, match="provider"):
            await run_async(fail(TimeoutError("provider")))
        return await run_async(where())

    assert asyncio.run(cell()) == ("cell", "lbgpt-engine")


def test_the_callers_tasks_and_a_second_run_go_on_meanwhile():
    async def cell():
        gate = await run_async(make_gate())

        async def opener():
            await asyncio.sleep(0.01)
            await run_async(open_gate(gate))

        async with asyncio.TaskGroup() as group:
            first = group.create_task(run_async(wait_at(gate)))
            group.create_task(opener())
        return first.result()

    async def make_gate():
        return asyncio.Event()

    async def wait_at(gate):
        await gate.wait()
        return "through"

    async def open_gate(gate):
        gate.set()

    assert asyncio.run(asyncio.wait_for(cell(), 2)) == "through"


def test_cancelling_run_async_stops_the_work_before_it_returns():
    log = []

    async def cell():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run_async(hang(log)), 0.02)
        return list(log)

    assert asyncio.run(cell()) == ["stopped"]


def test_cancelling_run_async_does_not_wait_long_for_stubborn_work(caplog):
    release = threading.Event()

    async def stubborn():
        while not release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        raise ValueError("too late to be read")

    async def cell():
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run_async(stubborn(), grace=0.05), 0.02)
        waited = time.monotonic() - began
        release.set()
        await asyncio.sleep(0.03)
        return waited

    assert asyncio.run(cell()) < 0.5
    gc.collect()
    assert caplog.records == []  # asyncio does not complain of an exception that nobody read


def test_work_that_cancels_itself_is_reported_as_cancelled():
    async def cell():
        with pytest.raises(asyncio.CancelledError):
            await run_async(fail(asyncio.CancelledError()))
        return "still here"

    assert asyncio.run(cell()) == "still here"


def test_run_async_on_the_engine_loop_awaits_in_place():
    async def outer():
        task = asyncio.current_task()

        async def inner():
            return asyncio.current_task() is task

        return await run_async(inner())

    assert run_sync(outer())


def test_a_run_async_that_is_dropped_stops_its_work():
    log = []

    async def cell():
        call = run_async(hang(log))
        call.send(None)
        await asyncio.to_thread(run_sync, double(1))
        call.close()
        await asyncio.to_thread(run_sync, double(1))

    asyncio.run(cell())
    run_sync(asyncio.sleep(0.01))
    assert log == ["stopped"]


# --- processes --------------------------------------------------------------------------------


@pytest.mark.process
def test_a_script_that_exits_with_a_pending_job_runs_its_finally(tmp_path):
    result = run_script(
        tmp_path,
        """
        import asyncio
        from lbgpt_pandas.engine.portal import Job, run_sync

        async def work():
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.01)
                print("client closed", flush=True)

        async def stream():
            try:
                yield 1
                yield 2
            finally:
                print("stream closed", flush=True)

        async def begin():
            async for _ in chunks:
                break

        chunks = stream()
        job = Job(work())
        run_sync(begin())
        """,
    )
    assert result.returncode == 0
    assert sorted(result.stdout.split("\n")) == ["", "client closed", "stream closed"]
    assert result.stderr == ""


@pytest.mark.process
def test_a_fork_gets_its_own_loop_and_leaves_the_parents_alone(tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this platform")
    result = run_script(
        tmp_path,
        """
        import asyncio, gc, os, sys, threading
        from lbgpt_pandas.engine.portal import Job, engine_loop, run_sync

        async def connect():
            async def echo(reader, writer):
                while line := await reader.readline():
                    writer.write(line)
                writer.close()
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            streams = await asyncio.open_connection(*server.sockets[0].getsockname())
            return server, *streams

        async def ask(text):
            writer.write(text + b"\\n")
            return await asyncio.wait_for(reader.readline(), 2)

        async def pid():
            await asyncio.sleep(0.01)
            return os.getpid(), asyncio.get_running_loop() is engine_loop()

        server, reader, writer = run_sync(connect())
        parents = engine_loop()
        print(run_sync(ask(b"before")), flush=True)
        child = os.fork()
        if child == 0:
            assert run_sync(pid()) == (os.getpid(), True)
            assert engine_loop() is not parents
            reader = writer = server = None
            gc.collect()
            print("child", flush=True)
            sys.exit(0)
        print(os.waitpid(child, 0)[1], run_sync(ask(b"after")), flush=True)
        assert engine_loop() is parents
        async def close():
            writer.close()
            server.close()
            await asyncio.sleep(0.01)
        run_sync(close())
        """,
        options=FORKING,
    )
    assert result.stderr == ""
    assert result.stdout.split("\n") == ["b'before\\n'", "child", "0 b'after\\n'", ""]


@pytest.mark.process
def test_a_fork_does_not_run_the_finally_of_the_parents_work(tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this platform")
    result = run_script(
        tmp_path,
        """
        import asyncio, gc, os
        from lbgpt_pandas.engine.portal import Job, run_sync

        parent = os.getpid()

        async def work():
            try:
                await asyncio.sleep(60)
            finally:
                print("parent" if os.getpid() == parent else "child", flush=True)

        Job(work())
        run_sync(asyncio.sleep(0))
        child = os.fork()
        if child == 0:
            run_sync(asyncio.sleep(0))
            gc.collect()
            os._exit(0)
        os.waitpid(child, 0)
        """,
        options=FORKING,
    )
    assert (result.stdout, result.stderr) == ("parent\n", "")


@pytest.mark.process
def test_a_fork_in_the_middle_of_another_threads_start_does_not_hang(tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this platform")
    result = run_script(
        tmp_path,
        """
        import asyncio, os
        from lbgpt_pandas.engine import loop, portal

        loop._lock.acquire()   # what a thread holds that is starting the loop just now
        child = os.fork()
        if child == 0:
            portal.run_sync(asyncio.sleep(0))
            os._exit(7)
        loop._lock.release()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
        options=FORKING,
    )
    assert (result.stdout, result.stderr) == ("7\n", "")
