"""Rows to requests, and answers to a column: by position, whatever the index is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lbgpt_pandas.engine.errors import ConfigurationError, InvalidInput, TemplateError
from lbgpt_pandas.engine.semantic.questions import FRAME_OPTION
from lbgpt_pandas.examples import Exemplified, example_turns
from lbgpt_pandas.images import Illustrated, Images
from lbgpt_pandas.prompts import NO_REQUEST, UNSENDABLE, Numbering, Requests, separate
from lbgpt_pandas.provenance import Provenance
from lbgpt_pandas.replies import whole
from lbgpt_pandas.rows import Table
from lbgpt_pandas.templates import (
    column_template,
    compile_messages,
    compile_template,
    compile_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pandas.api.extensions import ExtensionArray

    from lbgpt_pandas.engine.errors import RequestError
    from lbgpt_pandas.engine.group_request import Grouping
    from lbgpt_pandas.prompts import Templates
    from lbgpt_pandas.rendering import Template
    from lbgpt_pandas.rows import Block, FieldNames

_NAMED_ROWS = 5


@dataclass(frozen=True, slots=True)
class col:  # noqa: N801  # reads as a function, as in other frame libraries
    """Marks a column where a string would be a template: ``system=lb.col("instructions")``.

    Attributes
    ----------
    name : hashable
        Label of the column.
    """

    name: Hashable


@dataclass(frozen=True, slots=True, eq=False)
class RowPlan:
    """What is to be asked for a frame, and which rows each request answers.

    Attributes
    ----------
    requests : Requests
        A sequence of different requests in the order of their first rows.
    codes : ndarray of int64, of length `rows`
        Number of each row's request; -1 where there is none.
    skipped : ndarray of int64
        Positions of the rows without a request because a cell is NA or a callable gave None.
    errors : dict of int to RequestError
        Position of the rows that cannot be sent, and why.
    index : Index
        The frame's.
    name : hashable or None
        Name of a Series; None for a frame.
    rows : int
        Rows of the frame.
    provenance : Provenance
        What the requests were made of.
    grouping : Grouping or None
        How several go in one call; None if they do not.
    """

    requests: Requests
    codes: NDArray[np.int64]
    skipped: NDArray[np.int64]
    errors: dict[int, RequestError]
    index: pd.Index[Any]
    name: Hashable | None
    rows: int
    provenance: Provenance
    grouping: Grouping | None = None

    def rows_of(self) -> list[int]:
        """How many rows each request answers; as long as `requests`, each at least 1."""
        counts = np.bincount(self.codes[self.codes >= 0], minlength=len(self.requests))
        numbers: list[int] = counts.tolist()
        return numbers


def to_requests(
    data: pd.DataFrame | pd.Series[Any],
    *,
    template: object = None,
    messages: object = None,
    system: object = None,
    params: Mapping[str, object],
    options: Mapping[str, object],
    na: str = "skip",
    duplicates: str = "share",
    examples: object = None,
    images: object = None,
    image_root: Path | None = None,
    write_example: Callable[[object], str] | None = None,
) -> RowPlan:
    """Render every row and find the different requests among them.

    Parameters
    ----------
    data : DataFrame or Series
        The rows; only read, and only now: what becomes of it later changes nothing.
    template : str, callable, jinja2.Template, list of messages or col
        See `lbgpt_pandas.templates.compile_template`.
    messages : hashable, col or callable
        Instead of `template`: a column or a callable of the row with lists of chat messages.
    system : str, col, callable or jinja2.Template, optional
        Text of a system message that is put before the others.
    params, options : mapping
        Of every request, which share one copy of each.
    na : {"skip", "raise", "empty"} or other str, default "skip"
        A row that uses a cell that is NA has no request, or is an error, or has an empty or
        the given text in place of the cell.
    duplicates : {"share", "independent"}, default "share"
        Equal rows share a request, or the k-th of them has one with ``sample=k``, k from 0.
    examples : DataFrame or list of pairs, optional
        Inputs and answers that stand before each row; see `lbgpt_pandas.examples.example_turns`.
    images : hashable, list of hashable or Images, optional
        Columns with images for each row's message; see `lbgpt_pandas.images.Images`.
    image_root : Path, optional
        Folder under which files of images are read; by default the current directory.
    write_example : callable, optional
        Gets the answer of an example and returns the text that a model would give.

    Returns
    -------
    RowPlan

    Raises
    ------
    TemplateError
        If the template does not fit the rows.
    ConfigurationError
        If an argument cannot work.

    Examples
    --------
    >>> frame = pd.DataFrame({"city": ["Rome", None, "Rome"]})
    >>> plan = to_requests(frame, template="Where is {city}?", params={}, options={})
    >>> plan.codes.tolist(), plan.requests[0].messages
    ([0, -1, 0], [{'role': 'user', 'content': 'Where is Rome?'}])
    """
    _check(template, messages, na=na, duplicates=duplicates)
    table = Table(data)
    body = _compile_prompt(template, messages, table.fields)
    source = template if messages is None else messages
    if images is not None:
        columns = Images.of(images, fields=table.fields)
        body = Illustrated(body, columns, default_root=image_root)
        source = {"template": source, "images": columns.described()}
    if examples is not None:
        turns = example_turns(examples, data=data, template=body, write=write_example)
        body = Exemplified(body, turns)
        source = {"template": source, "examples": body.described()}
    templates = (body, _compile_system(system, table.fields))
    numbers = Numbering()
    codes = np.empty(len(table), dtype=np.int64)
    errors: dict[int, RequestError] = {}
    for block in table.blocks(fill=_fill(na)):
        keys = _render(block, templates, na=na)
        part = codes[block.start : block.start + len(block)]
        part[:] = np.fromiter(map(numbers.__getitem__, keys), dtype=np.int64, count=len(block))
        errors |= _errors(block, part)
    skipped = np.flatnonzero(codes == NO_REQUEST)
    codes[codes == UNSENDABLE] = NO_REQUEST
    if errors:
        skipped = skipped[~np.isin(skipped, list(errors))]
    prompts: list[Any] = [key for key, number in numbers.items() if number >= 0]
    samples: list[int] = []
    if duplicates == "independent":
        order, samples = separate(codes)
        prompts = [prompts[number] for number in order]
    frame = templates[0].frame()
    options = dict(options) if frame is None else {**options, FRAME_OPTION: frame}
    return RowPlan(
        requests=Requests(prompts, samples, templates, params=dict(params), options=options),
        codes=codes,
        skipped=skipped,
        errors=errors,
        index=table.index,
        name=data.name if isinstance(data, pd.Series) else None,
        rows=len(table),
        provenance=Provenance.of(
            source,
            None if messages is None else source,
            system,
            templates=templates,
            na=na,
            duplicates=duplicates,
        ),
    )


def to_series(
    plan: RowPlan,
    values: Sequence[object],
    *,
    name: Hashable | None,
    dtype: type[object] | None = None,
) -> pd.Series[Any]:
    """Put answers in the rows that asked for them.

    Parameters
    ----------
    plan : RowPlan
        The rows.
    values : sequence of str or None, as long as ``plan.requests``
        Answer of each request; None is NA.
    name : hashable or None
        Name of the Series.
    dtype : None or object, optional
        None: text in the string dtype of this pandas, ``str`` on pandas 3, ``string`` before.
        ``object``: any values, and None where there is none.

    Returns
    -------
    Series of length ``plan.rows``
        Its index is the frame's; rows without an answer are NA.

    Raises
    ------
    ValueError
        If there are not as many values as requests.
    """
    if len(values) != len(plan.requests):
        raise ValueError(f"{len(values)} values for {len(plan.requests)} requests")
    # The code -1 takes the last one.
    answers = np.fromiter(chain(values, (None,)), dtype=object, count=len(values) + 1)
    column = answers[plan.codes]
    if dtype is object:
        return pd.Series(column, index=plan.index, name=name, dtype=object)
    return pd.Series(text_array(column), index=plan.index, name=name)


def text_array(values: NDArray[np.object_]) -> ExtensionArray:
    """Make a column of texts in the string dtype of this pandas.

    Parameters
    ----------
    values : ndarray of str or None
        None is NA.

    Returns
    -------
    ExtensionArray
        Of dtype ``str`` on pandas 3, ``string`` before.
    """
    text: Any = _text_dtype()
    array: ExtensionArray
    try:
        # Arrow looks itself; an array of Python's objects would take them.
        array = pd.array(_checked(values) if text.storage == "python" else values, dtype=text)
    except UnicodeEncodeError:
        # Half of a character fits into no file; the rest of a paid answer is not lost for it.
        array = pd.array([whole(value) for value in values], dtype=text)
    return array


def _checked(values: Any) -> Any:
    """Return the values; raises UnicodeEncodeError if one holds half of a character."""
    for value in values:
        if isinstance(value, str) and not value.isascii():
            value.encode()
    return values


def _check(template: object, messages: object, *, na: str, duplicates: str) -> None:
    if (template is None) == (messages is None):
        raise ConfigurationError(
            "give template= or messages=, one of the two: a template such as 'Summarise: {text}', "
            "or a column with lists of chat messages"
        )
    if not isinstance(na, str):
        raise ConfigurationError(
            f"na={na!r} is not 'skip', 'raise', 'empty', or another text to put in"
        )
    if duplicates not in {"share", "independent"}:
        raise ConfigurationError(f"duplicates={duplicates!r} is not 'share' or 'independent'")


def _fill(na: str) -> str | None:
    return {"skip": None, "raise": None, "empty": ""}.get(na, na)


def _compile_prompt(template: object, messages: object, fields: FieldNames) -> Template:
    if messages is not None:
        return compile_messages(
            messages.name if isinstance(messages, col) else messages, fields=fields
        )
    if isinstance(template, col):
        return column_template(template.name, fields=fields)
    return compile_template(template, fields=fields)


def _compile_system(system: object, fields: FieldNames) -> Template | None:
    if system is None:
        return None
    if isinstance(system, col):
        return column_template(system.name, fields=fields)
    return compile_text(system, fields=fields, what="system")


def _render(block: Block, templates: Templates, *, na: str) -> list[Hashable]:
    """Render a block: what tells its prompts apart, or None where a row has none."""
    body, system = templates
    if system is None:
        keys = list(body.render(block))
    else:
        # The system message first: rows that it has already ruled out are not rendered.
        openings = system.render(block)
        pairs = zip(openings, body.render(block), strict=True)
        keys = [None if None in pair else pair for pair in pairs]
    if na == "raise" and block.missing:
        raise TemplateError(_missing_rows(block))
    for offset in (*block.missing, *block.faulty):
        keys[offset] = None
    return keys


def _missing_rows(block: Block) -> str:
    rows = [
        f"{block.where(offset)}, column {block.missing[offset]!r}"
        for offset in islice(sorted(block.missing), _NAMED_ROWS)
    ]
    more = len(block.missing) - len(rows)
    tail = f"; and {more:,} more in the first {block.start + len(block):,} rows" if more else ""
    return f"na='raise', and a cell that the template uses is NA: {'; '.join(rows)}{tail}"


def _errors(block: Block, codes: NDArray[np.int64]) -> dict[int, RequestError]:
    found: dict[int, RequestError] = {
        offset: error for offset, error in block.faulty.items() if offset not in block.missing
    }
    for offset in np.flatnonzero(codes == UNSENDABLE).tolist():
        found[offset] = InvalidInput(
            f"{block.where(offset)}: the text has a lone surrogate (half of a character), which "
            "cannot be encoded; clean it with text.encode('utf-8', 'replace').decode()"
        )
    return {block.start + offset: found[offset] for offset in sorted(found)}


def _text_dtype() -> pd.StringDtype[Any]:
    """String dtype of this pandas: what it makes of text by itself, if that is one."""
    inferred = pd.Series([""]).dtype
    return inferred if isinstance(inferred, pd.StringDtype) else pd.StringDtype()
