"""From a provider's JSON to a `Completion`, and to the SDK's object with our flags."""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeGuard

from msgspec.structs import replace

from lbgpt_pandas.engine.errors import BadRequest, ContentFiltered, MalformedResponse
from lbgpt_pandas.engine.limits.estimate import prompt_tokens, text_tokens
from lbgpt_pandas.engine.types import REFUSED, Completion, Source, TokenCount

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lbgpt_pandas.engine.errors import RequestError
    from lbgpt_pandas.engine.types import Message, Outcome

MAX_PLAUSIBLE_TOKENS = 100_000_000

_CALLS = ("tool_calls", "function_call")
_OTHERS = (*_CALLS, "audio")
"""What a message may hold instead of a text."""


def read_completion(
    payload: object,
    *,
    messages: Sequence[Message],
    deployment: str,
    request_id: str | None = None,
    keep_payload: bool = True,
) -> Completion:
    """Validate a ``chat.completion`` object.

    Parameters
    ----------
    payload : object
        The body of a status 200, of whatever shape.
    messages : sequence of dict
        The request's messages, to estimate tokens where the provider reports none.
    deployment : str
        Name of the engine that answered.
    request_id : str, optional
        The provider's id of the request.
    keep_payload : bool, default True
        Keep the whole object beside the text.

    Returns
    -------
    Completion

    Raises
    ------
    MalformedResponse
        If it is not an object with at least one choice that has a message, or that one is empty.
    BadRequest
        If the model came to its limit of tokens before it said anything.
    ContentFiltered
        If the first choice was cut off by the content policy.
    """
    choice = _first_choice(payload, request_id)
    body: dict[str, Any] = payload  # type: ignore[assignment]  # or there were no choice
    message: dict[str, Any] = choice["message"]
    finish_reason = choice.get("finish_reason")
    if finish_reason == "content_filter":
        raise ContentFiltered(
            "the provider's content policy cut the answer off",
            code="content_filter",
            status=200,
            request_id=request_id,
            maybe_billed=True,
        )
    text = _text_of(message.get("content"), request_id)
    if text is None and isinstance(message.get("refusal"), str):
        text, finish_reason = str(message["refusal"]), REFUSED
    if text is None and not any(map(message.get, _OTHERS)):
        raise _nothing_said(finish_reason, request_id)
    return Completion(
        payload=body if keep_payload else None,
        text=text,
        finish_reason=finish_reason if isinstance(finish_reason, str) else None,
        model=str(body.get("model") or ""),
        tokens=read_tokens(body.get("usage"), messages=messages, text=text),
        deployment=deployment,
        request_id=request_id,
        digest=_digest_of(body["choices"]),
    )


def _nothing_said(finish_reason: object, request_id: str | None) -> RequestError:
    if finish_reason == "length":
        return BadRequest(
            "the model used up its tokens before it said anything; give a larger max_tokens, or "
            "less reasoning_effort",
            code="nothing_said",
            status=200,
            request_id=request_id,
            maybe_billed=True,
        )
    return MalformedResponse(
        f"the answer has neither text nor tool calls (finish_reason {finish_reason!r})",
        status=200,
        request_id=request_id,
        maybe_billed=True,
    )


def _digest_of(choices: list[dict[str, Any]]) -> str | None:
    message = choices[0]["message"]
    if len(choices) == 1 and not any(map(message.get, _CALLS)):
        return None
    said = [(choice["message"], choice.get("finish_reason")) for choice in choices]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _text_of(content: object, request_id: str | None) -> str | None:
    """Text of a message's content; some servers answer in parts, as questions may be asked."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return "".join(str(part.get("text") or "") for part in content)
    raise MalformedResponse(
        f"the answer's content is a JSON {type(content).__name__}, not a text",
        status=200,
        request_id=request_id,
        maybe_billed=True,
    )


def _first_choice(payload: object, request_id: str | None) -> dict[str, Any]:
    if not isinstance(payload, dict):
        problem = f"the answer is a JSON {type(payload).__name__}, not an object"
    elif not isinstance(choices := payload.get("choices"), list) or not choices:
        problem = "the answer has no choices"
    else:
        for choice in choices:
            if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
                problem = "the answer has a choice without a message"
                break
        else:
            first: dict[str, Any] = choices[0]
            return first
    raise MalformedResponse(
        f"{problem}; the address may not be a chat completion endpoint",
        status=200,
        request_id=request_id,
        maybe_billed=True,
    )


def read_tokens(usage: object, *, messages: Sequence[Message], text: object) -> TokenCount:
    """Read the provider's token counts, or estimate them where they are absent or absurd."""
    if isinstance(usage, dict):
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
        if _is_plausible(prompt) and _is_plausible(completion):
            details = usage.get("prompt_tokens_details")
            cached = details.get("cached_tokens") if isinstance(details, dict) else 0
            return counted(prompt, completion, cached if _is_plausible(cached) else 0)
    return TokenCount(
        prompt=prompt_tokens(messages),
        completion=text_tokens(text) if isinstance(text, str) else 0,
        estimated=True,
    )


@lru_cache(maxsize=4_096)
def counted(prompt: int, completion: int, cached: int) -> TokenCount:
    """Return one object for equal counts: in a long column there are few different ones."""
    return TokenCount(prompt, completion, cached)


def _is_plausible(count: object) -> TypeGuard[int]:
    # JSON has no subclasses of int but bool.
    return type(count) is int and 0 <= count <= MAX_PLAUSIBLE_TOKENS


def read_out(
    outcome: Outcome,
    measure: Callable[[dict[str, object]], float | None] | None,
    *,
    keep_payload: bool,
) -> Outcome:
    """Take what a run wants out of a provider's object, and let the object go.

    Parameters
    ----------
    outcome : Outcome
        Changed nowhere.
    measure : callable or None
        Gets the object and returns the answer's ``confidence``.
    keep_payload : bool
        Keep the object all the same.
    """
    completion = outcome.completion
    if completion is None or completion.payload is None:
        return outcome
    if measure is not None:
        outcome = replace(outcome, confidence=measure(completion.payload))
    if keep_payload:
        return outcome
    return replace(outcome, completion=replace(completion, payload=None))


def to_sdk_object(outcome: Outcome, *, model_class: str) -> Any:
    """Turn an answered outcome into a ``ChatCompletionAddition``.

    The object is the caller's own: changing it changes no cache.
    """
    from lbgpt_pandas.engine.sdk_types import ChatCompletionAddition  # noqa: PLC0415  # openai

    completion = outcome.completion
    if completion is None or completion.payload is None:
        raise ValueError("an outcome without a kept payload has no SDK object")
    flags = {
        "is_exact": outcome.source is not Source.SEMANTIC_CACHE,
        "is_cached": outcome.source in (Source.EXACT_CACHE, Source.SEMANTIC_CACHE),
        "is_semantic_cached": outcome.source is Source.SEMANTIC_CACHE,
        "model_class": model_class,
        "deployment": outcome.deployment or completion.deployment,
        "attempts": outcome.attempts,
        "latency_s": outcome.latency_s,
    }
    payload: dict[str, Any] = deepcopy(completion.payload)
    return ChatCompletionAddition.construct(**{**payload, **flags})


def to_sdk_chunk(chunk: dict[str, Any]) -> Any:
    """Turn a chunk into the SDK's ``ChatCompletionChunk``, which takes it over."""
    from openai.types.chat import ChatCompletionChunk  # noqa: PLC0415  # costs 0.6 s, paid once

    return ChatCompletionChunk.construct(**chunk)
