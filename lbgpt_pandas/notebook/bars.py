"""Progress as a tqdm bar: a line in a terminal, tqdm's own widget in a notebook."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.notebook.surroundings import has_widgets, in_kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from tqdm.std import tqdm

    from lbgpt_pandas.engine.report import RunSnapshot

    MakeBar = Callable[..., tqdm[Any]]

DELAY_S = 0.5
"""A run that is over sooner draws nothing."""
REDRAW_S = 1.0
"""The clock moves this often even if no row was settled."""


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


def _bar_class() -> MakeBar:
    if in_kernel() and has_widgets():
        from tqdm.notebook import tqdm_notebook  # noqa: PLC0415  # needs the widgets

        return tqdm_notebook
    from tqdm.std import tqdm  # noqa: PLC0415  # 20 ms that a run without a bar need not pay

    return tqdm
