"""From the chunks of a stream to the answer that they make up, and back."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.classification import classify_response
from lbgpt_pandas.engine.errors import IncompleteStream, MalformedResponse
from lbgpt_pandas.engine.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

Chunk = dict[str, Any]
"""A ``chat.completion.chunk`` as JSON data."""

_LONGEST_TOLD = 200
_NOT_IN_HEAD = frozenset({"choices", "usage", "object", "obfuscation"})
_OF_THE_CHOICE = frozenset({"index", "delta", "logprobs", "finish_reason"})
_NOT_ADDED_UP = frozenset({"role", "id", "type", "index"})
"""Texts that name something; all others come in pieces."""


class _Pieces(list[str]):
    """A text in pieces: adding to a string would copy it for every token."""


class Assembly:
    """An answer that is being put together.

    Examples
    --------
    >>> answer = Assembly()
    >>> for text, reason in [("Hel", None), ("lo", None), (None, "stop")]:
    ...     delta = {"content": text}
    ...     answer.add({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
    >>> answer.is_complete, answer.payload()["choices"][0]["message"]["content"]
    (True, 'Hello')
    """

    def __init__(self) -> None:
        self._head: Chunk = {}
        self._usage: object = None
        self._choices: dict[int, Chunk] = {}
        self._says_something = False

    @property
    def is_complete(self) -> bool:
        """Whether every choice that has begun has its finish reason, and one has begun."""
        return bool(self._choices) and all(
            choice["finish_reason"] for choice in self._choices.values()
        )

    @property
    def says_something(self) -> bool:
        """Whether there is more so far than the announcement of an answer."""
        return self._says_something

    def add(self, chunk: Mapping[str, object]) -> None:
        """Add what a chunk says; of each choice the first finish reason counts.

        Raises
        ------
        MalformedResponse
            If a choice is no object.
        """
        for name, value in chunk.items():
            if name not in _NOT_IN_HEAD and value and name not in self._head:
                self._head[name] = deepcopy(value)
        self._usage = chunk.get("usage") or self._usage
        choices = chunk.get("choices")
        for number, part in enumerate(choices if isinstance(choices, list) else ()):
            if not isinstance(part, dict):
                raise MalformedResponse(
                    f"a choice in the stream is a JSON {type(part).__name__}, not an object",
                    maybe_billed=True,
                )
            index = part.get("index")
            self._add_choice(part, index if isinstance(index, int) else number)

    def _add_choice(self, part: Chunk, index: int) -> None:
        if index not in self._choices:
            self._choices[index] = {
                "index": index,
                "message": {"role": "assistant", "content": None},
                "logprobs": None,
                "finish_reason": None,
            }
        choice = self._choices[index]
        delta = part.get("delta")
        if isinstance(delta, dict):
            _merge(choice["message"], delta)
            self._says_something |= any(
                value for name, value in delta.items() if name not in _NOT_ADDED_UP
            )
        rest = {name: value for name, value in part.items() if name not in _OF_THE_CHOICE}
        choice.update(deepcopy(rest))
        logprobs = part.get("logprobs")
        if isinstance(logprobs, dict):
            choice["logprobs"] = choice["logprobs"] or {}
            _merge(choice["logprobs"], logprobs)
        choice["finish_reason"] = choice["finish_reason"] or part.get("finish_reason")
        self._says_something |= bool(choice["finish_reason"])

    def payload(self) -> dict[str, object]:
        """Return the answer so far as a ``chat.completion`` object."""
        choices = sorted(self._choices.values(), key=_number)
        payload: dict[str, object] = {
            **self._head,
            "object": "chat.completion",
            "choices": [_whole(choice) for choice in choices],
        }
        if self._usage:
            payload["usage"] = deepcopy(self._usage)
        return payload


def check_chunk(chunk: object, headers: Mapping[str, str], *, now: datetime) -> Chunk:
    """Return a chunk that carries no error.

    Parameters
    ----------
    chunk : object
        JSON of an event.
    headers : mapping of str to str
        Of the response, for a ``retry-after``.
    now : datetime
        The present, with a time zone.

    Raises
    ------
    RequestError
        What the error inside stands for; `IncompleteStream` if that is not known.
    MalformedResponse
        If it is no object.
    """
    if not isinstance(chunk, dict):
        raise MalformedResponse(
            f"an event of the stream is a JSON {type(chunk).__name__}, not an object",
            maybe_billed=True,
        )
    error = chunk.get("error")
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("finish_reason") == "error":
            error = error or choice.get("error") or "it gave no reason"
    if not error:
        return chunk
    failure = classify_response(200, {"error": error}, headers, now=now)
    if isinstance(failure, MalformedResponse):
        told = error.get("message") if isinstance(error, dict) else error
        failure = IncompleteStream(
            f"the provider ended the stream with an error: {_printable(redact(str(told)))}",
            code=failure.code,
            request_id=failure.request_id,
        )
    failure.maybe_billed = True
    raise failure


def _printable(text: str) -> str:
    line = "".join(character if character.isprintable() else " " for character in text)
    return line if len(line) <= _LONGEST_TOLD else line[:_LONGEST_TOLD] + "…"


def replay(payload: Mapping[str, Any], *, with_usage: bool) -> Iterator[Chunk]:
    """Cut a ``chat.completion`` into chunks: two for each choice, the text and its end.

    Parameters
    ----------
    payload : mapping
        The answer.
    with_usage : bool
        End with a chunk without choices that has the usage, if the answer has one.
    """
    head = {name: value for name, value in payload.items() if name not in _NOT_IN_HEAD}
    head["object"] = "chat.completion.chunk"
    for number, choice in enumerate(payload["choices"]):
        rest = {name: value for name, value in choice.items() if name not in _OF_THE_CHOICE}
        delta = rest.pop("message")
        calls = delta.get("tool_calls")
        if isinstance(calls, list) and all(isinstance(call, dict) for call in calls):
            numbered = [{"index": at, **call} for at, call in enumerate(calls)]
            delta = {**delta, "tool_calls": numbered}
        part = {"index": choice.get("index", number), "logprobs": choice.get("logprobs"), **rest}
        yield {**head, "choices": [{**part, "delta": delta, "finish_reason": None}]}
        end = {**part, "logprobs": None, "finish_reason": choice.get("finish_reason")}
        yield {**head, "choices": [{**end, "delta": {}}]}
    if with_usage and payload.get("usage"):
        yield {**head, "choices": [], "usage": payload["usage"]}


def _merge(into: Chunk, delta: Mapping[str, object]) -> None:
    for name, value in delta.items():
        old = into.get(name)
        if value is None or (name in _NOT_ADDED_UP and not value):
            into.setdefault(name, value)
        elif name == "tool_calls" and isinstance(value, list):
            into[name] = calls = old if isinstance(old, list) else []
            _merge_calls(calls, value)
        elif isinstance(value, str) and name not in _NOT_ADDED_UP:
            into[name] = _with_text(old, value, once=name == "name")
        elif isinstance(value, dict):
            into[name] = inner = old if isinstance(old, dict) else {}
            _merge(inner, value)
        elif isinstance(value, list):
            into[name] = [*_as_parts(old), *deepcopy(value)]
        else:
            into[name] = value


def _with_text(old: object, text: str, *, once: bool) -> object:
    if isinstance(old, _Pieces):
        # Some servers say the name of a function with each piece of its arguments.
        if not (once and "".join(old) == text):
            old.append(text)
        return old
    if isinstance(old, list):
        return [*old, {"type": "text", "text": text}]
    return _Pieces([text])


def _as_parts(old: object) -> list[object]:
    """Content that began as a text and goes on in parts, or the other way round."""
    if isinstance(old, _Pieces):
        text = "".join(old)
        return [{"type": "text", "text": text}] if text else []
    return old if isinstance(old, list) else []


def _merge_calls(calls: list[Chunk], deltas: list[object]) -> None:
    for delta in deltas:
        if not isinstance(delta, dict):
            continue
        number, name = delta.get("index"), delta.get("id")
        call = next((c for c in reversed(calls) if c.get("index") == number), None)
        # Parallel calls that all have the index 0 are told apart by their ids.
        if call is None or (name and call.get("id") and call["id"] != name):
            call = {"index": number}
            calls.append(call)
        _merge(call, delta)


def _whole(value: Any) -> Any:
    match value:
        case _Pieces():
            return "".join(value)
        case dict():
            finished = {name: _whole(item) for name, item in value.items()}
            if isinstance(finished.get("tool_calls"), list):
                calls = sorted(finished["tool_calls"], key=_number)
                finished["tool_calls"] = [
                    {name: item for name, item in call.items() if name != "index"} for call in calls
                ]
            return finished
        case list():
            return [_whole(item) for item in value]
    return value


def _number(item: Mapping[str, object]) -> int:
    index = item.get("index")
    return index if isinstance(index, int) else 0
