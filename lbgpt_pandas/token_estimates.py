"""Tokens of requests that have not been sent: a rule of thumb, corrected by what is known.

Best are answers to requests of the same frame, which the cache has; then OpenAI's tokenizer, then
what this engine's earlier calls took.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from lbgpt_pandas.engine.limits.estimate import (
    CHARACTERS_PER_TOKEN,
    FOREIGN_BYTES,
    TOKENS_PER_MESSAGE,
    TOKENS_PER_OTHER_PART,
    TOKENS_PER_REQUEST,
    prompt_tokens,
)
from lbgpt_pandas.engine.limits.estimate import SAMPLE as SAMPLED_CHARACTERS
from lbgpt_pandas.engine.types import Request
from lbgpt_pandas.tiktoken_data import tokenizer

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from lbgpt_pandas.engine.base import _BaseGPT
    from lbgpt_pandas.engine.types import Message
    from lbgpt_pandas.tiktoken_data import Tokenize

    Counts = NDArray[np.int64]
    Reals = NDArray[np.float64]

T = TypeVar("T")

LEAST_ANSWERS = 5
"""Answers from which on they tell more than a rule of thumb."""

CLOSE = 0.98
"""Correlation from which on prompts follow a line."""

TOKENIZED, TOKENIZED_CHARACTERS = 200, 2_000
"""Prompts that are divided into tokens, and how much of each text."""

PROBE = 400_000
OPENAI = "openai"

_FIXED = TOKENS_PER_MESSAGE + TOKENS_PER_REQUEST


class Estimate(NamedTuple):
    """A figure that is not known yet.

    Attributes
    ----------
    low, expected, high : float
        In this order; the truth is likely to lie between the outer two.
    """

    low: float
    expected: float
    high: float


class Measured(NamedTuple):
    """What is counted of requests, each an array of their number.

    Attributes
    ----------
    by_rule : ndarray of int64
        Tokens by the rule of thumb: four characters each, or four bytes of other scripts.
    by_characters : ndarray of int64
        Tokens as the engine's own estimator counts, by characters whatever the script.
    is_latin : ndarray of bool
        Whether the texts are Latin but for a few characters.
    """

    by_rule: Counts
    by_characters: Counts
    is_latin: NDArray[np.bool_]


class Answered(NamedTuple):
    """Tokens of requests that were answered, as the provider counted them."""

    prompts: Reals
    completions: Reals

    @classmethod
    def of(cls, counts: Sequence[tuple[float, ...]]) -> Self:
        """Take the first two figures of each: tokens of prompt and answer."""
        pairs = [each[:2] for each in counts]
        columns = np.array(pairs, dtype=float).reshape(len(pairs), 2)
        return cls(np.maximum(1.0, columns[:, 0]), columns[:, 1])


@dataclass(frozen=True, slots=True)
class PromptRule:
    """How the tokens of prompts follow from what is counted of them.

    Attributes
    ----------
    slope, intercept : float
        Tokens for one by the rule of thumb, and beside them for each request.
    foreign : float or None
        Tokens for one by characters, of texts that are not Latin; None: as for the others.
    error : float
        By which share the sum is likely to be off at most.
    source : str
        What it rests on.
    """

    slope: float
    intercept: float
    foreign: float | None
    error: float
    source: str

    def tokens(self, measured: Measured) -> Counts:
        """Tokens of each prompt, at least 1."""
        tokens = self.slope * measured.by_rule + self.intercept
        if self.foreign is not None:
            tokens = np.where(measured.is_latin, tokens, self.foreign * measured.by_characters)
        whole: Counts = np.maximum(1, np.rint(tokens)).astype(np.int64)
        return whole


def measure(requests: Sequence[Request], numbers: Sequence[int]) -> Measured:
    """Count what tokens are estimated by.

    Parameters
    ----------
    requests : sequence of Request
        Made when they are asked for, and not kept.
    numbers : sequence of int
        Which of them.
    """
    counts = [_measured(requests[number].messages) for number in numbers]
    columns = np.array(counts, dtype=np.int64).reshape(len(counts), 3)
    return Measured(columns[:, 0], columns[:, 1], columns[:, 2].astype(bool))


def _measured(messages: Sequence[Message]) -> tuple[int, int, bool]:
    characters, weight, others, is_latin = 0, 0, 0, True
    for message in messages:
        for text in _texts(message):
            if text is None:
                others += 1
                continue
            characters += len(text)
            if text.isascii() or _is_latin(text):
                weight += len(text)
            else:
                weight += len(text.encode("utf-8", "surrogatepass"))
                is_latin = False
    fixed = TOKENS_PER_MESSAGE * len(messages) + TOKENS_PER_REQUEST
    fixed += TOKENS_PER_OTHER_PART * others
    by_rule, by_characters = (-(-size // CHARACTERS_PER_TOKEN) for size in (weight, characters))
    return by_rule + fixed, by_characters + fixed, is_latin


def _texts(message: Message) -> list[str | None]:
    """Texts of a message; None stands for a part that is none."""
    content = message.get("content")
    if isinstance(content, str):
        texts: list[str | None] = [content]
    elif isinstance(content, list):
        found = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        texts = [text if isinstance(text, str) else None for text in found]
    else:
        texts = []
    if message.get("tool_calls"):
        texts.append(json.dumps(message["tool_calls"], default=str, ensure_ascii=False))
    return texts


def _is_latin(text: str) -> bool:
    sample = text[:SAMPLED_CHARACTERS]
    return len(sample.encode("utf-8", "surrogatepass")) <= (1.0 + FOREIGN_BYTES) * len(sample)


def prompt_rule(
    engine: _BaseGPT,
    request: Request,
    *,
    measured: Measured,
    answered: Answered,
    texts: Sequence[Request],
) -> PromptRule:
    """Find out how many tokens prompts take.

    Parameters
    ----------
    engine : engine
        Who would answer.
    request : Request
        Any of the run: model, tools and response format are those of all.
    measured : Measured
        Counts of requests of this frame whose answers are stored.
    answered : Answered
        Tokens of the same requests.
    texts : sequence of Request
        A sample of those that would be sent.
    """
    if len(answered.prompts) >= LEAST_ANSWERS:
        source = f"{len(answered.prompts):,} stored answers of this frame"
        return _line(measured.by_rule.astype(float), answered.prompts, source=source, error=0.05)
    model = request.model or ""
    extra = float(_further_tokens(engine.prepare(request).params))
    encode = tokenizer(model) if engine.family_of(request) == OPENAI else None
    if encode is not None and texts:
        source = f"tiktoken, {len(texts):,} prompts"
        return PromptRule(_tokenized(encode, texts), extra, None, 0.1, source)
    latin, foreign = _learned(engine, model)
    if latin is None and foreign is None:
        return PromptRule(1.0, extra, None, 0.3, "four characters a token")
    return PromptRule(latin or 1.0, 0.0, foreign, 0.15, "earlier calls of this engine")


def _line(counted: Reals, actual: Reals, *, source: str, error: float) -> PromptRule:
    """Fit what was counted to what it came to."""
    if correlation(counted, actual) >= CLOSE:
        slope, intercept = np.polyfit(counted, actual, 1).tolist()
        if slope > 0:
            return PromptRule(slope, intercept, None, error, source)
    return PromptRule(float(actual.sum() / counted.sum()), 0.0, None, 2 * error, source)


def correlation(one: Reals, other: Reals) -> float:
    """Pearson's correlation; 0.0 where there are too few values, or all are equal."""
    if len(one) < LEAST_ANSWERS or not (np.ptp(one) and np.ptp(other)):
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _further_tokens(params: Mapping[str, object]) -> int:
    """Tokens of tools and response format, which providers put into the prompt."""
    parts = [params[name] for name in ("tools", "functions", "response_format") if params.get(name)]
    texts = [json.dumps(part, default=str, ensure_ascii=False) for part in parts]
    return sum(-(-len(text) // CHARACTERS_PER_TOKEN) for text in texts)


def _tokenized(encode: Tokenize, requests: Sequence[Request]) -> float:
    """Tokens for one by the rule of thumb."""
    short = [
        "".join(text for text in _texts(message) if text)[:TOKENIZED_CHARACTERS]
        for request in requests
        for message in request.messages
    ]
    fixed = TOKENS_PER_REQUEST * len(requests) + TOKENS_PER_MESSAGE * len(short)
    tokens = sum(map(len, encode(short)))
    ours = sum(_measured([{"content": text}])[0] - _FIXED for text in short)
    return (tokens + fixed) / (ours + fixed)


def _learned(engine: _BaseGPT, model: str) -> tuple[float | None, float | None]:
    """What the engine's estimator has learned of Latin and other texts; None if nothing.

    By the deployment with the most answers.
    """
    deployment = max(engine.deployments(), key=lambda each: len(each.usage.recent()))
    ratios: list[float | None] = []
    for letter in "aя":
        probe = Request([{"role": "user", "content": letter * PROBE}], {"model": model})
        estimated = deployment.demand(probe, counted=True).prompt
        ratio = estimated / prompt_tokens(probe.messages)
        ratios.append(ratio if abs(ratio - 1.0) * PROBE > CHARACTERS_PER_TOKEN else None)
    return ratios[0], ratios[1]


def some_of(values: Sequence[T], most: int) -> Sequence[T]:
    """Return all values, or as many as allowed, drawn at random and always the same."""
    if len(values) <= most:
        return values
    return Random(0).sample(values, most)  # noqa: S311  # a sample, not a secret
