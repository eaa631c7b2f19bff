"""Tool calls as values: what a model asks to be called. Nothing here calls it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lbgpt_pandas.engine.repair import Check
from lbgpt_pandas.replies import load_json

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from lbgpt_pandas.engine.base import _BaseGPT
    from lbgpt_pandas.engine.types import Outcome
    from lbgpt_pandas.frames import RowPlan

COLUMNS = {"row": "int64", "name": "string", "arguments": "object", "id": "string"}

ToolCall = dict[str, Any]
"""``{"name": ..., "arguments": ..., "id": ...}``"""


class ToolForm:
    """A column of texts, and of lists of tool calls where the answer has some.

    It is of dtype object whatever the answers are, so that it does not hang on them.
    """

    verb = "complete"
    keeps_payloads = True
    """The texts of answers are not enough."""

    check = Check(lambda _: "", "")
    measure: Callable[[dict[str, Any]], float | None] | None = None

    def params(
        self,
        engine: _BaseGPT,  # noqa: ARG002  # the same for all
        model: str,  # noqa: ARG002  # the same for all
    ) -> dict[str, Any]:
        """Return nothing: the tools are sent as they were given."""
        return {}

    def instructions(
        self,
        engine: _BaseGPT,  # noqa: ARG002  # the same for all
        model: str,  # noqa: ARG002  # the same for all
    ) -> str:
        """Return nothing."""
        return ""

    def writer(self, engine: _BaseGPT, model: str) -> None:
        """Return nothing: the answer of an example is its text."""

    def result(
        self, plan: RowPlan, outcomes: Sequence[Outcome | None], *, name: Hashable | None
    ) -> pd.Series[Any]:
        """Return a column under the input's index; rows without an answer are None.

        A row whose answer has tool calls is a list of dicts with ``name``, ``arguments`` and
        ``id``, also where text stands beside them. No two rows share a list.
        """
        cells = np.empty(plan.rows, dtype=object)
        for position, code in enumerate(plan.codes.tolist()):
            outcome = outcomes[code] if code >= 0 else None
            if outcome is not None and outcome.completion is not None:
                cells[position] = calls_of(outcome) or outcome.completion.text
        return pd.Series(cells, index=plan.index, name=name, dtype="object")


def calls_of(outcome: Outcome | None) -> list[ToolCall]:
    """Tool calls of an answer whose payload was kept; empty if it has none.

    Returns
    -------
    list of dict
        Each with ``name``, ``arguments`` and ``id``, made anew. Arguments are the parsed JSON
        object; or the text itself where it is none, as for tools that take free text.
    """
    completion = None if outcome is None else outcome.completion
    return [] if completion is None else read_calls(completion.payload)


def read_calls(payload: Mapping[str, Any] | None) -> list[ToolCall]:
    """Read the tool calls of a ``chat.completion`` object; see `calls_of`.

    Examples
    --------
    >>> call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    >>> read_calls({"choices": [{"message": {"content": None, "tool_calls": [call]}}]})
    [{'name': 'f', 'arguments': {}, 'id': 'c1'}]
    """
    if payload is None:
        return []
    calls = payload["choices"][0]["message"].get("tool_calls")
    if not isinstance(calls, list):
        return []
    return [_read_call(call) for call in calls if isinstance(call, Mapping)]


def tool_calls_frame(plan: RowPlan, outcomes: Sequence[Outcome | None]) -> pd.DataFrame:
    """Return a frame with a line for each tool call of each row.

    Parameters
    ----------
    plan : RowPlan
        The rows.
    outcomes : sequence of Outcome or None
        By request, with their payloads; without them there is no line.

    Returns
    -------
    DataFrame
        Columns ``row`` (position, int64), ``name``, ``arguments`` (dict, or str where it is not
        a JSON object) and ``id``, under the labels of the input's index.
    """
    lines = [
        (position, call["name"], call["arguments"], call["id"])
        for position, code in enumerate(plan.codes.tolist())
        for call in (calls_of(outcomes[code]) if code >= 0 else ())
    ]
    index = plan.index.take([line[0] for line in lines])
    return pd.DataFrame(lines, columns=list(COLUMNS), index=index).astype(COLUMNS)


def _read_call(call: Mapping[str, Any]) -> ToolCall:
    kind = "custom" if isinstance(call.get("custom"), Mapping) else "function"
    asked = call.get(kind)
    asked = asked if isinstance(asked, Mapping) else {}
    arguments = asked.get("input" if kind == "custom" else "arguments")
    if kind == "function":
        arguments = _parsed(arguments)
    return {"name": asked.get("name"), "arguments": arguments, "id": call.get("id")}


def _parsed(arguments: object) -> object:
    """Return the JSON object that arguments are; anything else as it is."""
    # Providers write nothing for a function without parameters.
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return {}
    if not isinstance(arguments, str):
        return deepcopy(arguments)
    try:
        value = load_json(arguments)
    except ValueError:
        return arguments
    return value if isinstance(value, dict) else arguments
