"""The litellm package: loaded at first use, kept quiet, its connections closed with ours.

litellm keeps its HTTP clients and a task for its callbacks in module-wide state, by event
loop. What our calls made it open there is closed when the last engine on the loop closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import inspect
import logging
import os
import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from lbgpt_pandas.engine.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALL_LINE = "pip install 'lbgpt-pandas[litellm]'"
FLUSH_S = 2.0
"""Seconds that litellm's callbacks get to finish when the last engine of a loop closes."""

_REFUSED_VERSIONS = ("1.82.7", "1.82.8", "1.107.")
_LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy")

_CALLBACK_LISTS = (
    "callbacks",
    "input_callback",
    "service_callback",
    "success_callback",
    "failure_callback",
    "_async_input_callback",
    "_async_success_callback",
    "_async_failure_callback",
)

_is_ours: ContextVar[bool] = ContextVar("lbgpt_litellm", default=False)
_lock = threading.Lock()


@dataclass(slots=True)
class _Stay:
    users: int = 0
    clients: list[object] = field(default_factory=list)


_stays: WeakKeyDictionary[asyncio.AbstractEventLoop, _Stay] = WeakKeyDictionary()


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603  # in a forked child nobody releases the parent's
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def check_version(installed: str) -> None:
    """Raise a ConfigurationError for releases of litellm that must not be imported.

    Examples
    --------
    >>> check_version("1.106.2")
    >>> check_version("1.82.8")
    Traceback (most recent call last):
    ...
    lbgpt_pandas.engine.errors.ConfigurationError: litellm 1.82.8 is not loaded: ...
    """
    if f"{installed}.".startswith(tuple(f"{bad.rstrip('.')}." for bad in _REFUSED_VERSIONS)):
        raise ConfigurationError(
            f"litellm {installed} is not loaded: 1.82.7 and 1.82.8 were malicious and 1.107 is "
            f"excluded; install another release with {INSTALL_LINE}, and after a malicious one "
            "change every key that this machine held"
        )


def check_installed() -> None:
    """Raise unless a usable release of litellm is installed; nothing is imported.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    ConfigurationError
        If it is a release that must not be used.
    """
    if find_spec("litellm") is None:
        raise MissingExtraError(
            f"other providers are reached through litellm, which is not installed: {INSTALL_LINE}"
        )
    check_version(version("litellm"))


async def load_litellm() -> Any:
    """Import litellm away from the event loop, which takes seconds the first time.

    Raises
    ------
    MissingExtraError
        If it cannot be imported.
    ConfigurationError
        If it is a release that must not be used.
    """
    return await asyncio.to_thread(_load)


def _load() -> Any:
    check_installed()
    # Otherwise its import fetches a price list from the network, with retries.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        with quiet():
            litellm: Any = importlib.import_module("litellm")
    except ImportError as error:
        raise MissingExtraError(f"litellm cannot be imported ({error}): {INSTALL_LINE}") from error
    litellm.suppress_debug_info = True
    if hasattr(litellm, "telemetry"):
        litellm.telemetry = False
    for name in _LOGGERS:
        # A logger keeps one of each filter, so this may happen any number of times.
        logging.getLogger(name).addFilter(_is_of_others)
    return litellm


def _is_of_others(record: logging.LogRecord) -> bool:
    del record
    return not _is_ours.get()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let litellm log nothing of what happens inside: its records hold prompts and requests."""
    token = _is_ours.set(True)
    try:
        yield
    finally:
        _is_ours.reset(token)


def enter_loop(litellm: Any) -> None:
    """Count one more user of litellm on the running loop."""
    loop = asyncio.get_running_loop()
    with _lock:
        _watch(litellm.in_memory_llm_clients_cache)
        _stays.setdefault(loop, _Stay()).users += 1


def make_router(litellm: Any, **arguments: Any) -> tuple[Any, list[object]]:
    """Make a Router; return it with the callbacks that it left in litellm's lists."""
    with _lock, quiet():
        before = {id(callback) for callback in litellm.callbacks}
        router = litellm.Router(**arguments)
        added = [callback for callback in litellm.callbacks if id(callback) not in before]
    return router, added


def discard_router(litellm: Any, router: Any, callbacks: list[object]) -> None:
    """Take a Router out of litellm's lists, where it would stay with its keys for good."""
    with _lock:
        router.discard()
        ours = {id(callback) for callback in callbacks}
        for name in _CALLBACK_LISTS:
            kept: list[object] = getattr(litellm, name, [])
            kept[:] = [callback for callback in kept if id(callback) not in ours]


async def leave_loop(litellm: Any) -> None:
    """Count one user less; the last one closes what litellm opened for us on the loop."""
    loop = asyncio.get_running_loop()
    with _lock:
        stay = _stays[loop]
        stay.users -= 1
        if stay.users:
            return
        del _stays[loop]
        _forget(litellm.in_memory_llm_clients_cache, stay.clients)
    with quiet():
        await _stop_callbacks(loop)
        for client in stay.clients:
            await _close(client)


def _watch(cache: Any) -> None:
    """Note the clients that our calls add to litellm's cache; they never retry or redirect.

    litellm lets the SDK repeat embeddings, whatever it is told. After a redirect prompts, and
    keys that are not in ``Authorization``, would go to whoever is named.
    """
    add = cache.set_cache
    if getattr(add, "is_watched", False):
        return

    @functools.wraps(add)
    def set_cache(key: str, value: object, *args: Any, **kwargs: Any) -> Any:
        if _is_ours.get():
            for holder in (value, getattr(value, "client", None), getattr(value, "_client", None)):
                if hasattr(holder, "follow_redirects"):
                    holder.follow_redirects = False
            if hasattr(value, "max_retries"):
                value.max_retries = 0
            with contextlib.suppress(RuntimeError, KeyError):  # outside of our loops
                _stays[asyncio.get_running_loop()].clients.append(value)
        return add(key, value, *args, **kwargs)

    set_cache.is_watched = True  # type: ignore[attr-defined]  # a mark for the next time
    cache.set_cache = set_cache


def _forget(cache: Any, clients: list[object]) -> None:
    ours = {id(client) for client in clients}
    for key in [key for key, client in cache.cache_dict.items() if id(client) in ours]:
        cache.cache_dict.pop(key)
        cache.ttl_dict.pop(key, None)


async def _stop_callbacks(loop: asyncio.AbstractEventLoop) -> None:
    module = importlib.import_module("litellm.litellm_core_utils.logging_worker")
    worker = module.GLOBAL_LOGGING_WORKER
    if getattr(worker, "_bound_loop", loop) is not loop:
        return
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(worker.flush(), FLUSH_S)
    await worker.stop()


async def _close(client: object) -> None:
    close = getattr(client, "aclose", None) or getattr(client, "close", None)
    if close is None:
        return
    # What is not closed cleanly is of no further use either; it is the provider's code.
    with contextlib.suppress(Exception):
        done = close()
        if inspect.isawaitable(done):
            await done
