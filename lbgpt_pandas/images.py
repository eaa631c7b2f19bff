"""Images of a row: columns whose cells become parts of its message."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from lbgpt_pandas.cells import short
from lbgpt_pandas.engine.errors import ConfigurationError, InvalidInput, TemplateError
from lbgpt_pandas.pictures import MEGABYTE, Picture, Reader, is_pil
from lbgpt_pandas.rendering import Template
from lbgpt_pandas.rows import MissingCell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike

    from lbgpt_pandas.engine.types import Message
    from lbgpt_pandas.rows import Block, FieldNames

Detail = Literal["auto", "low", "high"]

Known = dict[object, tuple[object, Picture]]
"""What was read already, with the cell that it was read from."""

LARGEST_MB = 10.0
MOST_HELD_MB = 2_000.0
"""Megabytes of files that one call reads: they are kept until its report is forgotten."""


@dataclass(frozen=True, slots=True, init=False)
class Images:
    """Columns with images, and what may be read: ``images=lb.Images("photo", detail="low")``.

    Attributes
    ----------
    columns : tuple of hashable
        Their labels.
    detail : {"auto", "low", "high"} or None
        How closely the model is to look, which decides what an image costs; None: not sent.
    root : Path or None
        Folder under which files are read, and where relative paths start. None: the configured
        one, else the current directory.
    largest_mb : float
        Size of the largest image that is sent, in megabytes of 1,000,000 bytes.

    Raises
    ------
    ConfigurationError
        If a value cannot work.

    Examples
    --------
    >>> Images("photo", detail="low").columns
    ('photo',)
    """

    columns: tuple[Hashable, ...]
    detail: Detail | None
    root: Path | None
    largest_mb: float

    def __init__(
        self,
        *columns: Hashable,
        detail: Detail | None = None,
        root: str | PathLike[str] | None = None,
        largest_mb: float = LARGEST_MB,
    ) -> None:
        if not columns:
            raise ConfigurationError("images= names no column")
        if detail is not None and detail not in get_args(Detail):
            raise ConfigurationError(f"detail={detail!r} is not 'auto', 'low' or 'high'")
        if not isinstance(largest_mb, int | float) or not largest_mb > 0:
            raise ConfigurationError(f"largest_mb={largest_mb!r}: give a number above 0")
        folder = None if root is None else Path(root)
        values = {"columns": columns, "detail": detail, "root": folder, "largest_mb": largest_mb}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, images: object, *, fields: FieldNames) -> Images:
        """Take what ``images=`` was given: a column, a list of columns, or an `Images`.

        Raises
        ------
        TemplateError
            If there is no such column.
        ConfigurationError
            If it is none of these.
        """
        if isinstance(images, Images):
            chosen = images
        elif isinstance(images, list):
            chosen = cls(*images)
        elif isinstance(images, Hashable):
            chosen = cls(images)
        else:
            raise ConfigurationError(
                f"images={type(images).__name__}: give a column, a list of columns, or "
                "lb.Images(column, detail=...)"
            )
        for column in chosen.columns:
            try:
                fields.place(column)
            except TemplateError as error:
                raise TemplateError(f"images=: {error}") from None
        return chosen

    def described(self) -> list[str | None]:
        """Return what a run's manifest says of them: detail and columns."""
        return [self.detail, *map(str, self.columns)]

    def reader(self, default_root: Path | None) -> Reader:
        """Return what reads the cells.

        Raises
        ------
        ConfigurationError
            If the folder does not exist.
        """
        given = self.root or default_root or Path()
        folder = given.expanduser().resolve()
        if not folder.is_dir():
            raise ConfigurationError(f"the folder of images {str(given)!r} does not exist")
        return Reader(folder, int(self.largest_mb * MEGABYTE))


class Illustrated(Template):
    """A template whose last message of the user has images behind its text.

    Parameters
    ----------
    body : Template
        What is rendered besides.
    images : Images
        The columns; a cell is an image or a list of them.
    default_root : Path, optional
        Folder of files where `images` names none.
    """

    def __init__(self, body: Template, images: Images, *, default_root: Path | None = None) -> None:
        self._body, self._images = body, images
        self._reader = images.reader(default_root)
        self._held: set[str] = set()
        self._held_bytes = 0

    def used(self) -> tuple[str, ...] | None:
        """Names of the template's fields and of the columns with images."""
        used = self._body.used()
        columns = map(str, self._images.columns)
        return None if used is None else tuple(dict.fromkeys((*used, *columns)))

    def render(self, block: Block) -> Sequence[Hashable]:
        """Render the template, then read the images of the rows that are left."""
        prompts = self._body.render(block)
        # What stands in many rows is read once.
        known: Known = {}
        return [
            None if prompt is None else self._with_pictures(block, offset, prompt, known)
            for offset, prompt in enumerate(prompts)
        ]

    def messages(self, rendered: Any) -> list[Message]:
        """Chat messages of one rendered row, with data URLs made anew."""
        prompt, pictures = rendered
        return _attached(self._body.messages(prompt), [self._part(each) for each in pictures])

    def _with_pictures(
        self,
        block: Block,
        offset: int,
        prompt: Hashable,
        known: Known,
    ) -> Hashable:
        if offset in block.missing or offset in block.faulty:
            return None
        pictures: list[Picture] = []
        for column in self._images.columns:
            try:
                value = block.value(column, offset)
                # What stands for NA is a text, which is no image.
                if block.fill is None or value is not block.fill:
                    pictures += [self._picture(each, known) for each in _several(value)]
            except MissingCell as missing:
                block.missing[offset] = str(missing)
                return None
            except InvalidInput as error:
                where = f"{block.where(offset)}, column {short(column)}"
                block.faulty[offset] = InvalidInput(f"{where}: {error.message}")
                return None
        return prompt, tuple(pictures)

    def _picture(self, value: object, known: Known) -> Picture:
        if not (isinstance(value, str | Path) or is_pil(value)):
            return self._reader.read(value)
        key = value if isinstance(value, str | Path) else id(value)
        if key not in known:
            # With the image, because the id of one that is gone is given again.
            known[key] = value, self._reader.read(value)
            self._count(known[key][1])
        return known[key][1]

    def _count(self, picture: Picture) -> None:
        """Count what the frame does not hold itself."""
        if picture.identity in self._held:
            return
        self._held.add(picture.identity)
        self._held_bytes += len(picture.content)
        if self._held_bytes > MOST_HELD_MB * MEGABYTE:
            raise ConfigurationError(
                f"the images of this call have over {MOST_HELD_MB:,.0f} MB, and all would be held "
                "in memory; call it for a part of the rows at a time, such as "
                "df.iloc[:1_000], or give addresses"
            )

    def _part(self, picture: Picture) -> dict[str, object]:
        image: dict[str, object] = {"url": picture.url}
        if self._images.detail is not None:
            image["detail"] = self._images.detail
        return {"type": "image_url", "image_url": image}


def _several(value: object) -> Iterator[object]:
    """Go through the images of a cell."""
    # Parquet gives back lists as arrays.
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.tolist()
    if isinstance(value, list | tuple):
        yield from value
    else:
        yield value


def _attached(messages: list[Message], parts: list[dict[str, object]]) -> list[Message]:
    """Put parts behind the text of the last user message; there is one afterwards."""
    if not parts:
        return messages
    users = [number for number, each in enumerate(messages) if each.get("role") == "user"]
    if not users:
        return [*messages, {"role": "user", "content": parts}]
    message = messages[users[-1]]
    content = message.get("content")
    if isinstance(content, str):
        # Some providers refuse a text part without text.
        content = [{"type": "text", "text": content}] if content else []
    first = list(content) if isinstance(content, list | tuple) else []
    changed = {**message, "content": [*first, *parts]}
    return [*messages[: users[-1]], changed, *messages[users[-1] + 1 :]]
