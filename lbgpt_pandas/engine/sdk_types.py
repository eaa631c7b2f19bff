"""The SDK's response object with our flags. Imports openai, so it is itself imported late."""

from __future__ import annotations

from openai.types.chat import ChatCompletion


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
