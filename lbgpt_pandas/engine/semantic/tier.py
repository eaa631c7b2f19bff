"""The semantic tier: near answers inside one scope, past the guard, never without a say."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.caches.envelope import CorruptEntry, outdated, seal, unseal
from lbgpt_pandas.engine.clock import SYSTEM_CLOCK
from lbgpt_pandas.engine.errors import ConfigurationError, MissingExtraError
from lbgpt_pandas.engine.lifetime import renew_after_fork
from lbgpt_pandas.engine.semantic.base import SemanticCache, SemanticEntry
from lbgpt_pandas.engine.semantic.guard import same_facts
from lbgpt_pandas.engine.semantic.text_vectors import TextVectors, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from lbgpt_pandas.engine.clock import Clock
    from lbgpt_pandas.engine.semantic.base import Neighbour
    from lbgpt_pandas.engine.semantic.questions import Question

QUESTIONS_A_SEARCH = 512
"""Questions that are embedded and looked for together."""

KEPT_HITS = 10_000


@dataclass(frozen=True, slots=True)
class Near:
    """A stored answer to nearly the same question.

    Attributes
    ----------
    payload : dict
        The provider's answer, the caller's own.
    key : str
        Key of the request that it was given to.
    similarity : float
        Cosine similarity of the two questions.
    """

    payload: dict[str, object]
    key: str
    similarity: float


@dataclass(frozen=True, slots=True)
class SemanticHit:
    """A near hit as it is reported.

    Attributes
    ----------
    at : datetime
        When, in UTC.
    asked, stored : str
        The two texts that were compared.
    similarity : float
        Their cosine similarity.
    model : str
        Model of the stored answer.
    answer : str or None
        Its text.
    key, stored_key : str
        Keys of the request that was asked and of the one that had been answered.
    """

    at: datetime
    asked: str
    stored: str
    similarity: float
    model: str
    answer: str | None
    key: str
    stored_key: str


class SemanticTier:
    """What the pipeline knows of a semantic cache: find, save, never fail.

    Parameters
    ----------
    cache : SemanticCache
        Where the entries lie, and what embeds them.
    threshold : float, optional
        Least cosine similarity of a hit, in place of the cache's own.
    clock : Clock, optional
        Source of the time that is written into entries.

    Attributes
    ----------
    hits : deque of SemanticHit
        The last near hits of this process, oldest first.
    """

    def __init__(
        self,
        cache: SemanticCache,
        *,
        threshold: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.cache = cache
        self.threshold = check_threshold(cache.threshold if threshold is None else threshold)
        self._clock = clock
        self.hits: deque[SemanticHit] = deque(maxlen=KEPT_HITS)
        self._refused = [0]
        self._vectors = TextVectors(cache, tell=self._tell)
        self._notices: list[str] = []
        self._told: set[str] = set()
        self._works = True
        self.after_fork()
        renew_after_fork(self)

    def __repr__(self) -> str:
        return f"SemanticTier({self.cache!r})"

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may have held."""
        self._lock = threading.Lock()

    def with_threshold(self, threshold: float | None) -> SemanticTier:
        """Return a tier over the same cache and the same list of hits with another threshold."""
        if threshold is None or threshold == self.threshold:
            return self
        other = SemanticTier(self.cache, threshold=threshold, clock=self._clock)
        other.hits, other._refused = self.hits, self._refused
        return other

    @property
    def refused(self) -> int:
        """Neighbours above the threshold that differ in a number, a name, a negation, ..."""
        return self._refused[0]

    async def find_exact(
        self,
        keys: Sequence[str],
        *,
        read: Callable[[str, str], Any] = unseal,
        ttl_s: float | None = None,
    ) -> dict[str, Any]:
        """Return what `read` makes of the answers to exactly these requests; embed nothing.

        Answers older than `ttl_s` are none.
        """
        if not self._works or not keys:
            return {}
        try:
            envelopes = await self.cache.get_many(keys)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001  # the store is anybody's code
            self._fail("read", "the semantic cache cannot be read", error)
            return {}
        found = {}
        for key in self._outdated(envelopes, ttl_s):
            del envelopes[key]
        for key, envelope in envelopes.items():
            answer = self._unsealed(key, envelope, read=read)
            if answer is not None:
                found[key] = answer
        return found

    async def find(
        self, questions: Sequence[Question], *, engine: Any, ttl_s: float | None = None
    ) -> dict[str, Near]:
        """Return near answers by the key of the question that they are given to.

        Parameters
        ----------
        questions : sequence of Question
            Of different keys.
        engine : engine
            Who asks; an embedding model that is given by name is called through it.
        ttl_s : float, optional
            Older answers are none.

        Raises
        ------
        ConfigurationError, MissingExtraError
            If the embedder cannot work as it is configured, or made other vectors than those
            that are stored.
        """
        found: dict[str, Near] = {}
        for start in range(0, len(questions), QUESTIONS_A_SEARCH):
            if not self._works:
                break
            some = questions[start : start + QUESTIONS_A_SEARCH]
            try:
                await self._find_some(some, engine, ttl_s, into=found)
            except (ConfigurationError, MissingExtraError):
                raise
            except Exception as error:  # noqa: BLE001  # embedder and store are anybody's code
                self._fail("search", "near answers cannot be looked for", error)
        return found

    async def _find_some(
        self,
        questions: Sequence[Question],
        engine: Any,
        ttl_s: float | None,
        *,
        into: dict[str, Near],
    ) -> None:
        embedded, vectors = await self._vectors.of(questions, engine)
        scopes = [self._scope(question) for question in embedded]
        lists = await self.cache.search(scopes, vectors, at_least=self.threshold)

        def compare() -> None:
            for question, vector, neighbours in zip(embedded, vectors, lists, strict=True):
                near = self._nearest(question, neighbours, ttl_s)
                if near is None:
                    self._vectors.keep(question, vector)
                else:
                    into[question.key] = near

        # Comparing long texts takes milliseconds, and there are thousands of them.
        await asyncio.to_thread(compare)

    def _nearest(
        self, question: Question, neighbours: Sequence[Neighbour], ttl_s: float | None
    ) -> Near | None:
        for neighbour in neighbours:
            if neighbour.similarity < self.threshold:
                continue
            if self._outdated({neighbour.key: neighbour.envelope}, ttl_s):
                continue
            if not same_facts(question.text, neighbour.text):
                self._refused[0] += 1
                continue
            payload = self._unsealed(neighbour.key, neighbour.envelope)
            if payload is None:
                continue
            self.hits.append(
                SemanticHit(
                    self._clock.wall(),
                    question.text,
                    neighbour.text,
                    neighbour.similarity,
                    str(payload.get("model") or ""),
                    _answer(payload),
                    question.key,
                    neighbour.key,
                )
            )
            return Near(payload, neighbour.key, neighbour.similarity)
        return None

    async def save(
        self,
        question: Question,
        *,
        family: str,
        model: str,
        payload: dict[str, object],
        engine: Any,
        replace: bool = False,
    ) -> bool:
        """Store an answer under its question; a failing store or embedder never raises.

        Parameters
        ----------
        question : Question
            What was asked.
        family, model : str
            Whose model answered, and its name in the request.
        payload : dict
            The provider's answer.
        engine : engine
            Who asks.
        replace : bool, default False
            Whether an answer that is stored already gives way.

        Returns
        -------
        bool
            Whether it is stored.
        """
        if not self._works:
            return False
        try:
            envelope = seal(
                question.key,
                family=family,
                model=model,
                payload=payload,
                created=self._clock.wall(),
            )
        except (TypeError, ValueError, RecursionError) as error:
            self._tell("seal", f"an answer cannot be kept for near ones: {reason_of(error)}")
            return False
        try:
            vector = await self._vectors.of_one(question, engine)
        except Exception as error:  # noqa: BLE001  # the embedder is anybody's code
            self._tell("text", f"a text cannot be embedded: {reason_of(error)}")
            if self._vectors.is_hopeless:
                self._fail("write", "answers are not kept in the semantic cache", error)
            return False
        try:
            entry = SemanticEntry(
                question.key, self._scope(question), question.text, envelope, vector
            )
            if replace:
                await self.cache.delete_many([question.key])
            await self.cache.add([entry])
        except Exception as error:  # noqa: BLE001  # embedder and store are anybody's code
            self._fail("write", "answers are not kept in the semantic cache", error)
            return False
        return True

    def reset(self) -> None:
        """Try a cache again that failed, and tell again if it still does."""
        with self._lock:
            self._works = True
            self._told.clear()

    def take_notices(self) -> list[str]:
        """Return what has to be told, each text once; the caller warns in its own thread."""
        with self._lock:
            notices, self._notices = self._notices, []
        return [*notices, *getattr(self.cache, "take_notices", list)()]

    def _scope(self, question: Question) -> str:
        named = f"{question.scope}\0{self.cache.embedder.name}"
        return hashlib.sha256(named.encode()).hexdigest()

    def _outdated(self, envelopes: dict[str, str], ttl_s: float | None) -> list[str]:
        if ttl_s is None:
            return []
        return outdated(envelopes, now=self._clock.wall(), ttl_s=ttl_s)

    def _unsealed(
        self, key: str, envelope: str, *, read: Callable[[str, str], Any] = unseal
    ) -> Any:
        try:
            return read(key, envelope)
        except CorruptEntry as error:
            self._tell("corrupt", f"semantic cache entries are damaged and passed over: {error}")
            return None

    def _fail(self, topic: str, what: str, error: Exception) -> None:
        self._works = False
        self._tell(topic, f"{what}, rows go on without: {reason_of(error)}")

    def _tell(self, topic: str, text: str) -> None:
        with self._lock:
            if topic not in self._told:
                self._told.add(topic)
                self._notices.append(text)


def as_semantic_tier(cache: object, *, clock: Clock = SYSTEM_CLOCK) -> SemanticTier | None:
    """Put a semantic cache behind its tier.

    Raises
    ------
    ConfigurationError
        If it is none.
    """
    if cache is None or isinstance(cache, SemanticTier):
        return cache
    if isinstance(cache, type) or not isinstance(cache, SemanticCache):
        raise ConfigurationError(
            f"semantic_cache={cache!r} is no semantic cache; give FaissSemanticCache(...) or "
            "QdrantSemanticCache(...)"
        )
    return SemanticTier(cache, clock=clock)


def check_threshold(threshold: object, *, keyword: str = "cosine_similarity_threshold") -> float:
    """Return a similarity threshold as a float.

    Raises
    ------
    ConfigurationError
        Unless it is a number above 0, at most 1.
    """
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not is_number or not 0 < threshold <= 1:  # type: ignore[operator]  # is a number
        raise ConfigurationError(
            f"{keyword}={threshold!r}: give a number above 0, at most 1; 0.985 "
            "is the default, and everything below 0.95 gives wrong answers"
        )
    return float(threshold)  # type: ignore[arg-type]  # is a number


def _answer(payload: dict[str, object]) -> str | None:
    try:
        text = payload["choices"][0]["message"]["content"]  # type: ignore[index]  # checked below
    except (KeyError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) else None
