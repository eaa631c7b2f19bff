"""Server-sent events: from the bytes of a response to the JSON that its events carry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from lbgpt_pandas.engine.errors import MalformedResponse
from lbgpt_pandas.engine.secrets import redact

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

LARGEST_EVENT_BYTES = 20 * 2**20

_DONE = b"[DONE]"
_LONGEST_START = 60


class EventReader:
    r"""Puts events together from pieces of any length.

    Examples
    --------
    >>> reader = EventReader()
    >>> list(reader.feed(b': ping\n\ndata: {"a"'))
    []
    >>> list(reader.feed(b": 1}\r\n\r\nevent: error\ndata: x\n\n"))
    [('', b'{"a": 1}'), ('error', b'x')]
    """

    __slots__ = ("_buffer", "_data", "_name", "_size")

    def __init__(self) -> None:
        self._buffer = b""
        self._data: list[bytes] = []
        self._name = ""
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[tuple[str, bytes]]:
        """Yield name and data of each event that `piece` completes.

        Raises
        ------
        MalformedResponse
            If one event has over 20 MiB.
        """
        *lines, self._buffer = (self._buffer + piece).split(b"\n")
        for line in lines:
            yield from self._take(line.removesuffix(b"\r"))
        if self._size + len(self._buffer) > LARGEST_EVENT_BYTES:
            raise MalformedResponse(
                f"one event of the stream has over {LARGEST_EVENT_BYTES:,} bytes",
                maybe_billed=True,
            )

    def rest(self) -> Iterator[tuple[str, bytes]]:
        """Yield the last event if the blank line after it is missing."""
        yield from self._take(self._buffer.removesuffix(b"\r"))
        yield from self._take(b"")
        self._buffer = b""

    def _take(self, line: bytes) -> Iterator[tuple[str, bytes]]:
        if not line:
            if self._data:
                yield self._name, b"\n".join(self._data)
            self._data, self._name, self._size = [], "", 0
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._size += len(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")


async def read_events(pieces: AsyncIterator[bytes]) -> AsyncGenerator[object, None]:
    """Yield the JSON of each event up to ``[DONE]`` or the end.

    Data under ``event: error`` is wrapped as ``{"error": ...}`` if it is not already. A last
    event that is cut off is left out.

    Raises
    ------
    MalformedResponse
        If an event is not JSON, or too large.
    """
    reader = EventReader()
    async for piece in pieces:
        for name, data in reader.feed(piece):
            if data.strip() == _DONE:
                return
            yield _parse(name, data)
    for name, data in reader.rest():
        try:
            last = _parse(name, data)
        except MalformedResponse:
            return
        yield last


def _parse(name: str, data: bytes) -> object:
    try:
        value: object = orjson.loads(data)
    except orjson.JSONDecodeError:
        if name == "error":
            return {"error": {"message": data.decode("utf-8", "replace")}}
        start = redact(data[:_LONGEST_START].decode("utf-8", "replace"))
        raise MalformedResponse(
            f"an event of the stream is not JSON; it begins with {start!r}", maybe_billed=True
        ) from None
    if name == "error" and not (isinstance(value, dict) and value.get("error")):
        return {"error": value}
    return value
