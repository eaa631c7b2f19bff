"""What a call is expected to take, and what it holds while it is under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from lbgpt_pandas.engine.limits.breaker import Permit
    from lbgpt_pandas.engine.limits.quota import Reservation
    from lbgpt_pandas.engine.types import Request


class Demand(Struct, frozen=True):
    """What a request is expected to take.

    Attributes
    ----------
    prompt, completion : int
        Tokens, estimated; 0 where nobody counts them.
    certain : int
        Tokens that a provider counts at admission whatever the answer's length.
    request : Request or None
        Of which the estimate is, where there is one.
    """

    prompt: int = 0
    completion: int = 0
    certain: int = 0
    request: Request | None = None


class Grant(Struct, frozen=True):
    """What a call holds at a deployment while it is under way."""

    reservation: Reservation
    permit: Permit
    demand: Demand
    at: float
