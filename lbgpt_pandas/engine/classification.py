"""From a provider's refusal to one of our errors.

What a status means differs between providers and even within one: 429 is a throttle that
passes, or spent credit that no waiting brings back; 402 is no credit, or too many requests at
once; 400 is a bad request, a filtered prompt or a spend limit. So the names that the body
gives its error (``code``, ``type``, ``reason``, ...) decide first, the text second and the
status last. Read here: OpenAI, Azure OpenAI, Anthropic, Gemini and Vertex, OpenRouter, vLLM,
llama.cpp and whatever writes one of their forms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson

from lbgpt_pandas.engine import errors
from lbgpt_pandas.engine.retry_after import parse_retry_after, wait_in_text, wait_of
from lbgpt_pandas.engine.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

LONGEST_MESSAGE = 300

_LARGEST_BODY = 1_000_000
_LONGEST_READ = 2_000
_LONGEST_CODE = 64
_DEPTH = 5

_NAME_FIELDS = frozenset(
    {"code", "type", "status", "reason", "error_code", "error_type", "limit_source"}
)
_TELLING_FIELDS = ("error_code", "reason", "error_type", "limit_source")
_QUOTA_FIELDS = frozenset({"quotaId", "quota_limit"})
_DELAY_FIELDS = frozenset({"retryDelay", "retry_after_seconds"})
_MESSAGE_FIELDS = ("message", "detail", "error_description", "msg", "title")

_SPENT = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_hard_limit_reached",
        "billing_not_active",
        "enforced_spend_limit_reached",
        "billing_error",
        "budget_exceeded",
        "insufficient_credits",
        "openrouter_credits",
        "openrouter_key_limit",
        "openrouter_guardrail_budget",
        "openrouter_workspace_budget",
    }
)
_BUSY = frozenset({"slow_down", "in_flight_budget_exhausted"})
_TOO_LARGE_FOR_QUOTA = frozenset({"weight_exceeds_budget"})
_CONTEXT = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_FILTERED = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "responsibleaipolicyviolation",
        "moderation_blocked",
        "data_inspection_failed",
    }
)
_UNKNOWN_MODEL = frozenset({"model_not_found", "deploymentnotfound", "not_found_error"})
_KEY_REFUSED = frozenset({"invalid_api_key", "api_key_invalid", "authentication_error"})
# What stands in for the status of an error that came inside a 200 or an event of a stream.
_STATUS_OF_NAME = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "resource_exhausted": 429,
    "overloaded_error": 529,
    "api_error": 500,
    "server_error": 500,
    "internal_server_error": 500,
    "timeout_error": 504,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "invalid_request_error": 400,
}
for _names, _status in (
    (_SPENT | _BUSY | _TOO_LARGE_FOR_QUOTA, 429),
    (_CONTEXT | _FILTERED, 400),
    (_UNKNOWN_MODEL, 404),
    (_KEY_REFUSED, 401),
):
    _STATUS_OF_NAME.update(dict.fromkeys(_names, _status))

# At the start of the message, so that a prompt quoted further on cannot disable a deployment.
_SPENT_TEXT = re.compile(
    r"\W*(?:your credit balance is too low"
    r"|you have reached your (?:specified )?(?:workspace )?api usage limits"
    r"|out of call volume quota"
    r"|exceededbudget|budget has been exceeded|budget limit exceeded)",
    re.IGNORECASE,
)
_PER_DAY_TEXT = re.compile(r"free-models-per-day", re.IGNORECASE)
_TOO_LARGE_TEXT = re.compile(r"\W*request too large for ", re.IGNORECASE)
_CONTEXT_TEXT = re.compile(
    r"maximum context length|context window|prompt is too long|available context size"
    r"|input token count .{0,40}exceeds the maximum|exceeds? the .{0,20}context length",
    re.IGNORECASE,
)
_FILTERED_TEXT = re.compile(
    r"content filtering policy|content management policy|usage polic|\bflagged\b", re.IGNORECASE
)
# llama.cpp calls a part that its model cannot read a failure of its own, at every attempt.
_UNREADABLE_TEXT = re.compile(r"\W*(?:image|audio|video) input is not supported", re.IGNORECASE)
_UNKNOWN_MODEL_TEXT = re.compile(
    r"[\s'\"`]*[\w./:@-]+[\s'\"`]+is not a valid model\b", re.IGNORECASE
)

_TAG = re.compile(r"<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>", re.IGNORECASE | re.DOTALL)
# Control characters and those that turn the reading direction: messages end in terminals.
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]+")

_HINTS: dict[type[errors.RequestError], str] = {
    errors.RateLimited: "too many requests or tokens for now",
    errors.QuotaExhausted: "credit, spend limit or daily quota is used up, waiting does not help",
    errors.AuthError: "access refused, check the key and what it may use",
    errors.NotFound: "model or deployment not found, check its name and the base URL",
    errors.BadRequest: "the provider rejected the request",
    errors.ContextTooLong: "prompt and answer exceed the context window, shorten the prompt",
    errors.ContentFiltered: "refused by the provider's content policy",
    errors.ServerError: "the provider failed",
    errors.MalformedResponse: "the answer is not a chat completion, check the base URL",
    errors.RequestExceedsQuota: "larger than the whole quota, shorten the prompt or max_tokens",
}


def classify_response(
    status: int, body: object, headers: Mapping[str, str], *, now: datetime
) -> errors.RequestError:
    """Make the error that a response stands for.

    Parameters
    ----------
    status : int
        HTTP status. Below 400, an error inside the body counts as if it were the answer;
        without one the answer is malformed.
    body : object
        The body as JSON data, as text or as bytes; with or without the outer ``"error"``.
    headers : mapping of str to str
        Response headers, in any case.
    now : datetime
        The present, with a time zone, against which dates in headers are read.

    Returns
    -------
    RequestError
        Of the class that says what to do, with `code`, `status`, `retry_after` and
        `request_id`. Its message is free of credentials and at most 300 characters long.
    """
    lower = {str(name).lower(): str(value) for name, value in headers.items()}
    error, top = _error_object(body)
    facts = list(_facts(error)) if status >= 400 or _holds_error(top) else []  # noqa: PLR2004
    names = {value.lower() for field, value in facts if field in _NAME_FIELDS}
    message = _message_of(error, body)[:_LONGEST_READ]
    effective = status if status >= 400 else _status_inside(error, names)  # noqa: PLR2004
    kind = _kind_of(effective, names, message, per_day=_is_per_day(facts, message))
    waits = (parse_retry_after(lower, now=now), _delay_inside(facts), wait_in_text(message))
    if kind is errors.MalformedResponse and not facts:
        message = _shape(body)
    failure = kind(
        _compose(kind, status, message),
        code=_code_of(error),
        status=status,
        retry_after=next((wait for wait in waits if wait is not None), None),
        # A gateway gave up waiting; the model behind it may have answered.
        maybe_billed=effective in {504, 524},
        request_id=_request_id(lower, top),
    )
    failure.limit_headers = {name: text for name, text in lower.items() if "ratelimit" in name}
    return failure


def _kind_of(
    status: int | None, names: set[str], message: str, *, per_day: bool
) -> type[errors.RequestError]:
    if status is None:
        return errors.MalformedResponse
    if names & _BUSY:
        return errors.RateLimited
    if names & _TOO_LARGE_FOR_QUOTA:
        return errors.RequestExceedsQuota
    if status < 500:  # noqa: PLR2004
        if status == 402 or names & _SPENT or _SPENT_TEXT.match(message):  # noqa: PLR2004
            return errors.QuotaExhausted
        return _kind_of_refusal(status, names, message, per_day=per_day)
    return errors.BadRequest if _UNREADABLE_TEXT.match(message) else errors.ServerError


def _kind_of_refusal(  # noqa: PLR0911  # a table, one line a row
    status: int, names: set[str], message: str, *, per_day: bool
) -> type[errors.RequestError]:
    match status:
        case 429 if per_day:
            return errors.QuotaExhausted
        case 429 if _TOO_LARGE_TEXT.match(message):
            return errors.RequestExceedsQuota
        case 429:
            return errors.RateLimited
        case 408 | 409 | 425:
            return errors.ServerError
    if names & _CONTEXT or (status in {400, 413, 422} and _CONTEXT_TEXT.search(message)):
        return errors.ContextTooLong
    if names & _FILTERED or (status in {400, 403, 422} and _FILTERED_TEXT.search(message)):
        return errors.ContentFiltered
    if status == 404 or names & _UNKNOWN_MODEL or _UNKNOWN_MODEL_TEXT.match(message):  # noqa: PLR2004
        return errors.NotFound
    if status in {401, 403, 407} or names & _KEY_REFUSED:
        return errors.AuthError
    return errors.BadRequest


def _error_object(body: object) -> tuple[dict[str, object], dict[str, object]]:
    """Return the object that describes the error, and the outermost one."""
    if isinstance(body, bytes | bytearray):
        body = bytes(body[: _LARGEST_BODY + 1]).decode("utf-8", "replace")
    if isinstance(body, str):
        body = _from_text(body)
    if isinstance(body, list):
        # Gemini behind its OpenAI-compatible address.
        body = next((item for item in body if isinstance(item, dict)), None)
    if not isinstance(body, dict):
        return {}, {}
    inner = body.get("error")
    if isinstance(inner, Mapping):
        return dict(inner), body
    if isinstance(inner, str):
        return {**body, "message": inner}, body
    return body, body


def _from_text(text: str) -> object:
    if len(text) > _LARGEST_BODY or not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return orjson.loads(text)
    except ValueError:
        return None


def _holds_error(top: Mapping[str, object]) -> bool:
    return bool(top.get("error")) or top.get("type") == "error"


def _facts(value: object, *, depth: int = _DEPTH) -> Iterator[tuple[str, str]]:
    """Every text and number below a value, with the name of its field."""
    if depth == 0:
        return
    if isinstance(value, Mapping):
        for field, item in value.items():
            if isinstance(item, str | int | float):
                yield str(field), str(item)
            else:
                yield from _facts(item, depth=depth - 1)
    elif isinstance(value, list):
        for item in value:
            yield from _facts(item, depth=depth - 1)


def _message_of(error: Mapping[str, object], body: object) -> str:
    for field in _MESSAGE_FIELDS:
        value = error.get(field)
        if isinstance(value, str) and value:
            return _with_counts(value, error)
        if isinstance(value, list):
            # FastAPI: a list of what is wrong with which field.
            return "; ".join(_one_line(item) for item in value)
    return "" if error else _plain(body)


def _with_counts(message: str, error: Mapping[str, object]) -> str:
    # llama.cpp keeps the numbers out of the text.
    prompt, window = error.get("n_prompt_tokens"), error.get("n_ctx")
    if prompt is None or window is None:
        return message
    return f"{message} ({prompt} tokens in the prompt, {window} in the context)"


def _one_line(item: object) -> str:
    if not isinstance(item, Mapping):
        return str(item)
    where = item.get("loc")
    place = ".".join(map(str, where)) if isinstance(where, list | tuple) else ""
    return f"{place}: {item.get('msg', '')}".removeprefix(": ")


def _plain(body: object) -> str:
    if isinstance(body, bytes | bytearray):
        body = bytes(body[:_LARGEST_BODY]).decode("utf-8", "replace")
    # Some pages begin with a long style sheet.
    return _TAG.sub(" ", body[:_LARGEST_BODY]).strip() if isinstance(body, str) else ""


def _status_inside(error: Mapping[str, object], names: set[str]) -> int | None:
    """Status of an error that came with a 200, None if there is no error inside."""
    code = error.get("code")
    if names and isinstance(code, int) and 400 <= code < 600:  # noqa: PLR2004
        return code
    return next((_STATUS_OF_NAME[name] for name in sorted(names & _STATUS_OF_NAME.keys())), None)


def _is_per_day(facts: list[tuple[str, str]], message: str) -> bool:
    quotas = (value.lower().replace("_", "") for field, value in facts if field in _QUOTA_FIELDS)
    return any("perday" in quota for quota in quotas) or bool(_PER_DAY_TEXT.search(message))


def _delay_inside(facts: list[tuple[str, str]]) -> float | None:
    texts = [value.removesuffix("s") for field, value in facts if field in _DELAY_FIELDS]
    return next(map(wait_of, texts), None)


def _code_of(error: Mapping[str, object]) -> str | None:
    """Return the most telling name of an error: a word before a number."""
    candidates = [error.get("code")]
    for inner in (error.get("details"), error.get("metadata")):
        if isinstance(inner, Mapping):
            candidates += [inner.get(name) for name in _TELLING_FIELDS]
    candidates += [error.get("type"), error.get("status")]
    words = [str(word) for word in candidates if isinstance(word, str | int) and word]
    best = next((word for word in words if not word.isdigit()), words[0] if words else None)
    return None if best is None else redact(best)[:_LONGEST_CODE]


def _request_id(headers: Mapping[str, str], top: Mapping[str, object]) -> str | None:
    for name in ("x-request-id", "apim-request-id", "request-id"):
        if headers.get(name):
            return headers[name]
    inside = top.get("request_id")
    return inside if isinstance(inside, str) else None


def _shape(body: object) -> str:
    """Describe a body that is no chat completion, without quoting an answer."""
    match body:
        case None:
            return "the body is null or empty"
        case str() | bytes() | bytearray() if not body.strip():
            return "the body is empty"
        case str() | bytes() | bytearray():
            return f"the body is not JSON: {_plain(body)[:120]}"
        case dict():
            return f"the body is an object with the fields {sorted(map(str, body))[:8]}"
        case _:
            return f"the body is of type {type(body).__name__}"


def _compose(kind: type[errors.RequestError], status: int, message: str) -> str:
    text = f"HTTP {status}, {_HINTS[kind]}"
    if message:
        # Redacted before it is cut: half a key no longer looks like one.
        text = f"{text}: {_UNPRINTABLE.sub(' ', redact(message)).strip()}"
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"
