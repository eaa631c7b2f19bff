"""The texts of one request for embeddings, and what has come of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.caching import NO_CACHING, Caching
from lbgpt_pandas.engine.errors import BadRequest, RequestError
from lbgpt_pandas.engine.types import PRIVATE_KEYS, Outcome, Request, Source, TokenCount
from lbgpt_pandas.engine.vectors import (
    WRONG_LENGTH,
    Embedding,
    check_texts,
    pack,
    shares,
    stored_form,
    text_of,
    unpacked,
    weight,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lbgpt_pandas.engine.calls import Trail


@dataclass(slots=True)
class EmbeddingJob:
    """The texts of one call of ours, which may make several calls, and what has come of them."""

    model: str
    texts: list[str]
    params: Mapping[str, object]
    options: Mapping[str, object]
    caching: Caching = NO_CACHING
    keys: dict[str, str] = field(default_factory=dict)
    vectors: dict[str, object] = field(default_factory=dict)
    cached: set[str] = field(default_factory=set)
    said_model: str | None = None
    tokens: int = 0
    attempts: int = 0
    latency_s: float = 0.0
    deployment: str | None = None
    error: RequestError | None = None

    @classmethod
    def of(cls, model: str, texts: object, keywords: Mapping[str, object]) -> EmbeddingJob:
        """Make one of a call's keywords, with its texts checked."""
        return cls(
            model,
            check_texts(texts),
            {name: value for name, value in keywords.items() if name not in PRIVATE_KEYS},
            {name: value for name, value in keywords.items() if name in PRIVATE_KEYS},
        )

    @classmethod
    def of_requests(cls, requests: Sequence[Request], caching: Caching) -> EmbeddingJob:
        """Make one of requests that share parameters and options."""
        first = requests[0]
        params = {name: value for name, value in first.params.items() if name != "model"}
        texts = [text_of(request) for request in requests]
        return cls(first.model or "", texts, params, first.options, caching)

    @property
    def answered_by(self) -> str:
        """The model that the provider says has answered, else the one that was asked."""
        return self.said_model or self.model

    @property
    def shared(self) -> Request:
        """What all texts share, for keys and family."""
        return Request((), {"model": self.model, **self.params}, self.options)

    def counted(self, texts: Sequence[str]) -> Request:
        """What limits and prices are counted by; never sent."""
        messages: list[dict[str, object]] = [{"content": text} for text in texts]
        return Request(messages, {"model": self.model, "max_tokens": 1}, self.options)

    def embeddings(self, vectors: Sequence[object]) -> list[Embedding]:
        """Pair the vectors of all texts with their parts of the tokens.

        Raises
        ------
        BadRequest
            If they have not the length that was asked for.
        """
        wanted = self.params.get("dimensions")
        numbers = [unpacked(vector) or [] for vector in vectors]
        for each in numbers:
            if wanted is not None and len(each) != wanted:
                raise BadRequest(
                    f"dimensions={wanted} was asked for and {len(each)} came: {self.answered_by} "
                    "gives no others; leave dimensions= out",
                    code=WRONG_LENGTH,
                    maybe_billed=True,
                )
        parts = shares(self.tokens, [weight(text) for text in self.texts])
        about = None, None, None, self.answered_by
        return [
            Embedding(*about, TokenCount(part, 0), self.deployment or "", vector=pack(each))
            for part, each in zip(parts, numbers, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Entry:
    """A vector as it is stored.

    Attributes
    ----------
    key : str
        Of its text.
    vector : object
        As the provider gave it.
    tokens : int or None
        Of the text, if that is known.
    """

    key: str
    vector: object
    tokens: int | None

    def payload(self, model: str) -> dict[str, object]:
        """Return the answer that is stored."""
        about = {"object": "embedding", "embedding": stored_form(self.vector), "model": model}
        return about if self.tokens is None else {**about, "tokens": self.tokens}


def outcomes_of(
    answers: Sequence[Embedding | None],
    keys: Sequence[str],
    trail: Trail,
    failure: RequestError | None,
) -> list[Outcome]:
    """Divide what became of a call among its texts.

    Parameters
    ----------
    answers : sequence of Embedding or None
        None for all of them if the call failed.
    keys : sequence of str
        Of the texts.
    trail : Trail
        Of the call.
    failure : RequestError or None
        How it failed.

    Returns
    -------
    list of Outcome
        The attempts stand in the first one, so that they add up.
    """
    tokens = [0 if answer is None else answer.tokens.prompt for answer in answers]
    total, price = sum(tokens), trail.price_usd
    return [
        Outcome(
            answer,
            failure,
            Source.PROVIDER,
            key,
            attempts=0 if number else trail.attempts,
            latency_s=trail.latency_s,
            deployment=trail.deployment,
            maybe_billed=trail.maybe_billed,
            price_usd=None if price is None else price * (part / total if total else 1 / len(keys)),
        )
        for number, (answer, key, part) in enumerate(zip(answers, keys, tokens, strict=True))
    ]
