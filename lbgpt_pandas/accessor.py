"""``df.lbgpt`` and ``series.lbgpt``: arguments are checked here, the rest is one call each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from lbgpt_pandas.embeddings import embed_run
from lbgpt_pandas.plan import SAMPLE, make_plan
from lbgpt_pandas.resolution import has_engine
from lbgpt_pandas.structured import StructuredVerbs
from lbgpt_pandas.submissions import submit
from lbgpt_pandas.variants import ComparisonVerbs

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from lbgpt_pandas.engine.base import _BaseGPT
    from lbgpt_pandas.engine.budget import Budget
    from lbgpt_pandas.engine.types import CacheMode, Message
    from lbgpt_pandas.frames import col
    from lbgpt_pandas.plan import Plan
    from lbgpt_pandas.settings import ErrorMode, Progress
    from lbgpt_pandas.submissions import Run

ACCESSOR_NAME = "lbgpt"


class LbgptAccessor(StructuredVerbs, ComparisonVerbs):
    """Language model methods of a DataFrame or Series; holds no state.

    Parameters
    ----------
    data : DataFrame or Series
        The rows.
    """

    def complete(
        self,
        template: object = None,
        *,
        messages: str | Callable[[Any], Sequence[Message]] | None = None,
        model: str | None = None,
        system: str | col | None = None,
        examples: object = None,
        images: object = None,
        tools: Sequence[Mapping[str, object]] | None = None,
        response_format: Mapping[str, object] | type | None = None,
        engine: _BaseGPT | None = None,
        errors: ErrorMode | None = None,
        na: str = "skip",
        duplicates: str = "share",
        cache_mode: CacheMode | None = None,
        semantic: bool | float | None = None,
        budget: Budget | float | None = None,
        max_parallel: int | None = None,
        progress: Progress | bool | None = None,
        rows_per_request: int | Literal["auto"] = 1,
        name: Hashable | None = None,
        **params: Any,
    ) -> pd.Series[Any]:
        """Ask a language model about every row.

        Parameters
        ----------
        template : str, callable, jinja2.Template or list of messages, optional
            The prompt. A string has ``{column}`` fields (``{{`` and ``}}`` are literal braces)
            with plain format specs such as ``{price:.2f}``; ``{index}`` is the index. A Series
            has the field ``{value}``, also as ``{}`` or under its own name. A callable gets the
            row and returns the prompt, or a list of messages. A list of messages has templates
            as contents.
        messages : str or callable, optional
            Instead of `template`: a column, or a callable of the row, with whole lists of chat
            messages.
        model : str, optional
            Model name; ``"local"`` for the embedded one. By default the configured one.
        system : str or lb.col, optional
            System message, a template as well, or ``lb.col("name")`` for a column.
        examples : DataFrame or list of pairs, optional
            Inputs and the answers they should get, put before each row as turns of user and
            assistant: a frame with the template's columns and ``answer``, or pairs.
        images : hashable, list of hashable or lb.Images, optional
            Columns with images that are sent along: addresses, data URLs, bytes, PIL images,
            and paths under the current directory; several in a list. `lb.Images` also says
            ``detail`` and another folder. Private addresses are refused.
        tools : list of dict, optional
            Sent to the provider as they are. A row whose answer has tool calls is a list of
            dicts (``name``, ``arguments``, ``id``); nothing is called. See also
            ``lb.last_run().tool_calls``.
        response_format : type of BaseModel or dict, optional
            A pydantic model, whose instances are the values then; a dict is sent as it is.
        engine : engine, optional
            Who answers; by default the configured one, else from `model` and environment.
        errors : {"coerce", "raise", "ignore"}, optional
            Failed rows are NA with one `RowErrorsWarning` (the default), or stop the run and
            raise `RowErrors`, or are NA silently.
        na : {"skip", "raise", "empty"} or other str, default "skip"
            A row with NA in a column that is used gets NA without a call, is an error, or is
            asked with an empty or the given text in its place.
        duplicates : {"share", "independent"}, default "share"
            Equal rows make one call; or the k-th of them is a sample of its own, under a key
            of its own.
        cache_mode : {"use", "read_only", "refresh", "off", "replay"}, optional
            Look answers up and store them (the default), only look up, only store, neither; or
            look up and ask nobody, so that a row without a stored answer is an error.
        semantic : bool or float, optional
            Whether an answer to nearly the same question will do, or from which cosine
            similarity on (0.985 by default). By default it will if a semantic cache is
            configured. What is in the template around the fields, model, parameters and system
            message must be the same, and numbers, names and negations of the row as well.
        budget : Budget or float, optional
            What the calls of this run may cost, a number in USD; see `lb.Budget`. Cached rows
            cost nothing. By default the configured one, which all runs share.
        max_parallel : int, optional
            Cap on the requests that are worked on at once.
        progress : {"auto", "widget", "tqdm", "none"} or bool, optional
            How progress is drawn.
        rows_per_request : int or "auto", default 1
            Up to so many rows go in one request (at most 100); those whose answer does not come
            back under their own id are asked alone. A request is sent ``max_tokens`` for all its
            rows together. "auto" asks 16 of at least 50 rows both ways, and goes on with ten in a
            request if answers are 90 % alike; see ``lb.last_run().batching``.
        name : hashable, optional
            Name of the returned Series.
        **params
            Sent to the provider verbatim: ``temperature``, ``max_tokens``, ``seed``, ...

        Returns
        -------
        Series
            Texts in the string dtype of this pandas version, NA where there is none. Its index
            is the input's, aligned by position whatever the labels are.

        Raises
        ------
        TemplateError
            If the template does not fit the columns; before any call.
        ConfigurationError
            If an argument cannot work, or no engine or model is given; before any call.
        TypeError
            For a keyword that looks like a misspelt one.
        AuthError, NotFound
            If the very first call shows that none can succeed.
        RunAborted
            If that became clear later. Finished rows are cached and in ``lb.last_run()``.
        BudgetExceeded
            If the budget is used up, unless it says otherwise. Finished rows likewise.
        CacheMiss, CacheCorrupt
            With ``cache_mode="replay"``: an answer is not stored, or damaged.
        RowErrors
            With ``errors="raise"``, if a row failed.

        Examples
        --------
        >>> import pandas as pd
        >>> from lbgpt_pandas.testing import ScriptedGPT
        >>> df = pd.DataFrame({"city": ["Paris", None]}, index=["a", "b"])
        >>> df.lbgpt.complete("Where is {city}?", engine=ScriptedGPT("France"), cache_mode="off")
        a    France
        b       NaN
        dtype: str
        """
        column: pd.Series[Any] = self._prepare(**_keywords(locals())).run()
        return column

    async def acomplete(
        self,
        template: object = None,
        *,
        messages: str | Callable[[Any], Sequence[Message]] | None = None,
        model: str | None = None,
        system: str | col | None = None,
        examples: object = None,
        images: object = None,
        tools: Sequence[Mapping[str, object]] | None = None,
        response_format: Mapping[str, object] | type | None = None,
        engine: _BaseGPT | None = None,
        errors: ErrorMode | None = None,
        na: str = "skip",
        duplicates: str = "share",
        cache_mode: CacheMode | None = None,
        semantic: bool | float | None = None,
        budget: Budget | float | None = None,
        max_parallel: int | None = None,
        progress: Progress | bool | None = None,
        rows_per_request: int | Literal["auto"] = 1,
        name: Hashable | None = None,
        **params: Any,
    ) -> pd.Series[Any]:
        """Await `complete` in the caller's event loop: same arguments, same result.

        Cancelling the await cancels the run; finished rows are cached.
        """
        column: pd.Series[Any] = await self._prepare(**_keywords(locals())).arun()
        return column

    def submit(
        self,
        template: object = None,
        *,
        messages: str | Callable[[Any], Sequence[Message]] | None = None,
        model: str | None = None,
        system: str | col | None = None,
        examples: object = None,
        images: object = None,
        tools: Sequence[Mapping[str, object]] | None = None,
        response_format: Mapping[str, object] | type | None = None,
        engine: _BaseGPT | None = None,
        errors: ErrorMode | None = None,
        na: str = "skip",
        duplicates: str = "share",
        cache_mode: CacheMode | None = None,
        semantic: bool | float | None = None,
        budget: Budget | float | None = None,
        max_parallel: int | None = None,
        progress: Progress | bool | None = None,
        rows_per_request: int | Literal["auto"] = 1,
        name: Hashable | None = None,
        **params: Any,
    ) -> Run:
        """Start `complete` in the background: same arguments, returns at once.

        Returns
        -------
        Run
            With ``result()``, ``partial()``, ``progress()``, ``pause()``, ``resume()``,
            ``cancel()`` and ``report``; it can be awaited. In a notebook it is drawn with
            buttons, which work while other cells run.

        Raises
        ------
        TemplateError, ConfigurationError, TypeError
            As `complete`, before anything is started; all else is raised by the result.
        """
        return submit(self._prepare(**_keywords(locals())))

    def plan(
        self,
        template: object = None,
        *,
        messages: str | Callable[[Any], Sequence[Message]] | None = None,
        model: str | None = None,
        system: str | col | None = None,
        examples: object = None,
        images: object = None,
        tools: Sequence[Mapping[str, object]] | None = None,
        response_format: Mapping[str, object] | type | None = None,
        engine: _BaseGPT | None = None,
        errors: ErrorMode | None = None,
        na: str = "skip",
        duplicates: str = "share",
        cache_mode: CacheMode | None = None,
        semantic: bool | float | None = None,
        budget: Budget | float | None = None,
        max_parallel: int | None = None,
        progress: Progress | bool | None = None,
        rows_per_request: int | Literal["auto"] = 1,
        name: Hashable | None = None,
        sample: int = SAMPLE,
        **params: Any,
    ) -> Plan:
        """Say what `complete` with these arguments would do, and do none of it: no call is made.

        Parameters
        ----------
        sample : int, default 20
            Rendered rows that are shown, drawn at random and the same ones each time.
        template, messages, ...
            As for `complete`.

        Returns
        -------
        Plan
            Rows, cached answers, requests to be sent, tokens, cost and time as far as they can
            be known, rendered samples. ``run()`` does it.

        Raises
        ------
        TemplateError, ConfigurationError, TypeError
            As `complete`. A key is not needed.

        Examples
        --------
        >>> import pandas as pd
        >>> from lbgpt_pandas.testing import ScriptedGPT
        >>> cities = pd.Series(["Paris", "Lyon", None, "Paris"])
        >>> plan = cities.lbgpt.plan("{}?", engine=ScriptedGPT("France"), cache_mode="off")
        >>> plan.rows, plan.na_rows, plan.unique_requests, plan.requests_to_send
        (4, 1, 2, 2)
        """
        given = _keywords(locals())
        shown = given.pop("sample")
        keyless = not has_engine(model, engine=engine)
        return make_plan(self._prepare(**given, keyless=keyless), sample=shown, keyless=keyless)

    def embed(
        self,
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
    ) -> pd.Series[Any]:
        """Embed every row: many texts in a call, each cached by itself.

        Parameters
        ----------
        template_or_column : str, hashable or callable, optional
            A column, or a template as for `complete` that makes one text; a Series needs none.
        model : str, optional
            An embedding model; ``"local"`` for the embedded one. By default the configured one,
            if its name says that it embeds.
        dimensions : int, optional
            Numbers of a vector, for models that can shorten them.
        engine, errors, na, ...
            As for `complete`.
        **params
            Sent to the provider verbatim.

        Returns
        -------
        Series
            One-dimensional float32 arrays, None where there is none, under the input's index.
            They are read-only, because equal rows share them; ``np.stack(s.dropna())`` is a
            matrix of one's own. An empty text, or one of white space, is a failed row without
            a call; so is a text that the provider refuses: the others of its call are asked
            again without it.

        Raises
        ------
        TemplateError, ConfigurationError, TypeError, ...
            As `complete`.

        Examples
        --------
        >>> import pandas as pd
        >>> from lbgpt_pandas.testing import ScriptedGPT
        >>> texts = pd.Series(["it came late", None])
        >>> vectors = texts.lbgpt.embed(engine=ScriptedGPT(), dimensions=8, cache_mode="off")
        >>> vectors[0].shape, vectors[0].dtype, vectors[1]
        ((8,), dtype('float32'), None)
        """
        given = _keywords(locals())
        column: pd.Series[Any] = embed_run(self._data, **given.pop("params"), **given).run()
        return column

    async def aembed(
        self,
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
    ) -> pd.Series[Any]:
        """Await `embed` in the caller's event loop: same arguments, same result."""
        given = _keywords(locals())
        run = embed_run(self._data, **given.pop("params"), **given)
        column: pd.Series[Any] = await run.arun()
        return column


def _keywords(local_names: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in local_names.items() if name != "self"}


def register_accessors() -> None:
    """Register ``.lbgpt`` on DataFrame and Series; doing it again changes nothing."""
    registers: dict[type, Callable[[str], Callable[[type], type]]] = {
        pd.DataFrame: pd.api.extensions.register_dataframe_accessor,
        pd.Series: pd.api.extensions.register_series_accessor,
    }
    for kind, register in registers.items():
        present = getattr(kind, ACCESSOR_NAME, None)
        if present is LbgptAccessor:
            continue
        if getattr(present, "__qualname__", None) == LbgptAccessor.__qualname__:
            # An older one of ours, left by a reload; pandas would warn of overriding it.
            delattr(kind, ACCESSOR_NAME)
        register(ACCESSOR_NAME)(LbgptAccessor)
