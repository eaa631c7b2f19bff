"""From the arguments of a verb to a run."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.errors import ConfigurationError, LbgptWarning, TemplateError
from lbgpt_pandas.engine.group_request import MARK
from lbgpt_pandas.forms import with_instructions
from lbgpt_pandas.frames import to_requests
from lbgpt_pandas.grouping import check_groupable, grouping_of
from lbgpt_pandas.keywords import check_name, check_sendable, split_params
from lbgpt_pandas.model_form import ModelForm
from lbgpt_pandas.resolution import caching_of, resolve_engine
from lbgpt_pandas.runs import RowRun
from lbgpt_pandas.settings import of_call, settings
from lbgpt_pandas.tool_calls import ToolForm

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import pandas as pd

    from lbgpt_pandas.engine.base import _BaseGPT
    from lbgpt_pandas.engine.budget import Budget
    from lbgpt_pandas.engine.types import CacheMode
    from lbgpt_pandas.forms import Form
    from lbgpt_pandas.frames import RowPlan
    from lbgpt_pandas.settings import ErrorMode, Progress


class Preparation:
    """What the verbs of the accessors have in common; holds no state.

    Parameters
    ----------
    data : DataFrame or Series
        The rows.
    """

    def __init__(self, data: pd.DataFrame | pd.Series[Any]) -> None:
        self._data = data

    def _prepare(
        self,
        *,
        model: str | None,
        tools: Sequence[Mapping[str, object]] | None,
        response_format: Mapping[str, object] | type | None,
        engine: _BaseGPT | None,
        errors: ErrorMode | None,
        cache_mode: CacheMode | None,
        semantic: bool | float | None,
        budget: Budget | float | None,
        max_parallel: int | None,
        progress: Progress | bool | None,
        rows_per_request: int | str,
        name: Hashable | None,
        params: dict[str, Any],
        keyless: bool = False,
        form: Form | None = None,
        **prompt: Any,
    ) -> RowRun:
        how = of_call(
            errors=errors,
            progress=progress,
            cache_mode=cache_mode,
            max_parallel=max_parallel,
            budget=budget,
        )
        mode = how.pop("cache_mode")
        check_name(name)
        options, given = split_params(params)
        keyless = keyless or settings().replay is not None or mode == "replay"
        chosen, model_name = resolve_engine(model, engine=engine, keyless=keyless)
        _check_prompt(prompt)
        form = form or _form_of(tools, response_format)
        sent_format = None if isinstance(response_format, type) else response_format
        passed = {"model": model_name, "tools": tools, "response_format": sent_format, **given}
        grouping = grouping_of(
            rows_per_request,
            form=form,
            params=passed,
            prompt=prompt,
            engine=chosen,
            model=model_name,
        )
        if grouping is not None:
            passed[MARK] = grouping.mark
        if form is not None:
            prompt["write_example"] = form.writer(chosen, model_name)
            passed |= form.params(chosen, model_name)
            words = form.instructions(chosen, model_name)
            prompt["system"] = with_instructions(prompt["system"], words)
        plan = to_requests(self._data, **prompt, params=check_sendable(passed), options=options)
        if grouping is not None:
            plan = replace(plan, grouping=grouping)
            if callable(prompt["template"]):
                check_groupable(plan)
        _warn_of_shared_samples(plan, params, prompt["duplicates"])
        return RowRun(
            plan,
            chosen,
            caching=caching_of(chosen, mode, semantic=semantic),
            model=model_name,
            name=name,
            form=form,
            **how,
        )

    def _checked(self, template: object, keywords: Mapping[str, Any], form: Form) -> RowRun:
        """Prepare a run whose replies are checked; keywords are those of `complete`."""
        return self._prepared({**keywords, "template": template}, form)

    def _prepared(self, keywords: Mapping[str, Any], form: Form | None = None) -> RowRun:
        """Prepare a run from keywords of `complete` and parameters for the provider."""
        given = _keywords_of(vars(type(self))["complete"]) | {"template": None, "params": {}}
        for name, value in keywords.items():
            if form is not None and name in {"response_format", "tools"}:
                raise ConfigurationError(f"{name}= is not for {form.verb}, which says it itself")
            if name in given and name != "params":
                given[name] = value
            else:
                given["params"][name] = value
        return self._prepare(**given, form=form)


def _check_prompt(prompt: Mapping[str, Any]) -> None:
    template = prompt.get("template")
    is_empty = isinstance(template, str) and not template.strip()
    if is_empty and prompt.get("images") is None:
        raise TemplateError(
            "the template is empty, so that every row would ask nothing; give a text with "
            "{column} fields"
        )


def _form_of(
    tools: Sequence[Mapping[str, object]] | None,
    response_format: Mapping[str, object] | type | None,
) -> Form | None:
    """What answers of `complete` become, if not texts."""
    if isinstance(response_format, type):
        if tools:
            raise ConfigurationError(
                f"response_format={response_format.__name__} makes every answer an instance, and "
                "tools= makes some of them tool calls; give one of the two"
            )
        return ModelForm(response_format)
    if response_format is not None and not isinstance(response_format, Mapping):
        raise ConfigurationError(
            f"response_format= is of type {type(response_format).__name__}; give a pydantic model "
            '(the class, not an object of it), a JSON schema as a dict, or {"type": "json_object"}'
        )
    if not all(isinstance(each, Mapping) and "type" in each for each in tools or ()):
        raise ConfigurationError(
            'tools=: give a list of dicts, such as [{"type": "function", "function": '
            '{"name": "find", "parameters": {"type": "object"}}}]'
        )
    return ToolForm() if tools else None


def _keywords_of(verb: Any) -> dict[str, Any]:
    """Return the keywords of a verb with their defaults."""
    parameters = inspect.signature(verb).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def _warn_of_shared_samples(plan: RowPlan, params: Mapping[str, object], duplicates: str) -> None:
    temperature = params.get("temperature")
    is_sampling = isinstance(temperature, int | float) and temperature > 0
    if is_sampling and duplicates == "share" and max(plan.rows_of(), default=0) > 1:
        warnings.warn(
            f"temperature={temperature} draws samples, but equal rows share one answer; "
            'duplicates="independent" asks for each of them',
            LbgptWarning,
            stacklevel=4,
        )
