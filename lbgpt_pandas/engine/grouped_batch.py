"""Several rows in one request: groups on their way, and what becomes of each row."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace as replaced

from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.caching import NO_CACHING
from lbgpt_pandas.engine.errors import (
    BadRequest,
    BudgetExceeded,
    ContentFiltered,
    ContextTooLong,
    MalformedResponse,
    RequestExceedsQuota,
    Timeout,
)
from lbgpt_pandas.engine.flights import Withdrawn
from lbgpt_pandas.engine.group_reply import likeness
from lbgpt_pandas.engine.group_request import (
    INSTRUCTION,
    Unmarked,
    request_of,
    size_of,
    system_of,
)
from lbgpt_pandas.engine.grouped_rows import Batching, Group, GroupCaching, GroupRow
from lbgpt_pandas.engine.limits.estimate import text_tokens
from lbgpt_pandas.engine.lookups import Lookups
from lbgpt_pandas.engine.types import Completion, Outcome, Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lbgpt_pandas.engine.answering import Engine
    from lbgpt_pandas.engine.group_request import Grouping
    from lbgpt_pandas.engine.types import Request

FEWEST = 50
"""Rows to ask from which "auto" tries groups at all."""

SAMPLE, SAMPLE_GROUP = 16, 8
"""Rows that "auto" asks both ways, and how many of them in one request."""

AUTO_ROWS = 10
ENOUGH = 0.9
"""Mean likeness of the sample from which "auto" goes on with groups."""

MOST_IN_VAIN, NEARLY_ALL = 5, 0.8
"""Groups without any certain answer, and their part of all, from which rows are asked alone."""

MOST_TOKENS = 16_000
"""In a group, answers included where they are bounded; models of 2024 answer with no more."""

SHARE_OF_A_MINUTE = 8
"""A group takes no more than this part of a minute's tokens, so that calls fill the minute."""

MAY_BE_OF_THE_GROUP = (
    BadRequest, ContentFiltered, ContextTooLong, RequestExceedsQuota, MalformedResponse, Timeout,
)  # fmt: skip
"""Failures of a call that one of its rows, or their number, may be the reason for."""


class GroupedBatch(Batch):
    """One run in which several rows go in one request.

    Each row keeps its own key, cache entry and outcome. A row whose answer in a group is not
    certain is asked alone, and stored under the same key.

    Parameters
    ----------
    engine : Engine
        Who answers.
    requests : sequence of Request
        With `Grouping.mark` among their parameters; each with at most a system message before
        one text of the user.
    grouping : Grouping
        How rows are put together.
    **how
        Of `Batch`.

    Attributes
    ----------
    batching : Batching
        What came of it so far.
    rows_at_most : int
        In one request.
    unkept : list of Outcome
        Calls of which no row kept anything: failed ones, those with an unreadable reply, and the
        groups of a sample. They are in no row's figures, but in those of the run.
    """

    def __init__(
        self, engine: Engine, requests: Sequence[Request], *, grouping: Grouping, **how: Any
    ) -> None:
        self.unkept: list[Outcome] = []
        super().__init__(engine, Unmarked(requests), **how)
        read_whole = self._keep_payloads or self._measure is not None
        keys = self._keys
        self._lookups = Lookups(engine, requests, self.caching, keep_payloads=read_whole)
        self._lookups.keys = keys
        self.grouping = grouping
        self.batching = Batching(grouping.rows)
        self.rows_at_most = AUTO_ROWS if grouping.rows == "auto" else int(grouping.rows)
        self._groups: dict[int, list[int]] = {}
        self._in_vain = 0

    def follow(self, earlier: Batch) -> None:
        """Count also what an earlier run over the same requests has lost."""
        for outcome in getattr(earlier, "unkept", ()):
            self.lose(outcome)

    async def _ask(self, misses: list[int]) -> None:
        if self.grouping.rows == "auto":
            misses = await self._try(misses)
        self._groups = {group[0]: group for group in self.groups_of(misses)}
        if self._groups and not self._run.stopped:
            await super()._ask(list(self._groups))

    def groups_of(self, numbers: Sequence[int]) -> list[list[int]]:
        """Put rows with one system message together, as many as may go in one request."""
        most = self._most_tokens()
        open_groups: dict[str, tuple[list[int], int]] = {}
        groups: list[list[int]] = []
        for number in numbers:
            request = self.requests[number]
            system, size = system_of(request), size_of(request)
            group, tokens = open_groups.get(system, ([], 0))
            tokens = tokens or text_tokens(system + INSTRUCTION)
            if not group or len(group) >= self.rows_at_most or tokens + size > most:
                group, tokens = [], text_tokens(system + INSTRUCTION)
                groups.append(group)
            group.append(number)
            open_groups[system] = group, tokens + size
        return groups

    def _most_tokens(self) -> float:
        limits = [each.quota.limit("tokens") for each in self.engine.deployments()]
        most = [MOST_TOKENS, *(limit / SHARE_OF_A_MINUTE for limit in limits if limit)]
        if self.grouping.window is not None:
            most.append(self.grouping.window // 2)  # the other half is for the answers
        return min(most)

    async def _work(self, queue: deque[int]) -> None:
        ask_alone = super()._work
        while (leader := await self._run.next_of(queue)) is not None:
            numbers = self._groups.pop(leader, [leader])
            if len(numbers) == 1:
                await ask_alone(deque(numbers))
                continue
            alone, together = self._news_and_others(numbers)
            if len(together) > 1 and not self.batching.switched_off:
                together = await self._ask_together(together)
            alone += together
            if self._max_parallel is None:
                # At once, as nobody else may be left to do it; the engine has its own bound.
                await asyncio.gather(*(ask_alone(deque([each])) for each in alone))
            else:
                queue.extend(alone)

    def _news_and_others(self, numbers: list[int]) -> tuple[list[int], list[int]]:
        """Part the rows that another run has stored since this one looked from the others."""
        tier = self.caching.tier
        if tier is None or not self.caching.reads:
            return [], numbers
        news = [number for number in numbers if tier.is_news(self._keys[number])]
        return news, [number for number in numbers if number not in news]

    async def _ask_together(self, numbers: list[int]) -> list[int]:
        """Settle the rows of a group; return those that are to be asked alone."""
        try:
            group, outcome = await self._fetch(numbers, keeps=True)
        except Withdrawn:
            return []
        except BudgetExceeded:
            return numbers  # fewer of them may be paid for
        if outcome.error is not None:
            return self._failed(numbers, outcome)
        parts = {} if outcome.completion is None else group.parts(outcome.completion)
        self._settle_parts(numbers, parts, outcome)
        left = [number for place, number in enumerate(numbers) if place not in parts]
        self._note(resent=len(left))
        if not parts:
            self.lose(outcome)
            self._doubt()
        return left

    def _failed(self, numbers: list[int], outcome: Outcome) -> list[int]:
        """Settle a group whose call failed, or return its rows."""
        if isinstance(outcome.error, MAY_BE_OF_THE_GROUP):
            self.lose(outcome)
            self._note(resent=len(numbers))
            self._doubt()
            return numbers
        for place, number in enumerate(numbers):
            attempts = 0 if place else outcome.attempts
            self._settle_all(number, replaced(outcome, key=self._keys[number], attempts=attempts))
        return []

    def _settle_parts(
        self, numbers: list[int], parts: dict[int, Completion], outcome: Outcome
    ) -> None:
        prices = _prices(self.engine, list(parts.values()), outcome.price_usd)
        for order, (place, part) in enumerate(parts.items()):
            number = numbers[place]
            own = replaced(
                outcome,
                completion=part,
                key=self._keys[number],
                attempts=0 if order else outcome.attempts,
                price_usd=prices[order],
            )
            self._settle_all(number, own)

    def _settle_all(self, number: int, outcome: Outcome) -> None:
        self._book(number, outcome)
        for follower in self._followers.pop(number, ()):
            self._book(follower, replaced(outcome, source=Source.SHARED, attempts=0))

    async def _fetch(self, numbers: list[int], *, keeps: bool) -> tuple[Group, Outcome]:
        requests = [self.engine.prepare(self.requests[number]) for number in numbers]
        request, ids = request_of(requests, takes_schema=self.grouping.takes_schema)
        rows = [
            GroupRow(
                self.requests[number],
                self._keys[number],
                self.caching,
                self._question(number) if keeps else None,
            )
            for number in numbers
        ]
        group, given = Group(rows, ids), self.caching
        caching = NO_CACHING
        if keeps and given.writes:
            caching = GroupCaching(given.tier, given.semantic, writes=True, group=group)
        # Another run that asks for the same rows at the same time shares the call.
        flight = " ".join(row.key for row in rows)
        self._in_flight += 1
        try:
            outcome = await self.engine.afetch(
                request, key=flight, caching=caching, question=None, run=self._run
            )
        finally:
            self._in_flight -= 1
        if outcome.source is Source.PROVIDER:
            self._note(requests=1, rows=len(numbers))
        return group, outcome

    async def _try(self, misses: list[int]) -> list[int]:
        """Ask a sample both ways, and find out whether groups change answers.

        The answers of rows that were asked alone are kept. Returns the rows that are left.
        """
        if len(misses) < FEWEST:
            self._switch_off(f"there are fewer than {FEWEST} rows to ask")
            return misses
        system = system_of(self.requests[misses[0]])
        alike = [number for number in misses if system_of(self.requests[number]) == system]
        if len(alike) < SAMPLE_GROUP:
            self._switch_off(f"fewer than {SAMPLE_GROUP} rows share a system message")
            return misses
        sample = alike[:SAMPLE]
        together: dict[int, str] = {}
        for start in range(0, len(sample), SAMPLE_GROUP):
            if not self.batching.switched_off:
                together |= await self._try_some(sample[start : start + SAMPLE_GROUP])
        await super()._ask(sample)
        if not self.batching.switched_off:
            self._judge(sample, together)
        taken = set(sample)
        return [number for number in misses if number not in taken]

    async def _try_some(self, numbers: list[int]) -> dict[int, str]:
        try:
            group, outcome = await self._fetch(numbers, keeps=False)
        except Withdrawn:
            return {}
        except BudgetExceeded:
            self._switch_off("the budget does not reach for a sample")
            return {}
        self.lose(outcome)
        if outcome.completion is None:
            self._switch_off(f"the sample failed: {outcome.error}")
            return {}
        parts = group.parts(outcome.completion)
        return {numbers[place]: part.text or "" for place, part in parts.items()}

    def _judge(self, sample: Sequence[int], together: dict[int, str]) -> None:
        exact = self.requests[sample[0]].params.get("temperature") == 0
        alone = {
            number: outcome.completion.text or ""
            for number in sample
            if (outcome := self.outcomes[number]) is not None and outcome.completion is not None
        }
        if not alone:
            self._switch_off("no row of the sample was answered")
            return
        lost = sum(number not in together for number in alone)
        agreement = sum(
            likeness(text, together[number], exact=exact)
            for number, text in alone.items()
            if number in together
        ) / len(alone)
        self.batching = replace(self.batching, agreement=agreement)
        if lost:
            self._switch_off(f"{lost} of {len(alone)} answers of the sample were lost")
        elif agreement < ENOUGH:
            self._switch_off(f"answers of the sample changed ({agreement:.0%} alike)")

    def _doubt(self) -> None:
        """Go on one by one where nearly all groups were in vain: their rows are paid twice."""
        self._in_vain += 1
        sent = self.batching.requests
        if self._in_vain >= max(MOST_IN_VAIN, NEARLY_ALL * sent):
            self._switch_off(f"{self._in_vain} of {sent} requests gave no answer")

    def _switch_off(self, reason: str) -> None:
        self.rows_at_most = 1
        self.batching = replace(self.batching, switched_off=reason)

    def _note(self, *, requests: int = 0, rows: int = 0, resent: int = 0) -> None:
        known = self.batching
        self.batching = replace(
            known,
            requests=known.requests + requests,
            rows=known.rows + rows,
            resent=known.resent + resent,
        )

    def lose(self, outcome: Outcome) -> None:
        """Count a call of which no row keeps anything."""
        self.unkept.append(outcome)
        self._figures.retries += max(0, outcome.attempts - 1)
        if outcome.completion is not None and outcome.source is Source.PROVIDER:
            self._figures.charge(outcome)


def _prices(
    engine: Engine, parts: Sequence[Completion], total: float | None
) -> Sequence[float | None]:
    """Divide the price of a call as list prices stand to each other."""
    if total is None:
        return [None] * len(parts)
    own = [engine.price_usd(part) or 0.0 for part in parts]
    whole = sum(own)
    return [total * price / whole if whole else total / len(parts) for price in own]
