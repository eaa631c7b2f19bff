"""Ours beside the bare client and the peers, in one run: ``task bench``.

    python -m tests.benchmarks.bench_peers [S1 S2 ...] [--repeats 3] [--clients NAME ...]
    python -m tests.benchmarks.bench_peers --install      (once, for the peers; needs a registry)

Provider and client are a process and a core each. Within a repeat the clients follow each other, so
that a ratio is one of figures of the same minutes; what is shown are medians over the repeats. A
client whose environment is missing is left out. ``build/benchmarks`` gets every run as
``runs.csv``, the medians as ``table.md`` and ``table.png``.

CPU is that of the client's process, without what is imported before its first call; what a client
imports only then, as ours does the SDK, counts, and is spread over the rows. A time without its ratio says little about
another machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.scenarios import (
    FLOOR,
    OURS,
    SCENARIOS,
    Run,
    Scenario,
    cores,
    install_peers,
    interpreters,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
PLACE = Path("build/benchmarks")
LONGEST_S = 300.0
COLUMNS = (
    *("scenario", "client", "repeat", "rows", "wall_s", "cpu_s", "start_s", "rss_mb"),
    *("lost", "wrong", "requests", "refused", "load", "failures"),
)
HEADINGS = (
    *("x bare", "x ours", "rows/s", "CPU us/row", "RSS MB", "of ideal", "429s", "requests"),
    *("lost", "wrong"),
)
OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "DO_NOT_TRACK": "1",
    "TELEMETRY_ENABLED": "false",
    "LANGSMITH_TRACING": "false",
    "OPENAI_API_KEY": "sk-benchmark-0123456789",
    "NO_PROXY": "127.0.0.1",
    "PYTHONWARNINGS": "ignore",
}


class Provider:
    """A running `rapid_provider`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def configure(self, config: dict[str, Any]) -> None:
        """Set what it does, and forget what it has counted."""
        self._call("/config", json.dumps(config).encode())

    def stats(self) -> dict[str, Any]:
        return self._call("/stats", b"{}")

    def _call(self, path: str, body: bytes) -> dict[str, Any]:
        with urllib.request.urlopen(self.url + path, data=body, timeout=30) as reply:
            return json.loads(reply.read())


@contextmanager
def provider(python: str) -> Iterator[Provider]:
    core, _ = cores()
    with subprocess.Popen(
        [*core, python, HERE / "rapid_provider.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Provider(process.stdout.readline().strip())
        # The end of its input is the end of the provider, also where the block raises.


def asked(python: str, arguments: list[str], url: str, cache: str) -> Run:
    """Run a client to its end; without ``wall_s`` if it came to none."""
    _, core = cores()
    command = [*core, python, str(HERE / "peer_clients.py"), *arguments]
    try:
        done = subprocess.run(
            [*command, "--url", url, "--cache", cache],
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST_S,
            env={**os.environ, **OFFLINE},
        )
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"failures": f"not finished after {LONGEST_S:.0f} s"}
    except (IndexError, ValueError):
        return {"failures": (done.stderr.strip().splitlines() or ["crashed"])[-1][:200]}


def measure(server: Provider, name: str, client: str, python: str, repeat: int) -> Run:
    scenario = SCENARIOS[name]
    with tempfile.TemporaryDirectory() as home:
        arguments, cache = scenario.arguments(client), str(Path(home) / "cache")
        if scenario.is_warm:
            asked(python, arguments, server.url, cache)
        server.configure(scenario.provider)
        figures = asked(python, arguments, server.url, cache)
    stats = server.stats()
    return {
        "scenario": name,
        "client": client,
        "repeat": repeat,
        "rows": scenario.rows_of(client),
        "requests": stats["requests"],
        "refused": stats["statuses"].get("429", 0),
        "load": os.getloadavg()[0],
        **figures,
    }


def median(runs: list[Run], of: Any) -> float | None:
    values = [of(run) for run in runs if "wall_s" in run]
    return statistics.median(values) if values else None


def ratios(runs: list[Run], others: list[Run], of: Any) -> float | None:
    """Median of the ratios to another client, each within its repeat."""
    theirs = {run["repeat"]: of(run) for run in others if "wall_s" in run}
    found = [
        of(run) / theirs[run["repeat"]]
        for run in runs
        if "wall_s" in run and theirs.get(run["repeat"])
    ]
    return statistics.median(found) if found else None


def table(runs: list[Run]) -> list[str]:
    """Lines of Markdown: for each scenario a table with a line for each client."""
    lines = []
    for name in dict.fromkeys(run["scenario"] for run in runs):
        scenario = SCENARIOS[name]
        mine = [run for run in runs if run["scenario"] == name]
        lines += [
            f"\n{name}: {scenario.about}; {scenario.rows:,} rows (others {scenario.rows_of(''):,})",
            "",
            f"| client | {scenario.figure.title} | {' | '.join(HEADINGS)} |",
            "|---" * 12 + "|",
        ]
        for client in dict.fromkeys(run["client"] for run in mine):
            lines.append(line(scenario, client, mine))
    return lines


def line(scenario: Scenario, client: str, runs: list[Run]) -> str:
    own = [run for run in runs if run["client"] == client]
    if not any("wall_s" in run for run in own):
        return f"| {client} | {own[-1]['failures']} |" + " |" * 10
    of = scenario.figure.of
    floor, ours = ([r for r in runs if r["client"] == name] for name in (FLOOR, OURS))
    wall_s = median(own, lambda run: run["wall_s"])
    cells = [
        shown(median(own, of)),
        shown(ratios(own, floor, of)),
        shown(ratios(own, ours, of)),
        shown(median(own, lambda run: run["rows"] / run["wall_s"])),
        shown(median(own, lambda run: run["cpu_s"] / run["rows"] * 1e6)),
        shown(median(own, lambda run: run["rss_mb"])),
        shown(scenario.ideal_s and scenario.ideal_s / wall_s),
        *(shown(median(own, lambda run, n=n: run[n])) for n in ("refused", "requests")),
        *(shown(max(run.get(n, 0) for run in own)) for n in ("lost", "wrong")),
    ]
    return f"| {client} | {' | '.join(cells)} |"


def shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def write(runs: list[Run], place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    with (place / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(runs)
    loads = [run["load"] for run in runs]
    about = (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}; load {min(loads):.1f} to {max(loads):.1f}; medians of "
        f"{max(run['repeat'] for run in runs) + 1}"
    )
    text = "\n".join([about, *table(runs)]) + "\n"
    (place / "table.md").write_text(text)
    print(text)
    draw(runs, place / "table.png", about)


def draw(runs: list[Run], path: Path, about: str) -> None:
    """One panel of bars for each scenario, of the figure that it is about."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(run["scenario"] for run in runs))
    columns = min(3, len(names))
    height = -(-len(names) // columns)
    figure, axes = plt.subplots(
        height, columns, figsize=(4.6 * columns, 2.6 * height), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for name, axis in zip(names, axes.flat, strict=False):
        scenario = SCENARIOS[name]
        values, texts = {}, {}
        for client in dict.fromkeys(run["client"] for run in runs):
            own = [r for r in runs if r["client"] == client and r["scenario"] == name]
            if (value := median(own, scenario.figure.of)) is not None:
                lost = max(run.get("lost", 0) for run in own)
                values[client] = value
                texts[client] = shown(value) + (f" ({lost:,} rows lost)" if lost else "")
        labels = list(values)[::-1]
        colours = ["tab:blue" if label == OURS else "0.7" for label in labels]
        bars = axis.barh(labels, [values[label] for label in labels], color=colours)
        axis.bar_label(bars, [texts[label] for label in labels], padding=3, fontsize=8)
        better = "more" if scenario.figure.more_is_better else "less"
        axis.set_title(f"{name}: {scenario.figure.title} ({better} is better)", fontsize=9)
        axis.margins(x=0.35)
        axis.tick_params(labelsize=8)
        if scenario.ideal_s:
            axis.axvline(scenario.ideal_s, color="tab:green", linestyle=":")
    figure.suptitle(about, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clients", nargs="+", help="all that can run by default")
    parser.add_argument("--install", action="store_true", help="install the peers first")
    parser.add_argument("--out", type=Path, default=PLACE)
    options = parser.parse_args()
    for name in options.scenarios:
        if name not in SCENARIOS:
            parser.error(f"{name!r} is none of {', '.join(SCENARIOS)}")
    if options.install:
        install_peers()
    pythons = interpreters()
    runs: list[Run] = []
    try:
        with provider(pythons[OURS]) as server:
            for name in options.scenarios or SCENARIOS:
                for repeat in range(options.repeats):
                    for client in SCENARIOS[name].clients:
                        wanted = not options.clients or client in options.clients
                        if wanted and client in pythons:
                            run = measure(server, name, client, pythons[client], repeat)
                            runs.append(run)
                            print(f"{time.strftime('%H:%M:%S')} {run}", flush=True)
    finally:
        if runs:  # also those before an interrupt
            write(runs, options.out)


if __name__ == "__main__":
    main()
