"""OpenAI's and Azure's chat endpoints through the openai SDK, one attempt a call.

The SDK builds clients, authenticates and names its errors. Its retries are off, because the
engine has one retry layer, and its parsing is skipped: a status 200 may carry anything, and
the SDK hands malformed bodies out as text, None or a list.
"""

from __future__ import annotations

import asyncio
import importlib
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import orjson

from lbgpt_pandas.engine.errors import (
    AuthError,
    ConfigurationError,
    ConnectionFailed,
    MalformedResponse,
    NotFound,
    Timeout,
)
from lbgpt_pandas.engine.retry import classify_response
from lbgpt_pandas.engine.secrets import redact
from lbgpt_pandas.engine.transports.base import Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from lbgpt_pandas.engine.errors import RequestError
    from lbgpt_pandas.engine.secrets import Secret
    from lbgpt_pandas.engine.types import Request

HttpClient = Literal["aiohttp", "httpx"]
"""Names of the two HTTP stacks; a callable that makes a client is accepted as well."""

CONNECT_TIMEOUT_S = 5.0
MAX_BODY_BYTES = 20 * 2**20

# A pooled connection that could not be had, or a socket that never opened: nothing was sent.
_UNSENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol"})
OPENAI_URL = "https://api.openai.com/v1"

_REDIRECT = 3
_SDK_KEYWORDS = frozenset({"extra_headers", "extra_query", "extra_body"})


class OpenAITransport:
    """An SDK client on one event loop.

    Parameters
    ----------
    base_url : str or None
        Address up to and including ``/v1``; None for OpenAI's own.
    api_key : Secret
        The key.
    organization : str, optional
        Sent as ``OpenAI-Organization``.
    http_client : {"aiohttp", "httpx"} or callable, default "aiohttp"
        HTTP stack, or a callable that returns a client the SDK accepts. The client is made on
        the event loop it serves and closed with it.
    """

    def __init__(
        self,
        *,
        base_url: str | None,
        api_key: Secret,
        organization: str | None = None,
        http_client: HttpClient | Callable[[], object] = "aiohttp",
    ) -> None:
        self._base_url = base_url
        self._api_key = api_key
        self._organization = organization
        self._http_client = http_client
        self._client: Any = None

    async def open(self) -> None:
        """Build the SDK client on the running loop."""
        # Importing the SDK takes up to a second, in which the loop has other things to do.
        await asyncio.to_thread(importlib.import_module, "openai")
        self._client = self._build_client(make_http_client(self._http_client))

    async def close(self) -> None:
        """Close the SDK client and its connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def chat(self, request: Request, *, timeout: float | None) -> Reply:
        """Send one request once; see `Transport.chat`."""
        keywords, body = split_keywords(request.params)
        send = self._client.chat.completions.with_raw_response.create
        # Sent as extra_body, fields the SDK does not know reach the provider verbatim.
        response = await _classified(
            lambda: send(
                messages=request.messages,
                model=self._model(request),
                extra_body=body,
                timeout=_timeouts(timeout),
                **keywords,
            )
        )
        raw = response.content
        request_id = response.headers.get("x-request-id") or response.headers.get("apim-request-id")
        payload = parse_body(raw, request_id=request_id)
        if isinstance(payload, dict) and payload.get("error"):
            # Routers answer 200 before they know what the provider behind them says.
            raise classify_response(200, payload, response.headers, now=datetime.now(UTC))
        return Reply(
            payload=payload,
            headers=response.headers,
            request_id=request_id,
        )

    def _model(self, request: Request) -> str:
        return request.model or ""

    def _build_client(self, http_client: Any) -> object:
        import openai  # noqa: PLC0415  # costs 0.6 s, paid at the first request

        return openai.AsyncOpenAI(
            api_key=self._api_key.reveal(),
            # Named in any case: the SDK would read the environment once more, unchecked.
            base_url=self._base_url or OPENAI_URL,
            organization=self._organization,
            http_client=http_client,
            max_retries=0,
        )


class AzureTransport(OpenAITransport):
    """An Azure OpenAI client: models are deployments of one resource.

    Parameters
    ----------
    endpoint : str
        ``https://NAME.openai.azure.com``.
    api_key : Secret or None
        The key; None if `token_provider` is given.
    api_version : str
        Version of the REST interface.
    model_map : mapping of str to str
        Model name to deployment name.
    token_provider : callable, optional
        Returns an Entra ID token, called by the SDK before each request.
    http_client : {"aiohttp", "httpx"} or callable, default "aiohttp"
        As in `OpenAITransport`.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        api_key: Secret | None,
        api_version: str,
        model_map: Mapping[str, str],
        token_provider: Callable[[], str | Awaitable[str]] | None = None,
        http_client: HttpClient | Callable[[], object] = "aiohttp",
    ) -> None:
        self._endpoint = endpoint
        self._azure_key = api_key
        self._api_version = api_version
        self._model_map = model_map
        self._token_provider = token_provider
        self._http_client = http_client
        self._client = None

    async def _token(self) -> str:
        if self._token_provider is None:
            return ""
        try:
            token = self._token_provider()
            return token if isinstance(token, str) else await token
        except Exception as error:  # noqa: BLE001  # the provider is the user's code
            reason = redact(f"{type(error).__name__}: {error}")[:200]
            failure = ConnectionFailed(f"azure_ad_token_provider failed: {reason}", code="token")
        raise failure

    def _model(self, request: Request) -> str:
        model = request.model or ""
        return self._model_map.get(model, model)

    def _build_client(self, http_client: Any) -> object:
        import openai  # noqa: PLC0415  # costs 0.6 s, paid at the first request

        return openai.AsyncAzureOpenAI(
            azure_endpoint=self._endpoint,
            api_key=self._azure_key.reveal() if self._azure_key else None,
            azure_ad_token_provider=self._token if self._token_provider else None,
            api_version=self._api_version,
            http_client=http_client,
            max_retries=0,
        )


def make_http_client(choice: HttpClient | Callable[[], object]) -> object:
    """Make the HTTP client of the SDK's own choice, or call the user's factory.

    It follows no redirect: prompts, and Azure's key with them, would go to whoever is named.

    Raises
    ------
    ConfigurationError
        If `choice` is a live client or an unknown name: a client belongs to one event loop,
        so only a callable that makes one is accepted.
    """
    if callable(choice):
        return choice()
    import openai  # noqa: PLC0415  # costs 0.6 s, paid at the first request

    match choice:
        case "aiohttp":
            return openai.DefaultAioHttpClient(follow_redirects=False)
        case "httpx":
            return openai.DefaultAsyncHttpxClient(follow_redirects=False)
        case _:
            raise ConfigurationError(
                f"http_client={type(choice).__name__} cannot be used: give 'aiohttp', 'httpx', or "
                "a callable that makes a client (a live client is bound to one event loop)"
            )


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


def parse_body(raw: bytes, *, request_id: str | None = None) -> object:
    """Parse the body of a status 200.

    Raises
    ------
    MalformedResponse
        If it is over 20 MiB or not JSON.
    """
    if len(raw) > MAX_BODY_BYTES:
        raise MalformedResponse(
            f"the answer has {len(raw):,} bytes; more than {MAX_BODY_BYTES:,} are not accepted",
            request_id=request_id,
            maybe_billed=True,
        )
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        start = redact(raw[:60].decode("utf-8", "replace"))
        raise MalformedResponse(
            f"the answer is not JSON; it begins with {start!r}",
            request_id=request_id,
            maybe_billed=True,
        ) from None


async def _classified(send: Callable[[], Awaitable[Any]]) -> Any:
    import openai  # noqa: PLC0415  # loaded by the client already

    try:
        return await send()
    except openai.APIStatusError as error:
        failure = status_error(error.status_code, error.body, error.response.headers)
    except openai.APIConnectionError as error:
        failure = connection_error(error)
    # The SDK's exception holds the request and with it the key, so it is cut off here.
    raise failure from None


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


def _timeouts(seconds: float | None) -> Any:
    if seconds is None:
        return None
    import openai  # noqa: PLC0415  # loaded by the client already

    return openai.Timeout(seconds, connect=min(CONNECT_TIMEOUT_S, seconds))
