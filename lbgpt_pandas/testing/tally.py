"""What has happened at a `FakeProvider` so far."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lbgpt_pandas.testing.limits import MINUTE_S
from lbgpt_pandas.testing.windows import ROUNDING_S

if TYPE_CHECKING:
    from lbgpt_pandas.testing.faults import Record


@dataclass(slots=True)
class AdmissionLog:
    """When requests were admitted and what they were charged: 16 bytes each."""

    times: array[float] = field(default_factory=lambda: array("d"))
    tokens: array[int] = field(default_factory=lambda: array("q"))


@dataclass(slots=True)
class Tally:
    """Counts of a `FakeProvider` since its start or `reset`.

    Attributes
    ----------
    requests : int
        Requests that arrived.
    by_path, by_key, by_status : Counter
        The same by path, by API key (None without one) and by the status that was sent.
    by_key_status : Counter
        By key and status: ``by_key_status["sk-1", 429]`` are the refusals of one key.
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
    by_key_status: Counter[tuple[str | None, int]] = field(default_factory=Counter, repr=False)
    in_flight: int = 0
    in_flight_peak: int = 0
    aborted: int = 0
    _admitted: dict[tuple[str | None, str], AdmissionLog] = field(default_factory=dict, repr=False)

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
        self.by_key_status[record.key, status] += 1

    def abort(self, record: Record) -> None:
        """Count a client that hung up."""
        record.aborted = True
        self.aborted += 1

    def leave(self, record: Record) -> None:
        """Count the end of a request, however it ended."""
        self.in_flight -= 1
        if record.admitted_at is not None:
            owner = record.key, record.deployment
            log = self._admitted.get(owner)
            if log is None:
                log = self._admitted[owner] = AdmissionLog()
            log.times.append(record.admitted_at)
            log.tokens.append(record.tokens)

    def most_requests(
        self, key: str | None, *, deployment: str | None = None, span_s: float = MINUTE_S
    ) -> int:
        """Count the most requests of a key that were admitted in any `span_s` seconds.

        It is counted whether the provider has limits or not, so that a test can tell whether a
        client keeps to its own. Requests that are still being answered are not in it.

        Parameters
        ----------
        key : str or None
            The API key.
        deployment : str, optional
            Of Azure; by default all requests of the key are put together.
        span_s : float, default 60
            Length of the span.
        """
        return _most([(at, 1) for at, _ in self._admissions(key, deployment)], span_s)

    def most_tokens(
        self, key: str | None, *, deployment: str | None = None, span_s: float = MINUTE_S
    ) -> int:
        """Sum up the most tokens of a key that were charged in any `span_s` seconds.

        Parameters
        ----------
        key : str or None
            The API key.
        deployment : str, optional
            Of Azure; by default all requests of the key are put together.
        span_s : float, default 60
            Length of the span.
        """
        return _most(self._admissions(key, deployment), span_s)

    def _admissions(self, key: str | None, deployment: str | None) -> list[tuple[float, int]]:
        found: list[tuple[float, int]] = []
        for (owner, name), log in list(self._admitted.items()):
            if owner == key and deployment in (None, name):
                found += zip(log.times, log.tokens, strict=False)
        return sorted(found)


def _most(costs: list[tuple[float, int]], span_s: float) -> int:
    most = within = first = 0
    for at, cost in costs:
        within += cost
        while costs[first][0] <= at - span_s + ROUNDING_S:
            within -= costs[first][1]
            first += 1
        most = max(most, within)
    return most
