"""``rows_per_request``: whether a call can have it, checked before anything is asked."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.group_request import MARK, Grouping
from lbgpt_pandas.forms import takes_schemas
from lbgpt_pandas.plan_figures import window_of

if TYPE_CHECKING:
    from lbgpt_pandas.engine.base import _BaseGPT
    from lbgpt_pandas.forms import Form
    from lbgpt_pandas.frames import RowPlan

MOST_ROWS = 100

UNFIT_PARAMS = (
    "response_format", "tools", "tool_choice", "parallel_tool_calls", "stop", "logprobs",
    "top_logprobs", "logit_bias", "prediction", "modalities", "audio", "functions",
    "function_call", "grammar", "json_schema", "structured_outputs", "guided_json",
    "guided_regex", "guided_choice", "guided_grammar", "max_output_tokens",
)  # fmt: skip
"""Parameters that say something about one answer, which would meet the JSON around all.

The last ones are those of servers of one's own, which may stand in ``extra_body`` as well.
"""

UNFIT_IN_BODY = ("max_tokens", "max_completion_tokens")
"""Limits of one answer that would be those of all, as ``extra_body`` is sent as it is."""

UNFIT_PROMPTS = ("messages", "images", "examples")


def grouping_of(
    rows: object,
    *,
    form: Form | None,
    params: Mapping[str, object],
    prompt: Mapping[str, Any],
    engine: _BaseGPT,
    model: str,
) -> Grouping | None:
    """Return how rows are put together; None for one row a request.

    Raises
    ------
    ConfigurationError
        If `rows` is no whole number from 1 to 100 and not "auto", or the call has something
        that belongs to one answer.
    """
    given: Any = rows
    is_number = isinstance(given, Integral) and not isinstance(given, bool)
    if is_number and 1 <= given <= MOST_ROWS:
        size: Any = int(given)
    elif isinstance(given, str) and given == "auto":
        size = given
    else:
        raise ConfigurationError(
            f'{MARK}={rows!r}: give a whole number from 1 to {MOST_ROWS}, or "auto"'
        )
    if size == 1:
        return None
    unfit = [name for name in UNFIT_PROMPTS if prompt.get(name) is not None]
    body = params.get("extra_body")
    told = (params, body if isinstance(body, Mapping) else {})
    unfit += [name for name in UNFIT_PARAMS if any(each.get(name) is not None for each in told)]
    unfit += [f"{name} in extra_body" for name in UNFIT_IN_BODY if name in told[1]]
    if form is not None and not unfit:
        unfit = [form.verb]
    if prompt.get("duplicates") == "independent":
        unfit.append('duplicates="independent"')
    if isinstance(prompt.get("template"), list | tuple):
        unfit.append("a list of messages")
    if engine.tools:
        unfit.append("an engine with tools")
    if unfit:
        raise ConfigurationError(
            f"{MARK}={rows!r} does not go with {', '.join(unfit)}: several rows are answered by "
            f"one JSON object of texts; leave {MARK}= out"
        )
    return Grouping(size, takes_schemas(engine, model), _window(engine, model))


def check_groupable(plan: RowPlan) -> None:
    """Raise a ConfigurationError where a request is more than a text and a system message."""
    for number, request in enumerate(plan.requests):
        roles = [message.get("role") for message in request.messages]
        is_text = all(isinstance(each.get("content"), str) for each in request.messages)
        if not is_text or roles not in (["user"], ["system", "user"]):
            row = int((plan.codes == number).argmax())
            raise ConfigurationError(
                f"{MARK}= needs rows that are one text each; row {row} has messages of "
                f"{', '.join(map(str, roles))}"
            )


def _window(engine: _BaseGPT, model: str) -> int | None:
    window = window_of(engine, model)
    return None if window is None else window.total
