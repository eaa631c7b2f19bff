"""The program of the child process: llama.cpp's server on a loopback port.

Started by path, not as a module, so that the child imports nothing of the package. It reads
its orders as one line of JSON from standard input, answers with one line, and ends when
standard input does: whatever kills the parent closes that pipe.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

PARENT_CHECK_S = 1.0
_PR_SET_PDEATHSIG = 1


def serve() -> None:
    """Load the model, tell the address, and stay until the parent is gone."""
    _follow_parent()
    orders = json.loads(sys.stdin.readline() or sys.exit("no orders: the parent is gone"))
    # llama.cpp holds the interpreter lock while it loads, so no thread of ours would notice
    # that the parent dies meanwhile. Later the kernel's signal would be wrong: it comes with
    # the end of the parent's *thread* that started us.
    _die_with_parent_thread(signal.SIGKILL)
    server = _load(orders)
    _die_with_parent_thread(0)
    print(json.dumps({"address": server.listening_address}), flush=True)  # type: ignore[attr-defined]  # xllamacpp has no types
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nobody reads the pipe any more
    sys.stdin.read()
    os._exit(0)


def _load(orders: dict[str, object]) -> object:
    try:
        import xllamacpp  # noqa: PLC0415  # after the orders, so that a missing parent is noticed
    except ImportError as error:
        sys.exit(f"{error}; {_hint(str(error))}")
    params = xllamacpp.CommonParams()
    params.model.path = orders["model"]
    params.model_alias = {orders["alias"]}
    params.api_keys = [orders["key"]]
    params.hostnames = ["127.0.0.1"]
    params.n_ctx = orders["context"] * orders["slots"]  # type: ignore[operator]  # both are int
    params.n_parallel = orders["slots"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = orders["threads"]
    params.warmup = False
    # It would load the model twice to see how much context fits, and offer less than ordered.
    params.fit_params = False
    # By default every finished prompt's state is kept, up to 8 GiB; a column has few repeats.
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.verbosity = 2  # warnings; the default writes ten lines a request
    params.ui = params.endpoint_slots = False
    try:
        return xllamacpp.Server(params)
    except RuntimeError:
        sys.exit(1)  # llama.cpp has said what was wrong


def _hint(message: str) -> str:
    if "libgomp" in message:
        return "install the system package libgomp1 (apt-get install libgomp1)"
    return "install the package xllamacpp anew"


def _follow_parent() -> None:
    if os.name == "posix":
        # A process that the parent forked may hold the pipe open when the parent is gone.
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(0)


def _die_with_parent_thread(number: int) -> None:
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415  # not everywhere

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


if __name__ == "__main__":
    serve()
