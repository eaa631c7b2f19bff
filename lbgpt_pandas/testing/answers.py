"""How a `FakeProvider` answers: from a request to status, headers and body, without HTTP."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from lbgpt_pandas.testing import refusals
from lbgpt_pandas.testing.embeddings import DEFAULT_DIMENSIONS, DIMENSIONS, embed, encode
from lbgpt_pandas.testing.instances import NoInstance, minimal_instance
from lbgpt_pandas.testing.quota import Refusal
from lbgpt_pandas.testing.wire import (
    chat_chunks,
    chat_completion,
    choices_of,
    count_prompt_tokens,
    count_tokens,
    embedding_list,
    last_user_text,
    limit_of,
)

if TYPE_CHECKING:
    from lbgpt_pandas.engine.clock import Clock
    from lbgpt_pandas.testing.faults import Fault, Record
    from lbgpt_pandas.testing.gate import Gate, Ticket

Body = dict[str, Any]
Answered = str | Mapping[str, object]
ReplyMaker = Callable[[Body], "Answered | Awaitable[Answered]"]

CHAT, EMBEDDINGS, MODELS = "chat/completions", "embeddings", "models"
DEFAULT_MODEL = "gpt-4o-mini"
DEFAULT_EMBEDDING_MODEL = "text-embedding-3-small"

_DEPLOYMENT_PATH = re.compile(r"/openai/deployments/([^/]+)/(chat/completions|embeddings)")
_NAME_OF_A_MODEL = re.compile(r"(gpt-|o\d|chatgpt-|text-embedding-)")
_MOST_INPUTS = 2_048


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a `FakeProvider` answers; see there."""

    reply: str | ReplyMaker | None
    latency_s: float | Callable[[Record], float]
    keys: frozenset[str] | None
    models: tuple[str, ...] | None
    deployments: Mapping[str, str] | None
    context_tokens: int | None
    faults: Callable[[Record], Fault | None] | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent: a body, or the events of a stream."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    events: list[bytes] | None = None


class _Refusing(Exception):
    """Carries a refusal to where it is written."""

    def __init__(self, refused: refusals.Refused) -> None:
        self.refused = refused


class Desk:
    """Answers requests as a `Behaviour` says; used on one event loop.

    Parameters
    ----------
    behaviour : Behaviour
        What to do.
    gate : Gate
        Who is let in.
    clock : Clock
        Time of ``created`` and of the latency.
    """

    def __init__(self, behaviour: Behaviour, *, gate: Gate, clock: Clock) -> None:
        self._do = behaviour
        self._gate = gate
        self._clock = clock

    def reset(self) -> None:
        """Forget what the limits counted."""
        self._gate.reset()

    def fault_of(self, record: Record) -> Fault | None:
        """Tell what shall go wrong with a request."""
        return self._do.faults(record) if self._do.faults else None

    async def answer(self, record: Record) -> Answer:
        """Answer a request, or refuse it as the provider would."""
        try:
            kind, model = self._route(record)
            self._check_key(record)
            self._check_model(record, model)
            match kind:
                case "models":
                    return _json(200, self._model_list())
                case "embeddings":
                    return await self._embed(record, self._known_model(record, model, kind))
                case _:
                    return await self._chat(record, self._known_model(record, model, kind))
        except _Refusing as refusing:
            refused = refusing.refused
            return _json(refused.status, refused.body, refused.headers)

    def _route(self, record: Record) -> tuple[str, str]:
        path = record.path
        kind = path.removeprefix("/v1/")
        if kind not in (CHAT, EMBEDDINGS, MODELS):
            found = _DEPLOYMENT_PATH.fullmatch(path)
            if found is None or "api-version" not in record.query:
                raise _Refusing(refusals.unknown_path(record.method, path))
            kind = found[2]
        if record.method != ("GET" if kind == MODELS else "POST"):
            raise _Refusing(refusals.wrong_method(record.method, path))
        return kind, record.model

    def _check_key(self, record: Record) -> None:
        if self._do.keys is not None and record.key not in self._do.keys:
            raise _Refusing(refusals.wrong_key(record.key, azure=record.is_azure))

    def _check_model(self, record: Record, model: str) -> None:
        if record.method == "GET":
            return
        if not isinstance(record.body, dict):
            raise _Refusing(refusals.not_json())
        known = self._do.deployments if record.is_azure else self._do.models
        if not model:
            raise _Refusing(refusals.bad_field("you must provide a model parameter", "model"))
        if known is not None and model not in known:
            raise _Refusing(refusals.unknown_model(model, azure=record.is_azure))

    def _known_model(self, record: Record, model: str, kind: str) -> str:
        """Name the model that answers; a deployment has one behind it."""
        if not record.is_azure:
            return model
        if self._do.deployments is not None:
            return self._do.deployments[model]
        if _NAME_OF_A_MODEL.match(model):
            return model
        return DEFAULT_MODEL if kind == CHAT else DEFAULT_EMBEDDING_MODEL

    def _model_list(self) -> dict[str, object]:
        names = self._do.models or (DEFAULT_MODEL, DEFAULT_EMBEDDING_MODEL)
        entry = {"object": "model", "created": 1_700_000_000, "owned_by": "lbgpt-pandas"}
        return {"object": "list", "data": [{"id": name, **entry} for name in names]}

    # Chat

    async def _chat(self, record: Record, model: str) -> Answer:
        body: Body = record.body  # type: ignore[assignment]  # _check_model has seen to it
        prompt = self._check_messages(body)
        ceiling = choices_of(body) * (limit_of(body) or 0)
        tokens = prompt + ceiling if record.is_azure else max(prompt, ceiling)
        ticket = self._admit(record, tokens)
        await self._wait(record)
        completion = await self._complete(record, body, model)
        stream = body.get("stream") is True
        usage = completion.get("usage")
        if isinstance(usage, dict):
            self._gate.settle(ticket, usage.get("total_tokens", 0))
        headers = self._gate.headers(ticket)
        if not stream:
            return _json(200, completion, headers)
        options = body.get("stream_options")
        include_usage = isinstance(options, dict) and options.get("include_usage") is True
        return Answer(200, headers=headers, events=list(_events(completion, include_usage)))

    def _check_messages(self, body: Body) -> int:
        messages = body.get("messages")
        if messages is None:
            raise _Refusing(
                refusals.bad_field(
                    "Missing required parameter: 'messages'.",
                    "messages",
                    "missing_required_parameter",
                )
            )
        if (
            not isinstance(messages, list)
            or not messages
            or not all(isinstance(message, dict) and "role" in message for message in messages)
        ):
            raise _Refusing(
                refusals.bad_field(
                    "Invalid type for 'messages': expected a non-empty array of objects with a "
                    "role.",
                    "messages",
                    "invalid_type",
                )
            )
        prompt = count_prompt_tokens(messages)
        wanted = prompt + (limit_of(body) or 0)
        if self._do.context_tokens is not None and wanted > self._do.context_tokens:
            raise _Refusing(refusals.context_too_long(self._do.context_tokens, wanted))
        return prompt

    async def _complete(self, record: Record, body: Body, model: str) -> Body:
        reply = self._do.reply
        answered = reply(body) if callable(reply) else reply
        if inspect.isawaitable(answered):
            answered = await answered
        if answered is None:
            answered = _default_reply(body)
        if isinstance(answered, Mapping) and "choices" in answered:
            return dict(answered)
        return chat_completion(
            body,
            answered,
            number=record.number,
            created=int(self._clock.wall().timestamp()),
            model=model,
            azure=record.is_azure,
        )

    # Embeddings

    async def _embed(self, record: Record, model: str) -> Answer:
        body: Body = record.body  # type: ignore[assignment]  # _check_model has seen to it
        texts = _inputs(body.get("input"))
        tokens = sum(count_tokens(text) for text in texts)
        ticket = self._admit(record, tokens)
        await self._wait(record)
        dimensions = body.get("dimensions") or DIMENSIONS.get(model, DEFAULT_DIMENSIONS)
        if not isinstance(dimensions, int) or dimensions < 1:
            message = f"Invalid value for 'dimensions' = {dimensions}. Must be at least 1."
            raise _Refusing(refusals.bad_field(message, "dimensions"))
        encoding = body.get("encoding_format", "float")
        vectors = [encode(embed(text, dimensions), encoding) for text in texts]
        payload = embedding_list(vectors, model=model, prompt_tokens=tokens)
        return _json(200, payload, self._gate.headers(ticket))

    # Time and quota

    async def _wait(self, record: Record) -> None:
        latency = self._do.latency_s
        seconds = latency(record) if callable(latency) else latency
        if seconds:
            await self._clock.sleep(seconds)

    def _admit(self, record: Record, tokens: int) -> Ticket:
        ticket = self._gate.admit(record, tokens)
        if isinstance(ticket.result, Refusal):
            raise _Refusing(
                refusals.over_quota(
                    ticket.result,
                    model=record.model,
                    azure=record.is_azure,
                    headers=self._gate.headers(ticket),
                    says_when=self._gate.says_when,
                )
            )
        return ticket


def _default_reply(body: Body) -> str:
    text = f"A:{last_user_text(body['messages'])}"
    wanted = body.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object":
        return orjson.dumps({"answer": text}).decode()
    if kind != "json_schema" or not isinstance(wanted, dict):
        return text
    form = wanted.get("json_schema")
    if not isinstance(form, dict) or "schema" not in form:
        message = "Missing required parameter: 'response_format.json_schema'."
        raise _Refusing(refusals.bad_field(message, "response_format"))
    try:
        return orjson.dumps(minimal_instance(form["schema"])).decode()
    except NoInstance as error:
        message = f"Invalid schema for response_format: {error}"
        raise _Refusing(refusals.bad_field(message, "response_format")) from error


def _inputs(given: object) -> list[str]:
    """Texts of an embeddings request; token lists are turned into texts of their numbers."""
    many = given if isinstance(given, list) else [given]
    if many and all(isinstance(each, int) for each in many):
        many = [many]
    texts = [" ".join(map(str, each)) if isinstance(each, list) else each for each in many]
    valid = [text for text in texts if isinstance(text, str) and text]
    if not 0 < len(valid) == len(texts) <= _MOST_INPUTS:
        message = "'$.input' is invalid. Please check the API reference: "
        raise _Refusing(
            refusals.bad_field(f"{message}https://platform.openai.com/docs/api-reference.", "input")
        )
    return valid


def _events(completion: Body, include_usage: bool) -> Iterator[bytes]:  # noqa: FBT001  # private
    for chunk in chat_chunks(completion, include_usage=include_usage):
        yield b"data: " + orjson.dumps(chunk) + b"\n\n"
    yield b"data: [DONE]\n\n"


def _json(status: int, payload: object, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, orjson.dumps(payload), headers or {})
