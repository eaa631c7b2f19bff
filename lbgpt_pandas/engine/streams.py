"""Chat answers that come in parts: `Streams.streamed_chat_completion`."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace as replaced

from lbgpt_pandas.engine.accounts import SESSION_BOOK
from lbgpt_pandas.engine.assembly import Assembly, check_chunk, replay
from lbgpt_pandas.engine.caching import Keeping
from lbgpt_pandas.engine.calls import Trail
from lbgpt_pandas.engine.completions import read_completion, to_sdk_chunk
from lbgpt_pandas.engine.embargo import check_embargo
from lbgpt_pandas.engine.errors import (
    ContentFiltered,
    IncompleteStream,
    Timeout,
)
from lbgpt_pandas.engine.pipeline import Pipeline
from lbgpt_pandas.engine.run_state import RunState
from lbgpt_pandas.engine.semantic.questions import question_of
from lbgpt_pandas.engine.stored import find_stored
from lbgpt_pandas.engine.types import Outcome, Request, Source

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from types import TracebackType
    from typing import Self

    from lbgpt_pandas.engine.assembly import Chunk
    from lbgpt_pandas.engine.caching import Caching
    from lbgpt_pandas.engine.calls import Call
    from lbgpt_pandas.engine.clock import Clock
    from lbgpt_pandas.engine.session import Session
    from lbgpt_pandas.engine.transports.base import Stream
    from lbgpt_pandas.engine.types import Completion

IDLE_TIMEOUT_S = 30.0
"""Longest wait for the next chunk, once an answer has begun."""

_END = object()


class Streams(Pipeline):
    """Streamed chat on top of the pipeline."""

    def streamed_chat_completion(self, **request: Any) -> AsyncIterator[Any]:
        """Answer one request in parts, from the cache if it is there.

        A call that fails before it has said anything is tried again. An answer that came
        whole is stored, and given again in few large chunks. Whoever stops early closes the
        iterator (``contextlib.aclosing``), which hangs up at once.

        Parameters
        ----------
        **request
            As for `chat_completion`. With ``stream_options={"include_usage": True}`` the last
            chunk has the usage and no choices. Usage is always asked for; a server that does
            not know the option is spared it by ``stream_options=None``.

        Returns
        -------
        async iterator of openai.types.chat.ChatCompletionChunk
            The end, with the finish reason, is given out once the answer is stored.

        Raises
        ------
        TypeError
            If ``messages`` are missing.
        RequestError
            From the iterator. `IncompleteStream`, after the chunks that came, if the answer
            breaks off; `Timeout` if the next chunk takes over 30 seconds, or the first one
            longer than ``request_timeout``; `ContentFiltered` at the end if the provider cut
            the answer off.
        """
        keywords = {name: value for name, value in request.items() if name != "stream"}
        return self.stream_request(Request.from_keywords(keywords), caching=self.caching())

    async def stream_request(
        self, request: Request, *, caching: Caching, run: RunState | None = None
    ) -> AsyncGenerator[Any, None]:
        """Answer one request in parts, with the caches and in the run of the caller's choice.

        Parameters
        ----------
        request : Request
            What to ask.
        caching : Caching
            Where the exact answer is looked for, and where a new one is stored.
        run : RunState, optional
            The run it belongs to, with its budget; one of its own by default.

        Yields
        ------
        openai.types.chat.ChatCompletionChunk
            As for `streamed_chat_completion`, which also says what is raised.
        """
        check_embargo(f"a stream of {self.name}")
        request = self.prepare(request)
        maker = self.key_maker(request)
        key = maker.key(request.messages, request.sample)
        options = request.params.get("stream_options", {})
        wants_usage = isinstance(options, dict) and options.get("include_usage") is True
        stored = await self._stored(request, key, caching)
        if stored is not None and stored.payload is not None:
            for chunk in replay(stored.payload, with_usage=wants_usage):
                yield to_sdk_chunk(chunk)
            return
        question = question_of(request, key, maker) if caching.semantic else None
        request = _asking_for_usage(request)
        keep = Keeping(key, caching, question)
        async with aclosing(self._live(request, keep, run or RunState())) as chunks:
            async for chunk in chunks:
                choices = chunk.get("choices")
                is_usage = not choices and bool(chunk.get("usage"))
                if isinstance(choices, list) and (wants_usage or not is_usage):
                    yield to_sdk_chunk(chunk)

    async def _stored(self, request: Request, key: str, caching: Caching) -> Completion | None:
        if caching.tier is None or not caching.reads:
            return None
        completion = await find_stored(
            caching.tier, key, messages=request.messages, repair=caching.writes
        )
        if completion is None:
            return None
        price = self.price_usd(completion)
        found = Outcome(completion, None, Source.EXACT_CACHE, key, price_usd=price)
        SESSION_BOOK.spared([(found, 1)], engine=self.name, at=self.clock.wall())
        return completion

    async def _live(
        self, request: Request, keep: Keeping, run: RunState
    ) -> AsyncGenerator[Chunk, None]:
        refusal: ContentFiltered | None = None
        async with self:
            session = self._sessions[asyncio.get_running_loop()]
            trail = Trail(run)
            answer = await self._attempts.repeat(
                session, request, trail, partial(self._begin, session, request, trail)
            )
            try:
                async with answer:
                    async with aclosing(answer.before_the_end()) as chunks:
                        async for chunk in chunks:
                            yield chunk
                    completion = answer.settle()
            except ContentFiltered as error:
                refusal = error
            else:
                self.proven.add(request.model)
                await self._store(session, request, keep, completion)
        for chunk in answer.held:
            yield chunk
        if refusal is not None:
            raise refusal

    async def _begin(self, session: Session, request: Request, trail: Trail) -> _Answer:
        async with AsyncExitStack() as resources:
            call = await resources.enter_async_context(
                self._attempts.place(session, request, trail)
            )
            answer = _Answer(call, request, trail, clock=self.clock)
            await answer.begin(resources)
            answer.keep(resources.pop_all())
        return answer


def _asking_for_usage(request: Request) -> Request:
    params = dict(request.params)
    options = params.pop("stream_options", {})
    if isinstance(options, dict):
        params["stream_options"] = {**options, "include_usage": True}
    return replaced(request, params=params)


class _Answer:
    """One call that is answered in parts.

    The chunks with the end of the answer are held back, because who has the end may not come
    back for more, and by then the answer is to be settled and stored.
    """

    def __init__(self, call: Call, request: Request, trail: Trail, *, clock: Clock) -> None:
        self.held: list[Chunk] = []
        self._call, self._request, self._trail, self._clock = call, request, trail, clock
        self._assembly = Assembly()
        self._ended = False
        self._sent_at = clock.monotonic()
        self._stream: Stream
        self._resources: AsyncExitStack

    def keep(self, resources: AsyncExitStack) -> None:
        """Take over what the end of this block will release."""
        self._resources = resources

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._resources.__aexit__(kind, error, trace)

    async def begin(self, resources: AsyncExitStack) -> None:
        """Send the request and wait for the first chunk that says something."""
        limit_s = self._call.timeout_s
        # The transport's own limit is for each read, in the middle of the answer as well.
        read_s = None if limit_s is None else max(limit_s, IDLE_TIMEOUT_S)
        stream = self._call.transport.stream(self._request, timeout=read_s)
        try:
            async with asyncio.timeout(limit_s):
                self._stream = await resources.enter_async_context(stream)
                while not (self._ended or self._assembly.says_something):
                    await self._read()
        except TimeoutError:
            raise Timeout(
                f"no answer has begun within {limit_s} s; give request_timeout= for more",
                code="attempt_timeout",
                maybe_billed=True,
            ) from None

    async def before_the_end(self) -> AsyncGenerator[Chunk, None]:
        """Yield what comes before the last finish reason; the rest is in `held` then."""
        while True:
            if not self._assembly.is_complete:
                ready, self.held = self.held, []
                for chunk in ready:
                    yield chunk
            if self._ended:
                return
            try:
                async with asyncio.timeout(IDLE_TIMEOUT_S):
                    await self._read()
            except TimeoutError:
                self._end(
                    Timeout(
                        f"the stream has said nothing for {IDLE_TIMEOUT_S:.0f} s",
                        code="idle",
                        maybe_billed=True,
                    )
                )
            except (IncompleteStream, Timeout) as error:
                self._end(error)

    async def _read(self) -> None:
        chunk = await anext(self._stream.chunks, _END)
        if chunk is _END:
            self._end(
                IncompleteStream(
                    "the stream ended before its finish reason",
                    request_id=self._stream.request_id,
                    maybe_billed=True,
                )
            )
            return
        checked = check_chunk(chunk, self._stream.headers, now=self._clock.wall())
        self._assembly.add(checked)
        self.held.append(checked)

    def _end(self, failure: IncompleteStream | Timeout) -> None:
        """Note that nothing more comes, and raise `failure` unless the answer is complete."""
        if not self._assembly.is_complete:
            raise failure
        self._ended = True

    def settle(self) -> Completion:
        """Validate the answer and end the call with it.

        Raises
        ------
        ContentFiltered
            If the provider cut the answer off.
        """
        completion = read_completion(
            self._assembly.payload(),
            messages=self._request.messages,
            deployment=self._call.deployment,
            request_id=self._stream.request_id,
        )
        self._trail.latency_s = self._clock.monotonic() - self._sent_at
        self._call.settle(completion.tokens, self._stream.headers, model=completion.model)
        return completion
