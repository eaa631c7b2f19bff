"""A miss of replay, told for the row that it concerns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lbgpt_pandas.engine.errors import CacheMiss
from lbgpt_pandas.engine.recording import Recording, record_of

if TYPE_CHECKING:
    from lbgpt_pandas.manifest import Ended


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
        key=run.batch.key(number),
        position=position,
        answered={outcome.key for outcome in run.batch.outcomes if outcome},
    )
    rows = int(np.isin(plan.codes, miss.numbers).sum()) - 1
    more = f"; {rows:,} more rows are missing as well" if rows else ""
    error = CacheMiss(
        f"row {position} (index {plan.index[position]!r}) is not in {recording.where}: {reason}"
        f'{more}. Replay asks nobody; without it, with cache_mode="use", such rows are asked'
    )
    error.numbers = miss.numbers
    return error
