"""What every engine offers: LBGPT's methods on top of the pipeline."""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.caching import NO_CACHING
from lbgpt_pandas.engine.calls import Trail
from lbgpt_pandas.engine.completions import to_sdk_object
from lbgpt_pandas.engine.embargo import check_embargo
from lbgpt_pandas.engine.embeddings import Embeddings
from lbgpt_pandas.engine.errors import LimitsWarning
from lbgpt_pandas.engine.markup import table_html
from lbgpt_pandas.engine.portal import run_sync
from lbgpt_pandas.engine.states import RunHeading
from lbgpt_pandas.engine.streams import Streams
from lbgpt_pandas.engine.types import Outcome, Request, Source, UsageStats
from lbgpt_pandas.engine.views import close_quietly, drawn, open_view

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lbgpt_pandas.engine.states import DeploymentState
    from lbgpt_pandas.engine.types import Usage


class _BaseGPT(Streams, Embeddings):
    """What every engine can do; the parameters are those of `Pipeline`.

    Engines are async context managers: connections live for the block. A method that is
    called outside opens and closes around the call.
    """

    async def chat_completion(self, **request: Any) -> Any:
        """Make one call, without cache and without retry.

        Parameters
        ----------
        **request
            ``messages``, ``model`` and whatever else the provider takes.

        Returns
        -------
        ChatCompletionAddition

        Raises
        ------
        RequestError
            If the call failed.
        """
        check_embargo(f"{self.name}.chat_completion()")
        wanted = self.prepare(Request.from_keywords(request))
        async with self:
            session = self._sessions[asyncio.get_running_loop()]
            trail = Trail()
            completion = await self._attempts.once(session, wanted, trail)
        outcome = Outcome(
            completion, None, Source.PROVIDER, "", trail.attempts, trail.latency_s, trail.deployment
        )
        return to_sdk_object(outcome, model_class=type(self).__name__)

    async def cached_chat_completion(
        self,
        content: Mapping[str, object],
        use_cache: bool = True,  # noqa: FBT001, FBT002  # LBGPT's signature
    ) -> Any:
        """Answer one request from the cache, or ask with retries and store the answer.

        Parameters
        ----------
        content : mapping
            The keywords of `chat_completion`.
        use_cache : bool, default True
            Whether the cache is read and written.

        Returns
        -------
        ChatCompletionAddition

        Raises
        ------
        RequestError
            The last error, once no attempt is left.
        """
        batch = self._batch([content], use_cache=use_cache)
        return self._answers(await batch.arun(), strict=True)[0]

    async def achat_completion_list(
        self,
        requests: Sequence[Mapping[str, object]],
        show_progress: bool = True,  # noqa: FBT001, FBT002  # LBGPT's signature
    ) -> list[Any]:
        """Answer many requests.

        Parameters
        ----------
        requests : sequence of mapping
            Keywords of `chat_completion` each.
        show_progress : bool, default True
            Draw a progress bar.

        Returns
        -------
        list of ChatCompletionAddition or None
            In the order of `requests`; None where a request failed.

        Raises
        ------
        RequestError
            With ``stop_on_exception=True``, the first failure; otherwise only one that every
            request would share, such as a refused key.
        """
        batch = self._batch(requests)
        heading = self._heading(requests)
        view = open_view(show_progress, heading, controls=batch, awaited=True)
        async with drawn(view, batch.snapshot):
            return self._answers(await batch.arun(), strict=self.stop_on_exception)

    def chat_completion_list(
        self,
        requests: Sequence[Mapping[str, object]],
        show_progress: bool = True,  # noqa: FBT001, FBT002  # LBGPT's signature
    ) -> list[Any]:
        """Answer many requests; see `achat_completion_list`."""
        batch, view = self._batch(requests), open_view(show_progress, self._heading(requests))
        try:
            outcomes = run_sync(
                batch.arun(),
                tick=lambda: view.update(batch.snapshot()),
                on_interrupt=batch.stop,
            )
        finally:
            close_quietly(view, batch.snapshot())
        return self._answers(outcomes, strict=self.stop_on_exception)

    def _repr_html_(self) -> str:
        rows = [("calls at once", f"{self.max_parallel_calls:,}")]
        rows += [(state.name, state.to_text()) for state in self._states()]
        return table_html(f"{type(self).__name__} {self.name}", rows)

    def _states(self) -> list[DeploymentState]:
        return [deployment.state() for deployment in self.deployments()]

    def _heading(self, requests: Sequence[Mapping[str, object]]) -> RunHeading:
        models = {str(request.get("model") or "") for request in requests}
        model = models.pop() if len(models) == 1 else f"{len(models):,} models"
        return RunHeading("chat_completion_list", model=model, engine=self.name)

    def _batch(self, requests: Sequence[Mapping[str, object]], *, use_cache: bool = True) -> Batch:
        check_embargo(f"a method of {self.name}")
        return Batch(
            self,
            [Request.from_keywords(request) for request in requests],
            caching=self.caching() if use_cache else NO_CACHING,
            stop_on_error=self.stop_on_exception,
            keep_payloads=True,
            clock=self.clock,
        )

    def _answers(self, outcomes: Sequence[Outcome | None], *, strict: bool) -> list[Any]:
        for notice in self.take_notices():
            warnings.warn(notice, LimitsWarning, stacklevel=3)
        if strict:
            for outcome in outcomes:
                if outcome is not None and outcome.error is not None:
                    raise outcome.error
        kind = type(self).__name__
        return [
            to_sdk_object(outcome, model_class=kind) if outcome and outcome.completion else None
            for outcome in outcomes
        ]

    def take_notices(self) -> list[str]:
        """Return what has been learned about limits that users should know, once."""
        return [
            f"{deployment.name}: {notice}"
            for deployment in self.deployments()
            for notice in deployment.quota.take_notices()
        ]

    @property
    def usage_cache_list(self) -> list[Usage]:
        """The last calls, oldest first; at most ``max_usage_cache_size``."""
        return self._usage.recent()

    def get_usage_stats(
        self,
        include_usage_reservation: bool = False,  # noqa: FBT001, FBT002  # LBGPT's signature
    ) -> UsageStats:
        """Tokens and requests of the last 60 seconds.

        Parameters
        ----------
        include_usage_reservation : bool, default False
            Add the calls in flight, each with `expected_tokens_per_request`.
        """
        stats = self._usage.stats()
        if not include_usage_reservation:
            return stats
        flying = sum(deployment.in_flight for deployment in self.deployments())
        reserved = round(flying * self.expected_tokens_per_request())
        return UsageStats(tokens=stats.tokens + reserved, requests=stats.requests + flying)

    def expected_tokens_per_request(self) -> float:
        """Mean total tokens of the calls so far; 0.0 before the first."""
        return self._usage.tokens_per_request()
