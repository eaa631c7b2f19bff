"""Tables in files: CSV, Parquet and JSONL, with every column and cell as it is.

The cells of a CSV file are texts: ``007`` and ``NA`` stay what they are, and an empty cell is NA.
Parquet keeps its types, also those that pandas would change, such as integers with gaps. A field
that is missing in a line of JSONL is NA.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson
import pandas as pd

from lbgpt_pandas.engine.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SEPARATORS = {"csv": ",", "tsv": "\t"}
SUFFIXES = {
    ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl",
}  # fmt: skip
GZIP = ".gz"


@dataclass(frozen=True, slots=True)
class Format:
    """How a table lies in a file.

    Attributes
    ----------
    kind : {"csv", "tsv", "parquet", "jsonl"}
        The format.
    is_zipped : bool, default False
        Whether gzip is around it.
    """

    kind: str
    is_zipped: bool = False

    @classmethod
    def of(cls, path: str | Path) -> Format:
        """Tell the format from a file's name.

        Raises
        ------
        ConfigurationError
            If it ends otherwise.

        Examples
        --------
        >>> Format.of("reviews.csv.gz")
        Format(kind='csv', is_zipped=True)
        """
        place = Path(path)
        is_zipped = place.suffix.lower() == GZIP
        suffix = Path(place.stem).suffix if is_zipped else place.suffix
        kind = SUFFIXES.get(suffix.lower())
        if kind is None or (kind == "parquet" and is_zipped):
            raise ConfigurationError(
                f"{str(path)!r}: the name says no format that is known; there are .csv, .tsv and "
                ".jsonl, also with .gz behind, and .parquet"
            )
        return cls(kind, is_zipped)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows as they were read.

    Attributes
    ----------
    frame : DataFrame
        Under a plain RangeIndex; columns may share a name.
    metadata : mapping of bytes to bytes, optional
        What a Parquet file says about itself, such as which column is the index.
    """

    frame: pd.DataFrame
    metadata: Mapping[bytes, bytes] | None = None

    def with_frame(self, frame: pd.DataFrame) -> Table:
        """Return the same with other columns."""
        return replace(self, frame=frame)


def read_table(path: str | Path, *, limit: int | None = None) -> Table:
    """Read a file.

    Parameters
    ----------
    path : path
        The format follows from its name.
    limit : int, optional
        Only so many of the first rows.

    Raises
    ------
    ConfigurationError
        If there is no such file, or it cannot be read; says which line is wrong.
    MissingExtraError
        For Parquet without pyarrow.
    """
    form, place = Format.of(path), Path(path)
    if not place.is_file():
        raise ConfigurationError(f"there is no file {str(path)!r}")
    try:
        if form.kind == "parquet":
            return _read_parquet(place, limit)
        with _opened(place, form) as file:
            if form.kind == "jsonl":
                return Table(_read_lines(file, limit))
            return Table(_read_texts(file, limit, separator=SEPARATORS[form.kind]))
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{str(path)!r} is not UTF-8 ({error.reason}); convert it, for example with "
            "iconv -f latin1 -t utf-8"
        ) from None
    except (OSError, EOFError, ValueError) as error:
        raise ConfigurationError(f"{str(path)!r} cannot be read: {error}") from error


def check_writable(table: Table, form: Format) -> None:
    """Find out before anything is paid for whether a table can be written in a format.

    Raises
    ------
    ConfigurationError
        If it cannot; names the column.
    MissingExtraError
        For Parquet without pyarrow.
    """
    names = table.frame.columns
    if form.kind not in SEPARATORS and not names.is_unique:
        twice = names[names.duplicated()][0]
        raise ConfigurationError(
            f"two columns are called {twice!r}, which {form.kind} cannot hold; write CSV, or "
            "rename one of them"
        )
    if form.kind == "parquet":
        _to_arrow(table)
    for position, name in enumerate(names):
        if form.kind != "parquet" and _holds_bytes(table.frame.iloc[:, position]):
            raise ConfigurationError(
                f"column {name!r} holds bytes, for which {form.kind} has no form; write .parquet"
            )


def write_table(table: Table, form: Format, file: IO[bytes]) -> None:
    """Write a table into an open file.

    Parameters
    ----------
    table : Table
        NA is an empty cell in CSV and null elsewhere.
    form : Format
        As `check_writable` has allowed it.
    file : binary file
        Stays open.
    """
    if form.kind == "parquet":
        _parquet().write_table(_to_arrow(table), file)
        return
    write = _write_lines if form.kind == "jsonl" else _write_texts
    if not form.is_zipped:
        write(table.frame, form, file)
        return
    # Without a time in it the same table gives the same bytes.
    zipped: Any = gzip.GzipFile("", mode="wb", fileobj=file, mtime=0)
    with zipped:
        write(table.frame, form, zipped)


@contextmanager
def _opened(place: Path, form: Format) -> Iterator[IO[str]]:
    with place.open("rb") as raw:
        content: Any = gzip.GzipFile(fileobj=raw) if form.is_zipped else raw
        with io.TextIOWrapper(content, encoding="utf-8-sig", newline="") as file:
            yield file


def _read_texts(file: IO[str], limit: int | None, *, separator: str) -> pd.DataFrame:
    # The names are read as a row: pandas would change those that are empty or appear twice.
    try:
        raw = pd.read_csv(
            file,
            sep=separator,
            header=None,
            dtype=str,
            keep_default_na=False,
            na_values=[""],
            nrows=None if limit is None else limit + 1,
        )
    except pd.errors.EmptyDataError:
        raise ValueError("it is empty; the first line has to name the columns") from None
    frame = raw.iloc[1:].reset_index(drop=True)
    frame.columns = pd.Index(raw.iloc[0].fillna("").tolist())
    return frame


def _read_lines(file: IO[str], limit: int | None) -> pd.DataFrame:
    rows, names = [], dict[str, None]()
    for row in islice(_objects(file), limit):
        rows.append(row)
        names |= dict.fromkeys(row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    # Of objects, so that integers with gaps stay integers.
    return pd.DataFrame(columns, dtype=object, index=pd.RangeIndex(len(rows)))


def _objects(file: IO[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f'line {number} is no object such as {{"text": "..."}}')  # noqa: TRY004  # of what was read
        yield row


def _read_parquet(place: Path, limit: int | None) -> Table:
    with _parquet().ParquetFile(place) as file:
        arrow = file.read()
    if limit is not None:
        arrow = arrow.slice(0, limit)
    frame = arrow.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    return Table(frame, arrow.schema.metadata)


def _to_arrow(table: Table) -> Any:
    import pyarrow as pa  # noqa: PLC0415  # 50 ms that CSV need not pay

    columns = {}
    for name, column in table.frame.items():
        try:
            columns[str(name)] = pa.Array.from_pandas(column)
        except (pa.ArrowException, UnicodeEncodeError) as error:
            raise ConfigurationError(
                f"column {name!r} cannot be written as Parquet, which wants one type a column: "
                f"{error}; write .jsonl instead"
            ) from None
    arrow = pa.Table.from_pydict(columns)
    return arrow.replace_schema_metadata(table.metadata)


def _parquet() -> Any:
    try:
        import pyarrow.parquet  # noqa: PLC0415  # an extra
    except ImportError:
        raise MissingExtraError("Parquet needs pyarrow: pip install pyarrow") from None
    return pyarrow.parquet


def _write_texts(frame: pd.DataFrame, form: Format, file: IO[bytes]) -> None:
    plain = frame.copy(deep=False)
    for position in range(frame.shape[1]):
        if _is_mixed(frame.iloc[:, position]):
            texts: Any = [_cell(value) for value in cells_of(frame.iloc[:, position])]
            plain.isetitem(position, pd.Series(texts, index=frame.index, dtype=object).array)
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
    plain.to_csv(
        text,
        index=False,
        sep=SEPARATORS[form.kind],
        lineterminator="\n",
        # Python's csv leaves a lone \r unquoted, which readers take for the end of a line.
        quoting=csv.QUOTE_ALL if _has_returns(plain) else csv.QUOTE_MINIMAL,
    )
    text.flush()
    text.detach()


def _write_lines(frame: pd.DataFrame, _form: Format, file: IO[bytes]) -> None:
    names = [str(name) for name in frame.columns]
    columns = [cells_of(frame.iloc[:, position]) for position in range(len(names))]
    for row in zip(*columns, strict=True):
        file.write(_line(dict(zip(names, row, strict=True))))


def _line(row: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(row, default=_plain, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # Integers beyond 64 bits and halves of characters are JSON all the same.
        return json.dumps(row, default=_plain).encode() + b"\n"


def cells_of(column: pd.Series[Any]) -> list[Any]:
    """Return the cells of a column as Python objects; None for NA."""
    objects = column.astype(object)
    values: list[Any] = objects.where(column.notna(), None).tolist()
    return values


def _cell(value: object) -> object:
    if isinstance(value, dict | list) or hasattr(value, "tolist"):
        return _line({"": value})[4:-2].decode()
    return value


def _plain(value: Any) -> object:
    for form in ("isoformat", "tolist"):
        if hasattr(value, form):
            return getattr(value, form)()
    return str(value)


def _is_mixed(column: pd.Series[Any]) -> bool:
    kind = str(column.dtype)
    return kind == "object" or kind.startswith(
        ("list", "large_list", "fixed_size", "struct", "map")
    )


def _has_returns(frame: pd.DataFrame) -> bool:
    columns: Iterable[Any] = (frame.iloc[:, position] for position in range(frame.shape[1]))
    cells = (
        any("\r" in cell for cell in column.tolist() if isinstance(cell, str))
        for column in columns
        if column.dtype.kind not in "biufM"
    )
    return any("\r" in str(name) for name in frame.columns) or any(cells)


def _holds_bytes(column: pd.Series[Any]) -> bool:
    kind = str(column.dtype)
    first = column.dropna().head(1).tolist() if kind == "object" or "binary" in kind else []
    return any(isinstance(value, bytes) for value in first)
