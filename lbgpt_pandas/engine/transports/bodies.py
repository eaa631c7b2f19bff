"""Bodies of requests and responses: JSON out, JSON in, within bounds."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

import orjson

from lbgpt_pandas.engine.errors import MalformedResponse
from lbgpt_pandas.engine.retry import classify_response
from lbgpt_pandas.engine.secrets import redact
from lbgpt_pandas.engine.transports.base import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BODY_BYTES = 20 * 2**20

_SDK_KEYWORDS = frozenset({"extra_headers", "extra_query", "extra_body"})


def split_keywords(params: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, object]]:
    """Divide request parameters into keywords of the SDK and the body sent verbatim."""
    keywords = {name: value for name, value in params.items() if name in _SDK_KEYWORDS}
    extra = keywords.pop("extra_body", None)
    body = {
        name: value
        for name, value in params.items()
        if name not in _SDK_KEYWORDS and name != "model"
    }
    if isinstance(extra, dict):
        body.update(extra)
    return keywords, body


def parse_body(raw: bytes, *, request_id: str | None = None, most: int = MAX_BODY_BYTES) -> object:
    """Parse the body of a status 200.

    Raises
    ------
    MalformedResponse
        If it has over `most` bytes or is not JSON.
    """
    if len(raw) > most:
        raise MalformedResponse(
            f"the answer has {len(raw):,} bytes; more than {most:,} are not accepted",
            request_id=request_id,
            maybe_billed=True,
        )
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        with suppress(ValueError, RecursionError):
            # It is paid for: a mark at its start, or half of a character where the answer was
            # cut off, which only orjson minds.
            return json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse)
        start = redact(raw[:60].decode("utf-8", "replace"))
        raise MalformedResponse(
            f"the answer is not JSON; it begins with {start!r}",
            request_id=request_id,
            maybe_billed=True,
        ) from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def read_reply(raw: bytes, headers: Mapping[str, str], *, most: int = MAX_BODY_BYTES) -> Reply:
    """Read a response of status 200.

    Raises
    ------
    MalformedResponse
        As `parse_body`.
    RequestError
        If the body holds an error.
    """
    request_id = request_id_of(headers)
    payload = parse_body(raw, request_id=request_id, most=most)
    if isinstance(payload, dict) and payload.get("error"):
        # Routers answer 200 before they know what the provider behind them says.
        raise classify_response(200, payload, headers, now=datetime.now(UTC))
    return Reply(payload=payload, headers=headers, request_id=request_id)


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the provider's id of a request."""
    return headers.get("x-request-id") or headers.get("apim-request-id")
