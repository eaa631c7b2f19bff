"""Headroom of all deployments and the caches' hit rate, live, in a cell of its own."""

from __future__ import annotations

import logging
import threading
import time
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.drawing.panel import CacheCounts, History, panel_html
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.markup import inert_html
from lbgpt_pandas.notebook.statics import WIDGET, Place, StaticReport
from lbgpt_pandas.notebook.surroundings import has_widgets, in_kernel
from lbgpt_pandas.resolution import known_engines
from lbgpt_pandas.settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lbgpt_pandas.engine.states import DeploymentState

    Look = Callable[[], tuple[Sequence[DeploymentState], CacheCounts]]

SHORTEST_S = 0.2
"""Seconds between two drawings, at least."""
IDLE_S = 600.0
"""Seconds without any call after which drawing stops."""
UNSEEN_S = 3.0
"""Seconds without a view in any page after which drawing stops; a page that is loaded anew, or a
cell that is moved, is without one for a moment."""

_log = logging.getLogger(__name__)


class Dashboard:
    """Draws itself where it is shown, and stops when nobody looks any more.

    That is: its output was cleared, its widget closed, or no call was under way for ten minutes.
    A page that was closed does not say so; there the ten minutes count.

    Parameters
    ----------
    look : callable
        Gives the deployments and the caches' counts of this moment; called in a thread of the
        dashboard's own.
    interval_s : float
        Seconds between two drawings.
    idle_s : float, default 600.0
        Seconds without any call after which drawing stops.
    now : callable, default `time.monotonic`
        Seconds on a clock that only moves forward.
    """

    def __init__(
        self,
        look: Look,
        *,
        interval_s: float,
        idle_s: float = IDLE_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look, self._interval_s, self._idle_s, self._now = look, interval_s, idle_s, now
        self._history = History()
        self._seen: tuple[tuple[DeploymentState, ...], CacheCounts] = ((), CacheCounts())
        self._context = copy_context()  # what lb.using() says here, in the thread too
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._places: list[Place] = []
        self._screen: Any = None
        self._views: int | None = None
        self._busy_at = self._watched_at = now()
        self._why = ""

    @property
    def is_running(self) -> bool:
        """Whether it is being drawn."""
        return self._thread is not None and not self._over.is_set()

    def stop(self) -> None:
        """Draw no more; the last state stays where it was shown."""
        self._end("stop() was called")

    def tick(self) -> None:
        """Draw the present state wherever the dashboard is shown, or stop if nobody looks."""
        with self._lock:
            if self._over.is_set():
                return
            self._note()
            why = self._reason_to_stop()
            if why is not None:
                self._end(why)
            elif self._screen is not None:
                self._screen.value = panel_html(self._history)
            else:
                self._put(self._report())

    def _note(self) -> None:
        before, now = self._seen, self._now()
        states, cache = self._look()
        self._seen = tuple(states), cache
        self._history.note(now, self._seen[0], cache)
        if cache != before[1] or _calls(self._seen[0]) != _calls(before[0]):
            self._busy_at = now
        if any(state.in_flight for state in states):
            self._busy_at = now
        if self._views != 0:
            self._watched_at = now

    def _reason_to_stop(self) -> str | None:
        now = self._now()
        if self._screen is not None and self._screen.comm is None:
            return "its widget was closed"
        if now - self._watched_at >= UNSEEN_S:
            return "its output was cleared"
        if now - self._busy_at >= self._idle_s:
            return f"no call for {self._idle_s / 60:.0f} minutes"
        return None

    def _end(self, why: str) -> None:
        with self._lock:
            if self._over.is_set():
                return
            self._over.set()
            self._why = why
            try:
                self._put(self._report())
            finally:
                if self._screen is not None:
                    for part in (self._screen, self._screen.layout, self._screen.style):
                        part.close()

    def _report(self) -> StaticReport:
        states, cache = self._seen
        html, lines = (
            panel_html(self._history),
            [f"  {state.name}: {state.to_text()}" for state in states],
        )
        lines.append(f"  caches: {cache.hits:,} hits, {cache.misses:,} misses")
        if self._over.is_set():
            said = f"Drawing stopped: {self._why}. lb.dashboard() draws again."
            html += f'<div style="opacity:0.7;font-size:0.9em">{inert_html(said)}</div>'
            lines.append(said)
        head = f"lbgpt dashboard, deployments: {len(states):,}"
        return StaticReport(html, "\n".join([head, *lines]))

    def _put(self, report: StaticReport) -> None:
        for place in self._places:
            place.put(report.mimebundle())

    def _show(self) -> None:
        with self._lock:
            if not self._over.is_set():
                self._note()
            bundle = self._report().mimebundle()
            if has_widgets() and not self._over.is_set():
                bundle[WIDGET] = self._open_screen().get_view_spec()
            self._places.append(Place(bundle))
            if self._thread is None and not self._over.is_set():
                self._thread = threading.Thread(
                    target=self._context.run,
                    args=(self._draw_on,),
                    name="lbgpt-dashboard",
                    daemon=True,
                )
                self._thread.start()

    def _open_screen(self) -> Any:
        if self._screen is None:
            import ipywidgets  # noqa: PLC0415  # 0.2 s that only a shown dashboard pays

            # A number asks front ends to count the places where the widget is shown.
            self._screen = ipywidgets.HTML(panel_html(self._history), _view_count=0)
            self._screen.observe(self._count_views, names="_view_count")
            self._screen.comm.on_close(lambda _: self._end("its widget was closed"))
        return self._screen

    def _count_views(self, change: dict[str, Any]) -> None:
        self._views = change["new"]

    def _draw_on(self) -> None:
        try:
            while not self._over.wait(self._interval_s):
                self.tick()
        except Exception:  # noqa: BLE001  # drawing never disturbs who calls
            self._over.set()
            _log.exception("drawing the dashboard failed; it stays as it is")

    def __repr__(self) -> str:
        with self._lock:
            if not self.is_running and not self._over.is_set():
                self._note()
            return self._report().text

    def _repr_mimebundle_(
        self,
        include: object = None,  # noqa: ARG002  # IPython's protocol; it leaves out by itself
        exclude: object = None,  # noqa: ARG002  # the same
    ) -> dict[str, object]:
        with self._lock:
            if not self.is_running and not self._over.is_set():
                self._note()
            return self._report().mimebundle()

    def _ipython_display_(self) -> None:
        if not in_kernel():
            raise NotImplementedError  # IPython then shows the text
        self._show()


def dashboard(interval_s: float = 1.0) -> Dashboard:
    """Show all deployments' headroom and the caches' hit rate, live, in a cell of its own.

    Parameters
    ----------
    interval_s : float, default 1.0
        Seconds between two drawings.

    Returns
    -------
    Dashboard
        Shown as a widget that moves while other cells run, without ipywidgets as plain HTML, and
        in a terminal as text of this moment. ``stop()`` ends it, and it ends by itself when
        nobody looks: when its output is cleared, or after ten minutes without a call.

    Raises
    ------
    ConfigurationError
        If `interval_s` is no number of at least 0.2.
    """
    if isinstance(interval_s, bool) or not isinstance(interval_s, int | float):
        raise ConfigurationError(f"interval_s={interval_s!r} is not a number of seconds")
    if not interval_s >= SHORTEST_S:
        raise ConfigurationError(f"interval_s={interval_s}: draw every {SHORTEST_S} s or slower")
    return Dashboard(_look, interval_s=float(interval_s))


def _look() -> tuple[Sequence[DeploymentState], CacheCounts]:
    engines, current = known_engines(), settings()
    deployments = dict.fromkeys(each for engine in engines for each in engine.deployments())
    exact = {current.cache, *(engine.tier for engine in engines if engine.has_cache)} - {None}
    near = {current.semantic_cache, *(engine.semantic for engine in engines)} - {None}
    found_near = sum(len(tier.hits) for tier in near if tier)
    return [deployment.state() for deployment in deployments], CacheCounts(
        hits=sum(tier.hits for tier in exact if tier),
        semantic=found_near,
        misses=max(0, sum(tier.misses for tier in exact if tier) - found_near),
    )


def _calls(states: Sequence[DeploymentState]) -> int:
    return sum(state.answered + state.refused for state in states)
