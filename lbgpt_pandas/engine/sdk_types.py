"""The SDK's response objects with our flags. Imports openai, so it is itself imported late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openai.types import CreateEmbeddingResponse, Embedding
from openai.types.chat import ChatCompletion
from openai.types.create_embedding_response import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence


class ChatCompletionAddition(ChatCompletion):
    """A ``ChatCompletion`` that says where it came from.

    Attributes
    ----------
    is_exact : bool
        The answer was given to exactly this request; False only for a near semantic hit.
    is_cached : bool
        No call was made for it.
    is_semantic_cached : bool
        It answers a similar request.
    model_class : str or None
        Class of the engine, such as ``"ChatGPT"``.
    deployment : str or None
        Name of the engine that answered.
    attempts : int
        Calls made for it in this run; 0 if it was cached.
    latency_s : float
        Seconds of the successful call; 0.0 if it was cached.
    """

    is_exact: bool = True
    is_cached: bool = False
    is_semantic_cached: bool = False
    model_class: str | None = None
    deployment: str | None = None
    attempts: int = 0
    latency_s: float = 0.0


class EmbeddingAddition(Embedding):
    """An ``Embedding`` that says where it came from.

    Attributes
    ----------
    is_cached : bool
        It was not asked for in this call.
    """

    is_cached: bool = False


class EmbeddingResponseAddition(CreateEmbeddingResponse):
    """A ``CreateEmbeddingResponse`` that says where it came from.

    Attributes
    ----------
    data : list of EmbeddingAddition
        In the order of the texts.
    is_cached : bool
        No call was made for any of them.
    model_class : str or None
        Class of the engine, such as ``"ChatGPT"``.
    deployment : str or None
        Name of the engine that answered last; None if all were cached.
    attempts : int
        Calls made; 0 if all were cached.
    latency_s : float
        Seconds of the longest successful call.

    Notes
    -----
    ``usage`` counts the calls that were made, so it is 0 if all were cached.
    """

    data: list[EmbeddingAddition]  # type: ignore[assignment]  # narrower than the SDK's
    is_cached: bool = False
    model_class: str | None = None
    deployment: str | None = None
    attempts: int = 0
    latency_s: float = 0.0


def embedding_response(
    vectors: Sequence[object],
    *,
    cached: Sequence[bool],
    prompt_tokens: int,
    **fields: object,
) -> EmbeddingResponseAddition:
    """Build the object that embeddings are returned as.

    Parameters
    ----------
    vectors : sequence
        Lists of numbers, or base64 texts, in the order of the texts.
    cached : sequence of bool
        Which of them were.
    prompt_tokens : int
        Of all calls made.
    **fields
        The further fields of the object.
    """
    data = []
    for index, (vector, is_cached) in enumerate(zip(vectors, cached, strict=True)):
        # Without validation every single number would be looked at in Python.
        make = EmbeddingAddition if isinstance(vector, list) else EmbeddingAddition.construct
        data.append(
            make(embedding=vector, index=index, object="embedding", is_cached=is_cached)  # type: ignore[arg-type]  # numbers, checked
        )
    return EmbeddingResponseAddition(
        object="list",
        data=data,
        usage=Usage(prompt_tokens=prompt_tokens, total_tokens=prompt_tokens),
        is_cached=all(cached),
        **fields,  # type: ignore[arg-type]  # of the types above
    )
