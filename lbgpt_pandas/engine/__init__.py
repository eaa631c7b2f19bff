"""The engine: requests in, answers out, without pandas and without a notebook."""

from __future__ import annotations

from typing import Any

from lbgpt_pandas.engine.base import _BaseGPT
from lbgpt_pandas.engine.caches.disk import DiskCache
from lbgpt_pandas.engine.gpt import AzureGPT, ChatGPT, LocalGPT
from lbgpt_pandas.engine.types import (
    Completion,
    Outcome,
    Request,
    Source,
    TokenCount,
    Usage,
    UsageStats,
)

__all__ = [
    "AzureGPT",
    "ChatCompletionAddition",
    "ChatGPT",
    "Completion",
    "DiskCache",
    "LocalGPT",
    "Outcome",
    "Request",
    "Source",
    "TokenCount",
    "Usage",
    "UsageStats",
    "_BaseGPT",
]


def __getattr__(name: str) -> Any:
    if name == "ChatCompletionAddition":
        # A class of the SDK's kind; importing it costs what importing openai costs.
        from lbgpt_pandas.engine.sdk_types import ChatCompletionAddition  # noqa: PLC0415

        return ChatCompletionAddition
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
