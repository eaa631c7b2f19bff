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
    """

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the runs of the parent, which go on there."""
        self._lock = threading.Lock()
        self.runs = 0
        self._keys.clear()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        """Note a key that is stored; a single run has no need of it."""
        if self.runs > 1:
            with self._lock:
                self._keys.add(key)

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
                    self._keys.clear()
