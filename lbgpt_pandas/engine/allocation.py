"""Which engine a request goes to: functions of the engines' present headroom, without memory.

They take whatever has a method ``headroom()`` that returns a `Headroom`. Ties are broken at
random, so that equal engines share the work.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from lbgpt_pandas.engine.errors import ConfigurationError

if TYPE_CHECKING:
    from lbgpt_pandas.engine.deployment import Deployment
    from lbgpt_pandas.engine.types import Headroom


class HasHeadroom(Protocol):
    """What an allocation function asks of an engine."""

    def headroom(self) -> Headroom:
        """What may still be sent."""
        ...


class HasLatency(Protocol):
    """What choosing the quickest asks of an engine."""

    def deployments(self) -> tuple[Deployment, ...]:
        """What it calls."""
        ...


E = TypeVar("E", bound=HasHeadroom)
Q = TypeVar("Q", bound=HasLatency)
T = TypeVar("T")

Strategy = Literal["random", "max_headroom", "least_busy", "latency", "round_robin"]
AllocationFunction = Callable[..., Any]
"""Gets the engines that can take the request now, and returns one of them."""


def random_allocation_function(gpts: Sequence[E], weights: Sequence[float] | None = None) -> E:
    """Choose at random, by weight.

    Parameters
    ----------
    gpts : sequence of engine
        At least one.
    weights : sequence of float, optional
        One for each, at least 0 and not all 0; equal by default.

    Returns
    -------
    engine

    Raises
    ------
    ConfigurationError
        If the weights cannot be those of these engines.
    """
    _check(gpts, weights)
    if weights is None or not any(weights):
        return random.choice(gpts)  # noqa: S311  # spreads load, guards nothing
    return random.choices(gpts, weights)[0]  # noqa: S311  # spreads load, guards nothing


def max_headroom_allocation_function(
    gpts: Sequence[E],
    overallocate: bool = False,  # noqa: FBT001, FBT002  # LBGPT's signature
    weights: Sequence[float] | None = None,
) -> E | None:
    """Choose the engine whose scarcest resource has the largest free share.

    Shares of requests, tokens and places are compared, never their numbers, so a limit on
    requests alone is as good as one on tokens.

    Parameters
    ----------
    gpts : sequence of engine
        At least one.
    overallocate : bool, default False
        Choose one even if none has headroom.
    weights : sequence of float, optional
        Factors of the shares; equal by default.

    Returns
    -------
    engine or None
        None if no engine has headroom and `overallocate` is False.
    """
    _check(gpts, weights)
    shares = [gpt.headroom().fraction for gpt in gpts]
    if not overallocate and max(shares) <= 0:
        return None
    return _largest(
        gpts,
        [
            share * weight
            for share, weight in zip(shares, weights or [1.0] * len(gpts), strict=True)
        ],
    )


def least_busy_allocation_function(gpts: Sequence[E], weights: Sequence[float] | None = None) -> E:
    """Choose the engine with the fewest calls in flight for its weight."""
    _check(gpts, weights)
    factors = [max(weight, 1e-9) for weight in weights or [1.0] * len(gpts)]
    return _largest(
        gpts,
        [
            -(gpt.headroom().in_flight + 1) / factor
            for gpt, factor in zip(gpts, factors, strict=True)
        ],
    )


def latency_allocation_function(gpts: Sequence[Q], weights: Sequence[float] | None = None) -> Q:
    """Choose the engine that has answered quickest of late; a weight of 2 halves its time.

    Parameters
    ----------
    gpts : sequence of engine
        Of which one is chosen; at least one.
    weights : sequence of float, optional
        One for each, at least 0; all 1 by default.

    Returns
    -------
    engine
        Chance decides between equals.
    """
    _check(gpts, weights)
    seconds = [min(each.latency() for each in gpt.deployments()) for gpt in gpts]
    shares = weights or [1.0] * len(gpts)
    return _largest(
        gpts,
        [
            -spent / share if share else -math.inf
            for spent, share in zip(seconds, shares, strict=True)
        ],
    )


def _largest(gpts: Sequence[T], values: Sequence[float]) -> T:
    best = max(values)
    return random.choice(  # noqa: S311  # spreads load, guards nothing
        [gpt for gpt, value in zip(gpts, values, strict=True) if value == best]
    )


def _check(gpts: Sequence[object], weights: Sequence[float] | None) -> None:
    if not gpts:
        raise ConfigurationError("there is no engine to choose from")
    if weights is not None and len(weights) != len(gpts):
        raise ConfigurationError(
            f"{len(weights)} weights for {len(gpts)} engines: give one for each"
        )
