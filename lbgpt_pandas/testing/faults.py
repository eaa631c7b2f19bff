"""What a `FakeProvider` remembers of a request, and what it can be told to do wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import orjson

from lbgpt_pandas.testing.rate_headers import retry_after_headers
from lbgpt_pandas.testing.refusals import Refused, content_filter, insufficient_quota, rate_limited

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(slots=True)
class Record:
    """One request that reached a `FakeProvider`.

    Attributes
    ----------
    number : int
        Its place in the order of arrival, from 1.
    method, path : str
        Of the HTTP request; the path without query.
    query : dict of str to str
        Parameters after the ``?``.
    key : str or None
        The API key it came with.
    headers : dict of str to str
        Request headers, lower-case names.
    body : object
        The parsed JSON; the raw bytes if they are not JSON, None without a body.
    model : str
        Model of the body, or deployment of an Azure path; empty if there is none.
    at : float
        Monotonic seconds of its arrival.
    status : int or None
        Status that was sent; None before, and for requests that got none.
    aborted : bool
        The client hung up before it had its answer.
    admitted_at : float or None
        Monotonic seconds at which the limits let it in; None if they did not, or never saw it.
    tokens : int
        What it is charged; 0 if it was not let in.
    """

    number: int
    method: str
    path: str
    query: Mapping[str, str]
    key: str | None = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: object
    model: str
    at: float
    status: int | None = None
    aborted: bool = False
    admitted_at: float | None = None
    tokens: int = 0

    @property
    def deployment(self) -> str:
        """Deployment of an Azure path, else empty."""
        return self.model if self.is_azure else ""

    @property
    def is_azure(self) -> bool:
        """Whether it came on an Azure path."""
        return self.path.startswith("/openai/")


FaultKind = Literal["respond", "reset", "hang", "cut", "drip"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong with one request; made by the methods named after the faults.

    Examples
    --------
    Every third request meets an overloaded server:

    >>> faults = lambda record: None if record.number % 3 else Fault.server_error(503)

    The first one is throttled, the second one loses its connection, the rest is well:

    >>> faults = [Fault.rate_limited(0.04), Fault.reset()]
    """

    kind: FaultKind
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int = 0
    seconds: float | None = None

    @property
    def hangs_up(self) -> bool:
        """Whether it is the provider that ends the connection."""
        return self.kind in ("reset", "cut")

    @classmethod
    def respond(
        cls,
        status: int,
        body: object = b"",
        headers: Mapping[str, str] | None = None,
        *,
        content_type: str = "application/json",
    ) -> Fault:
        """Send this instead of an answer.

        Parameters
        ----------
        status : int
            HTTP status; 200 with a body that is no completion makes a malformed answer.
        body : object, default b""
            bytes and str are sent as they are, everything else as JSON.
        headers : mapping, optional
            Further headers.
        content_type : str, default "application/json"
            Of the body.
        """
        if isinstance(body, str):
            raw = body.encode()
        else:
            raw = body if isinstance(body, bytes) else orjson.dumps(body)
        return cls(
            "respond", status, raw, headers={"content-type": content_type, **(headers or {})}
        )

    @classmethod
    def rate_limited(cls, retry_after_s: float | None = None) -> Fault:
        """429 ``rate_limit_exceeded``; with `retry_after_s` in both headers if it is given."""
        headers = {} if retry_after_s is None else retry_after_headers(retry_after_s)
        return cls._refuse(rate_limited(headers=headers))

    @classmethod
    def insufficient_quota(cls) -> Fault:
        """429 ``insufficient_quota``: the credit is spent, waiting does not help."""
        return cls._refuse(insufficient_quota())

    @classmethod
    def content_filter(cls) -> Fault:
        """400 ``content_filter`` in Azure's form, with its ``innererror``."""
        return cls._refuse(content_filter())

    @classmethod
    def server_error(cls, status: int = 500) -> Fault:
        """Fail as OpenAI does, with any status from 500 on."""
        error = {
            "message": "The server had an error while processing your request. Sorry about that!",
            "type": "server_error",
            "param": None,
            "code": None,
        }
        return cls.respond(status, {"error": error})

    @classmethod
    def reset(cls, after: int = 0) -> Fault:
        """Reset the connection (RST) after `after` bytes of the answer; 0 is before its head."""
        return cls("reset", after=after)

    @classmethod
    def hang(cls, seconds: float | None = None) -> Fault:
        """Say nothing for `seconds` and then answer; None: until the client hangs up."""
        return cls("hang", seconds=seconds)

    @classmethod
    def cut(cls, after: int = 1) -> Fault:
        """End early: a stream after `after` chunks and without finish reason or ``[DONE]``.

        A plain answer ends after `after` bytes of its body, short of its content-length.
        """
        return cls("cut", after=after)

    @classmethod
    def drip(cls, interval_s: float) -> Fault:
        """Send the body byte by byte, a stream chunk by chunk, every `interval_s` seconds."""
        return cls("drip", seconds=interval_s)

    @classmethod
    def stream_error(cls, after: int = 1) -> Fault:
        """In a stream, send an ``error`` event after `after` chunks and end."""
        error = {"message": "The server had an error.", "type": "server_error", "code": None}
        return cls("cut", body=orjson.dumps({"error": error}), after=after)

    @classmethod
    def _refuse(cls, refused: Refused) -> Fault:
        return cls.respond(refused.status, refused.body, refused.headers)
