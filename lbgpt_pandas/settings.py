"""The session's settings: given once, for a block, or taken from the environment."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args
from weakref import WeakSet

from lbgpt_pandas.engine import portal
from lbgpt_pandas.engine.balanced import MultiLoadBalancedGPT
from lbgpt_pandas.engine.base import _BaseGPT
from lbgpt_pandas.engine.budget import Budget
from lbgpt_pandas.engine.caches.base import adapt
from lbgpt_pandas.engine.caches.disk import DiskCache, default_directory
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.caching import SUPPORTED_MODES
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.gpt import AzureGPT, ChatGPT, LocalGPT
from lbgpt_pandas.engine.litellm_router import LiteLlmRouter
from lbgpt_pandas.engine.report import inert_html
from lbgpt_pandas.engine.secrets import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lbgpt_pandas.engine.types import CacheMode

ErrorMode = Literal["coerce", "raise", "ignore"]
EventLoop = Literal["thread", "nested"]
Progress = Literal["auto", "widget", "tqdm", "none"]

LOCAL_MODEL = "local"

T = TypeVar("T")


class _Unset:
    def __repr__(self) -> str:
        return "..."


UNSET: Final[Any] = _Unset()
"""Stands for a keyword that was not given, where None has a meaning of its own."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a call takes when it says nothing else.

    Attributes
    ----------
    engine : engine or None
        Who answers; None: resolved from the model and the environment.
    model : str or None
        Model name.
    cache : StandardTier or None
        The exact cache of frames; None if there is none.
    cache_mode : {"use", "read_only", "refresh", "off"}
        What is done with it.
    budget : Budget or None
        What all runs together may spend.
    errors : {"coerce", "raise", "ignore"}
        What becomes of failed rows.
    progress : {"auto", "widget", "tqdm", "none"} or bool
        How progress is drawn.
    max_parallel : int or None
        Cap on the requests of one run that are worked on at once.
    event_loop : {"thread", "nested"}
        Where synchronous calls run.
    """

    engine: _BaseGPT | None = None
    model: str | None = None
    cache: StandardTier | None = None
    cache_mode: CacheMode = "use"
    budget: Budget | None = None
    errors: ErrorMode = "coerce"
    progress: Progress | bool = "auto"
    max_parallel: int | None = None
    event_loop: EventLoop = "thread"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{name}</th>"
            f"<td style='text-align:left'>{inert_html(repr(getattr(self, name)))}</td></tr>"
            for name in self.__slots__
        )
        return f"<table><tbody>{rows}</tbody></table>"


_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603  # in a forked child nobody releases the parent's
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)

_session: Settings | None = None
_block: ContextVar[Settings | None] = ContextVar("lbgpt_settings", default=None)
_tiers: dict[object, StandardTier] = {}
_engines: dict[object, _BaseGPT] = {}
_used: WeakSet[_BaseGPT] = WeakSet()


def settings() -> Settings:
    """Return the settings in force here.

    Returns
    -------
    Settings
        Those of the innermost `using` block, else the session's. Frozen; shows no secret.
    """
    global _session  # noqa: PLW0603  # the session is one per process by definition
    block = _block.get()
    if block is not None:
        return block
    with _lock:
        if _session is None:
            _session = Settings(cache=_tier(UNSET))
        return _session


def configure(
    engine: _BaseGPT | None = UNSET,
    *,
    model: str | None = UNSET,
    cache: object = UNSET,
    cache_mode: CacheMode = UNSET,
    budget: Budget | float | None = UNSET,
    errors: ErrorMode = UNSET,
    progress: Progress | bool = UNSET,
    max_parallel: int | None = UNSET,
    event_loop: EventLoop = UNSET,
) -> None:
    """Set what later calls take when they say nothing else. What is not given stays.

    Parameters
    ----------
    engine : engine, optional
        Who answers. None goes back to the choice by model and environment.
    model : str, optional
        Model name, such as ``"gpt-4o-mini"`` or ``"local"``.
    cache : path or object, optional
        Directory of the exact cache, or any object with a mapping's, ``get``/``set`` or
        ``aget``/``aset`` interface. None: no cache. By default a directory for this user,
        or ``LBGPT_CACHE_DIR``.
    cache_mode : {"use", "read_only", "refresh", "off"}, optional
        Whether answers are looked up and stored; ``"use"`` at first.
    budget : Budget or float, optional
        What all later runs together may spend, a number in USD; a call's own ``budget=`` comes
        in its place. None: no bound, as at first.
    errors : {"coerce", "raise", "ignore"}, optional
        ``"coerce"`` at first: failed rows are NA, with one warning.
    progress : {"auto", "widget", "tqdm", "none"} or bool, optional
        ``"auto"`` at first.
    max_parallel : int, optional
        Cap on the requests of one run that are worked on at once; None for the engine's own.
    event_loop : {"thread", "nested"}, optional
        ``"thread"`` at first: synchronous calls run on a loop of their own. ``"nested"`` runs
        them inside the notebook's loop with nest-asyncio2, for objects bound to that loop.

    Raises
    ------
    ConfigurationError
        If a value cannot work.

    Examples
    --------
    >>> configure(model="gpt-4o-mini", errors="raise")
    >>> settings().model
    'gpt-4o-mini'
    >>> configure(model=None, errors="coerce")
    """
    global _session  # noqa: PLW0603  # the session is one per process by definition
    given = _checked(locals())
    if event_loop is not UNSET:
        portal.use_nested(event_loop == "nested")
    with _lock:
        _session = replace(_session or Settings(cache=_tier(UNSET)), **given)


@contextmanager
def using(
    engine: _BaseGPT | None = UNSET,
    *,
    model: str | None = UNSET,
    cache: object = UNSET,
    cache_mode: CacheMode = UNSET,
    budget: Budget | float | None = UNSET,
    errors: ErrorMode = UNSET,
    progress: Progress | bool = UNSET,
    max_parallel: int | None = UNSET,
) -> Iterator[Settings]:
    """Apply settings to a block; the keywords are those of `configure`.

    Safe in threads and tasks: other ones do not see it. ``event_loop`` belongs to the process
    and can only be configured.

    Yields
    ------
    Settings
        The settings in force inside.
    """
    given = _checked(locals())
    token = _block.set(replace(settings(), **given))
    try:
        yield settings()
    finally:
        _block.reset(token)


def _checked(keywords: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in keywords.items() if value is not UNSET}
    choices: dict[str, tuple[object, ...]] = {
        "cache_mode": SUPPORTED_MODES,
        "errors": get_args(ErrorMode),
        "progress": (*get_args(Progress), True, False),
        "event_loop": get_args(EventLoop),
    }
    for name, allowed in choices.items():
        if name in given:
            check_choice(name, given[name], allowed)
    check_engine(given.get("engine"))
    check_max_parallel(given.get("max_parallel"))
    if "budget" in given:
        given["budget"] = Budget.of(given["budget"])
    if "cache" in given:
        given["cache"] = _tier(given["cache"])
    return given


def check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise a ConfigurationError that lists the choices unless `value` is one of them."""
    if value not in allowed:
        raise ConfigurationError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}")


def check_engine(engine: object) -> None:
    """Raise a ConfigurationError unless `engine` is an engine or None."""
    if engine is not None and not isinstance(engine, _BaseGPT):
        raise ConfigurationError(
            f"engine={type(engine).__name__} is not an engine; give ChatGPT(...), AzureGPT(...), "
            "LocalGPT(...), MultiLoadBalancedGPT(...), LiteLlmRouter(...), or leave it out and "
            "give model="
        )


def check_max_parallel(number: object) -> None:
    """Raise a ConfigurationError unless `number` is a positive whole number or None."""
    if number is None or (isinstance(number, int) and number is not True and number >= 1):
        return
    raise ConfigurationError(f"max_parallel={number!r}: give a whole number of at least 1")


def _tier(cache: object) -> StandardTier | None:
    if cache is None or isinstance(cache, StandardTier):
        return cache
    if cache is UNSET or isinstance(cache, str | Path):
        if cache == "":
            raise ConfigurationError('cache="" is no directory; None is no cache at all')
        path = default_directory() if cache is UNSET else Path(str(cache)).expanduser()
        return _kept(_tiers, path.absolute(), lambda: StandardTier(DiskCache(path)))
    return StandardTier(adapt(cache))


def _kept(store: dict[object, T], key: object, make: Callable[[], T]) -> T:
    """Make once for `key`, so that usage and counters live as long as the process."""
    with _lock:
        if key not in store:
            store[key] = make()
        return store[key]


def resolve_engine(model: str | None, *, engine: _BaseGPT | None = None) -> tuple[_BaseGPT, str]:
    """Find out who answers, and under which model name.

    Parameters
    ----------
    model : str or None
        As the call gave it.
    engine : engine, optional
        As the call gave it; it comes first, then ``model="local"``, the settings, and the
        environment.

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
    if chosen is None and wanted == LOCAL_MODEL and not isinstance(current.engine, LocalGPT):
        chosen = _kept(_engines, LOCAL_MODEL, LocalGPT)
    chosen = chosen or current.engine or _from_environment(wanted)
    if wanted == LOCAL_MODEL and model is None and not isinstance(chosen, LocalGPT):
        wanted = None  # configured for the embedded model, which was not given this call
    name = wanted or chosen.default_model
    if not name:
        raise ConfigurationError(
            "no model is named: give model=, for example model='gpt-4o-mini', or set it once "
            "with lb.configure(model=...)"
        )
    with _lock:
        _used.add(chosen)
    return chosen, name


def known_engines() -> list[_BaseGPT]:
    """The engine that would answer now, those of the environment, and those used in calls."""
    current = settings()
    with suppress(ConfigurationError):  # nothing is configured
        current = replace(current, engine=current.engine or _from_environment(current.model))
    with _lock:
        found = [current.engine, *_engines.values(), *_used]
    return [engine for engine in dict.fromkeys(found) if engine is not None]


def _from_environment(model: str | None) -> _BaseGPT:
    variables = os.environ
    key, base_url = variables.get("OPENAI_API_KEY"), variables.get("OPENAI_BASE_URL")
    if model and "/" in model and not base_url:
        deployment = {"model_name": model, "litellm_params": {"model": model}}
        return _kept(_engines, ("litellm", model), lambda: LiteLlmRouter([deployment]))
    azure_key = variables.get("AZURE_OPENAI_API_KEY")
    endpoint = variables.get("AZURE_OPENAI_ENDPOINT")
    openai = azure = None
    if key:
        openai = _kept(_engines, ("openai", Secret(key), base_url), lambda: ChatGPT(key))
    if azure_key and endpoint and not (key and base_url):
        azure = _kept(
            _engines,
            ("azure", Secret(azure_key), endpoint),
            # Without a map a deployment is called as the model is.
            lambda: AzureGPT(azure_key, endpoint, {}),
        )
    match openai, azure:
        case ChatGPT(), AzureGPT():
            return _kept(
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
