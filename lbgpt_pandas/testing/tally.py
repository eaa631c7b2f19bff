"""What has happened at a `FakeProvider` so far."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbgpt_pandas.testing.faults import Record


@dataclass(slots=True)
class Tally:
    """Counts of a `FakeProvider` since its start or `reset`.

    Attributes
    ----------
    requests : int
        Requests that arrived.
    by_path, by_key, by_status : Counter
        The same by path, by API key (None without one) and by the status that was sent.
    in_flight : int
        Requests that are being answered now.
    in_flight_peak : int
        The most of them at any time.
    aborted : int
        Requests whose client hung up before it had its answer.
    """

    requests: int = 0
    by_path: Counter[str] = field(default_factory=Counter)
    by_key: Counter[str | None] = field(default_factory=Counter, repr=False)
    by_status: Counter[int] = field(default_factory=Counter)
    in_flight: int = 0
    in_flight_peak: int = 0
    aborted: int = 0

    def arrive(self, record: Record) -> None:
        """Count a request at its arrival."""
        self.requests += 1
        self.by_path[record.path] += 1
        self.by_key[record.key] += 1
        self.in_flight += 1
        self.in_flight_peak = max(self.in_flight_peak, self.in_flight)

    def send(self, record: Record, status: int) -> None:
        """Count the status of an answer that is about to be sent."""
        record.status = status
        self.by_status[status] += 1

    def abort(self, record: Record) -> None:
        """Count a client that hung up."""
        record.aborted = True
        self.aborted += 1
