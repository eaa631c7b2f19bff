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


def serve() -> None:
    """Load the model, tell the address, and stay until the parent is gone."""
    orders = json.loads(sys.stdin.readline())
    _die_with_parent(orders["parent"])
    import xllamacpp  # noqa: PLC0415  # the orders come first, so that a missing parent is noticed

    params = xllamacpp.CommonParams()
    params.model.path = orders["model"]
    params.model_alias = {orders["alias"]}
    params.api_keys = [orders["key"]]
    params.hostnames = ["127.0.0.1"]
    params.n_ctx = orders["context"] * orders["slots"]
    params.n_parallel = orders["slots"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = orders["threads"]
    params.warmup = False
    server = xllamacpp.Server(params)
    print(json.dumps({"address": server.listening_address}), flush=True)
    sys.stdin.read()
    del server


def _die_with_parent(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's Ctrl-C stops a run, not the model
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if os.getppid() != parent:
        os._exit(0)
    # Loading holds the main thread for seconds; a parent that dies meanwhile is noticed here.
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        threading.Event().wait(1.0)
    os._exit(0)


if __name__ == "__main__":
    serve()
