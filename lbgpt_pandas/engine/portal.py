"""The bridge into the engine: one event loop in one daemon thread per process.

Sync callers wait with `run_sync`, async callers with `run_async`, background runs hold a
`Job`. All three run on the same loop, so clients, limits and caches are shared between them,
and none of them needs the caller's own loop to be free, patched, or even there.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures as cf
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lbgpt_pandas.engine.interrupts import Watch
from lbgpt_pandas.engine.nesting import make_reentrant, nesting_module, run_nested

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

THREAD_NAME = "lbgpt-engine"
STOP_S = 0.5
"""Seconds that pending work gets for its ``finally`` blocks when the interpreter exits."""

T = TypeVar("T")


class _Engine:
    """The loop, its thread, and the jobs that are still owed an answer."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.jobs: set[Job[Any]] = set()
        self._stopping = False
        self.thread = threading.Thread(target=self._serve, name=THREAD_NAME, daemon=True)
        self.thread.start()

    def is_usable(self) -> bool:
        return self.pid == os.getpid() and self.thread.is_alive() and not self._stopping

    def stop(self) -> None:
        self._stopping = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout=2 * STOP_S)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            while not self._stopping:
                # asyncio lets these two out of the loop although the task holds them already;
                # they belong to the job that raised them, the others go on.
                with suppress(KeyboardInterrupt, SystemExit):
                    self.loop.run_forever()
            with suppress(KeyboardInterrupt, SystemExit):
                self._wind_down()
        finally:
            self.loop.close()
            for job in list(self.jobs):
                job.abandon()

    def _wind_down(self) -> None:
        deadline = self.loop.time() + STOP_S
        while (tasks := asyncio.all_tasks(self.loop)) and self.loop.time() < deadline:
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(
                asyncio.wait(tasks, timeout=max(0.0, deadline - self.loop.time()))
            )
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())


_lock = threading.Lock()
_engine: _Engine | None = None
_inherited: list[_Engine] = []
_is_nested = False


def _current_engine() -> _Engine:
    global _engine  # noqa: PLW0603  # one per process by definition
    with _lock:
        if _engine is None or not _engine.is_usable():
            _engine = _Engine()
        return _engine


def _forget_after_fork() -> None:
    global _engine, _lock  # noqa: PLW0603  # the parent's thread does not exist in the child
    _lock = threading.Lock()
    if _engine is not None:
        # Never collected: closing the parent's loop here would unregister the parent's sockets,
        # because both processes share one epoll object.
        _inherited.append(_engine)
        _engine = None


def _stop() -> None:
    """Cancel everything, wait for the ``finally`` blocks, close the loop, join the thread."""
    engine = _engine
    if engine is not None and engine.is_usable():
        engine.stop()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def engine_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop of the engine, starting it if there is none.

    Returns
    -------
    asyncio.AbstractEventLoop
        The same loop for the life of the process. A new one after a fork, and after the old
        one's thread has ended.
    """
    return _current_engine().loop


class Job(Generic[T]):
    """A coroutine at work on the engine loop; every method is safe from any thread.

    Parameters
    ----------
    coro : coroutine
        What to run. It sees the context variables of the thread that made the job.

    Attributes
    ----------
    done : concurrent.futures.Future
        The result or exception; ``asyncio.CancelledError`` if the job was cancelled. Its own
        ``cancel`` does nothing, use :meth:`cancel`.

    Raises
    ------
    RuntimeError
        If the interpreter is shutting down and no loop can be started.

    Examples
    --------
    >>> async def double(number):
    ...     return 2 * number
    >>> Job(double(21)).done.result()
    42
    """

    def __init__(self, coro: Coroutine[Any, Any, T]) -> None:
        self.done: cf.Future[T] = cf.Future()
        # A running future refuses to be cancelled from outside, where the work would go on.
        self.done.set_running_or_notify_cancel()
        self._coro: Coroutine[Any, Any, T] | None = coro
        self._task: asyncio.Task[T] | None = None
        self._is_cancelled = False
        try:
            self._engine = _current_engine()
            self._engine.jobs.add(self)
            # The handle copies the caller's context, and the task that it makes copies that.
            self._engine.loop.call_soon_threadsafe(self._start)
        except RuntimeError:
            coro.close()
            raise

    def cancel(self) -> None:
        """Cancel the work; does nothing once it is done. Returns at once."""
        self._is_cancelled = True
        with suppress(RuntimeError):  # the loop is closed, and with it the job
            self._engine.loop.call_soon_threadsafe(self._cancel_task)

    def _start(self) -> None:
        if self._is_cancelled or self._coro is None:
            self.abandon()
            return
        self._task = self._engine.loop.create_task(self._coro)
        self._coro = None
        self._task.add_done_callback(self._finish)

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _finish(self, task: asyncio.Task[T]) -> None:
        self._engine.jobs.discard(self)
        self._task = None
        if self.done.done():
            return
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(task.result())

    def abandon(self) -> None:
        """End the job as cancelled without waiting for its work; for the engine at its end."""
        self._engine.jobs.discard(self)
        if self._coro is not None:
            self._coro.close()
            self._coro = None
        if not self.done.done():
            self.done.set_exception(asyncio.CancelledError())


def run_sync(
    coro: Coroutine[Any, Any, T],
    *,
    tick: Callable[[], None] | None = None,
    interval: float = 0.1,
    grace: float = 0.5,
    on_interrupt: Callable[[], None] | None = None,
) -> T:
    """Run a coroutine on the engine loop and wait for it in this thread.

    Works in a script, in a notebook cell, inside a running loop (which stands still meanwhile),
    in any thread, and after a fork.

    Parameters
    ----------
    coro : coroutine
        What to run. It sees the caller's context variables.
    tick : callable, optional
        Called in this thread about every `interval` seconds and once at the end, to draw
        progress. If it raises, that is logged and it is not called again.
    interval : float, default 0.1
        Seconds.
    grace : float, default 0.5
        Seconds that cancelled work gets to end after an interrupt; then it is left behind.
    on_interrupt : callable, optional
        Called once on the first interrupt, before anything is cancelled, in this thread. It
        should make `coro` start nothing new; what is on the wire then has 0.3 seconds to
        arrive. Without it the work is cancelled at once.

    Returns
    -------
    object
        What the coroutine returned.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C or the notebook's stop button, once the work has stopped; on the second
        press at once. Only the main thread is interrupted, and a SIGINT handler that somebody
        else installed is left alone.
    RuntimeError
        If called on the engine loop itself, which would wait for itself for ever.
    ConfigurationError
        In nested mode, if the running loop cannot be nested.
    BaseException
        Whatever the coroutine raised.

    Examples
    --------
    >>> async def answer():
    ...     return 42
    >>> run_sync(answer())
    42
    """
    running = _running_loop()
    engine = _engine
    if engine is not None and running is engine.loop:
        coro.close()
        raise RuntimeError(
            "a sync method was called from a coroutine of the engine itself, where it would wait "
            "for ever; await its async twin (acomplete, achat_completion_list) instead"
        )
    with Watch(tick=tick, interval=interval, grace=grace, on_interrupt=on_interrupt) as watch:
        if _is_nested and running is not None:
            return run_nested(coro, running, watch)
        return _wait(coro, watch)


async def run_async(coro: Coroutine[Any, Any, T], *, grace: float = 0.5) -> T:
    """Run a coroutine on the engine loop and await it from the caller's loop.

    Parameters
    ----------
    coro : coroutine
        What to run. It sees the caller's context variables. On the engine loop itself, and in
        nested mode, it is awaited where it stands.
    grace : float, default 0.5
        Cancelling this call cancels the work and waits so many seconds for it to end.

    Returns
    -------
    object
        What the coroutine returned.

    Raises
    ------
    BaseException
        Whatever the coroutine raised.
    """
    engine = _engine
    if _is_nested or (engine is not None and asyncio.get_running_loop() is engine.loop):
        return await coro
    job = Job(coro)
    done = asyncio.wrap_future(job.done)
    try:
        await asyncio.wait([done])
        return done.result()
    except GeneratorExit:
        job.cancel()
        raise
    except asyncio.CancelledError:
        job.cancel()
        # A failure after this is nobody's any more; asyncio would complain that it was not read.
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        await asyncio.wait([done], timeout=grace)
        raise
    finally:
        del job, done  # the traceback's frame must not hold the exception, as in _wait


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _wait(coro: Coroutine[Any, Any, T], watch: Watch) -> T:
    job = Job(coro)
    try:
        _follow(job, watch)
        if not job.done.done():
            raise KeyboardInterrupt
        return job.done.result()
    finally:
        # The exception's traceback holds this frame. If the frame held the exception as well,
        # the caller's rows would stay alive until the next cyclic collection.
        del job


def _follow(job: Job[T], watch: Watch) -> None:
    try:
        while True:
            # Never result(timeout=...): its TimeoutError is the class that a provider's
            # time-out has, and would read as "not done yet" for ever.
            cf.wait([job.done], timeout=watch.slice_s)
            if watch.look(done=job.done.done(), cancel=job.cancel):
                return
    except BaseException:
        job.cancel()
        cf.wait([job.done], timeout=watch.farewell_s)
        raise


def use_nested(enabled: bool) -> None:  # noqa: FBT001  # a switch has one argument
    """Switch nested mode on or off: work runs on the caller's own running loop, re-entered.

    For callers who hand over objects that are bound to that loop (a client or a lock that was
    already awaited), or whose other tasks must go on during a sync call. Without a running
    loop, and when switched off, the engine loop does the work as ever.

    Parameters
    ----------
    enabled : bool
        On patches asyncio for the whole process: now if a loop is running, else at the first
        call inside one. Off does not undo that.

    Raises
    ------
    ConfigurationError
        If neither nest-asyncio2 >= 1.7.3 nor, with ipykernel < 7.1, nest-asyncio is installed;
        if the running loop is not asyncio's own (uvloop). The mode is then unchanged.
    """
    global _is_nested  # noqa: PLW0603  # asyncio is patched for the process, so is the mode
    if enabled:
        running = _running_loop()
        if running is None:
            nesting_module()
        else:
            make_reentrant(running)
    _is_nested = enabled
