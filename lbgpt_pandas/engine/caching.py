"""What a run may read from the caches and write to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lbgpt_pandas.engine.caches.envelope import made_at, unseal
from lbgpt_pandas.engine.caches.recorded import find_recorded
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.recording import Recording

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lbgpt_pandas.engine.caches.standard import StandardTier
    from lbgpt_pandas.engine.semantic.questions import Question
    from lbgpt_pandas.engine.semantic.tier import SemanticTier
    from lbgpt_pandas.engine.types import CacheMode

SUPPORTED_MODES: tuple[CacheMode, ...] = ("use", "read_only", "refresh", "off", "replay")


Lookup = Callable[[Sequence[str]], Awaitable[dict[str, Any]]]
"""Finds the answers under keys."""

LookupOrder = Sequence[Literal["semantic", "standard"]]

LOOKUP_ORDER: LookupOrder = ("semantic", "standard")


@dataclass(frozen=True, slots=True)
class Caching:
    """The two tiers and what may be done with them.

    Attributes
    ----------
    tier : StandardTier or None
        The exact cache; None if there is none.
    semantic : SemanticTier or None
        The cache of near answers; None if there is none.
    order : sequence of {"semantic", "standard"}
        Which tier is asked first for the answer to exactly the same request; where both have
        one, the newer one is given.
    reads, writes : bool
        Whether answers are looked up, and stored.
    replaces : bool
        Whether a stored answer gives way to a new one (``cache_mode="refresh"``).
    copies : frozenset of {"semantic", "standard"}
        Tiers that get what the other one had for exactly the same request.
    recording : Recording or None
        With ``cache_mode="replay"``: what is known besides the answers. Nobody is asked then.
    """

    tier: StandardTier | None = None
    semantic: SemanticTier | None = None
    order: LookupOrder = LOOKUP_ORDER
    reads: bool = False
    writes: bool = False
    replaces: bool = False
    copies: frozenset[str] = frozenset()
    recording: Recording | None = None

    @classmethod
    def of(
        cls,
        tier: StandardTier | None,
        mode: CacheMode,
        *,
        semantic: SemanticTier | None = None,
        order: LookupOrder = LOOKUP_ORDER,
        copies: frozenset[str] = frozenset(),
        recording: Recording | None = None,
    ) -> Caching:
        """Apply a ``cache_mode`` to the tiers.

        Raises
        ------
        ConfigurationError
            If `mode` is not one of `SUPPORTED_MODES`, or there is nothing to replay from.
        """
        if mode not in SUPPORTED_MODES:
            raise ConfigurationError(
                f"cache_mode={mode!r} is not known; use one of "
                f"{', '.join(map(repr, SUPPORTED_MODES))}"
            )
        if mode == "replay":
            if tier is None:
                raise ConfigurationError('cache_mode="replay" needs a cache to replay from')
            return cls(tier=tier, reads=True, recording=recording or Recording(where="the cache"))
        if (tier is None and semantic is None) or mode == "off":
            return cls()
        return cls(
            tier=tier,
            semantic=semantic,
            order=order,
            reads=mode in ("use", "read_only"),
            writes=mode in ("use", "refresh"),
            replaces=mode == "refresh",
            copies=copies if mode == "use" else frozenset(),
        )

    @property
    def mode(self) -> CacheMode:
        """The ``cache_mode`` that this is."""
        if self.recording is not None:
            return "replay"
        modes: dict[tuple[bool, bool], CacheMode] = {
            (True, True): "use",
            (True, False): "read_only",
            (False, True): "refresh",
        }
        return modes.get((self.reads, self.writes), "off")

    @property
    def is_quick(self) -> bool:
        """Whether to store an answer takes no time worth mentioning."""
        return self.semantic is None and (self.tier is None or self.tier.is_quick)

    @property
    def ttl_s(self) -> float | None:
        """Age in seconds from which an answer is asked anew, in either tier."""
        return None if self.tier is None else getattr(self.tier.cache, "ttl_s", None)

    def exact_tiers(self, read: Callable[[str, str], Any] = unseal) -> list[tuple[str, Lookup]]:
        """How to find answers to exactly the same request, tier by tier, in order.

        Where both tiers have one, the newer one is given: ``cache_mode="refresh"`` may have been
        told of one tier only.

        Parameters
        ----------
        read : callable, default `unseal`
            Makes an answer of a key and its envelope.
        """
        standard, semantic = self.tier, self.semantic
        if standard is not None and semantic is not None:
            read = partial(_dated, read)
        lookups: dict[str, Lookup] = {}
        if standard is not None:
            lookups["standard"] = (
                partial(standard.find, repair=self.writes, read=read)
                if self.recording is None
                else partial(find_recorded, standard, read=read)
            )
        if semantic is not None:
            lookups["semantic"] = partial(semantic.find_exact, read=read, ttl_s=self.ttl_s)
        ordered: list[tuple[str, Lookup]] = [
            (name, lookups[name]) for name in self.order if name in lookups
        ]
        if standard is None or semantic is None:
            return ordered
        (first, look_up), (second, look_up_too) = ordered
        return [
            (first, partial(_newest, look_up, look_up_too)),
            (second, partial(_newest, look_up_too, _nothing)),
        ]

    async def save(
        self,
        payload: dict[str, object],
        *,
        key: str,
        question: Question | None,
        family: str,
        model: str,
        engine: Any,
        into: Collection[str] = LOOKUP_ORDER,
    ) -> None:
        """Store an answer in both tiers, the exact one first; a failing tier never raises.

        Parameters
        ----------
        payload : dict
            The provider's answer.
        key : str
            The request's key.
        question : Question or None
            What near requests are compared with; None: not for the semantic tier.
        family, model : str
            Whose model answered, and its name in the request.
        engine : engine
            Who asks.
        into : collection of {"semantic", "standard"}
            Where it is stored; in both by default.
        """
        about = {"family": family, "model": model, "payload": payload, "replace": self.replaces}
        if self.tier is not None and "standard" in into:
            await self.tier.save(key, **about)  # type: ignore[arg-type]  # one dict for two calls
        if self.semantic is not None and question is not None and "semantic" in into:
            if self.ttl_s is not None:
                about["replace"] = True  # what is too old must not keep its place
            await self.semantic.save(question, engine=engine, **about)  # type: ignore[arg-type]  # same

    def in_use(self) -> AbstractContextManager[None]:
        """Let a run read and write the exact tier; see `StandardTier.in_use`."""
        return nullcontext() if self.tier is None else self.tier.in_use()

    async def flush(self) -> None:
        """Write what a failing store has left behind, if it can be written again."""
        if self.tier is not None and self.writes:
            await self.tier.flush()

    def reset(self) -> None:
        """Try tiers again that failed in an earlier run."""
        for tier in (self.tier, self.semantic):
            if tier is not None:
                tier.reset()

    def take_notices(self) -> list[str]:
        """Return what the tiers have to tell, each text once."""
        tiers = [tier for tier in (self.tier, self.semantic) if tier is not None]
        return [notice for tier in tiers for notice in tier.take_notices()]


def _dated(read: Callable[[str, str], Any], key: str, text: str) -> tuple[float, Any]:
    return made_at(text), read(key, text)


async def _nothing(keys: Sequence[str]) -> dict[str, Any]:
    del keys
    return {}


async def _newest(look_up: Lookup, look_up_too: Lookup, keys: Sequence[str]) -> dict[str, Any]:
    """Return what the first lookup finds, or what the second one has for it if that is newer."""
    found = await look_up(keys)
    others = await look_up_too(list(found)) if found else {}
    for key, (at, answer) in others.items():
        if at > found[key][0]:
            found[key] = at, answer
    return {key: answer for key, (_, answer) in found.items()}


NO_CACHING = Caching()


class Keeping(NamedTuple):
    """Where an answer is stored, and under what."""

    key: str
    caching: Caching
    question: Question | None


def check_order(order: object) -> LookupOrder:
    """Return a lookup order.

    Raises
    ------
    ConfigurationError
        Unless it names both tiers once.
    """
    given = list(order) if isinstance(order, tuple | list) else []
    if sorted(map(str, given)) != sorted(LOOKUP_ORDER):
        raise ConfigurationError(
            f"cache_lookup_order={order!r}: give ('semantic', 'standard') or ('standard', "
            "'semantic')"
        )
    return tuple(given)


def copied_tiers(*, to_standard: bool, to_semantic: bool) -> frozenset[str]:
    """Names of the tiers that get what the other one had."""
    wanted = {"standard": to_standard, "semantic": to_semantic}
    return frozenset(name for name, is_wanted in wanted.items() if is_wanted)
