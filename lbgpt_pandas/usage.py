"""What calls have cost and what may still be sent, as frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import pandas as pd

from lbgpt_pandas.engine.accounts import SESSION_BOOK, Ledger
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.instants import instant
from lbgpt_pandas.resolution import known_engines
from lbgpt_pandas.settings import check_choice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from lbgpt_pandas.engine.accounts import UsageRow

Level = Literal["model", "deployment", "day", "minute"]

_USAGE = {
    "requests": "int64",
    "prompt_tokens": "int64",
    "completion_tokens": "int64",
    "total_tokens": "int64",
    "cached_tokens": "int64",
    "cost_usd": "Float64",
    "saved_usd": "Float64",
    "estimated_usd": "Float64",
}
_HEADROOM = {
    "requests": "Float64",
    "tokens": "Float64",
    "fraction": "float64",
    "in_flight": "int64",
    "next_free_s": "float64",
    "blocked_until": "datetime64[us, UTC]",
    "source": "string",
}
_UTC = "datetime64[s, UTC]"
_LEVELS = {"model": "string", "deployment": "string", "day": _UTC, "minute": _UTC}


def usage(
    by: Level | Sequence[Level] = ("model", "deployment"),
    since: datetime | timedelta | str | None = None,
) -> pd.DataFrame:
    """What the calls of this process have used, and what they cost.

    Parameters
    ----------
    by : {"model", "deployment", "day", "minute"} or sequence of them
        Levels of the index. Days and minutes are those of UTC.
    since : datetime, timedelta or str, optional
        Leave out earlier calls, to the minute: a point in time (without a time zone: local
        time), or how long ago. A str is either of them as pandas reads it: ``"2026-11-01"``,
        ``"2 hours"``.

    Returns
    -------
    DataFrame
        ``requests``, ``prompt_tokens``, ``completion_tokens``, ``total_tokens`` and
        ``cached_tokens`` (the part of the prompts that came from the provider's own cache) of
        all calls that were charged or may have been. At list price, NA if that of one of the
        calls is unknown: ``cost_usd`` for calls as the provider counted them; ``estimated_usd``
        for calls that failed and may have been charged, or whose answer did not say what it
        used; ``saved_usd`` for answers that needed no call, from a cache or an equal row.

    Raises
    ------
    ConfigurationError
        If `by` or `since` is not understood.

    Examples
    --------
    >>> import pandas as pd
    >>> from lbgpt_pandas.testing import ScriptedGPT
    >>> cities = pd.Series(["Paris", "Lyon"])
    >>> engine = ScriptedGPT("France", name="usage-example")
    >>> answers = cities.lbgpt.complete("{}?", engine=engine, cache_mode="off")
    >>> int(usage("deployment", since="1 hour").loc["usage-example", "requests"])
    2
    """
    levels: list[str] = [by] if isinstance(by, str) else list(by)
    if not levels or len(set(levels)) < len(levels):
        raise ConfigurationError(f"by={by!r}: name one or more different levels")
    for level in levels:
        check_choice("by", level, get_args(Level))
    groups: dict[tuple[object, ...], tuple[Ledger, Ledger, Ledger]] = {}
    for row in SESSION_BOOK.rows(None if since is None else instant(since, keyword="since")):
        values = _level_values(row)
        group = tuple(values[level] for level in levels)
        sums = groups.setdefault(group, (Ledger(), Ledger(), Ledger()))
        for total, part in zip(sums, (row.billed, row.saved, row.estimated), strict=True):
            total.add(part)
    ordered = sorted(groups.items(), key=lambda item: item[0])
    lines = [(*group, *_figures(*ledgers)) for group, ledgers in ordered]
    frame = pd.DataFrame(lines, columns=[*levels, *_USAGE])
    return frame.astype({level: _LEVELS[level] for level in levels} | _USAGE).set_index(levels)


def _level_values(row: UsageRow) -> dict[str, object]:
    return {
        "model": row.model,
        "deployment": row.deployment,
        "minute": row.minute,
        "day": row.minute.replace(hour=0, minute=0),
    }


def _figures(billed: Ledger, saved: Ledger, estimated: Ledger) -> tuple[object, ...]:
    prompt = billed.prompt + estimated.prompt
    completion = billed.completion + estimated.completion
    return (
        billed.requests + estimated.requests,
        prompt,
        completion,
        prompt + completion,
        billed.cached + estimated.cached,
        *(pd.NA if ledger.usd is None else ledger.usd for ledger in (billed, saved, estimated)),
    )


def headroom() -> pd.DataFrame:
    """What each deployment may still send, calls in flight counted as sent.

    Returns
    -------
    DataFrame
        A row a deployment, by name: ``requests`` and ``tokens`` that may be sent at once (NA
        without a limit), ``fraction`` (free share of the scarcest limit, from 0 to 1),
        ``in_flight``, ``next_free_s`` (seconds until the next request may start),
        ``blocked_until`` (if the provider asked to wait or it rests after failures) and
        ``source`` of the limits (``local`` or ``header``). It lists the configured engine, the
        environment's, and those that were given to calls and are still in use.

    Examples
    --------
    >>> from lbgpt_pandas.engine import ChatGPT
    >>> from lbgpt_pandas.settings import using
    >>> with using(ChatGPT("sk-...", limit_rpm=500, name="headroom-example")):
    ...     float(headroom().loc["headroom-example", "requests"])
    500.0
    """
    deployments = dict.fromkeys(
        deployment for engine in known_engines() for deployment in engine.deployments()
    )
    rooms = [deployment.headroom() for deployment in deployments]
    lines = [(room.deployment, *(getattr(room, name) for name in _HEADROOM)) for room in rooms]
    frame = pd.DataFrame(lines, columns=["deployment", *_HEADROOM])
    return frame.astype({"deployment": "string"} | _HEADROOM).set_index("deployment")
