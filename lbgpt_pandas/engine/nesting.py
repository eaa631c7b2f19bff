"""Making the caller's running loop re-entrant: opt-in, and only where it does no harm.

nest-asyncio and nest-asyncio2 before 1.7.3 lose the cells that are queued behind a nested
call on ipykernel >= 7.1, without an error; so they are refused there.
"""

from __future__ import annotations

import asyncio
import importlib
import re
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

from lbgpt_pandas.engine.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import ModuleType

    from lbgpt_pandas.engine.interrupts import Watch

NEST2_FIRST_GOOD = (1, 7, 3)
IPYKERNEL_FIRST_BAD = (7, 1)

T = TypeVar("T")


def run_nested(coro: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop, watch: Watch) -> T:
    """Run a coroutine on a loop that is running in this thread, re-entering it.

    Parameters
    ----------
    coro : coroutine
        What to run.
    loop : asyncio.AbstractEventLoop
        The running loop.
    watch : Watch
        Draws progress and hears interrupts.

    Raises
    ------
    ConfigurationError
        If the loop cannot be made re-entrant.
    KeyboardInterrupt
        If the work was interrupted and did not end within the grace.
    """
    try:
        make_reentrant(loop)
    except ConfigurationError:
        coro.close()
        raise
    task = loop.create_task(coro)
    follower = loop.create_task(_follow(task, watch))
    try:
        loop.run_until_complete(follower)
        if task.done():
            return task.result()
    except BaseException:
        task.cancel()
        follower.cancel()
        raise
    finally:
        del task, follower  # the traceback's frame must not hold the exception
    raise KeyboardInterrupt


async def _follow(task: asyncio.Task[Any], watch: Watch) -> None:
    while True:
        await asyncio.wait([task], timeout=watch.slice_s)
        if watch.look(done=task.done(), cancel=task.cancel):
            return


def make_reentrant(loop: asyncio.AbstractEventLoop) -> None:
    """Patch asyncio so that ``loop.run_until_complete`` works while `loop` runs.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        The loop. Patching it a second time does nothing; it is never undone.

    Raises
    ------
    ConfigurationError
        If the loop is not asyncio's own (uvloop), or no harmless patch is installed.
    """
    if not isinstance(loop, asyncio.BaseEventLoop):
        kind = type(loop)
        raise ConfigurationError(
            f'event_loop="nested" does not work on a loop of type {kind.__module__}.'
            f'{kind.__qualname__}; set event_loop="thread", which works beside every loop'
        )
    module = nesting_module()
    if not hasattr(loop, "_nest_patched"):
        module.apply(loop)


def nesting_module() -> ModuleType:
    """Return nest_asyncio2, or nest_asyncio where it does no harm.

    Raises
    ------
    ConfigurationError
        If there is neither; the message says what to install.
    """
    patched_by_old = hasattr(asyncio, "_nest_patched") and not hasattr(asyncio, "_nest_asyncio2")
    if installed("nest-asyncio2") >= NEST2_FIRST_GOOD and not patched_by_old:
        return importlib.import_module("nest_asyncio2")
    if not installed("nest-asyncio") and not installed("nest-asyncio2"):
        raise ConfigurationError(
            'event_loop="nested" needs nest-asyncio2. Install it with: '
            "pip install 'lbgpt-pandas[nested]', or leave event_loop at \"thread\""
        )
    if not installed("nest-asyncio") or installed("ipykernel") >= IPYKERNEL_FIRST_BAD:
        cure = (
            "Remove the call of nest_asyncio.apply() and restart"
            if patched_by_old
            else "Install a good one with: pip install 'nest-asyncio2>=1.7.3'"
        )
        raise ConfigurationError(
            'event_loop="nested" is refused: nest-asyncio, and nest-asyncio2 before 1.7.3, lose '
            f'queued cells on ipykernel >= 7.1. {cure}, or leave event_loop at "thread"'
        )
    return importlib.import_module("nest_asyncio")


def installed(distribution: str) -> tuple[int, ...]:
    """Return the leading numbers of an installed version, ``()`` if there is none."""
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ()
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
