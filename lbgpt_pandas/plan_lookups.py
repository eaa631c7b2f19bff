"""What a run would find in the caches: looked up as the run does, and nothing changed by it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.batch import LOOKUP_SIZE
from lbgpt_pandas.engine.caches.database import DATABASE
from lbgpt_pandas.engine.caches.disk import DiskCache
from lbgpt_pandas.engine.caches.recorded import RecordedCache
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.clock import SYSTEM_CLOCK
from lbgpt_pandas.engine.completions import read_completion
from lbgpt_pandas.engine.errors import RequestError
from lbgpt_pandas.engine.lookups import Lookups
from lbgpt_pandas.engine.semantic.embedders import GivenEmbedder
from lbgpt_pandas.engine.semantic.faiss import FaissSemanticCache
from lbgpt_pandas.engine.semantic.minilm import MiniLm
from lbgpt_pandas.engine.semantic.tier import SemanticTier
from lbgpt_pandas.engine.types import Outcome, Source
from lbgpt_pandas.plan_costs import saved_by
from lbgpt_pandas.token_estimates import some_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lbgpt_pandas.engine.caching import Caching
    from lbgpt_pandas.engine.semantic.questions import Question
    from lbgpt_pandas.engine.semantic.tier import Near
    from lbgpt_pandas.runs import RowRun

MOST_EMBEDDED = 512
"""Questions that a plan embeds; of more, so many at random stand for all."""

LOCAL_EMBEDDERS = (MiniLm, GivenEmbedder)
"""Embedders that call no provider through the engine."""


@dataclass(slots=True)
class Stored:
    """What the caches have for the requests of a run.

    Attributes
    ----------
    outcomes : dict of int to Outcome
        By number of the request: stored answers, and errors of requests without a key.
    to_ask : list of int
        Numbers of the requests that are left, one of those that share a key.
    near : int or None
        Requests with an answer to nearly the same question; None: not looked for.
    sampled_usd : float or None
        List price of near answers that are not among the outcomes; None if one is unknown.
    is_sampled : bool
        `near` is an estimate, and `to_ask` holds these requests as well.
    missing : int
        With ``cache_mode="replay"``: requests for which nothing is stored.
    notes : list of str
        What is to be told.
    """

    outcomes: dict[int, Outcome]
    to_ask: list[int]
    near: int | None = 0
    sampled_usd: float | None = 0.0
    is_sampled: bool = False
    missing: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """Requests that a provider is asked."""
        near = self.near if self.is_sampled else None
        return max(0, len(self.to_ask) - (near or 0))


async def look_up(run: RowRun) -> Stored:
    """Look every request of a run up, all of a chunk together, without touching a counter.

    Parameters
    ----------
    run : RowRun
        Is not begun by this.

    Raises
    ------
    ConfigurationError, MissingExtraError, CacheCorrupt
        As the run itself.
    """
    caching, opened = _reading(run)
    requests = run.plan.requests
    lookups = Lookups(run.engine, requests, caching, keep_payloads=False)
    outcomes: dict[int, Outcome] = {}
    try:
        for start in range(0, len(requests), LOOKUP_SIZE):
            numbers = range(start, min(start + LOOKUP_SIZE, len(requests)))
            outcomes |= await lookups.find(numbers)
        left = dict.fromkeys(range(len(requests)))
        for number in outcomes:
            del left[number]
        leaders: dict[str, int] = {}
        for number in left:
            leaders.setdefault(lookups.keys[number], number)
        stored = Stored(outcomes, list(leaders.values()))
        if isinstance(caching.semantic, _Deferred):
            await _look_for_near(run, caching.semantic, stored, leaders)
        stored.notes += caching.take_notices()
    finally:
        if opened is not None:
            await opened.close()
    _leave_out_what_is_not_asked(run, stored)
    return stored


def _reading(run: RowRun) -> tuple[Caching, DiskCache | None]:
    """The caches of a run behind tiers of the plan's own, and what has to be closed."""
    given = run.caching
    tier, semantic, opened = given.tier, given.semantic, None
    if tier is not None:
        clock = run.engine.clock if tier is run.engine.tier else SYSTEM_CLOCK
        cache: Any = tier.cache
        if isinstance(cache, DiskCache):
            # Opened for reading only: no directory is made, no damaged file moved aside.
            opened = DiskCache(cache.directory, read_only=True, ttl=cache.ttl_s)
            is_there = (cache.directory / DATABASE).exists()
            cache = opened if is_there else RecordedCache({}, location=cache.location)
        tier = StandardTier(cache, clock=clock)
    if semantic is not None:
        semantic = _Deferred(semantic) if _is_there(semantic) else None
    caching = replace(given, tier=tier, semantic=semantic, writes=False, copies=frozenset())
    return caching, opened


def _is_there(tier: SemanticTier) -> bool:
    cache = tier.cache
    return not isinstance(cache, FaissSemanticCache) or cache.path.exists()


class _Deferred(SemanticTier):
    """The cache of another tier, without its counts and hits; near answers come later."""

    def __init__(self, other: SemanticTier) -> None:
        super().__init__(other.cache, threshold=other.threshold)
        self.questions: dict[str, Question] = {}
        self._ttl_s: float | None = None

    async def find(
        self, questions: Sequence[Question], *, engine: Any, ttl_s: float | None = None
    ) -> dict[str, Near]:
        """Note the questions for a sample of all of them."""
        del engine
        self._ttl_s = ttl_s
        self.questions.update((question.key, question) for question in questions)
        return {}

    async def find_now(self, questions: Sequence[Question], *, engine: Any) -> dict[str, Near]:
        """Find near answers, as the run does."""
        return await super().find(questions, engine=engine, ttl_s=self._ttl_s)


async def _look_for_near(
    run: RowRun, tier: _Deferred, stored: Stored, leaders: dict[str, int]
) -> None:
    questions = list(tier.questions.values())
    embedder = tier.cache.embedder
    if not questions or not await _has_entries(tier):
        return
    if not isinstance(embedder, LOCAL_EMBEDDERS):
        stored.near = None
        stored.notes.append(
            f"near answers are not counted, because {embedder!r} would be called for it: up to "
            f"{len(questions):,} requests may find one"
        )
        return
    some = some_of(questions, MOST_EMBEDDED)
    stored.is_sampled = len(some) < len(questions)
    near = {}
    for key, hit in (await tier.find_now(some, engine=run.engine)).items():
        outcome = _outcome(run, hit, key=key, number=leaders[key])
        if outcome is not None:
            near[leaders[key]] = outcome
    if not stored.is_sampled:
        stored.near = len(near)
        stored.outcomes |= near
        stored.to_ask = [number for number in stored.to_ask if number not in near]
        return
    times = len(questions) / len(some)
    usd = saved_by(near, run.batch.rows_of)
    stored.near = round(len(near) * times)
    stored.sampled_usd = None if usd is None else usd * times
    stored.notes.append(
        f"near answers were looked for with {len(some):,} of {len(questions):,} questions; their "
        "number is an estimate"
    )


async def _has_entries(tier: _Deferred) -> bool:
    try:
        return await tier.cache.count() > 0
    except Exception:  # noqa: BLE001  # the store is anybody's code
        return True  # the search says what is wrong with it


def _outcome(run: RowRun, hit: Near, *, key: str, number: int) -> Outcome | None:
    messages = run.plan.requests[number].messages
    try:
        found = read_completion(hit.payload, messages=messages, deployment="", keep_payload=False)
    except RequestError:
        return None  # stored by something that accepted more than this version does
    usd, source = run.engine.price_usd(found), Source.SEMANTIC_CACHE
    return Outcome(found, None, source, key, similarity=hit.similarity, price_usd=usd)


def _leave_out_what_is_not_asked(run: RowRun, stored: Stored) -> None:
    """Draw the consequences of ``cache_mode="replay"`` and ``errors="raise"``."""
    if run.caching.recording is not None and stored.to_ask:
        stored.missing, stored.to_ask = len(stored.to_ask), []
        stored.notes.append(
            f'cache_mode="replay" asks nobody, and {stored.missing:,} requests have no stored '
            "answer: the run raises CacheMiss"
        )
    fails = run.plan.errors or any(outcome.error for outcome in stored.outcomes.values())
    if run.errors == "raise" and fails and stored.to_ask:
        stored.to_ask = []
        stored.notes.append('errors="raise", and rows cannot be sent: the run sends nothing')
