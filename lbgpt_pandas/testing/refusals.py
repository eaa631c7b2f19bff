"""Error bodies word for word as OpenAI and Azure OpenAI write them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lbgpt_pandas.testing.quota import Refusal, Resource

_KEY_HEAD = 8
_KEY_TAIL = 4
_CATEGORIES = ("hate", "self_harm", "sexual", "violence")


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer that is an error.

    Attributes
    ----------
    status : int
        HTTP status.
    body : dict
        Its JSON.
    headers : mapping
        Further headers.
    """

    status: int
    body: dict[str, object]
    headers: Mapping[str, str] = field(default_factory=dict)


def _openai(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Refused:
    error = {"message": message, "type": kind, "param": param, "code": code}
    return Refused(status, {"error": error}, headers or {})


def _azure(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> Refused:
    return Refused(status, {"error": {"code": code, "message": message}}, headers or {})


def wrong_key(key: str | None, *, azure: bool) -> Refused:
    """401: a key that is not known, or none; OpenAI quotes its first and last characters."""
    if azure:
        return _azure(
            401,
            "401",
            "Access denied due to invalid subscription key or wrong API endpoint. Make sure to "
            "provide a valid key for an active subscription and use a correct regional API "
            "endpoint for your resource.",
        )
    if not key:
        return _openai(
            401,
            "You didn't provide an API key. You need to provide your API key in an Authorization "
            "header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY). You can obtain an "
            "API key from https://platform.openai.com/account/api-keys.",
        )
    if len(key) > _KEY_HEAD + _KEY_TAIL:
        stars = "*" * (len(key) - _KEY_HEAD - _KEY_TAIL)
        key = f"{key[:_KEY_HEAD]}{stars}{key[-_KEY_TAIL:]}"
    return _openai(
        401,
        f"Incorrect API key provided: {key}. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
        code="invalid_api_key",
    )


def unknown_model(model: str, *, azure: bool) -> Refused:
    """404: no such model, or no such deployment."""
    if azure:
        return _azure(
            404,
            "DeploymentNotFound",
            "The API deployment for this resource does not exist. If you created the deployment "
            "within the last 5 minutes, please wait a moment and try again.",
        )
    return _openai(
        404,
        f"The model `{model}` does not exist or you do not have access to it.",
        code="model_not_found",
    )


def unknown_path(method: str, path: str) -> Refused:
    """404: nothing is served there."""
    if path.startswith("/openai/"):
        return _azure(404, "404", "Resource not found")
    return _openai(404, f"Invalid URL ({method} {path})")


def wrong_method(method: str, path: str) -> Refused:
    """405: something is served there, by another method."""
    return _openai(
        405,
        f"Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different HTTP "
        "method?)",
    )


def not_json() -> Refused:
    """400: the body cannot be read."""
    return _openai(
        400,
        "We could not parse the JSON body of your request. (HINT: This likely means you aren't "
        "using your HTTP library correctly. The OpenAI API expects a JSON payload, but what was "
        "sent was not valid JSON.)",
    )


def bad_field(message: str, param: str, code: str | None = None) -> Refused:
    """400: a field of the body is missing or cannot be used."""
    return _openai(400, message, param=param, code=code)


def context_too_long(limit: int, tokens: int) -> Refused:
    """400 ``context_length_exceeded``."""
    return _openai(
        400,
        f"This model's maximum context length is {limit} tokens. However, your messages resulted "
        f"in {tokens} tokens. Please reduce the length of the messages.",
        param="messages",
        code="context_length_exceeded",
    )


def insufficient_quota() -> Refused:
    """429 ``insufficient_quota``: no credit is left."""
    return _openai(
        429,
        "You exceeded your current quota, please check your plan and billing details. For more "
        "information on this error, read the docs: "
        "https://platform.openai.com/docs/guides/error-codes/api-errors.",
        kind="insufficient_quota",
        code="insufficient_quota",
    )


def rate_limited(*, headers: Mapping[str, str]) -> Refused:
    """429 ``rate_limit_exceeded`` that names no numbers."""
    return _openai(
        429,
        "Rate limit reached. Visit https://platform.openai.com/account/rate-limits to learn more.",
        kind="requests",
        code="rate_limit_exceeded",
        headers=headers,
    )


def over_quota(
    refusal: Refusal, *, model: str, azure: bool, headers: Mapping[str, str], says_when: bool
) -> Refused:
    """429 with the numbers of the limit.

    Parameters
    ----------
    refusal : Refusal
        Of the quota.
    model : str
        Model or deployment.
    azure : bool
        In Azure's words.
    headers : mapping
        How the limits stand and how long to wait.
    says_when : bool
        The text says as well how long to wait.
    """
    unit = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}
    where = f"{model} in organization org-testing on {unit[refusal.resource]}"
    if refusal.wait_s is None:
        text = (
            f"Request too large for {where}: Limit {refusal.limit}, Requested "
            f"{refusal.requested}. The input or output tokens must be reduced in order to run "
            "successfully."
        )
    elif azure:
        return _azure_over_quota(refusal.resource, refusal.wait_s if says_when else None, headers)
    else:
        numbers = f"Limit {refusal.limit}, Used {refusal.used}, Requested {refusal.requested}."
        wait_s = math.ceil(round(refusal.wait_s * 1_000, 6)) / 1_000
        when = f" Please try again in {wait_s:.3f}s." if says_when else ""
        text = (
            f"Rate limit reached for {where}: {numbers}{when} Visit "
            "https://platform.openai.com/account/rate-limits to learn more."
        )
    return _openai(429, text, kind=refusal.resource, code="rate_limit_exceeded", headers=headers)


def _azure_over_quota(
    resource: Resource, wait_s: float | None, headers: Mapping[str, str]
) -> Refused:
    limit = {"requests": "call rate limit", "tokens": "token rate limit"}[resource]
    when = ""
    if wait_s is not None:
        when = f" Please retry after {math.ceil(round(wait_s, 6))} seconds."
    return _azure(
        429,
        "429",
        "Requests to the ChatCompletions_Create Operation under Azure OpenAI API have exceeded "
        f"{limit} of your current OpenAI S0 pricing tier.{when} Please go here: "
        "https://aka.ms/oai/quotaincrease if you would like to further increase the default rate "
        "limit.",
        headers,
    )


def content_filter() -> Refused:
    """400 ``content_filter`` in Azure's form."""
    results = {name: {"filtered": False, "severity": "safe"} for name in _CATEGORIES}
    results["violence"] = {"filtered": True, "severity": "high"}
    error = {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content "
        "management policy. Please modify your prompt and retry. To learn more about our content "
        "filtering policies please read our documentation: "
        "https://go.microsoft.com/fwlink/?linkid=2198766",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": results,
        },
    }
    return Refused(400, {"error": error})
