"""Checks of the arguments that several engines take."""

from __future__ import annotations

import math
from typing import Any

from lbgpt_pandas.engine.errors import ConfigurationError


def check_timeout(seconds: Any) -> None:
    """Raise a ConfigurationError unless `seconds` is a positive number or None."""
    if seconds is None:
        return
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not (is_number and math.isfinite(seconds) and seconds > 0):
        raise ConfigurationError(f"request_timeout={seconds!r}: give seconds above 0, or None")


def check_weight(name: str, weight: Any) -> None:
    """Raise a ConfigurationError unless `weight` is a number of at least 0."""
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not (is_number and math.isfinite(weight) and weight >= 0):
        raise ConfigurationError(f"{name}={weight!r}: give a number of at least 0")


def check_tier(tier: object) -> None:
    """Raise a ConfigurationError unless `tier` is a whole number of at least 0."""
    if not isinstance(tier, int) or isinstance(tier, bool) or tier < 0:
        raise ConfigurationError(f"tier={tier!r}: give a whole number of at least 0")


def check_at_least_one(name: str, number: object) -> None:
    """Raise a ConfigurationError unless `number` is a whole number of at least 1."""
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ConfigurationError(f"{name}={number!r}: give a whole number of at least 1")
