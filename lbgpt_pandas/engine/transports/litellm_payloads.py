"""What litellm hands out, as the JSON data that a provider with OpenAI's interface sends.

litellm adds fields of its own, mostly empty ones, moves what it does not know into
``provider_specific_fields``, prices answers, and invents what a provider left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PREFIX = "llm_provider-"
_MOVED = "provider_specific_fields"
_KEPT_EMPTY = frozenset({"content", "refusal", "finish_reason", "logprobs", "system_fingerprint"})


def completion_payload(response: Any) -> object:
    """Return a ``chat.completion`` object.

    Whatever is no object of litellm's comes back as it is, for the validation to refuse.
    """
    if not hasattr(response, "model_dump"):
        return response
    payload = _unpacked(response.model_dump(mode="json"))
    payload["choices"] = [
        {**_unpacked(choice), "message": _unpacked(choice.get("message") or {})}
        for choice in payload.get("choices") or ()
    ]
    return _with_usage(payload)


def chunk_payload(chunk: Any) -> dict[str, Any]:
    """Return a ``chat.completion.chunk`` object."""
    payload = _unpacked(chunk.model_dump(mode="json"))
    payload["choices"] = [
        {**_unpacked(choice), "delta": _without_empty(_unpacked(choice.get("delta") or {}))}
        for choice in payload.get("choices") or ()
    ]
    payload = _with_usage(payload)
    if "usage" in payload and not any(map(_says_something, payload["choices"])):
        # Of the chunk with the usage litellm makes one with an empty choice.
        payload["choices"] = []
    return payload


def embedding_payload(response: Any) -> object:
    """Return an embeddings ``list`` object."""
    if not hasattr(response, "model_dump"):
        return response
    return _with_usage(_unpacked(response.model_dump(mode="json")))


def is_invented_end(payload: Mapping[str, Any], source: Any, *, given: int) -> bool:
    """Whether a chunk's finish reason is litellm's own.

    litellm ends every stream with ``"stop"``, also one that was cut off. Only what the
    provider sent is among the chunks that it collects.

    Parameters
    ----------
    payload : mapping
        The chunk.
    source : object
        litellm's stream.
    given : int
        Chunks that came before.
    """
    if not any(choice.get("finish_reason") for choice in payload["choices"]):
        return False
    collected = getattr(source, "chunks", None)
    if not isinstance(collected, list) or len(collected) < given:
        return False  # after a fallback the chunks are collected elsewhere
    return not any(
        getattr(choice, "finish_reason", None)
        for chunk in reversed(collected)
        for choice in getattr(chunk, "choices", ())
    )


def headers_of(response: object) -> dict[str, str]:
    """Return the provider's response headers, lower-case names."""
    headers = getattr(response, "_response_headers", None)
    if headers:
        return {str(name).lower(): str(text) for name, text in dict(headers).items()}
    hidden = getattr(response, "_hidden_params", None)
    added = hidden.get("additional_headers") if isinstance(hidden, Mapping) else None
    lower = {str(name).lower(): str(text) for name, text in dict(added or {}).items()}
    of_provider = {
        name.removeprefix(_PREFIX): text for name, text in lower.items() if name.startswith(_PREFIX)
    }
    return {name: text for name, text in lower.items() if not name.startswith("x-litellm-")} | (
        of_provider
    )


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the provider's id of the request."""
    names = ("x-request-id", "apim-request-id", "request-id")
    return next((headers[name] for name in names if headers.get(name)), None)


def _says_something(choice: Mapping[str, Any]) -> bool:
    return bool(choice["delta"] or choice.get("finish_reason"))


def _unpacked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Put moved fields back, and drop the empty ones that litellm adds."""
    moved = fields.get(_MOVED)
    whole = dict(moved) if isinstance(moved, Mapping) else {}
    whole.update({name: value for name, value in fields.items() if name != _MOVED})
    return _without_empty(whole, kept=_KEPT_EMPTY)


def _without_empty(
    fields: Mapping[str, Any], *, kept: frozenset[str] = frozenset()
) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None or name in kept}


def _with_usage(payload: dict[str, Any]) -> dict[str, Any]:
    usage = payload.get("usage")
    if not isinstance(usage, Mapping):
        return payload
    # litellm counts zero where the provider reports nothing; its price is from its own table.
    counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    if any(counts):
        payload["usage"] = _without_empty({**usage, "cost": None})
    else:
        del payload["usage"]
    return payload
