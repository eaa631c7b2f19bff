"""OpenAI's and Azure's endpoints, one attempt a call.

Chat completions go straight over aiohttp; the openai SDK is loaded for streams, embeddings,
other HTTP stacks and its own keywords. Its retries are off, because the engine has one retry
layer, and its parsing is skipped: a status 200 may carry anything, and the SDK hands malformed
bodies out as text, None or a list.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlencode

from lbgpt_pandas.engine.errors import (
    ConfigurationError,
    ConnectionFailed,
    RequestError,
)
from lbgpt_pandas.engine.secrets import conceal, redact
from lbgpt_pandas.engine.transports.base import Stream
from lbgpt_pandas.engine.transports.bodies import (
    MAX_BODY_BYTES,
    read_reply,
    request_id_of,
    split_keywords,
)
from lbgpt_pandas.engine.transports.chunks import read_chunks
from lbgpt_pandas.engine.transports.direct import CONNECT_TIMEOUT_S, DirectClient
from lbgpt_pandas.engine.transports.http_errors import connection_error, status_error

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Iterator,
        Mapping,
        Sequence,
    )

    from lbgpt_pandas.engine.secrets import Secret
    from lbgpt_pandas.engine.transports.base import Reply
    from lbgpt_pandas.engine.types import Request

HttpClient = Literal["aiohttp", "httpx"]
"""Names of the two HTTP stacks; a callable that makes a client is accepted as well."""

MAX_VECTOR_BYTES = 2**18

OPENAI_URL = "https://api.openai.com/v1"


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
        self._direct: DirectClient | None = None

    def _keys(self) -> list[str]:
        return [self._api_key.reveal()]

    @contextmanager
    def _concealing(self) -> Iterator[None]:
        """Keep the key out of errors: servers repeat it, whatever it looks like."""
        try:
            yield
        except RequestError as error:
            self._conceal(error)
            raise

    def _conceal(self, error: RequestError) -> None:
        error.args = (conceal(error.message, self._keys()), *error.args[1:])

    async def open(self) -> None:
        """Make a session on the running loop, or the SDK's client where it has to be that."""
        # Headers that the environment adds to every request are the SDK's business.
        is_plain = self._http_client == "aiohttp" and not os.environ.get("OPENAI_CUSTOM_HEADERS")
        if is_plain and DirectClient.can_reach(self._url("")):
            self._direct = DirectClient(self._url(""), self._credentials())
            await self._direct.open()
        else:
            await self._sdk()

    async def close(self) -> None:
        """Close all connections."""
        direct, self._direct = self._direct, None
        client, self._client = self._client, None
        async with AsyncExitStack() as closing:
            for each in (direct, client):
                if each is not None:
                    closing.push_async_callback(each.close)

    async def _sdk(self) -> Any:
        """Return the SDK's client; the first call builds it."""
        if self._client is None:
            # Importing the SDK takes up to a second, in which the loop has other things to do.
            for module in ("openai", "openai.resources.chat.completions", "openai.types.chat"):
                await asyncio.to_thread(importlib.import_module, module)
        if self._client is None:
            self._client = self._build_client(make_http_client(self._http_client))
        return self._client

    async def chat(self, request: Request, *, timeout: float | None) -> Reply:
        """Send one request once; see `Transport.chat`."""
        keywords, body = split_keywords(request.params)
        model = self._model(request.model or "")
        # No block of `_concealing`: it would cost each call as much as reading its answer.
        try:
            if self._direct is not None and not keywords:
                content = {"messages": request.messages, "model": model, **body}
                headers = await self._token_header()
                return await self._direct.post(self._url(model), content, headers=headers)
            send = (await self._sdk()).chat.completions.with_raw_response.create
            # Sent as extra_body, fields the SDK does not know reach the provider verbatim.
            response = await _classified(
                lambda: send(
                    messages=request.messages,
                    model=model,
                    extra_body=body,
                    timeout=_timeouts(timeout),
                    **keywords,
                )
            )
            return read_reply(response.content, response.headers)
        except RequestError as error:
            self._conceal(error)
            raise

    @asynccontextmanager
    async def stream(self, request: Request, *, timeout: float | None) -> AsyncIterator[Stream]:
        """Send one request once, for an answer in parts; see `Transport.stream`."""
        keywords, body = split_keywords(request.params)
        send = (await self._sdk()).chat.completions.with_streaming_response.create
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
            chunks = read_chunks(response)
            await resources.enter_async_context(aclosing(chunks))
            yield Stream(chunks, response.headers, request_id_of(response.headers))

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
        send = (await self._sdk()).embeddings.with_raw_response.create
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
            return read_reply(
                response.content,
                response.headers,
                most=MAX_BODY_BYTES + MAX_VECTOR_BYTES * len(inputs),
            )

    def _model(self, name: str) -> str:
        return name

    def _url(self, model: str) -> str:
        """Address of chat completions by a model."""
        del model
        return f"{(self._base_url or OPENAI_URL).rstrip('/')}/chat/completions"

    async def _token_header(self) -> dict[str, str] | None:
        return None

    def _credentials(self) -> dict[str, str]:
        organization = self._organization or os.environ.get("OPENAI_ORG_ID", "").strip()
        project = os.environ.get("OPENAI_PROJECT_ID", "").strip()
        headers = {
            "Authorization": f"Bearer {self._api_key.reveal()}",
            "OpenAI-Organization": organization,
            "OpenAI-Project": project,
        }
        for name, value in headers.items():
            if value and not (value.isascii() and value.isprintable()):
                raise ConfigurationError(
                    f"the {name} header has characters that no header has; set OPENAI_ORG_ID, "
                    "OPENAI_PROJECT_ID or organization= once more"
                )
        return {name: value for name, value in headers.items() if value}

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
        self._direct = None
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

    def _url(self, model: str) -> str:
        place = f"{self._endpoint.rstrip('/')}/openai/deployments/{quote(model, safe='')}"
        return f"{place}/chat/completions?{urlencode({'api-version': self._api_version})}"

    async def _token_header(self) -> dict[str, str] | None:
        if self._token_provider is None:
            return None
        return {"Authorization": f"Bearer {await self._token()}"}

    def _credentials(self) -> dict[str, str]:
        if self._token_provider is not None or self._azure_key is None:
            return {}
        return {"api-key": self._azure_key.reveal()}

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
