"""The bridge into the engine: one event loop in one daemon thread per process.

Sync callers wait with `run_sync`, async callers with `run_async`, background runs hold a
`Job`. All three run on the same loop, so clients, limits and caches are shared between them,
and none of them needs the caller's own loop to be free, patched, or even there.
"""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lbgpt_pandas.engine.interrupts import Watch
from lbgpt_pandas.engine.loop import current_engine, engine_loop, is_on_engine, running_loop
from lbgpt_pandas.engine.nesting import make_reentrant, nesting_module, run_nested

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from lbgpt_pandas.engine.loop import Engine

__all__ = ["Job", "engine_loop", "run_async", "run_sync", "use_nested"]

T = TypeVar("T")


_is_nested = False


class Job(Generic[T]):
    """A coroutine at work on the engine loop; every method is safe from any thread.

    Parameters
    ----------
    coro : coroutine
        What to run. It sees the context variables of the thread that starts it.
    start : bool, default True
        Start at once; otherwise :meth:`start` does.

    Attributes
    ----------
    done : concurrent.futures.Future
        The result or exception; ``asyncio.CancelledError`` if the job was cancelled. Its own
        ``cancel`` does nothing, use :meth:`cancel`.

    Examples
    --------
    >>> async def double(number):
    ...     return 2 * number
    >>> Job(double(21)).done.result()
    42
    """

    def __init__(self, coro: Coroutine[Any, Any, T], *, start: bool = True) -> None:
        self.done: cf.Future[T] = cf.Future()
        # A running future refuses to be cancelled from outside, where the work would go on.
        self.done.set_running_or_notify_cancel()
        self._coro: Coroutine[Any, Any, T] | None = coro
        self._task: asyncio.Task[T] | None = None
        self._engine: Engine | None = None
        if start:
            self.start()

    def start(self) -> None:
        """Hand the coroutine to the engine loop; returns at once.

        Raises
        ------
        RuntimeError
            If the interpreter is shutting down and no loop can be started.
        """
        try:
            self._engine = current_engine()
            self._engine.waiting.add(self)
            # The handle copies the caller's context, and the task that it makes copies that.
            self._engine.loop.call_soon_threadsafe(self._begin)
        except RuntimeError:
            self.abandon()
            raise

    def cancel(self) -> None:
        """Cancel the work; does nothing once it is done. Returns at once."""
        if self._engine is None:
            self.abandon()
            return
        with suppress(RuntimeError):  # the loop is closed, and with it the job
            self._engine.loop.call_soon_threadsafe(self._cancel_task)

    def _begin(self) -> None:
        if self._coro is None:  # cancelled before its start
            return
        self._task = asyncio.get_running_loop().create_task(self._coro)
        self._coro = None
        self._task.add_done_callback(self._finish)

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _finish(self, task: asyncio.Task[T]) -> None:
        self._sign_off()
        self._task = None
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(task.result())

    def abandon(self) -> None:
        """End the job as cancelled without waiting for its work; for the engine at its end."""
        self._sign_off()
        if self._coro is not None:
            self._coro.close()
            self._coro = None
        if not self.done.done():
            self.done.set_exception(asyncio.CancelledError())

    def _sign_off(self) -> None:
        if self._engine is not None:
            self._engine.waiting.discard(self)


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
        else installed is left alone. ``asyncio.run`` and a notebook cell with an ``await`` in it
        install one; there a press is heard when the call is over, so await the async twin.
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
    if is_on_engine():
        coro.close()
        raise RuntimeError(
            "a sync method was called from a coroutine of the engine itself, where it would wait "
            "for ever; await its async twin (acomplete, achat_completion_list) instead"
        )
    running = running_loop()
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
    if _is_nested or is_on_engine():
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


def _wait(coro: Coroutine[Any, Any, T], watch: Watch) -> T:
    job = Job(coro, start=False)
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
        job.start()  # in here, so that a foreign handler's exception never leaves it running
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
        running = running_loop()
        if running is None:
            nesting_module()
        else:
            make_reentrant(running)
    _is_nested = enabled
