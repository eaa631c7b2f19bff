"""One run of one client, in whatever environment has it; one line of JSON on standard output.

    python tests/benchmarks/peer_clients.py lbgpt_pandas --url http://127.0.0.1:8000 --rows 1000

A client's driver gets the prompts and returns a function that answers them in their order, None
for a row that was lost. What it does before that is not measured; imports count as ``start_s``.
Only the standard library is imported from here on, so that each peer has an interpreter of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MODEL = "gpt-4o-mini"
DRIVERS: dict[str, Callable[[list[str], argparse.Namespace], Callable[[], list[Any]]]] = {}


def prompts_of(rows: int, distinct: int) -> list[str]:
    return [
        f"Classify the sentiment of this review. Number {row % distinct}: the product is fine but "
        f"shipping took {row % distinct % 9} days."
        for row in range(rows)
    ]


def answer_to(prompt: str) -> str:
    return f"A-{zlib.crc32(prompt.encode()):08x}"


def driver(name: str) -> Callable[[Any], Any]:
    return lambda function: DRIVERS.setdefault(name, function)


async def each_of(
    ask: Callable[[int, str], Awaitable[Any]], prompts: list[str], at_once: int
) -> list[Any]:
    """Answers by as many workers as there may be calls in flight; None for what fails."""
    answers: list[Any] = [None] * len(prompts)
    rest = iter(enumerate(prompts))

    async def work() -> None:
        for row, prompt in rest:
            try:
                answers[row] = await ask(row, prompt)
            except Exception as error:
                FAILURES[type(error).__name__] = FAILURES.get(type(error).__name__, 0) + 1

    await asyncio.gather(*(work() for _ in range(min(at_once, len(prompts)))))
    return answers


FAILURES: dict[str, int] = {}


@driver("bare aiohttp")
def bare(prompts, options):
    """The floor: one session, no retries, no limits, nothing kept."""
    import aiohttp

    async def run():
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=options.timeout)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            heads = [
                {"authorization": f"Bearer {key}", "content-type": "application/json"}
                for key in options.keys
            ]

            async def ask(row, prompt):
                messages = [{"role": "user", "content": prompt}]
                body = json.dumps({"model": MODEL, "messages": messages}).encode()
                url = f"{options.url}/v1/chat/completions"
                async with session.post(url, data=body, headers=heads[row % len(heads)]) as reply:
                    raw = await reply.read()
                    reply.raise_for_status()
                    return json.loads(raw)["choices"][0]["message"]["content"]

            return await each_of(ask, prompts, options.at_once)

    return lambda: asyncio.run(run())


@driver("openai SDK")
def sdk(prompts, options):
    """The SDK over aiohttp, with the retries that it has."""
    import openai
    import openai.resources.chat.completions

    async def run():
        client = openai.AsyncOpenAI(
            api_key=options.keys[0],
            base_url=f"{options.url}/v1",
            timeout=options.timeout,
            http_client=openai.DefaultAioHttpClient(),
        )

        async def ask(_row, prompt):
            reply = await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": prompt}]
            )
            return reply.choices[0].message.content

        async with client:
            return await each_of(ask, prompts, options.at_once)

    return lambda: asyncio.run(run())


@driver("lbgpt_pandas")
def ours(prompts, options):
    import aiohttp  # noqa: F401  # loaded at first use otherwise, and imports count as start_s
    import diskcache  # noqa: F401  # the same
    import pandas as pd

    import lbgpt_pandas as lb

    total = sum(options.rpm) or 1

    def engine(key, rpm):
        limits = {"limit_rpm": rpm, "limit_burst_s": options.burst} if rpm else {}
        share = rpm / total if rpm else 1 / len(options.keys)
        return lb.ChatGPT(
            key,
            base_url=f"{options.url}/v1",
            name=key,
            max_parallel_calls=max(1, round(options.at_once * share)),
            request_timeout=options.timeout,
            **limits,
        )

    members = [engine(*each) for each in zip(options.keys, options.rpm, strict=True)]
    one = members[0] if len(members) == 1 else lb.MultiLoadBalancedGPT(members)
    frame = pd.DataFrame({"text": prompts})
    lb.configure(cache=options.cache, progress=False, errors="ignore")

    def run():
        answers = frame.lbgpt.complete("{text}", model=MODEL, engine=one)
        return answers.astype(object).where(answers.notna(), None).tolist()

    return run


@driver("LBGPT")
def lbgpt(prompts, options):
    os.environ["OPENAI_BASE_URL"] = f"{options.url}/v1"
    import lbgpt as package

    settings: dict[str, Any] = {}
    if options.cached:
        import diskcache

        settings["cache"] = diskcache.Cache(options.cache, size_limit=8 << 30)
    total = sum(options.rpm) or 1

    def engine(key, rpm):
        share = rpm / total if rpm else 1
        return package.ChatGPT(
            api_key=key,
            max_parallel_calls=max(1, round(options.at_once * share)),
            limit_rpm=rpm or None,
            limit_tpm=1_000_000 if rpm else None,
            max_usage_cache_size=100_000,
            request_timeout=options.timeout,
            **(settings if len(options.keys) == 1 else {}),
        )

    async def run():
        members = [engine(*each) for each in zip(options.keys, options.rpm, strict=True)]
        one = members[0]
        if len(members) > 1:
            one = package.MultiLoadBalancedGPT(
                gpts=members,
                allocation_function="max_headroom",
                max_parallel_requests=options.at_once,
                **settings,
            )
        requests = [{"model": MODEL, "messages": [{"role": "user", "content": p}]} for p in prompts]
        replies = await one.achat_completion_list(requests, show_progress=False)
        return [r.choices[0].message.content if hasattr(r, "choices") else None for r in replies]

    return lambda: asyncio.run(run())


@driver("openaivec")
def openaivec(prompts, options):
    """A row a request; it can put many into one, which answers another question."""
    import openai
    import openaivec as package
    import pandas as pd
    from openaivec import pandas_ext  # noqa: F401  # registers the accessor

    client = openai.AsyncOpenAI(
        api_key=options.keys[0], base_url=f"{options.url}/v1", timeout=options.timeout
    )

    async def run():
        package.set_async_client(client)
        package.set_responses_model(MODEL)
        column = pd.Series(prompts)
        try:
            answers = await column.aio.responses(
                "Answer.", batch_size=1, max_concurrency=options.at_once
            )
        except Exception as error:
            FAILURES[type(error).__name__] = 1
            return [None] * len(prompts)
        return answers.tolist()

    return lambda: asyncio.run(run())


@driver("litellm Router")
def litellm(prompts, options):
    import litellm as package

    package.suppress_debug_info = True
    if options.cached:
        from litellm.caching.caching import Cache

        package.cache = Cache(type="disk", disk_cache_dir=options.cache)

    async def run():
        where = {"model": f"openai/{MODEL}", "api_base": f"{options.url}/v1"}
        deployments = [
            {
                "model_name": "m",
                "litellm_params": {"api_key": key, **where, **({"rpm": rpm} if rpm else {})},
            }
            for key, rpm in zip(options.keys, options.rpm, strict=True)
        ]
        router = package.Router(
            model_list=deployments,
            num_retries=10,
            timeout=options.timeout,
            cache_responses=options.cached or None,
        )
        extra = {"caching": True} if options.cached else {}

        async def ask(_row, prompt):
            messages = [{"role": "user", "content": prompt}]
            reply = await router.acompletion(model="m", messages=messages, **extra)
            return reply.choices[0].message.content

        return await each_of(ask, prompts, options.at_once)

    return lambda: asyncio.run(run())


@driver("LangChain")
def langchain(prompts, options):
    from langchain_openai import ChatOpenAI

    if options.cached:
        from langchain_community.cache import SQLiteCache
        from langchain_core.globals import set_llm_cache

        home = Path(options.cache)
        home.mkdir(parents=True, exist_ok=True)
        set_llm_cache(SQLiteCache(database_path=str(home / "answers.db")))

    async def run():
        model = ChatOpenAI(
            model=MODEL,
            base_url=f"{options.url}/v1",
            api_key=options.keys[0],
            timeout=options.timeout,
        )
        config = {"max_concurrency": options.at_once}
        replies = await model.abatch(prompts, config=config, return_exceptions=True)
        return [None if isinstance(r, Exception) else r.content for r in replies]

    return lambda: asyncio.run(run())


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("client", choices=sorted(DRIVERS))
    parser.add_argument("--url", required=True)
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--distinct", type=int, help="different prompts; all by default")
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--keys", nargs="+", default=["sk-benchmark-0123456789"])
    parser.add_argument("--rpm", nargs="+", type=int, help="limit of each key, 0 for none")
    parser.add_argument("--burst", type=float, default=60.0)
    parser.add_argument("--timeout", type=float, default=120.0)
    parser.add_argument("--cache", required=True, help="a directory, new or from a run before")
    parser.add_argument("--cached", action="store_true", help="have peers use their own cache")
    options = parser.parse_args()
    options.rpm = options.rpm or [0] * len(options.keys)
    return options


def main() -> None:
    began = time.perf_counter()
    options = arguments()
    report, sys.stdout = sys.stdout, sys.stderr  # some of them print
    prompts = prompts_of(options.rows, options.distinct or options.rows)
    run = DRIVERS[options.client](prompts, options)
    start_s = time.perf_counter() - began
    wall, cpu = time.perf_counter(), cpu_s()
    answers = run()
    wall, cpu = time.perf_counter() - wall, cpu_s() - cpu
    right = sum(
        answer == answer_to(prompt) for answer, prompt in zip(answers, prompts, strict=True)
    )
    lost = answers.count(None)
    figures = {
        "start_s": start_s,
        "wall_s": wall,
        "cpu_s": cpu,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "lost": lost,
        "wrong": len(prompts) - right - lost,
        "failures": FAILURES,
    }
    print(json.dumps(figures), file=report, flush=True)
    os._exit(0)  # some of them leave threads behind


if __name__ == "__main__":
    main()
