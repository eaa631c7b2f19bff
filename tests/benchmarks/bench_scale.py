"""Time and memory a row from a thousand rows to a million, and whether runs leave anything behind.

    python -m tests.benchmarks.bench_scale [--rows 1000 10000 100000 1000000] [--runs 50]

Three columns, each in a process of its own, with a disk cache: ``asked`` (every row is different
and new; a ScriptedGPT answers, so that only our own work counts), ``cached`` (the same rows again,
in a new process), ``repeated`` (10,000 different prompts at most, all new). CPU is without imports;
memory is the peak of the process during the call above what it had with the frame made. The
figures and their plot go to ``build/benchmarks/scale.csv`` and ``scale.png``.

Last, runs of 2,000 new rows into one cache by one process: what memory and how many objects of
Python's collector the last run leaves above the tenth.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PLACE = Path("build/benchmarks")
SIZES = [1_000, 10_000, 100_000, 1_000_000]
KINDS = ("asked", "cached", "repeated")
MOST_DISTINCT = 10_000
ROWS_OF_A_RUN = 2_000
SETTLED = 10
MOST_MB = {"cached": 600, "repeated": 200}
MOST_GROWTH = 1.3


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def forget_peak() -> None:
    """Have the kernel measure the peak from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise OSError("this system does not tell the peak of a process")


def column(rows: int, distinct: int, note: str = "") -> Any:
    import pandas as pd

    return pd.DataFrame(
        {"text": [f"row {row % distinct} of a column {note}" for row in range(rows)]}
    )


def one(kind: str, rows: int, cache: str) -> dict[str, Any]:
    """Measure one column in this process."""
    import lbgpt_pandas as lb
    from lbgpt_pandas.testing import ScriptedGPT

    lb.configure(cache=cache, progress=False)
    engine = ScriptedGPT("an answer of some words")
    # What is paid once is paid before.
    column(10, 10, "to begin with").lbgpt.complete("{text}", engine=engine)
    frame = column(rows, min(rows, MOST_DISTINCT) if kind == "repeated" else rows)
    gc.collect()
    before_mb = rss_mb()
    forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    answers = frame.lbgpt.complete("{text}", engine=engine)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    above_mb = peak_mb() - before_mb
    assert answers.notna().all()
    return {
        "kind": kind,
        "rows": rows,
        "cpu_us": cpu / rows * 1e6,
        "wall_us": wall / rows * 1e6,
        "above_mb": above_mb,
        "load": os.getloadavg()[0],
    }


def leaks(runs: int, cache: str) -> dict[str, Any]:
    """Make many runs in this process; what they leave behind."""
    import lbgpt_pandas as lb
    from lbgpt_pandas.testing import ScriptedGPT

    lb.configure(cache=cache, progress=False)
    states = []
    for number in range(runs):
        engine = ScriptedGPT("an answer of some words")  # it remembers what it was asked
        frame = column(ROWS_OF_A_RUN, ROWS_OF_A_RUN, f"in run {number}")
        frame.lbgpt.complete("{text}", engine=engine)
        gc.collect()
        states.append((rss_mb(), len(gc.get_objects())))
    (first_mb, first_objects), (last_mb, last_objects) = states[SETTLED - 1], states[-1]
    return {
        "runs": runs - SETTLED,
        "grown_mb": last_mb - first_mb,
        "grown_objects": last_objects - first_objects,
    }


def in_a_process(*arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bench_scale", "--child", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def draw(figures: list[dict[str, Any]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for kind in KINDS:
        own = [each for each in figures if each["kind"] == kind]
        rows = [each["rows"] for each in own]
        axes[0].plot(rows, [each["cpu_us"] for each in own], marker="o", label=kind)
        axes[1].plot(rows, [each["above_mb"] for each in own], marker="o", label=kind)
    axes[0].set(xscale="log", yscale="log", xlabel="rows", title="CPU us a row")
    axes[1].set(xscale="log", yscale="log", xlabel="rows", title="peak MB above the frame")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def judged(figures: list[dict[str, Any]]) -> list[tuple[bool, str]]:
    found = []
    by = {(each["kind"], each["rows"]): each for each in figures}
    most = max(rows for _, rows in by)
    for kind in KINDS:
        large, small = by[kind, most], by.get((kind, 10_000))
        if kind != "repeated" and small is not None and most > 10_000:
            growth = large["cpu_us"] / small["cpu_us"]
            text = f"{kind}: CPU a row at {most:,} is {growth:.2f} x that at 10,000"
            found.append((growth <= MOST_GROWTH, f"{text}, at most {MOST_GROWTH}"))
        if kind in MOST_MB and most == SIZES[-1]:
            above = large["above_mb"]
            text = f"{kind}: {above:,.0f} MB above the frame, at most {MOST_MB[kind]}"
            found.append((above <= MOST_MB[kind], text))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--out", type=Path, default=PLACE)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, number, *cache = options.child
        report = (
            leaks(int(number), cache[0]) if kind == "leaks" else one(kind, int(number), cache[0])
        )
        print(json.dumps(report))
        return
    figures = []
    print(f"{'':<10}{'rows':>10}{'CPU us/row':>12}{'wall us/row':>13}{'MB above':>10}{'load':>6}")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as other:
            for kind in KINDS:
                each = in_a_process(kind, rows, other if kind == "repeated" else cache)
                figures.append(each)
                print(
                    f"{kind:<10}{rows:>10,}{each['cpu_us']:>12.1f}{each['wall_us']:>13.1f}"
                    f"{each['above_mb']:>10.0f}{each['load']:>6.1f}",
                    flush=True,
                )
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "scale.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(figures[0]))
        writer.writeheader()
        writer.writerows(figures)
    draw(figures, options.out / "scale.png")
    if options.runs > SETTLED:
        with tempfile.TemporaryDirectory() as cache:
            left = in_a_process("leaks", options.runs, cache)
        print(
            "{runs} runs more leave {grown_mb:+.1f} MB and {grown_objects:+,} objects".format(
                **left
            )
        )
    for enough, text in judged(figures):
        print("pass" if enough else "FAIL", text)


if __name__ == "__main__":
    main()
