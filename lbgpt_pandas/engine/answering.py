"""What a batch asks of whoever answers its requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from lbgpt_pandas.engine.caching import Caching
    from lbgpt_pandas.engine.deployment import Deployment
    from lbgpt_pandas.engine.keys import KeyMaker
    from lbgpt_pandas.engine.run_state import RunState
    from lbgpt_pandas.engine.semantic.questions import Question
    from lbgpt_pandas.engine.types import Completion, Outcome, Request


class Engine(Protocol):
    """What a batch asks of an engine."""

    name: str
    proven: set[str | None]
    max_parallel_calls: int

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def deployments(self) -> tuple[Deployment, ...]:
        """Return what this engine calls."""
        ...

    def prepare(self, request: Request) -> Request:
        """Return the request as it will be sent."""
        ...

    def key_maker(self, request: Request) -> KeyMaker:
        """Return the key maker for requests with these parameters and options."""
        ...

    def family_of(self, request: Request) -> str:
        """Family of the model that answers this request."""
        ...

    def price_usd(self, completion: Completion) -> float | None:
        """List price of an answer; None if it is unknown."""
        ...

    async def afetch(
        self,
        request: Request,
        *,
        key: str,
        caching: Caching,
        question: Question | None,
        run: RunState,
    ) -> Outcome:
        """Ask a provider, with retries, and store the answer.

        Raises
        ------
        Withdrawn, BudgetExceeded
            If the run was stopped before the call, or cannot pay for it.
        """
        ...
