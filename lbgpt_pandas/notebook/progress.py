"""Choose how the progress of a run is drawn, and draw it.

The only place that looks at whether this is a notebook, a terminal or neither.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.views import NoView

if TYPE_CHECKING:
    from collections.abc import Callable

    from tqdm.std import tqdm

    from lbgpt_pandas.engine.report import RunSnapshot
    from lbgpt_pandas.engine.views import View

    MakeBar = Callable[..., tqdm[Any]]

DELAY_S = 0.5
"""A run that is over sooner draws nothing."""
REDRAW_S = 1.0
"""The clock in the bar moves this often even if no row was settled."""
CHOICES = ("auto", "widget", "tqdm", "none")

_log = logging.getLogger(__name__)


def choose_view(progress: str | bool, *, description: str = "lbgpt") -> View:  # noqa: FBT001  # the public argument is a bool or a name
    """Make the view that a ``progress`` argument asks for.

    Parameters
    ----------
    progress : {"auto", "widget", "tqdm", "none"} or bool
        ``"auto"`` draws in a notebook and in a terminal, and nothing where the output is a
        file or a pipe. ``"widget"``, ``"tqdm"`` and True draw always, with tqdm's notebook bar
        in a notebook. ``"none"`` and False never draw.
    description : str, default "lbgpt"
        What stands before the bar.

    Returns
    -------
    View
        It draws nothing for a run of less than `DELAY_S` seconds. If drawing fails, that is
        logged once and the view stays silent; it never raises.

    Raises
    ------
    ConfigurationError
        For any other `progress`.
    """
    if progress is False or progress == "none":
        return NoView()
    if progress is not True and progress not in CHOICES:
        raise ConfigurationError(
            f"progress={progress!r} is not known; use one of {', '.join(CHOICES)}, True or False"
        )
    if progress == "auto" and not (in_kernel() or _is_terminal()):
        return NoView()
    return QuietView(TqdmView(description=description))


def in_kernel() -> bool:
    """Return whether this code runs in a Jupyter kernel; imports nothing to find out."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class TqdmView:
    """A tqdm bar: in a notebook the widget one, in a terminal a line on stderr.

    Parameters
    ----------
    description : str, default "lbgpt"
        What stands before the bar.
    """

    def __init__(self, *, description: str = "lbgpt") -> None:
        self._description = description
        self._bar: tqdm[Any] | None = None
        self._drawn: RunSnapshot | None = None

    def update(self, snapshot: RunSnapshot) -> None:
        """Draw the present state, if there is something new to draw.

        Parameters
        ----------
        snapshot : RunSnapshot
            The present state.
        """
        if snapshot.elapsed_s >= DELAY_S and self._is_news(snapshot):
            self._draw(snapshot)

    def close(self, snapshot: RunSnapshot) -> None:
        """Draw the last state; the bar stays where it is.

        Parameters
        ----------
        snapshot : RunSnapshot
            The last state.
        """
        if self._bar is None and snapshot.elapsed_s < DELAY_S:
            return
        bar = self._draw(snapshot)
        bar.close()

    def _is_news(self, snapshot: RunSnapshot) -> bool:
        drawn = self._drawn
        return (
            drawn is None
            or snapshot.settled != drawn.settled
            or postfix(snapshot) != postfix(drawn)
            or snapshot.elapsed_s - drawn.elapsed_s >= REDRAW_S
        )

    def _draw(self, snapshot: RunSnapshot) -> tqdm[Any]:
        bar = self._bar
        if bar is None:
            bar = self._bar = _bar_class()(
                total=snapshot.rows,
                desc=self._description,
                unit="row",
                dynamic_ncols=True,
                initial=snapshot.settled,
                # A notebook paints stderr red, as if the run had failed.
                file=sys.stdout if in_kernel() else sys.stderr,
            )
            bar.start_t -= snapshot.elapsed_s
        # Rows that cost no call say nothing about how long the others will take.
        bar.initial = snapshot.cached + snapshot.skipped
        bar.n = snapshot.settled
        bar.set_postfix_str(postfix(snapshot), refresh=False)
        bar.refresh()
        self._drawn = snapshot
        return bar


def postfix(snapshot: RunSnapshot) -> str:
    """Name what a bar cannot show: failures, cache hits, retries and cost, where not zero.

    Parameters
    ----------
    snapshot : RunSnapshot
        The state to describe.
    """
    parts = [
        f"{name}={count:,}"
        for name, count in (
            ("failed", snapshot.failed),
            ("cached", snapshot.cached),
            ("retries", snapshot.retries),
        )
        if count
    ]
    if snapshot.cost_usd is None:
        parts.append("cost=unknown")
    elif snapshot.cost_usd:
        parts.append(f"cost=${snapshot.cost_usd:,.4f}")
    return ", ".join(parts)


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


def _has_widgets() -> bool:
    return importlib.util.find_spec("ipywidgets") is not None


def _bar_class() -> MakeBar:
    if in_kernel() and _has_widgets():
        from tqdm.notebook import tqdm_notebook  # noqa: PLC0415  # needs the widgets

        return tqdm_notebook
    from tqdm.std import tqdm  # noqa: PLC0415  # 20 ms that a run without a bar need not pay

    return tqdm


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
