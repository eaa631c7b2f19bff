"""A provider that is quicker than its clients: ``python tests/benchmarks/rapid_provider.py``.

It prints its address and answers until its standard input ends. `FakeProvider` knows more, but
takes longer over a request than the quickest client here, which would then be measured waiting.
Only what the scenarios need is spoken: ``POST /v1/chat/completions`` and ``/v1/responses`` whole,
``POST /config`` with what a `Config` has, which also forgets what was counted, ``GET /stats``.

Latencies and faults are drawn from the last user message and its try, so that each client meets
the same ones. An answer is ``A-`` and the CRC of that message, so that each row is checked.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
import zlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from statistics import NormalDist
from typing import Any

import orjson

HEAD_END = b"\r\n\r\n"
REASONS = {200: "OK", 429: "Too Many Requests", 500: "Internal Server Error"}
ANSWERED_AT = 1_700_000_000


@dataclass
class Config:
    """How the provider behaves.

    Attributes
    ----------
    p50_s, p99_s : float
        Latency: lognormal where they differ.
    rpm : dict of str to int
        Requests a minute of a key; other keys have no limit.
    burst_s : float
        Seconds of quota that a key's bucket holds.
    faults : dict of str to float
        Shares of ``429``, ``500``, ``reset`` and ``hang``.
    hang_s : float
        What a request that hangs takes longer.
    """

    p50_s: float = 0.0
    p99_s: float = 0.0
    rpm: dict[str, int] = field(default_factory=dict)
    burst_s: float = 60.0
    faults: dict[str, float] = field(default_factory=dict)
    hang_s: float = 60.0


class Bucket:
    """Requests of one key: filled evenly, emptied by one a request."""

    def __init__(self, rpm: int, burst_s: float) -> None:
        self.rpm, self.rate = rpm, rpm / 60
        self.size = self.level = max(1.0, self.rate * burst_s)
        self.at = time.monotonic()

    def wait_s(self) -> float:
        """Take one request and return 0, or the seconds until there is one."""
        now = time.monotonic()
        self.level = min(self.size, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < 1.0:
            return (1.0 - self.level) / self.rate
        self.level -= 1.0
        return 0.0

    def headers(self) -> str:
        left, reset_s = int(self.level), (self.size - self.level) / self.rate
        return (
            f"x-ratelimit-limit-requests: {self.rpm}\r\nx-ratelimit-remaining-requests: {left}\r\n"
            f"x-ratelimit-reset-requests: {reset_s:.3f}s\r\n"
        )


class Provider:
    """What all connections share."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.buckets = {key: Bucket(rpm, config.burst_s) for key, rpm in config.rpm.items()}
        self.statuses: Counter[str] = Counter()
        self.by_key: Counter[str] = Counter()
        self.tries: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = 0

    def draws(self, prompt: str) -> tuple[float, float]:
        """Two numbers from 0 to 1 that follow from the prompt and how often it has come."""
        self.tries[prompt] += 1
        seed = f"{self.tries[prompt]}|{prompt}".encode()
        return zlib.crc32(seed) / 2**32, zlib.crc32(seed, 77) / 2**32

    def fault(self, draw: float) -> str:
        for kind, share in self.config.faults.items():
            if draw < share:
                return kind
            draw -= share
        return ""

    def latency_s(self, draw: float) -> float:
        median, late = self.config.p50_s, self.config.p99_s
        if late <= median or not median:
            return median
        normal = NormalDist()
        sigma = math.log(late / median) / normal.inv_cdf(0.99)
        return median * math.exp(sigma * normal.inv_cdf(min(max(draw, 1e-9), 1 - 1e-9)))

    def stats(self) -> dict[str, Any]:
        return {
            "requests": self.tries.total(),
            "distinct": len(self.tries),
            "statuses": self.statuses,
            "by_key": self.by_key,
            "most_in_flight": self.most_in_flight,
        }


PROVIDER = Provider(Config())


class Connection(asyncio.Protocol):
    """One client connection; requests on it come one after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(HEAD_END)) >= 0:
            head = self.buffer[:end].decode("latin-1")
            headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            headers = {name.lower(): value for name, value in headers.items()}
            size = int(headers.get("content-length", 0))
            if len(self.buffer) < end + 4 + size:
                return
            body = self.buffer[end + 4 : end + 4 + size]
            self.buffer = self.buffer[end + 4 + size :]
            self.serve(head.split(" ", 2)[1], headers, body)

    def serve(self, path: str, headers: dict[str, str], body: bytes) -> None:
        global PROVIDER  # noqa: PLW0603  # a scenario begins with nothing counted
        if path == "/config":
            PROVIDER = Provider(Config(**json.loads(body)))
            self.send(200, asdict(PROVIDER.config))
        elif path == "/stats":
            self.send(200, PROVIDER.stats())
        else:
            key = headers.get("authorization", "").removeprefix("Bearer ")
            self.answer(path, key, orjson.loads(body))

    def answer(self, path: str, key: str, request: dict[str, Any]) -> None:
        provider = PROVIDER
        prompt = question(request)
        first, second = provider.draws(prompt)
        fault = provider.fault(first)
        provider.in_flight += 1
        provider.most_in_flight = max(provider.most_in_flight, provider.in_flight)
        bucket = provider.buckets.get(key)
        wait_s = bucket.wait_s() if bucket else 0.0
        limits = bucket.headers() if bucket else ""
        latency_s = provider.latency_s(second)
        if wait_s or fault == "429":
            wait_s = wait_s or 1.0
            limits += f"retry-after: {math.ceil(wait_s)}\r\nretry-after-ms: {wait_s * 1000:.0f}\r\n"
            text = f"Rate limit reached on requests per min. Try again in {wait_s:.3f}s."
            reply: Any = error(text, "requests", "rate_limit_exceeded")
            self.later(0.0, provider, key, 429, reply, limits)
        elif fault == "500":
            reply = error("The server had an error.", "server_error", None)
            self.later(latency_s, provider, key, 500, reply, limits)
        elif fault == "reset":
            self.later(latency_s, provider, key, 0, None, limits)
        else:
            make = response if path == "/v1/responses" else completion
            latency_s += provider.config.hang_s if fault == "hang" else 0.0
            self.later(latency_s, provider, key, 200, make(request, prompt), limits)

    def later(self, seconds: float, *args: Any) -> None:
        if seconds:
            asyncio.get_running_loop().call_later(seconds, self.finish, *args)
        else:
            self.finish(*args)

    def finish(self, provider: Provider, key: str, status: int, reply: Any, limits: str) -> None:
        is_gone = self.transport.is_closing()
        provider.in_flight -= 1
        provider.statuses["gone" if is_gone else str(status or "reset")] += 1
        if status == 200 and not is_gone:
            provider.by_key[key] += 1
        if status and not is_gone:
            self.send(status, reply, limits)
        elif not is_gone:
            self.transport.abort()

    def send(self, status: int, reply: Any, headers: str = "") -> None:
        body = orjson.dumps(reply)
        head = (
            f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-request-id: req-1\r\n{headers}\r\n"
        )
        self.transport.write(head.encode() + body)


def question(request: dict[str, Any]) -> str:
    """Text of the last user message."""
    given = request.get("messages") or request["input"]
    content = given if isinstance(given, str) else given[-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def answer_to(prompt: str) -> str:
    return f"A-{zlib.crc32(prompt.encode()):08x}"


def error(message: str, kind: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def completion(request: dict[str, Any], prompt: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer_to(prompt), "refusal": None}
    prompt_tokens = len(prompt) // 4 + 7
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": ANSWERED_AT,
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": 3,
            "total_tokens": prompt_tokens + 3,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
        "system_fingerprint": None,
    }


def response(request: dict[str, Any], prompt: str) -> dict[str, Any]:
    """A ``response``; openaivec asks for a list of answers to a list of questions in one text."""
    schema = request.get("text", {}).get("format", {}).get("schema")
    text = answer_to(prompt)
    if schema is not None:
        asked = json.loads(prompt)["user_messages"]
        answers = [{"id": each["id"], "body": answer_to(each["body"])} for each in asked]
        text = json.dumps({"assistant_messages": answers})
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {"type": "message", "id": "msg-1", "status": "completed", "role": "assistant"}
    used = {"input_tokens": len(prompt) // 4, "output_tokens": 3, "total_tokens": 3}
    details = {"input_tokens_details": {"cached_tokens": 0}}
    details |= {"output_tokens_details": {"reasoning_tokens": 0}}
    return {
        "id": "resp-1",
        "object": "response",
        "created_at": ANSWERED_AT,
        "status": "completed",
        "model": request["model"],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "output": [{**message, "content": [part]}],
        "usage": {**used, **details},
    }


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=2_048)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve())
    else:
        uvloop.run(serve())
