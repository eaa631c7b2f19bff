"""The pipeline that every engine is made of: one request through limits, retries, provider."""

from __future__ import annotations

import asyncio
import inspect
import math
from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace as replaced

from lbgpt_pandas.engine import pricing
from lbgpt_pandas.engine.arguments import (
    check_at_least_one,
    check_text,
    check_tier,
    check_timeout,
    check_weight,
    unknown_setting,
)
from lbgpt_pandas.engine.attempts import Attempts
from lbgpt_pandas.engine.caches.base import MemoryCache, adapt
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.caching import LOOKUP_ORDER, Caching, Keeping, check_order, copied_tiers
from lbgpt_pandas.engine.calls import Trail
from lbgpt_pandas.engine.clock import SYSTEM_CLOCK
from lbgpt_pandas.engine.connections import Connections
from lbgpt_pandas.engine.deployment import Deployment
from lbgpt_pandas.engine.errors import RequestError
from lbgpt_pandas.engine.keys import KeyMaker
from lbgpt_pandas.engine.lanes import Lane
from lbgpt_pandas.engine.limits.adaptive import concurrency_for
from lbgpt_pandas.engine.limits.quota import Limits, shared_quota
from lbgpt_pandas.engine.run_state import RunState
from lbgpt_pandas.engine.semantic.tier import as_semantic_tier
from lbgpt_pandas.engine.session import Session
from lbgpt_pandas.engine.stored import find_stored
from lbgpt_pandas.engine.types import Outcome, Source
from lbgpt_pandas.engine.usage import UsageLog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from lbgpt_pandas.engine.caching import LookupOrder
    from lbgpt_pandas.engine.clock import Clock
    from lbgpt_pandas.engine.limits.estimate import Counting
    from lbgpt_pandas.engine.semantic.base import SemanticCache
    from lbgpt_pandas.engine.semantic.questions import Question
    from lbgpt_pandas.engine.transports.base import Transport
    from lbgpt_pandas.engine.types import CacheMode, Completion, Headroom, Request, TokenCount

    Keep = Callable[[Completion], Awaitable[None]]

ATTEMPT_TIMEOUT_S = 120.0


class Pipeline(Connections):
    """One request through single-flight, limits, attempts, provider and cache.

    Engines are plain data: they may be made anywhere, used from several event loops and
    threads, over several ``asyncio.run``, and after a fork. Connections exist inside
    ``async with engine:``; a method that is called outside opens and closes around the call.

    Parameters
    ----------
    max_parallel_calls : int
        Cap on the calls in flight on one event loop, at least 1.
    cache : object, optional
        The exact cache: a mapping, an object with ``get``/``set`` or ``aget``/``aset``, or one
        of this package's. A frame's own cache setting is used where this is None.
    stop_after_attempts : int or None, default 10
        Attempts for one request, the first included; None for no such cap. No attempt begins
        15 minutes after the first.
    stop_on_exception : bool, default False
        Whether `chat_completion_list` raises at the first failed request instead of putting
        None in its place.
    max_usage_cache_size : int, default 1000
        Calls kept in `usage_cache_list`.
    limit_tpm, limit_rpm : int, optional
        Tokens and requests that the provider allows in a minute. Without them, what its
        headers say is kept to, and what its refusals teach.
    limit_burst_s : float, optional
        Seconds over which the provider really enforces its limit on requests: 60 if a whole
        minute's requests may be sent at once, 10 on Azure, 1 for each second. None: by
        provider, else found out from its answers.
    auto_cache : bool, default True
        Without `cache`, keep the last 10,000 answers in memory.
    tools : list of dict, optional
        Sent with each request that has none of its own.
    name : str, optional
        Name of this deployment in reports; the class name by default.
    weight : float, default 1
        Share of the requests inside a balancer, against the others' weights.
    tier : int, default 0
        Inside a balancer: used only while every member of a lower tier is blocked or down.
    quota_group : str, optional
        Engines of one group count against the same limits; by default each has its own.
    semantic_cache : FaissSemanticCache, QdrantSemanticCache or SemanticCache, optional
        Where answers to nearly the same question are looked for.
    propagate_semantic_cache_to_standard_cache : bool, default False
        Copy an answer to exactly the same request from the semantic to the exact cache; a near
        one never.
    propagate_standard_cache_to_semantic_cache : bool, default False
        The other way round; each copy costs an embedding.
    cache_lookup_order : ("semantic", "standard") or ("standard", "semantic")
        Which tier is asked first. Identical requests are looked for in both before anything is
        embedded.
    request_timeout : float, default 120
        Seconds for one attempt. A request's own ``request_timeout`` comes first.
    clock : Clock, optional
        Source of time; the system's by default.

    Raises
    ------
    ConfigurationError
        If a number is out of range or `cache` is of no usable kind.
    """

    default_model: str | None = None
    """Model name of a request that has none."""

    default_burst_s: float | None = None
    """Seconds over which the provider usually enforces its limits, if less than a minute."""

    counting: Counting = "larger"
    """Tokens that count at admission: the larger of prompt and maximum, or their sum."""

    slow_start: int | None = 20
    """Calls in flight to begin with, until a provider has shown what it takes; None: no need."""

    def __init__(
        self,
        max_parallel_calls: int = 64,
        cache: object = None,
        *,
        stop_after_attempts: int | None = 10,
        stop_on_exception: bool = False,
        max_usage_cache_size: int = 1_000,
        limit_tpm: int | None = None,
        limit_rpm: int | None = None,
        limit_burst_s: float | None = None,
        auto_cache: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
        name: str | None = None,
        weight: float = 1.0,
        tier: int = 0,
        quota_group: str | None = None,
        semantic_cache: SemanticCache | None = None,
        propagate_semantic_cache_to_standard_cache: bool = False,
        propagate_standard_cache_to_semantic_cache: bool = False,
        cache_lookup_order: LookupOrder = LOOKUP_ORDER,
        request_timeout: float | None = ATTEMPT_TIMEOUT_S,
        clock: Clock = SYSTEM_CLOCK,
        **unknown: object,
    ) -> None:
        super().__init__()
        for setting in unknown:
            raise unknown_setting(type(self).__name__, setting, Pipeline.settings())
        check_text("name", name)
        check_text("quota_group", quota_group)
        check_at_least_one("max_parallel_calls", max_parallel_calls)
        check_at_least_one("max_usage_cache_size", max_usage_cache_size)
        check_timeout(request_timeout)
        if stop_after_attempts is not None:
            check_at_least_one("stop_after_attempts", stop_after_attempts)
        check_weight("weight", weight)
        check_tier(tier)
        self.weight, self.fallback_tier = float(weight), tier
        self.max_parallel_calls = max_parallel_calls
        self.stop_on_exception = stop_on_exception
        self.tools = list(tools) if tools else None
        self.name = name or type(self).__name__
        self.clock = clock
        self.has_cache = cache is not None
        self.tier: StandardTier | None = None
        if cache is not None or auto_cache:
            self.tier = StandardTier(MemoryCache() if cache is None else adapt(cache), clock=clock)
        self.semantic = as_semantic_tier(semantic_cache, clock=clock)
        self.lookup_order = check_order(cache_lookup_order)
        self.copies = copied_tiers(
            to_standard=propagate_semantic_cache_to_standard_cache,
            to_semantic=propagate_standard_cache_to_semantic_cache,
        )
        self.proven: set[str | None] = set()
        self._usage = UsageLog(clock=clock, size=max_usage_cache_size)
        self._attempts = Attempts(clock=clock, usage=self._usage, stop_after=stop_after_attempts)
        is_told = limit_burst_s is not None
        limits = Limits(
            rpm=limit_rpm,
            tpm=limit_tpm,
            burst_s=limit_burst_s if is_told else self.default_burst_s,
            burst_is_told=is_told,
        )
        self.deployment = Deployment(
            self.name,
            quota=shared_quota(quota_group, limits),
            adaptive=concurrency_for(limits, start=self.slow_start, most=max_parallel_calls),
            places=max_parallel_calls,
            timeout_s=request_timeout,
            price=self.price_of_tokens,
            usage=self._usage,
            counting=self.counting,
            clock=clock,
        )

    @staticmethod
    def settings() -> list[str]:
        """Names of the keywords that every engine takes."""
        parameters = inspect.signature(Pipeline.__init__).parameters.values()
        return [each.name for each in parameters if each.kind is not each.VAR_KEYWORD][1:]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"

    @property
    @abstractmethod
    def family(self) -> str:
        """Whose models these are; part of the cache key, so that names of others never clash."""

    @abstractmethod
    def _new_transport(self) -> Transport:
        """Make a provider client for one event loop."""

    def price_usd(self, completion: Completion) -> float | None:
        """List price of an answer in USD; None if it is unknown."""
        return self.price_of_tokens(completion.model, completion.tokens)

    def price_of_tokens(self, model: str, tokens: TokenCount) -> float | None:
        """List price of tokens of a model in USD; None if it is unknown."""
        return pricing.cost_usd(model, tokens)

    def deployments(self) -> tuple[Deployment, ...]:
        """What this engine calls: one deployment, or those of a balancer's members."""
        return (self.deployment,)

    def deployment_headrooms(self) -> list[Headroom]:
        """What each deployment may still send."""
        return [deployment.headroom() for deployment in self.deployments()]

    def headroom(self) -> Headroom:
        """What may still be sent; a balancer adds its members' up."""
        return self.deployment.headroom()

    def choose(self, ready: Mapping[Deployment, float], now: float) -> Deployment | None:
        """Return the deployment that a request goes to now, None if it has to wait.

        Parameters
        ----------
        ready : mapping of Deployment to float
            When each that can take the request is ready, in monotonic seconds.
        now : float
            The present.
        """
        return self.deployment if self.is_able(ready, now) else None

    def is_able(self, ready: Mapping[Deployment, float], now: float) -> bool:
        """Tell whether `choose` would return a deployment."""
        return ready.get(self.deployment, math.inf) <= now

    def _new_session(self) -> Session:
        lane = Lane(self.deployment, self._new_transport())

        async def open_lanes() -> list[Lane]:
            return [lane]

        return Session(
            open_lanes, lane.close, self.choose, clock=self.clock, places=self.max_parallel_calls
        )

    def caching(self, mode: CacheMode = "use") -> Caching:
        """Return this engine's own caches, as a mode allows them to be used."""
        return Caching.of(
            self.tier, mode, semantic=self.semantic, order=self.lookup_order, copies=self.copies
        )

    def prepare(self, request: Request) -> Request:
        """Return the request as it will be sent: with the engine's tools if it has none."""
        if self.tools is None or "tools" in request.params:
            return request
        return replaced(request, params={**request.params, "tools": self.tools})

    def key_maker(self, request: Request) -> KeyMaker:
        """Return the key maker for requests with these parameters and options."""
        return KeyMaker.for_request(self.prepare(request), family=self.family_of(request))

    def family_of(self, request: Request) -> str:  # noqa: ARG002  # what a subclass may look at
        """Family of the model that answers this request."""
        return self.family

    async def afetch(
        self,
        request: Request,
        *,
        key: str,
        caching: Caching,
        question: Question | None = None,
        run: RunState | None = None,
    ) -> Outcome:
        """Ask the provider, with retries, and store the answer; look nothing up.

        Parameters
        ----------
        request : Request
            What to ask.
        key : str
            Its cache key; equal keys under way at the same time make one call.
        caching : Caching
            Where to store the answer.
        question : Question, optional
            Under which the semantic tier stores it.
        run : RunState, optional
            The run it belongs to; one of its own by default.

        Returns
        -------
        Outcome
            A completion or the error that ended the attempts; a request's failure is never
            raised.

        Raises
        ------
        Withdrawn
            If the run was stopped before the call.
        """
        session = self._join() or await self.enter()  # a block costs more, in every call's way
        try:
            keeping = Keeping(key, caching, question)
            keep = partial(self._store, session, request, keeping)
            outcome, led = await session.flights.share(
                key, lambda: self._ask(session, request, keeping, keep, Trail(run or RunState()))
            )
            if led:
                return outcome
            if outcome.completion is not None:
                # Whoever made the call may have had another cache, or none.
                await keep(outcome.completion)
        finally:
            if self._is_last(session):
                await session.close()
        return replaced(outcome, source=Source.SHARED, attempts=0)

    async def _ask(
        self, session: Session, request: Request, keeping: Keeping, keep: Keep, trail: Trail
    ) -> Outcome:
        key, tier = keeping.key, keeping.caching.tier
        if tier is not None and keeping.caching.reads and tier.is_news(key):
            # What another run has stored since this one looked: nobody pays twice for it.
            found = await find_stored(tier, key, messages=request.messages, counts=False)
            if found is not None:
                price = self.price_usd(found)
                return Outcome(found, None, Source.EXACT_CACHE, key, price_usd=price)
        completion: Completion | None = None
        failure: RequestError | None = None
        try:
            completion = await self._attempts.until_done(session, request, trail)
        except RequestError as error:
            # What raised it stays alive with its traceback: a row's error is kept as long as
            # the report is.
            failure = error.with_traceback(None)
            failure.__context__ = None
        outcome = Outcome(
            completion,
            failure,
            Source.PROVIDER,
            key,
            attempts=trail.attempts,
            latency_s=trail.latency_s,
            deployment=trail.deployment or self.name,
            maybe_billed=trail.maybe_billed,
            price_usd=trail.price_usd if completion else None,
        )
        if completion is not None:
            self.proven.add(request.model)
            if not keeping.caching.is_quick:
                trail.run.stand_in()
            await session.flights.finish(key, outcome, keep(completion))
        return outcome

    async def _store(
        self, session: Session, request: Request, keeping: Keeping, completion: Completion
    ) -> None:
        if not keeping.caching.writes or completion.payload is None:
            return
        save = partial(
            keeping.caching.save,
            completion.payload,
            key=keeping.key,
            question=keeping.question,
            family=self.family_of(request),
            model=request.model or completion.model,
            engine=self,
        )
        try:
            await save()
        except asyncio.CancelledError:
            # The answer is paid for: an interrupt may end the row, not the write.
            session.finish_later(save())
            raise
