"""Amounts of money, tokens and requests, as budgets count and show them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

UNITS = ("usd", "tokens", "requests")

PICO = 10**12
"""USD are counted in whole picodollars, so that ten tenths of a cent are exactly one cent."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """An amount in each unit; None where it is unlimited or unknown.

    Attributes
    ----------
    usd : float or None
        List price.
    tokens : int or None
        Of prompts and answers.
    requests : int or None
        Calls, repeated attempts included.
    """

    usd: float | None
    tokens: int | None
    requests: int | None

    @classmethod
    def of(cls, counted: Mapping[str, int]) -> Amounts:
        """Return what whole numbers by unit stand for."""
        usd = counted.get("usd")
        return cls(
            usd=None if usd is None else usd / PICO,
            tokens=counted.get("tokens"),
            requests=counted.get("requests"),
        )


def count_usd(usd: float) -> int:
    """Return USD as whole picodollars."""
    return round(usd * PICO)


def count(amounts: Mapping[str, Any]) -> dict[str, int]:
    """Check amounts by unit and return those that are given as whole numbers.

    Raises
    ------
    ConfigurationError
        If one is not a number above 0, or tokens or requests are not whole.
    """
    counted = {}
    for unit, amount in amounts.items():
        if amount is None:
            continue
        is_number = isinstance(amount, Real) and not isinstance(amount, bool)
        if not (is_number and math.isfinite(amount) and amount > 0):
            raise ConfigurationError(f"a budget of {unit}={amount!r}: give a number above 0")
        if unit != "usd" and amount != int(amount):
            raise ConfigurationError(f"a budget of {unit}={amount!r}: give a whole number")
        counted[unit] = count_usd(float(amount)) if unit == "usd" else int(amount)
    return counted


def show(unit: str, amount: int) -> str:
    """Return an amount as a person writes it.

    Examples
    --------
    >>> show("usd", count_usd(0.25)), show("tokens", 12_000)
    ('0.25 USD', '12,000 tokens')
    """
    if unit == "usd":
        return f"{amount / PICO:.6g} USD"
    return f"{amount:,} {unit}"
