"""What a run may read from the standard tier and write to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.types import CacheMode

if TYPE_CHECKING:
    from lbgpt_pandas.engine.caches.standard import StandardTier

SUPPORTED_MODES: tuple[CacheMode, ...] = ("use", "read_only", "refresh", "off")


@dataclass(frozen=True, slots=True)
class Caching:
    """A tier and what may be done with it.

    Attributes
    ----------
    tier : StandardTier or None
        The exact cache; None if there is none.
    reads, writes : bool
        Whether answers are looked up, and stored.
    replaces : bool
        Whether a stored answer gives way to a new one (``cache_mode="refresh"``).
    """

    tier: StandardTier | None = None
    reads: bool = False
    writes: bool = False
    replaces: bool = False

    @classmethod
    def of(cls, tier: StandardTier | None, mode: CacheMode) -> Caching:
        """Apply a ``cache_mode`` to `tier`.

        Raises
        ------
        ConfigurationError
            If `mode` is not one of `SUPPORTED_MODES`.
        """
        if mode not in SUPPORTED_MODES:
            known = mode in get_args(CacheMode)
            raise ConfigurationError(
                f"cache_mode={mode!r} is not {'available in this version' if known else 'known'}; "
                f"use one of {', '.join(map(repr, SUPPORTED_MODES))}"
            )
        if tier is None or mode == "off":
            return cls()
        return cls(
            tier=tier,
            reads=mode in ("use", "read_only"),
            writes=mode in ("use", "refresh"),
            replaces=mode == "refresh",
        )


NO_CACHING = Caching()
