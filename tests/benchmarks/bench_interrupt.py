"""What an interrupt costs: answers that the provider finished and the caller never saw.

    python tests/benchmarks/bench_interrupt.py [--repeats 3]

A FakeProvider answers 6,000 rows after 0.2 to 1 s each from a process of its own. After 3 s the
client's main thread gets SIGINT, as from a notebook's stop button. ``plain`` cancels at once,
``two-phase`` starts nothing new and gives what is on the wire 0.3 s to arrive, as `complete` does.
``lost`` are answers that the server had sent whole, or was paid to make, and the client has not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

SERVER = """
import json, sys
from lbgpt_pandas.testing import FakeProvider
with FakeProvider(latency_s=lambda record: 0.2 + 0.8 * (record.number * 0.618 % 1)) as server:
    print(server.base_url, flush=True)
    sys.stdin.read()
    print(json.dumps(server.tally.by_status))
"""

CLIENT = """
import json, os, signal, sys, threading, time
import pandas as pd, lbgpt_pandas as lb
from lbgpt_pandas.engine import portal
url, places, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if mode == "plain":
    import lbgpt_pandas.engine.interrupts as interrupts
    interrupts.DRAIN_S = 0.0
engine = lb.ChatGPT("EMPTY", base_url=url, max_parallel_calls=places, cache=None)
rows = pd.Series([f"row {number}" for number in range(6_000)])
rows[:64].lbgpt.complete("warm {}", model="m", engine=engine, cache_mode="off", progress="none")
threading.Timer(3.0, lambda: (pressed.append(time.monotonic()),
                              os.kill(os.getpid(), signal.SIGINT))).start()
pressed = []
try:
    rows.lbgpt.complete("{}", model="m", engine=engine, cache_mode="off", progress="none")
except KeyboardInterrupt:
    ended = time.monotonic()
print(json.dumps({"s": ended - pressed[0], "kept": int(lb.last_run().result.notna().sum()) + 64}))
"""


def measure(places: int, mode: str) -> tuple[float, int, int]:
    """Seconds to the end of the call, answers that the server sent, answers that were kept."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    url = server.stdout.readline().strip()
    client = subprocess.run(
        [sys.executable, "-c", CLIENT, url, str(places), mode],
        capture_output=True,
        text=True,
        check=True,
    )
    told, _ = server.communicate()
    found = json.loads(client.stdout.splitlines()[-1])
    return found["s"], json.loads(told.splitlines()[-1])["200"], found["kept"]


def main() -> None:
    """Print a line for each mode and number of places."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--repeats", type=int, default=3)
    repeats = options.parse_args().repeats
    print(f"{'places':>6} {'mode':>10} {'seconds':>8} {'finished':>9} {'kept':>7} {'lost':>5}")
    for places in (64, 200, 1_000):
        for mode in ("plain", "two-phase"):
            runs = [measure(places, mode) for _ in range(repeats)]
            seconds, sent, kept = (statistics.median(column) for column in zip(*runs, strict=True))
            lost = statistics.median(sent - kept for _, sent, kept in runs)
            print(f"{places:>6} {mode:>10} {seconds:8.2f} {sent:9,.0f} {kept:7,.0f} {lost:5,.0f}")


if __name__ == "__main__":
    main()
