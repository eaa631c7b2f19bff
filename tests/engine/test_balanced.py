"""Several engines behind one: who is asked, what happens when one of them cannot."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from importlib.util import find_spec
from typing import Any

import pytest

from lbgpt_pandas.engine import errors
from lbgpt_pandas.engine.allocation import (
    least_busy_allocation_function,
    max_headroom_allocation_function,
    random_allocation_function,
)
from lbgpt_pandas.engine.balanced import LoadBalancedGPT, MultiLoadBalancedGPT
from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.gpt import AzureGPT, ChatGPT
from lbgpt_pandas.engine.types import Headroom, Request
from lbgpt_pandas.testing import FakeClock, FakeProvider, KeyLimits, ScriptedGPT


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def rows(count: int, **params: Any) -> list[Request]:
    shared = {"model": "m", **params}
    return [Request([{"role": "user", "content": f"row {n}"}], shared) for n in range(count)]


def member(clock: FakeClock, name: str, reply: Any = "ok", **settings: Any) -> ScriptedGPT:
    return ScriptedGPT(reply, name=name, clock=clock, auto_cache=False, **settings)


def balance(clock: FakeClock, *gpts: Any, **settings: Any) -> MultiLoadBalancedGPT:
    return MultiLoadBalancedGPT(gpts, clock=clock, auto_cache=False, **settings)


async def answered_by(engine: Any, requests: list[Request], clock: FakeClock) -> Counter[str]:
    batch = Batch(engine, requests, clock=clock)
    await batch.arun()
    for outcome in batch.outcomes:
        assert outcome is not None
        if outcome.error is not None:
            raise outcome.error
    return Counter(outcome.deployment for outcome in batch.outcomes if outcome)


def room(fraction: float, in_flight: int = 0) -> Any:
    class Engine:
        def headroom(self) -> Headroom:
            return Headroom("e", 1.0, None, fraction, in_flight, 0.0, None, "local")

    return Engine()


def test_random_follows_its_weights_and_needs_none():
    one, two = room(1.0), room(1.0)
    picks = Counter(id(random_allocation_function([one, two], [1, 3])) for _ in range(4_000))
    assert 0.70 < picks[id(two)] / 4_000 < 0.80
    assert random_allocation_function([one]) is one
    assert {id(random_allocation_function([one, two], [0, 0])) for _ in range(99)} == {
        id(one),
        id(two),
    }


def test_max_headroom_takes_the_largest_share_and_ties_at_random():
    low, high = room(0.2), room(0.9)
    assert max_headroom_allocation_function([low, high]) is high
    assert max_headroom_allocation_function([low, high], weights=[9, 1]) is low
    same = [room(0.5), room(0.5)]
    assert len({id(max_headroom_allocation_function(same)) for _ in range(99)}) == 2


def test_max_headroom_without_any_waits_or_overallocates():
    full = [room(0.0), room(0.0)]
    assert max_headroom_allocation_function(full) is None
    assert max_headroom_allocation_function(full, True) in full


def test_least_busy_counts_for_the_weight():
    busy, idle = room(1.0, in_flight=8), room(1.0, in_flight=2)
    assert least_busy_allocation_function([busy, idle]) is idle
    assert least_busy_allocation_function([busy, idle], weights=[10, 1]) is busy


@pytest.mark.parametrize("function", [random_allocation_function, max_headroom_allocation_function])
def test_allocation_functions_refuse_what_makes_no_sense(function):
    with pytest.raises(errors.ConfigurationError, match="no engine"):
        function([])
    with pytest.raises(errors.ConfigurationError, match="one for each"):
        function([room(1.0)], weights=[1, 2])


@pytest.mark.parametrize(
    "function", ["random", "max_headroom", "least_busy", "latency", "round_robin"]
)
async def test_every_strategy_answers_every_row_within_every_limit(clock, function):
    one = member(clock, "one", latency_s=0.5, limit_rpm=20)
    two = member(clock, "two", latency_s=0.5, limit_rpm=40)
    shares = await answered_by(
        balance(clock, one, two, allocation_function=function), rows(120), clock
    )
    assert shares == {"one": 40, "two": 80}
    assert 60 <= clock.monotonic() - 1000 <= 63


async def test_a_short_burst_window_does_not_make_a_large_limit_look_small(clock):
    minute = member(clock, "minute", limit_rpm=500)
    second = member(clock, "second", limit_rpm=3_000, limit_burst_s=1.0)
    engine = balance(clock, minute, second, allocation_function="max_headroom")
    shares = await answered_by(engine, rows(90), clock)
    assert shares["second"] >= 25


async def test_shares_follow_the_weights_where_nothing_else_limits(clock):
    one, two = member(clock, "one", weight=1), member(clock, "two", weight=3)
    shares = await answered_by(balance(clock, one, two), rows(1_000), clock)
    assert 0.68 < shares["two"] / 1_000 < 0.82
    given = balance(clock, one, two, allocation_function_weights=[1, 0])
    assert await answered_by(given, rows(50), clock) == {"one": 50}


async def test_round_robin_goes_in_turn(clock):
    gpts = [member(clock, name) for name in "abc"]
    engine = balance(clock, *gpts, allocation_function="round_robin")
    assert await answered_by(engine, rows(30), clock) == {"a": 10, "b": 10, "c": 10}


async def test_latency_prefers_the_quicker(clock):
    slow, quick = member(clock, "slow", latency_s=5.0), member(clock, "quick", latency_s=0.1)
    engine = balance(clock, slow, quick, allocation_function="latency")
    await answered_by(engine, rows(4), clock)
    slow.deployment._note_latency(5.0, clock.monotonic())
    assert await answered_by(engine, rows(30), clock) == {"quick": 30}


async def test_a_function_of_the_users_gets_only_engines_that_can_take_it_now(clock):
    small, large = member(clock, "small", limit_rpm=5), member(clock, "large")
    seen: list[int] = []

    def first(gpts: list[Any], *, note: str) -> Any:
        assert note == "hello"
        seen.append(len(gpts))
        return gpts[0]

    engine = balance(
        clock, small, large, allocation_function=first, allocation_function_kwargs={"note": "hello"}
    )
    assert await answered_by(engine, rows(20), clock) == {"small": 5, "large": 15}
    assert clock.monotonic() < 1001


async def test_a_function_that_returns_none_leaves_it_to_chance(clock):
    engine = balance(
        clock, member(clock, "a"), member(clock, "b"), allocation_function=lambda gpts: None
    )
    assert (await answered_by(engine, rows(40), clock)).keys() == {"a", "b"}


async def test_a_function_that_returns_a_stranger_is_told_so(clock):
    engine = balance(
        clock, member(clock, "a"), member(clock, "b"), allocation_function=lambda gpts: "a"
    )
    with pytest.raises(errors.ConfigurationError, match="none of the engines"):
        await answered_by(engine, rows(3), clock)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"allocation_function": "fastest"}, "max_headroom"),
        ({"allocation_function_weights": [1]}, "one for each"),
        ({"allocation_function_weights": [1, -1]}, "at least 0"),
        ({"limit_rpm": 5}, "belongs to the members"),
        ({"max_parallel_requests": 0}, "at least 1"),
        ({"spill_after": -1}, "at least 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(clock, settings, words):
    with pytest.raises(errors.ConfigurationError, match=words):
        balance(clock, member(clock, "a"), member(clock, "b"), **settings)


def test_members_that_cannot_work_are_refused(clock):
    one = member(clock, "a")
    for gpts in ([], ["a"], [one, one]):
        with pytest.raises(errors.ConfigurationError):
            MultiLoadBalancedGPT(gpts)


def test_deployments_without_a_name_are_numbered():
    engine = MultiLoadBalancedGPT(
        [ChatGPT("sk-test-1"), ChatGPT("sk-test-2"), ChatGPT("sk-test-3")]
    )
    names = [deployment.name for deployment in engine.deployments()]
    assert names == ["ChatGPT", "ChatGPT-2", "ChatGPT-3"]
    assert [room.deployment for room in engine.deployment_headrooms()] == names


async def test_a_key_without_quota_beside_a_good_one_is_left_out_of_the_run(clock):
    broke = member(
        clock, "broke", errors.QuotaExhausted("no credit", status=429), max_parallel_calls=3
    )
    good = member(clock, "good")
    engine = balance(clock, broke, good, allocation_function="round_robin")
    assert await answered_by(engine, rows(200), clock) == {"good": 200}
    assert 1 <= len(broke.requests) <= 3
    await answered_by(engine, rows(10), clock)  # the next run asks again: it may have been paid
    assert len(broke.requests) <= 6


async def test_a_refused_key_beside_a_good_one_costs_no_row(clock):
    wrong, good = member(clock, "wrong", errors.AuthError("no", status=401)), member(clock, "good")
    engine = balance(clock, wrong, good, allocation_function="round_robin", stop_after_attempts=1)
    assert await answered_by(engine, rows(50), clock) == {"good": 50}


async def test_a_model_that_one_deployment_lacks_is_asked_of_the_other(clock):
    def reply(request):
        if request.model == "rare":
            raise errors.NotFound("no such model", status=404)
        return "ok"

    one, two = member(clock, "one", reply), member(clock, "two")
    engine = balance(clock, one, two, allocation_function="round_robin")
    batch = Batch(engine, [*rows(20), *rows(20, model="rare")], clock=clock)
    await batch.arun()
    assert all(outcome.completion for outcome in batch.outcomes)
    assert {o.deployment for o in batch.outcomes[20:]} == {"two"}
    assert {o.deployment for o in batch.outcomes[:20]} == {"one", "two"}


async def test_if_all_keys_are_without_quota_the_run_is_aborted(clock):
    gpts = [member(clock, name, errors.QuotaExhausted("spent", status=429)) for name in "ab"]
    with pytest.raises(errors.RunAborted, match="spent"):
        await Batch(balance(clock, *gpts), rows(500), clock=clock).arun()
    assert sum(len(gpt.requests) for gpt in gpts) <= 4


async def test_a_failed_call_is_tried_elsewhere(clock):
    bad, good = member(clock, "bad", errors.ServerError("down", status=500)), member(clock, "good")
    engine = balance(clock, bad, good, allocation_function="round_robin")
    assert await answered_by(engine, rows(60), clock) == {"good": 60}
    # The breaker leaves it alone after five, but for a probe now and then.
    assert len(bad.requests) <= 70
    assert bad.deployment.breaker.ejections >= 1


async def test_an_outage_of_ten_minutes_is_waited_out_without_losing_a_row_or_time(clock):
    def reply(_request):
        if clock.monotonic() < 1600:
            raise errors.ServerError("down", status=503)
        return "ok"

    gpts = [member(clock, name, reply) for name in "ab"]
    engine = balance(clock, *gpts)
    async with engine:
        shares = await answered_by(engine, rows(300), clock)
        scheduler = next(iter(engine._sessions.values())).scheduler
    assert sum(shares.values()) == 300
    assert clock.monotonic() - 1600 <= 330
    assert sum(len(gpt.requests) for gpt in gpts) - 300 <= 60
    assert scheduler.alarms <= 600  # one a second


async def test_an_outage_that_does_not_end_fails_the_rows_with_what_happened(clock):
    down = member(clock, "down", errors.ServerError("down for good", status=503))
    batch = Batch(down, rows(30), clock=clock)
    await batch.arun()
    assert {type(outcome.error) for outcome in batch.outcomes} <= {
        errors.ServerError, errors.RetryBudgetExhausted,
    }  # fmt: skip
    assert all("down for good" in str(outcome.error) for outcome in batch.outcomes)
    assert clock.monotonic() - 1000 <= 1000


async def test_a_single_deployment_rests_shortly_because_nobody_else_is_there(clock):
    fails = iter([True] * 6)

    def reply(_request):
        if next(fails, False):
            raise errors.ServerError("down", status=500)
        return "ok"

    only = member(clock, "only", reply)
    await answered_by(only, rows(50), clock)
    assert clock.monotonic() - 1000 < 30


async def test_an_hour_of_retry_after_fails_rows_at_once_instead_of_waiting(clock):
    engine = member(clock, "a", errors.RateLimited("later", status=429, retry_after=3600.0))
    batch = Batch(engine, rows(20), clock=clock)
    await batch.arun()
    assert {type(outcome.error) for outcome in batch.outcomes} == {errors.RateLimited}
    assert len(engine.requests) == 1
    assert clock.monotonic() == 1000


async def test_an_hour_of_retry_after_is_spent_with_the_other(clock):
    one = member(clock, "one", errors.RateLimited("later", status=429, retry_after=3600.0))
    two = member(clock, "two")
    engine = balance(clock, one, two, allocation_function="round_robin")
    assert await answered_by(engine, rows(40), clock) == {"two": 40}
    assert clock.monotonic() == 1000
    head = engine.deployment_headrooms()[0]
    assert head.fraction == 0
    assert head.blocked_until is not None


@pytest.mark.parametrize("wait_s", [0.04, 2.0, 30.0])
async def test_the_whole_deployment_waits_as_long_as_it_was_asked_to_and_hardly_longer(
    clock, wait_s
):
    refused: list[float] = []
    sent: list[float] = []

    def reply(_request):
        sent.append(clock.monotonic())
        if not refused:
            refused.append(clock.monotonic())
            raise errors.RateLimited("wait", status=429, retry_after=wait_s)
        return "ok"

    await answered_by(member(clock, "a", reply, limit_rpm=1_000), rows(30), clock)
    later = [at - refused[0] for at in sent if at > refused[0]]
    assert wait_s <= min(later) <= wait_s * 1.1 + 0.001


async def test_a_tier_is_used_only_while_the_lower_one_is_out(clock):
    def refusing():
        refused = []

        def reply(_request):
            if not refused:
                refused.append(True)
                raise errors.RateLimited("wait", status=429, retry_after=60.0)
            return "ok"

        return reply

    engine = balance(clock, member(clock, "first", refusing()), member(clock, "spare", tier=1))
    assert await answered_by(engine, rows(30), clock) == {"spare": 30}
    first = member(clock, "f", refusing())
    patient = balance(clock, first, member(clock, "s", tier=1), spill_after=90)
    assert await answered_by(patient, rows(30), clock) == {"f": 30}


@pytest.mark.parametrize("lesser", [{"tier": 1}, {"weight": 0}])
async def test_a_limit_of_its_own_sends_no_row_to_the_spare(clock, lesser):
    engine = balance(clock, member(clock, "first", limit_rpm=10), member(clock, "spare", **lesser))
    assert await answered_by(engine, rows(30), clock) == {"first": 30}


def test_names_of_nested_members_are_told_apart(clock):
    inner = [balance(clock, member(clock, "x"), member(clock, "x")) for _ in range(2)]
    names = [deployment.name for deployment in balance(clock, *inner).deployments()]
    assert len(set(names)) == 4
    both = balance(clock, member(clock, "x"), member(clock, "x"), member(clock, "x-2"))
    assert sorted(deployment.name for deployment in both.deployments()) == ["x", "x-2", "x-3"]


async def test_a_wrong_key_takes_no_other_deployment_along():
    def member_of(key: str) -> ChatGPT:
        return ChatGPT(key, base_url=server.base_url)

    with FakeProvider(keys=["sk-right-key-0001"]) as server:
        inner = [
            MultiLoadBalancedGPT([member_of("sk-wrong-key-0001"), member_of("sk-wrong-key-0002")]),
            MultiLoadBalancedGPT([member_of("sk-right-key-0001"), member_of("sk-wrong-key-0003")]),
        ]
        answers = await MultiLoadBalancedGPT(inner).achat_completion_list(
            [{"model": "m", "messages": each.messages} for each in rows(20)], show_progress=False
        )
    assert all(answers)


def test_a_cache_of_a_member_is_said_to_be_unused(clock):
    with pytest.warns(errors.CacheWarning, match="give it to the balancer"):
        balance(clock, member(clock, "a", cache={}))


def test_a_shared_quota_is_added_once(clock):
    members = [member(clock, name, limit_rpm=100, quota_group="added once") for name in "ab"]
    assert balance(clock, *members).headroom().requests == 100


def test_a_balancer_has_the_model_that_its_members_agree_on(clock):
    both = balance(clock, member(clock, "a"), member(clock, "b"))
    assert both.default_model == member(clock, "a").default_model


async def test_the_quickest_gets_another_chance_after_one_slow_answer(clock):
    answers = itertools.count()

    def seconds(_request):
        return 20.0 if next(answers) == 2 else 0.2

    slow_once = member(clock, "a", latency_s=seconds, max_parallel_calls=1)
    steady = member(clock, "b", latency_s=1.0, max_parallel_calls=1)
    engine = balance(clock, slow_once, steady, allocation_function="latency")
    shares = await answered_by(engine, rows(600), clock)
    assert shares["a"] > 300


async def test_failing_fast_is_not_being_quick(clock):
    calls = itertools.count()

    def reply(_request):
        if next(calls) % 2:
            raise errors.ServerError("boom", status=500)
        return "ok"

    failing = member(clock, "a", reply, latency_s=0.01)
    engine = balance(
        clock, failing, member(clock, "b", latency_s=0.5), allocation_function="latency"
    )
    shares = await answered_by(engine, rows(300), clock)
    assert shares["b"] > 200


async def test_a_spare_is_not_opened_before_it_is_needed(clock):
    opened: list[str] = []

    class Heavy(ScriptedGPT):
        def _new_transport(self):
            transport = super()._new_transport()

            async def note() -> None:
                opened.append(self.name)

            transport.open = note  # type: ignore[method-assign]
            return transport

    engine = balance(clock, member(clock, "first"), Heavy("ok", name="heavy", tier=1, clock=clock))
    await answered_by(engine, rows(20), clock)
    assert opened == []
    down = member(clock, "down", errors.AuthError("no", status=401))
    engine = balance(clock, down, Heavy("ok", name="heavy", tier=1, clock=clock))
    assert await answered_by(engine, rows(20), clock) == {"heavy": 20}
    assert opened == ["heavy"]


async def test_balancers_can_be_members(clock):
    inner = balance(
        clock, member(clock, "a", limit_rpm=10), member(clock, "b", limit_rpm=10), name="in"
    )
    outer = balance(
        clock, inner, member(clock, "c", limit_rpm=20), allocation_function="max_headroom"
    )
    assert await answered_by(outer, rows(80), clock) == {"a": 20, "b": 20, "c": 40}
    assert 60 <= clock.monotonic() - 1000 <= 62


async def test_an_inner_function_is_asked_once_for_each_request(clock):
    asked: list[int] = []

    def first(gpts: list[Any]) -> Any:
        asked.append(1)
        return gpts[0]

    gpts = [member(clock, name) for name in "ab"]
    inner = balance(clock, *gpts, allocation_function=first, name="in")
    outer = balance(clock, inner, member(clock, "c", weight=0))
    await answered_by(outer, rows(25), clock)
    assert len(asked) == 25


async def test_a_member_that_cannot_be_opened_leaves_no_other_open(clock):
    closed: list[str] = []

    class Broken(ScriptedGPT):
        def _new_transport(self):
            transport = super()._new_transport()

            async def fail() -> None:
                raise errors.MissingExtraError("install it")

            transport.open = fail  # type: ignore[method-assign]
            return transport

    class Tidy(ScriptedGPT):
        def _new_transport(self):
            transport = super()._new_transport()

            async def note() -> None:
                closed.append(self.name)

            transport.close = note  # type: ignore[method-assign]
            return transport

    tidy = Tidy("ok", name="tidy", clock=clock)
    engine = balance(clock, tidy, Broken("ok", name="broken", clock=clock))
    with pytest.raises(errors.MissingExtraError):
        await answered_by(engine, rows(3), clock)
    assert closed == ["tidy"]
    assert tidy._sessions == engine._sessions == {}


async def test_the_cap_of_the_balancer_counts_for_all_members(clock):
    one, two = (member(clock, name, latency_s=1.0) for name in "ab")
    engine = balance(clock, one, two, max_parallel_requests=3)
    await answered_by(engine, rows(12), clock)
    assert one.in_flight_peak + two.in_flight_peak <= 6
    assert 4 <= clock.monotonic() - 1000 <= 5.1


async def test_a_member_can_be_used_beside_its_balancer_under_one_limit(clock):
    one, two = member(clock, "one", limit_rpm=10), member(clock, "two", limit_rpm=10)
    engine = balance(clock, one, two)
    await asyncio.gather(answered_by(engine, rows(20), clock), answered_by(one, rows(5), clock))
    assert len(one.requests) + len(two.requests) == 25
    assert clock.monotonic() - 1000 <= 61


def test_members_of_one_family_share_the_cache_with_it():
    azure = AzureGPT("k" * 20, "https://x.openai.azure.com", {"gpt-4o": "mine"})
    both = MultiLoadBalancedGPT([ChatGPT("sk-test"), azure])
    request = Request([{"role": "user", "content": "hi"}], {"model": "gpt-4o"})
    assert both.key_maker(request).key(request.messages) == ChatGPT("sk-test").key_maker(
        request
    ).key(request.messages)
    own = ChatGPT("EMPTY", base_url="http://127.0.0.1:8000/v1")
    assert MultiLoadBalancedGPT([ChatGPT("sk-test"), own]).family == "127.0.0.1:8000+openai"


def test_the_legacy_engine_gives_openai_a_quarter():
    engine = LoadBalancedGPT("sk-test", "k" * 20, "https://x.openai.azure.com", {"m": "d"})
    assert engine.openai.max_parallel_calls == engine.azure.max_parallel_calls == 64
    picks = Counter(engine._allocate(engine.gpts).name for _ in range(4_000))
    assert 0.21 < picks["ChatGPT"] / 4_000 < 0.29
    with pytest.raises(errors.ConfigurationError, match="ratio_openai_to_azure"):
        LoadBalancedGPT(
            "sk-test", "k" * 20, "https://x.openai.azure.com", {}, ratio_openai_to_azure=2
        )


async def test_usage_and_headroom_of_a_balancer_are_those_of_its_members(clock):
    engine = balance(clock, member(clock, "a", limit_rpm=10), member(clock, "b", limit_rpm=20))
    await answered_by(engine, rows(12), clock)
    assert engine.headroom().requests == 18
    assert engine.get_usage_stats().requests == 12
    assert sum(gpt.get_usage_stats().requests for gpt in engine.gpts) == 12


def requests_of(count: int) -> list[dict[str, object]]:
    return [
        {"messages": [{"role": "user", "content": f"q{n}"}], "model": "gpt-4o-mini"}
        for n in range(count)
    ]


def every_engine_class(server: FakeProvider) -> dict[str, Any]:
    from lbgpt_pandas.engine.litellm_router import LiteLlmRouter

    def openai() -> ChatGPT:
        return ChatGPT("sk-test-one", base_url=server.base_url)

    def azure() -> AzureGPT:
        return AzureGPT("k" * 20, server.azure_base, {"gpt-4o-mini": "gpt-4o-mini"})

    legacy = LoadBalancedGPT(
        "sk-test-one", "k" * 20, server.azure_base, {"gpt-4o-mini": "gpt-4o-mini"},
        openai_settings={"base_url": server.base_url},
    )  # fmt: skip
    params = {"model": "openai/gpt-4o-mini", "api_base": server.base_url, "api_key": "sk-test"}
    return {
        "ChatGPT": openai(),
        "AzureGPT": azure(),
        "MultiLoadBalancedGPT": MultiLoadBalancedGPT([openai(), azure()]),
        "LoadBalancedGPT": legacy,
        "LiteLlmRouter": LiteLlmRouter([{"model_name": "gpt-4o-mini", "litellm_params": params}]),
    }


@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(find_spec("litellm") is None, reason="needs the extra litellm")
def test_the_seeds_example_runs_through_all_five_engine_classes():
    with FakeProvider() as server:
        for name, engine in every_engine_class(server).items():
            answers = engine.chat_completion_list(requests_of(6), show_progress=False)
            texts = [answer.choices[0].message.content for answer in answers]
            assert texts == [f"A:q{n}" for n in range(6)], name


def test_a_real_server_with_two_keys_is_never_asked_for_more_than_it_allows():
    limits = {"k1-key-long": KeyLimits(rpm=1_200), "k2-key-long": KeyLimits(rpm=2_400)}
    with FakeProvider(limits=limits, window="bucket", burst_s=0.5) as server:
        engine = MultiLoadBalancedGPT(
            [
                ChatGPT(key, base_url=server.base_url, limit_rpm=each.rpm, limit_burst_s=0.5)
                for key, each in limits.items()
            ],
            "max_headroom",
        )
        answers = engine.chat_completion_list(requests_of(90), show_progress=False)
        assert [a.choices[0].message.content for a in answers] == [f"A:q{n}" for n in range(90)]
        assert server.tally.by_status[429] == 0
        assert abs(server.tally.by_key["k1-key-long"] - 30) <= 4
