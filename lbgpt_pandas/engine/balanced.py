"""Several engines behind one: each request goes to a member that can take it now."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import TYPE_CHECKING, Any, get_args

from lbgpt_pandas.engine.allocation import (
    Strategy,
    latency_allocation_function,
    least_busy_allocation_function,
    max_headroom_allocation_function,
    random_allocation_function,
)
from lbgpt_pandas.engine.arguments import check_at_least_one, check_weight
from lbgpt_pandas.engine.base import _BaseGPT
from lbgpt_pandas.engine.errors import CacheWarning, ConfigurationError
from lbgpt_pandas.engine.gpt import AzureGPT, ChatGPT
from lbgpt_pandas.engine.session import Session
from lbgpt_pandas.engine.types import Headroom

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lbgpt_pandas.engine.allocation import AllocationFunction
    from lbgpt_pandas.engine.deployment import Deployment
    from lbgpt_pandas.engine.lanes import Lane
    from lbgpt_pandas.engine.transports.base import Transport
    from lbgpt_pandas.engine.types import Request, TokenCount

SPILL_AFTER_S = 5.0


class MultiLoadBalancedGPT(_BaseGPT):
    """Several engines behind one.

    Each attempt of each request goes to a member whose limits allow it now; if none does, it
    waits for the first that will. A call that failed is tried again elsewhere. Cache, retries
    and attempts are the balancer's; the members bring their limits, clients and time-outs.

    Parameters
    ----------
    gpts : sequence of engine
        The members, at least one. Balancers may be members too.
    allocation_function : str or callable, default "random"
        How to choose among the members that can take a request now. ``"random"`` by weight;
        ``"max_headroom"`` the one with the largest free share of its limits; ``"least_busy"``
        the fewest calls in flight; ``"latency"`` the quickest of late for its weight;
        ``"round_robin"`` in turn. A callable gets the list of those members, and
        `allocation_function_kwargs`, and returns one of them.
    allocation_function_kwargs : mapping, optional
        Further keywords of a callable. One that returns None leaves the choice to chance.
    allocation_function_weights : sequence of float, optional
        A weight for each member, at least 0; by default the members' own ``weight``. A member
        of weight 0 is called only while the others of its tier are blocked or down, whatever
        the function.
    cache : object, optional
        The exact cache, for all members together; see `Pipeline`.
    max_parallel_requests : int, optional
        Cap on the calls in flight through this balancer; the sum of the members' by default.
    spill_after : float, default 5.0
        A member with a higher ``tier`` is used only while those of the lower tiers are blocked
        by their providers, or down, for longer than so many seconds. Waiting for a limit of
        one's own is neither.
    **settings
        Of `Pipeline`: ``stop_after_attempts``, ``stop_on_exception``, ``auto_cache``,
        ``tools``, ``name``, ``weight``, ``tier``, ``clock``.

    Raises
    ------
    ConfigurationError
        If there is no member, a weight does not fit, or the function is unknown.

    Examples
    --------
    >>> both = MultiLoadBalancedGPT(
    ...     [ChatGPT("sk-test-1", limit_rpm=500), ChatGPT("sk-test-2", limit_rpm=1500)],
    ...     allocation_function="max_headroom",
    ... )
    >>> [deployment.name for deployment in both.deployments()]
    ['ChatGPT', 'ChatGPT-2']
    """

    def __init__(
        self,
        gpts: Sequence[_BaseGPT],
        allocation_function: Strategy | AllocationFunction = "random",
        allocation_function_kwargs: Mapping[str, Any] | None = None,
        allocation_function_weights: Sequence[float] | None = None,
        cache: object = None,
        *,
        max_parallel_requests: int | None = None,
        spill_after: float = SPILL_AFTER_S,
        **settings: Any,
    ) -> None:
        self.gpts = list(gpts or ())
        _check_members(self.gpts)
        places = sum(gpt.max_parallel_calls for gpt in self.gpts)
        self.is_capped = max_parallel_requests is not None
        if max_parallel_requests is not None:
            check_at_least_one("max_parallel_requests", max_parallel_requests)
        if any(isinstance(gpt, MultiLoadBalancedGPT) and gpt.is_capped for gpt in self.gpts):
            raise ConfigurationError(
                "max_parallel_requests= of a balancer inside another one is not kept to; give it "
                "to the outer one, or max_parallel_calls= to the engines"
            )
        for name in ("limit_rpm", "limit_tpm", "limit_burst_s", "quota_group", "request_timeout"):
            if name in settings:
                raise ConfigurationError(f"{name}= belongs to the members of a balancer")
        super().__init__(
            places if max_parallel_requests is None else max_parallel_requests, cache, **settings
        )
        check_weight("spill_after", spill_after)
        _check_function(allocation_function)
        if allocation_function_kwargs and not callable(allocation_function):
            raise ConfigurationError(
                "allocation_function_kwargs= is for a callable; "
                f"allocation_function={allocation_function!r} takes none"
            )
        weights = allocation_function_weights
        if weights is None:
            weights = [gpt.weight for gpt in self.gpts]
        if len(weights) != len(self.gpts):
            raise ConfigurationError(
                f"allocation_function_weights has {len(weights)} weights for {len(self.gpts)} "
                "engines: give one for each"
            )
        for weight in weights:
            check_weight("allocation_function_weights", weight)
        self._weights = dict(zip(map(id, self.gpts), map(float, weights), strict=True))
        self._function = allocation_function
        self._keywords = dict(allocation_function_kwargs or {})
        self._spill_after = float(spill_after)
        self._turns = itertools.count()
        _warn_of_caches(self.gpts)
        self._ranks = self._ranked()
        models = {gpt.default_model for gpt in self.gpts}
        self.default_model = models.pop() if len(models) == 1 else None
        _name_apart(self.deployments())

    def _ranked(self) -> list[list[_BaseGPT]]:
        """Members by tier, in each tier those without weight after the others."""
        ranks: dict[tuple[int, bool], list[_BaseGPT]] = {}
        for gpt in self.gpts:
            ranks.setdefault((gpt.fallback_tier, not self._weights[id(gpt)]), []).append(gpt)
        return [ranks[rank] for rank in sorted(ranks)]

    @property
    def family(self) -> str:
        """The members' common family, or all their families together."""
        return "+".join(sorted({gpt.family for gpt in self.gpts}))

    def family_of(self, request: Request) -> str:
        """Family of the model that answers this request; all of the members' together."""
        return "+".join(sorted({gpt.family_of(request) for gpt in self.gpts}))

    def price_of_tokens(self, model: str, tokens: TokenCount) -> float | None:
        """List price; the highest of the members', None if one of them does not know it."""
        prices = [gpt.price_of_tokens(model, tokens) for gpt in self.gpts]
        known = [price for price in prices if price is not None]
        return max(known) if len(known) == len(prices) else None

    def deployments(self) -> tuple[Deployment, ...]:
        """Those of all members, each once."""
        found = [deployment for gpt in self.gpts for deployment in gpt.deployments()]
        return tuple(dict.fromkeys(found))

    def headroom(self) -> Headroom:
        """What may still be sent by all members together."""
        each = self.deployment_headrooms()
        of_quota = {id(d.quota): head for d, head in zip(self.deployments(), each, strict=True)}
        blocked = [head.blocked_until for head in each]
        ends = [end for end in blocked if end is not None]
        return Headroom(
            deployment=self.name,
            requests=_sum([head.requests for head in of_quota.values()]),
            tokens=_sum([head.tokens for head in of_quota.values()]),
            fraction=max(head.fraction for head in each),
            in_flight=sum(head.in_flight for head in each),
            next_free_s=min(head.next_free_s for head in each),
            blocked_until=min(ends) if len(ends) == len(each) else None,
            source="header" if any(head.source == "header" for head in each) else "local",
        )

    def choose(self, ready: Mapping[Deployment, float], now: float) -> Deployment | None:
        """Return the deployment that a request goes to now; see `Pipeline.choose`."""
        able = self._able(ready, now)
        return self._allocate(able).choose(ready, now) if able else None

    def is_able(self, ready: Mapping[Deployment, float], now: float) -> bool:
        """Tell whether `choose` would return a deployment; see `Pipeline.is_able`."""
        return bool(self._able(ready, now))

    def _able(self, ready: Mapping[Deployment, float], now: float) -> list[_BaseGPT]:
        """Members of the lowest tier that is to be used now, and that can take the request."""
        for members in self._ranks:
            able = [gpt for gpt in members if gpt.is_able(ready, now)]
            if (
                able
                or min(_held_until(gpt, ready, now) for gpt in members) <= now + self._spill_after
            ):
                return able
        return []

    def _allocate(self, able: Sequence[_BaseGPT]) -> _BaseGPT:
        if len(able) == 1:
            return able[0]
        weights = [self._weights[id(gpt)] for gpt in able]
        chosen = self._by_function(able, weights)
        if chosen is None:
            # LBGPT's functions say so where nobody has headroom, by figures that lag behind.
            chosen = random_allocation_function(able, weights)
        if not any(chosen is gpt for gpt in able):
            raise ConfigurationError(
                f"the allocation function returned {chosen!r}, which is none of the engines that "
                "it was given"
            )
        return chosen

    def _by_function(self, able: Sequence[_BaseGPT], weights: Sequence[float]) -> _BaseGPT | None:
        match self._function:
            case "random":
                chosen: Any = random_allocation_function(able, weights)
            case "max_headroom":
                chosen = max_headroom_allocation_function(able, overallocate=True, weights=weights)
            case "least_busy":
                chosen = least_busy_allocation_function(able, weights)
            case "latency":
                chosen = latency_allocation_function(able, weights)
            case "round_robin":
                chosen = self._next_in_turn(able)
            case function:
                chosen = function(list(able), **self._keywords)
        return chosen  # type: ignore[no-any-return]  # checked by the caller

    def _next_in_turn(self, able: Sequence[_BaseGPT]) -> _BaseGPT:
        turn = next(self._turns) % len(self.gpts)
        in_order = self.gpts[turn:] + self.gpts[:turn]
        return next(gpt for gpt in in_order if any(gpt is one for one in able))

    def _new_transport(self) -> Transport:
        raise ConfigurationError("a balancer calls nobody itself")

    def _new_session(self) -> Session:
        lowest = self._ranks[0][0].fallback_tier
        opened: list[_BaseGPT] = []

        async def open_lanes() -> list[Lane]:
            lanes: dict[Deployment, Lane] = {}
            for gpt in self.gpts:
                # A fallback may be a model that takes seconds to load, and never be needed.
                session = await gpt.enter(eager=gpt.fallback_tier == lowest)
                opened.append(gpt)
                lanes.update({lane.deployment: lane for lane in session.lanes})
            return list(lanes.values())

        async def close_lanes() -> None:
            while opened:
                await opened.pop().__aexit__(None, None, None)

        return Session(
            open_lanes,
            close_lanes,
            self.choose,
            clock=self.clock,
            places=self.max_parallel_calls,
        )

    async def _open_clients(self, session: Session) -> None:
        """Do nothing: the members have opened theirs."""


class LoadBalancedGPT(MultiLoadBalancedGPT):
    """OpenAI and Azure OpenAI behind one engine, as LBGPT has it.

    Parameters
    ----------
    openai_api_key, azure_api_key, azure_api_base, azure_model_map
        Of `ChatGPT` and `AzureGPT`.
    cache : object, optional
        The exact cache for both.
    azure_openai_version : str, default "2024-10-21"
        Version of Azure's REST interface.
    max_parallel_calls_openai, max_parallel_calls_azure : int, default 64
        Caps on the calls in flight.
    ratio_openai_to_azure : float, default 0.25
        Share of the requests that goes to OpenAI, from 0 to 1.
    openai_settings, azure_settings : mapping, optional
        Further keywords of `ChatGPT` and `AzureGPT`, such as ``limit_rpm``.
    **settings
        Of `MultiLoadBalancedGPT`.

    Attributes
    ----------
    openai : ChatGPT
    azure : AzureGPT

    Raises
    ------
    ConfigurationError
        If the ratio is not between 0 and 1, or one of the engines cannot be made.
    """

    def __init__(
        self,
        openai_api_key: str,
        azure_api_key: str,
        azure_api_base: str,
        azure_model_map: Mapping[str, str],
        cache: object = None,
        *,
        azure_openai_version: str = "2024-10-21",
        max_parallel_calls_openai: int = 64,
        max_parallel_calls_azure: int = 64,
        ratio_openai_to_azure: float = 0.25,
        openai_settings: Mapping[str, Any] | None = None,
        azure_settings: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        check_weight("ratio_openai_to_azure", ratio_openai_to_azure)
        if ratio_openai_to_azure > 1:
            raise ConfigurationError(
                f"ratio_openai_to_azure={ratio_openai_to_azure!r}: give OpenAI's share, 0 to 1"
            )
        self.openai = ChatGPT(
            openai_api_key, max_parallel_calls_openai, auto_cache=False, **(openai_settings or {})
        )
        self.azure = AzureGPT(
            azure_api_key,
            azure_api_base,
            azure_model_map,
            azure_openai_version=azure_openai_version,
            max_parallel_calls=max_parallel_calls_azure,
            auto_cache=False,
            **(azure_settings or {}),
        )
        super().__init__(
            [self.openai, self.azure],
            allocation_function_weights=[ratio_openai_to_azure, 1 - ratio_openai_to_azure],
            cache=cache,
            **settings,
        )


def _held_until(gpt: _BaseGPT, ready: Mapping[Deployment, float], now: float) -> float:
    """Until when a provider's word or failures keep all of a member's deployments back."""
    return min(each.held_until(now) if each in ready else math.inf for each in gpt.deployments())


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _check_members(gpts: Sequence[object]) -> None:
    if not gpts:
        raise ConfigurationError("gpts is empty: a balancer needs at least one engine")
    for gpt in gpts:
        if not isinstance(gpt, _BaseGPT):
            raise ConfigurationError(f"gpts has a {type(gpt).__name__}, which is no engine")
    if len(set(map(id, gpts))) < len(gpts):
        raise ConfigurationError("gpts has the same engine twice; give it a larger weight instead")


def _warn_of_caches(gpts: Sequence[_BaseGPT]) -> None:
    for gpt in gpts:
        if gpt.has_cache or gpt.semantic is not None:
            warnings.warn(
                f"the cache of {gpt.name} is not used inside a balancer; give it to the balancer",
                CacheWarning,
                stacklevel=3,
            )


def _check_function(function: object) -> None:
    if not callable(function) and function not in get_args(Strategy):
        raise ConfigurationError(
            f"allocation_function={function!r}: give a callable or one of "
            f"{', '.join(map(repr, get_args(Strategy)))}"
        )


def _name_apart(deployments: Sequence[Deployment]) -> None:
    """Number the deployments that nobody gave a name, so that reports tell them apart."""
    taken = {deployment.name for deployment in deployments}
    seen: set[str] = set()
    for deployment in deployments:
        if deployment.name in seen:
            numbered = (f"{deployment.name}-{number}" for number in itertools.count(2))
            deployment.name = next(name for name in numbered if name not in taken)
            taken.add(deployment.name)
        seen.add(deployment.name)
