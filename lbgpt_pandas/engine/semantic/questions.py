"""From a request to the question that a near answer may be given to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

from lbgpt_pandas.engine.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lbgpt_pandas.engine.keys import KeyMaker
    from lbgpt_pandas.engine.types import Message, Request

Encoding = Literal["user_only", "all", "system_only"]

ENCODING_OPTION = "semantic_cache_encoding_method"

FRAME_OPTION = "semantic_frame"
"""Option of requests that were rendered: the fixed texts before and after the row's values."""

_EMBEDDED = "lbgpt:embedded"
_OPENING_ROLES = frozenset({"system", "developer"})


@dataclass(frozen=True, slots=True)
class Question:
    """A request as the semantic tier sees it.

    Attributes
    ----------
    key : str
        Its cache key.
    scope : str
        Digest of all that another request must have in common with it.
    text : str
        What is embedded and compared.
    """

    key: str
    scope: str
    text: str


def question_of(request: Request, key: str, maker: KeyMaker) -> Question | None:
    """Divide a request into what may differ a little and what must not differ at all.

    The text to embed is the user's (``"user_only"``), without what a template puts around each
    row's values; or that of all messages (``"all"``); or the system's (``"system_only"``). What
    is not embedded is in the scope, and the system messages always are, except where they alone
    are embedded.

    Parameters
    ----------
    request : Request
        The request as it is sent.
    key : str
        Its cache key.
    maker : KeyMaker
        What made it: model, family and parameters are in the scope by it.

    Returns
    -------
    Question or None
        None if there is nothing to compare: an empty text, a conversation of several turns,
        parts that are no texts, an independent sample.

    Raises
    ------
    InvalidInput
        If ``semantic_cache_encoding_method`` is none.
    """
    encoding = _encoding(request)
    messages = request.messages
    if request.sample or not _is_single_turn(messages):
        return None
    texts = [_text(message) for message in messages]
    if None in texts:
        return None
    opening, asked = cast("list[str]", texts[:-1]), cast("str", texts[-1])
    before, after = cast("tuple[str, str]", request.options.get(FRAME_OPTION, ("", "")))
    match encoding:
        case "user_only":
            is_framed = len(asked) >= len(before) + len(after)
            is_framed = is_framed and asked.startswith(before) and asked.endswith(after)
            if not is_framed:
                before = after = ""
            text = asked[len(before) : len(asked) - len(after)]
            fixed = [*messages[:-1], _placeholder(messages[-1], encoding, before, after)]
        case "all":
            text = "\n".join([*opening, asked])
            fixed = [*messages[:-1], _placeholder(messages[-1], encoding)]
        case _:
            text = "\n".join(opening)
            # Where one message ends and the next begins; a single one may have any lines.
            ends = [[str(each.strip().count("\n"))] if opening[1:] else [] for each in opening]
            pairs = zip(messages[:-1], ends, strict=True)
            fixed = [*(_placeholder(each, encoding, *end) for each, end in pairs), messages[-1]]
    text = text.strip()
    return Question(key, maker.key(fixed), text) if text else None


def _encoding(request: Request) -> Encoding:
    given = request.options.get(ENCODING_OPTION)
    if given is None:
        return "user_only"
    if given not in get_args(Encoding):
        known = ", ".join(map(repr, get_args(Encoding)))
        raise InvalidInput(f"{ENCODING_OPTION}={given!r} is not one of {known}")
    return cast("Encoding", given)


def _is_single_turn(messages: Sequence[Message]) -> bool:
    return (
        bool(messages)
        and messages[-1].get("role") == "user"
        and all(message.get("role") in _OPENING_ROLES for message in messages[:-1])
    )


def _text(message: Message) -> str | None:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.keys() != {"type", "text"}:
            return None
        if part["type"] != "text" or not isinstance(part["text"], str):
            return None
        texts.append(part["text"])
    return "\n".join(texts)


def _placeholder(message: Message, *fixed: str) -> Message:
    """Return a message that tells all but the text that is embedded."""
    return {**message, "content": [_EMBEDDED, *fixed]}
