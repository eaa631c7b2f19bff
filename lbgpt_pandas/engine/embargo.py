"""While an archive is replayed nobody is asked, from whichever thread."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.errors import CacheMiss, ConfigurationError
from lbgpt_pandas.engine.lifetime import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Iterator

_inside: ContextVar[str | None] = ContextVar("lbgpt_replayed", default=None)


class _Blocks:
    """The archives that are replayed in this process now."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Keep the block that forked; the threads of the others do not exist in the child."""
        self._lock = threading.Lock()
        own = _inside.get()
        self._names = [] if own is None else [own]

    def add(self, name: str) -> None:
        with self._lock:
            self._names.append(name)

    def remove(self, name: str) -> None:
        with self._lock:
            if name in self._names:
                self._names.remove(name)

    def latest(self) -> str | None:
        with self._lock:
            return self._names[-1] if self._names else None


_blocks = _Blocks()


@contextmanager
def embargo(archive: str) -> Iterator[None]:
    """Let nobody be asked in a block.

    Parameters
    ----------
    archive : str
        Name of what is replayed, for messages.
    """
    token = _inside.set(archive)
    _blocks.add(archive)
    try:
        yield
    finally:
        _blocks.remove(archive)
        _inside.reset(token)


def check_embargo(what: str) -> None:
    """Refuse to begin what may ask a provider while an archive is replayed.

    What began before goes on.

    Parameters
    ----------
    what : str
        Subject of the message.

    Raises
    ------
    CacheMiss
        Inside of the block.
    ConfigurationError
        In a thread or task of the same process that is not part of the block; which of the two
        was meant cannot be told.
    """
    check_call(what)
    name = _blocks.latest()
    if name is not None:
        raise ConfigurationError(
            f"{what} would ask a provider while lb.replay({name!r}) is open in this process, but "
            "not in this thread. To replay here as well run the thread's work by "
            "contextvars.copy_context().run(...), or open lb.replay in it; else wait for the end "
            "of the block"
        )


def check_call(what: str) -> None:
    """Refuse a call that is about to be sent inside of the block, wherever it was prepared.

    Parameters
    ----------
    what : str
        Subject of the message.

    Raises
    ------
    CacheMiss
        Inside of the block.
    """
    name = _inside.get()
    if name is not None:
        raise CacheMiss(
            f"{what} would ask a provider, and lb.replay({name!r}) asks nobody; call it outside "
            "of the block"
        )


def check_change(what: str) -> None:
    """Refuse to change a cache while an archive is replayed, inside of the block and beside it.

    Parameters
    ----------
    what : str
        Subject of the message.

    Raises
    ------
    ConfigurationError
        Whose cache is meant cannot be told.
    """
    name = _inside.get() or _blocks.latest()
    if name is not None:
        raise ConfigurationError(
            f"{what} would change a cache while lb.replay({name!r}) is open, and lb.replay uses no "
            "cache; do it when the block has ended"
        )
