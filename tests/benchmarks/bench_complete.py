"""Rows a second and CPU a row of ``df.lbgpt.complete`` beside a bare SDK loop, in one run.

    python tests/benchmarks/bench_complete.py [--rows 10000] [--cached 100000] [--repeats 3]

A FakeProvider without latency answers from a process of its own. Each repeat runs the bare
loop (``AsyncOpenAI`` over aiohttp, 64 in flight, nothing else) and then the accessor with a
new cache directory; the cached column is asked once and then measured. Figures are medians;
compare them with each other, not with another machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time

import openai
import pandas as pd

import lbgpt_pandas as lb
from lbgpt_pandas.testing import ScriptedGPT

SERVER = """
import sys
from lbgpt_pandas.testing import FakeProvider
with FakeProvider(record=False) as server:
    print(server.base_url, flush=True)
    sys.stdin.read()
"""
KEY = "sk-benchmark-0123456789"
IN_FLIGHT = 64


async def bare_loop(base_url: str, prompts: list[str]) -> None:
    client = openai.AsyncOpenAI(
        api_key=KEY, base_url=base_url, http_client=openai.DefaultAioHttpClient(), max_retries=0
    )
    places = asyncio.Semaphore(IN_FLIGHT)

    async def ask(prompt: str) -> str:
        async with places:
            answer = await client.chat.completions.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": prompt}]
            )
            return answer.choices[0].message.content

    answers = await asyncio.gather(*map(ask, prompts))
    assert answers == [f"A:{prompt}" for prompt in prompts]
    await client.close()


def accessor(base_url: str, frame: pd.DataFrame, directory: str) -> None:
    engine = lb.ChatGPT(KEY, base_url=base_url, max_parallel_calls=IN_FLIGHT)
    with lb.using(cache=directory, progress=False):
        answers = frame.lbgpt.complete("{text}", model="gpt-4o-mini", engine=engine)
    assert answers.tolist() == [f"A:{text}" for text in frame["text"]]


def cached(frame: pd.DataFrame, directory: str) -> None:
    with lb.using(cache=directory, progress=False):
        answers = frame.lbgpt.complete("{text}", engine=ScriptedGPT("an answer of some words"))
    assert answers.notna().all()


def measure(name: str, rows: int, call) -> tuple[str, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"  {name:<22}{rows / wall:>10,.0f} rows/s {cpu / rows * 1e6:>10,.1f} us CPU a row")
    return name, rows / wall, cpu / rows * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--cached", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    base_url = server.stdout.readline().strip()
    figures: dict[str, list[tuple[float, float]]] = {}
    try:
        for repeat in range(options.repeats):
            prompts = [f"row {repeat} {number}" for number in range(options.rows)]
            frame = pd.DataFrame({"text": prompts})
            big = pd.DataFrame({"text": [f"row {n} of a column" for n in range(options.cached)]})
            with tempfile.TemporaryDirectory() as directory:
                cached(big, directory)
                runs = [
                    measure("bare SDK loop", options.rows,
                            lambda p=prompts: asyncio.run(bare_loop(base_url, p))),
                    measure("accessor, cold", options.rows,
                            lambda f=frame, d=directory: accessor(base_url, f, d)),
                    measure("accessor, all cached", options.cached,
                            lambda f=big, d=directory: cached(f, d)),
                ]  # fmt: skip
            for name, rate, cpu in runs:
                figures.setdefault(name, []).append((rate, cpu))
    finally:
        server.stdin.close()
        server.wait()
    print("medians")
    for name, values in figures.items():
        rate, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"  {name:<22}{rate:>10,.0f} rows/s {cpu:>10,.1f} us CPU a row")


if __name__ == "__main__":
    main()
