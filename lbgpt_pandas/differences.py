"""Two runs side by side: which rows differ, and in what."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import chain
from os import PathLike
from typing import TYPE_CHECKING, Any

import pandas as pd

from lbgpt_pandas.engine.archive import open_archive
from lbgpt_pandas.engine.caches.envelope import unseal
from lbgpt_pandas.engine.completions import read_completion
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.recording import first_difference, record_of
from lbgpt_pandas.engine.vectors import read_embedding, said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lbgpt_pandas.engine.types import Outcome
    from lbgpt_pandas.manifest import Ended

_COLUMNS = {
    "change": "string",
    "field": "string",
    "left_row": "Int64",
    "right_row": "Int64",
    "left": "string",
    "right": "string",
}

Record = dict[str, object]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs.

    Attributes
    ----------
    keys : list of str or None
        In row order; None where a row has no request.
    statuses : list of str
        ``ok``, ``failed``, ``skipped`` or ``not_run``, in row order; of an archive also the last
        where a near answer was given, which it does not hold.
    answer : callable
        Text of a row, None if it has none.
    request : callable
        Record of a row's request, None where it is not known.
    """

    keys: list[str | None]
    statuses: list[str]
    answer: Callable[[int], str | None]
    request: Callable[[int], Record | None]


def side_of_run(run: Ended, outcomes: Sequence[Outcome | None]) -> Side:
    """Put a run of this process on one side."""
    codes = run.plan.codes.tolist()

    def outcome(position: int) -> Outcome | None:
        return outcomes[codes[position]] if codes[position] >= 0 else None

    def status(position: int) -> str:
        if codes[position] < 0:
            return "failed" if position in run.plan.errors else "skipped"
        found = outcome(position)
        return "not_run" if found is None else "failed" if found.error is not None else "ok"

    def answer(position: int) -> str | None:
        found = outcome(position)
        return said(found.completion) if found and found.completion else None

    def request(position: int) -> Record | None:
        if codes[position] < 0:
            return None
        asked = run.engine.prepare(run.plan.requests[codes[position]])
        return record_of(asked, family=run.engine.family_of(asked))

    keys = [run.batch.keys[code] or None if code >= 0 else None for code in codes]
    return Side(keys, [status(position) for position in range(len(codes))], answer, request)


def side_of_archive(path: str | PathLike[str]) -> Side:
    """Put an exported run on one side.

    Raises
    ------
    ConfigurationError
        If `path` is no path.
    """
    if not isinstance(path, str | PathLike):
        raise ConfigurationError(
            f"{path!r} is no run to compare with; give the report of one (lb.last_run()) or the "
            "path of an archive"
        )
    texts: dict[str, str | None] = {}
    requests: dict[str, Record | None] = {}
    with open_archive(path) as archive:
        manifest = archive.manifest
        for key, envelope, request in archive.entries():
            texts[key], requests[key] = _text(key, envelope), request
    # An archive of a cache has no rows; its answers stand for them.
    keys: list[str | None] = manifest.get("keys") or list(texts)
    failures, unsendable = manifest.get("failures", {}), manifest.get("unsendable", {})

    again = manifest.get("asked_again", {})

    def answer(position: int) -> str | None:
        key = keys[position] or ""
        return None if key in failures else texts.get(again[key][-1] if key in again else key)

    def status(position: int) -> str:
        key = keys[position]
        if key is None:
            return "failed" if str(position) in unsendable else "skipped"
        return "failed" if key in failures else "ok" if key in texts else "not_run"

    return Side(
        keys,
        [status(position) for position in range(len(keys))],
        answer,
        lambda position: requests.get(keys[position] or ""),
    )


def _text(key: str, envelope: str) -> str | None:
    if (vector := read_embedding(key, envelope)) is not None:
        return said(vector)
    payload = unseal(key, envelope)
    return read_completion(payload, messages=(), deployment="", keep_payload=False).text


def difference(left: Side, right: Side) -> pd.DataFrame:
    """Return the rows that differ; see `RunReport.diff`."""
    lines = [
        line for pair in _pairs(left, right) if (line := _line(left, right, *pair)) is not None
    ]
    return pd.DataFrame(lines, columns=list(_COLUMNS)).astype(_COLUMNS)


def _pairs(left: Side, right: Side) -> Iterator[tuple[int | None, int | None]]:
    """Pair rows by position if there are as many, else the k-th of a key with the k-th."""
    if len(left.keys) == len(right.keys):
        yield from ((position, position) for position in range(len(left.keys)))
        return
    places: defaultdict[str | None, list[int]] = defaultdict(list)
    for position in reversed(range(len(right.keys))):
        places[right.keys[position]].append(position)
    for position, key in enumerate(left.keys):
        yield position, places[key].pop() if places[key] else None
    yield from ((None, position) for position in sorted(chain(*places.values())))


def _line(left: Side, right: Side, here: int | None, there: int | None) -> tuple[Any, ...] | None:
    if here is None:
        assert there is not None  # noqa: S101  # a pair has at least one row
        return ("only_right", None, None, there, None, right.answer(there))
    if there is None:
        return ("only_left", None, here, None, left.answer(here), None)
    rows = (here, there, left.answer(here), right.answer(there))
    if left.keys[here] != right.keys[there]:
        if None in (left.keys[here], right.keys[there]):
            return ("status", None, *rows)
        asked, other = left.request(here), right.request(there)
        found = first_difference(asked, other) if asked and other else None
        return ("request", found.field if found else None, *rows)
    if left.statuses[here] != right.statuses[there]:
        return ("status", None, *rows)
    return ("answer", None, *rows) if rows[2] != rows[3] else None
