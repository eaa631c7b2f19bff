"""Rendered rows of a plan, to be looked at before they are sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lbgpt_pandas.token_estimates import measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lbgpt_pandas.engine.types import Message
    from lbgpt_pandas.frames import RowPlan
    from lbgpt_pandas.plan_lookups import Stored
    from lbgpt_pandas.token_estimates import PromptRule

SEED = 0


def sampled_rows(
    plan: RowPlan, stored: Stored, rule: PromptRule | None, *, size: int
) -> pd.DataFrame:
    """Draw rows that have a request, always the same ones of a frame.

    Parameters
    ----------
    plan : RowPlan
        The rows.
    stored : Stored
        What the caches have for them.
    rule : PromptRule or None
        By which tokens are estimated; None where there is no request.
    size : int
        How many rows at most.

    Returns
    -------
    DataFrame
        Under the input's index, in its order: ``prompt``, ``prompt_tokens`` (of a stored answer
        as they were counted, else estimated) and ``cached``, which is NA if that is not known.
    """
    with_request = np.flatnonzero(plan.codes >= 0)
    chosen = with_request
    if len(with_request) > size:
        chosen = np.sort(np.random.default_rng(SEED).choice(with_request, size, replace=False))
    numbers = plan.codes[chosen].tolist()
    tokens = [] if rule is None else rule.tokens(measure(plan.requests, numbers)).tolist()
    is_unknown = stored.near is None or stored.is_sampled
    cached: list[bool | None] = []
    for at, number in enumerate(numbers):
        outcome = stored.outcomes.get(number)
        has_answer = outcome is not None and outcome.completion is not None
        cached.append(None if outcome is None and is_unknown else has_answer)
        if outcome is not None and outcome.completion is not None:
            tokens[at] = outcome.completion.tokens.prompt
    columns = {
        "prompt": pd.array(
            [prompt_text(plan.requests[each].messages) for each in numbers], "string"
        ),
        "prompt_tokens": pd.array(tokens, "Int64"),
        "cached": pd.array(cached, "boolean"),
    }
    return pd.DataFrame(columns, index=plan.index.take(chosen))


def prompt_text(messages: Sequence[Message]) -> str:
    r"""Text of a request's messages; with their roles, unless it is a single user's.

    Examples
    --------
    >>> prompt_text([{"role": "user", "content": "Where is Rome?"}])
    'Where is Rome?'
    >>> prompt_text([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "?"}])
    'system: Be brief.\nuser: ?'
    """
    texts = [_content(message.get("content")) for message in messages]
    if len(messages) == 1 and messages[0].get("role") == "user":
        return texts[0]
    turns = zip(messages, texts, strict=True)
    return "\n".join(f"{message.get('role')}: {text}" for message, text in turns)


def _content(content: object) -> str:
    if not isinstance(content, list):
        return "" if content is None else str(content)
    return "\n".join(map(_part, content))


def _part(part: object) -> str:
    if not isinstance(part, Mapping):
        return str(part)
    return str(part["text"]) if "text" in part else f"[{part.get('type')}]"
