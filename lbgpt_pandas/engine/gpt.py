"""The engines with one deployment: OpenAI, Azure, and the embedded local model."""

from __future__ import annotations

import ipaddress
import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lbgpt_pandas.engine.base import _BaseGPT
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.pipeline import ATTEMPT_TIMEOUT_S
from lbgpt_pandas.engine.secrets import Secret
from lbgpt_pandas.engine.transports.local import DEFAULT_CONTEXT, LocalTransport, model_fingerprint
from lbgpt_pandas.engine.transports.openai import AzureTransport, OpenAITransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from os import PathLike

    from lbgpt_pandas.engine.transports.base import Transport
    from lbgpt_pandas.engine.transports.openai import HttpClient
    from lbgpt_pandas.engine.types import Request, TokenCount

OPENAI_FAMILY = "openai"
LOCAL_TIMEOUT_S = 900.0
NO_KEY = "EMPTY"
"""What servers without authentication (vLLM, llama-server) are conventionally given as a key."""

_AZURE_HOST = re.compile(
    r"\.(?:openai\.azure\.(?:com|us|cn)|cognitiveservices\.azure\.(?:com|us|cn)"
    r"|services\.ai\.azure\.com)$",
    re.IGNORECASE,
)
"""A gateway or a mock that speaks Azure's language says nothing about whose models answer."""


class ChatGPT(_BaseGPT):
    """OpenAI, or any server with OpenAI's chat interface.

    Parameters
    ----------
    api_key : str, optional
        The key; by default ``OPENAI_API_KEY`` of the environment. A server of your own that
        asks for none takes ``"EMPTY"``.
    max_parallel_calls : int, default 64
        Cap on the calls in flight.
    request_timeout : float, default 120
        Seconds for one attempt.
    cache : object, optional
        The exact cache; see `Pipeline`.
    base_url : str, optional
        Address up to and including ``/v1``; by default ``OPENAI_BASE_URL``, else OpenAI.
    organization : str, optional
        Sent as ``OpenAI-Organization``.
    http_client : {"aiohttp", "httpx"} or callable, default "aiohttp"
        HTTP stack under the SDK. A callable must return a new client that the SDK accepts; a
        live client is refused, because it is bound to one event loop.
    **settings
        Of `Pipeline`: ``stop_after_attempts``, ``stop_on_exception``,
        ``max_usage_cache_size``, ``auto_cache``, ``tools``, ``name``, ``clock``.

    Raises
    ------
    ConfigurationError
        Without a key, or if the key would travel unencrypted to another machine.

    Examples
    --------
    >>> ChatGPT(api_key="sk-canary-0123456789")
    ChatGPT(name='ChatGPT')
    """

    def __init__(
        self,
        api_key: str | None = None,
        max_parallel_calls: int = 64,
        request_timeout: float | None = ATTEMPT_TIMEOUT_S,
        cache: object = None,
        *,
        base_url: str | None = None,
        organization: str | None = None,
        http_client: HttpClient | Callable[[], object] = "aiohttp",
        **settings: Any,
    ) -> None:
        super().__init__(max_parallel_calls, cache, request_timeout=request_timeout, **settings)
        key = api_key or os.environ.get("OPENAI_API_KEY")
        if not key:
            raise ConfigurationError(
                "ChatGPT needs a key: give api_key= or set OPENAI_API_KEY "
                '(api_key="EMPTY" for a server of your own without keys; '
                'model="local" needs none at all)'
            )
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        if self.base_url and key != NO_KEY:
            check_encrypted(self.base_url)
        elif self.base_url:
            check_address(self.base_url)
        self._api_key = Secret(check_key(key))
        self._organization = organization
        self._http_client = http_client

    @property
    def family(self) -> str:
        """``"openai"``, or host and port of another server."""
        return OPENAI_FAMILY if self.base_url is None else _family_at(self.base_url)

    def _new_transport(self) -> Transport:
        return OpenAITransport(
            base_url=self.base_url,
            api_key=self._api_key,
            organization=self._organization,
            http_client=self._http_client,
        )


class AzureGPT(_BaseGPT):
    """Azure OpenAI. Its answers share cache entries with OpenAI's of the same model.

    Parameters
    ----------
    api_key : str or None
        The key of the resource; None if `azure_ad_token_provider` is given.
    azure_api_base : str
        ``https://NAME.openai.azure.com``.
    azure_model_map : mapping of str to str
        Model name to the name of its deployment. A model that is not in it is taken for the
        name of a deployment, whose answers are shared with no other engine.
    cache : object, optional
        The exact cache; see `Pipeline`.
    azure_openai_version : str, default "2024-10-21"
        Version of the REST interface.
    azure_ad_token_provider : callable, optional
        Returns an Entra ID token, called before each request.
    max_parallel_calls, request_timeout, http_client, **settings
        As in `ChatGPT`.

    Notes
    -----
    Azure enforces its limits on requests over ten seconds or less, so ``limit_burst_s`` is 10
    unless it is given.

    Raises
    ------
    ConfigurationError
        Without a key or token provider, or if the key would travel unencrypted.
    """

    counting = "sum"
    default_burst_s = 10.0

    def __init__(
        self,
        api_key: str | None,
        azure_api_base: str,
        azure_model_map: Mapping[str, str],
        cache: object = None,
        *,
        azure_openai_version: str = "2024-10-21",
        azure_ad_token_provider: Callable[[], str | Awaitable[str]] | None = None,
        max_parallel_calls: int = 64,
        request_timeout: float | None = ATTEMPT_TIMEOUT_S,
        http_client: HttpClient | Callable[[], object] = "aiohttp",
        **settings: Any,
    ) -> None:
        super().__init__(max_parallel_calls, cache, request_timeout=request_timeout, **settings)
        if not api_key and azure_ad_token_provider is None:
            raise ConfigurationError("AzureGPT needs api_key= or azure_ad_token_provider=")
        check_encrypted(azure_api_base)
        self.azure_api_base = azure_api_base
        self.azure_model_map = dict(azure_model_map)
        self._api_key = Secret(check_key(api_key)) if api_key else None
        self._token_provider = azure_ad_token_provider
        self._api_version = azure_openai_version
        self._http_client = http_client

    @property
    def family(self) -> str:
        """``"openai"`` on Microsoft's hosts, whose models are the same; else host and port."""
        return _azure_family_at(self.azure_api_base)

    def family_of(self, request: Request) -> str:
        """That of the engine for a model of the map, else the resource's own."""
        # What a deployment outside the map is called says nothing about the model behind it.
        if request.model in self.azure_model_map:
            return self.family
        return f"azure/{urlsplit(self.azure_api_base).hostname}"

    def _new_transport(self) -> Transport:
        return AzureTransport(
            endpoint=self.azure_api_base,
            api_key=self._api_key,
            api_version=self._api_version,
            model_map=self.azure_model_map,
            token_provider=self._token_provider,
            http_client=self._http_client,
        )


class LocalGPT(_BaseGPT):
    """A language model on this machine's processor, without key or network.

    The weights are loaded once in a child process that all engines of this process with the
    same file share; it ends with this process.

    Parameters
    ----------
    model : path, optional
        A GGUF file; by default SmolLM2-135M-Instruct, as the ``local`` extra installs it.
    slots : int, default 8
        Rows that the model works on at once.
    threads : int, optional
        Processor threads; by default one for each core.
    context : int, optional
        Tokens of prompt and answer together, for one row; 2,048 by default.
    cache : object, optional
        The exact cache; see `Pipeline`.
    **settings
        Of `Pipeline`; ``request_timeout`` is 900 seconds, because a long answer takes a small
        processor minutes and there is nobody else to ask.

    Attributes
    ----------
    context : int
        Tokens of prompt and answer together, for one row.

    Raises
    ------
    MissingExtraError
        At the first call, if the extra ``local`` is not installed; with the install line.
    ConfigurationError
        If `model` is not a GGUF file.
    """

    default_model = "local"
    slow_start = None

    def __init__(
        self,
        model: str | PathLike[str] | None = None,
        *,
        slots: int = 8,
        threads: int | None = None,
        context: int | None = None,
        cache: object = None,
        **settings: Any,
    ) -> None:
        settings.setdefault("max_parallel_calls", slots)
        settings.setdefault("request_timeout", LOCAL_TIMEOUT_S)
        super().__init__(cache=cache, **settings)
        self._model = model
        self._slots, self._threads = slots, threads
        self.context = context or DEFAULT_CONTEXT

    @property
    def family(self) -> str:
        """``"local/"`` and what identifies the weights."""
        return f"local/{model_fingerprint(self._model)}"

    def price_of_tokens(self, model: str, tokens: TokenCount) -> float | None:  # noqa: ARG002
        """Nothing: it is the user's own electricity."""
        return 0.0

    def _new_transport(self) -> Transport:
        return LocalTransport(
            self._model, slots=self._slots, threads=self._threads, context=self.context
        )


@lru_cache(maxsize=64)
def _family_at(url: str) -> str:
    address = urlsplit(url)
    return OPENAI_FAMILY if address.hostname == "api.openai.com" else address.netloc


@lru_cache(maxsize=64)
def _azure_family_at(url: str) -> str:
    address = urlsplit(url)
    is_azure = _AZURE_HOST.search(address.hostname or "") is not None
    return OPENAI_FAMILY if is_azure else address.netloc


def check_address(url: str) -> None:
    """Refuse what is no address, or more than one: its host names the family in the cache.

    Raises
    ------
    ConfigurationError
        If `url` has no scheme or host, or carries a user, a query or a fragment.
    """
    address = urlsplit(url)
    if address.scheme not in {"http", "https"} or not address.hostname:
        raise ConfigurationError(f"{address.path!r} is no address: it begins with https://")
    if address.username or address.password or address.query:
        raise ConfigurationError(
            f"the address of {address.hostname} carries a user or a query, where keys end up in "
            "logs; give api_key= instead"
        )
    if address.fragment:
        raise ConfigurationError(f"the address of {address.hostname} has a # in it; leave it out")


def check_encrypted(url: str) -> None:
    """Refuse an address to which a key would travel unencrypted.

    Raises
    ------
    ConfigurationError
        If `url` is neither https nor on this machine, or holds more than an address.
    """
    check_address(url)
    address = urlsplit(url)
    if address.scheme == "http" and not _is_loopback(address.hostname):
        raise ConfigurationError(
            f"http://{address.hostname}: a key is sent by https only, except to this machine; "
            'for a server without keys give api_key="EMPTY"'
        )


def check_key(key: str) -> str:
    """Return the key without white space around it.

    Raises
    ------
    ConfigurationError
        If what is left cannot stand in a header.
    """
    bare = key.strip()
    if not bare.isascii() or not bare.isprintable() or not bare:
        raise ConfigurationError("the key has characters that no key has; copy it once more")
    return bare


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
