"""What the comparison with the peers is built on: its provider, its clients, its arithmetic."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.bench_peers import Provider, asked, median, provider, ratios, table
from tests.benchmarks.peer_clients import answer_to, prompts_of
from tests.benchmarks.scenarios import FLOOR, OURS, SCENARIOS, limited

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def server() -> Iterator[Provider]:
    with provider(sys.executable) as running:
        yield running


def ask(server: Provider, prompt: str, key: str = "k") -> tuple[int, dict, dict]:
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"authorization": f"Bearer {key}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return reply.status, json.loads(reply.read()), dict(reply.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read()), dict(error.headers)


def test_an_answer_follows_from_the_prompt(server: Provider) -> None:
    server.configure({})
    status, body, _ = ask(server, "a question")
    assert status == 200
    assert body["choices"][0]["message"]["content"] == answer_to("a question")
    assert server.stats()["by_key"] == {"k": 1}


def test_a_key_is_refused_beyond_its_bucket_and_another_is_not(server: Provider) -> None:
    server.configure({"rpm": {"k": 60}, "burst_s": 2})
    statuses = [ask(server, f"row {row}")[0] for row in range(3)]
    status, body, headers = ask(server, "row 3")
    assert statuses == [200, 200, 429]
    assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 0 < float(headers["retry-after-ms"]) <= 1_000
    assert ask(server, "row 3", key="other")[0] == 200


def test_each_client_meets_the_same_faults(server: Provider) -> None:
    rounds = []
    for _ in range(2):
        server.configure({"faults": {"429": 0.2, "500": 0.2}})
        rounds.append([ask(server, f"row {row}")[0] for row in range(50)])
    assert rounds[0] == rounds[1]
    assert set(rounds[0]) == {200, 429, 500}


def test_a_client_is_measured_and_its_answers_are_checked(server: Provider) -> None:
    server.configure({})
    run = asked(sys.executable, [FLOOR, "--rows", "20", "--distinct", "5"], server.url, "unused")
    assert (run["lost"], run["wrong"]) == (0, 0)
    assert run["wall_s"] > 0
    stats = server.stats()
    assert (stats["requests"], stats["distinct"]) == (20, 5)
    assert len(set(prompts_of(20, 5))) == 5


def test_a_client_that_fails_is_told_as_such(server: Provider) -> None:
    run = asked(sys.executable, ["nobody"], server.url, "unused")
    assert "wall_s" not in run
    assert "nobody" in run["failures"]


def test_ratios_are_of_the_same_repeat() -> None:
    def runs(*seconds: float) -> list[dict]:
        return [{"repeat": number, "wall_s": each} for number, each in enumerate(seconds)]

    # The machine was three times slower in the second repeat; the ratio was 2 all the time.
    slow, quick = runs(2.0, 6.0, 2.0), runs(1.0, 3.0, 1.0)
    assert ratios(slow, quick, lambda run: run["wall_s"]) == 2.0
    assert median(slow, lambda run: run["wall_s"]) == 2.0
    crashed = [{"repeat": 0, "failures": "crashed"}]
    assert ratios(slow, crashed, lambda run: run["wall_s"]) is None
    assert ratios(crashed, quick, lambda run: run["wall_s"]) is None


def test_the_table_has_a_line_for_each_client() -> None:
    common = {"scenario": "S1", "repeat": 0, "rows": 1_000, "rss_mb": 50.0, "refused": 0}
    done = {**common, "wall_s": 1.0, "requests": 1_000, "lost": 0, "wrong": 0}
    runs = [
        {**done, "client": FLOOR, "cpu_s": 0.1},
        {**done, "client": OURS, "cpu_s": 0.2},
        {**common, "client": "LBGPT", "failures": "crashed"},
    ]
    *_, bare, ours, theirs = table(runs)
    assert bare.startswith("| bare aiohttp | 100 | 1 | 0.5 |")
    assert ours.startswith("| lbgpt_pandas | 200 | 2 | 1 |")
    assert theirs.startswith("| LBGPT | crashed |")


def test_the_ideal_knows_how_much_may_be_sent_at_once() -> None:
    assert limited(2_400, {"k": 3_600}, 1, "").ideal_s == pytest.approx(39.1)
    # The last minute's 2,400 rows go through 64 places in turns of a tenth of a second.
    assert SCENARIOS["S3a"].ideal_s == pytest.approx(63.85)
