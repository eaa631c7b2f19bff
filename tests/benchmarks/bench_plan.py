"""Seconds of ``df.lbgpt.plan``, with nothing and with everything in the cache.

    python tests/benchmarks/bench_plan.py [--rows 100000] [--repeats 5]

Every row is another prompt, the worst case. Figures are medians and the slowest; the cache is a
directory, filled by one run of a `ScriptedGPT`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import numpy as np
import pandas as pd

import lbgpt_pandas as lb
from lbgpt_pandas.testing import ScriptedGPT

WORDS = ["delivery", "was", "late", "and", "the", "box", "broken", "but", "support", "helped"]
TEMPLATE = "Is this review positive or negative?\n\n{text}"


def reviews(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 60, rows)
    texts = [
        f"{number}: " + " ".join(rng.choice(WORDS, size)) for number, size in enumerate(lengths)
    ]
    return pd.DataFrame({"text": texts})


def measure(name: str, frame: pd.DataFrame, repeats: int, **keywords: object) -> None:
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        plan = frame.lbgpt.plan(TEMPLATE, model="gpt-4o-mini", **keywords)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    print(
        f"  {name:<26}{statistics.median(walls):>7.2f} s (slowest {max(walls):.2f}), "
        f"{statistics.median(cpus):.2f} s CPU; {plan.requests_to_send:,} to send"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    frame, engine = reviews(options.rows), ScriptedGPT("positive")
    print(f"{options.rows:,} rows, {frame['text'].str.len().mean():.0f} characters each")
    with tempfile.TemporaryDirectory() as directory, lb.using(cache=directory, progress=False):
        measure("cold, no cache yet", frame, options.repeats, engine=engine)
        frame.head(20).lbgpt.complete(TEMPLATE, model="gpt-4o-mini", engine=engine)
        measure("cold, 20 answers stored", frame, options.repeats, engine=engine)
        measure("cache_mode='off'", frame, options.repeats, engine=engine, cache_mode="off")
        frame.lbgpt.complete(TEMPLATE, model="gpt-4o-mini", engine=engine)
        measure("warm, all stored", frame, options.repeats, engine=engine)


if __name__ == "__main__":
    main()
