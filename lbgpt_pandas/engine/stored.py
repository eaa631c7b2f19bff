"""Stored answers read in one go, without objects of what a column does not hold.

A cached column is read as fast as its answers are parsed. Of an answer as providers give it only
what a `Completion` holds is made; any other is left to `read_completion`, which knows what is
wrong with it, or what is right in spite of it.
"""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING, Any

from msgspec import MsgspecError, Struct
from msgspec.json import Decoder

from lbgpt_pandas.engine.caches.envelope import CorruptEntry, load, opened
from lbgpt_pandas.engine.completions import MAX_PLAUSIBLE_TOKENS as MOST_TOKENS
from lbgpt_pandas.engine.completions import counted, read_completion
from lbgpt_pandas.engine.errors import RequestError
from lbgpt_pandas.engine.types import Completion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lbgpt_pandas.engine.caches.standard import StandardTier
    from lbgpt_pandas.engine.types import Message


def read_stored(key: str, text: str) -> Completion | dict[str, object]:
    """Open an envelope.

    Parameters
    ----------
    key : str
        What it was stored under.
    text : str
        The envelope.

    Returns
    -------
    Completion or dict
        What `read_completion` makes of the answer without its payload; or the answer itself
        where that is for `read_completion` to say.

    Raises
    ------
    CorruptEntry
        If version, checksum or key differ.
    """
    raw = opened(key, text)
    completion = _read(raw)
    if completion is not None:
        return completion
    payload = load(raw)
    if not isinstance(payload, dict):
        raise CorruptEntry("the entry holds no answer")
    return payload


async def find_stored(
    tier: StandardTier,
    key: str,
    *,
    messages: Sequence[Message],
    counts: bool = True,
    repair: bool = True,
) -> Completion | None:
    """Return the whole stored answer to a single request; None if there is none to be used.

    Parameters
    ----------
    tier : StandardTier
        Where to look.
    key : str
        The request's key.
    messages : sequence of dict
        Its messages.
    counts : bool, default True
        Whether this is a hit or a miss.
    repair : bool, default True
        Whether what is damaged is removed.
    """
    payload = (await tier.find([key], counts=counts, repair=repair)).get(key)
    if payload is None:
        return None
    try:
        return read_completion(payload, messages=messages, deployment="")
    except RequestError:
        return None  # stored by something that accepted more than this version does


class _Details(Struct, gc=False):
    cached_tokens: int = 0


class _Usage(Struct, gc=False):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _Details | None = None


class _Message(Struct, gc=False):
    content: str
    tool_calls: Any = None
    function_call: Any = None


class _Choice(Struct, gc=False):
    message: _Message
    finish_reason: str | None = None


class _Answer(Struct, gc=False):
    choices: list[_Choice]
    usage: _Usage
    model: str


_decode = Decoder(_Answer).decode


def _read(raw: bytes) -> Completion | None:
    """Read a usual answer; None for any other."""
    try:
        answer = _decode(raw)
    except MsgspecError:
        return None
    if len(answer.choices) != 1:
        return None
    first, usage = answer.choices[0], answer.usage
    if first.finish_reason == "content_filter":
        return None
    if first.message.tool_calls or first.message.function_call:
        return None
    prompt, completion, cached = usage.prompt_tokens, usage.completion_tokens, 0
    if usage.prompt_tokens_details is not None:
        cached = usage.prompt_tokens_details.cached_tokens
    if min(prompt, completion, cached) < 0 or prompt + completion + cached > MOST_TOKENS:
        return None
    tokens = counted(prompt, completion, cached)
    # One object for all rows: a long column of answers has few different ones of these.
    model, reason = intern(answer.model), first.finish_reason
    reason = reason if reason is None else intern(reason)
    return Completion(None, first.message.content, reason, model, tokens, "")
