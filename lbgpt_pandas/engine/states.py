"""What a view shows of a run beside its counts: deployments, budget, failures, what it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["usd", "tokens", "requests"]

Health = Literal["ready", "waiting", "blocked", "resting", "probing"]


@dataclass(frozen=True, slots=True)
class Gauge:
    """What is left of a limit of one minute.

    Attributes
    ----------
    left, limit : float
        Requests or tokens.
    """

    left: float
    limit: float

    @property
    def fraction(self) -> float:
        """Free share, from 0 to 1."""
        return min(1.0, max(0.0, self.left / self.limit)) if self.limit else 0.0


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """One deployment at one moment.

    Attributes
    ----------
    name : str
        Its name, which is anybody's text.
    health : {"ready", "waiting", "blocked", "resting", "probing"}
        It takes calls; its limits are used up for now; the provider asked to wait; it rests
        after failures; one call finds out whether it is well again.
    wait_s : float
        Seconds until the next request may start; 0.0 for now, infinite while nobody knows.
    fault : str
        How the failure is called that made it rest, such as ``"ServerError 503"``; may be empty.
    requests, tokens : Gauge or None
        None without a limit.
    in_flight, places : int
        Calls under way, and how many there may be.
    answered, refused : int
        Calls of this process that were answered, and that met a 429.
    source : {"local", "header"}
        Whether the limits are the configured ones or what the provider stated.
    """

    name: str
    health: Health = "ready"
    wait_s: float = 0.0
    fault: str = ""
    requests: Gauge | None = None
    tokens: Gauge | None = None
    in_flight: int = 0
    places: int = 0
    answered: int = 0
    refused: int = 0
    source: str = "local"

    def to_text(self) -> str:
        """Say in one line how it is, and what is left of its limits."""
        fault = f" after {self.fault}" if self.fault else ""
        parts: list[str] = [f"{self.health}{fault}"]
        for unit, gauge in (("requests", self.requests), ("tokens", self.tokens)):
            if gauge is not None:
                parts.append(f"{gauge.left:,.0f} of {gauge.limit:,.0f} {unit} left")
        parts += [f"{self.in_flight:,} in flight", f"{self.answered:,} answered"]
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class BudgetState:
    """One limit of a budget.

    Attributes
    ----------
    unit : {"usd", "tokens", "requests"}
        What is counted.
    spent : float or None
        By all runs that share the budget; None if a price is unknown.
    limit : float
        What may be spent.
    """

    unit: Unit
    spent: float | None
    limit: float


@dataclass(frozen=True, slots=True)
class Failures:
    """Failed rows of one kind.

    Attributes
    ----------
    kind : str
        Name of the error's class.
    rows : int
        How many.
    example : str
        One message; holds text of providers and is anybody's.
    """

    kind: str
    rows: int
    example: str


@dataclass(frozen=True, slots=True)
class RunHeading:
    """What a run is, for the first line of its view.

    Attributes
    ----------
    verb : str
        The accessor's method.
    model, engine : str
        What was asked for, and who answers.
    column : str
        Name of the resulting column; may be empty.
    run : str
        Its name in `lb.runs`; empty for a list of requests outside a frame.
    """

    verb: str = "complete"
    model: str = ""
    engine: str = ""
    column: str = ""
    run: str = ""
