"""Runs in the background: `df.lbgpt.submit` starts one, its `Run` is what stays in the hand."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import contextvars
import threading
import weakref
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.drawing.run import run_html, run_line
from lbgpt_pandas.engine.views import open_view

if TYPE_CHECKING:
    from collections.abc import Generator

    import pandas as pd

    from lbgpt_pandas.engine.report import RunSnapshot
    from lbgpt_pandas.engine.views import View
    from lbgpt_pandas.reports import RunReport
    from lbgpt_pandas.runs import RowRun

WARNING_DEPTH = 3
"""Frames between `warnings.warn` and the line of the user's that called `Run.result`."""

_submitted: list[weakref.ref[Run]] = []
_lock = threading.Lock()


class Run:
    """A column that is made in the background while other cells run.

    It goes on when nobody holds it; `submissions` lists it. In a notebook it is drawn with
    buttons in the cell that submitted it.

    Examples
    --------
    >>> import pandas as pd
    >>> from lbgpt_pandas.testing import ScriptedGPT
    >>> cities = pd.Series(["Paris", "Lyon"])
    >>> run = cities.lbgpt.submit("{}?", engine=ScriptedGPT("France"), cache_mode="off")
    >>> run.result().tolist()
    ['France', 'France']
    >>> run.done, run.progress().done
    (True, 2)
    """

    def __init__(self, run: RowRun) -> None:
        self._run = run
        self._ended: cf.Future[None] = cf.Future()
        self._ended.set_running_or_notify_cancel()
        # Opened here, so that it takes its place in the cell that submits.
        self._view = open_view(run.progress, run.heading, controls=self)
        # In the submitter's context, by which a notebook knows whose output it is.
        work = contextvars.copy_context().run
        name = f"lbgpt-run-{run.id}"
        threading.Thread(target=work, args=(self._work, self._view), name=name, daemon=True).start()

    def __repr__(self) -> str:
        return f"<Run {self.id}: {run_line(self._run.heading, self.progress())}>"

    def _repr_html_(self) -> str:
        return run_html(self._run.heading, self.progress())

    def __await__(self) -> Generator[Any, None, pd.Series[Any]]:
        """Wait in the caller's loop, as `result` does; to cancel the wait ends only the wait."""
        return self._wait().__await__()

    @property
    def id(self) -> str:
        """Name of the run in `lb.runs`."""
        return self._run.id

    @property
    def done(self) -> bool:
        """Whether it has ended, however that was."""
        return self._ended.done()

    @property
    def report(self) -> RunReport:
        """What the run did; until it has ended, what it has done so far."""
        return self._run.report

    def progress(self) -> RunSnapshot:
        """Return the counts of this moment."""
        return self._run.batch.snapshot()

    def partial(self) -> pd.Series[Any]:
        """Return the column with what is finished by now; the other rows are NA."""
        column: pd.Series[Any] = self.report.result
        return column

    def result(self, timeout: float | None = None) -> pd.Series[Any]:
        """Wait for the column.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        Series
            As `complete` returns it.

        Raises
        ------
        TimeoutError
            If it has not ended by then; it goes on.
        RunAborted
            If it was cancelled; `partial` has the finished rows.
        Exception
            What `complete` raises.
        """
        cf.wait([self._ended], timeout=timeout)
        if not self._ended.done():
            shot = self.progress()
            raise TimeoutError(
                f"{shot.settled:,} of {shot.rows:,} rows are settled after {timeout} s; the run "
                "goes on, and partial() has what is finished"
            )
        return self._delivered(depth=WARNING_DEPTH + 1)

    def pause(self) -> None:
        """Start nothing new until `resume`; what is on the wire is finished."""
        self._run.batch.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._run.batch.resume()

    def cancel(self) -> None:
        """End the run: start nothing new, and leave what does not arrive soon.

        Finished rows are cached and in `partial`; ``report.retry_failed()`` asks for the others.
        """
        self._run.batch.cancel()

    async def _wait(self) -> pd.Series[Any]:
        await asyncio.wait([asyncio.wrap_future(self._ended)])
        return self._delivered(depth=WARNING_DEPTH)

    def _delivered(self, *, depth: int) -> pd.Series[Any]:
        try:
            self._ended.result()
        finally:
            self._run.tell(depth=depth)
        column: pd.Series[Any] = self._run.deliver(depth=depth)
        return column

    def _work(self, view: View) -> None:
        try:
            self._run.work(view)
        except BaseException as error:  # noqa: BLE001  # it is the result's to raise
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)


def submit(run: RowRun) -> Run:
    """Start a run in the background, and list it."""
    submitted = Run(run)
    with _lock:
        # One that goes on is held by its thread; one that has ended holds rows, for whom it may.
        _submitted[:] = [each for each in _submitted if each() is not None]
        _submitted.append(weakref.ref(submitted))
    return submitted


def submissions() -> list[Run]:
    """Return the runs of this process that were submitted, oldest first.

    All that are under way, and those that have ended and are still held by somebody.
    """
    with _lock:
        known = [each() for each in _submitted]
    return [run for run in known if run is not None]
