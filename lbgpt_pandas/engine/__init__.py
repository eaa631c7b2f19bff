"""The engine: requests in, answers out, without pandas and without a notebook."""

from __future__ import annotations

from typing import Any

from lbgpt_pandas.engine.allocation import (
    max_headroom_allocation_function,
    random_allocation_function,
)
from lbgpt_pandas.engine.balanced import LoadBalancedGPT, MultiLoadBalancedGPT
from lbgpt_pandas.engine.base import _BaseGPT
from lbgpt_pandas.engine.budget import Budget
from lbgpt_pandas.engine.caches.disk import DiskCache
from lbgpt_pandas.engine.caches.redis import RedisCache
from lbgpt_pandas.engine.caches.s3 import S3Cache
from lbgpt_pandas.engine.gpt import AzureGPT, ChatGPT, LocalGPT
from lbgpt_pandas.engine.litellm_router import LiteLlmRouter
from lbgpt_pandas.engine.semantic.faiss import FaissSemanticCache
from lbgpt_pandas.engine.semantic.qdrant import QdrantSemanticCache
from lbgpt_pandas.engine.types import (
    Completion,
    Headroom,
    Outcome,
    Request,
    Source,
    TokenCount,
    Usage,
    UsageStats,
)

__all__ = [
    "AzureGPT",
    "Budget",
    "ChatCompletionAddition",
    "ChatGPT",
    "Completion",
    "DiskCache",
    "EmbeddingAddition",
    "EmbeddingResponseAddition",
    "FaissSemanticCache",
    "Headroom",
    "LiteLlmRouter",
    "LoadBalancedGPT",
    "LocalGPT",
    "MultiLoadBalancedGPT",
    "Outcome",
    "QdrantSemanticCache",
    "RedisCache",
    "Request",
    "S3Cache",
    "Source",
    "TokenCount",
    "Usage",
    "UsageStats",
    "_BaseGPT",
    "max_headroom_allocation_function",
    "random_allocation_function",
]


_OF_THE_SDK = {"ChatCompletionAddition", "EmbeddingAddition", "EmbeddingResponseAddition"}


def __getattr__(name: str) -> Any:
    if name in _OF_THE_SDK:
        # Classes of the SDK's kind; importing them costs what importing openai costs.
        from lbgpt_pandas.engine import sdk_types  # noqa: PLC0415

        return getattr(sdk_types, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
