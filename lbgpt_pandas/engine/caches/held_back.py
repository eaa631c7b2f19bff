"""Texts that a store did not take, kept in memory until it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_ENTRIES = 10_000
MOST_CHARACTERS = 64_000_000

Held = tuple[str, str, bool]
"""Key, text, and whether the text replaces one that is stored."""


class HeldBack:
    """Texts under keys within bounds, the oldest leaving first; its owner brings the lock.

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

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, key: str, text: str, *, replace: bool) -> int:
        """Keep a text, an earlier one under its key only unless `replace`.

        Returns
        -------
        int
            How many others had to leave.
        """
        if key in self._texts:
            if not replace:
                return 0
            self.discard(key)
        self._texts[key] = text, replace
        self._characters += len(text)
        dropped = 0
        while len(self._texts) > 1 and (
            len(self._texts) > self._max_entries or self._characters > self._max_characters
        ):
            self.discard(next(iter(self._texts)))
            dropped += 1
        return dropped

    def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that are kept."""
        return {key: self._texts[key][0] for key in keys if key in self._texts}

    def entries(self) -> list[Held]:
        """Return everything that is kept, oldest first."""
        return [(key, text, replace) for key, (text, replace) in self._texts.items()]

    def discard(self, key: str, text: str | None = None) -> None:
        """Forget what is kept under a key; if `text` is given, only this text."""
        kept = self._texts.get(key)
        if kept is not None and text in (None, kept[0]):
            del self._texts[key]
            self._characters -= len(kept[0])
