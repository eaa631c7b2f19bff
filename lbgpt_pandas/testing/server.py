"""The loopback HTTP server under a `FakeProvider`: an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from lbgpt_pandas.testing.faults import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lbgpt_pandas.engine.clock import Clock
    from lbgpt_pandas.testing.answers import Answer, Desk
    from lbgpt_pandas.testing.faults import Fault
    from lbgpt_pandas.testing.tally import Tally

HOST = "127.0.0.1"
_BACKLOG = 2_048
_GRACE_S = 0.05
_MAX_BODY = 64 * 2**20
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_JSON = {"content-type": "application/json"}
_LOGGER = logging.getLogger(__name__)
_NO_HEADERS: Mapping[str, str] = {}


class LoopbackServer:
    """Serve a `Desk` on 127.0.0.1 until `stop`.

    Parameters
    ----------
    desk : Desk
        Who answers.
    clock : Clock
        Time of records.
    log : callable
        Called with each `Record` at its arrival; returns the `Tally` to count it in.
    leave : callable
        Called with each `Record` and its `Tally` when it has ended.
    with_headers : bool
        Keep request headers in records.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        clock: Clock,
        log: Callable[[Record], Tally],
        leave: Callable[[Record, Tally], None],
        with_headers: bool,
    ) -> None:
        self._desk = desk
        self._clock = clock
        self._log = log
        self._leave = leave
        self._with_headers = with_headers
        self._number = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped: asyncio.Event | None = None

    def start(self, port: int) -> int:
        """Listen; return the port.

        Parameters
        ----------
        port : int
            0 for a free one.

        Raises
        ------
        OSError
            If the port cannot be had.
        """
        started: Future[int] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(port, started), name="lbgpt-fake-provider", daemon=True
        )
        self._thread.start()
        return started.result()

    def stop(self) -> None:
        """Hang up on everyone and end the thread."""
        if self._loop is not None and self._stopped is not None:
            self._loop.call_soon_threadsafe(self._stopped.set)
        if self._thread is not None:
            self._thread.join()
        self._loop = self._thread = self._stopped = None

    def _run(self, port: int, started: Future[int]) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._serve(port, started))
        finally:
            loop.close()

    async def _serve(self, port: int, started: Future[int]) -> None:
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=_GRACE_S)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, HOST, port, backlog=_BACKLOG).start()
            except OSError as error:
                started.set_exception(error)
                return
            self._loop = asyncio.get_running_loop()
            self._stopped = asyncio.Event()
            started.set_result(runner.addresses[0][1])
            await self._stopped.wait()
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        record = await self._read(request)
        tally = self._log(record)
        fault = None
        try:
            fault = self._desk.fault_of(record)
            if fault is not None and fault.kind == "respond":
                tally.send(record, fault.status)
                return web.Response(status=fault.status, body=fault.body, headers=fault.headers)
            if fault is not None and fault.kind == "hang":
                await self._hang(fault.seconds)
            answer = await self._desk.answer(record)
            if fault is None or fault.kind == "hang":
                tally.send(record, answer.status)
                return await _send(request, record, answer)
            if not (fault.kind == "reset" and fault.after == 0):
                tally.send(record, answer.status)
            return await _send_badly(request, record, answer, fault)
        except (asyncio.CancelledError, ConnectionResetError):
            if not (self._is_stopping() or (fault is not None and fault.hangs_up)):
                tally.abort(record)
            raise
        except Exception as error:  # a test's own reply= or faults= may raise anything
            _LOGGER.exception("request %d of a FakeProvider", record.number)
            tally.send(record, 400)
            return web.Response(status=400, body=_own_error(error), headers=_JSON)
        finally:
            self._leave(record, tally)

    def _is_stopping(self) -> bool:
        return self._stopped is None or self._stopped.is_set()

    async def _read(self, request: web.BaseRequest) -> Record:
        raw = await request.read() if request.body_exists else b""
        body: object = raw or None
        if raw:
            with contextlib.suppress(orjson.JSONDecodeError):
                body = orjson.loads(raw)
        url, headers = request.rel_url, request.headers
        path = url.path
        key = headers.get("api-key")
        if key is None:
            key = headers.get("authorization", "").removeprefix("Bearer ").strip() or None
        self._number += 1
        return Record(
            number=self._number,
            method=request.method,
            path=path,
            query=dict(url.query) if url.query_string else _NO_HEADERS,
            key=key,
            headers={name.lower(): value for name, value in headers.items()}
            if self._with_headers
            else _NO_HEADERS,
            body=body,
            model=_model_of(path, body),
            at=self._clock.monotonic(),
        )

    async def _hang(self, seconds: float | None) -> None:
        if seconds is None:
            await asyncio.Event().wait()
        else:
            await self._clock.sleep(seconds)


def _own_error(error: Exception) -> bytes:
    # A status that no client retries, so that the test sees it at once.
    message = f"reply=, latency_s= or faults= of the FakeProvider raised {error!r}"
    kind = "invalid_request_error"
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}})


def _model_of(path: str, body: object) -> str:
    if path.startswith("/openai/deployments/"):
        return path.split("/")[3]
    model = body.get("model") if isinstance(body, dict) else None
    return model if isinstance(model, str) else ""


def _headers_of(record: Record, answer: Answer) -> dict[str, str]:
    request_id = f"req_{record.number:032x}"
    headers = {
        "content-type": "text/event-stream" if answer.events else "application/json",
        "openai-processing-ms": "1",
        "openai-version": "2020-10-01",
        "x-request-id": request_id,
        **answer.headers,
    }
    if record.is_azure:
        headers["apim-request-id"] = request_id
        headers["x-ms-region"] = "Loopback"
    else:
        headers["openai-organization"] = "org-testing"
    return headers


async def _send(request: web.BaseRequest, record: Record, answer: Answer) -> web.StreamResponse:
    headers = _headers_of(record, answer)
    if answer.events is None:
        return web.Response(status=answer.status, body=answer.body, headers=headers)
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):  # the client has read enough
        for event in answer.events:
            await response.write(event)
        await response.write_eof()
    return response


async def _send_badly(
    request: web.BaseRequest, record: Record, answer: Answer, fault: Fault
) -> web.StreamResponse:
    if fault.kind == "reset" and fault.after == 0:
        await _hang_up(request, reset=True)
    response = web.StreamResponse(status=answer.status, headers=_headers_of(record, answer))
    if answer.events is None:
        response.content_length = len(answer.body)
        pieces = [answer.body[at : at + 1] for at in range(len(answer.body))]
    else:
        pieces = answer.events
    await response.prepare(request)
    if fault.kind == "drip":
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(fault.seconds or 0)
        await response.write_eof()
        return response
    await response.write(b"".join(pieces[: fault.after]))
    if fault.kind == "reset" or answer.events is None:
        await _hang_up(request, reset=fault.kind == "reset")
    if fault.body:
        await response.write(b"data: " + fault.body + b"\n\n")
    await response.write_eof()
    return response


async def _hang_up(request: web.BaseRequest, *, reset: bool) -> None:
    transport = request.transport
    if transport is not None:
        if reset:
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            transport.abort()
        else:
            transport.close()
    # The loss of the connection cancels this handler.
    await asyncio.Event().wait()
