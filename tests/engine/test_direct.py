"""Chat completions without the SDK, against a server on loopback that says what the test says."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
from contextlib import asynccontextmanager

import aiohttp
import pytest

from lbgpt_pandas.engine.errors import (
    AuthError,
    ConfigurationError,
    ConnectionFailed,
    MalformedResponse,
    NotFound,
    QuotaExhausted,
    RateLimited,
    RequestError,
    Timeout,
)
from lbgpt_pandas.engine.secrets import Secret
from lbgpt_pandas.engine.transports.bodies import MAX_BODY_BYTES
from lbgpt_pandas.engine.transports.direct import DirectClient, _tls, proxy_of
from lbgpt_pandas.engine.transports.http_errors import connection_error
from lbgpt_pandas.engine.transports.openai import AzureTransport, OpenAITransport
from lbgpt_pandas.engine.types import Request

KEY = "sk-CANARY0123456789abcdef"
ANSWER = {"id": "c", "choices": [{"message": {"content": "hi"}}]}
REQUEST = Request([{"role": "user", "content": "hi"}], {"model": "m", "temperature": 0})


CUT_OFF = (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
"""Answers after which the connection is closed."""


class Server:
    """Reads requests and writes what it is told, byte by byte."""

    def __init__(self, *answers):
        self.answers, self.seen, self.connections, self.port = list(answers), [], 0, 0

    async def handle(self, reader, writer):
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *fields = head.decode().rstrip().split("\r\n")
                headers = {
                    name.lower(): text
                    for name, _, text in (field.partition(": ") for field in fields)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.seen.append((line, headers, json.loads(body)))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                writer.write(answer)
                await writer.drain()
                if answer in CUT_OFF:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(*answers):
    server = Server(*answers)
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()


def response(body=ANSWER, status="200 OK", **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Length": len(content), "Content-Type": "application/json", **headers}
    lines = "".join(f"{name.replace('_', '-')}: {text}\r\n" for name, text in fields.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + content


def openai(port, **keywords):
    return OpenAITransport(base_url=f"http://127.0.0.1:{port}/v1", api_key=Secret(KEY), **keywords)


def azure(port, **keywords):
    return AzureTransport(
        endpoint=f"http://127.0.0.1:{port}/",
        api_version="2024-10-21",
        model_map={"m": "my deployment"},
        **keywords,
    )


@asynccontextmanager
async def opened(transport):
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


async def ask(answer, request=REQUEST):
    async with serving(answer) as server, opened(openai(server.port)) as transport:
        return await transport.chat(request, timeout=5)


async def test_what_is_sent_is_the_request_and_the_key_over_one_connection(monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-x")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-y")
    request = Request(
        [{"role": "user", "content": "hü", "name": "x"}],
        {"model": "m", "top_k": 5, "extra_body": {"guided": [1]}},
    )
    answer = response(x_request_id="r1", Set_Cookie="a=b")
    async with serving(answer) as server, opened(openai(server.port)) as transport:
        for _ in range(3):
            reply = await transport.chat(request, timeout=5)
        assert transport._client is None
    assert (reply.payload, reply.request_id) == (ANSWER, "r1")
    assert server.connections == 1
    line, headers, body = server.seen[-1]
    assert line == "POST /v1/chat/completions HTTP/1.1"
    assert body == {
        "messages": [{"role": "user", "content": "hü", "name": "x"}],
        "model": "m",
        "top_k": 5,
        "guided": [1],
    }
    assert headers["authorization"] == f"Bearer {KEY}"
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-x", "proj-y")
    assert headers["content-type"] == "application/json"
    assert "cookie" not in headers


async def test_what_orjson_does_not_write_is_sent_all_the_same():
    request = Request(
        [{"role": "user", "content": "hi"}], {"model": "m", "logit_bias": {50256: -100}, "n": 2**70}
    )
    async with serving(response()) as server, opened(openai(server.port)) as transport:
        await transport.chat(request, timeout=5)
    body = server.seen[0][2]
    assert (body["logit_bias"], body["n"]) == ({"50256": -100}, 2**70)


async def test_azure_is_addressed_by_deployment_with_its_key():
    async with (
        serving(response(apim_request_id="r2")) as server,
        opened(azure(server.port, api_key=Secret(KEY))) as transport,
    ):
        assert (await transport.chat(REQUEST, timeout=5)).request_id == "r2"
    line, headers, body = server.seen[0]
    place = "/openai/deployments/my%20deployment/chat/completions?api-version=2024-10-21"
    assert line == f"POST {place} HTTP/1.1"
    assert headers["api-key"] == KEY
    assert "authorization" not in headers
    assert body["model"] == "my deployment"


async def test_a_token_is_asked_for_before_each_request():
    tokens = iter(["one", "two"])

    async def provider():
        return next(tokens)

    async with (
        serving(response()) as server,
        opened(azure(server.port, api_key=None, token_provider=provider)) as transport,
    ):
        for _ in range(2):
            await transport.chat(REQUEST, timeout=5)
    sent = [headers for _, headers, _ in server.seen]
    assert [headers["authorization"] for headers in sent] == ["Bearer one", "Bearer two"]
    assert not any("api-key" in headers for headers in sent)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        ("401 Unauthorized", "invalid_api_key", AuthError),
        ("404 Not Found", "model_not_found", NotFound),
        ("429 Too Many", "rate_limit_exceeded", RateLimited),
        ("429 Too Many", "insufficient_quota", QuotaExhausted),
        ("200 OK", "insufficient_quota", QuotaExhausted),
    ],
)
async def test_a_refusal_is_classified_and_keeps_the_key_to_itself(status, code, kind):
    body = {"error": {"message": f"wrong key {KEY}", "code": code, "type": code}}
    with pytest.raises(kind) as caught:
        await ask(response(body, status, x_request_id="r3"))
    error = caught.value
    assert "CANARY" not in str(error)
    assert error.request_id == "r3"
    assert error.__suppress_context__ or error.__context__ is None


async def test_a_page_instead_of_json_is_shown_and_a_redirect_is_not_followed():
    with pytest.raises(RequestError, match="down for a while"):
        await ask(response(b"<h1>down for a while</h1>", "503 Unavailable"))
    with pytest.raises(NotFound, match=r"redirects to elsewhere\.example"):
        await ask(response(b"", "307 Moved", Location="https://elsewhere.example/v1"))
    with pytest.raises(MalformedResponse, match="not JSON"):
        await ask(response(b"<html>"))


async def test_a_packed_answer_is_read_and_a_huge_one_is_not():
    packed = gzip.compress(json.dumps(ANSWER).encode())
    assert (await ask(response(packed, Content_Encoding="gzip"))).payload == ANSWER
    bomb = gzip.compress(b" " * (8 * MAX_BODY_BYTES))
    with pytest.raises(MalformedResponse, match="not accepted"):
        await ask(response(bomb, Content_Encoding="gzip"))


async def test_a_large_answer_that_comes_in_pieces_is_read_whole():
    body = {**ANSWER, "padding": "x" * 2_000_000}
    assert (await ask(response(body))).payload == body


async def test_what_was_sent_may_have_been_billed():
    with pytest.raises(Timeout) as lost:
        await ask(CUT_OFF[0])
    with pytest.raises(Timeout) as cut:
        await ask(CUT_OFF[1])
    async with serving(response()) as server:
        port = server.port
    async with opened(openai(port)) as transport:
        with pytest.raises(ConnectionFailed) as refused:
            await transport.chat(REQUEST, timeout=5)
    assert [each.value.code for each in (lost, cut)] == ["connection_lost"] * 2
    assert [each.value.maybe_billed for each in (lost, cut, refused)] == [True, True, False]


_PLACE = aiohttp.client_reqrep.ConnectionKey("x", 443, True, True, None, None, None)


@pytest.mark.parametrize(
    ("error", "kind", "maybe_billed"),
    [
        (aiohttp.ClientConnectorDNSError(_PLACE, OSError("no name")), ConnectionFailed, False),
        (aiohttp.ClientConnectorError(_PLACE, OSError("no route")), ConnectionFailed, False),
        (aiohttp.ConnectionTimeoutError("slow"), ConnectionFailed, False),
        (aiohttp.NonHttpUrlClientError("ftp://x"), ConnectionFailed, False),
        (aiohttp.ServerDisconnectedError(), Timeout, True),
        (aiohttp.ClientOSError(32, "broken pipe"), Timeout, True),
        (aiohttp.ClientPayloadError("cut"), Timeout, True),
    ],
)
def test_failures_of_aiohttp_are_told_apart(error, kind, maybe_billed):
    failure = connection_error(error)
    assert type(failure) is kind
    assert failure.maybe_billed is maybe_billed


async def test_the_proxy_of_the_environment_is_used(monkeypatch):
    async with serving(response()) as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("no_proxy", "other.invalid")
        transport = OpenAITransport(base_url="http://provider.invalid/v1", api_key=Secret(KEY))
        async with opened(transport):
            await transport.chat(REQUEST, timeout=5)
    assert server.seen[0][0].startswith("POST http://provider.invalid/v1/chat/completions")
    assert proxy_of("http://other.invalid/v1") is None


@pytest.mark.parametrize(
    ("url", "proxy"), [("http://[::1]:8/v1", None), ("http://[::2]:8/v1", "http://proxy.example:1")]
)
def test_an_address_without_a_proxy_may_be_ipv6(monkeypatch, url, proxy):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:1")
    monkeypatch.setenv("NO_PROXY", "localhost,::1")
    assert proxy_of(url) == proxy


async def test_a_netrc_does_not_replace_the_key(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with serving(response()) as server, opened(openai(server.port)) as transport:
        await transport.chat(REQUEST, timeout=5)
    assert server.seen[0][1]["authorization"] == f"Bearer {KEY}"


async def test_headers_that_the_environment_adds_are_sent(monkeypatch):
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Team: blue")
    async with serving(response()) as server, opened(openai(server.port)) as transport:
        assert transport._direct is None
        await transport.chat(REQUEST, timeout=5)
    assert server.seen[0][1]["authorization"] == f"Bearer {KEY}"


async def test_a_header_of_the_environment_is_cleaned_and_checked(monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1\n")
    async with serving(response()) as server, opened(openai(server.port)) as transport:
        await transport.chat(REQUEST, timeout=5)
    assert server.seen[0][1]["openai-organization"] == "org-1"
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj\n1")
    with pytest.raises(ConfigurationError, match="OPENAI_PROJECT_ID"):
        await openai(server.port).open()


def test_a_proxy_that_aiohttp_does_not_speak_to_is_left_to_the_sdk(monkeypatch):
    monkeypatch.setenv("no_proxy", "")
    assert DirectClient.can_reach("http://provider.invalid/v1")
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    assert not DirectClient.can_reach("http://provider.invalid/v1")


async def test_keywords_of_the_sdk_reach_the_provider():
    request = Request(
        [{"role": "user", "content": "hi"}], {"model": "m", "extra_headers": {"X-Trace": "7"}}
    )
    async with serving(response()) as server, opened(openai(server.port)) as transport:
        assert (await transport.chat(request, timeout=5)).payload == ANSWER
    assert server.seen[0][1]["x-trace"] == "7"


PROBE = """
import sys
import pandas as pd
import lbgpt_pandas as lb
from lbgpt_pandas.testing import FakeProvider
with FakeProvider() as provider:
    engine = lb.ChatGPT("sk-test-0123456789", base_url=provider.base_url)
    words = pd.Series(["a", "b"])
    assert words.lbgpt.complete("{}", engine=engine, model="m", cache_mode="off").notna().all()
print("openai" in sys.modules)
"""


@pytest.mark.process
def test_a_frame_does_not_wait_for_the_sdk():
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("url", "proxy", "has_certificates"),
    [
        ("http://127.0.0.1:1/v1", "", False),
        ("https://127.0.0.1:1/v1", "", True),
        ("http://example.org/v1", "https://proxy.example.org", True),
    ],
)
async def test_certificates_are_read_only_where_tls_is_spoken(
    monkeypatch, url, proxy, has_certificates
):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    if proxy:
        monkeypatch.setenv("http_proxy", proxy)
    _tls.cache_clear()
    client = DirectClient(url)
    await client.open()
    await client.close()
    assert bool(_tls.cache_info().currsize) == has_certificates
