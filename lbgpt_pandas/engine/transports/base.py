"""The port behind which every provider client stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from lbgpt_pandas.engine.types import Request


class Reply(Struct, frozen=True):
    """What one attempt brought back, before validation.

    Attributes
    ----------
    payload : object
        The body as JSON data, of whatever shape the server sent.
    headers : mapping
        Response headers, lower-case names.
    request_id : str or None
        The provider's id of the request.
    """

    payload: object
    headers: Mapping[str, str]
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that comes in parts.

    Attributes
    ----------
    chunks : async iterator of object
        The JSON of each event, before validation: ``chat.completion.chunk`` objects, or one
        with an ``error``. It ends with the stream, complete or not.
    headers : mapping
        Response headers, lower-case names.
    request_id : str or None
        The provider's id of the request.
    """

    chunks: AsyncIterator[object]
    headers: Mapping[str, str]
    request_id: str | None = None


class Transport(Protocol):
    """A provider client that lives on one event loop, from `open` to `close`."""

    async def open(self) -> None:
        """Make connections possible; called once before the first request."""
        ...

    async def close(self) -> None:
        """Release every connection; called once."""
        ...

    async def chat(self, request: Request, *, timeout: float | None) -> Reply:
        """Send one request once.

        Parameters
        ----------
        request : Request
            What to send.
        timeout : float or None
            Seconds for connecting and for each read; the caller bounds the whole attempt.

        Raises
        ------
        RequestError
            Every failure, classified and free of secrets; the client itself never retries.
        """
        ...

    def stream(
        self, request: Request, *, timeout: float | None
    ) -> AbstractAsyncContextManager[Stream]:
        """Send one request once, for an answer in parts.

        The connection is released at the end of the block, however much was read.

        Parameters
        ----------
        request : Request
            What to send; ``stream`` is added to it.
        timeout : float or None
            Seconds for connecting and for each read; the caller bounds every wait.

        Raises
        ------
        RequestError
            Every failure, on entering and from `Stream.chunks`; `IncompleteStream` where the
            connection is lost after the headers.
        """
        ...

    async def embed(
        self,
        model: str,
        inputs: Sequence[str],
        params: Mapping[str, object],
        *,
        timeout: float | None,
    ) -> Reply:
        """Embed texts in one call.

        Parameters
        ----------
        model : str
            As the caller wrote it.
        inputs : sequence of str
            The texts.
        params : mapping
            What else is sent, such as ``dimensions``.
        timeout : float or None
            As for `chat`.

        Returns
        -------
        Reply
            Its payload is the provider's ``list`` of ``embedding`` objects.

        Raises
        ------
        RequestError
            As for `chat`.
        """
        ...
