"""What the caches hold, as figures to be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from lbgpt_pandas.engine.markup import table_html

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from lbgpt_pandas.engine.inventory import Share

_COLUMNS = {
    "entries": "int64",
    "bytes": "int64",
    "oldest": "datetime64[us, UTC]",
    "newest": "datetime64[us, UTC]",
}
_UNITS = ("B", "KB", "MB", "GB", "TB")
_A_UNIT = 1_000


@dataclass(frozen=True, slots=True)
class SemanticInfo:
    """What a semantic cache holds.

    Attributes
    ----------
    location : str
        Where it lies.
    entries : int
        Answered questions.
    embedder : str or None
        What the questions are embedded with; None if it cannot be loaded here.
    threshold : float
        Least cosine similarity of a hit.
    hits, refused : int
        Near hits of this process, and neighbours above the threshold that it refused because
        they differ in a number, a name, a negation or the like.
    """

    location: str
    entries: int
    embedder: str | None
    threshold: float
    hits: int
    refused: int


@dataclass(frozen=True, eq=False)
class CacheInfo:
    """What the cache in force holds; see `AnswerCache.info`.

    Attributes
    ----------
    location : str or None
        Where the exact answers lie; None if there is no exact cache.
    models : mapping of str to Share
        Answers by the model's name in the request; `by_model` is the same as a frame.
    damaged : int
        Entries that are no answers. They are asked anew when their row comes up.
    disk_bytes : int or None
        Size of the database file, which does not shrink when answers are removed; None where
        there is none.
    moved_aside : tuple of str
        Names of damaged databases that were moved aside and lie beside it.
    ttl_s : float or None
        Seconds after which an answer counts as too old; None: never.
    hits, misses, corrupt : int
        Lookups of this process, and damaged entries that it met.
    semantic : SemanticInfo or None
        The cache of near answers; None if there is none.
    """

    location: str | None
    models: Mapping[str, Share]
    damaged: int = 0
    disk_bytes: int | None = None
    moved_aside: tuple[str, ...] = ()
    ttl_s: float | None = None
    hits: int = 0
    misses: int = 0
    corrupt: int = 0
    semantic: SemanticInfo | None = None

    @property
    def entries(self) -> int:
        """How many answers."""
        return sum(share.entries for share in self.models.values())

    @property
    def bytes(self) -> int:
        """Length of all answers with what identifies them."""
        return sum(share.bytes for share in self.models.values())

    @property
    def oldest(self) -> datetime | None:
        """When the first of them was made, in UTC; None if there is none."""
        return min((each.oldest for each in self.models.values() if each.oldest), default=None)

    @property
    def newest(self) -> datetime | None:
        """When the last of them was made, in UTC; None if there is none."""
        return max((each.newest for each in self.models.values() if each.newest), default=None)

    @property
    def by_model(self) -> pd.DataFrame:
        """A frame with a line a model: ``entries``, ``bytes``, ``oldest``, ``newest``."""
        ordered = sorted(self.models.items(), key=lambda item: -item[1].entries)
        lines = [
            (name, each.entries, each.bytes, each.oldest, each.newest) for name, each in ordered
        ]
        frame = pd.DataFrame(lines, columns=["model", *_COLUMNS])
        return frame.astype({"model": "string"} | _COLUMNS).set_index("model")

    def lines(self) -> list[tuple[str, str]]:
        """Label and text of each figure, in reading order."""
        if self.location is None:
            rows = [("answers", "no exact cache")]
        else:
            rows = [("answers", f"{self.entries:,}, {_size(self.bytes)}")]
            rows += [(name, f"{each.entries:,}") for name, each in self.models.items()]
        if self.oldest and self.newest:
            rows.append(("made", f"{_moment(self.oldest)} to {_moment(self.newest)} UTC"))
        if self.ttl_s is not None:
            rows.append(("too old after", f"{self.ttl_s:,.0f} s"))
        if self.disk_bytes is not None:
            rows.append(("on disk", _size(self.disk_bytes)))
        rows.append(("this process", f"{self.hits:,} hits, {self.misses:,} misses"))
        if self.damaged or self.corrupt:
            rows.append(("damaged", f"{self.damaged:,} stored, {self.corrupt:,} met here"))
        rows += [("moved aside", name) for name in self.moved_aside]
        near = self.semantic
        if near is not None:
            rows += [
                ("near answers", f"{near.entries:,} in {near.location}"),
                ("embedder", f"{near.embedder or 'not available'}, from {near.threshold:g} on"),
                ("near hits", f"{near.hits:,} in this process, {near.refused:,} refused"),
            ]
        return rows

    def __repr__(self) -> str:
        if self.location is None:
            return "<CacheInfo: no cache>"
        return f"<CacheInfo {self.entries:,} answers, {_size(self.bytes)}, in {self.location}>"

    def __str__(self) -> str:
        head = f"lbgpt cache · {self.location or 'none'}"
        return "\n".join([head, *(f"  {label:<14}{text}" for label, text in self.lines())])

    def _repr_html_(self) -> str:
        return table_html(f"lbgpt cache · {self.location or 'none'}", self.lines())


def _size(number: float) -> str:
    """Bytes in the largest unit that leaves a number above 1.

    Examples
    --------
    >>> _size(999), _size(1_500_000)
    ('999 B', '1.5 MB')
    """
    power = 0
    while number >= _A_UNIT and power < len(_UNITS) - 1:
        number /= _A_UNIT
        power += 1
    return f"{number:,.{min(power, 1)}f} {_UNITS[power]}"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"
