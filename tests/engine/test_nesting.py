"""Nested mode: opt-in, on the caller's own loop, refused where it would lose cells.

Everything that really patches asyncio happens in a process of its own.
"""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
import textwrap

import pytest

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.interrupts import Watch
from lbgpt_pandas.engine.nesting import installed, make_reentrant, run_nested
from lbgpt_pandas.engine.portal import engine_loop, run_sync, use_nested

needs_nest2 = pytest.mark.skipif(
    importlib.util.find_spec("nest_asyncio2") is None, reason="nest-asyncio2 is not installed"
)


def run_script(tmp_path, source):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(source))
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        timeout=9,
        check=False,
    )


def pretend_installed(directory, **versions):
    """Put metadata of distributions in front of the real ones; return a line of Python."""
    for name, version in versions.items():
        info = directory / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        )
    return f"import sys; sys.path.insert(0, {str(directory)!r})"


class OtherLoop(asyncio.AbstractEventLoop):
    """As uvloop's: an event loop that is not made of asyncio's parts."""


def test_the_default_never_loads_a_patch(tmp_path):
    result = run_script(
        tmp_path,
        """
        import asyncio, sys
        from lbgpt_pandas.engine.portal import run_sync, use_nested

        async def cell():
            return run_sync(asyncio.sleep(0, "result"))

        use_nested(False)
        print(asyncio.run(cell()), [name for name in sys.modules if name.startswith("nest")])
        print(hasattr(asyncio, "_nest_patched"))
        """,
    )
    assert (result.stdout, result.stderr) == ("result []\nFalse\n", "")


def test_a_loop_that_is_not_asyncios_is_refused():
    with pytest.raises(ConfigurationError, match=r"OtherLoop.*event_loop=\"thread\""):
        make_reentrant(OtherLoop())
    watch = Watch(tick=None, interval=0.1, grace=0.5, on_interrupt=None)
    with pytest.raises(ConfigurationError):  # and the coroutine is closed, not left unawaited
        run_nested(asyncio.sleep(0), OtherLoop(), watch)
    assert not hasattr(asyncio, "_nest_patched")


@needs_nest2
def test_uvloop_is_refused_and_the_mode_stays_off():
    uvloop = pytest.importorskip("uvloop")

    async def cell():
        with pytest.raises(ConfigurationError, match="uvloop"):
            use_nested(True)
        return run_sync(where())

    async def where():
        return asyncio.get_running_loop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(cell()) is engine_loop()


def test_versions_are_read_from_what_is_installed():
    assert installed("pytest") >= (8,)
    assert installed("no-such-distribution-here") == ()


@needs_nest2
@pytest.mark.process
def test_the_work_runs_on_the_callers_loop_with_the_callers_objects(tmp_path):
    result = run_script(
        tmp_path,
        """
        import asyncio, contextvars, threading
        from lbgpt_pandas.engine.portal import engine_loop, run_async, run_sync, use_nested

        PLACE = contextvars.ContextVar("PLACE")

        async def work(lock):
            async with lock:
                await asyncio.sleep(0.05)
                return (
                    asyncio.get_running_loop() is here,
                    threading.current_thread() is threading.main_thread(),
                    PLACE.get(),
                )

        async def fail():
            raise TimeoutError("provider")

        async def cell():
            global here
            here, lock, beats = asyncio.get_running_loop(), asyncio.Lock(), []

            async def beat():
                while True:
                    await asyncio.sleep(0.005)
                    beats.append(1)

            PLACE.set("cell")
            beating = asyncio.create_task(beat())
            await lock.acquire()            # binds the lock to this loop when it is contended
            asyncio.get_running_loop().call_later(0.01, lock.release)
            ticks = []
            print(run_sync(work(lock), tick=lambda: ticks.append(1), interval=0.02))
            print(len(beats) > 2, len(ticks) >= 2)
            print(await run_async(work(lock)))
            try:
                run_sync(fail())
            except TimeoutError as error:
                print(error)
            beating.cancel()

        use_nested(True)
        print(hasattr(asyncio, "_nest_patched"))
        asyncio.run(cell())

        async def elsewhere():
            return asyncio.get_running_loop() is engine_loop()

        print(run_sync(elsewhere()))        # no loop runs here: the engine does it
        use_nested(False)

        async def again():
            return run_sync(elsewhere())

        print(asyncio.run(again()))
        """,
    )
    assert result.stderr == ""
    assert result.stdout.split("\n") == [
        "False", "(True, True, 'cell')", "True True", "(True, True, 'cell')", "provider",
        "True", "True", "",
    ]  # fmt: skip


@needs_nest2
@pytest.mark.process
def test_an_interrupt_cancels_nested_work_and_leaves_no_task_behind(tmp_path):
    result = run_script(
        tmp_path,
        """
        import asyncio, os, signal, time
        from lbgpt_pandas.engine.portal import run_sync, use_nested

        signal.signal(signal.SIGINT, signal.default_int_handler)
        use_nested(True)

        async def rows(pressed):
            async def row(number):
                await asyncio.sleep(60)
            async with asyncio.TaskGroup() as group:
                for number in range(20):
                    group.create_task(row(number))
                await asyncio.sleep(0.02)
                os.kill(os.getpid(), signal.SIGINT)

        async def stubborn():
            loop = asyncio.get_running_loop()
            for delay in (0.02, 0.08):
                loop.call_later(delay, os.kill, os.getpid(), signal.SIGINT)
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                try:
                    await asyncio.sleep(0.02)
                except asyncio.CancelledError:
                    pass

        async def hang():
            loop = asyncio.get_running_loop()
            loop.call_later(0.02, os.kill, os.getpid(), signal.SIGINT)
            loop.call_later(0.021, os.kill, os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)

        async def cell():
            # Runner listens to SIGINT itself; a notebook's loop does not.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            begun = time.monotonic()
            try:
                run_sync(rows([]))
            except KeyboardInterrupt:
                print("interrupted", time.monotonic() - begun < 0.6)
            print(len(asyncio.all_tasks()))
            begun = time.monotonic()
            try:
                run_sync(stubborn(), grace=30)
            except KeyboardInterrupt:
                print("again", time.monotonic() - begun < 0.4)
            ticks = []
            try:
                run_sync(hang(), tick=lambda: ticks.append(1), interval=0.03)
            except KeyboardInterrupt:
                seen = len(ticks)
                await asyncio.sleep(0.1)
                print("twice", len(ticks) - seen)
            async with asyncio.timeout(2):
                while len(asyncio.all_tasks()) > 1:     # the stubborn one ends at its own time
                    await asyncio.sleep(0.01)
            print("nothing left")

        asyncio.run(cell())
        """,
    )
    assert result.stderr == ""
    assert result.stdout.split("\n") == [
        "interrupted True",
        "1",
        "again True",
        "twice 0",
        "nothing left",
        "",
    ]


@needs_nest2
@pytest.mark.process
def test_a_sync_call_on_the_engine_loop_is_refused_in_nested_mode_too(tmp_path):
    result = run_script(
        tmp_path,
        """
        import asyncio
        from lbgpt_pandas.engine.portal import run_sync, use_nested

        async def outer():
            return run_sync(asyncio.sleep(0))

        use_nested(True)
        try:
            run_sync(outer())
        except RuntimeError as error:
            print("async twin" in str(error))
        """,
    )
    assert (result.stdout, result.stderr) == ("True\n", "")


@pytest.mark.process
@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"nest_asyncio2": "1.7.2", "ipykernel": "7.1.0"}, "nest-asyncio2>=1.7.3"),
        ({"nest_asyncio2": "1.7.2", "nest_asyncio": "1.6.0", "ipykernel": "7.4.0"}, "queued cells"),
    ],
)
def test_a_patch_that_loses_cells_is_refused(tmp_path, versions, said):
    result = run_script(
        tmp_path,
        f"""
        {pretend_installed(tmp_path / "fake", **versions)}
        import asyncio
        from lbgpt_pandas.engine.portal import run_sync, use_nested
        from lbgpt_pandas.engine.errors import ConfigurationError

        async def cell():
            return run_sync(asyncio.sleep(0, "thread"))

        try:
            use_nested(True)
        except ConfigurationError as error:
            print(error)
        print(asyncio.run(cell()), hasattr(asyncio, "_nest_patched"))
        """,
    )
    assert result.stderr == ""
    assert said in result.stdout
    assert result.stdout.endswith("thread False\n")


@pytest.mark.process
def test_without_any_patch_the_install_line_is_given(tmp_path):
    result = run_script(
        tmp_path,
        """
        import sys
        from lbgpt_pandas.engine.portal import use_nested
        from lbgpt_pandas.engine.errors import ConfigurationError

        sys.path[:] = []
        try:
            use_nested(True)
        except ConfigurationError as error:
            print(error)
        """,
    )
    assert result.stderr == ""
    assert "pip install 'lbgpt-pandas[nested]'" in result.stdout


@pytest.mark.process
@pytest.mark.skipif(
    importlib.util.find_spec("nest_asyncio") is None, reason="nest-asyncio is not installed"
)
def test_the_old_patch_serves_where_no_new_kernel_can_lose_cells(tmp_path):
    result = run_script(
        tmp_path,
        f"""
        {pretend_installed(tmp_path / "fake", nest_asyncio2="1.7.2", ipykernel="6.31.0")}
        import asyncio
        from lbgpt_pandas.engine.portal import run_sync, use_nested

        async def where():
            return asyncio.get_running_loop()

        async def cell():
            use_nested(True)
            return run_sync(where()) is asyncio.get_running_loop()

        print(asyncio.run(cell()), "nest_asyncio" in sys.modules, "nest_asyncio2" in sys.modules)
        """,
    )
    assert (result.stdout, result.stderr) == ("True True False\n", "")


@needs_nest2
@pytest.mark.process
@pytest.mark.skipif(
    importlib.util.find_spec("nest_asyncio") is None, reason="nest-asyncio is not installed"
)
def test_a_process_patched_by_the_old_one_is_refused_beside_a_new_kernel(tmp_path):
    result = run_script(
        tmp_path,
        f"""
        {pretend_installed(tmp_path / "fake", ipykernel="7.1.0")}
        import asyncio
        from lbgpt_pandas.engine.portal import use_nested
        from lbgpt_pandas.engine.errors import ConfigurationError

        async def cell():
            import nest_asyncio
            nest_asyncio.apply()
            try:
                use_nested(True)
            except ConfigurationError as error:
                print(error)

        asyncio.run(cell())
        """,
    )
    assert result.stderr == ""
    assert "nest_asyncio.apply()" in result.stdout
