"""Group commit: what arrives while a transaction runs goes into the next one together."""

from __future__ import annotations

import asyncio
import atexit
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar
from weakref import WeakSet

from lbgpt_pandas.engine.lifetime import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

Settled: TypeAlias = "Callable[[list[T], BaseException | None], None]"
"""Gets items that were written together, and what went wrong if anything did."""

IDLE_S = 5.0
"""Seconds without work after which the thread ends, so that a forgotten cache can go."""

GATHERING_S = 0.01
"""Seconds in which items that nobody waits for gather before they are written."""

MOST_IN_A_GROUP = 96
"""Items that end the gathering, and how many may wait without anybody waiting for them."""

_writers: WeakSet[GroupWriter[object]] = WeakSet()


class GroupWriter(Generic[T]):
    """A thread that writes items of any number of event loops and threads in groups.

    Parameters
    ----------
    commit : callable
        ``commit(items)`` makes a list of items durable or raises; called in the thread.
    name : str
        Name of the thread.
    """

    def __init__(self, commit: Callable[[list[T]], None], *, name: str) -> None:
        self._commit = commit
        self._name = name
        self.after_fork()
        renew_after_fork(self)
        _writers.add(self)  # type: ignore[arg-type]  # whatever the items are

    def after_fork(self) -> None:
        """Begin anew: what was waiting is the parent's to write."""
        self._changed = threading.Condition(threading.Lock())
        self._waiting: list[tuple[T, asyncio.Future[None] | Settled[T]]] = []
        self._is_urgent = False
        self._thread: threading.Thread | None = None
        self._is_idle = self._is_asleep = False
        self._is_busy = False

    async def put(self, item: T) -> None:
        """Write an item; returns when it is durable. Once begun it is written in any case.

        Raises
        ------
        Exception
            What `commit` raised for the group of this item.
        """
        done = asyncio.get_running_loop().create_future()
        with self._changed:
            has_thread = self._thread is not None or self._start()
            if has_thread:
                # Behind a full group it goes with that, for which the thread is on its way.
                self._is_urgent |= len(self._waiting) < MOST_IN_A_GROUP
                self._waiting.append((item, done))
                if self._is_idle and self._is_urgent:
                    self._changed.notify_all()
        if has_thread:
            await done
        else:
            self._commit([item])

    def put_soon(self, item: T, settled: Settled[T]) -> bool:
        """Have an item written within a moment, and go on.

        Parameters
        ----------
        item : T
            What to write.
        settled : callable
            Told in the writer's thread once it is durable, or could not be written.

        Returns
        -------
        bool
            Whether it was taken; not if too many wait, or no thread can be started any more.
        """
        with self._changed:
            if len(self._waiting) >= MOST_IN_A_GROUP or not (self._thread or self._start()):
                return False
            self._waiting.append((item, settled))
            # While answers come the thread looks of itself: to wake it costs more than a write.
            if self._is_asleep and len(self._waiting) == 1:
                self._changed.notify_all()
        return True

    def flush(self) -> None:
        """Block until everything that was put is written or has failed."""
        with self._changed:
            self._is_urgent = bool(self._waiting)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting and not self._is_busy)

    def _is_full(self) -> bool:
        return self._is_urgent or len(self._waiting) >= MOST_IN_A_GROUP

    def _start(self) -> bool:
        thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The interpreter is on its way out and starts no threads any more; what arrives
            # now has been paid for like anything else.
            return False
        self._thread = thread
        return True

    def _serve(self) -> None:
        while group := self._next_group():
            error: BaseException | None = None
            try:
                self._commit([item for item, _ in group])
            except BaseException as caught:  # noqa: BLE001  # told to everybody who waits
                error = caught
            _settle(group, error)
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()

    def _next_group(self) -> list[tuple[T, asyncio.Future[None] | Settled[T]]]:
        """Wait for work; an empty list ends the thread."""
        with self._changed:
            self._is_idle = True
            self._changed.wait_for(self._is_full, timeout=GATHERING_S)
            if not self._waiting:
                self._is_asleep = True
                if self._changed.wait_for(lambda: bool(self._waiting), timeout=IDLE_S):
                    self._changed.wait_for(self._is_full, timeout=GATHERING_S)
            self._is_idle = self._is_asleep = self._is_urgent = False
            group, self._waiting = self._waiting, []
            if group:
                self._is_busy = True
            else:
                self._thread = None
            return group


def _settle(
    group: list[tuple[T, asyncio.Future[None] | Settled[T]]], error: BaseException | None
) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    by_listener: dict[Settled[T], list[T]] = {}
    for item, done in group:
        if isinstance(done, asyncio.Future):
            by_loop.setdefault(done.get_loop(), []).append(done)
        else:
            by_listener.setdefault(done, []).append(item)
    for settled, items in by_listener.items():
        try:
            settled(items, error)
        except Exception as failure:  # noqa: BLE001  # others wait for this thread all the same
            about = type(failure), failure, failure.__traceback__, threading.current_thread()
            threading.excepthook(threading.ExceptHookArgs(about))
    for loop, waiting in by_loop.items():
        # A closed loop has nobody left who waits; what was to be written is written.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_tell, waiting, error)


def _tell(futures: list[asyncio.Future[None]], error: BaseException | None) -> None:
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


@atexit.register
def _flush_all() -> None:
    for writer in list(_writers):
        writer.flush()
