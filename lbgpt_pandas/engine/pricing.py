"""List prices of well-known models, to say what a run costs and what a cache saves.

The table holds what the providers charged without discounts (standard tier, no batch, no
committed use) as of `PRICES_AS_OF`. Prices change, and contracts differ: `set_price`
overrides the table. A model that is not in the table has no price, which is not the price 0.
"""

from __future__ import annotations

import math
import re
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lbgpt_pandas.engine.types import TokenCount

PRICES_AS_OF = "2026-11"
"""Month in which the table was compared with the providers' price lists."""

_MILLION = 1_000_000
_LOCAL = "local/"


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs.

    Attributes
    ----------
    prompt_usd_per_million, completion_usd_per_million : float
        USD for a million tokens.
    cached_prompt_usd_per_million : float or None
        USD for a million prompt tokens that the provider served from its own cache; None:
        they cost as much as the others.

    Raises
    ------
    ConfigurationError
        If a price is negative, NaN or infinite.
    """

    prompt_usd_per_million: float
    completion_usd_per_million: float
    cached_prompt_usd_per_million: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be a price."""
        for price in (
            self.prompt_usd_per_million,
            self.completion_usd_per_million,
            self.cached_prompt_usd_per_million or 0.0,
        ):
            if not (math.isfinite(price) and price >= 0):
                msg = f"a price is a number of USD of at least 0, not {price}"
                raise ConfigurationError(msg)


@dataclass(frozen=True, slots=True)
class _Surcharge:
    """Factors on the whole request once its prompt is longer than `above` tokens."""

    above: int
    prompt: float
    completion: float


# Sources, compared with each other between 2026-09-20 and 2026-11-22: the model pages and the
# price page of OpenAI, the price page of Anthropic, the Gemini API price page.
# Columns: prompt, completion, cached prompt; USD for a million tokens.
_PRICES: dict[str, Price] = {
    "gpt-3.5-turbo": Price(0.50, 1.50),
    "gpt-3.5-turbo-0125": Price(0.50, 1.50),
    "gpt-3.5-turbo-1106": Price(1.00, 2.00),
    "gpt-4": Price(30.00, 60.00),
    "gpt-4-0613": Price(30.00, 60.00),
    "gpt-4-turbo": Price(10.00, 30.00),
    "gpt-4o": Price(2.50, 10.00, 1.25),
    "gpt-4o-2024-05-13": Price(5.00, 15.00),
    "gpt-4o-mini": Price(0.15, 0.60, 0.075),
    "gpt-4.1": Price(2.00, 8.00, 0.50),
    "gpt-4.1-mini": Price(0.40, 1.60, 0.10),
    "gpt-4.1-nano": Price(0.10, 0.40, 0.025),
    "gpt-5": Price(1.25, 10.00, 0.125),
    "gpt-5-mini": Price(0.25, 2.00, 0.025),
    "gpt-5-nano": Price(0.05, 0.40, 0.005),
    "gpt-5-pro": Price(15.00, 120.00),
    "gpt-5.1": Price(1.25, 10.00, 0.125),
    "gpt-5.2": Price(1.75, 14.00, 0.175),
    "gpt-5.4": Price(2.50, 15.00, 0.25),
    "gpt-5.4-mini": Price(0.75, 4.50, 0.075),
    "gpt-5.4-nano": Price(0.20, 1.25, 0.02),
    "gpt-5.5": Price(5.00, 30.00, 0.50),
    "gpt-5.6-sol": Price(4.00, 20.00, 0.40),
    "gpt-5.6-terra": Price(2.00, 12.00, 0.20),
    "gpt-5.6-luna": Price(0.20, 1.20, 0.02),
    "gpt-6-astra": Price(10.00, 50.00, 1.00),
    "gpt-6-sol": Price(2.00, 10.00, 0.20),
    "gpt-6-luna": Price(0.10, 0.50, 0.01),
    "gpt-6.1-sol": Price(2.00, 10.00, 0.10),
    "gpt-6.2-sol": Price(2.00, 10.00, 0.10),
    "o1": Price(15.00, 60.00, 7.50),
    "o3": Price(2.00, 8.00, 0.50),
    "o3-mini": Price(1.10, 4.40, 0.55),
    "o3-pro": Price(20.00, 80.00),
    "o4-mini": Price(1.10, 4.40, 0.275),
    "text-embedding-3-small": Price(0.02, 0.0),
    "text-embedding-3-large": Price(0.13, 0.0),
    "text-embedding-ada-002": Price(0.10, 0.0),
    "claude-opus-4-1": Price(15.00, 75.00, 1.50),
    "claude-opus-4-5": Price(5.00, 25.00, 0.50),
    "claude-opus-4-6": Price(5.00, 25.00, 0.50),
    "claude-opus-4-7": Price(5.00, 25.00, 0.50),
    "claude-opus-4-8": Price(5.00, 25.00, 0.50),
    "claude-opus-5": Price(5.00, 25.00, 0.50),
    "claude-opus-5-5": Price(4.00, 20.00, 0.20),
    "claude-sonnet-4-5": Price(3.00, 15.00, 0.30),
    "claude-sonnet-4-6": Price(3.00, 15.00, 0.30),
    "claude-sonnet-5": Price(2.00, 10.00, 0.20),
    "claude-sonnet-5-5": Price(2.00, 10.00, 0.10),
    "claude-haiku-4-5": Price(1.00, 5.00, 0.10),
    "claude-haiku-5-5": Price(0.10, 0.50, 0.01),
    "gemini-2.5-pro": Price(1.25, 10.00, 0.125),
    "gemini-2.5-flash": Price(0.30, 2.50, 0.03),
    "gemini-2.5-flash-lite": Price(0.10, 0.40, 0.01),
    "gemini-3-flash-preview": Price(0.50, 3.00, 0.05),
    "gemini-3.1-pro-preview": Price(2.00, 12.00, 0.20),
    "gemini-3.1-flash-lite": Price(0.25, 1.50, 0.025),
    "gemini-3.5-flash": Price(1.50, 9.00, 0.15),
    "gemini-3.5-flash-lite": Price(0.30, 2.50, 0.03),
    # gemini-3.8-flash is left out: its price of 2026 ends with the year.
}

_OPENAI_LONG = _Surcharge(above=272_000, prompt=2.0, completion=1.5)
_GEMINI_LONG = _Surcharge(above=200_000, prompt=2.0, completion=1.5)
_SURCHARGES: dict[str, _Surcharge] = {
    "gpt-5.4": _OPENAI_LONG,
    "gpt-5.5": _OPENAI_LONG,
    "gpt-5.6-sol": _OPENAI_LONG,
    "gpt-5.6-terra": _OPENAI_LONG,
    "gpt-5.6-luna": _OPENAI_LONG,
    "gpt-6-astra": _OPENAI_LONG,
    "gpt-6-sol": _OPENAI_LONG,
    "gpt-6-luna": _OPENAI_LONG,
    "gpt-6.1-sol": _OPENAI_LONG,
    "gpt-6.2-sol": _OPENAI_LONG,
    "claude-haiku-5-5": _Surcharge(above=100_000, prompt=5.0, completion=5.0),
    "gemini-2.5-pro": _GEMINI_LONG,
    "gemini-3.1-pro-preview": _GEMINI_LONG,
}

_FREE = Price(0.0, 0.0, 0.0)
_PROVIDER = re.compile(r"\A(?:openai|anthropic|gemini)/")
# "-2024-07-18" (OpenAI), "-20250929" (Anthropic), "-001" (Gemini).
_SNAPSHOT = re.compile(r"-(?:20\d{2}-\d{2}-\d{2}|20\d{6}|00\d)\Z", re.ASCII)

_overrides: dict[str, Price] = {}
_found: dict[str, tuple[str, Price] | None] = {}
"""What names of models were found to mean, since the last change of a price."""

_lock = threading.Lock()


def price_of(model: str) -> Price | None:
    """List price of a model.

    Parameters
    ----------
    model : str
        Name as the provider writes it, or as ``provider/name``. A dated snapshot that has no
        price of its own has that of its model.

    Returns
    -------
    Price or None
        None if the price is unknown; zeros for a model that runs here (``"local/..."``).

    Examples
    --------
    >>> price_of("gpt-4o-mini-2024-07-18").completion_usd_per_million
    0.6
    >>> price_of("my-own-model") is None
    True
    """
    found = _find(model)
    return None if found is None else found[1]


def priced_models() -> list[str]:
    """Names of the models that have a list price or one of `set_price`, sorted."""
    return sorted({*_PRICES, *_overrides})


def set_price(model: str, price: Price | None) -> None:
    """Set the price of a model for this process, from any thread.

    Parameters
    ----------
    model : str
        Name as answers report it. Its dated snapshots follow, unless they have a price.
    price : Price or None
        What it costs; None returns to the table.

    Examples
    --------
    >>> set_price("my-own-model", Price(0.2, 0.4))
    >>> price_of("my-own-model").prompt_usd_per_million
    0.2
    >>> set_price("my-own-model", None)
    """
    global _found  # noqa: PLW0603  # prices are of the process
    with _lock:
        if price is None:
            _overrides.pop(model, None)
        else:
            _overrides[model] = price
        _found = {}


def cost_usd(model: str, tokens: TokenCount) -> float | None:
    """List price of one answer.

    Parameters
    ----------
    model : str
        The model that answered.
    tokens : TokenCount
        What it read and wrote.

    Returns
    -------
    float or None
        USD; None, and never 0, if the price is unknown.

    Examples
    --------
    >>> from lbgpt_pandas.engine.types import TokenCount
    >>> cost_usd("gpt-4o-mini", TokenCount(prompt=1_000_000, completion=0))
    0.15
    """
    found = _find(model)
    if found is None:
        return None
    name, price = found
    surcharge = _SURCHARGES.get(name)
    if surcharge and price is _PRICES.get(name) and tokens.prompt > surcharge.above:
        price = _raised(price, surcharge)
    full = price.prompt_usd_per_million
    cached = price.cached_prompt_usd_per_million
    from_cache = min(max(tokens.cached, 0), tokens.prompt)
    prompt_usd = (tokens.prompt - from_cache) * full + from_cache * (
        full if cached is None else cached
    )
    return (prompt_usd + tokens.completion * price.completion_usd_per_million) / _MILLION


def _find(model: str) -> tuple[str, Price] | None:
    """Price of a model and the name under which it stands."""
    found = _found  # a change of a price puts another dict in its place
    if model not in found:
        found[model] = _search(model)
    return found[model]


def _search(model: str) -> tuple[str, Price] | None:
    if model.startswith(_LOCAL):
        return model, _overrides.get(model, _FREE)
    for name in _spellings(model):
        price = _overrides.get(name) or _PRICES.get(name)
        if price is not None:
            return name, price
    return None


def _spellings(model: str) -> Iterator[str]:
    yield model
    bare = _PROVIDER.sub("", model)
    yield bare
    yield _SNAPSHOT.sub("", bare)


def _raised(price: Price, surcharge: _Surcharge) -> Price:
    cached = price.cached_prompt_usd_per_million
    return replace(
        price,
        prompt_usd_per_million=price.prompt_usd_per_million * surcharge.prompt,
        completion_usd_per_million=price.completion_usd_per_million * surcharge.completion,
        cached_prompt_usd_per_million=None if cached is None else cached * surcharge.prompt,
    )
