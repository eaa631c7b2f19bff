"""How long a run will take: what limits let through in a minute, and how long calls last."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from lbgpt_pandas.answer_estimates import answered_calls
from lbgpt_pandas.engine.balanced import MultiLoadBalancedGPT
from lbgpt_pandas.engine.limits.estimate import certain_tokens
from lbgpt_pandas.engine.limits.windows import MINUTE_S, guard_s

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lbgpt_pandas.engine.base import _BaseGPT
    from lbgpt_pandas.engine.limits.headers import Resource

WORK_S = 0.0005
"""What this package does for a call, of a processor's time."""

_LONGEST_S = 1e9
_HALVINGS = 80


class Load(NamedTuple):
    """What a run asks of its deployments.

    Attributes
    ----------
    requests : int
        To be sent.
    prompt, completion : float
        Expected tokens of one of them.
    most : int or None
        Tokens to which an answer is limited.
    """

    requests: int
    prompt: float
    completion: float
    most: int | None


class Duration(NamedTuple):
    """An estimate of time.

    Attributes
    ----------
    seconds : float or None
        None if nothing is known that it could be told from.
    note : str
        What is missing; may be empty.
    """

    seconds: float | None
    note: str = ""


def duration(
    engine: _BaseGPT, load: Load, *, latency_s: float | None, max_parallel: int | None
) -> Duration:
    """Estimate how long requests will take.

    Parameters
    ----------
    engine : engine
        Who answers.
    load : Load
        What is asked.
    latency_s : float or None
        Seconds of a call, as measured; None if there was none.
    max_parallel : int or None
        The run's own cap on calls in flight.
    """
    if not load.requests:
        return Duration(0.0)
    asked = answering(engine)
    limited = _limited_s(asked, load)
    if latency_s is None and not limited:
        what = (
            "no limit and no call of this engine" if limited is None else "no call of this engine"
        )
        return Duration(None, f"no time can be told: {what} is known yet")
    if latency_s is None:
        note = "the time is that of the limits alone: no call of this engine is known yet"
        return Duration(limited, note)
    places = min(engine.max_parallel_calls, max_parallel or engine.max_parallel_calls)
    called = _called_s(asked, load.requests, latency_s, places)
    return Duration(max((limited or 0.0) + latency_s, called, WORK_S * load.requests))


def measured_latency_s(engine: _BaseGPT) -> float | None:
    """Mean seconds of an engine's last calls in this process; None before the first."""
    spans = [
        (call.end_datetime - call.start_datetime).total_seconds() for call in answered_calls(engine)
    ]
    return sum(spans) / len(spans) if spans else None


def answering(engine: _BaseGPT) -> list[_BaseGPT]:
    """Engines with one deployment each that are asked first: those of the lowest tier."""
    if not isinstance(engine, MultiLoadBalancedGPT):
        return [engine]
    lowest = min(gpt.fallback_tier for gpt in engine.gpts)
    members = [gpt for gpt in engine.gpts if gpt.fallback_tier == lowest]
    return [each for gpt in members for each in answering(gpt)]


def _called_s(asked: list[_BaseGPT], requests: int, latency_s: float, places: int) -> float:
    """Seconds if only the calls in flight are limited, which begin with few and double."""
    cap = min(places, sum(gpt.deployment.cap for gpt in asked))
    most = min(places, sum(gpt.deployment.places for gpt in asked))
    seconds, left = 0.0, requests
    while left > 0 and cap < most:
        seconds += latency_s
        left -= cap
        cap = min(most, 8 * cap if cap == 1 else 2 * cap)
    return seconds + math.ceil(max(0, left) / most) * latency_s


def _limited_s(asked: list[_BaseGPT], load: Load) -> float | None:
    """Seconds until the last request may be sent; None if one of them has no limit."""
    by_quota = {id(gpt.deployment.quota): gpt for gpt in asked}
    if not all(gpt.deployment.quota.meters for gpt in by_quota.values()):
        return None
    lanes = [(gpt, _costs(gpt, load)) for gpt in by_quota.values()]

    def is_done(seconds: float) -> bool:
        return sum(_sent(gpt, costs, seconds) for gpt, costs in lanes) >= load.requests

    low, high = 0.0, MINUTE_S
    if is_done(low):
        return low
    while not is_done(high):
        low, high = high, 2 * high
        if high > _LONGEST_S:
            return None  # all of them rest after failures
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_done(middle) else (middle, high)
    return high


def _costs(gpt: _BaseGPT, load: Load) -> dict[Resource, float]:
    """What one request takes of each resource of a minute."""
    prompt, most = round(load.prompt), load.most
    certain = certain_tokens(prompt, most or 0, is_set=most is not None, counting=gpt.counting)
    return {
        "requests": 1.0,
        "tokens": max(load.prompt + load.completion, float(certain)),
        "input_tokens": load.prompt,
        "output_tokens": load.completion,
    }


def _sent(gpt: _BaseGPT, costs: Mapping[Resource, float], seconds: float) -> float:
    """Requests that the limits of a deployment let through within some seconds from now."""
    deployment, now = gpt.deployment, gpt.clock.monotonic()
    open_s = seconds - max(0.0, deployment.held_until(now) - now)
    if open_s < 0:
        return 0.0
    most = math.inf
    for resource, meter in deployment.quota.meters.items():
        left = deployment.quota.left(resource, now) or 0.0
        cost = min(costs[resource], meter.limit)
        if cost <= 0:
            continue
        if meter.burst_s is None or meter.burst_s >= MINUTE_S:
            # What a minute holds may be sent at once; then the next one has to come.
            minutes = open_s // (MINUTE_S + guard_s(MINUTE_S))
            most = min(most, left // cost + minutes * (meter.limit // cost))
        else:
            most = min(most, (left + open_s / MINUTE_S * meter.limit) / cost)
    return math.floor(most) if math.isfinite(most) else most
