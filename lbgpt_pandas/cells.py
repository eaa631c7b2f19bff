"""From a cell to text: one rule for every kind of template, the same on pandas 2 and 3."""

from __future__ import annotations

import datetime as dt
import json
import math
import reprlib
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from functools import singledispatch
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from lbgpt_pandas.engine.errors import InvalidInput

if TYPE_CHECKING:
    from pandas.api.extensions import ExtensionArray

_PLAIN = frozenset({str, int, float, bool})
_NUMERIC_TYPES = "dfeg%"
_HAS_NAN = np.inexact, np.datetime64, np.timedelta64, Decimal
_DOUBLE_BYTES = 8


class FormatMismatch(ValueError):
    """A format spec that does not fit a cell; `offset` is its place, `kind` its type's name."""

    def __init__(self, offset: int, value: object) -> None:
        super().__init__(f"a {type(value).__name__}")
        self.offset = offset
        self.kind = type(value).__name__


def is_missing(value: object) -> bool:
    """Tell whether a cell is NA: None, NaN, ``pd.NA`` or ``NaT``; never so for a container."""
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    if isinstance(value, float):
        return math.isnan(value)
    return isinstance(value, _HAS_NAN) and bool(cast("Any", pd).isna(value))


@singledispatch
def cell_text(value: object) -> str:
    """Text of a cell as it stands in a prompt. This is the whole rule.

    ==========================  ==================================================
    Cell                        Text
    ==========================  ==================================================
    str                         as it is: never parsed, stripped or normalised
    int, float, bool            ``str()``: ``3``, ``3.0``, ``True``
    numpy scalar                its Python value; float16 and float32 as numpy writes them (``0.1``)
    Categorical, Arrow, sparse  its Python value, then as here
    Timestamp, date, time       ISO 8601: ``2024-05-01T00:00:00+02:00``
    Timedelta                   as pandas writes it: ``1 days 00:00:00``
    Decimal, UUID, Path         ``str()``
    Enum                        text of its value
    list, tuple, dict, array    JSON, non-ASCII kept; what is NA inside is ``null``
    set                         JSON list, sorted
    other objects               ``str()``, if their class defines one (Period, Interval)
    ==========================  ==================================================

    A cell that is NA itself never gets here: `na` decides on it.

    Parameters
    ----------
    value : object
        The cell.

    Returns
    -------
    str

    Raises
    ------
    InvalidInput
        For bytes, and for an object whose only text is its address in memory.

    Examples
    --------
    >>> cell_text(["a", None, 1.5])
    '["a", null, 1.5]'
    """
    inner = _unwrapped(value)
    if inner is not value:
        return cell_text(inner)
    kind = type(value)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        raise InvalidInput(
            f"{kind.__name__} objects have no text; turn it into a str or a number first"
        )
    return str(value)


@cell_text.register
def _(value: str) -> str:
    return str.__str__(value)


@cell_text.register
def _(value: bool) -> str:  # noqa: FBT001  # singledispatch calls it with the cell
    return str(value)


@cell_text.register
def _(value: int) -> str:
    return int.__repr__(value)


@cell_text.register
def _(value: float) -> str:
    return float.__repr__(value)


@cell_text.register
def _(value: bytes | bytearray | memoryview) -> str:
    raise InvalidInput(
        f"{type(value).__name__} cannot be sent as text; decode the column first, for example "
        "with .str.decode('utf-8')"
    )


@cell_text.register
def _(value: dt.date | dt.time) -> str:
    return value.isoformat()


@cell_text.register
def _(value: dt.timedelta) -> str:
    return str(value if isinstance(value, pd.Timedelta) else pd.Timedelta(value))


@cell_text.register(Mapping)
@cell_text.register(list)
@cell_text.register(tuple)
@cell_text.register(set)
@cell_text.register(frozenset)
@cell_text.register(np.ndarray)
def _(value: object) -> str:
    return json.dumps(cell_value(value), ensure_ascii=False)


def native(value: object) -> object:
    """Python value of a numpy scalar; everything else as it is.

    float16 and float32 become the shortest decimal that they stand for, 0.1 and not
    0.10000000149011612; datetime64 and timedelta64 become Timestamp and Timedelta.
    """
    if not isinstance(value, np.generic):
        return value
    if isinstance(value, np.datetime64):
        return pd.Timestamp(value)
    if isinstance(value, np.timedelta64):
        return pd.Timedelta(value)
    if isinstance(value, np.floating):
        return float(str(value)) if value.itemsize < _DOUBLE_BYTES else float(value)
    if isinstance(value, np.complexfloating):
        return complex(value)
    return value.item()


def _unwrapped(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    return value.as_py() if hasattr(value, "as_py") else native(value)


def cell_value(value: object) -> Any:
    """Turn a cell into plain data: str, int, float, bool, None, and lists and dicts of them.

    What JSON does not know becomes its `cell_text`, so that a Decimal is a str.

    Raises
    ------
    InvalidInput
        As `cell_text`, for anything inside.
    """
    if is_missing(value):
        return None
    if type(value) in _PLAIN:
        return value
    inner = _unwrapped(value)
    if inner is not value:
        return cell_value(inner)
    plain: Any
    match value:
        case Mapping():
            plain = {cell_text(key): cell_value(each) for key, each in value.items()}
        case list() | tuple():
            plain = [cell_value(each) for each in value]
        case set() | frozenset():
            plain = sorted(map(cell_value, value), key=json.dumps)
        case np.ndarray():
            plain = cell_value(value.tolist())
        case int() | float():
            plain = int(value) if isinstance(value, int) else float(value)
        case _:
            plain = cell_text(value)
    return plain


def format_cell(value: object, spec: str) -> str:
    """Text of a cell under a format spec such as ``.2f`` or ``>10``.

    A whole float passes for an int under ``d``, because a column of ints with NA is one of
    floats. Without a numeric type in `spec`, what is not a number is aligned as text.

    Raises
    ------
    ValueError
        If the spec does not fit the value.
    InvalidInput
        As `cell_text`.
    """
    value = native(value)
    if not spec:
        return cell_text(value)
    numeric = spec[-1] in _NUMERIC_TYPES
    if numeric and isinstance(value, str):
        raise ValueError(f"{spec!r} is for numbers, the cell holds a {type(value).__name__}")
    if spec[-1] == "d" and isinstance(value, float) and value.is_integer():
        value = int(value)
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, Enum)
    if is_number and (numeric or not isinstance(value, bool)) and spec[-1] != "s":
        return format(value, spec)
    if numeric:
        raise ValueError(f"{spec!r} is for numbers, the cell holds a {type(value).__name__}")
    return format(cell_text(value), spec)


def format_fill(fill: str, spec: str) -> str:
    """Text that replaces NA, aligned as a text cell; numeric specs leave it alone."""
    return fill if not spec or spec[-1] in _NUMERIC_TYPES else format(fill, spec)


def column_values(array: ExtensionArray) -> tuple[list[Any], list[int]]:
    """Python values of part of a column.

    Parameters
    ----------
    array : ExtensionArray of length n
        As ``Series.array`` or ``Index.array`` gives it, of any dtype.

    Returns
    -------
    values : list of length n
        A new list; the cells of object columns are the objects themselves.
    missing : list of int
        Offsets of the cells that are NA, whose values mean nothing.
    """
    missing = np.flatnonzero(_missing(array)).tolist()
    if _is_narrow(array.dtype):
        narrow = np.asarray(array.to_numpy(dtype=np.float32, na_value=np.nan))
        return [float(str(each)) for each in narrow], missing
    if isinstance(array.dtype, pd.ArrowDtype) and array.dtype.pyarrow_dtype.num_fields:
        # Through numpy a nested [1, null] would come back as [1.0, nan].
        return list(array), missing
    if isinstance(array, pd.arrays.NumpyExtensionArray):
        return np.asarray(array).tolist(), missing
    return np.asarray(array, dtype=object).tolist(), missing


def _missing(array: ExtensionArray) -> np.ndarray[Any, Any]:
    """Tell which cells are NA, or the NaN of a nullable or Arrow column of floats."""
    missing: np.ndarray[Any, Any] = np.array(array.isna())
    if isinstance(array, pd.arrays.NumpyExtensionArray) or not pd.api.types.is_float_dtype(
        array.dtype
    ):
        return missing
    # 0 / 0 of such columns is a NaN that isna() does not see.
    missing |= np.isnan(array.to_numpy(dtype=np.float64, na_value=np.nan))
    return missing


def _is_narrow(dtype: Any) -> bool:
    """Tell whether a dtype is float16 or float32, whose Python floats show spurious digits."""
    dtype = dtype.subtype if isinstance(dtype, pd.SparseDtype) else dtype
    return pd.api.types.is_float_dtype(dtype) and dtype.itemsize < _DOUBLE_BYTES


def column_texts(
    array: ExtensionArray, *, spec: str = "", fill: str = ""
) -> tuple[list[str], list[int], dict[int, InvalidInput]]:
    """Texts of part of a column.

    Parameters
    ----------
    array : ExtensionArray of length n
        As for `column_values`.
    spec : str, optional
        Format spec for each cell.
    fill : str, optional
        Stands where a cell is NA.

    Returns
    -------
    texts : list of str, of length n
    missing : list of int
        Offsets of the cells that are NA.
    faulty : dict of int to InvalidInput
        Offsets of the cells that cannot be sent.

    Raises
    ------
    FormatMismatch
        If the spec does not fit a cell.
    """
    values, missing = column_values(array)
    fill = format_fill(fill, spec)
    for offset in missing:
        values[offset] = fill
    kinds = set(map(type, values))
    if not spec and kinds <= {str}:
        return values, missing, {}
    if not spec and kinds <= _PLAIN:
        return list(map(str, values)), missing, {}
    faulty: dict[int, InvalidInput] = {}
    texts = []
    absent = frozenset(missing)
    for offset, value in enumerate(values):
        text = fill
        if offset not in absent:
            try:
                text = format_cell(value, spec)
            except InvalidInput as error:
                faulty[offset] = error
            except RecursionError as error:
                faulty[offset] = InvalidInput("a container that holds itself has no text")
                faulty[offset].__cause__ = error
            except ValueError as error:
                if not spec:
                    faulty[offset] = InvalidInput(f"has no text: {error}")
                else:
                    raise FormatMismatch(offset, value) from error
        texts.append(text)
    return texts, missing, faulty


def short(value: object) -> str:
    """Repr of a name or label for a message, cut where it is long.

    Examples
    --------
    >>> import numpy as np
    >>> short(np.int64(7))
    '7'
    """
    return reprlib.repr(value.item() if isinstance(value, np.generic) else value)
