"""Whether what is left of a run still makes sense, seen from the failures so far."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.errors import (
    ContentFiltered,
    ContextTooLong,
    InvalidInput,
    NotFound,
    QuotaExhausted,
    RequestError,
    RequestExceedsQuota,
    RunAborted,
)
from lbgpt_pandas.engine.retry import decide

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lbgpt_pandas.engine.types import Outcome, Request

ABORT_AFTER = 20
"""So many first answers that fail alike, without hope, stop a run."""

OF_THE_ROW = (ContentFiltered, ContextTooLong, RequestExceedsQuota)
"""Failures that say something about one row and nothing about the next."""


class Prospects:
    """Watches a run's failures.

    Parameters
    ----------
    requests : sequence of Request
        The run's requests.

    Attributes
    ----------
    fatal : RequestError or None
        The failure that every further request would share.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self.fatal: RequestError | None = None
        self._requests = requests
        self._hopeless = 0
        self._kind: tuple[type[RequestError], str | None] | None = None

    def note(self, error: RequestError, *, answered: int) -> None:
        """Take a failure into account.

        Parameters
        ----------
        error : RequestError
            How a request failed in the end.
        answered : int
            Requests of the run that were answered before.
        """
        decision = decide(error)
        fatal = decision.fatal and not (isinstance(error, NotFound) and self._has_many_models)
        if fatal or self._is_hopeless(error, retry=decision.retry, answered=answered):
            self.fatal = self.fatal or error

    def final_error(
        self, error: RequestError, outcomes: Sequence[Outcome | None], *, answered: int
    ) -> BaseException:
        """Return what a run raises that was stopped because of `error`."""
        first = not answered and self._hopeless < ABORT_AFTER
        if first and not isinstance(error, QuotaExhausted):
            return error
        left = sum(outcome is None for outcome in outcomes)
        aborted = RunAborted(
            f"the run was stopped with {left:,} of {len(outcomes):,} requests not sent, "
            f"because every further one would fail alike: {error} "
            "Answers that had arrived are in the cache."
        )
        aborted.__cause__ = error
        return aborted

    def _is_hopeless(self, error: RequestError, *, retry: bool, answered: int) -> bool:
        """Tell whether the run's first answers all failed alike, with nothing to wait for."""
        kind = type(error), error.code
        if answered or isinstance(error, InvalidInput):
            return False
        if retry or isinstance(error, OF_THE_ROW) or self._kind not in (None, kind):
            # It is not the same for all of them, so the run goes on whatever comes.
            self._hopeless = -len(self._requests)
        self._kind = kind
        self._hopeless += 1
        return self._hopeless >= ABORT_AFTER

    @cached_property
    def _has_many_models(self) -> bool:
        return len({request.model for request in self._requests}) > 1
