"""The engine for every provider that litellm knows."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.base import _BaseGPT
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.gpt import AzureGPT
from lbgpt_pandas.engine.model_groups import ModelGroups, sealed
from lbgpt_pandas.engine.pipeline import ATTEMPT_TIMEOUT_S, Pipeline
from lbgpt_pandas.engine.transports.litellm import LiteLlmTransport
from lbgpt_pandas.engine.transports.litellm_package import check_installed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lbgpt_pandas.engine.model_groups import ModelList
    from lbgpt_pandas.engine.transports.base import Transport
    from lbgpt_pandas.engine.types import Request, TokenCount

_RETRIES = "attempts are counted here, not in litellm; give stop_after_attempts="
_COOLDOWNS = "a failing deployment is blocked here, by what it answered"
_CACHE = "answers are cached here; give cache="
_TIMEOUT = "give request_timeout="
_PROMPTS = "litellm's logs hold prompts and keys"
_REFUSED = {
    "num_retries": _RETRIES,
    "max_retries": _RETRIES,
    "retry_policy": _RETRIES,
    "model_group_retry_policy": _RETRIES,
    "retry_after": _RETRIES,
    "allowed_fails": _COOLDOWNS,
    "allowed_fails_policy": _COOLDOWNS,
    "cooldown_time": _COOLDOWNS,
    "disable_cooldowns": _COOLDOWNS,
    "cache_responses": _CACHE,
    "cache_kwargs": _CACHE,
    "caching_groups": _CACHE,
    "redis_url": _CACHE,
    "redis_host": _CACHE,
    "redis_port": _CACHE,
    "redis_password": _CACHE,
    "redis_db": _CACHE,
    "timeout": _TIMEOUT,
    "stream_timeout": _TIMEOUT,
    "default_max_parallel_requests": "give max_parallel_calls=",
    "default_priority": "requests are sent in their own order",
    "polling_interval": "requests wait here, without polling",
    "set_verbose": _PROMPTS,
    "debug_level": _PROMPTS,
    "alerting_config": _PROMPTS,
}
_REFUSED_DEFAULTS = frozenset({"num_retries", "max_retries", "caching", "cache", "timeout"})


class LiteLlmRouter(_BaseGPT):
    """Any provider that litellm knows, by its Router; needs the extra ``litellm``.

    litellm is imported at the first use. Its retries, cool-downs and cache are off, because
    this engine has its own. A group's deployments share this engine's limits; to keep to
    different limits give each one an engine and put them into a `MultiLoadBalancedGPT`.

    Parameters
    ----------
    model_list : sequence of dict
        As litellm takes it: ``{"model_name": ..., "litellm_params": {"model":
        "provider/name", "api_key": ...}}`` each. Requests name a ``model_name``.
    max_parallel_calls : int, default 64
        Cap on the calls in flight.
    cache : object, optional
        The exact cache; see `Pipeline`.
    request_timeout : float, default 120
        Seconds for one attempt.
    **settings
        Of `Pipeline`, such as ``limit_rpm`` and ``name``; all others go to litellm's Router
        (``routing_strategy``, ``fallbacks``, ...).

    Raises
    ------
    MissingExtraError
        If litellm is not installed; with the install line.
    ConfigurationError
        If the list is of another shape, a setting would make litellm retry, cache or log, or
        a key would travel unencrypted; at the first use, if litellm refuses an argument.
    TypeError
        If a setting is misspelt.

    Examples
    --------
    >>> LiteLlmRouter(
    ...     [{"model_name": "claude", "litellm_params": {"model": "anthropic/claude-haiku-4-5"}}]
    ... )
    LiteLlmRouter(name='LiteLlmRouter')
    """

    def __init__(
        self,
        model_list: ModelList,
        max_parallel_calls: int = 64,
        cache: object = None,
        *,
        request_timeout: float | None = ATTEMPT_TIMEOUT_S,
        **settings: Any,
    ) -> None:
        check_installed()
        own, router_kwargs = _divided(settings)
        self._groups = ModelGroups(model_list, router_kwargs)
        self._router_kwargs = sealed(router_kwargs)
        if self._groups.is_only("azure"):
            self.default_burst_s = AzureGPT.default_burst_s
        if len(self._groups.names) == 1:
            self.default_model = self._groups.names[0]
        super().__init__(max_parallel_calls, cache, request_timeout=request_timeout, **own)

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the model groups, as ``model=`` takes them."""
        return self._groups.names

    @property
    def family(self) -> str:
        """Of the only model group; of all together if there are several."""
        return self._groups.family(self.default_model)

    def family_of(self, request: Request) -> str:
        """Family of the model group that answers this request."""
        return self._groups.family(request.model)

    def price_of_tokens(self, model: str, tokens: TokenCount) -> float | None:
        """List price in USD of a group's dearest model, or of a model by name."""
        return self._groups.cost_usd(model, tokens)

    def _new_transport(self) -> Transport:
        return LiteLlmTransport(self._groups.sealed, router_kwargs=self._router_kwargs)


def _divided(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide keywords into this package's and litellm's."""
    names = set(Pipeline.settings())
    own = {name: value for name, value in settings.items() if name in names}
    of_router = {name: value for name, value in settings.items() if name not in names}
    for name in of_router:
        if name in _REFUSED:
            raise ConfigurationError(f"{name}= is not passed on to litellm: {_REFUSED[name]}")
        close = get_close_matches(name, names, n=1, cutoff=0.8)
        if close:
            raise TypeError(f"{name}= is no setting; did you mean {close[0]}=?")
    refused = _REFUSED_DEFAULTS & set(of_router.get("default_litellm_params") or ())
    if refused:
        raise ConfigurationError(
            f"default_litellm_params sets {', '.join(sorted(refused))}: retries, time-outs and "
            "caching are this engine's own"
        )
    return own, of_router
