"""What the comparison asks of every client, and the clients."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Run = dict[str, Any]
"""Figures of one client in one scenario, as `peer_clients` and the provider give them."""

PEERS_PLACE = Path(os.environ.get("LBGPT_BENCH_PEERS", "~/.cache/lbgpt_pandas_benchmarks"))
AT_ONCE = 64
FLOOR, OURS = "bare aiohttp", "lbgpt_pandas"

PEERS = {
    "LBGPT": [
        "lbgpt==0.7.1",  # declares none of the others
        *("litellm!=1.107.0", "openai", "tenacity", "cachetools", "tqdm"),
        *("nest_asyncio", "diskcache", "pandas"),
    ],
    "openaivec": ["openaivec"],
    "litellm Router": ["litellm[proxy]!=1.107.0", "diskcache"],
    "LangChain": ["langchain-openai", "langchain-community"],
}
"""What is installed for each peer, in an environment of its own."""

KEYS = {"sk-benchmark-first-01": 1_200, "sk-benchmark-second-2": 2_400}
FAULTS = {"429": 0.03, "500": 0.02, "reset": 0.01, "hang": 0.005}


@dataclass(frozen=True)
class Figure:
    """The one number that a scenario is about.

    Attributes
    ----------
    title : str
        What it is, with its unit.
    of : callable
        Gets a run, returns the number.
    more_is_better : bool
        Otherwise less is.
    """

    title: str
    of: Callable[[Run], float]
    more_is_better: bool = False


ROWS_A_SECOND = Figure("rows a second", lambda run: run["rows"] / run["wall_s"], True)
CPU_A_ROW = Figure("CPU us a row", lambda run: run["cpu_s"] / run["rows"] * 1e6)
WALL = Figure("seconds", lambda run: run["wall_s"])
REQUESTS = Figure("requests sent a row", lambda run: run["requests"] / run["rows"])
START = Figure("seconds to the first answer", lambda run: run["start_s"] + run["wall_s"])
WARM = Figure("cached rows a CPU second", lambda run: run["rows"] / run["cpu_s"], True)


@dataclass(frozen=True)
class Scenario:
    """A provider's behaviour and a number of rows.

    Attributes
    ----------
    about : str
        One line.
    figure : Figure
        What it is about.
    rows, peer_rows : int
        For the floor and for us; for the others, who are slower, where the figure is a rate.
    provider : dict
        Of `rapid_provider.Config`.
    at_once : int
        Calls in flight at most.
    rpm : dict of str to int
        Keys with limits, which the clients are told.
    is_warm : bool
        The rows are asked once before, into a cache that persists.
    ideal_s : float or None
        Seconds that a perfect client takes.
    """

    about: str
    figure: Figure
    rows: int
    peer_rows: int | None = None
    provider: dict[str, Any] = field(default_factory=dict)
    at_once: int = AT_ONCE
    rpm: dict[str, int] = field(default_factory=dict)
    distinct_share: float = 1.0
    timeout_s: float = 120.0
    is_warm: bool = False
    ideal_s: float | None = None

    @property
    def clients(self) -> list[str]:
        """Who can take part: not everybody has several keys, or a cache that persists."""
        if self.is_warm:
            return [OURS, "LBGPT", "litellm Router", "LangChain"]
        if len(self.rpm) > 1:
            return [OURS, "LBGPT", "litellm Router"]
        if self.rpm:
            return [OURS, "openai SDK", *PEERS]
        return [FLOOR, OURS, "openai SDK", *PEERS]

    def rows_of(self, client: str) -> int:
        return self.rows if client in {FLOOR, OURS} else self.peer_rows or self.rows

    def arguments(self, client: str) -> list[str]:
        """Command line of `peer_clients`, but for the address and the cache."""
        rows = self.rows_of(client)
        given = [client, "--rows", str(rows), "--at-once", str(self.at_once)]
        given += ["--timeout", str(self.timeout_s)]
        if self.distinct_share < 1:
            given += ["--distinct", str(max(1, round(rows * self.distinct_share)))]
        if self.rpm:
            given += ["--keys", *self.rpm, "--rpm", *map(str, self.rpm.values())]
            given += ["--burst", str(self.provider["burst_s"])]
        return [*given, "--cached"] if self.is_warm else given


def limited(rows: int, rpm: dict[str, int], burst_s: float, about: str) -> Scenario:
    total = sum(rpm.values())
    latency_s = 0.1
    ideal_s = (rows - total * burst_s / 60) / total * 60 + latency_s
    if burst_s == 60:  # a minute's window, the only pace that every provider lets pass
        windows = -(-rows // total) - 1
        ideal_s = 60 * windows + (rows - total * windows) * latency_s / AT_ONCE + latency_s
    return Scenario(
        about,
        WALL,
        rows,
        provider={"p50_s": latency_s, "rpm": rpm, "burst_s": burst_s},
        rpm=rpm,
        ideal_s=ideal_s,
    )


SCENARIOS = {
    "S1": Scenario("nothing but the client's own work", CPU_A_ROW, 10_000, 2_000),
    "S2": Scenario(
        "latency of 0.2 s, one in a hundred 1.5 s, 200 at once",
        WALL,
        5_000,
        provider={"p50_s": 0.2, "p99_s": 1.5},
        at_once=200,
    ),
    "S3a": limited(6_000, KEYS, 60, "two keys, a minute's requests may come at once"),
    "S3b": limited(2_400, KEYS, 1, "two keys, a second's requests may come at once"),
    "S3s": limited(2_400, {"sk-benchmark-alone-01": 3_600}, 1, "the same with one key"),
    "S4": Scenario("every row cached on disk", WARM, 100_000, 3_000, is_warm=True),
    "S5": Scenario(
        "3 % 429, 2 % 500, 1 % reset, 0.5 % hang",
        WALL,
        2_000,
        provider={"p50_s": 0.1, "faults": FAULTS},
        timeout_s=10.0,
    ),
    "S6": Scenario("one row in twenty differs", REQUESTS, 10_000, 2_000, distinct_share=0.05),
    "S7": Scenario("import, client and the first answer", START, 1),
}


def interpreters() -> dict[str, str]:
    """Interpreter of each client that can run here."""
    found = {FLOOR: sys.executable, OURS: sys.executable, "openai SDK": sys.executable}
    for name in PEERS:
        python = interpreter_of(name)
        if python.exists():
            found[name] = str(python)
    return found


def interpreter_of(peer: str) -> Path:
    return PEERS_PLACE.expanduser() / peer.replace(" ", "_") / "bin" / "python"


def install_peers() -> None:
    """Install every peer into an environment of its own, outside this one's."""
    for name, packages in PEERS.items():
        python = interpreter_of(name)
        print(f"installing {name} into {python.parents[1]}", flush=True)
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)


def cores() -> tuple[list[str], list[str]]:
    """What binds the provider and the client to a core each; nothing where that is impossible."""
    usable = sorted(os.sched_getaffinity(0)) if shutil.which("taskset") else []
    if len(usable) < 2:
        return [], []
    return ["taskset", "-c", str(usable[-1])], ["taskset", "-c", str(usable[0])]
