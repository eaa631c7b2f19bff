"""What a live view costs a run of a thousand rows a second, in a real kernel.

    python tests/benchmarks/bench_views.py [--rows 10000] [--repeats 5]

Four scripted deployments with limits answer behind a balancer, 64 in flight, each answer after
60 ms. The same column is completed with ``progress="none"`` and ``"widget"`` in turns. Compared is
the CPU time of all threads but the engine's, whose own varies more than drawing costs: rendering,
messages and their sending. Figures are medians; the share is that of the run's wall time.
"""

from __future__ import annotations

import argparse
import json
import queue
import statistics

from jupyter_client.manager import start_new_kernel

PREPARE = """
import json, threading, time
import pandas as pd
import lbgpt_pandas as lb
from lbgpt_pandas.testing import ScriptedGPT

def clocks():
    "Wall time, the CPU time of the engine's thread, and that of all others."
    engine = sum(
        time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.name == "lbgpt-engine"
    )
    return time.perf_counter(), engine, time.process_time() - engine

def run(rows, progress):
    engine = lb.MultiLoadBalancedGPT(
        [
            ScriptedGPT(
                "an answer", latency_s=0.06, name=f"region-{number}", max_parallel_calls=16,
                limit_tpm=40_000_000, limit_rpm=400_000,
            )
            for number in range(4)
        ],
        allocation_function="max_headroom",
    )
    frame = pd.DataFrame({"text": [f"{time.monotonic()} {number}" for number in range(rows)]})
    began = clocks()
    frame.lbgpt.complete("{text}", engine=engine, cache_mode="off", progress=progress)
    print(json.dumps([after - before for before, after in zip(began, clocks())]))

run(1_000, "widget")
"""


def ask(client, code: str) -> tuple[str, int, int]:
    """Run a cell; give what it printed, and the number and size of its drawings."""
    sent = client.execute(code)
    printed, messages, size = "", 0, 0
    while True:
        try:
            message = client.get_iopub_msg(timeout=60)
        except queue.Empty:
            raise SystemExit("the kernel is silent") from None
        if message["parent_header"].get("msg_id") != sent:
            continue
        content = message["content"]
        match message["msg_type"]:
            case "stream":
                printed += content["text"]
            case "error":
                raise SystemExit("\n".join(content["traceback"]))
            case "comm_msg" | "display_data" | "update_display_data":
                messages += 1
                size += len(json.dumps(content["data"]))
            case "status" if content["execution_state"] == "idle":
                return printed, messages, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    manager, client = start_new_kernel()
    figures: dict[str, list[tuple[float, ...]]] = {"none": [], "widget": []}
    try:
        ask(client, PREPARE)
        for _ in range(options.repeats):
            for progress, found in figures.items():
                text, messages, size = ask(client, f"run({options.rows}, {progress!r})")
                wall, engine, others = json.loads(text)
                found.append((wall, others))
                print(
                    f"  {progress:<8}{options.rows / wall:>7,.0f} rows/s, CPU: engine {engine:.2f} s, "
                    f"others {others * 1000:.0f} ms; {messages} messages of "
                    f"{size / max(messages, 1) / 1000:.1f} kB"
                )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    (wall, without), (_, drawn) = (
        [statistics.median(column) for column in zip(*figures[name], strict=True)]
        for name in ("none", "widget")
    )
    print(f"medians: drawing costs {(drawn - without) / wall:.1%} of {wall:.1f} s")


if __name__ == "__main__":
    main()
