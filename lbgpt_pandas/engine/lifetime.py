"""What becomes of open databases, threads and locks at a fork and at the interpreter's end.

SQLite must not be carried over a fork: the child inherits its memory, with locks that nobody
releases there. So a fork waits for work on databases that is under way and closes them; parent
and child open their own again at the next use. Threads do not exist in the child, and a lock
that one of them held is never released there; their owners are told to make new ones.
"""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from types import TracebackType


class Closable(Protocol):
    """Something that opens by itself when it is used, and may be closed at any time."""

    def close(self) -> None:
        """Release what is held."""
        ...


class Forkable(Protocol):
    """Something with threads or locks of its own."""

    def after_fork(self) -> None:
        """In the child: forget threads and whatever locks they held."""
        ...


_open: WeakSet[Closable] = WeakSet()
_forkable: WeakSet[Forkable] = WeakSet()


class _Gate:
    """Lets any number of threads in, and a fork only while nobody is inside."""

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.Lock())
        self._inside = 0

    def __enter__(self) -> None:
        with self._condition:
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._condition:
            self._inside -= 1
            self._condition.notify_all()

    def shut(self) -> None:
        """Wait until nobody is inside, and let nobody in until `reopen`."""
        self._condition.acquire()
        while self._inside:
            self._condition.wait()

    def reopen(self) -> None:
        """Let threads in again."""
        self._condition.release()


no_fork = _Gate()
"""``with no_fork:`` a fork of the process waits until the block has ended."""


def close_at_fork_and_exit(resource: Closable) -> None:
    """Have `resource` closed before each fork and when the interpreter exits.

    It is to be used inside `no_fork` only.
    """
    _open.add(resource)


def renew_after_fork(owner: Forkable) -> None:
    """Have ``owner.after_fork()`` called in every forked child."""
    _forkable.add(owner)


@atexit.register
def _close_all() -> None:
    for resource in list(_open):
        resource.close()


def _before_fork() -> None:
    no_fork.shut()
    _close_all()


def _in_child() -> None:
    no_fork.reopen()
    for owner in list(_forkable):
        owner.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=no_fork.reopen, after_in_child=_in_child
    )
