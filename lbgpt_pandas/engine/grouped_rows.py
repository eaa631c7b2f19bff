"""Rows under way in one request, and where each of their answers is stored."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.caching import LOOKUP_ORDER, Caching
from lbgpt_pandas.engine.completions import read_completion
from lbgpt_pandas.engine.group_reply import parts_of, read_answers
from lbgpt_pandas.engine.group_request import task_of
from lbgpt_pandas.engine.vectors import weight

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from lbgpt_pandas.engine.semantic.questions import Question
    from lbgpt_pandas.engine.types import Completion, Request


@dataclass(frozen=True, slots=True)
class Batching:
    """What came of ``rows_per_request``.

    Attributes
    ----------
    rows_per_request : int or str
        As it was asked for.
    requests : int
        Answered or failed requests for several rows, those of a sample included.
    rows : int
        Rows in them.
    resent : int
        Rows that were asked alone because their answer in a group was not certain.
    agreement : float or None
        Mean likeness of the sample's answers, alone and in groups; None: not measured.
    switched_off : str
        Why the rest was asked one row a request; empty if it was not.
    """

    rows_per_request: int | str
    requests: int = 0
    rows: int = 0
    resent: int = 0
    agreement: float | None = None
    switched_off: str = ""

    def __str__(self) -> str:
        """One line."""
        line = f"{self.requests:,} requests for {self.rows:,} rows, {self.resent:,} asked alone"
        if self.agreement is not None:
            line += f", sample {self.agreement:.0%} alike"
        return f"{line}; switched off: {self.switched_off}" if self.switched_off else line


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A row of a group, and where its answer is stored."""

    request: Request
    key: str
    caching: Caching
    question: Question | None


@dataclass(frozen=True, slots=True)
class Group:
    """Rows under way in one request."""

    rows: Sequence[GroupRow]
    ids: Sequence[str]

    def parts(self, whole: Completion) -> dict[int, Completion]:
        """Answers that are certain, by place in the group."""
        found = read_answers(whole.text, self.ids)
        places = [place for place, word in enumerate(self.ids) if word in found]
        weights = [weight(task_of(self.rows[place].request)) for place in places]
        texts = [found[self.ids[place]] for place in places]
        parts = parts_of(whole, texts, weights) if places else []
        return dict(zip(places, parts, strict=True))


@dataclass(frozen=True, slots=True)
class GroupCaching(Caching):
    """Stores the answers of a group one by one, where the engine would store the reply."""

    group: Group | None = None

    async def save(
        self,
        payload: dict[str, object],
        *,
        key: str,  # noqa: ARG002  # rows have their own
        question: Question | None,  # noqa: ARG002  # the same
        family: str,
        model: str,
        engine: Any,
        into: Collection[str] = LOOKUP_ORDER,
    ) -> None:
        """Store the answers that are certain; parameters as those of `Caching.save`."""
        group = self.group
        if group is None:
            return
        messages = [message for row in group.rows for message in row.request.messages]
        whole = read_completion(payload, messages=messages, deployment="")
        # Together, so that a store on disk writes them in few transactions.
        await asyncio.gather(
            *(
                group.rows[place].caching.save(
                    part.payload or {},
                    key=group.rows[place].key,
                    question=group.rows[place].question,
                    family=family,
                    model=model,
                    engine=engine,
                    into=into,
                )
                for place, part in group.parts(whole).items()
            )
        )
