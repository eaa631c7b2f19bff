"""From values to columns: which dtype a field has, and what does not fit into it."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from lbgpt_pandas.frames import text_array
from lbgpt_pandas.schema_checks import find_option
from lbgpt_pandas.schema_shapes import TEMPORAL, alternatives, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from lbgpt_pandas.schema_shapes import Shape

_INT64 = range(-(2**63), 2**63)
_NUMBERS = {"integer", "number"}
_MOMENTS = {"date", "date-time"}


class Kind(StrEnum):
    """What a column holds; the values name the dtype."""

    INTEGER = "Int64"
    NUMBER = "Float64"
    BOOLEAN = "boolean"
    OPTION = "category"
    TIME = "datetime64[us]"
    INSTANT = "datetime64[us, UTC]"
    TEXT = "str"
    OBJECT = "object"


class Unfit(ValueError):
    """A value that its column cannot hold; the message says why."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a schema and its column.

    Attributes
    ----------
    name : str
        Of the column.
    attribute : str
        Of the pydantic model.
    key : str
        In the JSON object.
    kind : Kind
        What the column holds.
    options : tuple of str, int, float or bool
        Categories of an option.
    """

    name: str
    attribute: str
    key: str
    kind: Kind
    options: tuple[Any, ...] = ()


class Columns(NamedTuple):
    """A frame, and what could not be put into it.

    Attributes
    ----------
    frame : DataFrame
        One column a field.
    errors : dict of int to str
        Position of each row with a value that does not fit, and which; its cell is NA.
    """

    frame: pd.DataFrame
    errors: dict[int, str]


def kind_of(shape: Shape, *, aware: bool = False) -> tuple[Kind, tuple[Any, ...]]:
    """Find what a column of a shape holds, and its categories.

    Options (Literal, Enum) of one union are one category; numbers of both kinds are floats;
    dates and times of day are times. Everything else that is mixed, and all that is nested, is
    object.

    Parameters
    ----------
    shape : dict
        Of the field.
    aware : bool, default False
        Its times have a zone.
    """
    parts = [part for part in alternatives(shape) if part.get("type") != "null"]
    if parts and all("enum" in part for part in parts):
        options = dict.fromkeys(option for part in parts for option in part["enum"])
        return Kind.OPTION, tuple(options)
    if any("enum" in part for part in parts):
        return Kind.OBJECT, ()
    types = {part.get("type") for part in parts}
    formats = {part.get("format") for part in parts}
    kind = Kind.OBJECT
    if types == {"integer"}:
        kind = Kind.INTEGER
    elif types and types <= _NUMBERS:
        kind = Kind.NUMBER
    elif types == {"boolean"}:
        kind = Kind.BOOLEAN
    elif types == {"string"} and formats <= _MOMENTS:
        kind = Kind.INSTANT if aware else Kind.TIME
    elif types == {"string"} and not formats & TEMPORAL:
        kind = Kind.TEXT
    return kind, ()


def fitting(value: object, field: Field) -> object:
    """Return a value as its column takes it; None is NA.

    Raises
    ------
    Unfit
        If the column cannot hold it.
    """
    if value is None or field.kind is Kind.OBJECT:
        return value
    if field.kind is Kind.OPTION:
        found = find_option(value, field.options, exact=True)
    else:
        found = _READERS[field.kind](value)
    if found is None:
        raise Unfit(f"{_written(value)} does not fit a column of {field.kind}")
    return found


def make_columns(
    rows: Sequence[Mapping[str, object] | None],
    fields: Sequence[Field],
    *,
    index: pd.Index[Any],
    prefix: str,
) -> Columns:
    """Put rows into columns, by position.

    Raises
    ------
    ValueError
        If there are not as many rows as places in the index.
    """
    if len(rows) != len(index):
        raise ValueError(f"{len(rows)} rows for an index of {len(index)}")
    problems: dict[int, list[str]] = {}
    columns = {}
    for field in fields:
        cells = np.empty(len(rows), dtype=object)
        for position, row in enumerate(rows):
            if row is None:
                continue
            try:
                cells[position] = fitting(row.get(field.name), field)
            except Unfit as error:
                problems.setdefault(position, []).append(f"{field.name}: {error}")
        columns[prefix + field.name] = _series(cells, field)
    frame = pd.DataFrame(columns, index=pd.RangeIndex(len(rows)))
    frame.index = index
    return Columns(frame, {row: "; ".join(problems[row]) for row in sorted(problems)})


def _series(cells: np.ndarray[Any, np.dtype[np.object_]], field: Field) -> pd.Series[Any]:
    match field.kind:
        case Kind.OPTION:
            return pd.Series(option_array(cells, field.options))
        case Kind.TIME:
            return pd.Series(cells.astype("datetime64[us]"))
        case Kind.INSTANT:
            return pd.Series(cells.astype("datetime64[us]")).dt.tz_localize("UTC")
        case Kind.TEXT:
            return pd.Series(text_array(cells))
        case Kind.OBJECT:
            return pd.Series(cells, dtype=object)
    dtype: Any = str(field.kind)
    column: pd.Series[Any] = pd.Series(cells).astype(dtype)
    return column


def option_array(cells: Iterable[object], options: Sequence[object]) -> pd.Categorical:
    """Make a category column; what is none of the options is NA.

    Examples
    --------
    >>> option_array(["b", None], ["a", "b"]).codes.tolist()
    [1, -1]
    """
    codes = {option: code for code, option in enumerate(options)}
    dtype = option_dtype(options)
    return pd.Categorical.from_codes([codes.get(cell, -1) for cell in cells], dtype=dtype)


def option_dtype(options: Sequence[object]) -> pd.CategoricalDtype:
    """Return the dtype with all options as categories, in order."""
    is_mixed = len({type(option) for option in options}) > 1
    return pd.CategoricalDtype(pd.Index(list(options), dtype=object if is_mixed else None))


def _integer(value: object) -> int | None:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return value if is_integer and value in _INT64 else None  # type: ignore[return-value]  # an int


def _float(value: object) -> float | None:
    if not isinstance(value, int | float | Decimal) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _moment(value: object) -> dt.datetime | None:
    """Return a time without zone: what has one in UTC, a date at midnight."""
    if isinstance(value, dt.datetime):
        try:
            return value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value
        except OverflowError:  # within a day of the first or last date
            return None
    return dt.datetime.combine(value, dt.time()) if isinstance(value, dt.date) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _written(value: object) -> str:
    return shown(value if isinstance(value, str | int | float) else str(value))


_READERS: dict[Kind, Callable[[object], object]] = {
    Kind.INTEGER: _integer,
    Kind.NUMBER: _float,
    Kind.BOOLEAN: _boolean,
    Kind.TIME: _moment,
    Kind.INSTANT: _moment,
    Kind.TEXT: _text,
}
"""Each returns the value as its column takes it, None where it does not."""
