"""Vectors of questions: made together, or one by one where that fails; kept until an answer."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeAlias

from lbgpt_pandas.engine.errors import ConfigurationError, MissingExtraError
from lbgpt_pandas.engine.lifetime import renew_after_fork
from lbgpt_pandas.engine.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from lbgpt_pandas.engine.semantic.base import SemanticCache
    from lbgpt_pandas.engine.semantic.questions import Question

KEPT_VECTORS = 20_000
"""Vectors of unanswered questions that wait for their answers; 30 MB of 384 dimensions."""

TEXTS_A_GROUP = 512
"""Most texts that are embedded together when answers are stored."""

HOPELESS = 3
"""Texts in a row that cannot be embedded, after which it is the embedder that cannot."""

_LONGEST_REASON = 200


class TextVectors:
    """Asks an embedder, and forgives it single texts.

    Parameters
    ----------
    cache : SemanticCache
        Whose embedder it is.
    tell : callable
        Gets a topic and what there is to tell.
    """

    def __init__(self, cache: SemanticCache, *, tell: Callable[[str, str], None]) -> None:
        self._cache, self._tell = cache, tell
        self._kept: OrderedDict[str, tuple[str, NDArray[np.float32]]] = OrderedDict()
        self._failures = 0
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may have held, and wait for nothing."""
        self._lock = threading.Lock()
        self._waiting: dict[object, list[_Waiting]] = {}
        self._rounds: dict[object, asyncio.Task[None]] = {}

    @property
    def is_hopeless(self) -> bool:
        """Whether so many texts in a row failed that no other will do better."""
        return self._failures >= HOPELESS

    async def of(
        self, questions: Sequence[Question], engine: Any
    ) -> tuple[list[Question], NDArray[np.float32]]:
        """Embed questions; return those that can be, and their vectors.

        Raises
        ------
        Exception
            What the embedder raises, if it embeds none.
        """
        try:
            vectors = await self._embed([question.text for question in questions], engine)
        except (ConfigurationError, MissingExtraError):
            raise
        except Exception:  # the embedder is anybody's code
            if len(questions) == 1:
                raise
        else:
            return list(questions), vectors
        return await self._one_by_one(questions, engine)

    async def of_one(self, question: Question, engine: Any) -> NDArray[np.float32]:
        """Take the vector that was kept for a question, or embed it."""
        with self._lock:
            text, vector = self._kept.pop(question.key, ("", None))
        if vector is None or text != question.text:
            vector = await self._with_others(question.text, engine)
        return vector

    async def _with_others(self, text: str, engine: Any) -> NDArray[np.float32]:
        """Embed a text together with those that come while another group is embedded."""
        loop = asyncio.get_running_loop()
        whose = loop, engine
        future: asyncio.Future[NDArray[np.float32]] = loop.create_future()
        self._waiting.setdefault(whose, []).append((text, future))
        if whose not in self._rounds:
            self._rounds[whose] = loop.create_task(self._embed_waiting(whose, engine))
        return await future

    async def _embed_waiting(self, whose: object, engine: Any) -> None:
        try:
            while waiting := self._waiting.pop(whose, []):
                for start in range(0, len(waiting), TEXTS_A_GROUP):
                    await self._embed_group(waiting[start : start + TEXTS_A_GROUP], engine)
        finally:
            self._rounds.pop(whose, None)

    async def _embed_group(self, group: list[_Waiting], engine: Any) -> None:
        group = [(text, future) for text, future in group if not future.done()]
        if not group:
            return
        try:
            vectors = await self._embed([text for text, _ in group], engine)
            pairs = list(zip(group, vectors, strict=True))
        except Exception as error:  # noqa: BLE001  # the embedder is anybody's code
            if len(group) > 1:
                for one in group:
                    await self._embed_group([one], engine)
            elif not group[0][1].done():
                group[0][1].set_exception(error)
            return
        for (_, future), vector in pairs:
            if not future.done():
                future.set_result(vector)

    def keep(self, question: Question, vector: NDArray[np.float32]) -> None:
        """Keep a vector until its question has been answered."""
        with self._lock:
            self._kept[question.key] = question.text, vector
            while len(self._kept) > KEPT_VECTORS:
                self._kept.popitem(last=False)

    async def _one_by_one(
        self, questions: Sequence[Question], engine: Any
    ) -> tuple[list[Question], NDArray[np.float32]]:
        import numpy as np  # noqa: PLC0415  # heavy

        embedded: list[Question] = []
        vectors: list[NDArray[np.float32]] = []
        for question in questions:
            try:
                [vector] = await self._embed([question.text], engine)
            except (ConfigurationError, MissingExtraError):
                raise
            except Exception as error:  # the embedder is anybody's code
                if self.is_hopeless and not embedded:
                    raise
                self._tell("text", f"a text cannot be embedded: {reason_of(error)}")
            else:
                embedded.append(question)
                vectors.append(vector)
        return embedded, np.array(vectors, dtype=np.float32)

    async def _embed(self, texts: list[str], engine: Any) -> NDArray[np.float32]:
        try:
            vectors = await self._cache.embedder.embed(texts, engine=engine)
        except (ConfigurationError, MissingExtraError):
            raise
        except Exception:
            self._failures += len(texts) == 1
            raise
        self._failures = 0
        return vectors


_Waiting: TypeAlias = "tuple[str, asyncio.Future[NDArray[np.float32]]]"


def reason_of(error: Exception) -> str:
    """What an error says, short and without keys."""
    return redact(f"{type(error).__name__}: {error}")[:_LONGEST_REASON]
