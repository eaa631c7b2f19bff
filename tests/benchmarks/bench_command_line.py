"""``python -m lbgpt_pandas complete`` on a Parquet file: killed half-way, resumed, calls counted.

    python tests/benchmarks/bench_command_line.py [--rows 50000] [--repeats 1]

A FakeProvider without latency answers from a process of its own. First the accessor alone on a
new cache, in a process that writes no file; then the command on another new cache; then the
command killed with SIGKILL at about half of the calls and started again.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

SERVER = """
import sys
from lbgpt_pandas.testing import FakeProvider
with FakeProvider(record=False) as server:
    print(server.base_url, flush=True)
    for _ in sys.stdin:
        print(server.tally.requests, flush=True)
"""
ACCESSOR = """
import sys
import pandas as pd
import lbgpt_pandas
frame = pd.read_parquet(sys.argv[1])
frame.lbgpt.complete("Is this good? {text}", model="gpt-4o-mini", progress=False)
"""


def command(source: Path, target: Path) -> list[str]:
    return [
        sys.executable, "-m", "lbgpt_pandas", "complete", str(source), "--out", str(target),
        "--template", "Is this good? {text}", "--model", "gpt-4o-mini",
    ]  # fmt: skip


def timed(name: str, words: list[str], environment: dict[str, str]) -> None:
    started = time.perf_counter()
    process = subprocess.Popen(words, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    seconds = time.perf_counter() - started
    print(f"{name}: {seconds:.1f} s, {used.ru_utime + used.ru_stime:.1f} s CPU, as a process")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    base_url = server.stdout.readline().strip()

    def calls() -> int:
        server.stdin.write("\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as name:
            measure(Path(name), options.rows, base_url, calls)
    server.stdin.close()
    server.wait()


def measure(folder: Path, rows: int, base_url: str, calls) -> None:
    source, target = folder / "in.parquet", folder / "out.parquet"
    pd.DataFrame({"id": range(rows), "text": [f"review {n}" for n in range(rows)]}).to_parquet(
        source
    )

    def environment(cache: str) -> dict[str, str]:
        return os.environ | {
            "OPENAI_API_KEY": "sk-benchmark-0123456789",
            "OPENAI_BASE_URL": base_url,
            "LBGPT_CACHE_DIR": str(folder / cache),
        }

    timed("accessor", [sys.executable, "-c", ACCESSOR, str(source)], environment("engine"))
    timed("command", command(source, target), environment("whole"))
    before = calls()
    first = subprocess.Popen(command(source, folder / "killed.parquet"), env=environment("killed"))
    while calls() - before < rows // 2:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    time.sleep(0.5)
    half = calls() - before
    started = time.perf_counter()
    subprocess.run(
        command(source, folder / "killed.parquet"), env=environment("killed"), check=True
    )
    seconds, total = time.perf_counter() - started, calls() - before
    result = pd.read_parquet(folder / "killed.parquet")
    right = (result["answer"] == "A:Is this good? " + result["text"]).all()
    print(
        f"killed after {half:,} calls; the second took {total - half:,} calls and {seconds:.1f} s; "
        f"{total:,} calls for {rows:,} rows, {total - rows:,} twice; all right: {right}; "
        f"files: {sorted(path.name for path in folder.iterdir() if path.is_file())}"
    )


if __name__ == "__main__":
    main()
