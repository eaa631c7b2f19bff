"""Servers that allow less than was told, or tell nothing: how fast a run finds its pace."""

from __future__ import annotations

from collections import Counter
from itertools import count
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace as replaced

from lbgpt_pandas.engine import errors
from lbgpt_pandas.engine.attempts import CROWDED_S
from lbgpt_pandas.engine.balanced import MultiLoadBalancedGPT
from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.types import Request
from lbgpt_pandas.testing import FakeClock, ScriptedGPT

LATENCY_S = 0.2


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def rows(count: int, **params: Any) -> list[Request]:
    shared = {"model": "m", **params}
    return [Request([{"role": "user", "content": f"row {n}"}], shared) for n in range(count)]


class Server:
    """Admits `most` requests in any `span_s` seconds and refuses the others."""

    def __init__(self, clock: FakeClock, most: int, span_s: float, *, hints: bool = True) -> None:
        self.clock, self.most, self.span_s, self.hints = clock, most, span_s, hints
        self.admitted: list[float] = []
        self.refused: list[float] = []

    def __call__(self, _request: Request) -> str:
        now = self.clock.monotonic()
        recent = [at for at in self.admitted[-self.most :] if at > now - self.span_s]
        if len(recent) >= self.most:
            self.refused.append(now)
            wait_s = recent[0] + self.span_s - now
            raise errors.RateLimited("slow", status=429, retry_after=wait_s if self.hints else None)
        self.admitted.append(now)
        return "ok"

    def refused_share(self, after_s: float) -> float:
        refused = sum(at > 1000 + after_s for at in self.refused)
        admitted = sum(at > 1000 + after_s for at in self.admitted)
        return refused / max(1, refused + admitted)


class Careful(ScriptedGPT):
    """A scripted engine that begins slowly, as those of real providers do."""

    slow_start = 8


async def run(server: Server, count: int, **limits: Any) -> Batch:
    engine = Careful(server, latency_s=0.0, clock=server.clock, auto_cache=False, **limits)
    engine._latency_s = lambda _request: LATENCY_S  # after the verdict, as a server would
    batch = Batch(engine, rows(count), clock=server.clock)
    await batch.arun()
    assert all(outcome.completion for outcome in batch.outcomes)
    assert len(server.admitted) == count
    return batch


async def test_a_server_at_half_of_the_limit_is_followed_within_two_windows(clock):
    server = Server(clock, 50, 60.0)
    await run(server, 400, limit_rpm=100, limit_burst_s=60.0)
    assert server.refused_share(120) < 0.10
    assert clock.monotonic() - 1000 <= 1.2 * 8 * 60


async def test_a_server_at_half_without_saying_for_how_long_is_followed_too(clock):
    server = Server(clock, 50, 60.0, hints=False)
    await run(server, 300, limit_rpm=100, limit_burst_s=60.0)
    assert server.refused_share(120) < 0.35


async def test_ten_seconds_of_azure_are_learned_by_the_third_window(clock):
    server = Server(clock, 10, 10.0)
    await run(server, 180, limit_rpm=60)
    ideal_s = 10.0 * (180 / 10 - 1)
    assert ideal_s / (clock.monotonic() - 1000) >= 0.8
    assert server.refused_share(30) < 0.02


@pytest.mark.parametrize("hints", [True, False])
async def test_a_server_that_tells_nothing_is_found_out_by_its_refusals(clock, hints):
    server = Server(clock, 60, 1.0, hints=hints)
    await run(server, 3_000)
    assert 49.0 / (clock.monotonic() - 1000) >= (0.8 if hints else 0.5)
    assert server.refused_share(2) < 0.10


async def test_a_minute_that_nobody_tells_of_is_found_out_too(clock):
    server = Server(clock, 120, 60.0)
    await run(server, 600)
    assert 240 / (clock.monotonic() - 1000) >= 0.8
    assert server.refused_share(120) < 0.10


async def test_strays_among_many_answers_do_not_stop_the_whole_column(clock):
    count = 0

    def reply(_request: Request) -> str:
        nonlocal count
        count += 1
        if count > 50 and count % 33 == 0:
            raise errors.RateLimited("by chance", status=429, retry_after=1.0)
        return "ok"

    engine = Careful(reply, latency_s=LATENCY_S, clock=clock, auto_cache=False)
    batch = Batch(engine, rows(2_000), clock=clock)
    await batch.arun()
    assert all(outcome.completion for outcome in batch.outcomes)
    assert (
        clock.monotonic() - 1000 <= 15
    )  # 2,000 / 64 * 0.2 s, and a second of waiting here and there


@pytest.mark.parametrize("status", [500, 502, 503, 529])
async def test_five_failures_in_a_row_open_the_breaker_and_one_probe_at_a_time_closes_it(
    clock, status
):
    sent: list[float] = []

    def reply(_request: Request) -> str:
        sent.append(clock.monotonic())
        if clock.monotonic() < 1020:
            raise errors.ServerError("down", status=status)
        return "ok"

    engine = ScriptedGPT(reply, latency_s=0.5, clock=clock, auto_cache=False)
    batch = Batch(engine, rows(100), clock=clock)
    await batch.arun()
    assert all(outcome.completion for outcome in batch.outcomes)
    probes = [at for at in sent if 1003 < at < 1020]
    assert 1 <= len(probes) <= 5
    assert max(Counter(probes).values()) == 1


async def test_a_row_that_always_fails_fails_alone(clock):
    def reply(request: Request) -> str:
        if request.messages[0]["content"] == "row 7":
            raise errors.ServerError("this one", status=500)
        return "ok"

    engine = ScriptedGPT(reply, latency_s=0.1, clock=clock, auto_cache=False)
    batch = Batch(engine, rows(300), clock=clock)
    await batch.arun()
    failed = [number for number, outcome in enumerate(batch.outcomes) if outcome.error]
    assert failed == [7]
    assert batch.outcomes[7].attempts == 10


async def test_rows_beyond_the_retry_budget_wait_longer(clock):
    sent: dict[str, list[float]] = {}

    def reply(request: Request) -> str:
        text = str(request.messages[0]["content"])
        sent.setdefault(text, []).append(clock.monotonic())
        if int(text.split()[1]) % 3 == 0:
            raise errors.ServerError("this one", status=500)
        return "ok"

    engine = ScriptedGPT(reply, latency_s=0.1, clock=clock, auto_cache=False)
    batch = Batch(engine, rows(600), clock=clock)
    await batch.arun()
    kinds = Counter(type(outcome.error) for outcome in batch.outcomes)
    assert kinds[type(None)] == 400
    assert kinds[errors.RetryBudgetExhausted] > 100
    assert all("this one" in str(o.error) for o in batch.outcomes if o.error)
    gaps = [times[1] - times[0] for times in sent.values() if len(times) > 1]
    assert sum(gap >= CROWDED_S / 2 for gap in gaps) > 100


@pytest.mark.parametrize("share", [0.2, 0.5])
async def test_no_row_is_lost_to_the_failures_of_others(clock, share):
    random = Random(3)

    def reply(_request: Request) -> str:
        if random.random() < share:
            raise errors.ServerError("boom", status=500)
        return "ok"

    engine = ScriptedGPT(
        reply, latency_s=0.2, clock=clock, auto_cache=False, stop_after_attempts=20
    )
    outcomes = await Batch(engine, rows(500), clock=clock).arun()
    assert all(outcome.completion for outcome in outcomes)


@pytest.mark.parametrize("retry_after", [None, 0.5])
async def test_stray_refusals_do_not_lower_a_limit_that_was_told(clock, retry_after):
    random, calls = Random(5), count()

    def reply(_request: Request) -> str:
        if next(calls) > 100 and random.random() < 0.01:
            raise errors.RateLimited("wait", status=429, retry_after=retry_after)
        return "ok"

    engine = ScriptedGPT(
        reply, latency_s=0.2, clock=clock, auto_cache=False, limit_rpm=6_000, limit_burst_s=1
    )
    outcomes = await Batch(engine, rows(6_000), clock=clock).arun()
    assert all(outcome.completion for outcome in outcomes)
    assert engine.deployment.quota.limit("requests") == 6_000
    # 60 s without refusals; obeyed ones cost half a second each.
    assert clock.monotonic() - 1_000.0 < (75 if retry_after is None else 120)


async def test_one_long_answer_does_not_make_other_rows_too_large(clock):
    engine = ScriptedGPT("word " * 880, latency_s=0.5, clock=clock, limit_tpm=1_000)
    outcomes = await Batch(engine, rows(5), clock=clock).arun()
    assert all(outcome.completion for outcome in outcomes)


async def test_rows_that_are_too_large_do_not_stop_the_run(clock):
    engine = ScriptedGPT("ok", clock=clock, limit_tpm=2_000)
    large = [
        replaced(each, messages=[{"role": "user", "content": "x" * 12_000}]) for each in rows(25)
    ]
    outcomes = await Batch(engine, [*large, *rows(30)], clock=clock).arun()
    assert [type(outcome.error) for outcome in outcomes[:25]] == [errors.RequestExceedsQuota] * 25
    assert all(outcome.completion for outcome in outcomes[25:])


@pytest.mark.parametrize(
    ("error", "tokens_left"),
    [
        (errors.ConnectionFailed("refused", code="connect"), 1_000),
        (errors.RateLimited("later", status=429, retry_after=1.0), 1_000),
        (errors.Timeout("lost", maybe_billed=True), 895),
        (errors.ServerError("down", status=500), 895),
    ],
)
async def test_tokens_are_given_back_only_if_the_provider_cannot_have_counted_them(
    clock, error, tokens_left
):
    engine = ScriptedGPT(error, clock=clock, limit_tpm=1_000, auto_cache=False)
    with pytest.raises(type(error)):
        await engine.chat_completion(
            model="m", messages=[{"role": "user", "content": "x" * 12}], max_tokens=95
        )
    assert engine.headroom().tokens == tokens_left


async def test_slow_down_is_slower_and_not_elsewhere(clock):
    sent: list[float] = []

    def reply(_request: Request) -> str:
        sent.append(clock.monotonic())
        if len(sent) == 300:
            raise errors.RateLimited("ramp", status=429, code="slow_down", retry_after=1.0)
        return "ok"

    engine = ScriptedGPT(reply, latency_s=0.64, clock=clock, auto_cache=False)
    await Batch(engine, rows(700), clock=clock).arun()
    before = 299 / (sent[299] - sent[0])
    after = [at for at in sent if at > sent[299] + 1.0]
    rate = (len(after) - 1) / (after[-1] - after[0])
    assert 0.6 * before <= rate <= 0.95 * before


async def test_users_are_told_once_that_a_provider_allows_less(clock):
    import warnings

    import pandas as pd

    import lbgpt_pandas as lb

    server = Server(clock, 10, 60.0)
    engine = Careful(server, clock=clock, limit_rpm=40, limit_burst_s=60.0, name="half")
    frame = pd.DataFrame({"t": [f"row {n}" for n in range(45)]})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await frame.lbgpt.acomplete("{t}", engine=engine, cache_mode="off", progress=False)
    told = [str(each.message) for each in caught if each.category is lb.LimitsWarning]
    assert len(told) == 1
    assert told[0].startswith("half: the provider refused requests")


@pytest.mark.parametrize("refused", [{0}, {8}, {0, 1}])
async def test_an_early_refusal_with_a_long_wait_is_no_limit(clock, refused):
    calls = count()

    def reply(_request: Request) -> str:
        if next(calls) in refused:
            raise errors.RateLimited("wait", status=429, retry_after=30.0)
        return "ok"

    engine = Careful(reply, latency_s=LATENCY_S, clock=clock, auto_cache=False)
    outcomes = await Batch(engine, rows(600), clock=clock).arun()
    assert all(outcome.completion for outcome in outcomes)
    assert clock.monotonic() - 1_000 < 130


async def test_a_refusal_about_tokens_lowers_no_limit_of_requests(clock):
    refused = []

    def reply(_request: Request) -> str:
        if len(refused) < 6 and len(engine.requests) > 20:
            refused.append(True)
            raise errors.RateLimited("Limit reached for tokens per min (TPM)", status=429)
        return "ok"

    engine = ScriptedGPT(
        reply, latency_s=0.05, clock=clock, auto_cache=False, limit_rpm=600, limit_burst_s=1
    )
    await Batch(engine, rows(100), clock=clock).arun()
    assert engine.deployment.quota.limit("requests") == 600


async def test_a_retry_goes_to_another_deployment_if_there_is_one(clock):
    def fail(_request: Request) -> str:
        raise errors.ServerError("boom", status=500)

    called: list[str] = []

    def named(name: str, reply: Any) -> ScriptedGPT:
        def answer(request: Request) -> Any:
            called.append(name)
            return reply(request)

        return ScriptedGPT(answer, name=name, clock=clock, auto_cache=False, weight=weights[name])

    # By chance alone a retry would go back to the heavy one a hundred times out of a hundred.
    weights = {"bad": 1_000.0, "good": 0.001}
    gpts = [named("bad", fail), named("good", lambda request: "ok")]
    engine = MultiLoadBalancedGPT(gpts, clock=clock, auto_cache=False)
    [outcome] = await Batch(engine, rows(1), clock=clock).arun()
    assert outcome.deployment == "good"
    assert called == ["bad", "good"]


@pytest.mark.parametrize(("others_s", "left"), [(5.0, 32), (0.1, 64)])
async def test_answers_that_come_too_late_halve_the_calls_in_flight(clock, others_s, left):
    numbers, seconds = count(), others_s

    def reply(_request: Request) -> str | Exception:
        nonlocal seconds
        is_late = next(numbers) in {250, 251}
        seconds = 6.0 if is_late else others_s
        return errors.Timeout("not within 6 s", maybe_billed=True) if is_late else "ok"

    engine = Careful(reply, latency_s=0.0, clock=clock, auto_cache=False)
    engine._latency_s = lambda _request: seconds
    batch = Batch(engine, rows(400), clock=clock)
    await batch.arun()
    assert all(outcome.completion for outcome in batch.outcomes)
    assert len(engine.requests) == 402
    assert engine.deployment.cap == left
