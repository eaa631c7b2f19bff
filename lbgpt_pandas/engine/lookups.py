"""The bulk pass over the caches that comes before a run's first call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace as replaced

from lbgpt_pandas.engine.caches.envelope import unseal
from lbgpt_pandas.engine.completions import read_completion
from lbgpt_pandas.engine.errors import RequestError
from lbgpt_pandas.engine.semantic.questions import question_of
from lbgpt_pandas.engine.stored import read_stored
from lbgpt_pandas.engine.types import EXACT, Completion, Outcome, Source

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from lbgpt_pandas.engine.answering import Engine
    from lbgpt_pandas.engine.caches.base import Cache
    from lbgpt_pandas.engine.caching import Caching
    from lbgpt_pandas.engine.keys import KeyMaker
    from lbgpt_pandas.engine.semantic.questions import Question
    from lbgpt_pandas.engine.semantic.tier import Near
    from lbgpt_pandas.engine.types import Request, TokenCount

Answer = Completion | dict[str, object]
"""A stored answer: read already, or as its provider gave it."""


class Lookups:
    """Keys of a run's requests, and what the caches have for them.

    Parameters
    ----------
    engine : Engine
        Who would answer.
    requests : sequence of Request
        The run's requests.
    caching : Caching
        The caches and what may be done with them.
    keep_payloads : bool
        Keep whole provider objects, not only texts and figures.

    Attributes
    ----------
    keys : list of str
        By number of the request; empty until it was looked up, and where there is none.
    """

    def __init__(
        self,
        engine: Engine,
        requests: Sequence[Request],
        caching: Caching,
        *,
        keep_payloads: bool,
    ) -> None:
        self.keys: list[str] = [""] * len(requests)
        self._engine, self._requests, self._caching = engine, requests, caching
        self._keep_payloads = keep_payloads
        # A copy for the other tier is one of the whole answer.
        self._read_entry = unseal if keep_payloads or caching.copies else read_stored
        self._prices: dict[tuple[str, TokenCount], float | None] = {}
        self._makers: dict[tuple[int, int], tuple[KeyMaker, Request]] = {}

    async def find(
        self, numbers: Iterable[int], *, afresh: Collection[int] = ()
    ) -> dict[int, Outcome]:
        """Look requests up, first all of them by key, then what is left by likeness.

        Parameters
        ----------
        numbers : iterable of int
            Of the requests.
        afresh : collection of int, optional
            Those that are to be asked whatever is stored.

        Returns
        -------
        dict of int to Outcome
            Cached answers, and errors of requests that have no key; what is missing is to be
            asked for.
        """
        settled: dict[int, Outcome] = {}
        unanswered = self._make_keys(numbers, settled)
        if not self._caching.reads:
            return settled
        if afresh:
            unanswered = [number for number in unanswered if number not in afresh]
        for name, look_up in self._caching.exact_tiers(self._read_entry):
            if not unanswered:
                break
            found = await look_up(list(dict.fromkeys(map(self.keys.__getitem__, unanswered))))
            unanswered = self._read(found, unanswered, settled)
            await self._copy(found, settled, into=self._caching.copies - {name})
        recording = self._caching.recording
        if recording is not None:
            for number in unanswered:
                error = recording.failure(self.keys[number])
                if error is not None:
                    settled[number] = Outcome(None, error, Source.SKIPPED, self.keys[number])
        return settled | await self._find_near(unanswered)

    def _make_keys(self, numbers: Iterable[int], settled: dict[int, Outcome]) -> list[int]:
        """Make keys; return the numbers of the requests that have one, and settle the others."""
        requests, keys = self._requests, self.keys
        unanswered = []
        params: object = None
        options: object = None
        maker: KeyMaker | None = None
        for number in numbers:
            request = requests[number]
            try:
                if maker is None or request.params is not params or request.options is not options:
                    maker = self._maker(request)
                    params, options = request.params, request.options
                keys[number] = maker.key(request.messages, request.sample)
            except RequestError as error:
                settled[number] = Outcome(None, error, Source.SKIPPED, key="")
            else:
                unanswered.append(number)
        return unanswered

    def _read(
        self, found: dict[str, Answer], numbers: list[int], settled: dict[int, Outcome]
    ) -> list[int]:
        """Settle what was found by key; return the numbers that are left."""
        unanswered = []
        for number in numbers:
            key = self.keys[number]
            answer = found.get(key)
            outcome = None if answer is None else self._outcome(number, key, answer)
            if outcome is None:
                unanswered.append(number)
            else:
                settled[number] = outcome
        return unanswered

    async def first_answers(self, outcomes: dict[int, Outcome]) -> dict[int, Outcome]:
        """Return those outcomes anew whose answer is not the one that is stored.

        What another process stored first stays, so that all runs give the same answer.
        """
        tier = self._caching.tier
        if tier is None or not self._caching.writes or self._caching.replaces:
            return {}
        keys = _contested(tier.cache, dict.fromkeys(self.keys[number] for number in outcomes))
        if not keys:
            return {}
        stored = await tier.find(keys, repair=False, counts=False, read=self._read_entry)
        changed = {}
        for number, outcome in outcomes.items():
            answer = stored.get(self.keys[number])
            if answer is None or outcome.completion is None:
                continue
            first = self._outcome(number, self.keys[number], answer)
            kept = outcome.completion if first is None else first.completion
            if kept is not None and not kept.is_same_answer(outcome.completion):
                changed[number] = replaced(outcome, completion=kept)
        await self._correct(list(changed))
        return changed

    async def _correct(self, numbers: list[int]) -> None:
        """Put the first answers in the semantic tier too, where ours have been stored."""
        tier, semantic = self._caching.tier, self._caching.semantic
        if tier is None or semantic is None or not numbers:
            return
        keys = [self.keys[number] for number in numbers]
        first = await tier.find(keys, repair=False, counts=False)
        for number in numbers:
            payload, question = first.get(self.keys[number]), self.question(number)
            if payload is not None and question is not None:
                request = self._requests[number]
                await semantic.save(
                    question,
                    family=self._engine.family_of(request),
                    model=request.model or "",
                    payload=payload,
                    engine=self._engine,
                    replace=True,
                )

    def question(self, number: int) -> Question | None:
        """What a near answer to this request is looked for by; None if it may have none."""
        request = self._requests[number]
        return question_of(self._engine.prepare(request), self.keys[number], self._maker(request))

    async def _copy(
        self,
        found: dict[str, Any],
        numbers: Iterable[int],
        *,
        into: Collection[str],
    ) -> None:
        """Store answers to exactly these requests in the other tier as well."""
        if not into:
            return
        semantic = self._caching.semantic
        if semantic is not None and "semantic" in into:
            # What is there already is neither embedded nor written again.
            for key in await semantic.find_exact(list(found)):
                found.pop(key)
        for number in numbers:
            payload, request = found.pop(self.keys[number], None), self._requests[number]
            if payload is not None:
                await self._caching.save(
                    payload,
                    key=self.keys[number],
                    question=self.question(number),
                    family=self._engine.family_of(request),
                    model=request.model or "",
                    engine=self._engine,
                    into=into,
                )

    async def _find_near(self, numbers: list[int]) -> dict[int, Outcome]:
        semantic = self._caching.semantic
        if semantic is None:
            return {}
        questions = {number: self.question(number) for number in numbers}
        asked = {each.key: each for each in questions.values() if each is not None}
        near = await semantic.find(
            list(asked.values()), engine=self._engine, ttl_s=self._caching.ttl_s
        )
        settled = {}
        for number in numbers:
            key = self.keys[number]
            hit = near.get(key)
            outcome = None if hit is None else self._outcome(number, key, hit.payload, hit)
            if outcome is not None:
                settled[number] = outcome
        return settled

    def _maker(self, request: Request) -> KeyMaker:
        shared_parts = id(request.params), id(request.options)
        if shared_parts not in self._makers:
            # With the request, because the id of a mapping that is gone is given again.
            self._makers[shared_parts] = self._engine.key_maker(request), request
        return self._makers[shared_parts][0]

    def _outcome(
        self, number: int, key: str, answer: Answer, near: Near | None = None
    ) -> Outcome | None:
        if isinstance(answer, Completion):
            completion = answer
        else:
            try:
                completion = read_completion(
                    answer,
                    messages=self._requests[number].messages,
                    deployment="",
                    keep_payload=self._keep_payloads,
                )
            except RequestError:
                # Stored by something that accepted more than this version does: a miss.
                return None
        price = self._price(completion)
        if near is None:
            return Outcome(completion, None, EXACT, key, price_usd=price)
        source, likeness = Source.SEMANTIC_CACHE, near.similarity
        return Outcome(completion, None, source, key, similarity=likeness, price_usd=price)

    def _price(self, completion: Completion) -> float | None:
        """Price of an answer, as one object for equal ones."""
        like = completion.model, completion.tokens
        try:
            return self._prices[like]
        except KeyError:
            price = self._prices[like] = self._engine.price_usd(completion)
            return price


def _contested(cache: Cache, keys: Iterable[str]) -> list[str]:
    """Return those `keys` of answers of ours under which another process may have been first."""
    if not getattr(cache, "is_shared", False):
        return []
    ask = getattr(cache, "contested", list)  # who cannot say may have kept any of them
    return list(ask(keys))


def leaders_of(
    numbers: Iterable[int], keys: Sequence[str]
) -> tuple[list[int], dict[int, list[int]]]:
    """Keep one of equal requests, and return by its number those that follow it.

    Examples
    --------
    >>> leaders_of([0, 1, 2], ["a", "b", "a"])
    ([0, 1], {0: [2]})
    """
    leaders: dict[str, int] = {}
    followers: dict[int, list[int]] = {}
    for number in numbers:
        leader = leaders.setdefault(keys[number], number)
        if leader != number:
            followers.setdefault(leader, []).append(number)
    return list(leaders.values()), followers
