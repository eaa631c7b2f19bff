"""The pipeline that every engine is made of: one request through limits, retries, provider."""

from __future__ import annotations

import asyncio
import math
import threading
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine import pricing
from lbgpt_pandas.engine.attempts import Attempts, Trail, always
from lbgpt_pandas.engine.caches.base import MemoryCache, adapt
from lbgpt_pandas.engine.caches.lifetime import renew_after_fork
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.clock import SYSTEM_CLOCK
from lbgpt_pandas.engine.errors import ConfigurationError, RequestError
from lbgpt_pandas.engine.keys import KeyMaker
from lbgpt_pandas.engine.session import Session
from lbgpt_pandas.engine.types import Outcome, Source
from lbgpt_pandas.engine.usage import UsageLog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from lbgpt_pandas.engine.caching import Caching
    from lbgpt_pandas.engine.clock import Clock
    from lbgpt_pandas.engine.transports.base import Transport
    from lbgpt_pandas.engine.types import Completion, Request

ATTEMPT_TIMEOUT_S = 120.0


class Pipeline(ABC):
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
    auto_cache : bool, default True
        Without `cache`, keep the last 10,000 answers in memory.
    tools : list of dict, optional
        Sent with each request that has none of its own.
    name : str, optional
        Name of this deployment in reports; the class name by default.
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

    def __init__(
        self,
        max_parallel_calls: int = 64,
        cache: object = None,
        *,
        stop_after_attempts: int | None = 10,
        stop_on_exception: bool = False,
        max_usage_cache_size: int = 1_000,
        auto_cache: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
        name: str | None = None,
        request_timeout: float | None = ATTEMPT_TIMEOUT_S,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        _check_at_least_one("max_parallel_calls", max_parallel_calls)
        _check_at_least_one("max_usage_cache_size", max_usage_cache_size)
        check_timeout(request_timeout)
        if stop_after_attempts is not None:
            _check_at_least_one("stop_after_attempts", stop_after_attempts)
        self.max_parallel_calls = max_parallel_calls
        self.stop_on_exception = stop_on_exception
        self.tools = list(tools) if tools else None
        self.name = name or type(self).__name__
        self.clock = clock
        self.has_cache = cache is not None
        self.tier: StandardTier | None = None
        if cache is not None or auto_cache:
            self.tier = StandardTier(MemoryCache() if cache is None else adapt(cache), clock=clock)
        self.proven: set[str | None] = set()
        self._usage = UsageLog(clock=clock, size=max_usage_cache_size)
        self._attempts = Attempts(
            deployment=self.name,
            clock=clock,
            usage=self._usage,
            timeout_s=request_timeout,
            stop_after=stop_after_attempts,
        )
        self._sessions: dict[asyncio.AbstractEventLoop, Session] = {}
        self._lock = threading.Lock()
        renew_after_fork(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"

    def after_fork(self) -> None:
        """In a forked child: its loops are others, and a thread may have held the lock."""
        self._lock = threading.Lock()
        # Kept, because a client that is collected here would complain that it was not closed.
        self._of_parent, self._sessions = self._sessions, {}

    @property
    @abstractmethod
    def family(self) -> str:
        """Whose models these are; part of the cache key, so that names of others never clash."""

    @abstractmethod
    def _new_transport(self) -> Transport:
        """Make a provider client for one event loop."""

    def price_usd(self, completion: Completion) -> float | None:
        """List price of an answer in USD; None if it is unknown."""
        return pricing.cost_usd(completion.model, completion.tokens)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        with self._lock:
            session = self._sessions.get(loop)
            if session is None:
                session = self._sessions[loop] = Session(
                    self._new_transport(), max_parallel_calls=self.max_parallel_calls
                )
        try:
            await session.enter()
        except BaseException:
            self._leave(loop, session)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        session = self._sessions[loop]
        session.users -= 1
        if self._leave(loop, session):
            await session.close()

    def _leave(self, loop: asyncio.AbstractEventLoop, session: Session) -> bool:
        """Forget a session that nobody uses any more; return whether it was forgotten."""
        with self._lock:
            return not session.users and self._sessions.pop(loop, None) is not None

    def prepare(self, request: Request) -> Request:
        """Return the request as it will be sent: with the engine's tools if it has none."""
        if self.tools is None or "tools" in request.params:
            return request
        return replace(request, params={**request.params, "tools": self.tools})

    def key_maker(self, request: Request) -> KeyMaker:
        """Return the key maker for requests with these parameters and options."""
        return KeyMaker.for_request(self.prepare(request), family=self._family_of(request))

    def _family_of(self, request: Request) -> str:  # noqa: ARG002  # what a subclass may look at
        return self.family

    async def afetch(
        self,
        request: Request,
        *,
        key: str,
        caching: Caching,
        is_wanted: Callable[[], bool] = always,
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
        is_wanted : callable, optional
            Asked before each call.

        Returns
        -------
        Outcome
            A completion or the error that ended the attempts; a request's failure is never
            raised.

        Raises
        ------
        Withdrawn
            If `is_wanted` said no.
        """
        async with self:
            session = self._sessions[asyncio.get_running_loop()]
            outcome, led = await session.flights.share(
                key, lambda: self._ask(session, request, key, caching, Trail(is_wanted))
            )
            if led:
                return outcome
            if outcome.completion is not None:
                # Whoever made the call may have had another cache, or none.
                await self._store(session, request, outcome.completion, key, caching)
        return replace(outcome, source=Source.SHARED, attempts=0)

    async def _ask(
        self, session: Session, request: Request, key: str, caching: Caching, trail: Trail
    ) -> Outcome:
        completion: Completion | None = None
        failure: RequestError | None = None
        try:
            completion = await self._attempts.until_done(session, request, trail)
        except RequestError as error:
            # What raised it stays alive with its traceback: a row's error is kept as long as
            # the report is.
            failure = error.with_traceback(None)
            failure.__context__ = None
        else:
            self.proven.add(request.model)
            await self._store(session, request, completion, key, caching)
        return Outcome(
            completion,
            failure,
            Source.PROVIDER,
            key,
            attempts=trail.attempts,
            latency_s=trail.latency_s,
            deployment=self.name,
            maybe_billed=trail.maybe_billed,
            price_usd=self.price_usd(completion) if completion else None,
        )

    async def _store(
        self,
        session: Session,
        request: Request,
        completion: Completion,
        key: str,
        caching: Caching,
    ) -> None:
        if caching.tier is None or not caching.writes or completion.payload is None:
            return
        save = partial(
            caching.tier.save,
            key,
            family=self._family_of(request),
            model=request.model or completion.model,
            payload=completion.payload,
            replace=caching.replaces,
        )
        try:
            await save()
        except asyncio.CancelledError:
            # The answer is paid for: an interrupt may end the row, not the write.
            session.finish_later(save())
            raise


def check_timeout(seconds: Any) -> None:
    """Raise a ConfigurationError unless `seconds` is a positive number or None."""
    if seconds is None:
        return
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not (is_number and math.isfinite(seconds) and seconds > 0):
        raise ConfigurationError(f"request_timeout={seconds!r}: give seconds above 0, or None")


def _check_at_least_one(name: str, number: object) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ConfigurationError(f"{name}={number!r}: give a whole number of at least 1")
