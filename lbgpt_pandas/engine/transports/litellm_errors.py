"""From litellm's exceptions to ours.

litellm wraps what happened in an exception of its own, with a status that it partly made up:
a lost connection, a body that is no JSON and a refused key of an unknown provider are all a
500. What really happened stands further down in the chain of causes, so that is read first.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.errors import (
    AuthError,
    BadRequest,
    ConfigurationError,
    MalformedResponse,
    NotFound,
    RateLimited,
    Timeout,
)
from lbgpt_pandas.engine.retry import classify_response
from lbgpt_pandas.engine.secrets import conceal, redact
from lbgpt_pandas.engine.transports.http_errors import connection_error, status_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from lbgpt_pandas.engine.errors import RequestError

_LOWEST_ERROR = 300

_HTTP_PACKAGES = frozenset({"httpx", "httpcore", "openai", "aiohttp"})
_CONNECTION_ERRORS = re.compile(
    r"APIConnectionError|APITimeoutError|TransportError|ClientError|TimeoutException"
)
_UNREADABLE = re.compile(
    r"Empty or invalid response from LLM endpoint|'choices' that is not a list|"
    r"Unable to get json response|Invalid response object",
    re.IGNORECASE,
)
_ALL_BUSY = re.compile(r"No deployments available for selected model")
_NO_DEPLOYMENT = re.compile(r"no healthy deployments for this model", re.IGNORECASE)
# What the router and the debug output add to the provider's message.
_ADDED = re.compile(
    r"\s*(?:LiteLLM: model group |Deployment Info: |Received Model Group=|"
    r"Traceback \(most recent call last\)|model=\S+ context_window_fallbacks=).*",
    re.DOTALL,
)
_PREFIX = re.compile(r"\A(?:(?:litellm\.)?\w+(?:Error|Exception|Timeout)(?: -|:)\s*)+")
_CODES = {
    "ContextWindowExceededError": "context_length_exceeded",
    "ContentPolicyViolationError": "content_filter",
    "BudgetExceededError": "budget_exceeded",
}


def classify_litellm(
    error: BaseException,
    *,
    groups: Iterable[str],
    secrets: Iterable[str] = (),
    handled: BaseException | None = None,
) -> RequestError:
    """Make the error that an exception of litellm stands for.

    Parameters
    ----------
    error : BaseException
        What litellm raised.
    groups : iterable of str
        Model names that the router knows.
    secrets : iterable of str
        Texts that no message may hold.
    handled : BaseException, optional
        What was being handled when litellm was called; it is no part of what happened.

    Returns
    -------
    RequestError

    Raises
    ------
    ConfigurationError
        If litellm lacks a package for this provider.
    """
    chain = _causes(error, until=handled)
    for link in chain:
        if isinstance(link, ImportError):
            raise ConfigurationError(_clean(str(link), secrets)[:300])
    failure = (
        _of_router(chain, groups)
        or _of_response(chain)
        or _of_connection(chain)
        or _of_sdk(chain)
        or _of_body(chain)
        or _of_litellm(chain)
    )
    failure.args = (conceal(failure.message, secrets), *failure.args[1:])
    return failure


def _of_router(chain: list[BaseException], groups: Iterable[str]) -> RequestError | None:
    top = chain[0]
    if _name(top).startswith("RouterRateLimitError") or _ALL_BUSY.search(str(top)):
        return RateLimited(
            "litellm's router has no deployment for this model that may be called now",
            code="router",
            retry_after=_seconds(getattr(top, "cooldown_time", None)),
        )
    if _NO_DEPLOYMENT.search(str(top)):
        names = ", ".join(sorted(map(repr, groups)))
        return NotFound(f"the model list has no such model; it has {names}", code="model_group")
    return None


def _of_response(chain: list[BaseException]) -> RequestError | None:
    """Classify by the response itself; litellm's own exceptions hold made-up ones."""
    for link in reversed(chain):
        response: Any = getattr(link, "response", None)
        if _package(link) not in _HTTP_PACKAGES or response is None:
            continue
        body = getattr(link, "body", None)
        if body is None:
            body = _content(response)
        elif isinstance(body, dict) and "error" not in body:
            body = {"error": body}
        if response.status_code >= _LOWEST_ERROR:
            return status_error(response.status_code, body, response.headers)
    return None


def _of_connection(chain: list[BaseException]) -> RequestError | None:
    for link in chain:
        names = "|".join(kind.__name__ for kind in type(link).__mro__)
        if _package(link) in _HTTP_PACKAGES and _CONNECTION_ERRORS.search(names):
            return connection_error(link)
    if any(isinstance(link, TimeoutError) for link in chain) or _name(chain[0]) == "Timeout":
        return Timeout("the provider did not answer in time", maybe_billed=True)
    return None


def _of_sdk(chain: list[BaseException]) -> RequestError | None:
    """Classify an error that came inside a stream, or before anything was sent."""
    for link in chain:
        if type(link).__name__ == "OpenAIError" and _package(link) == "openai":
            # The SDK's own, for a client that cannot be made without a key.
            return AuthError(f"the provider cannot be called: {redact(str(link))[:200]}")
        body = getattr(link, "body", None)
        if _package(link) == "openai" and isinstance(body, dict):
            return classify_response(200, {"error": body}, {}, now=datetime.now(UTC))
    return None


def _of_body(chain: list[BaseException]) -> RequestError | None:
    top = chain[0]
    is_unreadable = any(isinstance(link, json.JSONDecodeError) for link in chain)
    if not (is_unreadable or _UNREADABLE.search(str(top))):
        return None
    return MalformedResponse(
        f"the answer is not a chat completion: {redact(_clean(str(top)))[:200]}",
        maybe_billed=True,
    )


def _of_litellm(chain: list[BaseException]) -> RequestError:
    """Classify by what litellm made of it."""
    top = chain[0]
    status = getattr(top, "status_code", None)
    if not isinstance(status, int) or status < _LOWEST_ERROR:
        reason = redact(f"{_name(top)}: {_clean(str(top))}")[:200]
        return BadRequest(f"litellm could not send the request: {reason}", code="litellm")
    error = {"message": _clean(str(top)), "code": _CODES.get(_name(top))}
    if isinstance(headers := getattr(top, "litellm_response_headers", None), dict):
        known: Mapping[str, str] = headers
    else:
        known = dict(headers.items()) if headers is not None else {}
    return classify_response(status, {"error": error}, known, now=datetime.now(UTC))


def _causes(error: BaseException, *, until: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link is not until and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _package(error: BaseException) -> str:
    # litellm's exceptions are subclasses of openai's.
    return type(error).__module__.partition(".")[0]


def _name(error: BaseException) -> str:
    return type(error).__name__


def _content(response: Any) -> bytes:
    try:
        return bytes(response.content)
    except Exception:  # noqa: BLE001  # a stream that nobody read has no content
        return b""


def _clean(message: str, secrets: Iterable[str] = ()) -> str:
    return conceal(_PREFIX.sub("", _ADDED.sub("", message)).strip(), secrets)


def _seconds(number: object) -> float | None:
    return float(number) if isinstance(number, int | float) and number >= 0 else None
