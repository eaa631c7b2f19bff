"""Texts to vectors: one call, each text from the cache, or many texts of a run in one call."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.accounts import SESSION_BOOK
from lbgpt_pandas.engine.caching import Caching
from lbgpt_pandas.engine.calls import Trail
from lbgpt_pandas.engine.completions import read_tokens
from lbgpt_pandas.engine.embargo import check_embargo
from lbgpt_pandas.engine.embedding_jobs import EmbeddingJob, Entry, outcomes_of
from lbgpt_pandas.engine.errors import InvalidInput, RequestError, Timeout
from lbgpt_pandas.engine.flights import Withdrawn
from lbgpt_pandas.engine.keys import KeyMaker
from lbgpt_pandas.engine.pipeline import Pipeline
from lbgpt_pandas.engine.run_state import RunState
from lbgpt_pandas.engine.vectors import MOST_INPUTS, cut, read_vectors, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lbgpt_pandas.engine.session import Session
    from lbgpt_pandas.engine.types import Outcome, Request

MOST_TOKENS = 200_000
"""Estimated tokens in one call; OpenAI takes 300,000."""

SHARE_OF_A_MINUTE = 8
"""A call takes no more than this part of a minute's tokens, so that calls fill the minute."""

LOOKUP_SIZE = 2_000


class Embeddings(Pipeline):
    """Embeddings on top of the pipeline."""

    most_inputs = MOST_INPUTS
    """Texts in one call of `afetch_embeddings`."""

    async def embedding(
        self,
        model: str,
        *,
        input: str | Sequence[str],  # noqa: A002  # the provider's name for it
        **params: Any,
    ) -> Any:
        """Embed texts in one call, without cache and without retry.

        Parameters
        ----------
        model : str
            The embedding model.
        input : str or sequence of str
            One text or several; how many in one call is the provider's to say.
        **params
            Whatever else the provider takes, such as ``dimensions``.

        Returns
        -------
        EmbeddingResponseAddition
            Its ``data`` are in the order of `input`.

        Raises
        ------
        InvalidInput
            If there is no text, or one is empty or no text; with its position.
        RequestError
            If the call failed.
        """
        check_embargo(f"{self.name}.embedding()")
        job = EmbeddingJob.of(model, input, params)
        async with self:
            session = self._sessions[asyncio.get_running_loop()]
            vectors = await self._embed(session, job, job.texts, Trail())
        return self._response(job, vectors)

    async def cached_embedding(
        self,
        model: str,
        *,
        input: str | Sequence[str],  # noqa: A002  # the provider's name for it
        **params: Any,
    ) -> Any:
        """Embed texts, each from the cache if it is there; ask for the others with retries.

        Equal texts are asked for once. Long lists are sent in several calls at once; what
        they brought is stored, also if another one of them fails.

        Parameters
        ----------
        model : str
            The embedding model.
        input : str or sequence of str
            One text or any number of them.
        **params
            Whatever else the provider takes, such as ``dimensions``. Vectors are always
            asked for as numbers.

        Returns
        -------
        EmbeddingResponseAddition
            Its ``data`` are in the order of `input`, each with ``is_cached``.

        Raises
        ------
        InvalidInput
            If there is no text, or one is empty or no text (with its position), or
            ``encoding_format`` is not ``"float"``.
        RequestError
            The first call that failed for good.
        """
        if params.pop("encoding_format", "float") != "float":
            raise InvalidInput("cached_embedding gives numbers; leave encoding_format= out")
        check_embargo(f"{self.name}.cached_embedding()")
        return await self.embed_for_run(model, input, **params)

    async def embed_for_run(self, model: str, texts: str | Sequence[str], **params: Any) -> Any:
        """Embed what a run under way needs; as `cached_embedding`."""
        job = EmbeddingJob.of(model, texts, params)
        job.caching = Caching.of(self.tier, "use")
        await self._look_up(job)
        missing = [text for text in job.keys if text not in job.vectors]
        if missing:
            async with self:
                await self._fetch(job, missing)
        if job.cached:
            self._note_saving(job)
        return self._response(job, [job.vectors[text] for text in job.texts])

    async def _look_up(self, job: EmbeddingJob) -> None:
        """Make the keys of all texts, each once, and take what is stored."""
        tier, shared = job.caching.tier, job.shared
        maker = self.embedding_maker(shared)
        different = list(dict.fromkeys(job.texts))
        for start in range(0, len(different), LOOKUP_SIZE):
            keys = {text: maker.key(text) for text in different[start : start + LOOKUP_SIZE]}
            job.keys |= keys
            stored = {} if tier is None else await tier.find(list(keys.values()))
            for text, key in keys.items():
                payload = stored.get(key, {})
                vector = unpacked(payload.get("embedding"))
                if vector is not None:
                    job.vectors[text] = vector
                    job.cached.add(text)
                    job.said_model = str(payload.get("model") or job.model)
            await asyncio.sleep(0)

    async def _fetch(self, job: EmbeddingJob, texts: Sequence[str]) -> None:
        """Ask for `texts` and store their vectors; raise the first failure at the end."""
        session = self._sessions[asyncio.get_running_loop()]
        slices = list(cut(texts, most_tokens=self.most_tokens()))
        waiting, run = iter(slices), RunState()
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(len(slices), self.max_parallel_calls)):
                    workers.create_task(self._work(session, job, waiting, run))
        except BaseExceptionGroup as group:
            # Only a defect gets here: a request's failure is noted in the job.
            raise group.exceptions[0] from None
        await job.caching.flush()
        if job.error is not None:
            raise job.error

    async def _work(
        self, session: Session, job: EmbeddingJob, waiting: Iterator[list[str]], run: RunState
    ) -> None:
        for texts in waiting:
            if run.stopped:
                return
            trail = Trail(run)
            try:
                vectors = await self._attempts.repeat(
                    session,
                    job.counted(texts),
                    trail,
                    partial(self._embed, session, job, texts, trail),
                )
            except Withdrawn:
                return
            except RequestError as error:
                job.error = job.error or error
                run.stop()
                return
            job.vectors |= dict(zip(texts, vectors, strict=True))
            entries = [Entry(job.keys[text], job.vectors[text], None) for text in texts]
            await self._keep(session, job, entries)

    async def _embed(
        self, session: Session, job: EmbeddingJob, texts: Sequence[str], trail: Trail
    ) -> list[object]:
        """Make one call; return the vectors in the order of `texts`."""
        counted = job.counted(texts)
        async with self._attempts.place(session, counted, trail) as call:
            sent_at = self.clock.monotonic()
            job.attempts += 1
            seconds = call.timeout_s
            try:
                async with asyncio.timeout(seconds):
                    reply = await call.transport.embed(
                        job.model, texts, job.params, timeout=seconds
                    )
            except TimeoutError:
                raise Timeout(
                    f"no complete answer within {seconds} s; give request_timeout= for more",
                    code="attempt_timeout",
                    maybe_billed=True,
                ) from None
            vectors, model, usage = read_vectors(reply.payload, len(texts), reply.request_id)
            tokens = read_tokens(usage, messages=counted.messages, text=None)
            trail.latency_s = self.clock.monotonic() - sent_at
            call.settle(tokens, reply.headers, model=model or job.model)
        job.said_model = model or job.said_model
        job.tokens += tokens.total
        job.deployment = call.deployment
        job.latency_s = max(job.latency_s, trail.latency_s)
        return vectors

    async def afetch_embeddings(
        self,
        requests: Sequence[Request],
        *,
        keys: Sequence[str],
        caching: Caching,
        run: RunState | None = None,
    ) -> list[Outcome]:
        """Embed several texts in one call, with retries, and store them; look nothing up.

        Parameters
        ----------
        requests : sequence of Request
            Each with one text as its only message; they share parameters and options.
        keys : sequence of str
            Of each of them.
        caching : Caching
            Where to store the vectors.
        run : RunState, optional
            The run they belong to; one of its own by default.

        Returns
        -------
        list of Outcome
            In the order of `requests`, all answered by an `Embedding` or all failed alike.
            Tokens and price of the call are divided among them by length; its attempts stand
            in the first one.

        Raises
        ------
        Withdrawn, BudgetExceeded
            If the run was stopped before the call, or cannot pay for it.
        """
        job = EmbeddingJob.of_requests(requests, caching)
        trail = Trail(run or RunState())
        async with self:
            session = self._sessions[asyncio.get_running_loop()]
            attempt = partial(self._embed, session, job, job.texts, trail)
            try:
                vectors = await self._attempts.repeat(
                    session, job.counted(job.texts), trail, attempt
                )
                answers = job.embeddings(vectors)
            except RequestError as error:
                # As in `afetch`: a row's error is kept as long as the report is.
                failure = error.with_traceback(None)
                failure.__context__ = None
                return outcomes_of([None] * len(keys), keys, trail, failure)
            self.proven.add(job.model)
            tokens = [each.tokens.prompt for each in answers]
            await self._keep(session, job, list(map(Entry, keys, vectors, tokens)))
        return outcomes_of(answers, keys, trail, None)

    async def _keep(self, session: Session, job: EmbeddingJob, entries: Sequence[Entry]) -> None:
        tier, family = job.caching.tier, self.family_of(job.shared)
        if tier is None or not job.caching.writes:
            return

        async def save() -> None:
            # Together, so that a store on disk writes them in few transactions.
            await asyncio.gather(
                *(
                    tier.save(
                        entry.key,
                        family=family,
                        model=job.model,
                        payload=entry.payload(job.answered_by),
                        replace=job.caching.replaces,
                    )
                    for entry in entries
                )
            )

        try:
            await save()
        except asyncio.CancelledError:
            # The vectors are paid for: an interrupt may end the call, not the write.
            session.finish_later(save())
            raise

    def embedding_maker(self, request: Request) -> KeyMaker:
        """Return the maker of keys for texts with these parameters and options."""
        return KeyMaker.for_request(request, family=self.family_of(request), kind="embedding")

    def most_tokens(self) -> float:
        """Estimated tokens in one call for embeddings."""
        limits = [deployment.quota.limit("tokens") for deployment in self.deployments()]
        shares = [limit / SHARE_OF_A_MINUTE for limit in limits if limit]
        return min([MOST_TOKENS, *shares])

    def _note_saving(self, job: EmbeddingJob) -> None:
        """Enter what the call for the stored texts would have cost."""
        counted = job.counted(list(job.cached))
        tokens = read_tokens(None, messages=counted.messages, text=None)
        model = job.answered_by
        price = self.price_of_tokens(model, tokens)
        SESSION_BOOK.saved(self.name, model, tokens, price, at=self.clock.wall())

    def _response(self, job: EmbeddingJob, vectors: Sequence[object]) -> Any:
        from lbgpt_pandas.engine.sdk_types import embedding_response  # noqa: PLC0415  # openai

        return embedding_response(
            vectors,
            cached=[text in job.cached for text in job.texts],
            model=job.answered_by,
            prompt_tokens=job.tokens,
            model_class=type(self).__name__,
            deployment=job.deployment,
            attempts=job.attempts,
            latency_s=job.latency_s,
        )
