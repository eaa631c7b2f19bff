"""What a failure of HTTP, or below it, says about a request: to one of our errors."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lbgpt_pandas.engine.errors import AuthError, ConnectionFailed, NotFound, Timeout
from lbgpt_pandas.engine.retry import classify_response
from lbgpt_pandas.engine.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lbgpt_pandas.engine.errors import RequestError

# A pooled connection that could not be had, or a socket that never opened: nothing was sent.
_UNSENT = frozenset(
    {
        "ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol",
        # aiohttp's own.
        "ClientConnectorDNSError", "ClientConnectorError", "ClientConnectorSSLError",
        "ClientHttpProxyError", "ClientProxyConnectionError", "ConnectionTimeoutError",
        "InvalidUrlClientError", "NonHttpUrlClientError",
    }
)  # fmt: skip
_REDIRECT = 3


def status_error(status: int, body: object, headers: Mapping[str, str]) -> RequestError:
    """Classify a refusal; a redirect is one, because it is not followed."""
    if status // 100 == _REDIRECT:
        host = urlsplit(headers.get("location", "")).netloc or "another path"
        return NotFound(
            f"the address redirects to {host}, which is not followed; give its own address",
            code="redirect",
            status=status,
        )
    return classify_response(status, body, headers, now=datetime.now(UTC))


def connection_error(error: BaseException) -> RequestError:
    """Classify a failure below HTTP by what was already sent when it struck.

    Parameters
    ----------
    error : BaseException
        The SDK's connection or time-out error with the HTTP stack's own as its cause.
    """
    chain = list(_causes(error))
    names = {type(link).__name__ for link in chain}
    detail = redact(str(chain[-1]) or type(chain[-1]).__name__)[:200]
    if any(isinstance(link, ssl.SSLCertVerificationError) for link in chain):
        return AuthError(f"the server's TLS certificate was not accepted: {detail}", code="tls")
    # httpx_aiohttp calls a connection that broke in use a ConnectError as well; underneath,
    # aiohttp tells the two apart.
    is_unsent = bool(names & _UNSENT) and "ClientOSError" not in names
    if is_unsent or any(isinstance(link, ConnectionRefusedError) for link in chain):
        return ConnectionFailed(f"no connection to the provider: {detail}", code="connect")
    if any("Timeout" in name for name in names):
        return Timeout(f"the provider did not answer in time: {detail}", maybe_billed=True)
    return Timeout(
        f"the connection was lost after the request was sent: {detail}",
        code="connection_lost",
        maybe_billed=True,
    )


def _causes(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain
