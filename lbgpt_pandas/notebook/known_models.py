"""The models that are known here: what engines offer, what was used, what has a price."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

import pandas as pd

from lbgpt_pandas.engine.accounts import SESSION_BOOK
from lbgpt_pandas.engine.balanced import MultiLoadBalancedGPT
from lbgpt_pandas.engine.gpt import AzureGPT
from lbgpt_pandas.engine.litellm_router import LiteLlmRouter
from lbgpt_pandas.engine.pricing import price_of, priced_models
from lbgpt_pandas.resolution import LOCAL_MODEL, known_engines
from lbgpt_pandas.settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lbgpt_pandas.engine.base import _BaseGPT

_PRICES = {
    "prompt_usd": "prompt_usd_per_million",
    "completion_usd": "completion_usd_per_million",
    "cached_usd": "cached_prompt_usd_per_million",
}
_COLUMNS = {"offered_by": "string", "called": "string", **dict.fromkeys(_PRICES, "Float64")}


def known_models(pattern: str = "") -> pd.DataFrame:
    """List models.

    Parameters
    ----------
    pattern : str, optional
        Part of the name, or a pattern with ``*`` and ``?``; upper and lower case are the same.

    Returns
    -------
    DataFrame
        By the name for ``model=``, those of the engines first: ``offered_by`` (engines that list
        it; any name can be given to ChatGPT), ``called`` (name of its deployment on Azure) and
        the list price of a million tokens in USD, NA where it is unknown.
    """
    offers: dict[str, dict[str, str]] = {}
    for engine in known_engines():
        for model, name, called in _offers(engine):
            offers.setdefault(model, {})[name] = called
    lines = []
    for model in _matching([*offers, *sorted(_others() - set(offers))], pattern):
        price = price_of(model)
        by = offers.get(model, {})
        called = ", ".join(dict.fromkeys(each for each in by.values() if each))
        prices = (None if price is None else getattr(price, each) for each in _PRICES.values())
        lines.append((model, ", ".join(by) or None, called or None, *prices))
    frame = pd.DataFrame(lines, columns=["model", *_COLUMNS])
    return frame.astype({"model": "string"} | _COLUMNS).set_index("model")


def model_names() -> list[str]:
    """Names of the models, those of the engines first."""
    return list(known_models().index)


def _others() -> set[str]:
    used = {row.model for row in SESSION_BOOK.rows()}
    return {*used, *priced_models(), settings().model or LOCAL_MODEL, LOCAL_MODEL}


def _offers(engine: _BaseGPT) -> Iterator[tuple[str, str, str]]:
    """Model, engine, and name of the deployment where that is another."""
    match engine:
        case MultiLoadBalancedGPT():
            for member in engine.gpts:
                yield from _offers(member)
        case LiteLlmRouter():
            yield from ((name, engine.name, "") for name in engine.model_names)
        case AzureGPT():
            for model, deployment in engine.azure_model_map.items():
                yield model, engine.name, deployment
        case _:
            if engine.default_model:
                yield engine.default_model, engine.name, ""


def _matching(names: Iterable[str], pattern: str) -> list[str]:
    wanted = pattern.casefold()
    if not any(mark in wanted for mark in "*?["):
        wanted = f"*{wanted}*"
    return [name for name in names if fnmatch.fnmatchcase(name.casefold(), wanted)]
