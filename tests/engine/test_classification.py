"""Tried on bodies as the providers write them (provider_errors.json); their numbers are made up."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine import errors
from lbgpt_pandas.engine.classification import LONGEST_MESSAGE, classify_response

NOW = datetime(2026, 11, 22, tzinfo=UTC)


CASES = {
    row["case"]: row
    for row in json.loads(
        Path(__file__).with_name("provider_errors.json").read_text(encoding="utf-8")
    )
}
SERVER_STATUSES = (408, 409, 500, 502, 503, 504, 529)


@pytest.mark.parametrize("row", CASES.values(), ids=CASES)
@pytest.mark.parametrize("form", ["json", "text", "bytes", "unwrapped"])
def test_a_body_of_a_provider(row, form):
    status, body = row["status"], row["body"]
    if form == "text" and not isinstance(body, str):
        body = json.dumps(body, indent=2)
    elif form == "bytes":
        body = (body if isinstance(body, str) else json.dumps(body)).encode()
    elif form == "unwrapped" and status >= 400 and isinstance(body, dict):
        # The openai SDK hands out the inner object, if it is one.
        inner = body.get("error")
        body = inner if isinstance(inner, dict) else body
    error = classify_response(status, body, {}, now=NOW)
    assert type(error).__name__ == row["error"]
    assert error.code == row["code"]
    assert error.status == status
    assert error.retry_after == row["wait"]


def test_every_provider_and_every_error_is_among_the_bodies():
    for provider in ("openai", "azure", "anthropic", "gemini", "openrouter"):
        assert sum(name.startswith(provider) for name in CASES) >= 7
    assert {row["error"] for row in CASES.values()} == {
        "RateLimited", "QuotaExhausted", "AuthError", "NotFound", "BadRequest", "ContextTooLong",
        "ContentFiltered", "ServerError", "RequestExceedsQuota",
    }  # fmt: skip


@pytest.mark.parametrize("status", SERVER_STATUSES)
@pytest.mark.parametrize("body", [None, "", "<html>", {}, [], "null", "{"])
def test_a_failing_server_whatever_it_says(status, body):
    assert type(classify_response(status, body, {}, now=NOW)) is errors.ServerError


@pytest.mark.parametrize(
    ("status", "billed"), [(504, True), (524, True), (500, False), (429, False)]
)
def test_a_gateway_that_gave_up_may_have_been_billed(status, billed):
    assert classify_response(status, None, {}, now=NOW).maybe_billed is billed


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "empty"),
        (b"", "empty"),
        (None, "null or empty"),
        ("{", "not JSON: {"),
        ("null", "not JSON: null"),
        ([], "of type list"),
        ({}, "fields []"),
        ({"id": "x", "choices": []}, "fields ['choices', 'id']"),
        ("<!DOCTYPE html><style>p {}</style><title>Login</title>", "not JSON: Login"),
        (7, "of type int"),
        ({"error": {}}, "fields ['error']"),
        ({"error": None, "choices": []}, "fields"),
        ({"error": {"message": "odd"}}, "odd"),
        ("x" * 50_000_000, "not JSON: xxx"),
        ("[" * 50_000, "not JSON: [[["),
    ],
    ids=range(15),
)
def test_a_200_that_is_no_completion_is_malformed(body, words):
    error = classify_response(200, body, {}, now=NOW)
    assert type(error) is errors.MalformedResponse
    assert words in str(error)
    assert len(str(error)) <= LONGEST_MESSAGE


def test_a_long_wait_in_a_header_goes_before_the_body():
    headers = {"Retry-After": "2"}
    body = CASES["gemini per minute"]["body"]
    assert classify_response(429, body, headers, now=NOW).retry_after == 2.0
    assert (
        classify_response(402, CASES["openrouter in flight"]["body"], headers, now=NOW).retry_after
        == 2.0
    )
    assert classify_response(503, None, headers, now=NOW).retry_after == 2.0


def test_a_useless_header_leaves_the_body():
    body = CASES["gemini per minute"]["body"]
    assert classify_response(429, body, {"retry-after": "-1"}, now=NOW).retry_after == 38.0


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({"x-request-id": "req_1", "apim-request-id": "2"}, "req_1"),
        ({"X-Request-Id": "req_1"}, "req_1"),
        ({"apim-request-id": "2"}, "2"),
        ({"request-id": "req_3"}, "req_3"),
        ({}, "req_011CSHoEeqs5C35K2UUqR7Fy"),
    ],
)
def test_the_id_of_the_request(headers, request_id):
    body = CASES["anthropic overloaded"]["body"]
    assert classify_response(529, body, headers, now=NOW).request_id == request_id


def test_the_message_says_what_happened_and_what_to_do():
    error = classify_response(404, CASES["openai unknown model"]["body"], {}, now=NOW)
    assert str(error) == (
        "HTTP 404, model or deployment not found, check its name and the base URL: "
        "The model `gpt-9` does not exist or you do not have access to it."
    )


def test_a_message_about_the_context_names_the_tokens():
    assert "128000 tokens" in str(
        classify_response(400, CASES["openai context"]["body"], {}, now=NOW)
    )
    assert "5021 tokens in the prompt, 4096 in the context" in str(
        classify_response(400, CASES["llama.cpp context"]["body"], {}, now=NOW)
    )


def test_a_list_of_complaints_becomes_one_line():
    assert "body.messages.0: field required" in str(
        classify_response(422, CASES["fastapi"]["body"], {}, now=NOW)
    )


@pytest.mark.parametrize("place", ["message", "code", "text", "late"])
def test_no_key_gets_into_the_message(place):
    secret = "sk-CANARY0123456789abcdef"
    body: object = {"error": {"message": "m", "type": "t", "code": "c"}}
    if place == "text":
        body = f"<p>Authorization: Bearer {secret}</p>"
    elif place == "late":
        # The cut must not fall into a key that has not been recognised yet.
        body = {"error": {"message": "x" * 220 + " " + secret}}
    else:
        body["error"][place] = f"Incorrect API key provided: {secret}"
    error = classify_response(401, body, {}, now=NOW)
    assert "CANARY" not in f"{error} {error.code}"


def test_a_message_is_cut_and_printable():
    error = classify_response(400, {"message": "\x1b[31m\u202e\n" + "long " * 200}, {}, now=NOW)
    assert len(error.message) == LONGEST_MESSAGE
    assert error.message.endswith("…")
    assert error.message.isprintable()


def test_a_quoted_prompt_cannot_disable_a_deployment():
    for quoted in (
        "Your credit balance is too low",
        "gpt-9 is not a valid model",
        "You have reached your specified API usage limits",
    ):
        body = {"error": {"message": f"Invalid content: user wrote '{quoted}'"}}
        assert type(classify_response(400, body, {}, now=NOW)) is errors.BadRequest


def test_a_model_that_reads_no_images_is_not_asked_again():
    said = "image input is not supported - hint: you may need to provide the mmproj"
    error = classify_response(500, {"error": {"code": 500, "message": said}}, {}, now=NOW)
    assert type(error) is errors.BadRequest
    quoted = {"error": {"message": f"failed on 'the {said}'"}}
    assert type(classify_response(500, quoted, {}, now=NOW)) is errors.ServerError


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "code", "type", "message", "details", "metadata", "status", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@given(
    st.integers(200, 599),
    JSON | st.binary(max_size=30) | st.text(max_size=30) | JSON.map(lambda value: [value]),
    st.dictionaries(st.sampled_from(["retry-after", "x-request-id"]), st.text(max_size=9)),
)
def test_no_body_breaks_it(status, body, headers):
    error = classify_response(status, body, headers, now=NOW)
    assert isinstance(error, errors.RequestError)
    assert error.status == status
    assert len(error.message) <= LONGEST_MESSAGE
    assert error.code is None or (isinstance(error.code, str) and error.code)
