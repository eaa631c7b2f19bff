"""Order, exact waking, and the promises that hold for any costs, latencies and failures."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbgpt_pandas.engine import errors
from lbgpt_pandas.engine.balanced import MultiLoadBalancedGPT
from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.demands import Demand
from lbgpt_pandas.engine.types import Request
from lbgpt_pandas.testing import FakeClock, ScriptedGPT

MINUTE = 60.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def ask(*texts: str, **params: Any) -> list[Request]:
    shared = {"model": "m", **params}
    return [Request([{"role": "user", "content": text}], shared) for text in texts]


def rows(count: int, **params: Any) -> list[Request]:
    return ask(*(f"row {number}" for number in range(count)), **params)


class Sent:
    """Remembers when each request was sent and to whom."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.log: list[tuple[float, str, str]] = []

    def engine(self, name: str = "one", reply: Any = "ok", **settings: Any) -> ScriptedGPT:
        def answer(request: Request) -> Any:
            text = str(request.messages[-1]["content"])
            self.log.append((self.clock.monotonic(), name, text))
            return reply(request) if callable(reply) else reply

        return ScriptedGPT(answer, name=name, clock=self.clock, auto_cache=False, **settings)

    def times(self, name: str = "one") -> list[float]:
        return [at for at, who, _ in self.log if who == name]

    def texts(self) -> list[str]:
        return [text for _, _, text in self.log]


def most_in(times: list[float], span_s: float) -> int:
    return max((sum(start <= at < start + span_s for at in times) for start in times), default=0)


async def run(engine: Any, requests: list[Request], clock: FakeClock) -> Batch:
    batch = Batch(engine, requests, clock=clock)
    await batch.arun()
    return batch


async def test_three_requests_a_minute_are_three_a_minute(clock):
    sent = Sent(clock)
    await run(sent.engine(limit_rpm=3), rows(10), clock)
    assert most_in(sent.times(), MINUTE) == 3
    assert 180 <= clock.monotonic() - 1000 <= 181
    assert sent.texts() == [f"row {number}" for number in range(10)]


@pytest.mark.parametrize("limits", [{"limit_rpm": 60}, {"limit_tpm": 3_000}, {}])
async def test_any_mix_of_limits_works(clock, limits):
    sent = Sent(clock)
    batch = await run(sent.engine(latency_s=1.0, **limits), rows(150, max_tokens=20), clock)
    assert all(outcome.completion for outcome in batch.outcomes)
    if "limit_rpm" in limits:
        assert most_in(sent.times(), MINUTE) == 60


@pytest.mark.parametrize("limits", [{"limit_rpm": 0}, {"limit_tpm": -5}, {"limit_rpm": 1.5}])
def test_limits_that_can_never_be_kept_are_refused(limits):
    with pytest.raises(errors.ConfigurationError, match="limit_"):
        ScriptedGPT(**limits)


async def test_a_request_larger_than_the_quota_fails_at_once_and_the_others_go_on(clock):
    sent = Sent(clock)
    engine = sent.engine(limit_tpm=1_000)
    requests = [*ask("a", max_tokens=10), *ask("big", max_tokens=5_000), *ask("b", max_tokens=10)]
    batch = await run(engine, requests, clock)
    assert [type(outcome.error) for outcome in batch.outcomes] == [
        type(None), errors.RequestExceedsQuota, type(None),
    ]  # fmt: skip
    assert "big" not in sent.texts()
    assert "limit_tpm=1000" in str(batch.outcomes[1].error)
    assert clock.monotonic() == 1000.0


async def test_a_large_row_is_sent_in_its_turn_among_many_small_ones(clock):
    sent = Sent(clock)
    small = [ask(f"s{number}", max_tokens=10)[0] for number in range(300)]
    requests = [*small[:100], *ask("LARGE", max_tokens=900), *small[100:]]
    await run(sent.engine(limit_tpm=1_000), requests, clock)
    position = sent.texts().index("LARGE")
    assert position == 100
    large_at = sent.log[position][0]
    assert all(at >= large_at for at, _, _ in sent.log[position:])


async def test_calls_longer_than_a_minute_count_from_their_start(clock):
    sent = Sent(clock)
    await run(sent.engine(limit_rpm=2, latency_s=200.0), rows(6), clock)
    assert most_in(sent.times(), MINUTE) == 2
    # The answers are not waited for: only the minute is.
    first, *_, last = sent.times()[1:]
    assert last - first <= 125


async def test_waiting_costs_two_looks_at_the_clock_for_each_admission_and_none_while_idle(clock):
    engine = Sent(clock).engine(limit_rpm=600, limit_burst_s=1.0, latency_s=0.3)
    async with engine:
        await run(engine, rows(900), clock)
        scheduler = next(iter(engine._sessions.values())).scheduler
        assert scheduler.admissions == 900
        assert scheduler.alarms <= 2 * scheduler.admissions
        before = scheduler.alarms
        await clock.sleep(3_600)
        assert scheduler.alarms == before


async def test_many_waiters_ring_no_more_than_one(clock):
    engine = Sent(clock).engine(limit_rpm=1)
    async with engine:
        await run(engine, rows(10), clock)
        assert next(iter(engine._sessions.values())).scheduler.alarms <= 20


async def test_a_retry_keeps_its_turn(clock):
    sent, failed = Sent(clock), []

    def reply(request):
        text = request.messages[-1]["content"]
        if text == "row 0" and not failed:
            failed.append(text)
            return errors.RateLimited("wait", status=429, retry_after=5.0)
        return "ok"

    await run(sent.engine(reply=reply, limit_rpm=5), rows(20), clock)
    assert sent.texts()[:2] == ["row 0", "row 0"]


async def test_a_stop_withdraws_what_waits_for_its_quota_at_once(clock):
    sent = Sent(clock)
    batch = Batch(sent.engine(limit_rpm=2), rows(50), clock=clock)
    task = asyncio.create_task(batch.arun())
    while len(sent.log) < 2:
        await asyncio.sleep(0)
    batch.stop()
    await task
    assert len(sent.log) == 2
    assert clock.monotonic() < 1001


async def test_a_cancelled_waiter_does_not_hold_up_the_others(clock):
    engine = Sent(clock).engine(limit_rpm=1)
    async with engine:
        first, *others = [
            asyncio.create_task(run(engine, ask(text), clock)) for text in ("a", "b", "c")
        ]
        await first
        others[0].cancel()
        await others[1]
        await asyncio.gather(*others, return_exceptions=True)
    assert clock.monotonic() <= 1000 + 61


async def test_an_engine_of_several_loops_keeps_one_limit(clock):
    sent = Sent(clock)
    engine = sent.engine(limit_rpm=3)

    def in_another_loop() -> None:
        asyncio.run(run(engine, ask("x", "y", "z"), clock))

    await run(engine, ask("a", "b"), clock)
    await asyncio.to_thread(in_another_loop)
    assert most_in(sent.times(), MINUTE) == 3


async def test_two_engines_of_a_group_share_one_limit(clock):
    sent = Sent(clock)
    engines = [
        sent.engine(name, limit_rpm=4, quota_group="one-account") for name in ("first", "second")
    ]
    await run(MultiLoadBalancedGPT(engines, auto_cache=False, clock=clock), rows(12), clock)
    assert most_in([at for at, _, _ in sent.log], MINUTE) == 4


async def test_an_alarm_that_rings_a_hair_too_early_does_not_spin(clock):
    """Sums of floats differ by an ulp: what is ready within a millionth of a second is ready."""
    engine = Sent(clock).engine()
    deployment = engine.deployment
    for number in range(5):
        grant = deployment.begin(Demand(), {"requests": 1.0}, 1000.0 + number)
        assert grant is not None
        deployment.failed(grant, errors.ServerError("down", status=500), alone=True)
    opens_at = deployment.breaker.ready_at(clock.monotonic())
    clock.advance(opens_at - clock.monotonic() - 5e-7)
    await asyncio.wait_for(run(engine, rows(1), clock), 5)
    assert deployment.breaker.state(clock.monotonic()) == "closed"


plans = st.lists(
    st.tuples(
        st.sampled_from(["ok", "500", "429", "429s", "bad", "filter", "slow"]),
        st.floats(0.0, 100.0),
        st.integers(1, 60),
    ),
    min_size=1,
    max_size=40,
)


@given(
    plans,
    st.integers(1, 6),
    st.sampled_from([None, 200, 1_000]),
    st.sampled_from([None, 1.0, 10.0]),
    st.integers(1, 2),
    st.integers(0, 2**32),
    st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_promises_hold_for_any_costs_latencies_failures_and_cancellations(  # noqa: PLR0917
    plan: list[tuple[str, float, int]],
    rpm: int,
    tpm: int | None,
    burst_s: float | None,
    engines: int,
    seed: int,
    stops: bool,
) -> None:
    """No minute admits more than its limit, first attempts go in order, each row has one outcome,
    and all that was reserved is settled."""
    clock, tries = FakeClock(), dict.fromkeys(range(len(plan)), 0)
    sent = Sent(clock)
    chance = random.Random(seed)

    def reply(request: Request) -> Any:
        number = int(str(request.messages[-1]["content"]).split()[1])
        tries[number] += 1
        kind = plan[number][0]
        if tries[number] <= chance.randint(0, 2):
            match kind:
                case "500":
                    return errors.ServerError("down", status=500)
                case "429":
                    return errors.RateLimited("wait", status=429, retry_after=3.0)
                case "429s":
                    return errors.RateLimited("wait", status=429)
        match kind:
            case "bad":
                return errors.BadRequest("no", status=400)
            case "filter":
                return errors.ContentFiltered("no", status=400)
        return str(number)

    def latency(request: Request) -> float:
        return plan[int(str(request.messages[-1]["content"]).split()[1])][1]

    members = [
        sent.engine(
            f"e{number}",
            reply,
            latency_s=latency,
            limit_rpm=rpm,
            limit_tpm=tpm,
            limit_burst_s=burst_s,
        )
        for number in range(engines)
    ]
    engine: Any = members[0]
    if engines > 1:
        engine = MultiLoadBalancedGPT(members, "max_headroom", auto_cache=False, clock=clock)
    requests = [ask(f"row {n}", max_tokens=cost)[0] for n, (_, _, cost) in enumerate(plan)]
    batch = Batch(engine, requests, clock=clock)

    async def main() -> None:
        task = asyncio.create_task(batch.arun())
        if stops:
            await clock.sleep(chance.uniform(0, 90))
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    for member in members:
        assert most_in(sent.times(member.name), MINUTE) <= rpm
        quota = member.deployment.quota
        for resource, amount in quota.reserved.items():
            settled = quota.committed.get(resource, 0) + quota.released.get(resource, 0)
            assert amount == pytest.approx(settled)
        assert member.deployment.in_flight == 0
        assert member._sessions == {}
    firsts = list(dict.fromkeys(sent.texts()))
    assert firsts == sorted(firsts, key=lambda text: int(text.split()[1]))
    for number, outcome in enumerate(batch.outcomes):
        if outcome is None:
            assert stops
            continue
        assert (outcome.completion is None) != (outcome.error is None)
        if outcome.completion is not None:
            assert outcome.completion.text == str(number)
        elif not stops:
            assert plan[number][0] in {"bad", "filter"} or tpm == 200


async def test_an_old_outage_fails_nobody_in_the_next_run(clock):
    down = [True]

    def reply(_request):
        if down[0]:
            raise errors.ServerError("down", status=500)
        return "ok"

    engine = ScriptedGPT(reply, clock=clock, auto_cache=False, latency_s=1.0, stop_after_attempts=3)
    await Batch(engine, rows(20), clock=clock).arun()
    await clock.sleep(3_600.0)
    down[0] = False
    outcomes = await Batch(engine, rows(20), clock=clock).arun()
    assert all(outcome.completion for outcome in outcomes)


async def test_a_row_that_no_deployment_can_take_is_not_tried_for_ever(clock):
    wrong = ScriptedGPT(
        errors.AuthError("wrong key", status=401), name="wrong", clock=clock, auto_cache=False
    )
    small = ScriptedGPT("ok", name="small", clock=clock, auto_cache=False, limit_tpm=100)
    engine = MultiLoadBalancedGPT(
        [wrong, small], clock=clock, auto_cache=False, stop_after_attempts=None
    )
    large = Request([{"role": "user", "content": "x" * 4_000}], {"model": "m"})
    [outcome] = await Batch(engine, [large], clock=clock).arun()
    assert isinstance(outcome.error, errors.RequestExceedsQuota)


async def test_a_row_that_waits_for_a_blocked_provider_lets_others_go_elsewhere(clock):
    def reply(_request):
        raise errors.RateLimited("wait", status=429, retry_after=600.0)

    big = ScriptedGPT(reply, name="big", clock=clock, auto_cache=False, limit_tpm=100_000)
    small = ScriptedGPT("ok", name="small", clock=clock, auto_cache=False, limit_tpm=1_000)
    engine = MultiLoadBalancedGPT([big, small], clock=clock, auto_cache=False)
    large = Request([{"role": "user", "content": "x" * 12_000}], {"model": "m"})
    begun = clock.monotonic()
    batch = Batch(engine, [large, *rows(30)], clock=clock)
    running = asyncio.ensure_future(batch.arun())
    while batch.snapshot().done < 30 and clock.monotonic() < begun + 590:
        await clock.sleep(1.0)
    assert clock.monotonic() < begun + 590
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_deployment_that_cannot_be_opened_is_out_and_not_the_run(clock):
    class Unopened(ScriptedGPT):
        def _new_transport(self):
            transport = super()._new_transport()

            async def fail():
                raise errors.MissingExtraError("xllamacpp is missing")

            transport.open = fail
            return transport

    failing = [errors.RateLimited("wait", status=429, retry_after=60.0)]

    def reply(_request):
        return failing.pop() if failing else "ok"

    good = ScriptedGPT(reply, name="good", clock=clock, auto_cache=False)
    spare = Unopened("ok", name="spare", clock=clock, auto_cache=False, tier=1)
    engine = MultiLoadBalancedGPT([good, spare], clock=clock, auto_cache=False)
    outcomes = await Batch(engine, rows(5), clock=clock).arun()
    assert all(outcome.completion for outcome in outcomes)


async def test_engines_of_one_quota_group_wake_each_other(clock):
    group = {"quota_group": "wakes", "limit_tpm": 1_000}
    first = ScriptedGPT("ok", clock=clock, auto_cache=False, latency_s=1.0, **group)
    second = ScriptedGPT("ok", clock=clock, auto_cache=False, **group)
    begun = clock.monotonic()
    running = asyncio.ensure_future(Batch(first, rows(1, max_tokens=900), clock=clock).arun())
    await clock.sleep(0.5)
    await Batch(second, rows(1, max_tokens=200), clock=clock).arun()
    await running
    assert clock.monotonic() - begun < 70


def test_a_probe_of_another_loop_wakes_this_one():
    down = [True]

    def reply(_request):
        if down[0]:
            raise errors.ServerError("down", status=500)
        return "ok"

    engine = ScriptedGPT(reply, auto_cache=False, latency_s=0.01, stop_after_attempts=1)
    asyncio.run(Batch(engine, rows(10)).arun())
    assert engine.deployment.breaker.down_since is not None
    down[0] = False
    engine.deployment.breaker._open_until = 0.0
    results = []

    def run():
        results.append(asyncio.run(Batch(engine, rows(5)).arun()))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(results) == 3
    assert all(outcome.completion for outcomes in results for outcome in outcomes)


async def test_those_who_wait_no_more_leave_the_queue(clock):
    engine = ScriptedGPT("ok", clock=clock, auto_cache=False, limit_rpm=1)
    async with engine:
        session = engine._sessions[asyncio.get_running_loop()]
        await engine.chat_completion(messages=[{"role": "user", "content": "first"}])
        calls = [
            asyncio.ensure_future(engine.chat_completion(messages=each.messages))
            for each in rows(400)
        ]
        await asyncio.sleep(0)
        for call in calls[1:]:
            call.cancel()
        await asyncio.gather(*calls[1:], return_exceptions=True)
        assert len(session.scheduler._queue) < 150
        calls[0].cancel()
        await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize("seconds", [10**400, "5", True, -1, 0, float("nan")])
async def test_time_outs_of_a_request_are_checked(clock, seconds):
    engine = ScriptedGPT("ok", clock=clock, auto_cache=False)
    request = {"messages": rows(1)[0].messages, "request_timeout": seconds}
    with pytest.raises(errors.ConfigurationError, match="request_timeout"):
        await engine.chat_completion(**request)
    assert engine.deployment.in_flight == 0
