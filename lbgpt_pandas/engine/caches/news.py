"""What was stored while runs go on, which one of them may have looked for too early."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class News:
    """Keys that were stored while several runs use a store.

    Attributes
    ----------
    runs : int
        How many use it now.
    keys : set of str
        What one of them has stored; empty while there is but one.
    """

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the runs of the parent, which go on there."""
        self._lock = threading.Lock()
        self.runs = 0
        self.keys.clear()

    def add(self, key: str) -> None:
        """Note a key that is stored; a single run has no need of it."""
        if self.runs > 1:
            with self._lock:
                self.keys.add(key)

    @contextmanager
    def during_run(self) -> Iterator[None]:
        """Count a run; with the last one all keys are forgotten."""
        with self._lock:
            self.runs += 1
        try:
            yield
        finally:
            with self._lock:
                self.runs -= 1
                if not self.runs:
                    self.keys.clear()
