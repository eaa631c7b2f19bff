"""An engine that answers from a script: everything of the real ones but the provider."""

from __future__ import annotations

import inspect
import itertools
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.assembly import replay
from lbgpt_pandas.engine.base import _BaseGPT
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.transports.base import Reply, Stream
from lbgpt_pandas.engine.types import Request
from lbgpt_pandas.testing.embeddings import DEFAULT_DIMENSIONS, DIMENSIONS, embed
from lbgpt_pandas.testing.wire import (
    chat_chunks,
    chat_completion,
    count_tokens,
    embedding_list,
    last_user_text,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager

    from lbgpt_pandas.engine.transports.base import Transport

Part = Mapping[str, object] | BaseException | float
"""Of a stream: a chunk, an exception to raise, or seconds of silence."""

Line = str | Mapping[str, object] | BaseException | list[Part]
"""One answer: its text, a whole body of a status 200, an exception to raise, or a stream."""

Script = Line | Sequence[Line] | Mapping[str, Line] | Callable[["Request"], Line | Awaitable[Line]]

_LONGEST_QUOTE = 80


class ScriptedGPT(_BaseGPT):
    """An engine without a provider: cache, retries, limits and reports are the real ones.

    Parameters
    ----------
    reply : str, mapping, sequence, exception or callable, optional
        What is answered; by default the text of the last user message.

        - A text answers every request.
        - A mapping has the answers by the text of the last user message.
        - A sequence is used up in the order in which requests are sent.
        - An exception is raised for every request.
        - A callable gets the `Request` and returns the answer, or an awaitable of it.

        Inside a mapping or sequence, and from a callable, an answer is a text, an exception to
        raise, or a dict: the whole body of a status 200, which the engine validates. Any of
        them may be streamed; a list is a stream, part by part: chunks, exceptions to raise,
        and numbers for seconds of silence.
    latency_s : float or callable, default 0.0
        Seconds before each answer, or a callable that gets the `Request` and returns them.
        Slept on ``clock``, so a `FakeClock` makes it free.
    model : str, default "scripted"
        Model of requests that name none.
    max_parallel_calls : int, default 64
        Cap on the calls in flight.
    **settings
        Of `_BaseGPT`: ``cache``, ``stop_after_attempts``, ``clock`` and so on.

    Attributes
    ----------
    requests : list of Request
        Every attempt that was sent, in order; cached answers are not among them. Texts to embed
        stand as ``input`` among the parameters; the script says nothing of them, their vectors
        follow from the texts alone.
    in_flight_peak : int
        The most calls that were in flight at once.

    Raises
    ------
    TypeError
        If `reply` is of none of these kinds.
    ConfigurationError
        At the call, if the sequence is at its end or the mapping has no answer.

    Examples
    --------
    >>> engine = ScriptedGPT({"Rome": "Italy", "Oslo": "Norway"})
    >>> ask = {"messages": [{"role": "user", "content": "Oslo"}]}
    >>> engine.chat_completion_list([ask], show_progress=False)[0].choices[0].message.content
    'Norway'
    >>> len(engine.requests)
    1
    """

    slow_start = None

    def __init__(
        self,
        reply: Script | None = None,
        *,
        latency_s: float | Callable[[Request], float] = 0.0,
        model: str = "scripted",
        max_parallel_calls: int = 64,
        **settings: Any,
    ) -> None:
        super().__init__(max_parallel_calls, **settings)
        self.default_model: str = model
        self.requests: list[Request] = []
        self.in_flight_peak = 0
        self._next_line = _reader(reply)
        self._latency_s = latency_s
        self._in_flight = 0
        self._numbers = itertools.count(1)
        self._script_lock = threading.Lock()

    @property
    def family(self) -> str:
        """``"scripted"``."""
        return "scripted"

    def _new_transport(self) -> Transport:
        return _ScriptedTransport(self)

    async def answer(self, request: Request) -> Reply:
        """Answer one attempt as the script says; what the engine's transport calls.

        Raises
        ------
        BaseException
            What the script says.
        ConfigurationError
            If the script has no answer.
        TypeError
            If it has something else than a text, a dict or an exception.
        """
        async with self._attempt(request, self._next_line) as (line, number):
            return Reply(
                payload=self._payload(request, line, number),
                headers={},
                request_id=f"req_{number:08d}",
            )

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Stream]:
        """Answer one attempt in parts; raises as `answer`."""
        async with (
            self._attempt(request, self._next_line) as (line, number),
            aclosing(self._parts(request, line, number)) as parts,
        ):
            yield Stream(parts, headers={}, request_id=f"req_{number:08d}")

    async def embed(self, model: str, inputs: Sequence[str], params: Mapping[str, Any]) -> Reply:
        """Embed texts: those that share words are close."""
        request = Request((), {"model": model, "input": list(inputs), **params})
        async with self._attempt(request, lambda _: "") as (_, number):
            dimensions = params.get("dimensions") or DIMENSIONS.get(model, DEFAULT_DIMENSIONS)
            return Reply(
                payload=embedding_list(
                    [embed(text, dimensions).tolist() for text in inputs],
                    model=model,
                    prompt_tokens=sum(map(count_tokens, inputs)),
                ),
                headers={},
                request_id=f"req_{number:08d}",
            )

    @asynccontextmanager
    async def _attempt(
        self, request: Request, read: Callable[[Request], object]
    ) -> AsyncIterator[tuple[object, int]]:
        # The script is read at the start, so that its order is that of sending.
        with self._script_lock:
            self.requests.append(request)
            number = next(self._numbers)
            self._in_flight += 1
            self.in_flight_peak = max(self.in_flight_peak, self._in_flight)
        try:
            line = read(request)
            seconds = self._latency_s(request) if callable(self._latency_s) else self._latency_s
            if seconds:
                await self.clock.sleep(seconds)
            if inspect.isawaitable(line):
                line = await line
            yield line, number
        finally:
            with self._script_lock:
                self._in_flight -= 1

    async def _parts(
        self, request: Request, line: object, number: int
    ) -> AsyncGenerator[Mapping[str, object], None]:
        if not isinstance(line, list):
            payload = self._payload(request, line, number)
            for chunk in _chunks(request, payload, by_word=isinstance(line, str)):
                yield chunk
            return
        for part in line:
            match part:
                case BaseException():
                    raise part.with_traceback(None)
                case int() | float():
                    await self.clock.sleep(part)
                case _:
                    yield part

    def _payload(self, request: Request, line: object, number: int) -> object:
        match line:
            case str():
                return chat_completion(
                    {"messages": request.messages, **request.params},
                    line,
                    number=number,
                    created=int(self.clock.wall().timestamp()),
                    model=request.model or self.default_model,
                )
            case Mapping():
                return dict(line)
            case BaseException():
                # The same instance may be raised many times; its traceback would only grow.
                raise line.with_traceback(None)
            case _:
                raise TypeError(
                    f"the script of {self.name} answered with {type(line).__name__}; a text, a "
                    "dict (the whole body) or an exception is understood"
                )


class _ScriptedTransport:
    """The port between the pipeline and the script; nothing to open or close."""

    def __init__(self, engine: ScriptedGPT) -> None:
        self._engine = engine

    async def open(self) -> None:
        """Do nothing: there is no connection."""

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    async def chat(self, request: Request, *, timeout: float | None) -> Reply:
        """Ask the script; the pipeline bounds the time."""
        del timeout
        return await self._engine.answer(request)

    def stream(
        self, request: Request, *, timeout: float | None
    ) -> AbstractAsyncContextManager[Stream]:
        """Ask the script for an answer in parts."""
        del timeout
        return self._engine.stream(request)

    async def embed(
        self,
        model: str,
        inputs: Sequence[str],
        params: Mapping[str, object],
        *,
        timeout: float | None,
    ) -> Reply:
        """Embed texts as the engine does."""
        del timeout
        return await self._engine.embed(model, inputs, params)


def _chunks(request: Request, payload: object, *, by_word: bool) -> Iterator[Mapping[str, object]]:
    options = request.params.get("stream_options")
    with_usage = isinstance(options, dict) and options.get("include_usage") is True
    if isinstance(payload, dict) and by_word:
        return chat_chunks(payload, include_usage=with_usage)
    if isinstance(payload, dict) and isinstance(payload.get("choices"), list):
        return replay(payload, with_usage=with_usage)
    return iter([payload])  # type: ignore[list-item]  # as malformed as the script wants it


def _reader(reply: Script | None) -> Callable[[Request], object]:
    if reply is None:
        return lambda request: last_user_text(request.messages)
    if isinstance(reply, str | BaseException):
        return lambda _: reply
    if isinstance(reply, Mapping):
        return _by_text(reply)
    if callable(reply):
        return reply
    if isinstance(reply, Sequence):
        return _in_order(reply)
    raise TypeError(
        f"reply={type(reply).__name__} is not understood: give a text, a mapping, a sequence, "
        "an exception or a callable"
    )


def _by_text(lines: Mapping[str, object]) -> Callable[[Request], object]:
    def read(request: Request) -> object:
        text = last_user_text(request.messages)
        if text not in lines:
            raise ConfigurationError(f"the script has no answer to {_quote(text)}")
        return lines[text]

    return read


def _in_order(lines: Sequence[object]) -> Callable[[Request], object]:
    lines = tuple(lines)
    remaining = iter(lines)
    lock = threading.Lock()

    def read(request: Request) -> object:
        with lock:
            for line in remaining:
                return line
        raise ConfigurationError(
            f"the script of {len(lines)} answers is at its end, and still asked: "
            f"{_quote(last_user_text(request.messages))}"
        )

    return read


def _quote(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…")
