"""Two keys with different limits: how close a column comes to the ideal, and at what price.

    python tests/benchmarks/bench_limits.py [S3a S3b ...] [--repeats 1] [--peers]

A FakeProvider that refuses answers from a process of its own, each run of a client from
another. With ``--peers`` the same rows go through litellm's Router (extra ``litellm``), and
through LBGPT if ``LBGPT_PYTHON`` names an interpreter that has it, in the same run.

Ideal seconds are those of the drained limits, ``T_rate + N_last * latency / places + latency``,
where ``T_rate`` is ``60 * (ceil(rows / limit) - 1)`` where a whole minute may be sent at once and
``60 * (rows - burst) / limit`` where the provider has a bucket of ``burst`` requests, with the
limits of both keys added up. Efficiency is ideal by measured. The column runs through
``df.lbgpt.complete``, imports are not counted. Server and client have a core each, where the system
can bind them.

S3a and S3w differ in the server alone. A bucket of a minute does not notice a client that fills a
sliding minute too full; and it would let one that knew it for a bucket finish S3a in 40 s. Nobody
tells a client which of the two it has before it, and only the window's pace is safe with both.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = """
import json, sys
from lbgpt_pandas.testing import FakeProvider, Fault, KeyLimits
config = json.loads(sys.argv[1])
limits = {key: KeyLimits(**values) for key, values in config["limits"].items()}
rates = config["faults"]
KINDS = {"429": lambda: Fault.rate_limited(1.0), "500": Fault.server_error,
         "reset": Fault.reset, "hang": lambda: Fault.hang()}
def faults(record):
    # Drawn from the row's text and its try, so that each client meets the same ones.
    import hashlib
    text = record.body["messages"][-1]["content"]
    tries[text] = tries.get(text, 0) + 1
    draw = int.from_bytes(hashlib.blake2b(f"{text}|{tries[text]}".encode(), digest_size=4).digest()) / 2**32
    for kind, rate in rates.items():
        if draw < rate:
            return KINDS[kind]()
        draw -= rate
tries = {}
with FakeProvider(limits=limits, latency_s=0.1, faults=faults if rates else None) as server:
    print(server.azure_base, flush=True)
    sys.stdin.read()
    tally, requests = server.tally, server.requests
    # The first two windows are there to learn from.
    late = [r.status for r in requests if r.at > requests[0].at + 2 * config["burst_s"]]
    print(json.dumps({"status": {str(k): v for k, v in tally.by_status.items()},
                      "late": late.count(429) / len(late) if late else None,
                      "by_key": {str(key): count for (key, status), count in tally.by_key_status.items() if status == 200}}))
"""

LATENCY_S = 0.1
PLACES = 128
KEYS = {"k1": 1_200, "k2": 2_400}
FAULTS = {"429": 0.03, "500": 0.02, "reset": 0.01, "hang": 0.005}
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Scenario:
    """A server and a number of rows; `burst_s` is the span over which it enforces its limits."""

    rows: int
    keys: dict[str, int]
    burst_s: float
    window: str = "bucket"
    azure: bool = False
    faults: dict[str, float] | None = None

    @property
    def ideal_s(self) -> float:
        total = sum(self.keys.values())
        if not total:
            return self.rows * LATENCY_S / 64
        capacity = total * self.burst_s / 60
        if self.burst_s == 60:
            windows = math.ceil(self.rows / total) - 1
            return 60 * windows + (self.rows - total * windows) * LATENCY_S / PLACES + LATENCY_S
        return (self.rows - capacity) / total * 60 + LATENCY_S

    def server(self) -> dict[str, object]:
        limits = {
            key: {"rpm": rpm, "burst_s": self.burst_s, "window": self.window}
            if self.window == "bucket"
            else {
                "rpm": rpm,
                "window": "sliding",
                **({"burst_s": self.burst_s} if self.burst_s < 60 else {}),
            }
            for key, rpm in self.keys.items()
            if rpm
        }
        return {"limits": limits, "faults": self.faults or {}, "burst_s": self.burst_s}


SCENARIOS = {
    "S3a": Scenario(6_000, KEYS, 60.0),
    "S3w": Scenario(6_000, KEYS, 60.0, window="sliding"),
    "S3b": Scenario(2_400, KEYS, 1.0),
    "S3s": Scenario(2_400, {"kk": 3_600}, 1.0),
    "azure": Scenario(4_800, KEYS, 10.0, window="sliding", azure=True),
    "S5ok": Scenario(2_000, {"d": 0}, 60.0),
    "S5": Scenario(2_000, {"d": 0}, 60.0, faults=FAULTS),
}
FAULTS_MAY_COST = 1.5
LARGEST_SHARE_ERROR = 0.03
LEAST = {"told": 0.95, "burst not told": 0.90, "nothing told": 0.80}
MOST_REFUSED = {"told": 0.0, "burst not told": 0.02, "nothing told": 0.10}

OURS = """
import json, sys, time, warnings
import pandas as pd
import openai, openai.resources.chat.completions
import lbgpt_pandas as lb
url, azure, keys, burst_s, told, rows, timeout = json.loads(sys.argv[1])
warnings.simplefilter("ignore")
def engine(key, rpm):
    limits = {}
    if rpm and told != "nothing told":
        limits["limit_rpm"] = rpm
    if rpm and told == "told":
        limits["limit_burst_s"] = burst_s
    if rpm:  # 128 places in all, in proportion to the limits, so that they do not decide the shares
        limits["max_parallel_calls"] = round(128 * rpm / sum(keys.values()))
    if azure:
        models = {"gpt-4o-mini": "gpt-4o-mini"}
        return lb.AzureGPT(key, url, models, name=key, request_timeout=timeout, **limits)
    return lb.ChatGPT(key, base_url=f"{url}/v1", name=key, request_timeout=timeout, **limits)
engines = [engine(key, rpm) for key, rpm in keys.items()]
one = engines[0] if len(engines) == 1 else lb.MultiLoadBalancedGPT(engines, "max_headroom")
frame = pd.DataFrame({"t": [f"row {number}" for number in range(rows)]})
lb.configure(cache=None, progress=False, errors="ignore")
wall, cpu = time.perf_counter(), time.process_time()
answers = frame.lbgpt.complete("{t}", model="gpt-4o-mini", engine=one)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
good = sum(a == "A:" + t for a, t in zip(answers.fillna(""), frame["t"]))
print(json.dumps({"wall": wall, "cpu": cpu, "good": good, "lost": int(answers.isna().sum())}))
"""

PEER = """
import asyncio, json, logging, os, sys, time
logging.disable(logging.CRITICAL)
kind, url, azure, keys, strategy, rows, timeout = json.loads(sys.argv[1])
version = "2024-10-21"
prompts = [f"row {number}" for number in range(rows)]
ask = lambda p: [{"role": "user", "content": p}]
async def litellm_run():
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm
    litellm.suppress_debug_info = True
    where = {"model": "azure/gpt-4o-mini", "api_base": url, "api_version": version} if azure else {
        "model": "openai/gpt-4o-mini", "api_base": f"{url}/v1"}
    deployments = [{"model_name": "m", "litellm_params": {"api_key": key, **where, **({"rpm": rpm} if rpm else {})}}
                   for key, rpm in keys.items()]
    router = litellm.Router(model_list=deployments, num_retries=10, timeout=timeout, routing_strategy=strategy)
    places = asyncio.Semaphore(64)
    async def one(p):
        async with places:
            try:
                return (await router.acompletion(model="m", messages=ask(p))).choices[0].message.content
            except Exception:
                return None
    began = time.perf_counter(), time.process_time()
    return began, await asyncio.gather(*map(one, prompts))
async def lbgpt_run():
    os.environ["OPENAI_BASE_URL"] = f"{url}/v1"
    import lbgpt
    total = sum(keys.values()) or 1
    def gpt(key, rpm):
        settings = {"max_parallel_calls": max(1, round(64 * rpm / total)) if rpm else 64, "limit_rpm": rpm or None,
                    "limit_tpm": 1_000_000, "max_usage_cache_size": 100_000, "request_timeout": timeout}
        if azure:
            return lbgpt.AzureGPT(key, url, {"gpt-4o-mini": "gpt-4o-mini"}, azure_openai_version=version, **settings)
        return lbgpt.ChatGPT(api_key=key, **settings)
    gpts = [gpt(key, rpm) for key, rpm in keys.items()]
    engine = gpts[0] if len(gpts) == 1 else lbgpt.MultiLoadBalancedGPT(gpts=gpts, allocation_function=strategy,
        allocation_function_weights=list(keys.values()) if strategy == "random" else None, max_parallel_requests=64)
    began = time.perf_counter(), time.process_time()
    answers = await engine.achat_completion_list([{"model": "gpt-4o-mini", "messages": ask(p)} for p in prompts], show_progress=False)
    return began, [a.choices[0].message.content if hasattr(a, "choices") else None for a in answers]
(wall, cpu), answers = asyncio.run(litellm_run() if kind == "litellm" else lbgpt_run())
print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu,
                  "good": sum(a == "A:" + p for a, p in zip(answers, prompts)), "lost": answers.count(None)}), flush=True)
os._exit(0)
"""


def clients(peers: bool) -> list[tuple[str, str, str, list[object]]]:
    """Name, interpreter, program and the argument that is its own, of each client."""
    found: list[tuple[str, str, str, list[object]]] = [
        (f"ours, {told}", sys.executable, OURS, [told]) for told in LEAST
    ]
    if peers:
        found += [
            (
                f"litellm {strategy}",
                os.environ.get("LITELLM_PYTHON", sys.executable),
                PEER,
                ["litellm", strategy],
            )
            for strategy in ("least-busy", "simple-shuffle")
        ]
        if python := os.environ.get("LBGPT_PYTHON"):
            found += [
                (f"LBGPT {strategy}", python, PEER, ["lbgpt", strategy])
                for strategy in ("max_headroom", "random")
            ]
    return found


def run(scenario: Scenario, python: str, program: str, own: list[object]) -> dict[str, object]:
    server_core, client_core = cores()
    server = subprocess.Popen(
        [*server_core, sys.executable, "-c", SERVER, json.dumps(scenario.server())],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    url = server.stdout.readline().strip()
    if program is OURS:
        argument = [url, scenario.azure, scenario.keys, scenario.burst_s, own[0]]
    else:
        argument = [own[0], url, scenario.azure, scenario.keys, own[1]]
    argument += [scenario.rows, TIMEOUT_S]
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [*client_core, python, "-W", "ignore", "-c", program, json.dumps(argument)],
            capture_output=True, text=True, check=False, timeout=900,
            env={**os.environ, "LBGPT_CACHE_DIR": str(Path(home) / "cache"), "OPENAI_API_KEY": "k1"},
        )  # fmt: skip
    rest, _ = server.communicate()
    try:
        figures = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        figures = {"wall": math.nan, "cpu": math.nan, "good": 0, "lost": scenario.rows}
        print(done.stderr[-500:], file=sys.stderr)
    return {**figures, **json.loads(rest)}


def cores() -> tuple[list[str], list[str]]:
    """What binds the server and the client to a core each; nothing where that is not possible."""
    usable = sorted(os.sched_getaffinity(0)) if shutil.which("taskset") else []
    if len(usable) < 2:
        return [], []
    return ["taskset", "-c", str(usable[1])], ["taskset", "-c", str(usable[0])]


@dataclass(frozen=True)
class Figures:
    """What one client has done in a scenario: medians of times, the worst of everything else."""

    scenario: Scenario
    wall_s: float
    cpu_s: float
    refused: int
    refused_late: float
    lost: int
    wrong: int
    share_error: float

    @classmethod
    def of(cls, scenario: Scenario, runs: list[dict]) -> Figures:
        refused = max(run["status"].get("429", 0) for run in runs)
        late = [run["late"] for run in runs if run["late"] is not None]
        return cls(
            scenario,
            wall_s=statistics.median(run["wall"] for run in runs),
            cpu_s=statistics.median(run["cpu"] for run in runs),
            refused=refused,
            refused_late=max(late) if late else refused / scenario.rows,
            lost=max(run["lost"] for run in runs),
            wrong=max(scenario.rows - run["good"] - run["lost"] for run in runs),
            share_error=max(share_error(scenario, run["by_key"]) for run in runs),
        )

    @property
    def efficiency(self) -> float:
        return self.scenario.ideal_s / self.wall_s

    def __str__(self) -> str:
        return (
            f"{self.wall_s:>9.2f}{self.scenario.ideal_s:>9.2f}{self.efficiency:>8.3f}"
            f"{self.refused:>8}{self.refused_late:>8.1%}{self.lost:>7}{self.wrong:>7}"
            f"{self.share_error:>9.1%}{self.cpu_s:>9.1f}{os.getloadavg()[0]:>7.1f}"
        )


def share_error(scenario: Scenario, answered: dict[str, int]) -> float:
    """How far a key's share of the answers is off its limit's share of the limits, at most."""
    total, limits = sum(answered.values()) or 1, sum(scenario.keys.values())
    return max(
        (
            abs(answered.get(key, 0) / total * limits / rpm - 1)
            for key, rpm in scenario.keys.items()
            if rpm
        ),
        default=0.0,
    )


def judged(name: str, told: str, figures: Figures) -> Iterator[tuple[str, str, bool]]:
    """What is asked for where there are limits, what was measured, and whether that is enough."""
    what, least, most = f"{name}, {told}", LEAST[told], MOST_REFUSED[told]
    lost = figures.lost + figures.wrong
    refused = figures.refused / figures.scenario.rows
    if told == "nothing told":
        refused = figures.refused_late
    efficiency = figures.efficiency
    yield f"{what}: efficiency", f"{efficiency:.3f}, at least {least}", efficiency >= least
    yield f"{what}: rows lost", f"{lost}, at most 0", lost == 0
    yield f"{what}: 429s", f"{refused:.2%}, at most {most:.0%}", refused <= most
    if told == "told":
        error = figures.share_error
        enough = error <= LARGEST_SHARE_ERROR
        yield f"{what}: shares off by", f"{error:.1%}, at most {LARGEST_SHARE_ERROR:.0%}", enough


def judged_faults(clean: Figures, faulty: Figures) -> Iterator[tuple[str, str, bool]]:
    """Compare a run with faults with one without."""
    lost = faulty.lost + faulty.wrong
    most_s = FAULTS_MAY_COST * clean.wall_s + TIMEOUT_S
    wall_s = faulty.wall_s
    yield "S5: rows lost", f"{lost}, at most 0", lost == 0
    yield "S5: wall", f"{wall_s:.1f} s, at most {most_s:.1f} s", wall_s <= most_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    verdicts: list[tuple[str, str, bool]] = []
    unlimited: dict[str, Figures] = {}
    for name in options.scenarios:
        scenario = SCENARIOS[name]
        print(
            f"{name}: {scenario.rows:,} rows, limits {scenario.keys}\n  {'':<22}"
            "   wall s  ideal s    eff.    429s   late   lost  wrong   shares    cpu s   load"
        )
        for client, python, program, own in clients(options.peers):
            is_ours = program is OURS
            if name.startswith("S5") and is_ours and own != ["told"]:
                continue  # where there are no limits there is nothing to tell
            figures = Figures.of(
                scenario, [run(scenario, python, program, own) for _ in range(options.repeats)]
            )
            print(f"  {client:<22}{figures}", flush=True)
            if is_ours and name.startswith("S5"):
                unlimited[name] = figures
            elif is_ours:
                verdicts += judged(name, str(own[0]), figures)
    if len(unlimited) == 2:
        verdicts += judged_faults(unlimited["S5ok"], unlimited["S5"])
    for what, figure, enough in verdicts:
        print(f"{'pass' if enough else 'FAIL'}  {what} {figure}")
    sys.exit(not all(enough for *_, enough in verdicts))


if __name__ == "__main__":
    main()
