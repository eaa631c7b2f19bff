"""The events of a streamed response, and what else a server may send in their place."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.errors import IncompleteStream, MalformedResponse, RequestError
from lbgpt_pandas.engine.transports.bodies import MAX_BODY_BYTES, parse_body, request_id_of
from lbgpt_pandas.engine.transports.http_errors import connection_error
from lbgpt_pandas.engine.transports.sse import read_events

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator


async def read_chunks(response: Any) -> AsyncGenerator[object, None]:
    """Yield the JSON of the events in a streamed response."""
    kind = response.headers.get("content-type", "")
    async with aclosing(response.iter_bytes()) as pieces:
        is_whole = "json" in kind or "html" in kind
        events = _read_whole(response, pieces) if is_whole else read_events(pieces)
        try:
            async with aclosing(events):
                async for event in events:
                    yield event
        except RequestError:
            raise
        except Exception as error:  # noqa: BLE001  # of whatever HTTP stack is underneath
            failure = connection_error(error)
        else:
            return
    if failure.code == "connection_lost":
        failure = IncompleteStream(failure.message, code=failure.code, maybe_billed=True)
    raise failure from None


async def _read_whole(response: Any, pieces: AsyncIterator[bytes]) -> AsyncGenerator[object, None]:
    """Read a body that is no stream; nothing but an error in it is of use."""
    raw = bytearray()
    async for piece in pieces:
        raw += piece
        if len(raw) > MAX_BODY_BYTES:
            break
    payload = parse_body(bytes(raw), request_id=request_id_of(response.headers))
    if not (isinstance(payload, dict) and payload.get("error")):
        raise MalformedResponse(
            "the server answered with a whole body where a stream was asked for; ask it by "
            "chat_completion",
            status=200,
            request_id=request_id_of(response.headers),
            maybe_billed=True,
        )
    yield payload
