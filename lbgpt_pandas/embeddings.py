"""``df.lbgpt.embed``: a column of vectors, with the rules of ``complete``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lbgpt_pandas.engine.embedding_batch import EmbeddingBatch, vector_of
from lbgpt_pandas.engine.errors import ConfigurationError, TemplateError
from lbgpt_pandas.engine.gpt import LocalGPT
from lbgpt_pandas.engine.local_embeddings import LocalEmbeddingGPT
from lbgpt_pandas.engine.repair import Check
from lbgpt_pandas.engine.replay import ReplayGPT
from lbgpt_pandas.engine.semantic.minilm import DIMENSION
from lbgpt_pandas.frames import col, to_requests, to_series
from lbgpt_pandas.keywords import check_name, check_sendable, split_params
from lbgpt_pandas.resolution import LOCAL_MODEL, caching_of, resolve_engine
from lbgpt_pandas.rows import BARE, Table
from lbgpt_pandas.runs import RowRun
from lbgpt_pandas.settings import check_engine, kept, note_used, of_call, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from lbgpt_pandas.engine.base import _BaseGPT
    from lbgpt_pandas.engine.budget import Budget
    from lbgpt_pandas.engine.types import CacheMode, Outcome
    from lbgpt_pandas.frames import RowPlan
    from lbgpt_pandas.settings import ErrorMode, Progress

OF_CHATS = frozenset(
    {
        "messages", "system", "tools", "response_format", "semantic", "examples", "images", "n",
        "rows_per_request", "temperature", "top_p", "max_tokens", "max_completion_tokens", "stop",
        "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs",
        "tool_choice", "parallel_tool_calls", "reasoning_effort", "verbosity", "seed",
    }
)  # fmt: skip
"""Keywords that have no meaning for vectors."""

_local: dict[object, _BaseGPT] = {}


class VectorForm:
    """A column of vectors: one read-only array of float32 for each row, None without one."""

    verb = "embed"
    keeps_payloads = False
    measure: Callable[[dict[str, Any]], float | None] | None = None
    check = Check(lambda _: "", "")

    def params(self, engine: _BaseGPT, model: str) -> dict[str, Any]:
        """Return nothing: vectors need nothing else."""
        del engine, model
        return {}

    def instructions(self, engine: _BaseGPT, model: str) -> str:
        """Return nothing: nobody is told anything."""
        del engine, model
        return ""

    def writer(self, engine: _BaseGPT, model: str) -> None:
        """Return nothing: there are no examples."""

    def result(
        self, plan: RowPlan, outcomes: Sequence[Outcome | None], *, name: Hashable | None
    ) -> pd.Series[Any]:
        """Return a column of arrays under the input's index."""
        return to_series(plan, [_array(outcome) for outcome in outcomes], name=name, dtype=object)


class EmbeddingRun(RowRun):
    """A plan of texts on its way to vectors; parameters are those of `RowRun`."""

    def _new_batch(self, earlier: Sequence[Outcome | None]) -> EmbeddingBatch:
        return EmbeddingBatch(self.engine, self.plan.requests, **self._batch_keywords(earlier))


def embed_run(
    data: pd.DataFrame | pd.Series[Any],
    template_or_column: object = None,
    *,
    model: str | None = None,
    dimensions: int | None = None,
    engine: _BaseGPT | None = None,
    errors: ErrorMode | None = None,
    na: str = "skip",
    duplicates: str = "share",
    cache_mode: CacheMode | None = None,
    budget: Budget | float | None = None,
    max_parallel: int | None = None,
    progress: Progress | bool | None = None,
    name: Hashable | None = None,
    **params: Any,
) -> EmbeddingRun:
    """Prepare the run that embeds every row; ``run()`` and ``arun()`` give the column.

    Parameters
    ----------
    data : DataFrame or Series
        The rows.
    template_or_column, model, dimensions, ...
        See ``df.lbgpt.embed``.

    Raises
    ------
    TemplateError
        If it is neither a column nor a template with fields; before any call.
    ConfigurationError
        If an argument cannot work, or no embedding model is named; before any call.
    TypeError
        For a keyword that looks like a misspelt one.

    Examples
    --------
    >>> from lbgpt_pandas.testing import ScriptedGPT
    >>> reviews = pd.DataFrame({"text": ["it came late", None]}, index=["a", "b"])
    >>> vectors = embed_run(reviews, "text", engine=ScriptedGPT(), cache_mode="off").run()
    >>> vectors["a"].shape, vectors["a"].dtype, vectors["b"]
    ((1536,), dtype('float32'), None)
    """
    check_name(name)
    how = of_call(
        errors=errors,
        progress=progress,
        cache_mode=cache_mode,
        max_parallel=max_parallel,
        budget=budget,
    )
    options, given = _split(params)
    mode = how.pop("cache_mode")
    keyless = settings().replay is not None or mode == "replay"
    chosen, model_name = resolve_embedder(model, engine=engine, keyless=keyless)
    _check_dimensions(dimensions, chosen)
    sent = check_sendable({"model": model_name, "dimensions": dimensions, **given})
    plan = to_requests(
        data,
        template=_template(data, template_or_column),
        params=sent,
        options=options,
        na=na,
        duplicates=duplicates,
    )
    return EmbeddingRun(
        plan,
        chosen,
        caching=caching_of(chosen, mode, semantic=False),
        model=model_name,
        name=name,
        form=VectorForm(),
        **how,
    )


def resolve_embedder(
    model: str | None, *, engine: _BaseGPT | None = None, keyless: bool = False
) -> tuple[_BaseGPT, str]:
    """Find out who embeds, and by which model.

    Parameters
    ----------
    model : str or None
        As the call gave it; ``"local"`` for the embedded one. A configured model counts where
        its name says that it embeds.
    engine : engine, optional
        As the call gave it.
    keyless : bool, default False
        Nobody will be called; see `resolve_engine`.

    Raises
    ------
    ConfigurationError
        If no model is named, or nobody has it.
    """
    check_engine(engine)
    current = settings()
    given = engine or current.engine
    wanted = model or _embedding_model(current.model)
    if wanted in (None, LOCAL_MODEL) and isinstance(given, LocalGPT | LocalEmbeddingGPT):
        wanted = LOCAL_MODEL
    elif wanted is None and given is not None:
        wanted = given.default_model
    if wanted is None:
        raise ConfigurationError(
            "no embedding model is named: give model='text-embedding-3-small' or what your "
            "provider has, or model='local', which needs no key and costs nothing"
        )
    is_ours = engine is None and not isinstance(current.engine, ReplayGPT)
    if wanted != LOCAL_MODEL or not (is_ours or isinstance(given, LocalGPT)):
        return resolve_engine(wanted, engine=engine, keyless=keyless)
    if isinstance(given, LocalEmbeddingGPT):
        local: _BaseGPT = given
    else:
        local = kept(_local, LOCAL_MODEL, lambda: LocalEmbeddingGPT(auto_cache=False))
    note_used(local)
    return local, LOCAL_MODEL


def _embedding_model(configured: str | None) -> str | None:
    """Return the configured model if it embeds: usually it is the one for chats."""
    if configured is not None and (configured == LOCAL_MODEL or "embed" in configured.lower()):
        return configured
    return None


def _template(data: pd.DataFrame | pd.Series[Any], given: object) -> object:
    """Return a template or `col` of what names either."""
    fields = Table(data).fields
    is_field = _is_hashable(given) and given in fields
    if given is None:
        if isinstance(data, pd.Series):
            return col(BARE)
        raise ConfigurationError(
            "say what is to be embedded: a column, or a template such as '{title}: {text}'"
        )
    if isinstance(given, list | tuple) and not is_field:
        raise ConfigurationError(
            "chat messages have no embedding; give a column, or a template that makes one text"
        )
    if isinstance(given, str) and not is_field and "{" not in given:
        raise TemplateError(
            f"there is no column {given!r}; {fields.suggest(given)}. A template has fields in "
            "braces, such as '{title}: {text}'"
        )
    return col(given) if is_field else given


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _check_dimensions(dimensions: object, engine: _BaseGPT) -> None:
    if dimensions is None:
        return
    if not isinstance(dimensions, int | np.integer) or dimensions is True or dimensions < 1:
        raise ConfigurationError(f"dimensions={dimensions!r}: give a whole number of at least 1")
    if isinstance(engine, LocalEmbeddingGPT) and dimensions != DIMENSION:
        raise ConfigurationError(
            f"dimensions={dimensions}: vectors of the local model have {DIMENSION} numbers"
        )


def _split(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    for each in params:
        if each in OF_CHATS:
            raise ConfigurationError(f"{each}= has no meaning for embed")
        if each == "encoding_format":
            raise ConfigurationError("embed gives arrays of float32; leave encoding_format= out")
    return split_params(params)


def _array(outcome: Outcome | None) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    answer = vector_of(outcome)
    if answer is None:
        return None
    vector = np.asarray(answer.vector, dtype=np.float32)
    # Equal rows share it, and so does the report.
    vector.setflags(write=False)
    return vector
