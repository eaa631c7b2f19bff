"""Sync and async calls in the cells of a real kernel: queued cells, interrupts, threads, forks.

How to try another kernel than that of the Python that runs the tests: see conftest.py.
"""

from __future__ import annotations

import time

import pytest

pytest.importorskip("jupyter_client")

WIDGET = "application/vnd.jupyter.widget-view+json"

pytestmark = [pytest.mark.kernel, pytest.mark.process]

PREAMBLE = """
    import asyncio, os, threading, time
    from lbgpt_pandas.engine.portal import engine_loop, run_async, run_sync, use_nested

    async def rows(kept, *, done=36, hanging=64):
        "Finish some rows; once all the others hang, say so by the text of `started`."
        waiting = []
        async def row(number):
            if number < done:
                kept[number] = "answer"
                return
            waiting.append(number)
            if len(waiting) == hanging:
                started.append("all are waiting")
            try:
                await asyncio.sleep(60)
            finally:
                stopped.append(number)
        async with asyncio.TaskGroup() as group:
            for number in range(done + hanging):
                group.create_task(row(number))

    async def stubborn(seconds):
        end = time.monotonic() + seconds
        started.append("stubborn")
        while time.monotonic() < end:
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                continue

    async def fail():
        raise TimeoutError("the provider took too long")

    def tick():
        "Print what was started; in the main thread, so that it belongs to the cell."
        while started:
            print(started.pop(), flush=True)

    async def beat():
        while True:
            tick()
            await asyncio.sleep(0.02)

    started, stopped, kept = [], [], {}
"""


@pytest.fixture(scope="module")
def kernel(start_kernel):
    running = start_kernel()
    running.run(PREAMBLE)
    running.finish(running.send("1 / 0"))  # IPython's first traceback imports for 0.3 s
    return running


@pytest.fixture(autouse=True)
def _nothing_is_left(request):
    yield
    if "kernel" in request.fixturenames:
        # Also that the kernel is alive and its SIGINT is its own again.
        kernel = request.getfixturevalue("kernel")
        cell = kernel.run(
            """
            import signal
            started, stopped, kept = [], [], {}
            print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
            """
        )
        assert cell.stdout == "True\n"


def test_the_cells_queued_behind_a_sync_call_run(kernel):
    first = kernel.send("x = run_sync(asyncio.sleep(0.3, 'result'), tick=tick); print('first', x)")
    second = kernel.send("print('second', x)")
    third = kernel.send("print('third', await run_async(asyncio.sleep(0, x)))")
    kernel.finish(third)
    assert (first.stdout, second.stdout, third.stdout) == (
        "first result\n",
        "second result\n",
        "third result\n",
    )


def test_an_interrupt_ends_64_calls_within_a_second_and_keeps_what_is_finished(kernel):
    cell = kernel.send("run_sync(rows(kept), tick=tick)")
    kernel.wait_for(cell, "all are waiting")
    pressed = kernel.interrupt()
    kernel.finish(cell)
    assert time.monotonic() - pressed < 1
    assert cell.error.startswith("KeyboardInterrupt")
    assert kernel.run("print(len(kept), len(stopped))").stdout == "36 64\n"


def test_stopping_gently_in_a_cell_ends_within_a_second_too(kernel):
    cell = kernel.send("run_sync(rows(kept), tick=tick, on_interrupt=lambda: kept.update(end=1))")
    kernel.wait_for(cell, "all are waiting")
    pressed = kernel.interrupt()
    kernel.finish(cell)
    assert time.monotonic() - pressed < 1
    assert cell.error.startswith("KeyboardInterrupt")
    assert kernel.run("print(len(kept), len(stopped))").stdout == "37 64\n"


def test_a_second_interrupt_does_not_wait_for_stubborn_work(kernel):
    cell = kernel.send("run_sync(stubborn(2), tick=tick, grace=30)")
    kernel.wait_for(cell, "stubborn")
    kernel.interrupt()
    time.sleep(0.05)  # two presses at once are one signal
    pressed = kernel.interrupt()
    kernel.finish(cell)
    assert time.monotonic() - pressed < 1
    assert cell.error.startswith("KeyboardInterrupt")


def test_the_cell_after_an_interrupt_works_on_the_same_loop(kernel):
    kernel.run("loop = engine_loop()")
    cell = kernel.send("run_sync(rows(kept), tick=tick)")
    after = kernel.send("print('not run, the kernel drops what is queued')")
    kernel.wait_for(cell, "all are waiting")
    kernel.interrupt()
    kernel.finish(cell)
    kernel.finish(after)
    assert after.status in {"aborted", "error"}
    again = kernel.run("print(run_sync(asyncio.sleep(0, 'works')), engine_loop() is loop)")
    assert again.stdout == "works True\n"


def test_a_time_out_of_the_provider_is_an_error_of_the_cell(kernel):
    for call in ("run_sync(fail(), tick=tick)", "await run_async(fail())"):
        cell = kernel.send(call)
        kernel.finish(cell)
        assert cell.error == "TimeoutError: the provider took too long"


def test_a_cell_forks(kernel):
    cell = kernel.run(
        """
        import multiprocessing

        def child(channel):
            channel.send((run_sync(asyncio.sleep(0, "child")), os.getpid()))

        fork = multiprocessing.get_context("fork")
        print(run_sync(asyncio.sleep(0, "before")))
        here, there = fork.Pipe()
        process = fork.Process(target=child, args=(there,))
        process.start()
        said, pid = here.recv()
        process.join(5)
        print(said, pid != os.getpid(), process.exitcode)
        print(run_sync(asyncio.sleep(0, "after")))
        """
    )
    assert cell.stdout == "before\nchild True 0\nafter\n"


def test_threads_of_a_cell_call_at_the_same_time(kernel):
    cell = kernel.run(
        """
        from concurrent.futures import ThreadPoolExecutor

        async def meet(number, barrier):
            await asyncio.to_thread(barrier.wait)
            return number

        barrier = threading.Barrier(4, timeout=5)
        with ThreadPoolExecutor(4) as pool:
            print(list(pool.map(lambda number: run_sync(meet(number, barrier)), range(4))))
        """
    )
    assert cell.stdout == "[0, 1, 2, 3]\n"


def test_a_sync_call_in_a_cell_that_awaits(kernel):
    cell = kernel.send(
        """
        await asyncio.sleep(0)
        print(run_sync(asyncio.sleep(0.05, "sync"), tick=tick))
        print(await run_async(asyncio.sleep(0.05, "async")))
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(run_async(asyncio.sleep(0.05, n))) for n in range(3)]
        print([call.result() for call in calls])
        """
    )
    behind = kernel.send("print('behind')")
    kernel.finish(behind)
    assert cell.stdout == "sync\nasync\n[0, 1, 2]\n"
    assert behind.stdout == "behind\n"


def test_an_interrupt_of_a_cell_that_awaits_stops_the_work_and_keeps_rows(kernel):
    cell = kernel.send(
        """
        beating = asyncio.create_task(beat())
        try:
            await run_async(rows(kept))
        finally:
            beating.cancel()
        """
    )
    kernel.wait_for(cell, "all are waiting")
    pressed = kernel.interrupt()
    kernel.finish(cell)
    assert time.monotonic() - pressed < 1
    assert cell.error.startswith(("CancelledError", "KeyboardInterrupt"))
    assert kernel.run("print(len(kept), len(stopped))").stdout == "36 64\n"


def test_the_callers_tasks_go_on_while_a_cell_awaits_and_stand_still_while_it_waits(kernel):
    cell = kernel.run(
        """
        beats = []

        async def count():
            while True:
                beats.append(1)
                await asyncio.sleep(0.005)

        counting = asyncio.create_task(count())
        await run_async(asyncio.sleep(0.1))
        awaited = len(beats)
        run_sync(asyncio.sleep(0.1))
        print(awaited > 5, len(beats) - awaited)
        counting.cancel()
        """
    )
    assert cell.stdout == "True 0\n"


def test_the_context_of_a_cell_reaches_the_work(kernel):
    cell = kernel.run(
        """
        import contextvars
        PLACE = contextvars.ContextVar("PLACE", default="nowhere")

        async def where():
            return PLACE.get(), threading.current_thread().name

        PLACE.set("cell")
        print(run_sync(where()))
        """
    )
    assert cell.stdout == "('cell', 'lbgpt-engine')\n"


def test_tqdm_shows_in_a_notebook(kernel, kernel_has):
    cell = kernel.run(
        """
        from dataclasses import replace
        from lbgpt_pandas.engine.report import RunSnapshot
        from lbgpt_pandas.engine.states import RunHeading
        from lbgpt_pandas.notebook.progress import choose_view
        from lbgpt_pandas.notebook.surroundings import in_kernel

        shot = RunSnapshot(
            rows=200, done=0, failed=0, skipped=0, cached=0, shared=0, in_flight=9, retries=0,
            prompt_tokens=0, completion_tokens=0, cost_usd=0.0, elapsed_s=0.0, finished=False,
        )
        print(in_kernel())
        view = choose_view("tqdm", RunHeading())
        view.update(replace(shot, done=10, elapsed_s=0.3))
        """
    )
    assert cell.stdout == "True\n"
    assert cell.displayed == []
    cell = kernel.run(
        """
        view.update(replace(shot, done=100, elapsed_s=0.6))
        view.close(replace(shot, done=197, failed=3, elapsed_s=1.2, finished=True))
        """
    )
    assert cell.stderr == ""  # a notebook paints it red
    if kernel_has("ipywidgets"):
        assert [WIDGET in data for data in cell.displayed] == [True]
        assert cell.widgets[-1].get("bar_style") == "success"
        drawn = " ".join(str(state.get("value", "")) for state in cell.widgets)
    else:
        drawn = cell.stdout
    assert "100/200" in drawn
    assert "200/200" in drawn
    assert "failed=3" in drawn


def test_nested_mode_loses_no_queued_cell(start_kernel, kernel_has):
    if not kernel_has("nest_asyncio2"):
        pytest.skip("nest-asyncio2 is not installed in the kernel's Python")
    kernel = start_kernel()  # one of its own: asyncio stays patched
    kernel.run(PREAMBLE)
    kernel.run("lock = asyncio.Lock(); await lock.acquire(); use_nested(True)")
    first = kernel.send(
        """
        async def work():
            asyncio.get_running_loop().call_later(0.2, lock.release)
            async with lock:
                return asyncio.get_running_loop()

        print(run_sync(work(), tick=tick) is asyncio.get_running_loop())
        """
    )
    second = kernel.send("print('second')")
    third = kernel.send("print('third', await run_async(asyncio.sleep(0, 'awaited')))")
    kernel.finish(third)
    assert (first.stdout, second.stdout) == ("True\n", "second\n")
    assert third.stdout == "third awaited\n"
    cell = kernel.send("run_sync(rows(kept), tick=tick)")
    kernel.wait_for(cell, "all are waiting")
    kernel.interrupt()
    kernel.finish(cell)
    assert cell.error.startswith("KeyboardInterrupt")
    assert kernel.run("print(len(kept), len(stopped))").stdout == "36 64\n"


def test_a_kernel_on_uvloop(start_kernel, kernel_has):
    if not kernel_has("uvloop"):
        pytest.skip("uvloop is not installed in the kernel's Python")
    kernel = start_kernel(
        "-c",
        "import uvloop; uvloop.install(); import ipykernel.kernelapp as a; a.launch_new_instance()",
        "-f",
        "{connection_file}",
    )
    kernel.run(PREAMBLE)
    cell = kernel.send(
        """
        print(type(asyncio.get_running_loop()).__module__)
        print(run_sync(asyncio.sleep(0.05, "sync"), tick=tick))
        print(await run_async(asyncio.sleep(0.05, "async")))
        try:
            use_nested(True)
        except Exception as error:
            print(type(error).__name__)
        """
    )
    behind = kernel.send("print('behind')")
    kernel.finish(behind)
    assert cell.stdout == "uvloop\nsync\nasync\nConfigurationError\n"
    assert behind.stdout == "behind\n"
