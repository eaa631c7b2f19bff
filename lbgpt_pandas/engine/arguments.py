"""Checks of the arguments that several engines take."""

from __future__ import annotations

import math
from difflib import get_close_matches
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable


LONGEST_TIMEOUT_S = 1e6


def check_timeout(seconds: Any) -> None:
    """Raise a ConfigurationError unless `seconds` is a positive number or None."""
    if seconds is None:
        return
    is_number = isinstance(seconds, Real) and not isinstance(seconds, bool)
    if not (is_number and 0 < seconds <= LONGEST_TIMEOUT_S):
        raise ConfigurationError(f"request_timeout={seconds!r}: give seconds above 0, or None")


def check_weight(name: str, weight: Any) -> None:
    """Raise a ConfigurationError unless `weight` is a number of at least 0."""
    is_number = isinstance(weight, Real) and not isinstance(weight, bool)
    if not (is_number and math.isfinite(weight) and weight >= 0):
        raise ConfigurationError(f"{name}={weight!r}: give a number of at least 0")


def check_tier(tier: Any) -> None:
    """Raise a ConfigurationError unless `tier` is a whole number of at least 0."""
    if isinstance(tier, bool) or not isinstance(tier, Integral) or tier < 0:
        raise ConfigurationError(f"tier={tier!r}: give a whole number of at least 0")


def check_at_least_one(name: str, number: Any) -> None:
    """Raise a ConfigurationError unless `number` is a whole number of at least 1."""
    if isinstance(number, bool) or not isinstance(number, Integral) or number < 1:
        raise ConfigurationError(f"{name}={number!r}: give a whole number of at least 1")


def check_text(name: str, text: object) -> None:
    """Raise a ConfigurationError unless `text` is a text that is not empty, or None."""
    if text is not None and not (isinstance(text, str) and text):
        raise ConfigurationError(f"{name}={text!r}: give a text that is not empty")


def unknown_setting(kind: str, name: str, known: Iterable[str]) -> TypeError:
    """Return the error for a keyword that nobody takes, with the one that may have been meant."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.7)
    hint = f"; did you mean {close[0]}=?" if close else ""
    return TypeError(f"{kind} has no setting {name}={hint}")
