"""Many texts to vectors: one bulk cache pass, then calls of many texts each."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from msgspec.structs import replace

from lbgpt_pandas.engine.answering import Engine
from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.completions import read_tokens
from lbgpt_pandas.engine.errors import (
    BadRequest,
    BudgetExceeded,
    ContentFiltered,
    ContextTooLong,
    MalformedResponse,
    RequestError,
    RequestExceedsQuota,
)
from lbgpt_pandas.engine.flights import Withdrawn
from lbgpt_pandas.engine.lookups import Lookups
from lbgpt_pandas.engine.types import EXACT, Outcome, Source
from lbgpt_pandas.engine.vectors import (
    WRONG_COUNT,
    WRONG_LENGTH,
    Embedding,
    read_embedding,
    text_of,
    weight,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lbgpt_pandas.engine.caching import Caching
    from lbgpt_pandas.engine.keys import KeyMaker
    from lbgpt_pandas.engine.run_state import RunState
    from lbgpt_pandas.engine.semantic.tier import Near
    from lbgpt_pandas.engine.types import Request

OF_ONE_TEXT = (BadRequest, ContentFiltered, ContextTooLong, RequestExceedsQuota)
"""Refusals of a call that may be meant for one of its texts, or for how many they are."""


class Embedder(Engine, Protocol):
    """What a batch of texts asks of an engine."""

    most_inputs: int

    def most_tokens(self) -> float:
        """Estimated tokens in one call."""
        ...

    def embedding_maker(self, request: Request) -> KeyMaker:
        """Return the maker of keys for texts with these parameters and options."""
        ...

    async def afetch_embeddings(
        self,
        requests: Sequence[Request],
        *,
        keys: Sequence[str],
        caching: Caching,
        run: RunState,
    ) -> list[Outcome]:
        """Embed several texts in one call, with retries, and store them."""
        ...


class VectorLookups(Lookups):
    """Keys of texts, and the vectors that the exact cache has for them."""

    def __init__(
        self, engine: Embedder, requests: Sequence[Request], caching: Caching, *, keys: list[str]
    ) -> None:
        super().__init__(engine, requests, caching, keep_payloads=False)
        self.keys = keys
        self._embedder = engine
        self._read_entry: Any = read_embedding

    def _make_keys(self, numbers: Iterable[int], settled: dict[int, Outcome]) -> list[int]:
        unanswered = []
        maker: KeyMaker | None = None
        for number in numbers:
            request = self._requests[number]
            try:
                maker = maker or self._embedder.embedding_maker(request)
                self.keys[number] = maker.key(text_of(request), request.sample)
            except RequestError as error:
                settled[number] = Outcome(None, error, Source.SKIPPED, key="")
            else:
                unanswered.append(number)
        return unanswered

    def _outcome(
        self,
        number: int,
        key: str,
        answer: Any,
        near: Near | None = None,  # noqa: ARG002  # vectors are looked up by key alone
    ) -> Outcome:
        if answer.tokens.prompt < 0:
            tokens = read_tokens(None, messages=self._requests[number].messages, text=None)
            answer = replace(answer, tokens=tokens)
        return Outcome(answer, None, EXACT, key, price_usd=self._engine.price_usd(answer))

    async def first_answers(self, outcomes: dict[int, Outcome]) -> dict[int, Outcome]:
        """Return nothing: a text has the same vector whoever asks first."""
        del outcomes
        return {}


class EmbeddingBatch(Batch):
    """One run over many texts.

    Texts go many in a call, as many as providers and limits take. A call that is refused is
    divided until the refused text stands alone, so that no other fails with it. Where both
    halves of a refused call are answered there were too many texts in it, and later calls have
    no more than a half.

    Parameters
    ----------
    engine : Embedder
        Who answers.
    requests : sequence of Request
        Each with one text as its only message; all with the same parameters and options.
    caching : Caching, optional
        The exact cache; near answers are not looked for.
    **how
        Of `Batch`.

    Examples
    --------
    >>> import asyncio
    >>> from lbgpt_pandas.engine.types import Request
    >>> from lbgpt_pandas.testing import ScriptedGPT
    >>> texts = [[{"role": "user", "content": text}] for text in ("a red car", "")]
    >>> params = {"model": "text-embedding-3-small", "dimensions": 4}
    >>> batch = EmbeddingBatch(ScriptedGPT(), [Request(text, params) for text in texts])
    >>> found, missing = asyncio.run(batch.arun())
    >>> len(found.completion.vector), missing.error.code
    (4, 'empty_text')
    """

    def __init__(self, engine: Embedder, requests: Sequence[Request], **how: Any) -> None:
        super().__init__(engine, requests, **how)
        self._embedder = engine
        self._lookups = VectorLookups(engine, requests, self.caching, keys=self._keys)
        self._most_inputs = engine.most_inputs

    async def _ask(self, misses: list[int]) -> None:
        slices = self._slices(misses)
        cap = self._max_parallel or self.engine.max_parallel_calls
        try:
            async with asyncio.TaskGroup() as workers:
                if self.requests[misses[0]].model not in self.engine.proven:
                    # A wrong key or model shows in one call, and so does how many texts it may
                    # have; the rest waits for it.
                    first = workers.create_task(self._work_through(iter([next(slices)])))
                    await self._run.until_tried(first)
                for _ in range(min(cap, len(misses))):
                    workers.create_task(self._work_through(slices))
        except BaseExceptionGroup as group:
            # Only a defect gets here: a request's failure is an outcome.
            raise group.exceptions[0] from None

    def _slices(self, numbers: Iterable[int]) -> Iterator[list[int]]:
        """Cut into what goes into one call each, in order."""
        some: list[int] = []
        tokens, most_tokens = 0, self._embedder.most_tokens()
        for number in numbers:
            size = weight(text_of(self.requests[number]))
            if some and (len(some) >= self._most_inputs or tokens + size > most_tokens):
                yield some
                some, tokens = [], 0
            some.append(number)
            tokens += size
        if some:
            yield some

    async def _work_through(self, slices: Iterator[list[int]]) -> None:
        while not self._run.stopped:
            if self._run.paused:
                with suppress(Withdrawn):
                    await self._run.until_resumed()
                continue
            numbers = next(slices, None)
            if numbers is None:
                return
            await self._answer(numbers)

    async def _answer(self, numbers: list[int]) -> bool:
        """Settle some texts; tell whether all of them were answered."""
        if len(numbers) > self._most_inputs:
            return await self._divide(numbers)
        try:
            outcomes = await self._fetch(numbers)
        except Withdrawn:
            return False
        except BudgetExceeded as error:
            if len(numbers) > 1:
                return await self._divide(numbers)  # fewer of them may be paid for
            if self._stops_for(error):
                return False
            key = self._keys[numbers[0]]
            outcomes = [Outcome(None, error.with_traceback(None), Source.SKIPPED, key)]
        if len(numbers) > 1 and _may_be_of_one(outcomes[0].error):
            # Attempts stand in the first outcome, and are to be counted.
            first, attempts = numbers[0], outcomes[0].attempts
            self._attempts_before[first] = self._attempts_before.get(first, 0) + attempts
            return await self._divide(numbers, learns=True)
        for number, outcome in zip(numbers, outcomes, strict=True):
            self._book(number, outcome)
            for follower in self._followers.pop(number, ()):
                self._book(follower, replace(outcome, source=Source.SHARED, attempts=0))
        return outcomes[0].completion is not None

    async def _fetch(self, numbers: list[int]) -> list[Outcome]:
        self._in_flight += 1
        try:
            return await self._embedder.afetch_embeddings(
                [self.requests[number] for number in numbers],
                keys=[self._keys[number] for number in numbers],
                caching=self.caching,
                run=self._run,
            )
        finally:
            self._in_flight -= 1

    async def _divide(self, numbers: list[int], *, learns: bool = False) -> bool:
        middle = (len(numbers) + 1) // 2
        are_answered = [
            not self._run.stopped and await self._answer(half)
            for half in (numbers[:middle], numbers[middle:])
        ]
        if learns and all(are_answered):
            self._most_inputs = min(self._most_inputs, middle)
        return all(are_answered)


def _may_be_of_one(error: object) -> bool:
    if isinstance(error, MalformedResponse):
        return error.code == WRONG_COUNT
    return isinstance(error, OF_ONE_TEXT) and error.code != WRONG_LENGTH


def vector_of(outcome: Outcome | None) -> Embedding | None:
    """Return the vector that a text was given; None if there is none."""
    answer = None if outcome is None else outcome.completion
    return answer if isinstance(answer, Embedding) else None
