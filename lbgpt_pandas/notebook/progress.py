"""Choose how the progress of a run is drawn."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.errors import ConfigurationError, MissingExtraError
from lbgpt_pandas.engine.views import NoView
from lbgpt_pandas.notebook.bars import TqdmView
from lbgpt_pandas.notebook.live import CALL_CANCEL, INTERRUPT, HandleView, WidgetView
from lbgpt_pandas.notebook.surroundings import (
    clicks_reach_an_await,
    has_widgets,
    in_kernel,
    in_terminal,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from lbgpt_pandas.engine.report import RunSnapshot
    from lbgpt_pandas.engine.states import RunHeading
    from lbgpt_pandas.engine.views import Controls, View

CHOICES = ("auto", "widget", "tqdm", "none")

_log = logging.getLogger(__name__)


def choose_view(
    progress: str | bool,  # noqa: FBT001  # the public argument is a bool or a name
    heading: RunHeading,
    /,
    *,
    controls: Controls | None = None,
    awaited: bool = False,
) -> View:
    """Make the view that a ``progress`` argument asks for.

    Parameters
    ----------
    progress : {"auto", "widget", "tqdm", "none"} or bool
        ``"auto"`` draws in a notebook, as a widget or without ipywidgets as plain HTML; in a
        terminal as a bar; and nothing where the output is a file or a pipe. True does the same
        and draws a bar into a file too. ``"widget"`` insists on a widget where there is a
        notebook. ``"tqdm"`` draws a bar everywhere. ``"none"`` and False never draw.
    heading : RunHeading
        What the run is.
    controls : Controls, optional
        What buttons do; None where the caller's thread waits for the run, which no click reaches.
    awaited : bool, default False
        A cell awaits the run, so buttons are shown only by kernels that hear them.

    Returns
    -------
    View
        It draws nothing for a run of less than half a second. If drawing fails, that is logged
        once and the view stays silent; it never raises.

    Raises
    ------
    ConfigurationError
        For any other `progress`.
    MissingExtraError
        For ``"widget"`` in a notebook whose kernel has no ipywidgets.
    """
    if progress is False or progress == "none":
        return NoView()
    if progress is not True and progress not in CHOICES:
        raise ConfigurationError(
            f"progress={progress!r} is not known; use one of {', '.join(CHOICES)}, True or False"
        )
    if progress == "auto" and not (in_kernel() or in_terminal()):
        return NoView()
    if progress == "tqdm" or not in_kernel():
        return QuietView(TqdmView(description=f"lbgpt {heading.verb}" if heading.verb else "lbgpt"))
    if progress == "widget" and not has_widgets():
        raise MissingExtraError(
            "progress='widget' needs ipywidgets, which this kernel's Python does not have: "
            "pip install 'lbgpt-pandas[notebook]'; progress='auto' draws without it"
        )
    return QuietView(_notebook_view(heading, controls=controls, awaited=awaited))


def _notebook_view(heading: RunHeading, *, controls: Controls | None, awaited: bool) -> View:
    # A submitted run is drawn by a thread of its own and goes on in later cells.
    submitted = controls is not None and not awaited
    if not has_widgets():
        return HandleView(heading, hint=CALL_CANCEL if submitted else INTERRUPT, place=submitted)
    if awaited and not clicks_reach_an_await():
        controls = None
    hint = "" if controls is not None else INTERRUPT
    return WidgetView(heading, controls=controls, hint=hint, place=submitted)


class QuietView:
    """Draws through another view, and stops drawing once that one raises.

    Parameters
    ----------
    view : View
        The view that draws.
    """

    def __init__(self, view: View) -> None:
        self._view = view

    def update(self, snapshot: RunSnapshot) -> None:
        """Draw the present state.

        Parameters
        ----------
        snapshot : RunSnapshot
            The present state.
        """
        self._attempt(self._view.update, snapshot)

    def close(self, snapshot: RunSnapshot) -> None:
        """Draw the last state and release the view.

        Parameters
        ----------
        snapshot : RunSnapshot
            The last state.
        """
        self._attempt(self._view.close, snapshot)

    def _attempt(self, draw: Callable[[RunSnapshot], None], snapshot: RunSnapshot) -> None:
        try:
            draw(snapshot)
        except Exception:  # noqa: BLE001  # drawing never ends a run
            self._view = NoView()
            _log.exception("drawing progress failed; the run goes on without it")
