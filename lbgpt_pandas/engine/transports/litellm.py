"""Providers of all kinds through litellm's Router, one attempt a call."""

from __future__ import annotations

import sys
from contextlib import aclosing, asynccontextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.errors import ConfigurationError, IncompleteStream
from lbgpt_pandas.engine.retry import decide
from lbgpt_pandas.engine.secrets import Secret, conceal, redact
from lbgpt_pandas.engine.transports.base import Reply, Stream
from lbgpt_pandas.engine.transports.litellm_errors import classify_litellm
from lbgpt_pandas.engine.transports.litellm_package import (
    discard_router,
    enter_loop,
    leave_loop,
    load_litellm,
    make_router,
    quiet,
)
from lbgpt_pandas.engine.transports.litellm_payloads import (
    chunk_payload,
    completion_payload,
    embedding_payload,
    headers_of,
    is_invented_end,
    request_id_of,
)

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Iterator,
        Mapping,
        Sequence,
    )

    from lbgpt_pandas.engine.errors import RequestError
    from lbgpt_pandas.engine.types import Request

_NO_RETRIES = {"num_retries": 0, "max_retries": 0}
_STATELESS_STRATEGY = "simple-shuffle"


class LiteLlmTransport:
    """A Router of litellm on one event loop.

    Its retries, cool-downs and cache are off. Where a model group has several deployments, one
    that refuses its key or does not know its model is left out until `close`, and another one
    is asked instead.

    Parameters
    ----------
    model_list : sequence of mapping
        As litellm takes it; texts that are secret are held as `Secret`.
    router_kwargs : mapping, optional
        Further arguments of litellm's Router.
    """

    def __init__(
        self,
        model_list: Sequence[Mapping[str, object]],
        *,
        router_kwargs: Mapping[str, object] | None = None,
    ) -> None:
        self._model_list = model_list
        self._router_kwargs = dict(router_kwargs or {})
        self._secrets = sorted(
            {secret.reveal() for secret in _secrets_in([model_list, self._router_kwargs])},
            key=len,
            reverse=True,
        )
        self._litellm: Any = None
        self._router: Any = None
        self._callbacks: list[object] = []

    async def open(self) -> None:
        """Import litellm and make its router.

        Raises
        ------
        MissingExtraError
            If litellm is not installed.
        ConfigurationError
            If it does not accept the model list or an argument.
        """
        litellm = await load_litellm()
        problem = None
        try:
            self._router, self._callbacks = make_router(
                litellm,
                model_list=[
                    {**revealed(entry), "litellm_params": _without_retries(entry)}
                    for entry in self._model_list
                ],
                num_retries=0,
                disable_cooldowns=True,
                cache_responses=False,
                **revealed(self._router_kwargs),
            )
        except Exception as error:  # noqa: BLE001  # whatever litellm checks, and however
            problem = self._hide(f"{type(error).__name__}: {error}")
        if problem is not None:
            raise ConfigurationError(f"litellm's Router refuses its arguments: {problem}")
        if self._router_kwargs.get("routing_strategy", _STATELESS_STRATEGY) == _STATELESS_STRATEGY:
            # Counters that only other strategies read cost a fifth of each call.
            discard_router(litellm, self._router, self._callbacks)
        self._litellm = litellm
        enter_loop(litellm)

    async def close(self) -> None:
        """Close what litellm opened on this loop, unless another engine still uses it."""
        router, self._router = self._router, None
        if router is not None:
            discard_router(self._litellm, router, self._callbacks)
            await leave_loop(self._litellm)

    async def chat(self, request: Request, *, timeout: float | None) -> Reply:
        """Send one request once; see `Transport.chat`."""
        response = await self._call(
            lambda: self._router.acompletion(**self._arguments(request, timeout)), request.model
        )
        return _reply(response, completion_payload(response))

    @asynccontextmanager
    async def stream(self, request: Request, *, timeout: float | None) -> AsyncIterator[Stream]:
        """Send one request once, for an answer in parts; see `Transport.stream`."""
        arguments = {**self._arguments(request, timeout), "stream": True}
        source = await self._call(lambda: self._router.acompletion(**arguments), request.model)
        headers = headers_of(source)
        try:
            async with aclosing(self._read_chunks(source)) as chunks:
                yield Stream(chunks, headers, request_id_of(headers))
        finally:
            if hasattr(source, "aclose"):
                with quiet():
                    await source.aclose()

    async def embed(
        self,
        model: str,
        inputs: Sequence[str],
        params: Mapping[str, object],
        *,
        timeout: float | None,
    ) -> Reply:
        """Embed texts in one call; see `Transport.embed`."""
        arguments = {
            **deepcopy(dict(params)),
            "model": model,
            "input": list(inputs),
            **_NO_RETRIES,
            **_timeout(timeout),
        }
        response = await self._call(lambda: self._router.aembedding(**arguments), model)
        return _reply(response, embedding_payload(response))

    def _arguments(self, request: Request, timeout: float | None) -> dict[str, Any]:
        # litellm writes into what it is given, and a run shares its parameters.
        params = deepcopy(dict(request.params))
        if params.get("tools"):
            params["_skip_mcp_handler"] = True  # which imports a package that is not required
        return {
            **params,
            "model": request.model or "",
            "messages": deepcopy(list(request.messages)),
            **_NO_RETRIES,
            **_timeout(timeout),
        }

    async def _read_chunks(self, source: Any) -> AsyncGenerator[object, None]:
        given = 0
        failure: RequestError | None = None
        while failure is None:
            try:
                with quiet():
                    chunk = await anext(source)
            except StopAsyncIteration:
                return
            except Exception as error:  # noqa: BLE001  # litellm raises of any kind
                failure = self._classify(error)
                continue
            payload = chunk_payload(chunk)
            if is_invented_end(payload, source, given=given):
                for choice in payload["choices"]:
                    choice["finish_reason"] = None
            given += 1
            yield payload
        if failure.code == "connection_lost":
            failure = IncompleteStream(failure.message, code=failure.code, maybe_billed=True)
        raise failure

    async def _call(self, send: Callable[[], Awaitable[Any]], model: str | None) -> Any:
        handled = sys.exception()
        while True:
            try:
                with quiet():
                    return await send()
            except Exception as error:  # noqa: BLE001  # litellm raises of any kind
                failure = self._classify(error, handled)
                deployment = _failed_deployment(error)
            if not (decide(failure).fatal and self._leave_out(deployment, model)):
                # litellm's exception holds the request and with it the key: it ends here.
                raise failure from None

    def _leave_out(self, deployment: str | None, model: str | None) -> bool:
        """Take a deployment out of its group; return whether another one is left to ask."""
        if deployment is None or model is None:
            return False
        others = [
            entry
            for entry in self._router.get_model_list(model_name=model) or ()
            if entry["model_info"]["id"] != deployment
        ]
        if others:
            with quiet():
                self._router.delete_deployment(id=deployment)
        return bool(others)

    def _classify(self, error: BaseException, handled: BaseException | None = None) -> RequestError:
        groups = [str(entry.get("model_name")) for entry in self._model_list]
        return classify_litellm(
            error, groups=dict.fromkeys(groups), secrets=self._secrets, handled=handled
        )

    def _hide(self, message: str) -> str:
        return redact(conceal(message, self._secrets))[:300]


def revealed(value: Any) -> Any:
    """Copy nested data with every `Secret` in it replaced by its text."""
    match value:
        case Secret():
            return value.reveal()
        case dict():
            return {name: revealed(item) for name, item in value.items()}
        case list() | tuple():
            return [revealed(item) for item in value]
        case _:
            return value


def _secrets_in(value: object) -> Iterator[Secret]:
    match value:
        case Secret():
            yield value
        case dict():
            for item in value.values():
                yield from _secrets_in(item)
        case list() | tuple():
            for item in value:
                yield from _secrets_in(item)


def _without_retries(entry: Mapping[str, object]) -> dict[str, Any]:
    return {**revealed(entry["litellm_params"]), "max_retries": 0}


def _timeout(seconds: float | None) -> dict[str, float]:
    return {} if seconds is None else {"timeout": seconds}


def _failed_deployment(error: BaseException) -> str | None:
    for name in ("failed_deployment_id", "retry_skip_deployment_id"):
        found = getattr(error, name, None)
        if isinstance(found, str):
            return found
    return None


def _reply(response: object, payload: object) -> Reply:
    headers = headers_of(response)
    return Reply(payload=payload, headers=headers, request_id=request_id_of(headers))
