"""A miss of replay, told for the row that it concerns."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from lbgpt_pandas.cells import short
from lbgpt_pandas.engine.errors import CacheMiss, ConfigurationError
from lbgpt_pandas.engine.recording import NOT_STORED, Recording, first_difference, record_of
from lbgpt_pandas.manifest import identity_of
from lbgpt_pandas.registry import registry

if TYPE_CHECKING:
    from typing import Any

    from lbgpt_pandas.manifest import Ended

_RUNS_COMPARED = 200


def explained(miss: CacheMiss, run: Ended) -> CacheMiss:
    """Return the error with the first row, why it has no answer, and what to do.

    Parameters
    ----------
    miss : CacheMiss
        As the engine raised it.
    run : Ended
        The run that it ended.
    """
    if not miss.numbers:
        return miss
    recording = run.caching.recording or Recording(where="the cache")
    plan, number = run.plan, miss.numbers[0]
    position = int(np.flatnonzero(plan.codes == number)[0])
    request = run.engine.prepare(plan.requests[number])
    reason = recording.reason(
        record_of(request, family=run.engine.family_of(request)),
        key=run.batch.keys[number],
        position=position,
        answered={outcome.key for outcome in run.batch.outcomes if outcome},
    )
    rows = int(np.isin(plan.codes, miss.numbers).sum()) - 1
    are = "row is" if rows == 1 else "rows are"
    more = f"; {rows:,} more {are} missing as well" if rows else ""
    if reason == NOT_STORED:
        reason = _by_registry(run) or reason
    error = CacheMiss(
        f"row {position} (index {short(plan.index[position])}) is not in {recording.where}: "
        f"{reason}"
        f'{more}. Replay asks nobody; without it, with cache_mode="use", such rows are asked'
    )
    error.numbers = miss.numbers
    return error


def _by_registry(run: Ended) -> str | None:
    """Say what is different from the run that was most like this one; a cache has no requests."""
    here = identity_of(run)
    earlier: list[dict[str, Any]] = []
    with suppress(ConfigurationError):
        earlier = registry().all(limit=_RUNS_COMPARED, repair=False)
    answered = [about for about in earlier if _is_answered(about)]
    if not answered:
        return None

    def likeness(about: dict[str, Any]) -> int:
        there = _identity(about)
        return sum(here[name] == there[name] for name in here)

    nearest = max(answered, key=likeness)
    difference = first_difference({"params": here}, {"params": _identity(nearest)})
    name = f"run {nearest['id']}"
    if difference is None:
        return f"{NOT_STORED}; template and parameters are those of {name}, so the row is another"
    return f"{difference.field}: {difference.here} here, {difference.there} in {name}"


def _is_answered(about: dict[str, Any]) -> bool:
    """Tell whether a registered run asked somebody, and is one of ours."""
    try:
        _identity(about)
    except (KeyError, TypeError):
        return False
    return about.get("cache_mode") in ("use", "refresh") and "id" in about


def _identity(about: dict[str, Any]) -> dict[str, object]:
    return {
        "family": about["engine"]["family"],
        "model": about["model"],
        "params": about["params"],
        "system": about["system"],
        "template": about["template"],
    }
