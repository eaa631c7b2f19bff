"""Run a language model over every row of a DataFrame.

``import lbgpt_pandas as lb`` registers ``df.lbgpt`` and ``series.lbgpt``; see
`LbgptAccessor.complete`. Nothing heavy is imported and no connection is made before the
first call.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lbgpt_pandas.accessor import register_accessors
from lbgpt_pandas.answers import cache
from lbgpt_pandas.archives import load_run, replay
from lbgpt_pandas.comparison import Comparison, last_comparison
from lbgpt_pandas.engine.balanced import LoadBalancedGPT, MultiLoadBalancedGPT
from lbgpt_pandas.engine.budget import Budget
from lbgpt_pandas.engine.caches.disk import DiskCache
from lbgpt_pandas.engine.caches.redis import RedisCache
from lbgpt_pandas.engine.caches.s3 import S3Cache
from lbgpt_pandas.engine.errors import (
    AuthError,
    BadRequest,
    BudgetExceeded,
    CacheCorrupt,
    CacheMiss,
    CacheWarning,
    ConfigurationError,
    ConnectionFailed,
    ContentFiltered,
    ContextTooLong,
    IncompleteStream,
    InvalidInput,
    LbgptError,
    LbgptWarning,
    LimitsWarning,
    MalformedResponse,
    MissingExtraError,
    NotFound,
    QuotaExhausted,
    RateLimited,
    RequestError,
    RequestExceedsQuota,
    RetryBudgetExhausted,
    RowErrors,
    RowErrorsWarning,
    RunAborted,
    SchemaMismatch,
    ServerError,
    TemplateError,
    Timeout,
)
from lbgpt_pandas.engine.gpt import AzureGPT, ChatGPT, LocalGPT
from lbgpt_pandas.engine.litellm_router import LiteLlmRouter
from lbgpt_pandas.engine.pricing import Price, price_of, set_price
from lbgpt_pandas.engine.semantic.faiss import FaissSemanticCache
from lbgpt_pandas.engine.semantic.qdrant import QdrantSemanticCache
from lbgpt_pandas.engine.views import register_views
from lbgpt_pandas.frames import col
from lbgpt_pandas.images import Images
from lbgpt_pandas.notebook.dashboard import dashboard
from lbgpt_pandas.notebook.progress import choose_view
from lbgpt_pandas.plan import Plan
from lbgpt_pandas.registry import runs
from lbgpt_pandas.reports import RunReport
from lbgpt_pandas.runs import last_run
from lbgpt_pandas.settings import Settings, configure, settings, using
from lbgpt_pandas.similarity import similarity
from lbgpt_pandas.submissions import Run
from lbgpt_pandas.usage import headroom, usage
from lbgpt_pandas.version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = [
    "AuthError",
    "AzureGPT",
    "BadRequest",
    "Budget",
    "BudgetExceeded",
    "CacheCorrupt",
    "CacheMiss",
    "CacheWarning",
    "ChatGPT",
    "Comparison",
    "ConfigurationError",
    "ConnectionFailed",
    "ContentFiltered",
    "ContextTooLong",
    "DiskCache",
    "FaissSemanticCache",
    "Images",
    "IncompleteStream",
    "InvalidInput",
    "LbgptError",
    "LbgptWarning",
    "LimitsWarning",
    "LiteLlmRouter",
    "LoadBalancedGPT",
    "LocalGPT",
    "MalformedResponse",
    "MissingExtraError",
    "MultiLoadBalancedGPT",
    "NotFound",
    "Plan",
    "Price",
    "QdrantSemanticCache",
    "QuotaExhausted",
    "RateLimited",
    "RedisCache",
    "RequestError",
    "RequestExceedsQuota",
    "RetryBudgetExhausted",
    "RowErrors",
    "RowErrorsWarning",
    "Run",
    "RunAborted",
    "RunReport",
    "S3Cache",
    "SchemaMismatch",
    "ServerError",
    "Settings",
    "TemplateError",
    "Timeout",
    "__version__",
    "cache",
    "col",
    "configure",
    "dashboard",
    "headroom",
    "last_comparison",
    "last_run",
    "load_run",
    "price_of",
    "replay",
    "runs",
    "set_price",
    "settings",
    "similarity",
    "usage",
    "using",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
register_accessors()
register_views(choose_view)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Add ``%lbgpt`` and ``%%lbgpt`` to IPython; ``%load_ext lbgpt_pandas`` calls this."""
    from lbgpt_pandas.notebook import magics  # noqa: PLC0415  # imports IPython

    magics.load_ipython_extension(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take the magics away again; ``%unload_ext lbgpt_pandas`` calls this."""
    from lbgpt_pandas.notebook import magics  # noqa: PLC0415  # imports IPython

    magics.unload_ipython_extension(shell)
