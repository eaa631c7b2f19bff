"""Seconds before the first answer and after the last: import, first answer, shutdown.

    python -m tests.benchmarks.bench_start [--repeats 7]

Each figure comes from new processes, pandas alone and with the package in turn; a rapid provider
answers at once. ``first answer`` is ``df.lbgpt.complete`` of one row after the import, without a
cache, with whatever is imported in it; ``second`` is another row. ``shutdown`` lies between the
last statement and the end of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from tests.benchmarks.bench_peers import provider

PANDAS = """
import json, time
began = time.perf_counter()
import pandas as pd
pandas = time.perf_counter() - began
figures = {"import": pandas}
"""
PACKAGE = (
    PANDAS
    + """
import lbgpt_pandas as lb
figures = {"import": time.perf_counter() - began}
"""
)
ANSWERS = (
    PACKAGE
    + """
import sys
engine = lb.ChatGPT("sk-benchmark-0123456789", base_url=sys.argv[1] + "/v1")
lb.configure(cache=None, progress=False)
for name in ("first answer", "second answer"):
    frame = pd.DataFrame({"text": [name]})
    began = time.perf_counter()
    frame.lbgpt.complete("{text}", model="gpt-4o-mini", engine=engine)
    figures[name] = time.perf_counter() - began
"""
)
END = """
print(json.dumps({**figures, "ended": time.time()}), flush=True)
"""
PROGRAMS = {"pandas": PANDAS, "package": PACKAGE, "package, asked": ANSWERS}


def run(program: str, url: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", program + END, url], stdout=subprocess.PIPE, text=True, check=True
    )
    gone = time.time()
    figures: dict[str, float] = json.loads(done.stdout)
    figures["shutdown"] = gone - figures.pop("ended")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    found: dict[tuple[str, str], list[float]] = {}
    with provider(sys.executable) as server:
        for repeat in range(options.repeats + 1):
            for name, program in PROGRAMS.items():
                for what, seconds in run(program, server.url).items():
                    if repeat:  # the first one fills the system's file cache
                        found.setdefault((name, what), []).append(seconds)
    medians = {name: statistics.median(values) for name, values in found.items()}
    print(f"medians of {options.repeats}, load {os.getloadavg()[0]:.1f}; milliseconds")
    for (name, what), seconds in medians.items():
        print(f"  {name:<16}{what:<16}{seconds * 1000:>8.0f}")
    beyond = medians["package", "import"] - medians["pandas", "import"]
    print(f"import beyond pandas {beyond * 1000:.0f} ms")


if __name__ == "__main__":
    main()
