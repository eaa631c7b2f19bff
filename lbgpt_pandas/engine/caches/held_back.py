"""Texts that a store did not take, kept in memory until it does."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

WRITES_AT_ONCE = 16
"""Texts that are written at a time, once the store can be written."""

MOST_ENTRIES = 10_000
MOST_CHARACTERS = 64_000_000

Held = tuple[str, str, bool]
"""Key, text, and whether the text replaces one that is stored."""


class Write(Protocol):
    """What writes a text into the store, and tells whether it did."""

    async def __call__(self, key: str, text: str, *, replace: bool) -> bool:
        """Write it."""
        ...


class HeldBack:
    """Texts under keys within bounds, the oldest leaving first; any thread may use it.

    Parameters
    ----------
    max_entries, max_characters : int
        The bounds; one text always has its place.
    """

    def __init__(
        self, *, max_entries: int = MOST_ENTRIES, max_characters: int = MOST_CHARACTERS
    ) -> None:
        self._max_entries, self._max_characters = max_entries, max_characters
        self._texts: dict[str, tuple[str, bool]] = {}
        self._characters = 0
        self.after_fork()

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may have held."""
        self._lock = threading.Lock()
        self._is_being_written = False

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, key: str, text: str, *, replace: bool) -> int:
        """Keep a text, an earlier one under its key only unless `replace`.

        Returns
        -------
        int
            How many others had to leave.
        """
        with self._lock:
            if key in self._texts:
                if not replace:
                    return 0
                self._discard(key)
            self._texts[key] = text, replace
            self._characters += len(text)
            dropped = 0
            while len(self._texts) > 1 and (
                len(self._texts) > self._max_entries or self._characters > self._max_characters
            ):
                self._discard(next(iter(self._texts)))
                dropped += 1
            return dropped

    def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that are kept."""
        with self._lock:
            return {key: self._texts[key][0] for key in keys if key in self._texts}

    def keys(self) -> list[str]:
        """Return the keys of everything that is kept."""
        with self._lock:
            return list(self._texts)

    def entries(self) -> list[Held]:
        """Return everything that is kept, oldest first."""
        with self._lock:
            return [(key, text, replace) for key, (text, replace) in self._texts.items()]

    def discard(self, key: str, text: str | None = None) -> None:
        """Forget what is kept under a key; if `text` is given, only this text."""
        with self._lock:
            if key in self._texts and text in (None, self._texts[key][0]):
                self._discard(key)

    async def write_out(self, write: Write) -> None:
        """Write everything, some at a time, until a write fails; nothing if that goes on already.

        Parameters
        ----------
        write : callable
            Writes one text. What it wrote is forgotten.
        """
        with self._lock:
            if self._is_being_written:
                return
            self._is_being_written = True
        entries = self.entries()
        waiting = iter(entries)

        async def write_some() -> None:
            for key, text, replace in waiting:
                if not await write(key, text, replace=replace):
                    return
                self.discard(key, text)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(WRITES_AT_ONCE, len(entries))):
                    group.create_task(write_some())
        finally:
            self._is_being_written = False

    def _discard(self, key: str) -> None:
        text, _ = self._texts.pop(key)
        self._characters -= len(text)
