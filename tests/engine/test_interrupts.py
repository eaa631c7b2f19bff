"""Ctrl-C during a sync call: the work stops, what is finished stays, nothing is lost."""

from __future__ import annotations

import asyncio
import signal
import threading
import time

import pytest

from lbgpt_pandas.engine.interrupts import DRAIN_S
from lbgpt_pandas.engine.portal import engine_loop, run_async, run_sync

if not hasattr(signal, "pthread_kill"):
    pytest.skip("signals cannot be sent to a thread here", allow_module_level=True)


@pytest.fixture(autouse=True)
def _python_hears_ctrl_c():
    """A test runner in the background inherits a SIGINT that is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def press_after(*delays):
    async def presses():
        for delay in delays:
            await asyncio.sleep(delay)
            press()

    return asyncio.run_coroutine_threadsafe(presses(), engine_loop())


async def rows(finished, log, *, hanging=64, stop=None):
    """Finish some rows, press, hang in the others; a row that is stopped says so."""

    async def row(number):
        try:
            if number < 10:
                finished.append(number)
                return
            if number == 10:
                press()
            await asyncio.sleep(60 if stop is None else 0.18)
            finished.append(number)
        except asyncio.CancelledError:
            log.append(number)
            raise

    async with asyncio.TaskGroup() as group:
        for number in range(10 + hanging):
            group.create_task(row(number))


async def stubborn(seconds):
    """Swallow every cancellation for a while; return how often it was cancelled."""
    count, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            count += 1
    return count


def test_an_interrupt_keeps_finished_rows_and_cancels_the_others():
    finished, stopped = [], []
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_sync(rows(finished, stopped))
    assert time.monotonic() - began < 0.5
    assert finished == list(range(10))
    assert sorted(stopped) == list(range(10, 74))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_loop_and_its_clients_work_on_after_an_interrupt():
    loop = engine_loop()
    with pytest.raises(KeyboardInterrupt):
        run_sync(rows([], []))
    assert engine_loop() is loop
    assert run_sync(asyncio.sleep(0, "fine")) == "fine"


def test_stubborn_work_is_left_behind_after_the_grace():
    began = time.monotonic()
    press_after(0.02)
    with pytest.raises(KeyboardInterrupt):
        run_sync(stubborn(0.6), grace=0.2)
    assert 0.2 < time.monotonic() - began < 0.5


def test_a_second_press_returns_at_once():
    began = time.monotonic()
    press_after(0.02, 0.1)
    with pytest.raises(KeyboardInterrupt):
        run_sync(stubborn(1), grace=30)
    assert time.monotonic() - began < 0.5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_work_that_ends_with_an_error_when_cancelled_still_gives_the_interrupt():
    async def sulk():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise OSError("broken pipe") from None

    press_after(0.02)
    with pytest.raises(KeyboardInterrupt) as caught:
        run_sync(sulk())
    assert caught.value.__suppress_context__


def test_a_press_is_not_lost_when_the_work_ends_at_the_same_moment():
    async def press_and_end():
        press()
        return "result"

    with pytest.raises(KeyboardInterrupt):
        run_sync(press_and_end())


def test_a_press_during_the_last_tick_is_not_lost():
    def tick():
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_sync(asyncio.sleep(0), tick=tick)


def test_the_view_is_drawn_once_more_after_an_interrupt():
    finished, stopped, drawn = [], [], []
    with pytest.raises(KeyboardInterrupt):
        run_sync(rows(finished, stopped), tick=lambda: drawn.append(len(stopped)))
    assert drawn[-1] == 64


def test_stopping_gently_lets_what_is_on_the_wire_arrive():
    finished, stopped, calls = [], [], []
    with pytest.raises(KeyboardInterrupt):
        run_sync(
            rows(finished, stopped, stop="soon"), on_interrupt=lambda: calls.append(len(stopped))
        )
    assert calls == [0]
    assert stopped == []
    assert sorted(finished) == list(range(74))


def test_stopping_gently_cancels_what_takes_too_long():
    finished, stopped, calls = [], [], []
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_sync(rows(finished, stopped), on_interrupt=lambda: calls.append(1))
    assert DRAIN_S < time.monotonic() - began < DRAIN_S + 0.5
    assert calls == [1]
    assert len(stopped) == 64


def test_stopping_gently_is_asked_for_once_and_not_without_an_interrupt():
    calls = []
    assert run_sync(asyncio.sleep(0.03, "done"), on_interrupt=lambda: calls.append(1)) == "done"
    assert calls == []
    press_after(0.02)
    with pytest.raises(KeyboardInterrupt):
        run_sync(stubborn(0.7), on_interrupt=lambda: calls.append(1), grace=0.1)
    assert calls == [1]


def test_stopping_gently_that_fails_falls_back_to_cancelling(caplog):
    def broken():
        raise ZeroDivisionError

    stopped = []
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_sync(rows([], stopped), on_interrupt=broken)
    assert time.monotonic() - began < DRAIN_S
    assert len(stopped) == 64
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]


def test_somebody_elses_handler_is_left_in_place_and_called():
    heard = []

    def theirs(_signum, _frame):
        heard.append(signal.getsignal(signal.SIGINT))

    signal.signal(signal.SIGINT, theirs)
    press_after(0.02)
    assert run_sync(asyncio.sleep(0.2, "result")) == "result"
    assert heard == [theirs]
    assert signal.getsignal(signal.SIGINT) is theirs


def test_an_exception_from_somebody_elses_handler_stops_the_work_before_it_is_raised():
    class Alarm(Exception):
        pass

    def theirs(_signum, _frame):
        raise Alarm

    stopped = []
    signal.signal(signal.SIGINT, theirs)
    with pytest.raises(Alarm):
        run_sync(rows([], stopped))
    assert len(stopped) == 64


def test_a_call_in_another_thread_does_not_touch_the_handler():
    seen = []

    def call():
        run_sync(asyncio.sleep(0), tick=lambda: seen.append(signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(2)
    assert seen == [signal.default_int_handler]


def test_an_inner_call_leaves_the_signal_to_the_outer_one():
    inner = []

    def tick():
        if not inner:
            inner.append(run_sync(asyncio.sleep(0.05, "inner")))

    press_after(0.03)
    with pytest.raises(KeyboardInterrupt):
        run_sync(asyncio.sleep(60), tick=tick, interval=0.01)
    assert inner == ["inner"]


def test_ctrl_c_in_an_awaiting_script_stops_the_work():
    finished, stopped = [], []

    async def script():
        await run_async(rows(finished, stopped))

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(script())
    assert finished == list(range(10))
    assert len(stopped) == 64
