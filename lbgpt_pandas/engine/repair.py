"""Replies that do not fit what was asked for: asked again, with what is wrong, twice at most.

One that was cut off at its limit of tokens, or is a refusal, would be the same again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from lbgpt_pandas.engine.errors import CacheMiss, SchemaMismatch
from lbgpt_pandas.engine.types import REFUSED, Outcome, Source

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from lbgpt_pandas.engine.types import Request

ROUNDS = 2
"""Times that a reply is asked again: what a model has not understood by then it will not."""

SHOWN = 80
"""Letters of a wrong reply in its error."""

_LAST_WORDS = {
    "length": "it was cut off at the most tokens allowed, give a larger max_tokens",
    REFUSED: "the model refused",
}

LONGEST_REPLY = 4_000
"""Letters of a wrong reply that are sent back."""


@dataclass(frozen=True, slots=True)
class Check:
    """What replies have to be.

    Attributes
    ----------
    problem : callable
        Gets a reply and returns what is wrong with it, in words for the model; empty if nothing.
    wish : str
        What is to be done about it, such as "Answer with JSON only."
    """

    problem: Callable[[str | None], str]
    wish: str

    def of(self, outcomes: Sequence[Outcome | None], *, in_vain: bool = True) -> dict[int, str]:
        """Return what is wrong, by number of the request; failures are no replies.

        With ``in_vain=False`` those are left out that would be asked again in vain.
        """
        found = {}
        for number, outcome in enumerate(outcomes):
            if not in_vain and _last_word(outcome):
                continue
            if outcome is not None and outcome.completion is not None:
                problem = self.problem(outcome.completion.text)
                if problem:
                    found[number] = problem
        return found

    def again(self, request: Request, reply: str, problem: str) -> Request:
        """Return the request that asks once more, with the reply and what is wrong with it."""
        turns = [
            {"role": "assistant", "content": reply[:LONGEST_REPLY]},
            {"role": "user", "content": f"That does not fit: {problem}. {self.wish}"},
        ]
        return replace(request, messages=[*request.messages, *turns])


class Rounds:
    """What was asked again in a run, for its archive.

    Attributes
    ----------
    asked : dict of str to (Request, Outcome)
        By key: first replies that did not fit, and what came of asking again.
    later : dict of str to list of str
        By the key of a request: those of what was asked after it, in order.
    """

    def __init__(self) -> None:
        self.asked: dict[str, tuple[Request, Outcome]] = {}
        self.later: dict[str, list[str]] = {}

    def begin(self, request: Request, outcome: Outcome) -> None:
        """Note a first reply that did not fit."""
        if outcome.key and not self.later.get(outcome.key):
            self.asked[outcome.key], self.later[outcome.key] = (request, outcome), []

    def add(self, key: str, request: Request, outcome: Outcome) -> None:
        """Note what came of asking again for the request under `key`."""
        if key and outcome.key:
            self.asked[outcome.key] = request, outcome
            self.later[key].append(outcome.key)

    def update(self, earlier: Rounds) -> None:
        """Take over what an earlier run over the same requests has noted."""
        self.asked |= earlier.asked
        self.later |= earlier.later

    def forget(self, key: str) -> None:
        """Forget what was asked for a request, because it is asked afresh."""
        for each in (key, *self.later.pop(key, ())):
            self.asked.pop(each, None)


async def repair(
    check: Check,
    requests: Sequence[Request],
    outcomes: list[Outcome | None],
    *,
    ask: Callable[[list[int], list[Request]], Awaitable[Sequence[Outcome | None]]],
    rounds: Rounds,
) -> None:
    """Ask again for replies that do not fit; those that never do become failures.

    Parameters
    ----------
    check : Check
        What replies have to be.
    requests : sequence of Request
        Of a run.
    outcomes : list of Outcome or None
        What became of them; changed in place.
    ask : callable
        Gets numbers of requests and what is to be sent for them, and returns the outcomes.
    rounds : Rounds
        Where it is noted.

    Raises
    ------
    CacheMiss
        If `ask` raises it; its numbers, which are places in what was asked, are made those of
        the run's requests.
    """
    latest: dict[int, Request] = {}
    asked: Counter[int] = Counter()
    for _ in range(ROUNDS):
        wrong = check.of(outcomes, in_vain=False)
        if not wrong:
            break
        for number, problem in wrong.items():
            request, outcome = latest.get(number), outcomes[number]
            if request is None and outcome is not None:
                rounds.begin(requests[number], outcome)
            request = request or requests[number]
            latest[number] = check.again(request, _reply(outcome), problem)
        numbers = list(wrong)
        try:
            answers = await ask(numbers, [latest[number] for number in numbers])
        except CacheMiss as miss:
            miss.numbers = tuple(numbers[place] for place in miss.numbers)
            raise
        for number, answer in zip(numbers, answers, strict=True):
            first = outcomes[number]
            outcomes[number] = None if first is None else repaired(first, answer)
            if first is not None and answer is not None:
                asked[number] += 1
                rounds.add(first.key, latest[number], answer)
    for number, problem in check.of(outcomes).items():
        if (last := outcomes[number]) is not None:
            rounds.begin(requests[number], last)
            outcomes[number] = unfit(last, problem, again=asked[number])


def repaired(first: Outcome, second: Outcome | None) -> Outcome:
    """Put what asking again gave in the place of a first outcome.

    Parameters
    ----------
    first : Outcome
        With the reply that does not fit.
    second : Outcome or None
        Of the request that asked again; None if it was not sent.
    """
    if second is None:
        return first
    # What came from a cache was paid for by somebody else.
    paid = [each for each in (first, second) if each.source is Source.PROVIDER]
    prices = [each.price_usd for each in paid or (first, second)]
    known = [price for price in prices if price is not None]
    answered = first if second.completion is None else second
    return replace(
        answered,
        source=Source.PROVIDER if paid else first.source,
        key=first.key,
        attempts=first.attempts + second.attempts,
        latency_s=first.latency_s + second.latency_s,
        price_usd=sum(known) if len(known) == len(prices) else None,
    )


def unfit(outcome: Outcome, problem: str, *, again: int) -> Outcome:
    """Return the failure that a reply is which does not fit, asked for so many times again."""
    reply = _reply(outcome)
    times = f"{again + 1} times" if again else "once, when the run was stopped"
    if end := _last_word(outcome):
        times = f"{again + 1} times" if again else "once"
        problem = f"{end}; {problem}"
    error = SchemaMismatch(
        f"the reply does not fit, after it was asked for {times}: {problem}. "
        f"It begins {reply[:SHOWN]!r}; error.raw is all of it",
        code="schema_mismatch",
    )
    error.raw = reply
    return replace(outcome, completion=None, error=error)


def _last_word(outcome: Outcome | None) -> str:
    """Say why asking again gives nothing else; empty where it may."""
    completion = None if outcome is None else outcome.completion
    return "" if completion is None else _LAST_WORDS.get(completion.finish_reason or "", "")


def _reply(outcome: Outcome | None) -> str:
    completion = None if outcome is None else outcome.completion
    return (completion and completion.text) or ""
