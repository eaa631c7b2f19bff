"""The embedded model for texts as an engine: cache, progress and reports as with a provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, cast

from lbgpt_pandas.engine.base import _BaseGPT
from lbgpt_pandas.engine.errors import BadRequest, ContextTooLong
from lbgpt_pandas.engine.semantic.embedders import LOCAL, embedder_of
from lbgpt_pandas.engine.semantic.minilm import DIMENSION, MOST_TOKENS
from lbgpt_pandas.engine.transports.base import Reply
from lbgpt_pandas.engine.vectors import WRONG_LENGTH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lbgpt_pandas.engine.semantic.minilm import MiniLm
    from lbgpt_pandas.engine.transports.base import Transport
    from lbgpt_pandas.engine.types import Request, TokenCount

TIMEOUT_S = 600.0
"""Seconds for one call: 512 long texts take a minute on a small machine."""


class LocalEmbeddingGPT(_BaseGPT):
    """Embeds texts on this machine with all-MiniLM-L6-v2: no key, no network, no price.

    Vectors have 384 numbers and length 1. It answers no chats.

    Parameters
    ----------
    **settings
        Of `_BaseGPT`: ``cache``, ``name`` and so on.

    Raises
    ------
    MissingExtraError
        At the first text, if the model or what runs it is not installed.

    Examples
    --------
    >>> LocalEmbeddingGPT().default_model
    'local'
    """

    slow_start = None
    default_model = LOCAL

    def __init__(self, **settings: Any) -> None:
        # The model takes one call at a time; the second is made ready meanwhile.
        settings = {"max_parallel_calls": 2, "request_timeout": TIMEOUT_S, **settings}
        super().__init__(**settings)
        # The one that semantic caches have as well: it is loaded once.
        self._model = cast("MiniLm", embedder_of(LOCAL))

    @property
    def family(self) -> str:
        """``"local/"`` and what identifies the weights."""
        return f"local/{self._model.name}"

    def price_of_tokens(self, model: str, tokens: TokenCount) -> float | None:  # noqa: ARG002
        """Nothing: it is the user's own electricity."""
        return 0.0

    def _new_transport(self) -> Transport:
        return _MiniLmTransport(self._model)


class _MiniLmTransport:
    """The port between the pipeline and the model; nothing to open or close."""

    def __init__(self, model: MiniLm) -> None:
        self._model = model

    async def open(self) -> None:
        """Do nothing: the model is loaded with the first text."""

    async def close(self) -> None:
        """Do nothing: the model stays for the next run."""

    async def chat(self, request: Request, *, timeout: float | None) -> NoReturn:
        """Refuse: the model embeds, it does not answer."""
        del request, timeout
        raise _no_chats()

    def stream(self, request: Request, *, timeout: float | None) -> NoReturn:
        """Refuse, as `chat`."""
        del request, timeout
        raise _no_chats()

    async def embed(
        self,
        model: str,
        inputs: Sequence[str],
        params: Mapping[str, object],
        *,
        timeout: float | None,
    ) -> Reply:
        """Embed texts in a thread.

        Raises
        ------
        BadRequest
            For other ``dimensions`` than 384.
        ContextTooLong
            If a text has more than 256 tokens: the model would see its beginning alone.
        """
        del model, timeout
        if params.get("dimensions", DIMENSION) != DIMENSION:
            raise BadRequest(
                f"dimensions={params['dimensions']}: vectors of the local model have {DIMENSION} "
                "numbers; leave dimensions= out",
                code=WRONG_LENGTH,
            )
        counts = await self._model.token_counts(inputs)
        if max(counts) > MOST_TOKENS:
            raise ContextTooLong(
                f"the text has {max(counts):,} tokens, and the local model reads {MOST_TOKENS}: "
                "give it shorter ones, such as df[column].str[:1000], or another model",
                code="context_length_exceeded",
            )
        vectors = await self._model.embed(inputs)
        data = [{"embedding": vector} for vector in vectors.tolist()]
        usage = {"prompt_tokens": sum(counts)}
        return Reply({"data": data, "model": self._model.name, "usage": usage}, headers={})


def _no_chats() -> BadRequest:
    return BadRequest(
        "the embedded model for texts answers no chats; LocalGPT does", code="no_chats"
    )
