"""The port behind which every provider client stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lbgpt_pandas.engine.types import Request


@dataclass(frozen=True, slots=True)
class Reply:
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
