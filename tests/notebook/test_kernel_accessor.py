"""``df.lbgpt.complete`` in the cells of a real kernel: what is finished is never lost."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("jupyter_client")

WIDGET = "application/vnd.jupyter.widget-view+json"

pytestmark = [pytest.mark.kernel, pytest.mark.process]

PREAMBLE = """
    import asyncio, itertools, multiprocessing, pathlib, threading, warnings
    import pandas as pd
    import lbgpt_pandas as lb
    from lbgpt_pandas.testing import ScriptedGPT

    def engine(*, done=10**9, mark=None):
        "The first rows are answered at once; when 64 others wait, `mark` is made, and if it is\
        removed they are answered too."
        open_rows, mark = [], mark and pathlib.Path(mark)

        async def answer(request):
            number = int(request.messages[-1]["content"].split()[-1])
            if number >= done:
                open_rows.append(number)
                if len(open_rows) == 64:
                    mark.touch()
                while len(open_rows) < 64 or mark.exists():
                    await asyncio.sleep(0.02)
            return f"answer {number}"

        return ScriptedGPT(answer, max_parallel_calls=64)

    def frame(name, rows):
        return pd.DataFrame({"text": [f"{name} {number}" for number in range(rows)]})

    def asked(engine):
        return len(engine.requests)
"""


@pytest.fixture(scope="module")
def kernel(start_kernel):
    running = start_kernel()
    running.run(PREAMBLE)
    running.finish(running.send("1 / 0"))  # IPython's first traceback imports for 0.3 s
    return running


def test_the_cell_queued_behind_a_column_uses_it(kernel):
    first = kernel.send(
        'df = frame("queued", 20); df["answer"] = df.lbgpt.complete("{text}", engine=engine())'
    )
    second = kernel.send("print(df['answer'].tolist() == [f'answer {n}' for n in range(20)])")
    kernel.finish(second)
    assert first.error is None
    assert second.stdout == "True\n"


def test_an_interrupt_keeps_rows_and_a_rerun_asks_only_the_others(kernel, tmp_path):
    mark = tmp_path / "waiting"
    kernel.run(f"df = frame('rerun', 100); slow = engine(done=36, mark={str(mark)!r})")
    cell = kernel.send('df.lbgpt.complete("{text}", engine=slow)')
    kernel.wait_for_file(mark)
    pressed = kernel.interrupt()
    kernel.finish(cell)
    assert time.monotonic() - pressed < 1
    assert cell.error.startswith("KeyboardInterrupt")
    kept = kernel.run(
        """
        result = lb.last_run().result
        print(result.notna().sum(), result.iloc[:36].tolist() == [f"answer {n}" for n in range(36)])
        print(lb.last_run().rows["status"].value_counts().to_dict())
        """
    )
    assert kept.stdout == "36 True\n{'not_run': 64, 'ok': 36}\n"
    rerun = kernel.run(
        """
        again = engine()
        answers = df.lbgpt.complete("{text}", engine=again)
        print(answers.notna().all(), asked(again), lb.last_run().summary.snapshot.cached)
        """
    )
    assert rerun.stdout == "True 64 36\n"


@pytest.mark.parametrize(
    "cap",
    [
        "max_parallel=64",
        "max_parallel=None",
    ],
)
def test_answers_on_the_wire_are_kept_and_nothing_new_is_sent(kernel, tmp_path, cap):
    mark = tmp_path / "waiting"
    kernel.run(f"df = frame('gentle {cap}', 300); slow = engine(done=36, mark={str(mark)!r})")
    cell = kernel.send(f'df.lbgpt.complete("{{text}}", engine=slow, {cap})')
    kernel.wait_for_file(mark)
    pressed = kernel.interrupt()
    time.sleep(0.15)  # the call looks for presses every 0.1 s, and then waits 0.3 s
    mark.unlink()
    kernel.finish(cell)
    assert time.monotonic() - pressed < 1
    assert cell.error.startswith("KeyboardInterrupt")
    paid = kernel.run("print(asked(slow) - lb.last_run().result.notna().sum(), asked(slow))")
    lost, sent = map(int, paid.stdout.split())
    assert lost == 0
    assert sent == 100


def test_an_interrupted_await_keeps_rows_too(kernel, tmp_path):
    mark = tmp_path / "waiting"
    kernel.run(f"df = frame('awaited', 100); slow = engine(done=36, mark={str(mark)!r})")
    cell = kernel.send('await df.lbgpt.acomplete("{text}", engine=slow)')
    kernel.wait_for_file(mark)
    pressed = kernel.interrupt()
    kernel.finish(cell)
    assert time.monotonic() - pressed < 1
    assert cell.error.startswith(("CancelledError", "KeyboardInterrupt"))
    rerun = kernel.run(
        """
        print(lb.last_run().result.notna().sum())
        again = engine()
        answers = await df.lbgpt.acomplete("{text}", engine=again)
        print(answers.notna().all(), asked(again))
        """
    )
    assert rerun.stdout == "36\nTrue 64\n"


def test_one_engine_serves_sync_await_threads_and_a_fork(kernel):
    cell = kernel.run(
        """
        one = engine()

        def column(name):
            return frame(name, 5).lbgpt.complete("{text}", engine=one).tolist()

        def child(channel):
            channel.send(column("fork"))

        wanted = [f"answer {number}" for number in range(5)]
        print(column("sync") == wanted)
        print((await frame("await", 5).lbgpt.acomplete("{text}", engine=one)).tolist() == wanted)
        print(column("sync in await") == wanted)
        both = await asyncio.gather(
            frame("one", 5).lbgpt.acomplete("{text}", engine=one),
            frame("two", 5).lbgpt.acomplete("{text}", engine=one),
        )
        print([answers.tolist() == wanted for answers in both])
        found = []
        threads = [
            threading.Thread(target=lambda n=n: found.append(column(f"thread {n}") == wanted))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        print(found)
        fork = multiprocessing.get_context("fork")
        here, there = fork.Pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)     # forking beside threads
            process = fork.Process(target=child, args=(there,))
            process.start()
        print(here.recv() == wanted if here.poll(5) else "silent")
        process.join(5)
        print(process.exitcode, column("afterwards") == wanted)
        """
    )
    assert cell.stdout.split("\n") == [
        "True", "True", "True", "[True, True]", "[True, True, True, True]", "True", "0 True", "",
    ]  # fmt: skip


def test_a_column_shows_its_progress(kernel, kernel_has):
    cell = kernel.run(
        """
        slow = ScriptedGPT("yes", latency_s=0.1, max_parallel_calls=2)
        answers = frame("shown", 14).lbgpt.complete("{text}", engine=slow)
        quick = frame("quick", 3).lbgpt.complete("{text}", engine=ScriptedGPT("yes"))
        """
    )
    assert cell.stderr == ""
    assert (WIDGET in cell.displayed[0]) is kernel_has("ipywidgets")
    assert set(cell.displayed[-1]) == {"text/html", "text/plain"}
    assert "14 of 14 rows" in cell.displayed[-1]["text/plain"]
    silent = kernel.run(
        'frame("shown", 14).lbgpt.complete("{text}", engine=slow, cache_mode="refresh", progress=False);'
    )
    assert silent.displayed == []


def test_nested_mode_serves_columns_on_the_notebooks_loop(start_kernel, kernel_has):
    if not kernel_has("nest_asyncio2"):
        pytest.skip("nest-asyncio2 is not installed in the kernel's Python")
    kernel = start_kernel()  # one of its own: asyncio stays patched
    kernel.run(PREAMBLE)
    first = kernel.send(
        """
        loops = set()

        async def answer(request):
            loops.add(asyncio.get_running_loop())
            await asyncio.sleep(0.05)
            return "yes"

        lb.configure(event_loop="nested")
        answers = frame("nested", 20).lbgpt.complete("{text}", engine=ScriptedGPT(answer))
        print(answers.tolist() == ["yes"] * 20, loops == {asyncio.get_running_loop()})
        """
    )
    second = kernel.send("print('second', len(answers))")
    kernel.finish(second)
    assert first.error is None
    assert first.stdout == "True True\n"
    assert second.stdout == "second 20\n"
