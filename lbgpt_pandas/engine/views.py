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
    from lbgpt_pandas.engine.states import RunHeading

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


class Controls(Protocol):
    """What the buttons of a view do; every method returns at once and is safe from any thread."""

    def pause(self) -> None:
        """Start nothing new for now."""
        ...

    def resume(self) -> None:
        """Go on."""
        ...

    def cancel(self) -> None:
        """End the run; finished rows are kept."""
        ...


class MakeView(Protocol):
    """Makes the view that a ``progress`` argument asks for."""

    def __call__(
        self,
        progress: str | bool,  # noqa: FBT001  # the public argument is a bool or a name
        heading: RunHeading,
        /,
        *,
        controls: Controls | None = None,
        awaited: bool = False,
    ) -> View:
        """Make it; `controls` are None where the caller's thread waits for the run."""
        ...


class _NoViews:
    """Stands in until the notebook side is there."""

    def __call__(self, *_: object, **__: object) -> View:
        return NoView()


_factory: MakeView = _NoViews()


def register_views(factory: MakeView) -> None:
    """Set the function that makes a view from a ``progress`` argument."""
    global _factory  # noqa: PLW0603  # the one seam between the engine and the notebook side
    _factory = factory


def open_view(
    progress: str | bool,  # noqa: FBT001  # the public argument is a bool or a name
    heading: RunHeading,
    *,
    controls: Controls | None = None,
    awaited: bool = False,
) -> View:
    """Make the view that `progress` asks for.

    Parameters
    ----------
    progress : str or bool
        As in `df.lbgpt.complete`.
    heading : RunHeading
        What the run is.
    controls : Controls, optional
        What buttons do, where the view may have some.
    awaited : bool, default False
        The caller's loop awaits the run, so that some notebooks hear no click before its end.
    """
    return _factory(progress, heading, controls=controls, awaited=awaited)


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
