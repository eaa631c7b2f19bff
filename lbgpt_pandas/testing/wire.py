"""Chat completions and embeddings as OpenAI and Azure write them: pure functions, no server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CHARACTERS_PER_TOKEN = 4
FINGERPRINT = "fp_lbgpt_testing"

_PIECE = re.compile(r"\s*\S+|\s+\Z")
_SAFE = {"filtered": False, "severity": "safe"}
_CATEGORIES = ("hate", "self_harm", "sexual", "violence")


def count_tokens(text: str) -> int:
    """Tokens of `text` by the rule of this package's test doubles: ``max(1, len(text) // 4)``.

    Examples
    --------
    >>> count_tokens(""), count_tokens("A:hello!")
    (1, 2)
    """
    return max(1, len(text) // CHARACTERS_PER_TOKEN)


def text_of(content: object) -> str:
    """Text of a message's content: the string itself, or its text parts put together."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(
            part["text"]
            for part in content
            if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return ""


def last_user_text(messages: Sequence[Mapping[str, object]]) -> str:
    """Text of the last message whose role is ``user``; empty if there is none."""
    for message in reversed(messages):
        if message.get("role") == "user":
            return text_of(message.get("content"))
    return ""


def count_prompt_tokens(messages: Sequence[Mapping[str, object]]) -> int:
    """Tokens of all messages' text put together, by `count_tokens`."""
    return max(
        1,
        sum(len(text_of(message.get("content"))) for message in messages) // CHARACTERS_PER_TOKEN,
    )


def limit_of(body: Mapping[str, object]) -> int | None:
    """``max_completion_tokens``, else ``max_tokens`` of a request; None if neither is a number."""
    for name in ("max_completion_tokens", "max_tokens"):
        limit = body.get(name)
        if isinstance(limit, int) and not isinstance(limit, bool):
            return limit
    return None


def choices_of(body: Mapping[str, object]) -> int:
    """``n`` of a request, 1 by default."""
    number = body.get("n")
    return number if isinstance(number, int) and number > 0 else 1


def chat_completion(
    body: Mapping[str, object],
    answer: str | Mapping[str, object],
    *,
    number: int,
    created: int,
    model: str,
    azure: bool = False,
) -> dict[str, object]:
    """Write a ``chat.completion`` object.

    Parameters
    ----------
    body : mapping
        The request: ``messages``, ``n``, ``max_tokens`` and ``max_completion_tokens`` are read.
    answer : str or mapping
        Content of every choice, cut off after the requested number of tokens with
        ``finish_reason: "length"``; or fields of the message, such as ``tool_calls``.
    number : int
        Number of the answer; makes its id.
    created : int
        Seconds since 1970.
    model : str
        The model that is said to have answered.
    azure : bool, default False
        Add Azure's content filter results.

    Returns
    -------
    dict
        With usage counted by `count_tokens`.
    """
    if isinstance(answer, str):
        content, finish_reason = _cut(answer, limit_of(body))
        message: dict[str, object] = {"role": "assistant", "content": content, "refusal": None}
    else:
        message = {"role": "assistant", "content": None, "refusal": None, **answer}
        content = text_of(message["content"])
        finish_reason = "tool_calls" if message.get("tool_calls") else "stop"
    choices: list[dict[str, object]] = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": finish_reason}
        for index in range(choices_of(body))
    ]
    payload: dict[str, object] = {
        "id": f"chatcmpl-{number:08d}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": choices,
        "usage": _usage(body, content),
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }
    if azure:
        results = dict.fromkeys(_CATEGORIES, _SAFE)
        for choice in choices:
            choice["content_filter_results"] = results
        payload["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": results}]
    return payload


def _cut(text: str, limit: int | None) -> tuple[str, str]:
    if limit is None or count_tokens(text) <= limit:
        return text, "stop"
    return text[: limit * CHARACTERS_PER_TOKEN], "length"


def _usage(body: Mapping[str, object], content: str) -> dict[str, object]:
    messages = body.get("messages")
    prompt = count_prompt_tokens(messages) if isinstance(messages, list | tuple) else 1
    completion = count_tokens(content) * choices_of(body)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def chat_chunks(
    completion: Mapping[str, object], *, include_usage: bool = False
) -> Iterator[dict[str, object]]:
    """Cut a ``chat.completion`` into the ``chat.completion.chunk`` objects of a stream.

    Parameters
    ----------
    completion : mapping
        Of `chat_completion`.
    include_usage : bool, default False
        ``stream_options.include_usage`` of the request: every chunk has ``usage: null``, and
        one more chunk without choices has the numbers.

    Yields
    ------
    dict
        For each choice the role, its content word by word, and its finish reason.
    """
    kept = ("id", "created", "model", "service_tier", "system_fingerprint")
    head = {name: completion[name] for name in kept} | {"object": "chat.completion.chunk"}
    if include_usage:
        head["usage"] = None
    choices = completion["choices"]
    for choice in choices if isinstance(choices, list) else []:
        for delta, finish_reason in _deltas(choice):
            part = {"index": choice["index"], "delta": delta, "logprobs": None}
            yield {**head, "choices": [{**part, "finish_reason": finish_reason}]}
    if include_usage:
        yield {**head, "choices": [], "usage": completion["usage"]}


def _deltas(choice: Mapping[str, object]) -> Iterator[tuple[dict[str, object], object]]:
    message = choice["message"]
    if not isinstance(message, dict):
        return
    content, tool_calls = message.get("content"), message.get("tool_calls")
    first = "" if isinstance(content, str) else None
    yield {"role": "assistant", "content": first, "refusal": None}, None
    for piece in _PIECE.findall(content) if isinstance(content, str) else []:
        yield {"content": piece}, None
    for index, call in enumerate(tool_calls if isinstance(tool_calls, list) else []):
        yield {"tool_calls": [{"index": index, **call}]}, None
    yield {}, choice["finish_reason"]


def embedding_list(
    vectors: Sequence[object], *, model: str, prompt_tokens: int
) -> dict[str, object]:
    """Write the list object that answers ``/v1/embeddings``.

    Parameters
    ----------
    vectors : sequence
        Lists of float or base64 texts, in the order of the inputs.
    model : str
        The model that is said to have answered.
    prompt_tokens : int
        Tokens of all inputs.
    """
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    }
