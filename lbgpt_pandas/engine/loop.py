"""The engine's event loop: one daemon thread per process, new after a fork, wound down at exit."""

from __future__ import annotations

import asyncio
import atexit
import os
import selectors
import threading
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

THREAD_NAME = "lbgpt-engine"
STOP_S = 0.5
"""Seconds that pending work gets for its ``finally`` blocks when the interpreter exits."""


class Unfinished(Protocol):
    """Somebody who waits for the loop and must hear of its end."""

    def abandon(self) -> None:
        """End as cancelled; called in the loop's thread after the loop is closed."""
        ...


class Engine:
    """The loop, its thread, and those who still wait for an answer of it.

    Attributes
    ----------
    loop : asyncio.AbstractEventLoop
        Runs until the interpreter exits.
    waiting : set of Unfinished
        To be abandoned if the loop ends first.
    """

    def __init__(self) -> None:
        self._selector = _Selector()
        # Not in the caller's context, which the loop would keep with the settings in it.
        self.loop = Context().run(_new_loop, self._selector)
        self.waiting: set[Unfinished] = set()
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name=THREAD_NAME, daemon=True)
        self._thread.start()

    def is_usable(self) -> bool:
        """Return whether the loop runs; in a forked child the thread is not alive."""
        return self._thread.is_alive() and not self._stopping

    def stop(self) -> None:
        """Cancel everything, give it `STOP_S` to end, close the loop, join the thread."""
        self._stopping = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=2 * STOP_S)

    def leave_to_parent(self) -> None:
        """In a forked child: let nothing that happens to this copy reach the parent's loop."""
        self._selector.is_inherited = True

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
            for one in list(self.waiting):
                one.abandon()

    def _wind_down(self) -> None:
        deadline = self.loop.time() + STOP_S
        while (tasks := asyncio.all_tasks(self.loop)) and self.loop.time() < deadline:
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(
                asyncio.wait(tasks, timeout=max(0.0, deadline - self.loop.time()))
            )
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())


class _Selector(selectors.DefaultSelector):
    """A selector whose copy in a forked child touches nothing.

    Parent and child share one epoll object. A client that is collected in the child would take
    its socket out of it, and the parent would wait for that socket for ever.
    """

    is_inherited = False

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        """Stop watching `fileobj`."""
        return self.get_key(fileobj) if self.is_inherited else super().unregister(fileobj)

    def modify(
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> selectors.SelectorKey:
        """Watch `fileobj` for other events."""
        if self.is_inherited:
            return self.get_key(fileobj)
        return super().modify(fileobj, events, data)


def _new_loop(selector: selectors.BaseSelector) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    if type(loop) is not asyncio.SelectorEventLoop:
        # uvloop by the user's policy, which looks after its own forks; Windows has none.
        selector.close()
        return loop
    loop.close()
    return asyncio.SelectorEventLoop(selector)


_lock = threading.Lock()
_engine: Engine | None = None


def current_engine() -> Engine:
    """Return the engine of this process, starting it if there is none."""
    global _engine  # noqa: PLW0603  # one per process by definition
    with _lock:
        if _engine is None or not _engine.is_usable():
            _engine = Engine()
        return _engine


def engine_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop of the engine, starting it if there is none.

    Returns
    -------
    asyncio.AbstractEventLoop
        The same loop for the life of the process. A new one after a fork, and after the old
        one's thread has ended.
    """
    return current_engine().loop


def is_on_engine() -> bool:
    """Return whether the caller is a coroutine or callback of the engine loop."""
    engine = _engine
    return engine is not None and running_loop() is engine.loop


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread, if there is one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@atexit.register
def stop_engine() -> None:
    """Stop the engine of this process, if it runs; the next call starts a new one."""
    engine = _engine
    if engine is not None and engine.is_usable():
        engine.stop()


def _forget_after_fork() -> None:
    global _engine, _lock  # noqa: PLW0603  # neither the thread nor a lock's owner is in the child
    _lock = threading.Lock()
    if _engine is not None:
        _engine.leave_to_parent()
        _engine = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
