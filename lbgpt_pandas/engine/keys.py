"""From a request to its cache key: canonical JSON, then SHA-256.

A key holds everything that is sent except the names in `TRANSPORT_KEYS`, which change how
a request travels and not what the model answers. Fields that nobody knows yet are in the key
by themselves: a forgotten field costs a call, an ignored one a wrong answer.

The document that is hashed is canonical JSON. For plain chat messages orjson writes the same
bytes as `canonical_bytes`, ten times faster, so `KeyMaker` leaves those to it.
"""

from __future__ import annotations

import hashlib
from operator import index
from typing import TYPE_CHECKING

import orjson

from lbgpt_pandas.engine.canonical import canonical_bytes, canonical_json
from lbgpt_pandas.engine.errors import ConfigurationError, InvalidInput
from lbgpt_pandas.engine.types import PRIVATE_KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from lbgpt_pandas.engine.types import Message, Request

__all__ = [
    "KEY_VERSION",
    "TRANSPORT_KEYS",
    "KeyMaker",
    "canonical_json",
    "keyed_params",
    "request_key",
]

KEY_VERSION = "v1"
"""Begins every key. To be raised when a change gives an existing request another key."""

TRANSPORT_KEYS: frozenset[str] = (
    frozenset(
        {
            "stream",
            "stream_options",
            "timeout",
            "extra_headers",
            "extra_query",
            "api_key",
            "base_url",
            "organization",
            "user",
            "safety_identifier",
            "metadata",
            "store",
            "prompt_cache_key",
            "service_tier",
            "num_retries",
        }
    )
    | PRIVATE_KEYS
)
"""Parameters that are not part of the key, and with them every name that begins ``lbgpt_``."""

_OWN_PREFIX = "lbgpt_"
_OPEN_SAMPLE_ZERO = b',"sample":0}'


class KeyMaker:
    """Makes the keys of all requests that share parameters and options.

    What they share is written and hashed once, here; a key then costs 1 to 2 µs.

    Parameters
    ----------
    family : str
        Whose models answer: ``"openai"`` for api.openai.com and Azure, else host and port, so
        that a server elsewhere with a model of the same name never answers for it.
    kind : str, default "chat"
        What is asked for: ``"chat"`` or ``"embedding"``.
    model_alias : str or None
        Logical name of the model, under which deployments share answers. None takes
        ``params["model"]``.
    params : mapping
        What is sent besides the messages.
    key_ignore : frozenset of str, default empty
        Further parameters to leave out. An engine that ignores some shares answers only with
        engines that ignore the same ones.

    Raises
    ------
    InvalidInput
        If a parameter cannot be written as JSON: bytes, NaN, an object.
    ConfigurationError
        If `key_ignore` holds ``"model"`` or ``"messages"``.

    Examples
    --------
    >>> maker = KeyMaker(family="openai", model_alias=None, params={"model": "gpt-4o-mini"})
    >>> key = maker.key([{"role": "user", "content": "Hi"}])
    >>> key[:7], len(key)
    ('v1:112b', 67)
    """

    __slots__ = ("_prefix",)

    def __init__(
        self,
        *,
        family: str,
        kind: str = "chat",
        model_alias: str | None,
        params: Mapping[str, object],
        key_ignore: frozenset[str] = frozenset(),
    ) -> None:
        unusable = {"model", "messages"} & key_ignore
        if unusable:
            msg = (
                f"key_ignore cannot hold {sorted(unusable)}: rows would get each other's answers. "
                "Use model_name_cache_alias to share answers between models."
            )
            raise ConfigurationError(msg)
        shared = {
            "v": KEY_VERSION,
            "kind": kind,
            "family": family,
            "model": params.get("model") if model_alias is None else model_alias,
            "params": keyed_params(params, key_ignore=key_ignore),
        }
        if key_ignore:
            shared["ignored"] = sorted(key_ignore)
        # The messages follow inside the same object, so its closing brace goes.
        opened = canonical_bytes(shared, name="request").removesuffix(b"}")
        self._prefix = hashlib.sha256(opened + b',"messages":')

    @classmethod
    def for_request(
        cls,
        request: Request,
        *,
        family: str,
        kind: str = "chat",
        model_alias: str | None = None,
        key_ignore: frozenset[str] = frozenset(),
    ) -> Self:
        """Make the maker for a request and all others with its parameters and options.

        ``model_name_cache_alias`` among the request's options wins over `model_alias`; the
        other parameters are those of the class.

        Raises
        ------
        InvalidInput
            If the alias is not a text, or see the class.
        """
        alias = request.options.get("model_name_cache_alias")
        if alias is None:
            alias = model_alias
        if alias is not None and not (isinstance(alias, str) and alias):
            msg = f"model_name_cache_alias must be a non-empty str, not {alias!r}"
            raise InvalidInput(msg)
        return cls(
            family=family,
            kind=kind,
            model_alias=alias,
            params=request.params,
            key_ignore=key_ignore,
        )

    def key(self, messages: Sequence[Message] | str, sample: int = 0) -> str:
        """Key of one request.

        Parameters
        ----------
        messages : sequence of dict, or str
            The chat messages; for an embedding its text.
        sample : int, default 0
            Number of the independent sample.

        Returns
        -------
        str
            ``"v1:"`` and 64 hexadecimal digits.

        Raises
        ------
        InvalidInput
            If the messages cannot be written as JSON: bytes, a lone surrogate, an object.
        """
        digest = self._prefix.copy()
        tail = b',"sample":%d}' % index(sample) if sample else _OPEN_SAMPLE_ZERO
        digest.update(_messages(messages) + tail)
        return f"{KEY_VERSION}:{digest.hexdigest()}"


def request_key(
    request: Request, *, family: str, kind: str = "chat", model_alias: str | None = None
) -> str:
    """Key of a single request; the one that its `KeyMaker` makes.

    Parameters
    ----------
    request : Request
        The request. ``model_name_cache_alias`` among its options wins over `model_alias`.
    family, kind, model_alias
        As for `KeyMaker`.

    Returns
    -------
    str
        ``"v1:"`` and 64 hexadecimal digits.

    Raises
    ------
    InvalidInput
        If the request cannot be written as JSON.

    Examples
    --------
    >>> from lbgpt_pandas.engine.types import Request
    >>> hello = [{"role": "user", "content": "Hi"}]
    >>> warm = Request(hello, {"model": "gpt-4o-mini", "temperature": 1})
    >>> same = Request(hello, {"temperature": 1.0, "model": "gpt-4o-mini", "user": "me"})
    >>> request_key(warm, family="openai") == request_key(same, family="openai")
    True
    """
    maker = KeyMaker.for_request(request, family=family, kind=kind, model_alias=model_alias)
    return maker.key(request.messages, request.sample)


def keyed_params(
    params: Mapping[str, object], *, key_ignore: frozenset[str] = frozenset()
) -> dict[str, object]:
    """Return the parameters that are part of a key, without the model."""
    return {name: value for name, value in params.items() if _in_key(name, value, key_ignore)}


def _in_key(name: str, value: object, key_ignore: frozenset[str]) -> bool:
    if name in TRANSPORT_KEYS or name in key_ignore or name == "model":
        return False
    return not name.startswith(_OWN_PREFIX) and not _is_absent(value)


def _is_absent(value: object) -> bool:
    # The SDK's NOT_GIVEN and omit, told by their name because the SDK may not be loaded.
    kind = type(value)
    return kind.__name__ in {"NotGiven", "Omit"} and kind.__module__.partition(".")[0] == "openai"


def _messages(messages: Sequence[Message] | str) -> bytes:
    if _is_plain(messages):
        try:
            return orjson.dumps(messages, option=orjson.OPT_SORT_KEYS)
        except TypeError:
            # A lone surrogate or an odd key: the careful way says where it stands.
            return canonical_bytes(messages, name="messages")
    return canonical_bytes(messages, name="messages")


def _is_plain(messages: Sequence[Message] | str) -> bool:
    """Tell whether these are messages of nothing but text, which orjson writes canonically."""
    if type(messages) is not list and type(messages) is not tuple:
        return False
    for message in messages:
        if type(message) is not dict:
            return False
        for value in message.values():
            if type(value) is not str:
                return False
    return True
