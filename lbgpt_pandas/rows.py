"""What templates read: the names of a frame, blocks of its rows, and single rows."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from lbgpt_pandas.cells import (
    FormatMismatch,
    column_texts,
    column_values,
    is_missing,
    native,
    short,
)
from lbgpt_pandas.engine.errors import InvalidInput, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from pandas.api.extensions import ExtensionArray

BLOCK_ROWS = 16_384
"""Rows that are rendered at a time, so that the texts of a long frame never stand side by side."""

INDEX, VALUE, BARE = "index", "value", ""
_REPEATED = -1
_SUGGESTIONS, _LISTED = 3, 8


class MissingCell(Exception):
    """A cell that is NA was used; its message is the field. Never leaves the package."""


class FieldNames:
    """The names that a template may use, each with the number of what it stands for.

    Parameters
    ----------
    labels : sequence of hashable, of length m
        Labels of the columns, numbered from 0. Those that are no str match by their ``str()``.
    further : mapping of hashable to int, optional
        Other names, which give way to columns: the index, its levels, ``value``.
    """

    def __init__(
        self, labels: Iterable[Hashable], *, further: Mapping[Hashable, int] | None = None
    ) -> None:
        self.labels = tuple(labels)
        self._places: dict[Hashable, int] = {}
        self._add(self.labels)
        self._add([label if isinstance(label, str) else str(label) for label in self.labels])
        for name, place in (further or {}).items():
            self._places.setdefault(name, place)
            self._places.setdefault(str(name), place)

    def _add(self, names: list[str] | tuple[Hashable, ...]) -> None:
        counts = Counter(names)
        for place, name in enumerate(names):
            self._places.setdefault(name, _REPEATED if counts[name] > 1 else place)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[Hashable]:
        return (name for name, place in self._places.items() if place != _REPEATED)

    def place(self, name: Hashable) -> int:
        """Number of what `name` stands for.

        Raises
        ------
        TemplateError
            If there is none, with the nearest names, or more than one.
        """
        place = self._places.get(name)
        if place is None:
            raise TemplateError(f"there is no column {name!r}; {self.suggest(name)}")
        if place == _REPEATED:
            raise TemplateError(
                f"{name!r} names more than one column; rename them, so that it is clear which "
                "one is meant"
            )
        return place

    def suggest(self, name: object) -> str:
        """Say which names are near, or which there are."""
        known = {str(each).casefold(): str(each) for each in self._places if str(each)}
        near = difflib.get_close_matches(str(name).casefold(), known, n=_SUGGESTIONS)
        if near:
            hint = f"did you mean {' or '.join(repr(known[each]) for each in near)}?"
            if any("{" in each or "}" in each for each in near):
                hint += " A name with braces needs a callable: lambda row: row[name]"
            return hint
        names = list(dict.fromkeys(known.values()))
        more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
        return f"there are {', '.join(map(repr, names[:_LISTED]))}{more}"


class Table:
    """A frame or Series as templates see it: names, and blocks of rows.

    Parameters
    ----------
    data : DataFrame or Series of length n
        Is only read.

    Attributes
    ----------
    fields : FieldNames
        A frame's columns, or ``value``, ``""`` and the name of a Series; after them ``index``
        and the names of the index levels.
    index : Index
        Of `data`; a shallow copy, which keeps its names when those of `data` change.
    """

    def __init__(self, data: pd.DataFrame | pd.Series[Any]) -> None:
        self.index = data.index.copy()
        self._columns: dict[int, ExtensionArray] = {}
        if isinstance(data, pd.Series):
            labels = [VALUE if data.name is None else data.name]
            further: dict[Hashable, int] = {VALUE: 0, BARE: 0}
            self._read: list[Callable[[], ExtensionArray]] = [lambda: data.array]
        else:
            labels = list(data.columns)
            further = {}
            self._read = [partial(_column, data, number) for number in range(len(labels))]
        # Of levels that share a name the first is meant.
        for level, name in enumerate(self.index.names):
            if name is not None:
                further.setdefault(name, len(labels) + level)
        for level in range(self.index.nlevels):
            self._read.append(partial(_level, self.index, level))
        further.setdefault(INDEX, len(self._read))
        self.fields = FieldNames(labels, further=further)

    def __len__(self) -> int:
        return len(self.index)

    def array(self, place: int, start: int, stop: int) -> ExtensionArray:
        """Rows from `start` to `stop` of what the number `place` stands for."""
        if place == len(self._read):
            part = self.index[start:stop]
            flat = part.to_flat_index() if isinstance(part, pd.MultiIndex) else part
            return cast("ExtensionArray", flat.array)
        if place not in self._columns:
            self._columns[place] = self._read[place]()
        return self._columns[place][start:stop]

    def blocks(self, *, fill: str | None) -> Iterator[Block]:
        """Go through the rows, `BLOCK_ROWS` at a time.

        Parameters
        ----------
        fill : str or None
            Stands where a cell is NA; None: such rows are noted in `Block.missing`.
        """
        for start in range(0, len(self), BLOCK_ROWS):
            yield Block(self, start, min(start + BLOCK_ROWS, len(self)), fill=fill)


def _column(data: pd.DataFrame, number: int) -> ExtensionArray:
    return cast("ExtensionArray", data.iloc[:, number].array)


def _level(index: pd.Index[Any], level: int) -> ExtensionArray:
    return cast("ExtensionArray", index.get_level_values(level).array)


class Block:
    """Consecutive rows, read column by column or row by row, only as far as is asked for.

    Attributes
    ----------
    start : int
        Position of the first row.
    fill : str or None
        Stands where a cell is NA.
    missing : dict of int to str
        Offset of rows that use a cell that is NA, and its field; empty with a fill.
    faulty : dict of int to InvalidInput
        Offset of rows that use a cell that cannot be sent, and why.
    """

    def __init__(self, table: Table, start: int, stop: int, *, fill: str | None) -> None:
        self._table, self.start, self._stop, self.fill = table, start, stop, fill
        self._texts: dict[tuple[int, str], list[str]] = {}
        self._values: dict[int, list[Any]] = {}
        self.missing: dict[int, str] = {}
        self.faulty: dict[int, InvalidInput] = {}

    def __len__(self) -> int:
        return self._stop - self.start

    @property
    def fields(self) -> FieldNames:
        """What may be asked for."""
        return self._table.fields

    def where(self, offset: int) -> str:
        """Position and label of a row, for a message."""
        position = self.start + offset
        return f"row {position} (index {short(self._table.index[position])})"

    def texts(self, name: Hashable, spec: str = "") -> list[str]:
        """Texts of a column; rows that are NA or cannot be sent are noted and have any text.

        Raises
        ------
        TemplateError
            If there is no such column, or the format spec does not fit a cell.
        """
        place = self.fields.place(name)
        if (place, spec) in self._texts:
            return self._texts[place, spec]
        try:
            texts, missing, faulty = column_texts(
                self._array(place), spec=spec, fill=self.fill or ""
            )
        except FormatMismatch as error:
            raise TemplateError(
                f"{self.where(error.offset)}: the format in {{{name}:{spec}}} does not fit the "
                f"cell, which is a {error.kind}"
            ) from error
        shown = VALUE if name == BARE and BARE not in self.fields.labels else str(name)
        if self.fill is None:
            self.missing |= dict.fromkeys(missing, shown)
        for offset, fault in faulty.items():
            self.faulty[offset] = InvalidInput(
                f"{self.where(offset)}, column {short(shown)}: {fault.message}"
            )
        self._texts[place, spec] = texts
        return texts

    def value(self, name: Hashable, offset: int) -> object:
        """Python value of a cell, or what stands for NA.

        Raises
        ------
        MissingCell
            If it is NA and nothing stands for it.
        TemplateError
            If there is no such column.
        """
        place = self.fields.place(name)
        if place not in self._values:
            self._values[place] = column_values(self._array(place))[0]
        value = self._values[place][offset]
        if not is_missing(value):
            return native(value)
        if self.fill is None:
            raise MissingCell(str(name))
        return self.fill

    def row(self, offset: int) -> Row:
        """One row, which notes that it was NA where such a cell is used."""

        def read(name: Hashable) -> object:
            try:
                return self.value(name, offset)
            except MissingCell:
                # Noted here, because a callable may catch the exception.
                self.missing[offset] = str(name)
                raise

        return Row(self.fields, read)

    def _array(self, place: int) -> ExtensionArray:
        return self._table.array(place, self.start, self._stop)


class Row(Mapping["Hashable", object]):
    """A row as a callable template gets it: read-only, ``row["city"]`` or ``row.city``.

    Keys are the labels of the columns; ``index`` and the names of index levels can be read as
    well. Values are Python objects: an int stays an int beside floats. Reading a cell that is
    NA ends the callable, and `na` decides what becomes of the row.
    """

    __slots__ = ("__fields", "__read")

    def __init__(self, fields: FieldNames, read: Callable[[Hashable], object]) -> None:
        self.__fields = fields
        self.__read = read

    def __getitem__(self, name: Hashable) -> object:
        return self.__read(name)

    def __getattr__(self, name: str) -> object:
        if name.startswith(("__", "_Row__")):
            raise AttributeError(name)
        try:
            return self.__read(name)
        except TemplateError as error:
            raise AttributeError(str(error)) from error

    def __contains__(self, name: object) -> bool:
        return name in self.__fields

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self.__fields.labels)

    def __len__(self) -> int:
        return len(self.__fields.labels)

    def __repr__(self) -> str:
        # Its cells are the user's data, which do not belong in a traceback.
        return f"<Row with {', '.join(map(repr, self))}>"
