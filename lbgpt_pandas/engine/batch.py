"""Many requests: one bulk cache pass, then a bounded number of workers over the misses."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec.structs import replace as replaced

from lbgpt_pandas.engine.accounts import SESSION_BOOK
from lbgpt_pandas.engine.caching import NO_CACHING
from lbgpt_pandas.engine.cancellation import Cancellation
from lbgpt_pandas.engine.clock import SYSTEM_CLOCK
from lbgpt_pandas.engine.collection import rare_collection
from lbgpt_pandas.engine.completions import read_out
from lbgpt_pandas.engine.crew import Crew
from lbgpt_pandas.engine.errors import BudgetExceeded, RequestError
from lbgpt_pandas.engine.figures import Figures
from lbgpt_pandas.engine.flights import Withdrawn
from lbgpt_pandas.engine.interrupts import DRAIN_S
from lbgpt_pandas.engine.lookups import Lookups, leaders_of
from lbgpt_pandas.engine.prospects import Prospects
from lbgpt_pandas.engine.repair import Rounds, repair
from lbgpt_pandas.engine.run_state import RunState
from lbgpt_pandas.engine.types import Outcome, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from lbgpt_pandas.engine.answering import Engine
    from lbgpt_pandas.engine.budget import Budget
    from lbgpt_pandas.engine.caching import Caching
    from lbgpt_pandas.engine.clock import Clock
    from lbgpt_pandas.engine.errors import LbgptError
    from lbgpt_pandas.engine.repair import Check
    from lbgpt_pandas.engine.report import RunSnapshot
    from lbgpt_pandas.engine.semantic.questions import Question
    from lbgpt_pandas.engine.types import Request

LOOKUP_SIZE = 2000
"""Keys in one bulk lookup: answers of more do not stay in the processor's cache until read."""

SECOND_LOOK_S = 0.5
"""Seconds after which answers are looked up again that could not be read."""


class Batch:
    """One run over a list of requests.

    Parameters
    ----------
    engine : Engine
        Who answers.
    requests : sequence of Request
        Different requests; equal ones share a call all the same.
    caching : Caching, optional
        The exact cache and what may be done with it; none by default.
    rows_of : sequence of int, optional
        How many rows of a frame each request stands for, for progress; 1 by default.
    broken : sequence of LbgptError, optional
        Errors of further rows, which have no request; for progress.
    skipped : int, default 0
        Further rows that need none.
    max_parallel : int, optional
        Cap on the requests of this run that are worked on at once.
    stop_on_error : bool, default False
        Start nothing new after the first failure.
    keep_payloads : bool, default False
        Keep whole provider objects, not only texts and figures.
    earlier : sequence of Outcome or None, optional
        Outcomes of an earlier run over the same requests; what it answered is not asked again.
    afresh : collection of int, optional
        Numbers of requests that are asked whatever is stored, which gives way.
    budget : Budget, optional
        What the run may spend; cached answers cost nothing.
    check : Check, optional
        What replies have to be; others are asked again, and fail in the end.
    measure : callable, optional
        Gets a provider's object and returns the answer's ``confidence``, from 0 to 1 or None.
    run : RunState, optional
        The run that it is a part of; one of its own by default.

    Attributes
    ----------
    outcomes : list of Outcome or None
        By position; None where nothing has come of the request yet.
    rounds : Rounds
        What was asked again.
    on_asking : callable
        Called on the loop before the first call, when all keys are known.
    """

    def __init__(
        self,
        engine: Engine,
        requests: Sequence[Request],
        *,
        caching: Caching = NO_CACHING,
        rows_of: Sequence[int] | None = None,
        broken: Sequence[LbgptError] = (),
        skipped: int = 0,
        max_parallel: int | None = None,
        stop_on_error: bool = False,
        keep_payloads: bool = False,
        earlier: Sequence[Outcome | None] = (),
        afresh: Collection[int] = (),
        budget: Budget | None = None,
        clock: Clock = SYSTEM_CLOCK,
        check: Check | None = None,
        measure: Callable[[dict[str, object]], float | None] | None = None,
        run: RunState | None = None,
    ) -> None:
        self.engine = engine
        self.requests = requests
        self.caching = caching
        self.outcomes: list[Outcome | None] = [None] * len(requests)
        self.rows_of = rows_of if rows_of is not None else [1] * len(requests)
        self._rows = sum(self.rows_of) + len(broken) + skipped
        self._max_parallel = max_parallel
        self._stop_on_error = stop_on_error
        self._keep_payloads = keep_payloads
        self._measure = measure
        self._clock = clock
        read_whole = keep_payloads or measure is not None
        self._lookups = Lookups(engine, requests, caching, keep_payloads=read_whole)
        self._keys = self._lookups.keys
        self._followers: dict[int, list[int]] = {}
        self._prospects = Prospects(requests)
        self._cancellation = Cancellation()
        self._unaffordable: BudgetExceeded | None = None
        self._finished = False
        self._run = run or RunState(budget=budget)
        self._check, self._afresh, self.rounds = check, frozenset(afresh), Rounds()
        self._caching_afresh = replace(caching, reads=False, replaces=True)
        self._started_at: float | None = None
        self._elapsed_s, self._in_flight = 0.0, 0
        self._figures = Figures(broken=broken, skipped=skipped)
        self._attempts_before: dict[int, int] = {}
        self.on_asking: Callable[[], object] = bool
        for number, outcome in enumerate(earlier):
            if outcome is not None and outcome.completion is not None:
                self._keys[number] = outcome.key
                self._settle(number, outcome)
            elif outcome is not None and outcome.attempts:
                self._attempts_before[number] = outcome.attempts

    async def arun(self) -> list[Outcome | None]:
        """Answer every request; the outcomes stand in the order of the requests.

        Returns
        -------
        list of Outcome or None
            None only where the run stopped early.

        Raises
        ------
        AuthError, NotFound
            The very first call shows that no call can succeed.
        RunAborted
            The same became clear later, or credit ran out, or somebody called `cancel`.
        CacheMiss, CacheCorrupt
            With ``cache_mode="replay"``: an answer is not stored, or damaged.
        BudgetExceeded
            The budget is used up, and says that this is to be raised.
        """
        try:
            with self._cancellation.heard(), rare_collection:
                return await self._arun()
        finally:
            self._finished = True

    async def _arun(self) -> list[Outcome | None]:
        self._started_at = self._clock.monotonic()
        # A store that failed may be well again, and a failure of this run is told again.
        self.caching.reset()
        try:
            with self.caching.in_use():
                await self._look_up_and_ask()
        finally:
            self._elapsed_s = self._clock.monotonic() - self._started_at
        if (fatal := self._prospects.fatal) is not None:
            raise self._prospects.final_error(fatal, self.outcomes, answered=self._figures.requests)
        if self._unaffordable is not None:
            raise self._unaffordable
        if None in self.outcomes:
            self._cancellation.check()
        return self.outcomes

    async def _look_up_and_ask(self) -> None:
        misses = await self._look_up()
        if misses and not self._run.stopped:
            self.on_asking()
            leaders, self._followers = leaders_of(misses, self._keys)
            async with self.engine:
                await self._ask(leaders)
        # Also what an earlier run could not write, where this one asks nobody.
        await self.caching.flush()
        await self._take_first_answers(misses)
        if self._check is not None:
            await self._repair(self._check)

    async def _repair(self, check: Check) -> None:
        await repair(check, self.requests, self.outcomes, ask=self._ask_again, rounds=self.rounds)
        self._figures = self._figures.recounted(zip(self.outcomes, self.rows_of, strict=True))

    async def _ask_again(
        self, numbers: Sequence[int], requests: Sequence[Request]
    ) -> Sequence[Outcome | None]:
        second = Batch(
            self.engine,
            requests,
            caching=self.caching,
            rows_of=[self.rows_of[number] for number in numbers],
            afresh=[place for place, number in enumerate(numbers) if number in self._afresh],
            max_parallel=self._max_parallel,
            clock=self._clock,
            measure=self._measure,
            run=self._run,
        )
        if not self._run.stopped:
            await second._look_up_and_ask()
        self._figures.spend(second._figures)
        self._prospects.fatal = self._prospects.fatal or second._prospects.fatal
        self._unaffordable = self._unaffordable or second._unaffordable
        return second.outcomes

    def snapshot(self) -> RunSnapshot:
        """The present state; may be called from any thread."""
        elapsed = self._elapsed_s
        if not self._finished and self._started_at is not None:
            elapsed = self._clock.monotonic() - self._started_at
        run = self._run
        return self._figures.snapshot(
            rows=self._rows,
            in_flight=self._in_flight,
            elapsed_s=elapsed,
            finished=self._finished,
            refused=sum(run.refusals.values()),
            paused=run.paused,
            stopped=run.stopped,
            deployments=self._figures.states(self.engine.deployments(), run.refusals),
            budget=() if run.budget is None else run.budget.states(),
        )

    @property
    def keys(self) -> Sequence[str]:
        """Key of each request; empty until it was looked up, and where there is none."""
        return self._keys

    @property
    def last_failure(self) -> RequestError | None:
        """How the call failed that failed last; its row may have been tried again."""
        return self._run.last_failure

    def stop(self) -> None:
        """Start nothing new; what is in flight is finished. Safe from any thread."""
        self._run.stop()

    def cancel(self) -> None:
        """Stop, and leave what has not arrived within `DRAIN_S`. Safe from any thread."""
        self.stop()
        self._cancellation.call(self._clock, after_s=DRAIN_S)

    def pause(self) -> None:
        """Start nothing new until `resume`; what is in flight is finished. From any thread."""
        self._run.pause()

    def resume(self) -> None:
        """Go on after `pause`. Safe from any thread."""
        self._run.resume()

    async def _look_up(self) -> list[int]:
        """Settle every cached request; return the numbers of the others."""
        tier = self.caching.tier
        failures = 0 if tier is None else tier.read_failures
        misses = await self._look_up_some(range(len(self.requests)))
        if misses and tier is not None and tier.read_failures > failures:
            # What could not be read is not missing; a store may be back in a moment.
            await self._clock.sleep(SECOND_LOOK_S)
            tier.retry_reads()
            misses = await self._look_up_some(misses)
        if misses and self.caching.recording is not None:
            raise self.caching.recording.miss(misses)
        return misses

    async def _look_up_some(self, numbers: Sequence[int]) -> list[int]:
        misses: list[int] = []
        for start in range(0, len(numbers), LOOKUP_SIZE):
            some = numbers[start : start + LOOKUP_SIZE]
            open_numbers = [number for number in some if self.outcomes[number] is None]
            settled = await self._lookups.find(open_numbers, afresh=self._afresh)
            for number, outcome in settled.items():
                self._settle(number, outcome)
            spared = [(outcome, self.rows_of[number]) for number, outcome in settled.items()]
            SESSION_BOOK.spared(spared, engine=self.engine.name, at=self._clock.wall())
            misses += [number for number in open_numbers if number not in settled]
            await asyncio.sleep(0)
        return misses

    async def _take_first_answers(self, numbers: list[int]) -> None:
        """Take the stored answer where another process was first: both return the same."""
        for start in range(0, len(numbers), LOOKUP_SIZE):
            some = {
                number: outcome
                for number in numbers[start : start + LOOKUP_SIZE]
                if (outcome := self.outcomes[number]) is not None and outcome.completion
            }
            for number, outcome in (await self._lookups.first_answers(some)).items():
                self.outcomes[number] = self._read(outcome)

    async def _ask(self, misses: list[int]) -> None:
        queue = deque(misses)
        try:
            async with asyncio.TaskGroup() as workers:
                if self.requests[misses[0]].model not in self.engine.proven:
                    # A wrong key or model shows in one call; the rest waits for it.
                    first = workers.create_task(self._work(deque([queue.popleft()])))
                    await self._run.until_tried(first)
                crew = Crew(workers, queue, self._work)
                self._run.stand_in = crew.stand_in if self._max_parallel is None else bool
                crew.start(self._max_parallel or self.engine.max_parallel_calls)
        except BaseExceptionGroup as group:
            # Only a defect gets here: a request's failure is an outcome.
            raise group.exceptions[0] from None

    async def _work(self, queue: deque[int]) -> None:
        while (number := await self._run.next_of(queue)) is not None:
            request = self.engine.prepare(self.requests[number])
            self._in_flight += 1
            try:
                outcome = await self.engine.afetch(
                    request,
                    key=self._keys[number],
                    caching=self._caching_afresh if number in self._afresh else self.caching,
                    question=self._question(number),
                    run=self._run,
                )
            except Withdrawn:
                return
            except BudgetExceeded as error:
                if self._stops_for(error):
                    return
                failure = error.with_traceback(None)
                outcome = Outcome(None, failure, Source.SKIPPED, self._keys[number])
            finally:
                self._in_flight -= 1
            self._book(number, outcome)
            for follower in self._followers.pop(number, ()):
                self._book(follower, replaced(outcome, source=Source.SHARED, attempts=0))

    def _question(self, number: int) -> Question | None:
        has_tier = self.caching.semantic is not None and self.caching.writes
        return self._lookups.question(number) if has_tier else None

    def _stops_for(self, error: BudgetExceeded) -> bool:
        """Tell whether a used-up budget ends the run, and begin to end it."""
        budget = self._run.budget
        if budget is not None and budget.on_exceeded == "null":
            return False
        self._unaffordable = self._unaffordable or error
        self.stop()
        return True

    def _book(self, number: int, outcome: Outcome) -> None:
        """Settle, and enter what the rows did not have to pay in the session's book."""
        self._settle(number, outcome)
        rows = self.rows_of[number]
        if rows > 1 or outcome.source is not Source.PROVIDER:
            at = self._clock.wall()
            SESSION_BOOK.spared([(outcome, rows)], engine=self.engine.name, at=at)

    def _settle(self, number: int, outcome: Outcome) -> None:
        outcome = self._read(outcome)
        if self._attempts_before and (before := self._attempts_before.pop(number, 0)):
            outcome = replaced(outcome, attempts=outcome.attempts + before)
        self.outcomes[number] = outcome
        self._figures.settle(outcome, self.rows_of[number])
        if outcome.error is not None and outcome.source is not Source.SHARED:
            self._note_failure(outcome.error)

    def _read(self, outcome: Outcome) -> Outcome:
        return read_out(outcome, self._measure, keep_payload=self._keep_payloads)

    def _note_failure(self, error: BaseException) -> None:
        if self._stop_on_error:
            self.stop()
        if isinstance(error, RequestError) and self.caching.recording is None:
            self._prospects.note(error, answered=self._figures.requests)
            if self._prospects.fatal is not None:
                self.stop()
