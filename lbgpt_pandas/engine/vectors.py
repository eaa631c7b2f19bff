"""What goes into a call for embeddings, and what comes out of it; pure functions."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from lbgpt_pandas.engine.errors import InvalidInput, MalformedResponse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST_INPUTS = 512
"""Texts in one call. Providers take 2,048; so many vectors take a second to read."""

_BYTES_PER_TOKEN = 3
_TOKENS_PER_TEXT = 4


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
        size = len(text.encode()) // _BYTES_PER_TOKEN + _TOKENS_PER_TEXT
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
    if all(is_vector(vector) or (vector and isinstance(vector, str)) for vector in vectors):
        return None
    return "the answer has an embedding that is no list of numbers"


def is_vector(value: object) -> bool:
    """Tell whether a value is a list of numbers, not empty."""
    return isinstance(value, list) and bool(value) and set(map(type, value)) <= {float, int}
