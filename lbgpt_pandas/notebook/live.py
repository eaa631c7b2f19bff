"""A run as HTML that moves while its cell is busy, and stays as a report when the run is over.

Every view is redrawn from plain values at a pace that keeps drawing cheap, in whatever thread
calls it; a lock lets a ticking thread and a closing one meet.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.drawing.pace import Pace
from lbgpt_pandas.drawing.run import run_html, run_line
from lbgpt_pandas.notebook.bars import DELAY_S, REDRAW_S
from lbgpt_pandas.notebook.statics import WIDGET, Place, StaticReport

if TYPE_CHECKING:
    from lbgpt_pandas.engine.report import RunSnapshot
    from lbgpt_pandas.engine.states import RunHeading
    from lbgpt_pandas.engine.views import Controls

GAP_S = 0.2
"""Seconds between two drawings of one run, at least."""
SHARE = 0.01
"""Part of the time that one run's drawing may take; dear drawings come less often."""
INTERRUPT = "Interrupt (■) to stop; finished rows are kept"
CALL_CANCEL = "Call .cancel() of the run to stop it; finished rows are kept"

_EMPTY = StaticReport("", "")


class HandleView:
    """HTML in an output of the cell, replaced over and over; needs nothing but IPython.

    Parameters
    ----------
    heading : RunHeading
        What the run is.
    hint : str, default ""
        How to stop the run, where no button does.
    place : bool, default False
        Take the place in the present cell now. For a run that other threads draw: a kernel puts
        the first output of a thread into whatever cell runs by then, while later ones find theirs.
    """

    def __init__(self, heading: RunHeading, *, hint: str = "", place: bool = False) -> None:
        self._heading, self._hint = heading, hint
        self._pace = Pace()
        self._lock = threading.Lock()
        self._place: Place | None = None
        self._drawn: RunSnapshot | None = None
        self._gap_s = GAP_S
        self._is_closed = False
        if place:
            self._publish(_EMPTY.mimebundle())

    def update(self, snapshot: RunSnapshot) -> None:
        """Draw the present state, if it is time to and there is something new to draw.

        Parameters
        ----------
        snapshot : RunSnapshot
            The present state.
        """
        with self._lock:
            if self._is_closed:
                return
            self._pace.note(snapshot)
            if snapshot.elapsed_s < DELAY_S or not self._is_due(snapshot):
                return
            is_first, began = self._drawn is None, time.thread_time()
            self._draw(snapshot)
            if not is_first:  # which imports what all others use
                self._gap_s = min(max(GAP_S, (time.thread_time() - began) / SHARE), REDRAW_S)

    def close(self, snapshot: RunSnapshot) -> None:
        """Put the report in the place of the live view; further updates are ignored.

        Parameters
        ----------
        snapshot : RunSnapshot
            The last state.
        """
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            if self._drawn is None and snapshot.elapsed_s < DELAY_S:
                return
            last = snapshot
            if not last.finished:  # given up while work was still under way
                last = replace(last, finished=True, stopped=True)
            try:
                self._publish(self._bundle(run_html(self._heading, last), last))
            finally:
                self._release()

    def _is_due(self, snapshot: RunSnapshot) -> bool:
        drawn = self._drawn
        if drawn is None:
            return True
        passed_s = snapshot.elapsed_s - drawn.elapsed_s
        if passed_s < self._gap_s:
            return False
        return passed_s >= REDRAW_S or _still(snapshot) != _still(drawn)

    def _draw(self, snapshot: RunSnapshot) -> None:
        html = run_html(self._heading, snapshot, pace=self._pace, hint=self._hint)
        if self._drawn is None:
            self._open(html, snapshot)
        else:
            self._change(html, snapshot)
        self._drawn = snapshot

    def _open(self, html: str, snapshot: RunSnapshot) -> None:
        self._publish(self._bundle(html, snapshot))

    def _change(self, html: str, snapshot: RunSnapshot) -> None:
        self._publish(self._bundle(html, snapshot))

    def _bundle(self, html: str, snapshot: RunSnapshot) -> dict[str, object]:
        return StaticReport(html, text=run_line(self._heading, snapshot)).mimebundle()

    def _publish(self, bundle: dict[str, object]) -> None:
        """Show a bundle in the view's place, which the first one takes."""
        if self._place is None:
            self._place = Place(bundle)
        else:
            self._place.put(bundle)

    def _release(self) -> None:
        """Let go of what the live view held."""


class WidgetView(HandleView):
    """An ``ipywidgets.HTML``, with buttons below if there is something to control.

    The text and HTML of its first state stand beside it, for whoever opens the notebook without
    the kernel while the run is still going on.

    Parameters
    ----------
    heading : RunHeading
        What the run is.
    controls : Controls, optional
        What the buttons do; None for none.
    hint, place
        As for `HandleView`.
    """

    def __init__(
        self,
        heading: RunHeading,
        *,
        controls: Controls | None = None,
        hint: str = "",
        place: bool = False,
    ) -> None:
        self._controls = controls
        self._screen: Any = None
        self._widgets: list[Any] = []
        self._buttons: _Buttons | None = None
        super().__init__(heading, hint=hint, place=place)

    def _open(self, html: str, snapshot: RunSnapshot) -> None:
        import ipywidgets  # noqa: PLC0415  # 0.2 s that only a drawn run pays

        shown = self._screen = ipywidgets.HTML(html)
        self._widgets = [shown]
        if self._controls is not None:
            self._buttons = _Buttons(self._controls, snapshot)
            shown = ipywidgets.VBox([self._screen, self._buttons.row])
            self._widgets += [*self._buttons.widgets, shown]
        self._publish(self._bundle(html, snapshot) | {WIDGET: shown.get_view_spec()})

    def _change(self, html: str, snapshot: RunSnapshot) -> None:
        if self._buttons is not None:
            self._buttons.show(snapshot)
        self._screen.value = html

    def _release(self) -> None:
        for widget in reversed(self._widgets):
            for part in (widget, widget.layout, getattr(widget, "style", None)):
                if part is not None:
                    part.close()
        self._widgets = []


class _Buttons:
    """Pause or Resume, and Cancel; a click does one thing, the next drawing shows what it did."""

    def __init__(self, controls: Controls, snapshot: RunSnapshot) -> None:
        import ipywidgets  # noqa: PLC0415  # see WidgetView

        self._controls = controls
        self._pause = ipywidgets.Button(**_face(snapshot), tooltip="Start nothing new for now")
        self._cancel = ipywidgets.Button(
            description="Cancel", icon="stop", tooltip="End the run; finished rows are kept"
        )
        self._pause.on_click(self._toggle)
        self._cancel.on_click(lambda _: controls.cancel())
        self.row = ipywidgets.HBox([self._pause, self._cancel])
        self.widgets = [self._pause, self._cancel, self.row]
        self.show(snapshot)

    def show(self, snapshot: RunSnapshot) -> None:
        """Say what a click would do now; sends nothing while that is as before."""
        self._is_paused = snapshot.paused
        with self._pause.hold_sync():
            for name, value in _face(snapshot).items():
                setattr(self._pause, name, value)
        self._cancel.disabled = snapshot.stopped

    def _toggle(self, _button: object) -> None:
        if self._is_paused:
            self._controls.resume()
        else:
            self._controls.pause()


def _face(snapshot: RunSnapshot) -> dict[str, Any]:
    """What the first button looks like."""
    return {
        "description": "Resume" if snapshot.paused else "Pause",
        "icon": "play" if snapshot.paused else "pause",
        "disabled": snapshot.stopped,
    }


def _still(snapshot: RunSnapshot) -> RunSnapshot:
    """The snapshot without what only shows that time passes."""
    deployments = tuple(
        replace(state, wait_s=math.ceil(state.wait_s) if state.wait_s < math.inf else math.inf)
        for state in snapshot.deployments
    )
    return replace(snapshot, elapsed_s=0.0, deployments=deployments)
