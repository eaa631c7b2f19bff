"""FAISS with 100,000 entries and Qdrant's local mode with 10,000: what a lookup costs.

    python tests/benchmarks/bench_semantic.py [--faiss 100000] [--qdrant 10000]

Vectors are drawn at random, of 384 dimensions, queries are stored vectors with a little noise, so
that each has one near entry; answers are of 1,000 characters, all in one scope. Each store runs in
a process of its own, and beside `FaissSemanticCache` a bare index, because both take whatever
processors are free. "single" asks one vector at a time, "64 at once" asks as 64 rows do that run
at the same time, "batch of 512" asks as a column does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from lbgpt_pandas.engine.semantic.base import SemanticEntry
from lbgpt_pandas.engine.semantic.faiss import FaissSemanticCache
from lbgpt_pandas.engine.semantic.qdrant import QdrantSemanticCache

DIMENSIONS = 384
AT_ONCE = 64
BATCH = 512
SCOPE = "s" * 64


def rows(number):
    drawn = np.random.default_rng(0).standard_normal((number, DIMENSIONS), dtype=np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def near(vectors, number):
    generator = np.random.default_rng(1)
    chosen = generator.integers(0, len(vectors), number)
    noisy = vectors[chosen] + 0.004 * generator.standard_normal((number, DIMENSIONS))
    queries = (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
    return chosen, queries


def memory():
    """Return this process's resident megabytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def make(kind, directory):
    if kind == "faiss":
        return FaissSemanticCache(None, directory)
    return QdrantSemanticCache(None, "questions", path=directory)


async def fill(kind, directory, number):
    cache, vectors = make(kind, directory), rows(number)
    entries = [
        SemanticEntry(f"{at:064}", SCOPE, f"question {at} " * 5, "x" * 1_000, row)
        for at, row in enumerate(vectors)
    ]
    started = time.perf_counter()
    for start in range(0, number, 1_000):
        some = entries[start : start + 1_000]
        await asyncio.gather(*(cache.add([entry]) for entry in some))
    figures = {"add/s": number / (time.perf_counter() - started)}
    await cache.close()
    return figures


async def look_up(kind, directory, number):
    cache, vectors = make(kind, directory), rows(number)
    await cache.get_many(["none"])
    before = memory()
    figures = {}
    started = time.perf_counter()
    await cache.search([SCOPE], vectors[:1], at_least=0.985)
    figures["first search s"] = time.perf_counter() - started
    figures["RSS of the entries MB"] = memory() - before

    async def ask(chosen, queries):
        found = await cache.search([SCOPE] * len(queries), queries, at_least=0.985)
        return sum(
            bool(one) and one[0].key == f"{at:064}" for at, one in zip(chosen, found, strict=True)
        )

    single = 100 if kind == "faiss" else 50
    for name, size, at_once, total in (
        ("single", 1, 1, single),
        (f"{AT_ONCE} at once", 1, AT_ONCE, AT_ONCE * 10),
        (f"batch of {BATCH}", BATCH, 1, BATCH * 2),
    ):
        chosen, queries = near(vectors, total)
        pieces = [(chosen[at : at + size], queries[at : at + size]) for at in range(0, total, size)]
        right, started = 0, time.perf_counter()
        for at in range(0, len(pieces), at_once):
            right += sum(await asyncio.gather(*(ask(*one) for one in pieces[at : at + at_once])))
        figures[f"{name}, lookups/s"] = total / (time.perf_counter() - started)
        assert right == total
    if kind == "faiss":
        figures |= bare(vectors)
    keys = [f"{at:064}" for at in range(min(number, 10_000))]
    started = time.perf_counter()
    assert len(await cache.get_many(keys)) == len(keys)
    figures["by key/s"] = len(keys) / (time.perf_counter() - started)
    await cache.close()
    return figures


def bare(vectors):
    """Return what FAISS does by itself, here and now."""
    import faiss

    index = faiss.IndexFlatIP(DIMENSIONS)
    index.add(vectors)
    figures = {}
    for name, size, times in (("single", 1, 100), (f"batch of {BATCH}", BATCH, 2)):
        _, queries = near(vectors, size)
        started = time.perf_counter()
        for _ in range(times):
            index.search(queries, 8)
        figures[f"bare FAISS {name}, lookups/s"] = size * times / (time.perf_counter() - started)
    return figures


def run(work, *arguments):
    """Run in a new process, whose memory is its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(call, (work.__name__, *arguments))


def call(name, *arguments):
    return asyncio.run(globals()[name](*arguments))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faiss", type=int, default=100_000)
    parser.add_argument("--qdrant", type=int, default=10_000)
    arguments = parser.parse_args()
    for kind in ("faiss", "qdrant"):
        number = getattr(arguments, kind)
        if number:
            with tempfile.TemporaryDirectory() as directory:
                place = str(Path(directory) / "cache")
                figures = run(fill, kind, place, number) | run(look_up, kind, place, number)
                size = sum(one.stat().st_size for one in Path(place).rglob("*") if one.is_file())
                figures["on disk MB"] = size / 2**20
            shown = {name: float(f"{value:.3g}") for name, value in figures.items()}
            print(json.dumps({"store": kind, "entries": number, **shown}, indent=2))


if __name__ == "__main__":
    main()
