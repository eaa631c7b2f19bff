"""litellm's model lists: checked, their keys masked, and what a cache key must know of them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from lbgpt_pandas.engine import pricing
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.gpt import NO_KEY, OPENAI_FAMILY, check_encrypted, check_key
from lbgpt_pandas.engine.secrets import Secret

if TYPE_CHECKING:
    from lbgpt_pandas.engine.types import TokenCount

ModelList = Sequence[Mapping[str, Any]]

_FROM_ENVIRONMENT = "os.environ/"
_OPENAI_HOST = "api.openai.com"
_OPENAI_VARIABLES = ("OPENAI_BASE_URL", "OPENAI_API_BASE")
_OPENAI_NAME = re.compile(r"(?:gpt-|o\d|chatgpt-|text-embedding-)")

_SECRET_NAME = re.compile(
    r"(?:\A|[_-])(?:key|token|secret|password|credentials?|jwt|authorization|access_key_id)\Z",
    re.IGNORECASE,
)
_SECRET_MAPPINGS = frozenset({"extra_headers", "headers", "default_headers", "vertex_credentials"})
_RETRY_NAMES = ("num_retries", "max_retries")
# How a deployment is reached and what it costs; all else may change what it answers.
_TRANSPORT_NAMES = frozenset(
    {
        "model", "custom_llm_provider", "base_model", "api_key", "api_base", "base_url",
        "api_version", "organization", "timeout", "stream_timeout", "request_timeout", "rpm", "tpm",
        "max_retries", "num_retries", "weight", "order", "max_parallel_requests", "tags", "user",
        "metadata", "extra_headers", "headers", "default_headers", "region_name", "tenant_id",
        "client_id", "client_secret", "max_budget", "budget_duration", "litellm_credential_name",
    }
)  # fmt: skip
_TRANSPORT_PREFIXES = ("aws_", "azure_", "vertex_", "input_cost_", "output_cost_")
_ANSWERING_ARGUMENTS = (
    "fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "default_fallbacks",
    "default_litellm_params", "model_group_alias", "plugins", "guardrail_list", "routing_groups",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Backend:
    """What one deployment of a model group asks.

    Attributes
    ----------
    provider, model : str
        As in ``provider/model``; the provider is empty where litellm has to guess it.
    host : str or None
        Of an address that was given.
    is_openai : bool
        OpenAI's own model, at OpenAI or Azure, beyond doubt.
    further : str
        Digest of parameters that are sent with each request; empty without any.
    """

    provider: str
    model: str
    host: str | None
    is_openai: bool
    further: str

    @property
    def identity(self) -> str:
        """Text that is the same for deployments that give the same answers."""
        text = f"{self.provider or 'unknown'}/{self.model}"
        if self.host and not self.is_openai:
            text = f"{text}@{self.host}"
        return f"{text}+{self.further}" if self.further else text


class ModelGroups:
    """A model list by group.

    Parameters
    ----------
    model_list : sequence of mapping
        As litellm takes it.
    router_kwargs : mapping
        Further arguments of litellm's Router.

    Attributes
    ----------
    sealed : list of dict
        The model list with its keys as `Secret`.

    Raises
    ------
    ConfigurationError
        If the list is of another shape, asks for retries, or would send a key unencrypted.
    """

    def __init__(self, model_list: ModelList, router_kwargs: Mapping[str, object]) -> None:
        if isinstance(model_list, str | Mapping) or not isinstance(model_list, Sequence):
            raise ConfigurationError("model_list is a list of dicts, as litellm's Router takes it")
        if not model_list:
            raise ConfigurationError("model_list is empty; it needs at least one deployment")
        self.sealed: list[dict[str, Any]] = []
        for number, entry in enumerate(model_list):
            checked = _checked(entry, number)
            if checked in self.sealed:
                # litellm takes equal deployments for one when it is to leave one out.
                information = {
                    "id": f"{number}-{_digest(checked)}",
                    **checked.get("model_info", {}),
                }
                checked["model_info"] = information
            self.sealed.append(checked)
        self._backends: dict[str, list[Backend]] = {}
        for entry in self.sealed:
            self._backends.setdefault(entry["model_name"], []).append(_backend_of(entry))
        aliases = router_kwargs.get("model_group_alias")
        self._aliases = dict(aliases) if isinstance(aliases, Mapping) else {}
        answering = {
            name: router_kwargs[name] for name in _ANSWERING_ARGUMENTS if router_kwargs.get(name)
        }
        self._answering = _digest(answering) if answering else ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the groups."""
        return tuple(self._backends)

    def is_only(self, provider: str) -> bool:
        """Whether every deployment is one of this provider."""
        return all(
            backend.provider == provider for group in self._backends.values() for backend in group
        )

    def backends(self, name: str | None) -> list[Backend]:
        """Deployments of a group; empty for a name that only litellm's patterns may know."""
        alias = self._aliases.get(name, name)
        return self._backends.get(alias, []) if isinstance(alias, str) else []

    def family(self, name: str | None) -> str:
        """Family of a group for cache keys, which no two kinds of deployments share.

        ``"openai"``, and with it the entries of `ChatGPT` and `AzureGPT`, where the group is
        called as the one OpenAI model that all its deployments run.
        """
        backends = self.backends(name)
        identities = sorted({backend.identity for backend in backends})
        if backends and not self._answering:
            if all(
                backend.is_openai and not backend.further and backend.model == name
                for backend in backends
            ):
                return OPENAI_FAMILY
            if len(identities) == 1:
                return f"litellm/{identities[0]}"
        if not backends:
            identities = sorted(
                {backend.identity for group in self._backends.values() for backend in group}
            )
        return f"litellm/{_digest([identities, self._answering])}"

    def cost_usd(self, name: str, tokens: TokenCount) -> float | None:
        """List price, the dearest of a group's deployments; None if one is unknown."""
        models = {(backend.provider, backend.model) for backend in self.backends(name)}
        if not models:
            return _cost(name, tokens)
        costs = [_cost(f"{provider}/{model}", tokens) for provider, model in models]
        known = [cost for cost in costs if cost is not None]
        return max(known) if len(known) == len(costs) else None


def sealed(value: Any, name: str = "", *, all_of_it: bool = False) -> Any:
    """Copy nested data with its keys as `Secret`.

    References to the environment as litellm writes them (``os.environ/NAME``) stay.
    """
    match value:
        case Mapping():
            return {
                key: sealed(item, str(key), all_of_it=all_of_it or name in _SECRET_MAPPINGS)
                for key, item in value.items()
            }
        case list() | tuple():
            return [sealed(item, name, all_of_it=all_of_it) for item in value]
        case str() if value and not value.startswith(_FROM_ENVIRONMENT):
            is_secret = all_of_it or name in _SECRET_MAPPINGS or bool(_SECRET_NAME.search(name))
            return Secret(check_key(value) if name == "api_key" else value) if is_secret else value
        case _:
            return value


def _checked(entry: object, number: int) -> dict[str, Any]:
    where = f"model_list[{number}]"
    if not isinstance(entry, Mapping):
        raise ConfigurationError(f"{where} is not a dict with model_name and litellm_params")
    name, params = entry.get("model_name"), entry.get("litellm_params")
    if not (isinstance(name, str) and name):
        raise ConfigurationError(f"{where} has no model_name, by which requests name it")
    if not isinstance(params, Mapping) or not isinstance(params.get("model"), str):
        raise ConfigurationError(f"{where} ({name!r}) has no litellm_params with a model")
    for retries in _RETRY_NAMES:
        if params.get(retries):
            raise ConfigurationError(
                f"{where} ({name!r}) sets {retries}: attempts are counted here, not in litellm; "
                "give stop_after_attempts= to the engine"
            )
    key, address = params.get("api_key"), params.get("api_base") or params.get("base_url")
    if key and key != NO_KEY and isinstance(address, str) and "://" in address:
        check_encrypted(address)
    return dict(sealed(entry))


def _backend_of(entry: Mapping[str, Any]) -> Backend:
    params = entry["litellm_params"]
    provider, model = _provider_and_model(params)
    info = entry.get("model_info")
    base_model = params.get("base_model") or (info or {}).get("base_model")
    address = params.get("api_base") or params.get("base_url")
    host = urlsplit(address).netloc if isinstance(address, str) else None
    is_openai = provider == "openai" and host == _OPENAI_HOST
    if provider == "openai" and not address:
        is_openai = not any(os.environ.get(name) for name in _OPENAI_VARIABLES)
    if provider == "azure" and isinstance(base_model, str):
        # What a deployment is called says nothing about its model, this does.
        model, is_openai = base_model.removeprefix("azure/"), True
    further = {
        name: value
        for name, value in params.items()
        if name not in _TRANSPORT_NAMES and not name.startswith(_TRANSPORT_PREFIXES)
    }
    return Backend(provider, model, host, is_openai, _digest(further) if further else "")


def _provider_and_model(params: Mapping[str, Any]) -> tuple[str, str]:
    provider, model = params.get("custom_llm_provider"), params["model"]
    if provider:
        return str(provider), model.removeprefix(f"{provider}/")
    if "/" in model:
        before, _, after = model.partition("/")
        return before, after
    return ("openai" if _OPENAI_NAME.match(model) else ""), model


def _cost(model: str, tokens: TokenCount) -> float | None:
    cost = pricing.cost_usd(model, tokens)
    if cost is None and "/" in model:
        return pricing.cost_usd(model.partition("/")[2], tokens)
    return cost


def _digest(value: object) -> str:
    # Secrets do not change answers, and other objects have no text that lasts.
    text = orjson.dumps(
        value, default=lambda other: type(other).__name__, option=orjson.OPT_SORT_KEYS
    )
    return hashlib.sha256(text).hexdigest()[:16]
