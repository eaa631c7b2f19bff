"""The values that flow through the engine: immutable, free of behaviour.

A :class:`Request` goes in, an :class:`Outcome` comes out. Between the two a provider
answer is a :class:`Completion`, which keeps the provider's JSON untouched. What a column has a
hundred thousand of is a struct: made ten times as fast as a frozen dataclass, and passed over by
the garbage collector, which would hold everything up to go through them. None can be in a cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from lbgpt_pandas.engine.errors import LbgptError

Message = dict[str, object]
"""One chat message as providers take it: ``{"role": ..., "content": ...}`` and more."""

CacheMode = Literal["use", "read_only", "refresh", "off", "replay"]

PRIVATE_KEYS = frozenset(
    {"request_timeout", "model_name_cache_alias", "semantic_cache_encoding_method"}
)
"""Request keywords that steer the engine and are never sent to a provider."""


class Source(StrEnum):
    """Where a row's answer came from."""

    PROVIDER = "provider"
    EXACT_CACHE = "exact_cache"
    SEMANTIC_CACHE = "semantic_cache"
    SHARED = "shared"
    SKIPPED = "skipped"


EXACT = Source.EXACT_CACHE

REFUSED = "refusal"
"""A ``finish_reason``: the model's own refusal stands where the answer should."""
"""For columns of cached rows: to look it up in its class would be felt."""


NOTHING: Mapping[str, object] = MappingProxyType({})


class Request(Struct, frozen=True, gc=False):
    """One chat request.

    Attributes
    ----------
    messages : sequence of dict
        The chat messages, sent as they are.
    params : mapping
        Everything else that is sent: ``model``, ``temperature``, ``tools`` and so on. One
        mapping is shared by all requests of a run.
    options : mapping
        Private settings of the engine (see `PRIVATE_KEYS`), never sent. Shared as well.
    sample : int, default 0
        Number of the sample where equal requests are to be answered independently. Part of
        the cache key, never sent.
    """

    messages: Sequence[Message]
    params: Mapping[str, object] = NOTHING
    options: Mapping[str, object] = NOTHING
    sample: int = 0

    @property
    def model(self) -> str | None:
        """The model's name as the caller wrote it."""
        model = self.params.get("model")
        return model if isinstance(model, str) else None

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, object]) -> Request:
        """Split the keywords of a ``chat_completion`` call into what is sent and what is not.

        Raises
        ------
        TypeError
            If ``messages`` is missing or not a list of mappings, or ``stream`` is set.
        """
        messages = keywords.get("messages")
        if not isinstance(messages, list | tuple) or not all(
            isinstance(message, dict) for message in messages
        ):
            msg = "a chat request needs `messages`: a list of dicts with role and content"
            raise TypeError(msg)
        if keywords.get("stream"):
            raise TypeError("stream=True gives no completion; leave it out")
        return cls(
            messages=messages,
            params={
                name: value
                for name, value in keywords.items()
                if name != "messages" and name not in PRIVATE_KEYS
            },
            options={name: value for name, value in keywords.items() if name in PRIVATE_KEYS},
        )


class TokenCount(Struct, frozen=True, gc=False):
    """The tokens of one completion as the provider counted them.

    Attributes
    ----------
    prompt, completion : int
        Tokens of the prompt and of the answer.
    cached : int, default 0
        The part of `prompt` that the provider served from its own prompt cache.
    estimated : bool, default False
        The provider reported nothing, the numbers are our estimate.
    """

    prompt: int
    completion: int
    cached: int = 0
    estimated: bool = False

    @property
    def total(self) -> int:
        """Prompt and completion together."""
        return self.prompt + self.completion


class Completion(Struct, frozen=True, gc=False):
    """A validated provider answer.

    Attributes
    ----------
    payload : dict or None
        The provider's ``chat.completion`` object as JSON data; None where only the text is
        wanted, so that a long column does not hold every answer twice.
    text : str or None
        Content of the first choice; None for a pure tool call.
    finish_reason : str or None
        Of the first choice; `REFUSED` where it holds a refusal and no content.
    model : str
        The model that the provider says has answered.
    tokens : TokenCount
        What the call cost when it was made, also for a cached answer.
    deployment : str
        Name of the engine that answered.
    request_id : str or None
        The provider's id of the request.
    digest : str or None
        Of tool calls and further choices; None where the text is all there is.
    """

    payload: dict[str, object] | None
    text: str | None
    finish_reason: str | None
    model: str
    tokens: TokenCount
    deployment: str
    request_id: str | None = None
    digest: str | None = None

    def is_same_answer(self, other: Completion) -> bool:
        """Tell whether the two say the same, whoever said it and whatever it cost."""
        mine = self.text, self.finish_reason, self.digest
        return mine == (other.text, other.finish_reason, other.digest)


class Outcome(Struct, frozen=True, gc=False):
    """What became of one request: a completion or an error, never both, never neither.

    Attributes
    ----------
    completion : Completion or None
        The answer.
    error : LbgptError or None
        Why there is none.
    source : Source
        Where the answer came from.
    key : str
        The cache key, ``"v1:"`` and 64 hexadecimal digits; empty if it could not be computed.
    attempts : int
        Requests sent for it in this run; 0 for a cached answer.
    latency_s : float
        Seconds of the successful attempt; 0.0 for a cached answer.
    deployment : str
        Name of the deployment of the last attempt.
    maybe_billed : bool
        An attempt that failed may have been charged all the same.
    similarity : float or None
        Cosine similarity of a semantic hit.
    price_usd : float or None
        List price of the answer, whoever paid for it and when; None if it is unknown.
    confidence : float or None
        How probable the model held its answer, from 0 to 1; None where that was not measured.
    """

    completion: Completion | None
    error: LbgptError | None
    source: Source
    key: str
    attempts: int = 0
    latency_s: float = 0.0
    deployment: str = ""
    maybe_billed: bool = False
    similarity: float | None = None
    price_usd: float | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """One finished call, with LBGPT's field names.

    Attributes
    ----------
    input_tokens : int
        Prompt tokens.
    output_tokens : int
        The **total** of the call, prompt included: LBGPT's convention. Never add it to
        `input_tokens`; use `completion_tokens` and `total_tokens` instead.
    start_datetime, end_datetime : datetime
        When the call began and ended, in UTC.
    attempt : int, optional
        Number of the attempt, from 1.
    """

    input_tokens: int
    output_tokens: int
    start_datetime: datetime
    end_datetime: datetime
    attempt: int | None = None

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return self.input_tokens

    @property
    def completion_tokens(self) -> int:
        """Tokens of the answer alone."""
        return self.output_tokens - self.input_tokens

    @property
    def total_tokens(self) -> int:
        """Tokens of prompt and answer together."""
        return self.output_tokens


@dataclass(frozen=True, slots=True)
class Headroom:
    """What a deployment, or several together, may still send.

    Calls in flight count as sent.

    Attributes
    ----------
    deployment : str
        Its name.
    requests, tokens : float or None
        That may be sent at once; None without a limit.
    fraction : float
        Free share of the scarcest limit of a minute, of the places for calls where there is no
        limit; 0 while the deployment is blocked, rests or has no place free.
    in_flight : int
        Calls under way.
    next_free_s : float
        Seconds until the next request may start; 0.0 for now, infinite while it takes none.
    blocked_until : datetime or None
        In UTC, if the provider asked to wait or the deployment rests after failures.
    source : {"local", "header"}
        Whether the limits are the configured ones or what the provider stated.
    """

    deployment: str
    requests: float | None
    tokens: float | None
    fraction: float
    in_flight: int
    next_free_s: float
    blocked_until: datetime | None
    source: str


@dataclass(frozen=True, slots=True)
class UsageStats:
    """Tokens (prompt and completion) and requests of the last 60 seconds."""

    tokens: int
    requests: int
