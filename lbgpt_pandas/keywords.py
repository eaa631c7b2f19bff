"""The keywords of a call: which are ours, which the provider's, and which a mistake."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.cells import native
from lbgpt_pandas.engine.arguments import check_timeout
from lbgpt_pandas.engine.canonical import canonical_json
from lbgpt_pandas.engine.errors import ConfigurationError, InvalidInput
from lbgpt_pandas.engine.types import PRIVATE_KEYS

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

OWN_KEYWORDS = (
    "template", "messages", "model", "system", "examples", "images", "tools", "response_format",
    "engine", "errors", "na", "duplicates", "cache_mode", "semantic", "budget", "max_parallel",
    "progress", "name", "dimensions", "rows_per_request",
)  # fmt: skip

PROVIDER_KEYWORDS = (
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "stop", "n",
    "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "user",
    "tool_choice", "parallel_tool_calls", "reasoning_effort", "verbosity", "service_tier",
    "metadata", "store", "prediction", "modalities", "audio", "stream_options", "extra_body",
    "extra_headers", "extra_query", "prompt_cache_key", "safety_identifier",
)  # fmt: skip

OWN_CUTOFF, PROVIDER_CUTOFF = 0.75, 0.85

OTHER_NAMES = {
    "timeout": "request_timeout= is the time-out of an attempt, in seconds",
    "on_error": "errors= says what becomes of failed rows",
    "retries": "attempts are the engine's: ChatGPT(stop_after_attempts=...)",
    "max_retries": "attempts are the engine's: ChatGPT(stop_after_attempts=...)",
    "num_retries": "attempts are the engine's: ChatGPT(stop_after_attempts=...)",
    "cache": "cache= belongs to lb.configure, lb.using and engines; cache_mode= to a call",
    "api_key": "api_key= belongs to the engine: engine=ChatGPT(api_key=...)",
    "base_url": "base_url= belongs to the engine: engine=ChatGPT(base_url=...)",
}
"""What others call something that has another name or another place here."""


def split_params(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide what is left of a call's keywords into the engine's and the provider's.

    Returns
    -------
    options, params : dict
        Those of `PRIVATE_KEYS`, and those that are sent.

    Raises
    ------
    TypeError
        For a name close to one of ours or to a usual provider parameter, with the suggestion.
    ConfigurationError
        For a keyword that has another place, and values that make no sense for a column.
    """
    for name, value in params.items():
        _check_param(name, value)
    options = {name: value for name, value in params.items() if name in PRIVATE_KEYS}
    return options, {name: value for name, value in params.items() if name not in PRIVATE_KEYS}


def _check_param(name: str, value: object) -> None:
    if name in OTHER_NAMES:
        raise ConfigurationError(f"{name}= is not a keyword of a call: {OTHER_NAMES[name]}")
    if name == "stream" and value:
        raise ConfigurationError("stream= makes no sense for a column; leave it out")
    if name == "n" and value not in (None, 1):
        raise ConfigurationError(
            f"n={value!r} pays for answers of which a column holds one; repeat the rows and give "
            'duplicates="independent"'
        )
    if name == "request_timeout":
        check_timeout(value)
    if name not in PRIVATE_KEYS and name not in PROVIDER_KEYWORDS:
        _check_spelling(name)


def _check_spelling(name: str) -> None:
    close = [
        *difflib.get_close_matches(name, OWN_KEYWORDS, n=1, cutoff=OWN_CUTOFF),
        *difflib.get_close_matches(name, PROVIDER_KEYWORDS, n=1, cutoff=PROVIDER_CUTOFF),
    ]
    if close:
        best = max(close, key=lambda word: difflib.SequenceMatcher(None, word, name).ratio())
        raise TypeError(
            f"unexpected keyword {name!r}; did you mean {best!r}? If the provider really "
            f"takes {name!r}, give it in extra_body={{{name!r}: ...}}"
        )


def check_name(name: Hashable | None) -> None:
    """Raise a ConfigurationError unless a Series can have this name."""
    try:
        hash(name)
    except TypeError:
        raise ConfigurationError(f"name={name!r}: a name must be hashable") from None


def check_sendable(params: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters as they are sent, once for all rows: no None, no numpy scalar.

    Raises
    ------
    ConfigurationError
        If one of them cannot be written as JSON.
    """
    sendable = {name: _plain(value) for name, value in params.items() if value is not None}
    for name, value in sendable.items():
        if isinstance(value, type):
            raise ConfigurationError(
                f"{name}={value.__name__} is a class, which is not available in this version; "
                "give the JSON schema as a dict"
            )
        try:
            canonical_json(value)
        except InvalidInput as error:
            raise ConfigurationError(f"{name}= cannot be sent: {error}") from None
    return sendable


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return native(value)
