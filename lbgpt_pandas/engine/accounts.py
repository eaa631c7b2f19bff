"""What this process has spent and saved, by minute, deployment and model."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.lifetime import renew_after_fork
from lbgpt_pandas.engine.types import Source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lbgpt_pandas.engine.types import Outcome, TokenCount

MINUTES_OF_AN_HOUR = 60
MINUTES_OF_A_DAY = 24 * MINUTES_OF_AN_HOUR

MOST_MINUTES = 10_000
"""Entries from which on those of earlier days are kept by the hour, not by the minute."""


@dataclass(slots=True)
class Ledger:
    """Requests of one kind, their tokens and their list price.

    Attributes
    ----------
    requests : int
        How many.
    prompt, completion : int
        Their tokens.
    cached : int
        The part of `prompt` that came from the provider's own prompt cache.
    priced_usd : float
        List price of those whose price is known.
    unpriced : int
        How many have no known price.
    """

    requests: int = 0
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    priced_usd: float = 0.0
    unpriced: int = 0

    @property
    def usd(self) -> float | None:
        """List price in USD; None, and never a sum that is too low, if one is unknown."""
        return None if self.unpriced else self.priced_usd

    def count(self, tokens: TokenCount, usd: float | None, times: int) -> None:
        """Add answers that are alike.

        Parameters
        ----------
        tokens : TokenCount
            Of one of them.
        usd : float or None
            Price of one; None if it is unknown.
        times : int
            How many there are.
        """
        self.requests += times
        self.prompt += tokens.prompt * times
        self.completion += tokens.completion * times
        if tokens.cached:
            self.cached += min(max(tokens.cached, 0), tokens.prompt) * times
        if usd is None:
            self.unpriced += times
        else:
            self.priced_usd += usd * times

    def add(self, other: Ledger) -> None:
        """Take the entries of another ledger in."""
        self.requests += other.requests
        self.prompt += other.prompt
        self.completion += other.completion
        self.cached += other.cached
        self.priced_usd += other.priced_usd
        self.unpriced += other.unpriced

    def copy(self) -> Ledger:
        """Return one with the same figures, to be handed out."""
        return Ledger(
            self.requests,
            self.prompt,
            self.completion,
            self.cached,
            self.priced_usd,
            self.unpriced,
        )


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The entries of one minute for one deployment and model.

    Attributes
    ----------
    minute : datetime
        Its beginning, in UTC; that of the hour where minutes are no longer told apart.
    deployment, model : str
        Who was called, and the model that answered.
    billed : Ledger
        Answered calls, as the provider counted them, at list price.
    saved : Ledger
        Answers that needed no call: from a cache, or shared with an equal row.
    estimated : Ledger
        Our estimate for calls that failed and may have been charged all the same, and for
        answers without usage.
    """

    minute: datetime
    deployment: str
    model: str
    billed: Ledger
    saved: Ledger
    estimated: Ledger


class UsageBook:
    """The calls of any number of engines; plain data behind a lock, for any loop and thread.

    Examples
    --------
    >>> from lbgpt_pandas.engine.types import TokenCount
    >>> book, noon = UsageBook(), datetime(2026, 11, 1, 12, tzinfo=UTC)
    >>> book.billed("azure", "gpt-4o", TokenCount(prompt=10, completion=2), 0.25, at=noon)
    >>> book.saved("azure", "gpt-4o", TokenCount(prompt=10, completion=2), 0.25, at=noon)
    >>> [(row.model, row.billed.usd, row.saved.usd) for row in book.rows()]
    [('gpt-4o', 0.25, 0.25)]
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[int, str, str], tuple[Ledger, Ledger, Ledger]] = {}
        self._fold_from = MOST_MINUTES
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Make a new lock: in a forked child nobody releases the old one."""
        self._lock = threading.Lock()

    def billed(
        self, deployment: str, model: str, tokens: TokenCount, usd: float | None, *, at: datetime
    ) -> None:
        """Enter an answered call.

        Parameters
        ----------
        deployment, model : str
            Who was called, and the model that answered.
        tokens : TokenCount
            As the provider counted them.
        usd : float or None
            List price; None if it is unknown.
        at : datetime
            When, with a time zone.
        """
        self._enter(0, deployment, model, tokens, usd, at, 1)

    def saved(
        self,
        deployment: str,
        model: str,
        tokens: TokenCount,
        usd: float | None,
        *,
        at: datetime,
        times: int = 1,
    ) -> None:
        """Enter an answer that needed no call, with what the call would have cost.

        Parameters as for `billed`, and ``times``: how many rows have this answer.
        """
        self._enter(1, deployment, model, tokens, usd, at, times)

    def spared(self, outcomes: Iterable[tuple[Outcome, int]], *, engine: str, at: datetime) -> None:
        """Enter what rows did not have to pay.

        Parameters
        ----------
        outcomes : iterable of (Outcome, int)
            What became of requests, and how many rows each stands for; a failure saves nothing.
        engine : str
            Who was to answer, where the answer does not say who did.
        at : datetime
            When, with a time zone.
        """
        sums: dict[tuple[str, str], Ledger] = {}
        provider = Source.PROVIDER
        for outcome, rows in outcomes:
            answer = outcome.completion
            free = rows - (outcome.source is provider)
            if answer is not None and free:
                name = answer.deployment or engine, answer.model
                ledger = sums.get(name)
                if ledger is None:
                    ledger = sums[name] = Ledger()
                ledger.count(answer.tokens, outcome.price_usd, free)
        for (deployment, model), ledger in sums.items():
            with self._lock:
                self._ledgers(deployment, model, at)[1].add(ledger)

    def estimated(
        self, deployment: str, model: str, tokens: TokenCount, usd: float | None, *, at: datetime
    ) -> None:
        """Enter a call whose cost is our estimate; parameters as for `billed`."""
        self._enter(2, deployment, model, tokens, usd, at, 1)

    def _enter(  # noqa: PLR0917  # by position, because it stands in every call's way
        self,
        kind: int,
        deployment: str,
        model: str,
        tokens: TokenCount,
        usd: float | None,
        at: datetime,
        times: int,
    ) -> None:
        with self._lock:
            self._ledgers(deployment, model, at)[kind].count(tokens, usd, times)

    def _ledgers(self, deployment: str, model: str, at: datetime) -> tuple[Ledger, Ledger, Ledger]:
        key = int(at.timestamp()) // 60, deployment, model
        return self._entries.get(key) or self._open(key)

    def _open(self, key: tuple[int, str, str]) -> tuple[Ledger, Ledger, Ledger]:
        if len(self._entries) >= self._fold_from:
            self._fold(before=key[0] - MINUTES_OF_A_DAY)
            self._fold_from = max(MOST_MINUTES, 2 * len(self._entries))
        return self._entries.setdefault(key, (Ledger(), Ledger(), Ledger()))

    def _fold(self, *, before: int) -> None:
        """Add minutes that are long past up to hours, so that a service's book stays small."""
        entries, self._entries = self._entries, {}
        for (minute, deployment, model), ledgers in entries.items():
            if minute < before:
                minute -= minute % MINUTES_OF_AN_HOUR  # noqa: PLW2901  # the same entry's hour
            kept = self._entries.setdefault((minute, deployment, model), ledgers)
            if kept is not ledgers:
                for mine, more in zip(kept, ledgers, strict=True):
                    mine.add(more)

    def rows(self, since: datetime | None = None) -> list[UsageRow]:
        """Return the entries, oldest first.

        Parameters
        ----------
        since : datetime, optional
            With a time zone: leave out what ended before. The minute that it falls into is
            given whole.
        """
        first = 0 if since is None else int(since.timestamp()) // 60
        with self._lock:
            found = [
                (key, [ledger.copy() for ledger in ledgers])
                for key, ledgers in self._entries.items()
                if key[0] >= first
            ]
        return [
            UsageRow(datetime.fromtimestamp(minute * 60, UTC), deployment, model, *ledgers)
            for (minute, deployment, model), ledgers in sorted(found, key=lambda entry: entry[0])
        ]


SESSION_BOOK = UsageBook()
"""Every call of this process, whatever engine made it."""
