"""Where progress is drawn: a port that the notebook side fills in.

The engine draws nothing. Whoever waits for a run ticks a `View` with snapshots; which view
that is decides the factory registered by the composition root.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lbgpt_pandas.engine.report import RunSnapshot

TICK_S = 0.1

_log = logging.getLogger(__name__)


class View(Protocol):
    """Draws snapshots of one run."""

    def update(self, snapshot: RunSnapshot) -> None:
        """Draw the present state; called ten times a second or slower."""
        ...

    def close(self, snapshot: RunSnapshot) -> None:
        """Draw the last state and release the view; called once."""
        ...


class NoView:
    """Draws nothing."""

    def update(self, snapshot: RunSnapshot) -> None:
        """Ignore the snapshot."""

    def close(self, snapshot: RunSnapshot) -> None:
        """Ignore the snapshot."""


_factory: Callable[[str | bool], View] = lambda _progress: NoView()  # noqa: E731  # replaced below


def register_views(factory: Callable[[str | bool], View]) -> None:
    """Set the function that makes a view from a ``progress`` argument."""
    global _factory  # noqa: PLW0603  # the one seam between the engine and the notebook side
    _factory = factory


def open_view(progress: str | bool) -> View:  # noqa: FBT001  # the public argument is a bool or a name
    """Make the view that `progress` asks for."""
    return _factory(progress)


@asynccontextmanager
async def drawn(view: View, snapshot: Callable[[], RunSnapshot]) -> AsyncIterator[None]:
    """Tick `view` on the running loop while the block runs, and close it afterwards.

    A view that raises is dropped with a log line: drawing never stops a run.
    """

    async def tick() -> None:
        while True:
            await asyncio.sleep(TICK_S)
            view.update(snapshot())

    ticker = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticker.cancel()
        with suppress(asyncio.CancelledError):
            try:
                await ticker
            except Exception:  # noqa: BLE001  # a view is anybody's code
                _log.exception("the progress view failed; the run is not affected")
        close_quietly(view, snapshot())


def close_quietly(view: View, snapshot: RunSnapshot) -> None:
    """Close `view`; its failure is logged and goes no further."""
    try:
        view.close(snapshot)
    except Exception:  # noqa: BLE001  # a view is anybody's code
        _log.exception("the progress view failed; the run is not affected")
