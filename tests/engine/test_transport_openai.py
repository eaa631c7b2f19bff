"""The real SDK over an HTTP transport of the test's own."""

from __future__ import annotations

import importlib
import json
import ssl

import openai
import pytest

from lbgpt_pandas.engine.errors import (
    AuthError,
    BadRequest,
    ConfigurationError,
    ConnectionFailed,
    MalformedResponse,
    NotFound,
    QuotaExhausted,
    RateLimited,
    RequestError,
    ServerError,
    Timeout,
)
from lbgpt_pandas.engine.secrets import Secret
from lbgpt_pandas.engine.transports.bodies import MAX_BODY_BYTES, parse_body
from lbgpt_pandas.engine.transports.openai import (
    AzureTransport,
    OpenAITransport,
    make_http_client,
)
from lbgpt_pandas.engine.types import Request

# The SDK moved to another HTTP stack with version 3; the package imports neither.
http = importlib.import_module("httpx2" if openai.__version__ >= "3" else "httpx")

KEY = "sk-CANARY0123456789abcdef"
ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "hi"}}],
}
REQUEST = Request([{"role": "user", "content": "hi"}], {"model": "m", "temperature": 0})


class Server:
    """Answers under the SDK, without a socket, and keeps what was sent."""

    def __init__(self, answer):
        self.answer, self.seen = answer, []

    def handle(self, request):
        self.seen.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def client(self):
        return http.AsyncClient(transport=http.MockTransport(self.handle))


def respond(status=200, body=ANSWER, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if isinstance(body, bytes):
        return http.Response(status, content=body, headers=headers)
    return http.Response(status, json=body, headers=headers)


async def chat(answer, request=REQUEST, *, azure=False, key=KEY):
    server = Server(answer)
    if azure:
        transport = AzureTransport(
            endpoint="https://x.openai.azure.com",
            api_key=Secret(key),
            api_version="2024-10-21",
            model_map={"m": "my-deployment"},
            http_client=server.client,
        )
    else:
        transport = OpenAITransport(
            base_url="https://api.example/v1", api_key=Secret(key), http_client=server.client
        )
    await transport.open()
    try:
        return server, await transport.chat(request, timeout=5)
    except Exception as error:
        error.server = server
        raise
    finally:
        await transport.close()


@pytest.mark.parametrize("azure", [False, True])
@pytest.mark.parametrize(
    "echo",
    [
        respond(401, {"error": {"message": "wrong: CANARYa1b2c3d4e5"}}),
        respond(500, b"<html>CANARYa1b2c3d4e5</html>"),
        respond(200, b"CANARYa1b2c3d4e5 is no JSON"),
        respond(200, {"error": {"message": "no CANARYa1b2c3d4e5", "code": 429}}),
    ],
)
async def test_a_key_that_looks_like_none_is_not_repeated(echo, azure):
    with pytest.raises(RequestError) as caught:
        await chat(echo, azure=azure, key="CANARYa1b2c3d4e5")
    assert "***" in str(caught.value)
    assert "CANARY" not in str(caught.value)


async def test_parameters_reach_the_provider_verbatim_also_unknown_ones():
    request = Request(
        [{"role": "user", "content": "hi", "name": "x"}],
        {"model": "m", "top_k": 5, "reasoning_effort": "low", "extra_body": {"guided": [1]}},
    )
    server, reply = await chat(respond(x_request_id="r1"), request)
    assert json.loads(server.seen[0].content) == {
        "messages": [{"role": "user", "content": "hi", "name": "x"}],
        "model": "m",
        "top_k": 5,
        "reasoning_effort": "low",
        "guided": [1],
    }
    assert reply.request_id == "r1"
    assert reply.payload == ANSWER


async def test_azure_addresses_the_deployment_and_sends_the_key_as_azure_does():
    server, _ = await chat(respond(apim_request_id="r2"), azure=True)
    sent = server.seen[0]
    assert sent.url.path == "/openai/deployments/my-deployment/chat/completions"
    assert sent.headers["api-key"] == KEY


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "invalid_api_key", AuthError),
        (404, "model_not_found", NotFound),
        (400, "invalid_value", BadRequest),
        (429, "rate_limit_exceeded", RateLimited),
        (429, "insufficient_quota", QuotaExhausted),
        (500, None, ServerError),
        (503, None, ServerError),
    ],
)
async def test_a_failed_status_is_classified_and_sent_once(status, code, kind):
    body = {"error": {"message": f"wrong key {KEY}", "code": code, "type": code}}
    with pytest.raises(kind) as caught:
        await chat(respond(status, body, x_request_id="r3"))
    error = caught.value
    assert len(error.server.seen) == 1
    assert "CANARY" not in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert (error.status, error.request_id) == (status, "r3")


async def test_half_of_a_character_costs_no_answer():
    _, reply = await chat(respond(200, b'{"text": "x\\ud800", "id": 18446744073709551616}'))
    assert reply.payload == {"text": "x\ud800", "id": 2**64}


@pytest.mark.parametrize("body", [b"", b"{", b"<html>hi</html>", b"\xff\xfe", b'{"a": NaN}'])
async def test_a_200_that_is_not_json_is_malformed(body):
    with pytest.raises(MalformedResponse):
        await chat(respond(200, body))


@pytest.mark.parametrize("body", [b"null", b"[]", b"{}", b'"text"'])
async def test_json_of_another_shape_is_handed_on_for_validation(body):
    _, reply = await chat(respond(200, body))
    assert reply.payload == json.loads(body)


async def test_an_error_inside_a_200_is_that_error():
    body = {"error": {"code": "insufficient_quota", "message": "no credit"}}
    with pytest.raises(QuotaExhausted):
        await chat(respond(200, body))


async def test_a_token_provider_that_fails_fails_its_row():
    def provider():
        raise OSError(f"no route, Bearer {KEY}")

    server = Server(respond())
    transport = AzureTransport(
        endpoint="https://x.openai.azure.com",
        api_key=None,
        api_version="2024-10-21",
        model_map={},
        token_provider=provider,
        http_client=server.client,
    )
    await transport.open()
    with pytest.raises(ConnectionFailed, match="azure_ad_token_provider") as caught:
        await transport.chat(REQUEST, timeout=5)
    await transport.close()
    assert "CANARY" not in str(caught.value)
    assert server.seen == []


def test_a_huge_body_is_refused():
    with pytest.raises(MalformedResponse, match="bytes"):
        parse_body(b" " * (MAX_BODY_BYTES + 1))


@pytest.mark.parametrize(
    ("raw", "text"), [(b'\xef\xbb\xbf{"a": "b"}', "b"), (b'{"a": "cut \\ud83d"}', "cut \ud83d")]
)
def test_what_the_sdk_reads_is_read(raw, text):
    assert parse_body(raw) == {"a": text}


@pytest.mark.parametrize("raw", [b'{"a": NaN}', b'{"a": "\xff"}', b"[" * 100_000, b"<html>", b""])
def test_what_is_not_json_is_refused(raw):
    with pytest.raises(MalformedResponse, match="is not JSON"):
        parse_body(raw)


def _certificate_error():
    error = http.ConnectError("verify failed")
    error.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    return error


@pytest.mark.parametrize(
    ("error", "kind", "maybe_billed"),
    [
        (http.ConnectError("refused"), ConnectionFailed, False),
        (http.ConnectTimeout("slow"), ConnectionFailed, False),
        (http.PoolTimeout("full"), ConnectionFailed, False),
        (http.ReadTimeout("slow"), Timeout, True),
        (http.ReadError("reset"), Timeout, True),
        (http.RemoteProtocolError("cut"), Timeout, True),
        (_certificate_error(), AuthError, False),
    ],
)
async def test_a_failure_below_http_is_classified_by_what_was_sent(error, kind, maybe_billed):
    with pytest.raises(kind) as caught:
        await chat(error)
    assert caught.value.maybe_billed is maybe_billed


def test_a_live_client_is_refused():
    with pytest.raises(ConfigurationError, match="callable that makes a client"):
        make_http_client("requests")
    with pytest.raises(ConfigurationError, match="callable that makes a client"):
        make_http_client(object())
