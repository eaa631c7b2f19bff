"""Chat completions over one aiohttp session, without an SDK in the way of every call.

Building and reading a request through the openai SDK costs ten times the call itself, so that
it is left to what is rare: streams, embeddings, other HTTP stacks, and SDK keywords.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import ssl
from functools import lru_cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import orjson

from lbgpt_pandas.engine.transports.bodies import MAX_BODY_BYTES, read_reply
from lbgpt_pandas.engine.transports.http_errors import connection_error, status_error
from lbgpt_pandas.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import ClientResponse

    from lbgpt_pandas.engine.transports.base import Reply

CONNECT_TIMEOUT_S = 5.0

KEEP_ALIVE_S = 5.0
"""Seconds that an idle connection is kept, as in the SDK: servers may close it soon after."""

_HEADERS = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": f"lbgpt-pandas/{__version__}",
}
_PIECE = 2**18
_OK = 2


class DirectClient:
    """An HTTP session with one host on one event loop, from `open` to `close`.

    Parameters
    ----------
    url : str
        An address on that host.
    headers : mapping of str to str, optional
        Of every request: credentials that do not change.

    Notes
    -----
    It follows no redirect and keeps no cookie. Proxies are those of the environment; a
    ``.netrc`` is not read, because it would replace the key.
    """

    def __init__(self, url: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self._proxy = proxy_of(url)
        schemes = {urlsplit(each).scheme for each in (url, self._proxy or "")}
        self._is_encrypted = "https" in schemes
        self._headers = _HEADERS | dict(headers)
        self._session: Any = None

    @staticmethod
    def can_reach(url: str) -> bool:
        """Tell whether aiohttp speaks to the proxy in between, if there is one."""
        proxy = proxy_of(url)
        return proxy is None or urlsplit(proxy).scheme in {"http", "https"}

    async def open(self) -> None:
        """Make the session on the running loop."""
        # Loading it takes a moment, in which the loop has other things to do; so do certificates.
        aiohttp = await asyncio.to_thread(importlib.import_module, "aiohttp")
        context = await asyncio.to_thread(_tls) if self._is_encrypted else True
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ssl=context),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            # Who calls bounds the whole attempt; a timer for each read would cost as much as it.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        )

    async def close(self) -> None:
        """Close the session and its connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(
        self, url: str, body: object, *, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send JSON once, and read JSON.

        Parameters
        ----------
        url : str
            The whole address.
        body : object
            JSON data.
        headers : mapping of str to str, optional
            Beside those of every request.

        Raises
        ------
        RequestError
            Every failure, classified.
        TypeError, ValueError
            If `body` is no JSON data; nothing was sent.
        """
        data = _as_bytes(body)
        try:
            async with self._session.post(
                url, data=data, headers=headers, allow_redirects=False, proxy=self._proxy
            ) as response:
                raw = await _read(response)
        except Exception as error:  # noqa: BLE001  # of HTTP, TLS, DNS and sockets
            failure = connection_error(error)
        else:
            if response.status // 100 != _OK:
                raise status_error(response.status, _as_json(raw), response.headers)
            return read_reply(raw, response.headers)
        # The exception holds the request and with it the key, so it is cut off here.
        raise failure from None


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment names for an address, None if it names none."""
    address = urlsplit(url)
    host = address.hostname
    # An IPv6 address is named there without the brackets that it has in a URL.
    if not host or proxy_bypass(address.netloc) or (":" in host and proxy_bypass(host)):
        return None
    proxies = getproxies()
    return proxies.get(address.scheme) or proxies.get("all")


async def _read(response: ClientResponse) -> bytes:
    """Read a body, or a little more than may be accepted of it."""
    raw = await response.content.read(_PIECE)
    if len(raw) < _PIECE and response.content.at_eof():
        return raw
    pieces, size = [raw], len(raw)
    while size <= MAX_BODY_BYTES and (piece := await response.content.read(_PIECE)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _as_bytes(body: object) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:
        # Long integers, and keys that are no texts.
        return json.dumps(body, allow_nan=False).encode()


def _as_json(raw: bytes) -> object:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw.decode("utf-8", "replace")


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Trust whom the environment names, else certifi's list, as the SDK does."""
    is_named = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
    if is_named or find_spec("certifi") is None:
        return ssl.create_default_context()
    return ssl.create_default_context(cafile=importlib.import_module("certifi").where())
