"""Tokens before a call: from characters, corrected by what calls really took.

No tokenizer is asked: those that exist download their tables at the first use.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbgpt_pandas.engine.types import TokenCount

CHARACTERS_PER_TOKEN = 4
"""OpenAI's rule of thumb for English text."""

TOKENS_PER_MESSAGE = 4
TOKENS_PER_REQUEST = 3
TOKENS_PER_OTHER_PART = 1_000
"""An image or a sound: between OpenAI's 85 for a small image and what a large one takes."""

FADING = 0.9
PRIOR_TOKENS = 100.0
MOST_OFF = 10.0
PRIOR_COMPLETION = 256
QUANTILE = 0.9
REMEMBERED = 200
LEAST_REMEMBERED = 5


class TokenEstimator:
    """Estimates tokens of prompts and answers, and learns from each answer.

    The caller holds a lock.
    """

    def __init__(self) -> None:
        # Sums of what was counted by the provider and by us, the latest answers weighing most.
        self._sums: dict[tuple[str | None, bool], tuple[float, float]] = {}
        self._completions: dict[str | None, _Recent] = {}

    def prompt(self, messages: Sequence[Mapping[str, object]], *, model: str | None) -> int:
        """Tokens of a prompt.

        Parameters
        ----------
        messages : sequence of mapping
            As they will be sent.
        model : str or None
            Whose answers taught.

        Returns
        -------
        int
            At least 1.
        """
        tokens, is_ascii = _count(messages)
        actual, counted = self._sums.get((model, is_ascii), (1.0, 1.0))
        return max(1, round(tokens * actual / counted))

    def completion(self, params: Mapping[str, object], *, model: str | None) -> int:
        """Tokens that an answer may take: the limit that was set, else what nine in ten took."""
        most = params.get("max_completion_tokens") or params.get("max_tokens")
        choices = params.get("n") or 1
        times = choices if isinstance(choices, int) and choices > 0 else 1
        if isinstance(most, int) and most > 0:
            return most * times
        recent = self._completions.get(model)
        each = PRIOR_COMPLETION if recent is None else recent.quantile()
        return each * times

    def observe(
        self,
        messages: Sequence[Mapping[str, object]],
        tokens: TokenCount,
        *,
        model: str | None,
    ) -> None:
        """Learn from an answer; estimated counts teach nothing."""
        if tokens.estimated:
            return
        recent = self._completions.get(model)
        if recent is None:
            recent = self._completions[model] = _Recent()
        recent.add(tokens.completion)
        counted, is_ascii = _count(messages)
        if tokens.prompt > 0:
            actual, ours = self._sums.get((model, is_ascii), (PRIOR_TOKENS, PRIOR_TOKENS))
            self._sums[model, is_ascii] = (
                FADING * actual + min(tokens.prompt, MOST_OFF * counted),
                FADING * ours + counted,
            )


class _Recent:
    """The last counts in order of time and in order of size."""

    def __init__(self) -> None:
        self._times: deque[int] = deque()
        self._sorted: list[int] = []

    def add(self, count: int) -> None:
        self._times.append(count)
        insort(self._sorted, count)
        if len(self._times) > REMEMBERED:
            del self._sorted[self._sorted.index(self._times.popleft())]

    def quantile(self) -> int:
        if len(self._sorted) < LEAST_REMEMBERED:
            return max(PRIOR_COMPLETION, self._sorted[-1] if self._sorted else 0)
        return max(1, self._sorted[int(QUANTILE * (len(self._sorted) - 1))])


def _count(messages: Sequence[Mapping[str, object]]) -> tuple[int, bool]:
    """Tokens by the rule of thumb, and whether all text is plain ASCII."""
    characters, others, is_ascii = 0, 0, True
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            characters += len(content)
            is_ascii = is_ascii and content.isascii()
        elif isinstance(content, list):
            for part in content:
                text = part.get("text") if isinstance(part, Mapping) else None
                if isinstance(text, str):
                    characters += len(text)
                    is_ascii = is_ascii and text.isascii()
                else:
                    others += 1
    tokens = -(-characters // CHARACTERS_PER_TOKEN) + TOKENS_PER_OTHER_PART * others
    return tokens + TOKENS_PER_MESSAGE * len(messages) + TOKENS_PER_REQUEST, is_ascii
