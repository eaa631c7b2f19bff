"""Every exception and warning of the package.

::

    LbgptError
    ├── ConfigurationError            a setting, argument or engine that cannot work
    │   └── MissingExtraError         an optional dependency is not installed (also ImportError)
    ├── TemplateError                 a template that does not fit the frame (also KeyError)
    ├── BudgetExceeded                the budget of a run is spent
    ├── CacheMiss                     replay met a request that was never recorded
    ├── CacheCorrupt                  a stored answer fails its checksum during replay
    ├── RunAborted                    the run stopped: every further request would fail alike
    ├── RowErrors                     errors="raise": at least one row failed
    └── RequestError                  one request failed; what a row error holds
        ├── RateLimited               429 that passes by waiting
        ├── QuotaExhausted            429/402/403 that waiting cannot cure: credit or spend limit
        ├── AuthError                 401/403, TLS verification
        ├── NotFound                  404: model or deployment
        ├── BadRequest                400/422
        ├── ContextTooLong            prompt and completion exceed the context window
        ├── ContentFiltered           refused by the provider's content policy
        ├── InvalidInput              a cell that cannot be sent; no call was made
        ├── ServerError               5xx, 408, 409
        ├── ConnectionFailed          no connection, or lost before the request was sent
        ├── Timeout                   the attempt took too long; may have been billed
        ├── MalformedResponse         status 200, but not a chat completion
        ├── IncompleteStream          a stream that ended before its finish reason
        ├── SchemaMismatch            the answer does not fit the requested schema
        ├── RequestExceedsQuota       larger than any deployment's whole quota
        └── RetryBudgetExhausted      too many rows are failing to go on retrying

    LbgptWarning (UserWarning)
    ├── RowErrorsWarning              some rows failed and were set to NA
    ├── CacheWarning                  the cache could not be read or written
    └── LimitsWarning                 limits differ from what was configured
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class LbgptError(Exception):
    """Base class of every exception that this package raises on purpose."""


class ConfigurationError(LbgptError):
    """A setting, argument or engine that cannot work, found before any paid call."""


class MissingExtraError(ConfigurationError, ImportError):
    """An optional dependency is needed and not installed; the message has the install line."""


class TemplateError(LbgptError, KeyError):
    """A template that does not fit the frame, found before any call.

    Also a ``KeyError``, because a missing column is the usual cause.
    """

    def __str__(self) -> str:
        # KeyError.__str__ shows the repr of its argument: quotes and escaped newlines.
        return Exception.__str__(self)


class BudgetExceeded(LbgptError):
    """The budget of a run is spent; finished rows are kept."""


class CacheMiss(LbgptError):
    """Replay met a request that was never recorded.

    Attributes
    ----------
    numbers : tuple of int
        Of the run's different requests, those that are missing.
    """

    numbers: tuple[int, ...] = ()


class CacheCorrupt(LbgptError):
    """A stored answer failed its checksum where it must not be silently asked again."""


class RunAborted(LbgptError):
    """The run stopped because every further request would fail alike.

    The first failure is the ``__cause__``. Rows finished before are in the cache and in
    ``lb.last_run().result``.
    """


class RowErrors(LbgptError):
    """Raised under ``errors="raise"`` when at least one row failed.

    Attributes
    ----------
    exceptions : tuple of RequestError
        At most the first ten row errors, in row order.
    report : RunReport
        The report of the run, with a line for each row.
    result : pandas.Series
        What was finished; failed rows are NA.
    """

    def __init__(
        self,
        message: str,
        exceptions: Sequence[LbgptError] = (),
        *,
        report: object = None,
        result: object = None,
    ) -> None:
        super().__init__(message)
        self.exceptions = tuple(exceptions)[:10]
        self.report = report
        self.result = result


class RequestError(LbgptError):
    """One request failed.

    Parameters
    ----------
    message : str
        What happened and what to do, free of secrets.
    code : str, optional
        The provider's error code, such as ``"rate_limit_exceeded"``.
    status : int, optional
        HTTP status.
    retry_after : float, optional
        Seconds the provider asked to wait; a floor for the next attempt.
    maybe_billed : bool, default False
        The request may have reached the model, so that a retry may be charged again.
    request_id : str, optional
        The provider's id of the request.

    Attributes
    ----------
    limit_headers : mapping of str to str
        What the refusal's headers say about rate limits; empty without any.
    """

    limit_headers: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        maybe_billed: bool = False,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after = retry_after
        self.maybe_billed = maybe_billed
        self.request_id = request_id

    @property
    def message(self) -> str:
        """The message alone, as ``RunReport.rows`` shows it."""
        return str(self.args[0]) if self.args else ""


class RateLimited(RequestError):
    """The provider asks to wait: a throttle (429) or a ramp that is too steep."""


class QuotaExhausted(RequestError):
    """Credit, spend limit or daily quota is used up; waiting does not help."""


class AuthError(RequestError):
    """The key was refused, lacks a permission, or the TLS certificate failed verification."""


class NotFound(RequestError):
    """The model or deployment does not exist for this key."""


class BadRequest(RequestError):
    """The provider rejected the request as malformed (400, 422)."""


class ContextTooLong(RequestError):
    """The prompt and the requested completion do not fit the model's context window."""


class ContentFiltered(RequestError):
    """The provider's content policy refused the prompt or the completion."""


class InvalidInput(RequestError):
    """A cell that cannot be sent as text (bytes, a lone surrogate); no call was made."""


class ServerError(RequestError):
    """The provider failed (5xx) or asked to try again (408, 409)."""


class ConnectionFailed(RequestError):
    """No connection could be made, or it was lost before the request was sent."""


class Timeout(RequestError):
    """The attempt took longer than its time-out; the provider may still have billed it."""


class MalformedResponse(RequestError):
    """Status 200, but the body is not a chat completion with at least one choice."""


class IncompleteStream(RequestError):
    """A stream that ended before its finish reason."""


class SchemaMismatch(RequestError):
    """The answer does not fit the requested schema; ``raw`` holds its text."""

    raw: str = ""


class RequestExceedsQuota(RequestError):
    """The request is larger than any deployment's whole quota, so it can never be sent."""


class RetryBudgetExhausted(RequestError):
    """Too many rows are failing for every one of them to keep retrying."""


class LbgptWarning(UserWarning):
    """Base class of the package's warnings."""


class RowErrorsWarning(LbgptWarning):
    """Some rows failed and were set to NA; the message counts them by type."""


class CacheWarning(LbgptWarning):
    """The cache could not be read or written; answers are still returned."""


class LimitsWarning(LbgptWarning):
    """The provider's limits differ from the configured ones."""
