"""Answers that were recorded: looked up without repair, and kept in memory to be read only."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.caches.envelope import CorruptEntry, unseal
from lbgpt_pandas.engine.errors import CacheCorrupt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from lbgpt_pandas.engine.caches.standard import StandardTier

_KEYS_A_SCAN = 5_000


async def find_recorded(
    tier: StandardTier, keys: Sequence[str], *, read: Callable[[str, str], Any] = unseal
) -> dict[str, Any]:
    """Return what `read` makes of the answers that are stored under `keys`; change nothing.

    Raises
    ------
    CacheCorrupt
        If an entry or the whole store is damaged: asking anew would give another answer.
    Exception
        What the store raises; a row of misses would hide that it cannot be read.
    """
    found = {}
    for key, text in (await tier.envelopes(keys)).items():
        try:
            found[key] = read(key, text)
        except CorruptEntry as error:
            raise CacheCorrupt(
                f"the answer under {key} is damaged ({error}), and replay asks nobody; with "
                'cache_mode="use" it is asked anew'
            ) from error
    return found


class RecordedCache:
    """Envelopes of an archive, behind the cache port.

    Parameters
    ----------
    envelopes : mapping of str to str
        By key; not copied.
    location : str
        Where they come from.
    """

    ttl_s: float | None = None

    def __init__(self, envelopes: Mapping[str, str], *, location: str) -> None:
        self._envelopes = MappingProxyType(envelopes)
        self.location = location

    def __len__(self) -> int:
        return len(self._envelopes)

    def __repr__(self) -> str:
        return f"RecordedCache({self.location!r})"

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that are there."""
        return {key: self._envelopes[key] for key in keys if key in self._envelopes}

    async def scan(self) -> AsyncIterator[dict[str, str]]:
        """Yield all texts by key, some thousand at a time."""
        keys = list(self._envelopes)
        for start in range(0, len(keys), _KEYS_A_SCAN):
            yield await self.get_many(keys[start : start + _KEYS_A_SCAN])

    async def set(self, key: str, value: str, *, replace: bool = False) -> None:
        """Refuse: what was recorded stays as it is."""
        del key, value, replace
        raise PermissionError(f"{self.location} is an archive, which is only read")

    async def delete(self, key: str) -> None:
        """Do nothing: what was recorded stays as it is."""

    async def delete_many(self, keys: Sequence[str]) -> int:
        """Remove nothing, and say so."""
        del keys
        return 0

    async def close(self) -> None:
        """Do nothing: memory needs no closing."""
