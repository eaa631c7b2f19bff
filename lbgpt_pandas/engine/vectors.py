"""What goes into a call for embeddings, and what comes out of it; pure functions."""

from __future__ import annotations

import base64
import binascii
import hashlib
import sys
from array import array
from itertools import accumulate, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from msgspec import MsgspecError, Struct
from msgspec.json import Decoder

from lbgpt_pandas.engine.caches.envelope import opened
from lbgpt_pandas.engine.errors import InvalidInput, MalformedResponse
from lbgpt_pandas.engine.types import Completion, TokenCount

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lbgpt_pandas.engine.types import Request

MOST_INPUTS = 512
"""Texts in one call. Providers take 2,048; so many vectors take a second to read."""

_BYTES_PER_TOKEN = 3
_TOKENS_PER_TEXT = 4

WRONG_COUNT, WRONG_LENGTH = "wrong_count", "wrong_length"
"""Codes of answers with too few vectors, and with vectors of another length than was asked for."""

_SINGLE = "f"
_LARGEST = 3e38
_IS_LITTLE = sys.byteorder == "little"


class Embedding(Completion, frozen=True, gc=False, kw_only=True):
    """A text's vector; of the call that several texts shared it has its part of the tokens.

    Attributes
    ----------
    vector : array of float
        Numbers of 32 bits, of which ``numpy.asarray`` makes an array without a copy.
    """

    vector: array[float]

    def is_same_answer(self, other: Completion) -> bool:
        """Tell whether the two are the same vector."""
        return isinstance(other, Embedding) and self.vector == other.vector


class _Stored(Struct, gc=False):
    embedding: list[float] | str
    model: str = ""
    tokens: int | None = None


_decode = Decoder(_Stored).decode


def text_of(request: Request) -> str:
    """Return the text that a request wants embedded.

    Raises
    ------
    InvalidInput
        If it has none: it is empty, nothing but white space, or chat messages.
    """
    content = request.messages[0].get("content") if len(request.messages) == 1 else None
    if not isinstance(content, str):
        raise InvalidInput("chat messages have no embedding; let the template give a text")
    if not content or content.isspace():
        raise InvalidInput(
            "the text is empty and has no embedding; leave such rows out, or make them NA",
            code="empty_text",
        )
    return content


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Divide whole tokens among texts by weight, so that they add up.

    Examples
    --------
    >>> shares(10, [1, 1, 1])
    [3, 3, 4]
    """
    whole = sum(weights)
    if not whole:
        return [total, *[0] * (len(weights) - 1)]
    ends = [total * part // whole for part in accumulate(weights, initial=0)]
    return [stop - start for start, stop in pairwise(ends)]


def weight(text: str) -> int:
    """Tokens of a text by its bytes, rather too many."""
    return len(text.encode()) // _BYTES_PER_TOKEN + _TOKENS_PER_TEXT


def pack(vector: Sequence[float]) -> array[float]:
    """Return numbers as those of 32 bits."""
    return array(_SINGLE, vector)


def stored_form(vector: object) -> object:
    """Return a vector as it is stored: base64 of 32-bit numbers where nothing is lost by it.

    Most providers calculate with these; as JSON a number takes four times as many letters.
    """
    if not isinstance(vector, list) or set(map(type, vector)) != {float}:
        return vector
    packed = pack(vector)
    if packed.tolist() != vector:
        return vector
    if not _IS_LITTLE:
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode()


def unpacked(stored: object) -> list[float] | None:
    """Return the numbers of a stored vector; None if it is none."""
    if isinstance(stored, str):
        packed = _from_base64(stored)
        return None if packed is None else packed.tolist()
    return cast("list[float]", stored) if is_vector(stored) else None


def read_embedding(key: str, text: str) -> Embedding | None:
    """Open an envelope with a vector.

    Parameters
    ----------
    key : str
        What it was stored under.
    text : str
        The envelope.

    Returns
    -------
    Embedding or None
        None if it holds something else. Tokens are -1 where they are not known.

    Raises
    ------
    CorruptEntry
        If version, checksum or key differ.
    """
    try:
        stored = _decode(opened(key, text))
    except MsgspecError:
        return None
    given = stored.embedding
    vector = _from_base64(given) if isinstance(given, str) else pack(given)
    if not vector or not _is_finite(vector):
        return None
    tokens = TokenCount(-1 if stored.tokens is None else stored.tokens, 0)
    return Embedding(None, None, None, stored.model, tokens, "", vector=vector)


def said(answer: Completion) -> str | None:
    """Return an answer as a text: its own, or the first numbers and a digest of a vector.

    Equal vectors have equal texts.
    """
    if not isinstance(answer, Embedding):
        return answer.text
    vector = answer.vector
    first = ", ".join(f"{number:.4f}" for number in vector[:3])
    digest = hashlib.sha256(vector.tobytes()).hexdigest()[:16]
    return f"[{first}, …] ({len(vector):,} numbers, {digest})"


def _from_base64(text: str) -> array[float] | None:
    packed: array[float] = array(_SINGLE)
    try:
        packed.frombytes(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        return None
    if not _IS_LITTLE:
        packed.byteswap()
    return packed or None


def _is_finite(vector: Sequence[float]) -> bool:
    # One number that is not, or that 32 bits do not hold, shows in the sum.
    return abs(sum(vector)) < _LARGEST


def check_texts(given: object) -> list[str]:
    """Return the texts to embed.

    Raises
    ------
    InvalidInput
        If there is none, or one of them is empty or cannot be sent; with its position.
    """
    if isinstance(given, str):
        given = [given]
    try:
        texts: list[object] = list(cast("Sequence[object]", given))
    except TypeError:
        raise InvalidInput(f"input={type(given).__name__}: give a text or a list of them") from None
    if not texts:
        raise InvalidInput("there is no text to embed")
    for position, text in enumerate(texts):
        problem = None
        if not isinstance(text, str):
            problem = f"is a {type(text).__name__}, not a text"
        elif not text:
            problem = "is empty"
        elif not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                problem = "has half a surrogate pair, which cannot be sent"
        if problem:
            raise InvalidInput(f"text {position} of {len(texts)} {problem}")
    return cast("list[str]", texts)


def cut(texts: Sequence[str], *, most_tokens: float) -> Iterator[list[str]]:
    """Cut a list into what goes into one call each, in order.

    Parameters
    ----------
    texts : sequence of str
        Any number.
    most_tokens : float
        Estimated tokens of one call; a text with more goes alone.
    """
    some: list[str] = []
    tokens = 0
    for text in texts:
        size = weight(text)
        if some and (len(some) == MOST_INPUTS or tokens + size > most_tokens):
            yield some
            some, tokens = [], 0
        some.append(text)
        tokens += size
    if some:
        yield some


def read_vectors(
    payload: object, count: int, request_id: str | None
) -> tuple[list[object], str | None, object]:
    """Validate an embeddings answer; return vectors in order, the model, and the usage.

    Raises
    ------
    MalformedResponse
        If there are not `count` vectors, or one is neither numbers nor a base64 text.
    """
    data = payload.get("data") if isinstance(payload, dict) else None
    problem = _problem_of(data, count)
    if problem is not None or not isinstance(payload, dict):
        raise MalformedResponse(
            f"{problem}; the model may be none for embeddings",
            code=WRONG_COUNT if isinstance(data, list) and len(data) != count else None,
            status=200,
            request_id=request_id,
            maybe_billed=True,
        )
    items = cast("list[dict[str, Any]]", data)
    indexes = [item.get("index") for item in items]
    if all(isinstance(index, int) for index in indexes) and len(set(indexes)) == count:
        items = sorted(items, key=itemgetter("index"))
    model = payload.get("model")
    return (
        [item["embedding"] for item in items],
        model if isinstance(model, str) else None,
        payload.get("usage"),
    )


def _problem_of(data: object, count: int) -> str | None:
    if not isinstance(data, list):
        return "the answer has no list of embeddings"
    if len(data) != count:
        return f"the answer has {len(data)} embeddings for {count} texts"
    vectors = [item.get("embedding") if isinstance(item, dict) else None for item in data]
    if not all(is_vector(vector) or (vector and isinstance(vector, str)) for vector in vectors):
        return "the answer has an embedding that is no list of numbers"
    if not all(_is_finite(vector) for vector in vectors if isinstance(vector, list)):
        return "the answer has an embedding with a number that is not finite"
    return None


def is_vector(value: object) -> bool:
    """Tell whether a value is a list of numbers, not empty."""
    return isinstance(value, list) and bool(value) and set(map(type, value)) <= {float, int}
