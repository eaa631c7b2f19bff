"""The session's settings: given once, for a block, or taken from the environment."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args
from weakref import WeakSet

from lbgpt_pandas.engine import portal
from lbgpt_pandas.engine.base import _BaseGPT
from lbgpt_pandas.engine.budget import Budget
from lbgpt_pandas.engine.caches.base import adapt
from lbgpt_pandas.engine.caches.disk import DiskCache, default_directory
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.caching import SUPPORTED_MODES
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.markup import table_html
from lbgpt_pandas.engine.semantic.faiss import FaissSemanticCache
from lbgpt_pandas.engine.semantic.tier import SemanticTier, as_semantic_tier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lbgpt_pandas.engine.replay import Replay
    from lbgpt_pandas.engine.types import CacheMode

ErrorMode = Literal["coerce", "raise", "ignore"]
EventLoop = Literal["thread", "nested"]
Progress = Literal["auto", "widget", "tqdm", "none"]

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
    semantic_cache : SemanticTier or None
        The cache of near answers; None if there is none.
    cache_mode : {"use", "read_only", "refresh", "off", "replay"}
        What is done with it.
    replay : Replay or None
        The archive that all answers come from inside ``lb.replay``, whatever the others say.
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
    semantic_cache: SemanticTier | None = None
    cache_mode: CacheMode = "use"
    budget: Budget | None = None
    errors: ErrorMode = "coerce"
    progress: Progress | bool = "auto"
    max_parallel: int | None = None
    event_loop: EventLoop = "thread"
    replay: Replay | None = None

    def _repr_html_(self) -> str:
        rows = [(name, repr(getattr(self, name))) for name in self.__slots__]
        return table_html("lbgpt settings", rows)


_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603  # in a forked child nobody releases the parent's
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)

_session: Settings | None = None
_block: ContextVar[Settings | None] = ContextVar("lbgpt_settings", default=None)
_tiers: dict[object, StandardTier] = {}
_used: WeakSet[_BaseGPT] = WeakSet()
_semantic_tiers: dict[object, SemanticTier] = {}


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
    semantic_cache: object = UNSET,
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
    semantic_cache : FaissSemanticCache, QdrantSemanticCache or True, optional
        Where answers to nearly the same question are looked for; True: see `semantic_tier`.
        None, as at first: nowhere.
    cache_mode : {"use", "read_only", "refresh", "off", "replay"}, optional
        Whether answers are looked up and stored; ``"use"`` at first. ``"replay"`` asks nobody:
        what is not stored is an error.
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
    semantic_cache: object = UNSET,
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
    with in_force(replace(settings(), **_checked(locals()))) as current:
        yield current


@contextmanager
def in_force(changed: Settings) -> Iterator[Settings]:
    """Apply settings to a block; other threads and tasks do not see it."""
    token = _block.set(changed)
    try:
        yield changed
    finally:
        _block.reset(token)


def of_call(**given: Any) -> dict[str, Any]:
    """Return keywords of one call, checked, with the settings in place of what is None."""
    current = settings()
    checked = _checked({name: value for name, value in given.items() if value is not None})
    return {name: checked.get(name, getattr(current, name)) for name in given}


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
    if "semantic_cache" in given:
        cache = given["semantic_cache"]
        given["semantic_cache"] = default_semantic() if cache is True else as_semantic_tier(cache)
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
        return kept(_tiers, path.absolute(), lambda: StandardTier(DiskCache(path)))
    return StandardTier(adapt(cache))


def default_semantic() -> SemanticTier:
    """Return the semantic cache in the default directory, embedded by the local model."""
    path = default_directory() / "semantic"
    return kept(_semantic_tiers, path, lambda: SemanticTier(FaissSemanticCache("local", path)))


def used_default_semantic() -> SemanticTier | None:
    """Return `default_semantic` where a call has used it; None if there is nothing of it.

    What earlier processes kept there counts as long as the exact cache is the default one too.
    """
    path = default_directory() / "semantic"
    with _lock:
        used = _semantic_tiers.get(path)
    current = settings().cache
    cache = None if current is None else current.cache
    is_default = isinstance(cache, DiskCache) and cache.directory == path.parent.absolute()
    if used is None and is_default and path.is_dir():
        return default_semantic()
    return used


def kept(store: dict[object, T], key: object, make: Callable[[], T]) -> T:
    """Make once for `key`, so that usage and counters live as long as the process."""
    with _lock:
        if key not in store:
            store[key] = make()
        return store[key]


def note_used(engine: _BaseGPT) -> None:
    """Remember an engine that answers calls, for as long as somebody else does."""
    with _lock:
        _used.add(engine)


def used_engines() -> list[_BaseGPT]:
    """Engines that answered calls and are still there."""
    with _lock:
        return list(_used)
