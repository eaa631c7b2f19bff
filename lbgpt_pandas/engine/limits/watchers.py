"""Who may be waiting for a quota, and has to be told when something of it comes back."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Collection


class Wakeable(Protocol):
    """Whoever may be waiting for a quota."""

    def wake(self) -> None:
        """Look soon; may be called from any thread and event loop."""
        ...


class Watchers:
    """Who may be waiting for a quota, on any event loop."""

    def __init__(self) -> None:
        self._all: WeakSet[Wakeable] = WeakSet()
        self._lock = threading.Lock()

    def add(self, watcher: Wakeable) -> None:
        """Tell `watcher` from now on."""
        with self._lock:
            self._all.add(watcher)

    def discard(self, watcher: Wakeable) -> None:
        """Tell `watcher` no more."""
        with self._lock:
            self._all.discard(watcher)

    def wake_others(self, told: Collection[object]) -> None:
        """Wake all but those that were told already."""
        if len(self._all) == len(told):
            return
        with self._lock:
            others = [watcher for watcher in self._all if watcher not in told]
        for watcher in others:
            watcher.wake()
