"""How a command says what it does: on stderr, a bar in a terminal, else a line now and then."""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.drawing.pace import Pace
from lbgpt_pandas.engine.errors import LbgptWarning
from lbgpt_pandas.engine.views import NoView, register_views
from lbgpt_pandas.notebook.bars import TqdmView, postfix
from lbgpt_pandas.notebook.progress import QuietView, choose_view
from lbgpt_pandas.notebook.surroundings import in_terminal
from lbgpt_pandas.plan_lines import time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lbgpt_pandas.engine.report import RunSnapshot
    from lbgpt_pandas.engine.views import View

CHOICES = ("auto", "bar", "lines", "none")
LINE_S = 5.0
"""Seconds between two lines."""


def say(text: str) -> None:
    """Write one line to stderr, whatever the text has in it."""
    sys.stderr.write(f"lbgpt_pandas: {' '.join(text.split())}\n")
    sys.stderr.flush()


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Let the package's warnings be lines on stderr, without the place in the code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        say(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", LbgptWarning)
        warnings.showwarning = show
        yield


@contextmanager
def drawn_as(choice: str, *, quiet: bool) -> Iterator[None]:
    """Draw the runs of a block.

    Parameters
    ----------
    choice : {"auto", "bar", "lines", "none"}
        ``"auto"`` is a bar in a terminal and lines elsewhere.
    quiet : bool
        Draw nothing, and do not say either how many rows are already answered.
    """
    if choice == "auto":
        choice = "bar" if in_terminal() else "lines"

    def make_view(*_: Any, **__: Any) -> View:
        if quiet:
            return NoView()
        views: dict[str, View] = {"bar": TqdmView(), "lines": LineView()}
        return QuietView(OpeningView(views.get(choice, NoView())))

    register_views(make_view)
    try:
        yield
    finally:
        register_views(choose_view)


class OpeningView:
    """Says how many rows are already answered once that is known, and then draws.

    Parameters
    ----------
    view : View
        Draws what comes after.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._is_open = False

    def update(self, snapshot: RunSnapshot) -> None:
        """Draw the present state; nothing while the cache is looked through.

        Parameters
        ----------
        snapshot : RunSnapshot
            The present state.
        """
        if not self._is_open and snapshot.in_flight:
            self._open(snapshot)
        if self._is_open:
            self._view.update(snapshot)

    def close(self, snapshot: RunSnapshot) -> None:
        """Draw the last state.

        Parameters
        ----------
        snapshot : RunSnapshot
            The last state.
        """
        if not self._is_open and not snapshot.stopped:
            self._open(snapshot)
        if self._is_open:
            self._view.close(snapshot)

    def _open(self, snapshot: RunSnapshot) -> None:
        self._is_open = True
        rows, cached, skipped = snapshot.rows, snapshot.cached, snapshot.skipped
        parts = [f"{cached:,} already answered", f"{rows - cached - skipped:,} to go"]
        if skipped:
            parts.append(f"{skipped:,} skipped (NA)")
        say(f"{rows:,} rows: {', '.join(parts)}")


class LineView:
    """Progress as a line every few seconds, for a log."""

    def __init__(self) -> None:
        self._pace = Pace()
        self._said_at = 0.0

    def update(self, snapshot: RunSnapshot) -> None:
        """Say how far it is, if that was not said a moment ago.

        Parameters
        ----------
        snapshot : RunSnapshot
            The present state.
        """
        self._pace.note(snapshot)
        if snapshot.elapsed_s - self._said_at >= LINE_S:
            self._said_at = snapshot.elapsed_s
            say(progress_line(snapshot, self._pace))

    def close(self, snapshot: RunSnapshot) -> None:
        """Say nothing: the command has a last line of its own."""


def progress_line(snapshot: RunSnapshot, pace: Pace) -> str:
    """Rows that are settled, speed, time left, and what went wrong.

    Parameters
    ----------
    snapshot : RunSnapshot
        The present state.
    pace : Pace
        How fast it goes.
    """
    percent = 100 * snapshot.settled // max(1, snapshot.rows)
    parts = [f"{snapshot.settled:,} of {snapshot.rows:,} rows ({percent} %)"]
    if pace.rate is not None:
        parts.append(f"{pace.rate:,.1f} rows/s")
    if pace.left_s is not None:
        parts.append(f"{time(pace.left_s)} left")
    parts.append(postfix(snapshot))
    return ", ".join(part for part in parts if part)
