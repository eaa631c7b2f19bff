"""OpenAI's and Azure's endpoints through the openai SDK, one attempt a call.

The SDK builds clients, authenticates and names its errors. Its retries are off, because the
engine has one retry layer, and its parsing is skipped: a status 200 may carry anything, and
the SDK hands malformed bodies out as text, None or a list.
"""

from __future__ import annotations

import asyncio
import importlib
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import orjson

from lbgpt_pandas.engine.errors import (
    ConfigurationError,
    ConnectionFailed,
    IncompleteStream,
    MalformedResponse,
    RequestError,
)
from lbgpt_pandas.engine.retry import classify_response
from lbgpt_pandas.engine.secrets import conceal, redact
from lbgpt_pandas.engine.transports.base import Reply, Stream
from lbgpt_pandas.engine.transports.http_errors import connection_error, status_error
from lbgpt_pandas.engine.transports.sse import read_events

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Iterator,
        Mapping,
        Sequence,
    )

    from lbgpt_pandas.engine.secrets import Secret
    from lbgpt_pandas.engine.types import Request

HttpClient = Literal["aiohttp", "httpx"]
"""Names of the two HTTP stacks; a callable that makes a client is accepted as well."""

CONNECT_TIMEOUT_S = 5.0
MAX_BODY_BYTES = 20 * 2**20
MAX_VECTOR_BYTES = 2**18

OPENAI_URL = "https://api.openai.com/v1"

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
        HTTP stack, or a callable that returns a client the SDK accepts, for one event loop.
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

    def _keys(self) -> list[str]:
        return [self._api_key.reveal()]

    @contextmanager
    def _concealing(self) -> Iterator[None]:
        """Keep the key out of errors: servers repeat it, whatever it looks like."""
        try:
            yield
        except RequestError as error:
            error.args = (conceal(error.message, self._keys()), *error.args[1:])
            raise

    async def open(self) -> None:
        """Build the SDK client on the running loop."""
        # Importing the SDK takes up to a second, in which the loop has other things to do.
        for module in ("openai", "openai.resources.chat.completions", "openai.types.chat"):
            await asyncio.to_thread(importlib.import_module, module)
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
        with self._concealing():
            # Sent as extra_body, fields the SDK does not know reach the provider verbatim.
            response = await _classified(
                lambda: send(
                    messages=request.messages,
                    model=self._model(request.model or ""),
                    extra_body=body,
                    timeout=_timeouts(timeout),
                    **keywords,
                )
            )
            return _read_reply(response)

    @asynccontextmanager
    async def stream(self, request: Request, *, timeout: float | None) -> AsyncIterator[Stream]:
        """Send one request once, for an answer in parts; see `Transport.stream`."""
        keywords, body = split_keywords(request.params)
        send = self._client.chat.completions.with_streaming_response.create
        async with AsyncExitStack() as resources:
            resources.enter_context(self._concealing())
            response = await _classified(
                lambda: resources.enter_async_context(
                    send(
                        messages=request.messages,
                        model=self._model(request.model or ""),
                        extra_body=body | {"stream": True},
                        timeout=_timeouts(timeout),
                        **keywords,
                    )
                )
            )
            chunks = _read_chunks(response)
            await resources.enter_async_context(aclosing(chunks))
            yield Stream(chunks, response.headers, _request_id(response))

    async def embed(
        self,
        model: str,
        inputs: Sequence[str],
        params: Mapping[str, object],
        *,
        timeout: float | None,
    ) -> Reply:
        """Embed texts in one call; see `Transport.embed`."""
        keywords, body = split_keywords(params)
        send = self._client.embeddings.with_raw_response.create
        with self._concealing():
            response = await _classified(
                lambda: send(
                    input=list(inputs),
                    model=self._model(model),
                    # The SDK would ask for base64, which it does not decode in a raw response.
                    encoding_format=body.pop("encoding_format", "float"),
                    extra_body=body,
                    timeout=_timeouts(timeout),
                    **keywords,
                )
            )
            return _read_reply(response, most=MAX_BODY_BYTES + MAX_VECTOR_BYTES * len(inputs))

    def _model(self, name: str) -> str:
        return name

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
        self._last_token = ""

    def _keys(self) -> list[str]:
        return [self._azure_key.reveal() if self._azure_key else self._last_token]

    async def _token(self) -> str:
        if self._token_provider is None:
            return ""
        try:
            token = self._token_provider()
            self._last_token = token if isinstance(token, str) else await token
        except Exception as error:  # noqa: BLE001  # the provider is the user's code
            reason = redact(f"{type(error).__name__}: {error}")[:200]
            failure = ConnectionFailed(f"azure_ad_token_provider failed: {reason}", code="token")
        else:
            return self._last_token
        raise failure

    def _model(self, name: str) -> str:
        return self._model_map.get(name, name)

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
        If `choice` is a live client, which belongs to one event loop, or an unknown name.
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
        start = redact(raw[:60].decode("utf-8", "replace"))
        raise MalformedResponse(
            f"the answer is not JSON; it begins with {start!r}",
            request_id=request_id,
            maybe_billed=True,
        ) from None


def _read_reply(response: Any, *, most: int = MAX_BODY_BYTES) -> Reply:
    request_id = _request_id(response)
    payload = parse_body(response.content, request_id=request_id, most=most)
    if isinstance(payload, dict) and payload.get("error"):
        # Routers answer 200 before they know what the provider behind them says.
        raise classify_response(200, payload, response.headers, now=datetime.now(UTC))
    return Reply(payload=payload, headers=response.headers, request_id=request_id)


def _request_id(response: Any) -> str | None:
    found: str | None = response.headers.get("x-request-id") or response.headers.get(
        "apim-request-id"
    )
    return found


async def _read_chunks(response: Any) -> AsyncGenerator[object, None]:
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
    payload = parse_body(bytes(raw), request_id=_request_id(response))
    if not (isinstance(payload, dict) and payload.get("error")):
        raise MalformedResponse(
            "the server answered with a whole body where a stream was asked for; ask it by "
            "chat_completion",
            status=200,
            request_id=_request_id(response),
            maybe_billed=True,
        )
    yield payload


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


def _timeouts(seconds: float | None) -> Any:
    if seconds is None:
        return None
    import openai  # noqa: PLC0415  # loaded by the client already

    return openai.Timeout(seconds, connect=min(CONNECT_TIMEOUT_S, seconds))
