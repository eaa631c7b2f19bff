"""What a tier has to tell its user: each topic once, and what went wrong with its store."""

from __future__ import annotations

import threading
from typing import Literal

from lbgpt_pandas.engine.secrets import redact

_LONGEST_REASON = 200

_OUTAGES = {
    ("read",): "cannot be read, rows are asked anew",
    ("write",): "cannot be written, answers are kept in memory until it can",
    ("read", "write"): "can be neither read nor written, rows are asked anew and answers are kept "
    "in memory until it can",
}


class Notices:
    """Texts for a user, kept until somebody takes them; any thread may use it."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._outages: dict[str, str] = {}
        self._told: set[str] = set()
        self.after_fork()

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may have held."""
        self._lock = threading.Lock()

    def tell(self, topic: str, text: str, error: BaseException | None = None) -> None:
        """Keep a text, followed by what an `error` says; nothing if its topic was told."""
        with self._lock:
            if topic not in self._told:
                self._told.add(topic)
                self._texts.append(text if error is None else f"{text}: {_reason(error)}")

    def tell_outage(self, kind: Literal["read", "write"], error: BaseException) -> None:
        """Keep that the store cannot be read, or not be written; likewise once."""
        with self._lock:
            if kind not in self._told:
                self._told.add(kind)
                self._outages[kind] = _reason(error)

    def tell_again(self) -> None:
        """Keep the next text on any topic, also one that was told."""
        with self._lock:
            self._told.clear()

    def take(self) -> list[str]:
        """Return what was kept, the outages first and in one text."""
        with self._lock:
            texts, self._texts = self._texts, []
            outages, self._outages = self._outages, {}
        if outages:
            what = _OUTAGES[tuple(sorted(outages))]
            texts.insert(0, f"the cache {what}: {next(iter(outages.values()))}")
        return texts


def _reason(error: BaseException) -> str:
    return redact(f"{type(error).__name__}: {error}")[:_LONGEST_REASON]
