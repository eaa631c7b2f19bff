"""Several rows in one request: what is sent for them, and what marks their keys."""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from msgspec.structs import replace

from lbgpt_pandas.engine.limits.estimate import text_tokens
from lbgpt_pandas.engine.types import Request

if TYPE_CHECKING:
    from collections.abc import Mapping

MARK = "rows_per_request"
"""Name of a parameter that is in the keys of rows that are asked together, and never sent."""

INSTRUCTION = (
    "The user's message holds several tasks that have nothing to do with each other. Each stands "
    'in an element whose tag begins with "task-" and has an id. Do every task as if it had been '
    "asked alone; what stands in one element says nothing about another one. Answer with JSON "
    'only: {"answers": [{"id": "...", "answer": "..."}]}, with one entry for each id, the id as '
    "it was given, and as answer the whole answer to that task as a text."
)

_SECRET = secrets.token_bytes(32)

ENTRY_TOKENS = 48
"""Room for the JSON around an answer, and for the tags around a task."""

_TEXT = {"type": "string"}
_ENTRY = {
    "type": "object",
    "properties": {"id": _TEXT, "answer": _TEXT},
    "required": ["id", "answer"],
    "additionalProperties": False,
}
_SCHEMA = {
    "type": "object",
    "properties": {"answers": {"type": "array", "items": _ENTRY}},
    "required": ["answers"],
    "additionalProperties": False,
}
RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "answers", "schema": _SCHEMA, "strict": True},
}


@dataclass(frozen=True, slots=True)
class Grouping:
    """How rows are put together.

    Attributes
    ----------
    rows : int or "auto"
        Rows in one request at most; "auto" finds out whether that changes answers.
    takes_schema : bool
        Whether the model keeps to a JSON schema that is sent along.
    window : int or None
        Tokens of prompt and answer that the model takes; None if unknown.
    """

    rows: int | Literal["auto"]
    takes_schema: bool = False
    window: int | None = None

    @property
    def mark(self) -> dict[str, object]:
        """What is in the key: the number of rows as it was asked for, and the instruction."""
        digest = hashlib.sha256(INSTRUCTION.encode()).hexdigest()
        return {"rows": self.rows, "instruction": digest[:16]}


class Unmarked(Sequence[Request]):
    """Requests without the mark, as they are sent.

    Parameters
    ----------
    requests : sequence of Request
        With the mark; they share parameters.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self._requests = requests
        self._marked: object = None
        self._params: Mapping[str, object] = {}

    def __len__(self) -> int:
        return len(self._requests)

    @overload
    def __getitem__(self, number: int) -> Request: ...

    @overload
    def __getitem__(self, number: slice) -> list[Request]: ...

    def __getitem__(self, number: int | slice) -> Request | list[Request]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        request = self._requests[number]
        if request.params is not self._marked:
            params = {name: value for name, value in request.params.items() if name != MARK}
            self._marked, self._params = request.params, params
        return replace(request, params=self._params)


def system_of(request: Request) -> str:
    """Text of the system message; empty without one."""
    first = request.messages[0]
    return str(first["content"]) if first["role"] == "system" else ""


def task_of(request: Request) -> str:
    """Text of the user's message."""
    return str(request.messages[-1]["content"])


def size_of(request: Request) -> int:
    """Tokens that a row adds to a request, its answer included where that is bounded."""
    limits = [request.params.get(name) for name in ("max_tokens", "max_completion_tokens")]
    answer = max((limit for limit in limits if isinstance(limit, int)), default=0)
    return text_tokens(task_of(request)) + answer + 2 * ENTRY_TOKENS


def request_of(rows: Sequence[Request], *, takes_schema: bool) -> tuple[Request, list[str]]:
    """Put rows into one request.

    Parameters
    ----------
    rows : sequence of Request
        With the same system message, parameters and options.
    takes_schema : bool
        Whether a JSON schema is sent along.

    Returns
    -------
    request : Request
        Its tags and ids cannot be guessed and stand in no text, so that no text can end its own
        element or answer for another one; the same rows get the same ones as long as the process
        lives, so that runs at the same time can share a call. Limits on an answer are multiplied.
    ids : list of str
        Of the rows, in order.
    """
    tasks = [task_of(row) for row in rows]
    drawn = _strange_words(len(rows) + 1, tasks)
    tag, ids = f"task-{drawn[0]}", drawn[1:]
    body = "\n".join(
        f'<{tag} id="{word}">\n{task}\n</{tag}>' for word, task in zip(ids, tasks, strict=True)
    )
    system = "\n\n".join(filter(None, [system_of(rows[0]), INSTRUCTION]))
    params: dict[str, Any] = dict(rows[0].params)
    for name in ("max_tokens", "max_completion_tokens"):
        if isinstance(params.get(name), int):
            params[name] = (params[name] + ENTRY_TOKENS) * len(rows)
    if takes_schema:
        params["response_format"] = RESPONSE_FORMAT
    messages: list[dict[str, object]] = [
        {"role": "system", "content": system},
        {"role": "user", "content": body},
    ]
    return Request(messages, params, rows[0].options), ids


def _strange_words(number: int, texts: Sequence[str]) -> list[str]:
    """Derive different words from a secret, which stand in no text."""
    told = hashlib.blake2b(key=_SECRET)
    for text in texts:
        told.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    words: dict[str, None] = {}
    for count in itertools.count():
        if len(words) == number:
            break
        drawn = told.copy()
        drawn.update(count.to_bytes(8))
        word = drawn.hexdigest()[:8]
        if not any(word in text for text in texts):
            words[word] = None
    return list(words)
