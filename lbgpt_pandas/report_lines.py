"""A report's line for each row of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbgpt_pandas.engine.types import Source

if TYPE_CHECKING:
    from lbgpt_pandas.engine.errors import RequestError
    from lbgpt_pandas.engine.types import Outcome

MESSAGE_LENGTH = 300

COLUMNS = {
    "status": "string",
    "source": "string",
    "error_type": "string",
    "error_code": "string",
    "message": "string",
    "attempts": "int64",
    "deployment": "string",
    "latency_s": "float64",
    "prompt_tokens": "Int64",
    "completion_tokens": "Int64",
    "cost_usd": "Float64",
    "finish_reason": "string",
    "similarity": "Float64",
    "key": "string",
    "request_id": "string",
    "maybe_billed": "bool",
    "confidence": "Float64",
}


def line(outcome: Outcome | None, *, first: bool) -> tuple[object, ...]:
    """Return the line of a row with a request.

    Parameters
    ----------
    outcome : Outcome or None
        What became of the request; None if it was not sent.
    first : bool
        Whether the row is the first of those that share the request, which is charged.
    """
    if outcome is None:
        return ("not_run", *[None] * 4, 0, None, 0.0, *[None] * 7, False, None)
    completion, error = outcome.completion, outcome.error
    shared = not first and outcome.source is Source.PROVIDER
    code, message = _describe(error)
    return (
        "failed" if error is not None else "ok",
        str(Source.SHARED if shared and error is None else outcome.source),
        type(error).__name__ if error is not None else None,
        code,
        message,
        0 if shared else outcome.attempts,
        outcome.deployment or (completion.deployment if completion else None) or None,
        0.0 if shared else outcome.latency_s,
        completion.tokens.prompt if completion else None,
        completion.tokens.completion if completion else None,
        outcome.price_usd if outcome.source is Source.PROVIDER and first else 0.0,
        completion.finish_reason if completion else None,
        outcome.similarity,
        outcome.key or None,
        completion.request_id if completion else getattr(error, "request_id", None),
        outcome.maybe_billed,
        outcome.confidence,
    )


def line_without_request(error: RequestError | None) -> tuple[object, ...]:
    """Return the line of a row without a request: skipped, or failed before any call."""
    status = "skipped" if error is None else "failed"
    kind = None if error is None else type(error).__name__
    return (
        status, str(Source.SKIPPED), kind, *_describe(error), 0, None, 0.0,
        None, None, 0.0, None, None, None, None, False, None,
    )  # fmt: skip


def _describe(error: BaseException | None) -> tuple[str | None, str | None]:
    if error is None:
        return None, None
    return getattr(error, "code", None), str(error)[:MESSAGE_LENGTH]
