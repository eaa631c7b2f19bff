"""Ctrl-C and the notebook's stop button while a sync call waits for the engine."""

from __future__ import annotations

import logging
import signal
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Self

DRAIN_S = 0.3
"""Seconds that answers on the wire get to arrive after an interrupt, before the rest is cancelled.

Only where the caller of `run_sync` gave ``on_interrupt``.
"""
STOPPING_SLICE_S = 0.02
"""Length of a wait after an interrupt, when every moment is felt."""

_log = logging.getLogger(__name__)


class Watch:
    """What a waiting `run_sync` does between two looks at its work: draw, and hear Ctrl-C.

    While it is entered in the main thread, SIGINT only leaves a mark, so that no exception
    tears the wait apart before the work has been told. IPython and CPython install
    ``default_int_handler``; any other one means that somebody else wants the signal.

    Parameters
    ----------
    tick : callable or None
        Draws progress.
    interval : float
        Seconds between two ticks.
    grace : float
        Seconds that cancelled work gets to end.
    on_interrupt : callable or None
        Asks the work to start nothing new; it then gets `DRAIN_S` before it is cancelled.
    """

    def __init__(
        self,
        *,
        tick: Callable[[], None] | None,
        interval: float,
        grace: float,
        on_interrupt: Callable[[], None] | None,
    ) -> None:
        self._tick, self._interval, self._grace = tick, interval, grace
        self._on_interrupt = on_interrupt
        self._presses = 0
        self._owns_signal = self._is_stopping = self._is_cancelled = False
        self._deadline = self._next_tick = 0.0

    def __enter__(self) -> Self:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            signal.signal(signal.SIGINT, self._press)
            self._owns_signal = True
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._owns_signal:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._presses and (kind is None or not issubclass(kind, KeyboardInterrupt)):
            # The work has ended, by itself or because it was stopped; the press still counts.
            raise KeyboardInterrupt from None

    def _press(self, _signum: int, _frame: FrameType | None) -> None:
        self._presses += 1
        if self._presses > 1:
            raise KeyboardInterrupt

    @property
    def slice_s(self) -> float:
        """Seconds to wait before the next look."""
        return min(self._interval, STOPPING_SLICE_S) if self._presses else self._interval

    @property
    def farewell_s(self) -> float:
        """Seconds to wait for cancelled work after an exception that is not our own press."""
        return 0.0 if self._presses else self._grace

    def look(self, *, done: bool, cancel: Callable[[], object]) -> bool:
        """Pass an interrupt on, draw.

        Parameters
        ----------
        done : bool
            The work has ended.
        cancel : callable
            Cancels the work.

        Returns
        -------
        bool
            The wait is over: the work is done, or cancelled and given up.
        """
        if self._presses and not done:
            self._step_to_stop(cancel)
        over = done or (self._is_cancelled and time.monotonic() > self._deadline)
        self._draw(last=over)
        return over

    def _step_to_stop(self, cancel: Callable[[], object]) -> None:
        now = time.monotonic()
        if not self._is_stopping:
            self._is_stopping = True
            self._deadline = now + (DRAIN_S if self._ask_to_stop() else 0.0)
        if not self._is_cancelled and now >= self._deadline:
            self._is_cancelled = True
            self._deadline = now + self._grace
            cancel()

    def _ask_to_stop(self) -> bool:
        if self._on_interrupt is None:
            return False
        try:
            self._on_interrupt()
        except Exception:  # noqa: BLE001  # the interrupt itself must still get through
            _log.exception("stopping gently failed; the work is cancelled instead")
            return False
        return True

    def _draw(self, *, last: bool) -> None:
        now = time.monotonic()
        # Slices are shorter than the interval while stopping; the view need not follow.
        if self._tick is None or (now < self._next_tick and not last):
            return
        self._next_tick = now + self._interval / 2
        try:
            self._tick()
        except Exception:  # noqa: BLE001  # drawing never ends a run
            self._tick = None
            _log.exception("drawing progress failed; the run goes on without it")
