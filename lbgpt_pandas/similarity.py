"""How alike vectors are: all pairs, or the nearest of each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lbgpt_pandas.engine.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

METRICS = ("cosine", "dot")

MOST_PAIRS = 500_000_000
"""Pairs of a whole matrix, which then takes 2 GB."""

CELLS_A_BLOCK = 8_000_000
"""Similarities that stand side by side where only the nearest are kept."""

FAISS_FROM = 50_000_000
"""Pairs from which on FAISS is worth a thread of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Vectors under their labels.

    Attributes
    ----------
    matrix : ndarray of float32, shape (n, d)
        Of those rows that have one.
    places : ndarray of int64, of length n
        Positions of these rows.
    index : Index
        Of all rows.
    """

    matrix: Floats
    places: NDArray[np.int64]
    index: pd.Index[Any]

    @classmethod
    def of(cls, given: object, *, what: str) -> Vectors:
        """Read a column of arrays, a matrix, a list of vectors, or a single vector.

        Raises
        ------
        ConfigurationError
            If it is none of these, if vectors are of different lengths, or a number is not
            finite; says which row.
        """
        if isinstance(given, pd.Series):
            index, rows = given.index, given.tolist()
        elif isinstance(given, pd.DataFrame | str | dict) or given is None:
            raise ConfigurationError(
                f"{what}={type(given).__name__}: give a column of vectors as embed returns it, or "
                "a matrix with a row for each"
            )
        else:
            rows = _rows(given, what=what)
            index = pd.RangeIndex(len(rows))
        places = [place for place, row in enumerate(rows) if not _is_missing(row)]
        matrix = _matrix([rows[place] for place in places], places, what=what)
        return cls(matrix, np.array(places, dtype=np.int64), index)

    def scaled(self) -> Floats:
        """Return the vectors with length 1; one of zeros stays one."""
        # In 64 bits, in which no square overflows.
        lengths = np.sqrt(np.einsum("ij,ij->i", self.matrix, self.matrix, dtype=np.float64))
        lengths[lengths == 0] = 1.0
        scaled: Floats = (self.matrix / lengths[:, None]).astype(np.float32)
        return scaled


def similarity(
    a: object, b: object = None, *, k: int | None = None, metric: str = "cosine"
) -> pd.DataFrame:
    """Compare vectors with each other.

    Parameters
    ----------
    a : Series of arrays, 2-D array, or list of vectors
        What ``df.lbgpt.embed`` returned, with n rows; a single vector is one row.
    b : as `a`, optional
        What it is compared with, with m rows; by default `a` itself.
    k : int, optional
        Only the `k` nearest of each row of `a`. Without `b` a row is not its own neighbour.
    metric : {"cosine", "dot"}, default "cosine"
        Cosine of the angle, from -1 to 1 (0 for a vector of zeros), or the inner product.

    Returns
    -------
    DataFrame
        Without `k`: all pairs as float32, a line for each row of `a` and a column for each of
        `b`, under their indexes; NaN where there is no vector.
        With `k`: ``min(k, m)`` lines for each row of `a`, nearest first, under its label:
        ``rank`` (from 1), ``match`` (label in `b`), ``position`` (in `b`) and ``similarity``;
        NA where there is no vector or no further neighbour. Large ones are searched with FAISS
        if it is installed; of equally near ones any come first.

    Raises
    ------
    ConfigurationError
        If the vectors of `a` and `b` have different lengths (another model), if something is no
        vector, or all pairs would take more than 2 GB.

    Examples
    --------
    >>> shades = pd.Series([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], index=["red", "pink", "blue"])
    >>> similarity(shades)
          red  pink  blue
    red   1.0   0.8   0.0
    pink  0.8   1.0   0.6
    blue  0.0   0.6   1.0
    >>> similarity(shades, k=1)[["match", "similarity"]]
         match  similarity
    red   pink         0.8
    pink   red         0.8
    blue  pink         0.6
    """
    if metric not in METRICS:
        raise ConfigurationError(f"metric={metric!r} is not {' or '.join(map(repr, METRICS))}")
    if k is not None and (not isinstance(k, int | np.integer) or k is True or k < 1):
        raise ConfigurationError(f"k={k!r}: give a whole number of at least 1")
    left = Vectors.of(a, what="a")
    right = left if b is None else Vectors.of(b, what="b")
    if left.matrix.size and right.matrix.size and left.matrix.shape[1] != right.matrix.shape[1]:
        raise ConfigurationError(
            f"vectors of a have {left.matrix.shape[1]:,} numbers, those of b "
            f"{right.matrix.shape[1]:,}: embed both with the same model and dimensions"
        )
    if k is None:
        return _all_pairs(left, right, metric=metric)
    return _nearest(left, right, int(k), metric=metric, itself=b is not None)


def _all_pairs(left: Vectors, right: Vectors, *, metric: str) -> pd.DataFrame:
    rows, columns = len(left.index), len(right.index)
    if rows * columns > MOST_PAIRS:
        raise ConfigurationError(
            f"{rows:,} x {columns:,} similarities take {rows * columns * 4 / 1e9:,.0f} GB; give "
            "k= for the nearest of each row only"
        )
    pairs = np.full((rows, columns), np.nan, dtype=np.float32)
    if left.matrix.size and right.matrix.size:
        one, other = _comparable(left, right, metric=metric)
        found = one @ other.T
        if found.shape == pairs.shape:
            pairs = found
        else:
            pairs[np.ix_(left.places, right.places)] = found
    return pd.DataFrame(pairs, index=left.index, columns=right.index, copy=False)


def _nearest(left: Vectors, right: Vectors, k: int, *, metric: str, itself: bool) -> pd.DataFrame:
    width = min(k, max(0, len(right.index) - (not itself)))
    positions = np.full((len(left.index), width), -1, dtype=np.int64)
    scores = np.full(positions.shape, np.nan, dtype=np.float32)
    # One more, because the row itself is among them.
    wanted = min(width + (not itself), len(right.places))
    if wanted and len(left.places):
        found, near = _search(*_comparable(left, right, metric=metric), wanted)
        if not itself:
            found, near = _without_itself(found, near)
        held = found.shape[1]
        positions[left.places, :held] = right.places[found]
        scores[left.places, :held] = near
    return _lines(positions, scores, left.index, right.index)


def _lines(
    positions: NDArray[np.int64], scores: Floats, rows: pd.Index[Any], labels: pd.Index[Any]
) -> pd.DataFrame:
    width = positions.shape[1]
    flat = positions.ravel()
    is_none = flat < 0
    return pd.DataFrame(
        {
            "rank": np.tile(np.arange(1, width + 1), len(rows)),
            "match": _labels(labels, flat, is_none=is_none),
            "position": pd.arrays.IntegerArray(np.where(is_none, 0, flat), is_none),
            "similarity": scores.ravel(),
        },
        index=rows.repeat(width),
    )


def _labels(labels: pd.Index[Any], flat: NDArray[np.int64], *, is_none: NDArray[np.bool_]) -> Any:
    """Take labels in their own dtype; whole numbers and booleans in one that has NA."""
    column = pd.Series(
        labels.to_flat_index() if isinstance(labels, pd.MultiIndex) else labels, dtype=labels.dtype
    )
    if isinstance(labels.dtype, np.dtype) and labels.dtype.kind in "iub":
        column = column.convert_dtypes()
    return column.array.take(flat, allow_fill=bool(is_none.any()))


def _comparable(left: Vectors, right: Vectors, *, metric: str) -> tuple[Floats, Floats]:
    """Return matrices whose inner products are the similarities."""
    if metric == "dot":
        return left.matrix, right.matrix
    one = left.scaled()
    return one, one if right is left else right.scaled()


def _search(queries: Floats, among: Floats, k: int) -> tuple[NDArray[np.int64], Floats]:
    """Return rows of `among` and their similarities, nearest first."""
    if len(queries) * len(among) >= FAISS_FROM and find_spec("faiss") is not None:
        # FAISS starts threads that a process forked from this one would wait for; see VectorIndex.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="lbgpt-faiss") as thread:
            return thread.submit(_search_faiss, queries, among, k).result()
    found = np.empty((len(queries), k), dtype=np.int64)
    near = np.empty((len(queries), k), dtype=np.float32)
    step = max(1, CELLS_A_BLOCK // len(among))
    for start in range(0, len(queries), step):
        block = queries[start : start + step] @ among.T
        chosen = np.argpartition(block, len(among) - k, axis=1)[:, len(among) - k :]
        scores = np.take_along_axis(block, chosen, axis=1)
        # By similarity, and by position where that is the same.
        order = np.lexsort((chosen, -scores), axis=1)
        found[start : start + step] = np.take_along_axis(chosen, order, axis=1)
        near[start : start + step] = np.take_along_axis(scores, order, axis=1)
    return found, near


def _search_faiss(queries: Floats, among: Floats, k: int) -> tuple[NDArray[np.int64], Floats]:
    import faiss  # noqa: PLC0415  # an extra, loaded where there is much to be searched

    index = faiss.IndexFlatIP(among.shape[1])
    index.add(np.ascontiguousarray(among))
    near, found = index.search(np.ascontiguousarray(queries), k)
    return found, near


def _without_itself(found: NDArray[np.int64], near: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Leave each row out of its own neighbours; the last one where it is not among them."""
    is_itself = found == np.arange(len(found))[:, None]
    is_itself[~is_itself.any(axis=1), -1] = True
    shape = len(found), found.shape[1] - 1
    return found[~is_itself].reshape(shape), near[~is_itself].reshape(shape)


def _rows(given: Any, *, what: str) -> list[Any]:
    if isinstance(given, np.ndarray) and given.dtype != object:
        return list(np.atleast_2d(given))
    try:
        rows = list(given)
    except TypeError:
        raise ConfigurationError(f"{what}={type(given).__name__} holds no vectors") from None
    return [np.asarray(rows)] if rows and all(map(np.isscalar, rows)) else rows


def _is_missing(row: object) -> bool:
    return row is None or row is pd.NA or (isinstance(row, float) and np.isnan(row))


def _matrix(rows: list[Any], places: list[int], *, what: str) -> Floats:
    if not rows:
        return np.empty((0, 0), dtype=np.float32)
    try:
        matrix = np.asarray(rows, dtype=np.float32)
    except (TypeError, ValueError):
        matrix = np.empty(0, dtype=np.float32)
    if matrix.ndim != 2:  # noqa: PLR2004  # rows and columns
        raise ConfigurationError(_odd_row(rows, places, what=what))
    is_finite = np.isfinite(matrix).all(axis=1)
    if not is_finite.all():
        place = places[int(np.argmin(is_finite))]
        raise ConfigurationError(f"row {place} of {what} has a number that is not finite")
    return matrix


def _odd_row(rows: list[Any], places: list[int], *, what: str) -> str:
    """Say which row is no vector, or not as long as the first."""
    lengths = []
    for place, row in zip(places, rows, strict=True):
        try:
            vector = np.asarray(row, dtype=np.float32)
        except (TypeError, ValueError):
            vector = np.empty((0, 0), dtype=np.float32)
        if vector.ndim != 1:
            return f"row {place} of {what} is no vector but a {type(row).__name__}"
        lengths.append(len(vector))
        if lengths[-1] != lengths[0]:
            return (
                f"row {place} of {what} has {lengths[-1]:,} numbers, row {places[0]} has "
                f"{lengths[0]:,}: embed all rows with the same model and dimensions"
            )
    return f"{what} holds no vectors"
