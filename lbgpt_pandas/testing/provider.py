"""A server on this machine that speaks OpenAI's and Azure OpenAI's language."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.clock import SYSTEM_CLOCK
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.testing.answers import Behaviour, Desk
from lbgpt_pandas.testing.gate import Gate
from lbgpt_pandas.testing.limits import MINUTE_S, KeyLimits
from lbgpt_pandas.testing.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Literal, Self

    from lbgpt_pandas.engine.clock import Clock
    from lbgpt_pandas.testing.answers import ReplyMaker
    from lbgpt_pandas.testing.faults import Fault, Record
    from lbgpt_pandas.testing.limits import WindowKind
    from lbgpt_pandas.testing.server import LoopbackServer


class FakeProvider:
    """A provider to test against: real HTTP, no network, no key, no cost.

    It listens on 127.0.0.1 while its ``with`` block lasts, in a thread of its own, and serves

    - ``POST /v1/chat/completions``, plain and as a stream of server-sent events;
    - ``POST /v1/embeddings``, as lists or base64, vectors that follow from the text;
    - ``GET /v1/models``;
    - ``POST /openai/deployments/NAME/chat/completions`` and ``/embeddings`` as Azure does.

    Bodies, headers and errors are OpenAI's and Azure's. Tokens are counted as
    ``max(1, len(text) // 4)``: the prompt over the text of all messages put together, the
    completion over the answer. An answer that is longer than ``max_tokens`` or
    ``max_completion_tokens`` is cut off with ``finish_reason: "length"``.

    Parameters
    ----------
    reply : str or callable, optional
        The answer to every chat, or a callable that gets the request's body as a dict and
        returns it (or an awaitable of it): a text, the fields of a message
        (``{"tool_calls": [...]}``), or a whole body with ``choices``. By default ``"A:"`` and
        the text of the last user message; where ``response_format`` asks for JSON, the
        smallest value that fits the schema.
    latency_s : float or callable, default 0.0
        Seconds before each answer, or a callable that gets the `Record` and returns them.
    keys : iterable of str, optional
        Accepted API keys; all others get 401. By default every key is accepted, and none too.
    models : iterable of str, optional
        Models of ``/v1``; all others get 404. By default every name is one.
    deployments : mapping of str to str, optional
        Azure deployments and the models behind them; all others get 404. By default every name
        is a deployment, of the model that it names or else of gpt-4o-mini.
    rpm, tpm : int, optional
        Limits on requests and tokens a minute, for each key by itself (under Azure for each
        key and deployment). Beyond them 429 with ``retry-after`` and ``retry-after-ms``; every
        answer then has ``x-ratelimit-*`` headers. Admission costs the larger of the prompt and
        ``n * max_tokens``, on Azure their sum; an answer that took more is charged in full.
    window : {"sliding", "fixed", "bucket"}, default "sliding"
        How the minute is measured; see `KeyLimits`.
    window_s : float, default 60.0
        Length of that minute in seconds.
    burst_s : float, optional
        A shorter window over requests with the same rate, as Azure has (10 s or 1 s); with
        ``window="bucket"`` how many seconds of quota the bucket holds.
    limits : mapping of str to KeyLimits, optional
        Limits of single keys or Azure deployments instead of the above, which everyone else
        has; a deployment goes before a key.
    headers : bool or {"azure-junk", "anthropic"}, default True
        How limits and waits are told: as OpenAI and Azure do; not at all; as Azure has been
        seen to do (limit and remaining -1, reset 0); as ``anthropic-ratelimit-*`` with resets
        in RFC 3339. With False and ``"azure-junk"`` there is no ``retry-after`` either, and the
        text of a refusal does not say when to come back.
    count_refused : bool, default False
        Requests refused for a limit count against the requests allowed, as at OpenAI.
    context_tokens : int, optional
        Context window; prompt and ``max_tokens`` beyond it get 400.
    faults : callable or iterable, optional
        What goes wrong: a callable that gets the `Record` and returns a `Fault` or None, or
        an iterable of them, one for each request in turn.
    record : bool, default True
        Keep every request in `requests`; False for measurements of many thousands.
    port : int, default 0
        Port to listen on; 0 for a free one, which is kept when the provider is started again.
    clock : Clock, optional
        Time of limits, latencies and ``created``; the system's by default.

    Attributes
    ----------
    requests : list of Record
        Every request in the order of arrival, refused and failed ones included.
    tally : Tally
        Counts by path, key and status, most requests in flight, clients that hung up.

    Raises
    ------
    ConfigurationError
        If a limit is below 1, or a setting is not one of those above.
    OSError
        At the start, if the port is taken.

    Examples
    --------
    >>> from lbgpt_pandas.engine import ChatGPT
    >>> ask = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Rome?"}]}
    >>> with FakeProvider(rpm=100) as server:
    ...     engine = ChatGPT("sk-test", base_url=server.base_url)
    ...     answers = engine.chat_completion_list([ask], show_progress=False)
    >>> answers[0].choices[0].message.content
    'A:Rome?'
    >>> server.requests[0].path, server.requests[0].status
    ('/v1/chat/completions', 200)
    >>> server.tally.in_flight_peak
    1

    The first request is throttled, and asked again by the engine:

    >>> from lbgpt_pandas.testing import Fault
    >>> with FakeProvider(reply="Italy", faults=[Fault.rate_limited(0.01)]) as server:
    ...     engine = ChatGPT("sk-test", base_url=server.base_url)
    ...     answers = engine.chat_completion_list([ask], show_progress=False)
    >>> answers[0].choices[0].message.content, answers[0].attempts
    ('Italy', 2)

    One key may send 600 requests a minute, but 100 in 10 s; all others 60:

    >>> server = FakeProvider(rpm=60, limits={"sk-large": KeyLimits(rpm=600, burst_s=10)})

    After a run ``server.tally.by_key_status["sk-large", 429]`` are the refusals of that key, and
    ``server.tally.most_requests("sk-large", span_s=10)`` the most it got through in 10 s.
    """

    def __init__(
        self,
        *,
        reply: str | ReplyMaker | None = None,
        latency_s: float | Callable[[Record], float] = 0.0,
        keys: Iterable[str] | None = None,
        models: Iterable[str] | None = None,
        deployments: Mapping[str, str] | None = None,
        rpm: int | None = None,
        tpm: int | None = None,
        window: WindowKind = "sliding",
        window_s: float = MINUTE_S,
        burst_s: float | None = None,
        limits: Mapping[str, KeyLimits] | None = None,
        headers: bool | Literal["azure-junk", "anthropic"] = True,
        count_refused: bool = False,
        context_tokens: int | None = None,
        faults: Callable[[Record], Fault | None] | Iterable[Fault | None] | None = None,
        record: bool = True,
        port: int = 0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if context_tokens is not None and not context_tokens >= 1:
            raise ConfigurationError(
                f"context_tokens={context_tokens}: give at least 1, or None for no limit"
            )
        gate = Gate(
            KeyLimits(rpm=rpm, tpm=tpm, window=window, window_s=window_s, burst_s=burst_s),
            limits or {},
            headers=headers,
            count_refused=count_refused,
            clock=clock,
        )
        behaviour = Behaviour(
            reply=reply,
            latency_s=latency_s,
            keys=None if keys is None else frozenset(_names(keys, "keys")),
            models=None if models is None else tuple(_names(models, "models")),
            deployments=None if deployments is None else dict(deployments),
            context_tokens=context_tokens,
            faults=_one_by_one(faults),
        )
        self.requests: list[Record] = []
        self.tally = Tally()
        self._lock = threading.Lock()
        self._record = record
        self._clock = clock
        self._desk = Desk(behaviour, gate=gate, clock=clock)
        self._port = port
        self._server: LoopbackServer | None = None

    def __repr__(self) -> str:
        where = f"listening on port {self._port}" if self._server else "not listening"
        return f"<FakeProvider {where}, {self.tally.requests} requests>"

    def start(self) -> None:
        """Begin to listen; ``with`` does it.

        Raises
        ------
        ConfigurationError
            If it listens already.
        OSError
            If the port is taken.
        """
        # aiohttp costs 0.2 s, which tests with a ScriptedGPT alone do not pay.
        from lbgpt_pandas.testing.server import LoopbackServer  # noqa: PLC0415

        if self._server is not None:
            raise ConfigurationError(f"this provider listens already, on port {self._port}")
        server = LoopbackServer(
            self._desk,
            clock=self._clock,
            log=self._log,
            leave=self._leave,
            with_headers=self._record,
        )
        self._port = server.start(self._port)
        self._server = server

    def stop(self) -> None:
        """Hang up on every client and stop listening; `requests` and `tally` stay."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def reset(self) -> None:
        """Forget all requests, counts and what the limits counted; go on listening."""
        self.requests = []
        with self._lock:
            in_flight = self.tally.in_flight
            self.tally = Tally(in_flight=in_flight, in_flight_peak=in_flight)
        self._desk.reset()

    @property
    def base_url(self) -> str:
        """Address for ``base_url=`` of OpenAI clients, ``/v1`` included.

        Raises
        ------
        ConfigurationError
            If the provider was never started.
        """
        return f"{self.azure_base}/v1"

    @property
    def azure_base(self) -> str:
        """Address for ``azure_api_base=`` or ``azure_endpoint=``.

        Raises
        ------
        ConfigurationError
            If the provider was never started.
        """
        if not self._port:
            raise ConfigurationError(
                "a FakeProvider has an address once it listens; use it in a `with` block"
            )
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _log(self, record: Record) -> Tally:
        if self._record:
            self.requests.append(record)
        with self._lock:
            self.tally.arrive(record)
            return self.tally

    def _leave(self, record: Record, tally: Tally) -> None:
        with self._lock:
            tally.leave(record)
            if tally is not self.tally:
                self.tally.in_flight -= 1


def _names(names: Iterable[str], parameter: str) -> Iterable[str]:
    if isinstance(names, str):
        raise ConfigurationError(f"{parameter}={names!r} is one text; give a list")
    return names


def _one_by_one(
    faults: Callable[[Record], Fault | None] | Iterable[Fault | None] | None,
) -> Callable[[Record], Fault | None] | None:
    if faults is None or callable(faults):
        return faults
    remaining, lock = iter(faults), threading.Lock()

    def take(record: Record) -> Fault | None:
        del record
        with lock:
            return next(remaining, None)

    return take
