"""Who answers a call: what was given or configured, else what the environment offers."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.balanced import MultiLoadBalancedGPT
from lbgpt_pandas.engine.base import _BaseGPT
from lbgpt_pandas.engine.caching import Caching
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.gpt import NO_KEY, AzureGPT, ChatGPT, LocalGPT
from lbgpt_pandas.engine.litellm_router import LiteLlmRouter
from lbgpt_pandas.engine.replay import ReplayGPT
from lbgpt_pandas.engine.secrets import Secret
from lbgpt_pandas.engine.semantic.tier import check_threshold
from lbgpt_pandas.settings import (
    check_engine,
    default_semantic,
    kept,
    note_used,
    settings,
    used_engines,
)

if TYPE_CHECKING:
    from lbgpt_pandas.engine.semantic.tier import SemanticTier
    from lbgpt_pandas.engine.types import CacheMode

LOCAL_MODEL = "local"

_engines: dict[object, _BaseGPT] = {}


def resolve_engine(
    model: str | None, *, engine: _BaseGPT | None = None, keyless: bool = False
) -> tuple[_BaseGPT, str]:
    """Find out who answers, and under which model name.

    Parameters
    ----------
    model : str or None
        As the call gave it.
    engine : engine, optional
        As the call gave it; it comes first, then ``model="local"``, the settings, and the
        environment.
    keyless : bool, default False
        Nobody will be called: where a key is missing, an engine without one will do.

    Returns
    -------
    engine
    str
        The model name that is sent.

    Raises
    ------
    ConfigurationError
        If nothing answers or no model is named; says which variables were looked for.
    """
    check_engine(engine)
    if model is not None and not (isinstance(model, str) and model):
        raise ConfigurationError(f"model={model!r} is not the name of a model")
    current = settings()
    wanted = model or current.model
    chosen = engine
    is_local = isinstance(current.engine, LocalGPT | ReplayGPT)
    if chosen is None and wanted == LOCAL_MODEL and not is_local:
        chosen = kept(_engines, LOCAL_MODEL, LocalGPT)
    chosen = chosen or current.engine
    if chosen is None and keyless:
        with suppress(ConfigurationError):
            chosen = _from_environment(wanted)
        chosen = chosen or _without_key()
    chosen = chosen or _from_environment(wanted)
    if wanted == LOCAL_MODEL and model is None and not isinstance(chosen, LocalGPT):
        wanted = None  # configured for the embedded model, which was not given this call
    name = wanted or chosen.default_model
    if not name:
        raise ConfigurationError(
            "no model is named: give model=, for example model='gpt-4o-mini', or set it once "
            "with lb.configure(model=...)"
        )
    note_used(chosen)
    return chosen, name


def has_engine(model: str | None, *, engine: _BaseGPT | None = None) -> bool:
    """Tell whether `resolve_engine` finds somebody who could be called."""
    try:
        resolve_engine(model, engine=engine)
    except ConfigurationError:
        return False
    return True


def known_engines() -> list[_BaseGPT]:
    """The engine that would answer now, those of the environment, and those used in calls."""
    current = settings()
    with suppress(ConfigurationError):  # nothing is configured
        current = replace(current, engine=current.engine or _from_environment(current.model))
    found = [current.engine, *_engines.values(), *used_engines()]
    return [engine for engine in dict.fromkeys(found) if engine is not None]


def _from_environment(model: str | None) -> _BaseGPT:
    variables = os.environ
    key, base_url = variables.get("OPENAI_API_KEY"), variables.get("OPENAI_BASE_URL")
    if model and "/" in model and not base_url:
        deployment = {"model_name": model, "litellm_params": {"model": model}}
        return kept(_engines, ("litellm", model), lambda: LiteLlmRouter([deployment]))
    azure_key = variables.get("AZURE_OPENAI_API_KEY")
    endpoint = variables.get("AZURE_OPENAI_ENDPOINT")
    openai = azure = None
    if key:
        openai = kept(_engines, ("openai", Secret(key), base_url), lambda: ChatGPT(key))
    if azure_key and endpoint and not (key and base_url):
        azure = kept(
            _engines,
            ("azure", Secret(azure_key), endpoint),
            # Without a map a deployment is called as the model is.
            lambda: AzureGPT(azure_key, endpoint, {}),
        )
    match openai, azure:
        case ChatGPT(), AzureGPT():
            return kept(
                _engines,
                (openai, azure),
                lambda: MultiLoadBalancedGPT([openai, azure], allocation_function="max_headroom"),
            )
        case _BaseGPT() as only, None:
            return only
        case None, _BaseGPT() as only:
            return only
    raise ConfigurationError(
        "no engine: none was given or configured, and the environment has neither OPENAI_API_KEY "
        "nor AZURE_OPENAI_API_KEY with AZURE_OPENAI_ENDPOINT. A model written provider/name goes "
        'to its provider by litellm (extra "litellm"); model="local" needs no key (extra "local")'
    )


def _without_key() -> _BaseGPT:
    """Return an engine that makes the keys of the environment's, and could not call it."""
    endpoint = os.environ.get("AZURE_OPENAI_ENDPOINT")
    if endpoint and not os.environ.get("OPENAI_BASE_URL"):
        return AzureGPT(NO_KEY, endpoint, {})
    return ChatGPT(NO_KEY)


def caching_of(
    engine: _BaseGPT, mode: CacheMode, *, semantic: bool | float | None = None
) -> Caching:
    """Find the caches of a call, and what it may do with them.

    Parameters
    ----------
    engine : engine
        Who would answer; its own caches come first, except inside ``lb.replay``.
    mode : {"use", "read_only", "refresh", "off", "replay"}
        As the call or the settings say.
    semantic : bool, float or None
        See `semantic_tier`.
    """
    current = settings()
    if current.replay is not None:
        return Caching.of(current.replay.tier, "replay", recording=current.replay.recording)
    tier = engine.tier if engine.has_cache else current.cache
    if mode == "replay":
        return Caching.of(tier, mode)
    return Caching.of(
        tier,
        mode,
        semantic=semantic_tier(semantic, engine=engine),
        order=engine.lookup_order,
        copies=engine.copies,
    )


def semantic_tier(
    wanted: bool | float | None,  # noqa: FBT001  # the accessor's keyword
    *,
    engine: _BaseGPT,
) -> SemanticTier | None:
    """Find the semantic cache of a call.

    Parameters
    ----------
    wanted : bool, float or None
        True, a threshold, or None for what the engine has or is configured; False for none.
        Where True or a threshold finds nothing configured, near answers are kept in a FAISS
        cache beside the default directory's answers, embedded by the local model.
    engine : engine
        Who would answer; its own semantic cache comes first.

    Raises
    ------
    ConfigurationError
        If the threshold is none.
    """
    if wanted is False:
        return None
    tier = engine.semantic or settings().semantic_cache
    if wanted is None:
        return tier
    if wanted is True:
        return tier or default_semantic()
    check_threshold(wanted, keyword="semantic")
    return (tier or default_semantic()).with_threshold(wanted)
