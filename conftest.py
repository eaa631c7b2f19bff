"""What holds for every test and doctest: no key, no cache of the user's, no way out."""

from __future__ import annotations

import importlib
import ipaddress
import os
import sys
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# The machine may be busy with other things; a slow example says nothing about the code.
hypothesis.settings.register_profile("lbgpt", deadline=None)
hypothesis.settings.load_profile("lbgpt")

# litellm fetches a price list at import otherwise.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

PROVIDER_VARIABLES = ("OPENAI_", "AZURE_", "ANTHROPIC_", "GEMINI_", "LBGPT_")

_reached: list[str] = []


def _is_here(host: object) -> bool:
    if host in (None, "", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


def _guard(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if not _is_here(host):
        _reached.append(f"{event} {host!r}")
        raise ConnectionRefusedError(f"tests reach this machine only, not {host!r}")


sys.addaudithook(_guard)


@pytest.fixture(autouse=True)
def _at_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the user's keys and addresses, and give each test a cache of its own."""
    for name in os.environ:
        if name.endswith("_API_KEY") or name.startswith(PROVIDER_VARIABLES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LBGPT_CACHE_DIR", str(tmp_path_factory.mktemp("cache") / "lbgpt"))


@pytest.fixture(autouse=True)
def _fresh_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what other tests configured and ran."""
    # The function lb.settings hides the module of the same name from attribute access.
    monkeypatch.setattr(importlib.import_module("lbgpt_pandas.settings"), "_session", None)
    monkeypatch.setattr(importlib.import_module("lbgpt_pandas.runs"), "_last", None)


@pytest.fixture(autouse=True)
def _no_way_out() -> Iterator[None]:
    """Fail a test that tried to leave this machine, also where the code survived the refusal."""
    _reached.clear()
    yield
    if _reached:
        pytest.fail(f"left this machine: {', '.join(_reached)}")
