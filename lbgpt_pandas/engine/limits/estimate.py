"""Tokens before a call: from characters, corrected by what calls really took.

No tokenizer is asked: those that exist download their tables at the first use.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

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
SAMPLE = 1_000
FOREIGN_BYTES = 0.25
"""Bytes of UTF-8 a character beyond one, from which on a text is of another script than Latin."""
LEAST_REMEMBERED = 5


Counting = Literal["larger", "sum"]
"""What a provider counts at admission of a request that sets its maximum: OpenAI the larger of the
prompt and that maximum, Azure OpenAI their sum."""


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
        tokens, is_latin = _count(messages)
        actual, counted = self._sums.get((model, is_latin), (1.0, 1.0))
        return max(1, round(tokens * actual / counted))

    def completion(self, params: Mapping[str, object], *, model: str | None) -> int:
        """Tokens that an answer may take: the limit that was set, else what nine in ten took."""
        most = params.get("max_completion_tokens") or params.get("max_tokens")
        times = _choices(params)
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
        params: Mapping[str, object] | None = None,
    ) -> None:
        """Learn from an answer; estimated counts teach nothing.

        Parameters
        ----------
        messages : sequence of mapping
            As they were sent.
        tokens : TokenCount
            As the provider counted them, the completion over all choices.
        model : str or None
            That was asked for.
        params : mapping, optional
            Of the request; ``n`` choices share the completion.
        """
        if tokens.estimated:
            return
        recent = self._completions.get(model)
        if recent is None:
            recent = self._completions[model] = _Recent()
        recent.add(-(-tokens.completion // _choices(params or {})))
        counted, is_latin = _count(messages)
        if tokens.prompt > 0:
            actual, ours = self._sums.get((model, is_latin), (PRIOR_TOKENS, PRIOR_TOKENS))
            self._sums[model, is_latin] = (
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
            del self._sorted[bisect_left(self._sorted, self._times.popleft())]

    def quantile(self) -> int:
        if len(self._sorted) < LEAST_REMEMBERED:
            return max(PRIOR_COMPLETION, self._sorted[-1] if self._sorted else 0)
        return max(1, self._sorted[int(QUANTILE * (len(self._sorted) - 1))])


def certain_tokens(prompt: int, completion: int, *, is_set: bool, counting: Counting) -> int:
    """Tokens that a provider keeps counting however short the answer is.

    Parameters
    ----------
    prompt, completion : int
        Tokens as `TokenEstimator` estimates them.
    is_set : bool
        Whether `completion` is the request's own maximum for all choices.
    counting : {"larger", "sum"}
        The provider's rule.

    Examples
    --------
    >>> certain_tokens(100, 300, is_set=True, counting="larger")
    300
    >>> certain_tokens(100, 300, is_set=True, counting="sum")
    400
    >>> certain_tokens(100, 300, is_set=False, counting="sum")
    100
    """
    if not is_set:
        return prompt
    return prompt + completion if counting == "sum" else max(prompt, completion)


def prompt_tokens(messages: Sequence[Mapping[str, object]]) -> int:
    """Tokens of a prompt by the rule of thumb alone."""
    return _count(messages)[0]


def text_tokens(text: str) -> int:
    """Tokens of a text by the rule of thumb alone."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _choices(params: Mapping[str, object]) -> int:
    choices = params.get("n")
    return choices if isinstance(choices, int) and choices > 0 else 1


def _count(messages: Sequence[Mapping[str, object]]) -> tuple[int, bool]:
    """Tokens by the rule of thumb, and whether the script is Latin."""
    characters, others, is_latin = 0, 0, True
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            characters += len(content)
            is_latin = is_latin and (content.isascii() or _is_latin(content))
        elif isinstance(content, list):
            for part in content:
                text = part.get("text") if isinstance(part, Mapping) else None
                if isinstance(text, str):
                    characters += len(text)
                    is_latin = is_latin and (text.isascii() or _is_latin(text))
                else:
                    others += 1
    tokens = -(-characters // CHARACTERS_PER_TOKEN) + TOKENS_PER_OTHER_PART * others
    return tokens + TOKENS_PER_MESSAGE * len(messages) + TOKENS_PER_REQUEST, is_latin


def _is_latin(text: str) -> bool:
    """Whether a text is ASCII but for a few accents, quotation marks and dashes."""
    sample = text[:SAMPLE]
    size = len(sample.encode("utf-8", "surrogatepass"))
    return size <= (1.0 + FOREIGN_BYTES) * len(sample)
