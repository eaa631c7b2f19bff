"""Answers that a store has taken and not written yet."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Written(NamedTuple):
    """An answer on its way into the store.

    Attributes
    ----------
    text : str
        Its envelope.
    replace : bool
        Whether what is stored gives way.
    attempt : int
        Of the store's rests; see `Rest.begin`.
    """

    text: str
    replace: bool
    attempt: int


class Underway:
    """Lets a store write while the run goes on, and finds what is on its way.

    Parameters
    ----------
    store : Cache
        Only one with ``set_soon`` takes anything.
    ended : callable
        Gets texts by key that were written together, and what went wrong if anything did; in
        any thread.
    """

    def __init__(
        self, store: Any, ended: Callable[[dict[str, Written], BaseException | None], None]
    ) -> None:
        self._begin = getattr(store, "set_soon", None)
        self._ended = ended
        self.after_fork()

    def after_fork(self) -> None:
        """Forget what is the parent's to write."""
        self._lock = threading.Lock()
        self._texts: dict[str, Written] = {}

    def __bool__(self) -> bool:
        return bool(self._texts)

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that are on their way."""
        with self._lock:
            return {key: self._texts[key].text for key in keys if key in self._texts}

    def keys(self) -> list[str]:
        """Return the keys of all texts that are on their way."""
        with self._lock:
            return list(self._texts)

    def begin(self, key: str, written: Written) -> bool:
        """Have a text written within a moment; tell whether the store has taken it."""
        if self._begin is None:
            return False
        with self._lock:
            if key in self._texts:
                return False
            self._texts[key] = written
        if self._begin(key, written.text, replace=written.replace, settled=self._settled):
            return True
        with self._lock:
            del self._texts[key]
        return False

    def _settled(self, entries: list[tuple[str, str, bool]], error: BaseException | None) -> None:
        with self._lock:
            ended = {key: self._texts[key] for key, _, _ in entries if key in self._texts}
        # What could not be written is held elsewhere before it leaves here.
        self._ended(ended, error)
        with self._lock:
            for key in ended:
                del self._texts[key]
