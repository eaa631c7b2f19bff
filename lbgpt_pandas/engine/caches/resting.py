"""Rests after failures: 1, 2, 4 ... 30 seconds, and one attempt at the end of each."""

from __future__ import annotations

FIRST_REST_S = 1.0
LONGEST_REST_S = 30.0


class Rest:
    """Says when something that failed may be tried again; its owner brings time and lock.

    While nothing has failed any number of attempts may run at a time. After a failure there is
    none for a while, then one, and all again once that one succeeded. Attempts that began
    before a failure neither lengthen the rest that follows nor end it.

    Attributes
    ----------
    round : int
        The number that `begin` gives.
    """

    def __init__(self) -> None:
        self._length_s = 0.0
        self._until = 0.0
        self.round = 0
        self._is_trying = False

    @property
    def is_well(self) -> bool:
        """Whether nothing has failed, so that `begin` would return `round`."""
        return not self._length_s

    def begin(self, now: float) -> int | None:
        """Return the number to end an attempt with; None if there is to be none now."""
        if self._length_s:
            if self._is_trying or now < self._until:
                return None
            self._is_trying = True
        return self.round

    def succeeded(self, attempt: int) -> None:
        """End an attempt that worked."""
        if attempt == self.round:
            self._length_s = 0.0
            self._is_trying = False

    def failed(self, attempt: int, now: float) -> None:
        """End an attempt that did not work, and rest."""
        if attempt == self.round:
            self._length_s = min(LONGEST_REST_S, 2 * self._length_s or FIRST_REST_S)
            self._until = now + self._length_s
            self.round += 1
            self._is_trying = False

    def abandoned(self, attempt: int) -> None:
        """End an attempt that was broken off and says nothing."""
        if attempt == self.round:
            self._is_trying = False

    def reset(self) -> None:
        """Rest no longer, and begin with the shortest rest again."""
        self._length_s = 0.0
        self.round += 1
        self._is_trying = False
