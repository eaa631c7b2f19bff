"""Who is let in at a `FakeProvider`: one quota for each key, and the headers that tell of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.testing.limits import KeyLimits
from lbgpt_pandas.testing.quota import Admission, Quota, Refusal
from lbgpt_pandas.testing.rate_headers import limit_headers, tells_waits, wait_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lbgpt_pandas.engine.clock import Clock
    from lbgpt_pandas.testing.faults import Record
    from lbgpt_pandas.testing.rate_headers import HeaderForm

_FORMS: Mapping[object, HeaderForm | None] = {
    True: "openai",
    False: None,
    "azure-junk": "azure-junk",
    "anthropic": "anthropic",
}


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the gate said to one request."""

    record: Record
    quota: Quota
    result: Admission | Refusal


class Gate:
    """Admits requests by the limits of their key or deployment.

    Parameters
    ----------
    default : KeyLimits
        For everyone who is not named.
    named : mapping of str to KeyLimits
        By deployment or key; what a deployment is allowed goes before what its key is.
    headers : bool or str
        See `FakeProvider`.
    count_refused : bool
        Refused requests count as requests.
    clock : Clock
        Time of the windows.

    Attributes
    ----------
    says_when : bool
        Whether refusals tell how long to wait.
    """

    def __init__(
        self,
        default: KeyLimits,
        named: Mapping[str, KeyLimits],
        *,
        headers: bool | str,
        count_refused: bool,
        clock: Clock,
    ) -> None:
        for name, limits in named.items():
            if not isinstance(limits, KeyLimits):
                raise ConfigurationError(
                    f"limits= has {type(limits).__name__} for one of its names; give KeyLimits("
                    "rpm=..., tpm=...)"
                )
            if not isinstance(name, str):
                raise ConfigurationError(
                    f"limits= has the name {name!r}; give keys or deployments as text"
                )
        if not isinstance(headers, bool | str) or headers not in _FORMS:
            raise ConfigurationError(
                f"headers={headers!r}: give True, False, 'azure-junk' or 'anthropic'"
            )
        self._default = default
        self._named = {name: limits.over(default) for name, limits in named.items()}
        self._form = _FORMS[headers]
        self.says_when = tells_waits(self._form)
        self._count_refused = count_refused
        self._clock = clock
        self._quotas: dict[tuple[str | None, str], Quota] = {}

    def reset(self) -> None:
        """Forget what was counted."""
        self._quotas = {}

    def admit(self, record: Record, tokens: int) -> Ticket:
        """Let a request in that may cost `tokens`, and note its charge in `record`; or do not."""
        owner = record.key, record.deployment
        quota = self._quotas.get(owner)
        if quota is None:
            quota = Quota(self._limits_of(*owner), count_refused=self._count_refused)
            self._quotas[owner] = quota
        now = self._clock.monotonic()
        result = quota.admit(tokens, now=now)
        if isinstance(result, Admission):
            record.admitted_at, record.tokens = now, tokens
        return Ticket(record, quota, result)

    def settle(self, ticket: Ticket, tokens: int) -> None:
        """Charge an admitted request for what its answer took, if that is more."""
        if isinstance(ticket.result, Admission):
            ticket.quota.settle(ticket.result, tokens, now=self._clock.monotonic())
            ticket.record.tokens = ticket.result.tokens

    def headers(self, ticket: Ticket) -> dict[str, str]:
        """Tell how the limits of this request's owner stand, and how long a refused one waits."""
        if self._form is None:
            return {}
        readings = ticket.quota.readings(now=self._clock.monotonic())
        headers = limit_headers(self._form, readings, wall=self._clock.wall())
        if isinstance(ticket.result, Refusal):
            headers |= wait_headers(self._form, ticket.result.wait_s)
        return headers

    def _limits_of(self, key: str | None, deployment: str) -> KeyLimits:
        for name in (deployment, key):
            if name and name in self._named:
                return self._named[name]
        return self._default
