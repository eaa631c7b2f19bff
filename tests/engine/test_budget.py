"""Budgets: set aside, charged, given back, waited for."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine.amounts import Amounts
from lbgpt_pandas.engine.budget import Budget
from lbgpt_pandas.engine.errors import BudgetExceeded, ConfigurationError
from lbgpt_pandas.engine.flights import Withdrawn
from lbgpt_pandas.engine.run_state import RunState

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "keywords",
    [{}, {"usd": 0}, {"usd": -1}, {"usd": NAN}, {"usd": INF}, {"usd": "5"}, {"usd": True},
     {"tokens": 0}, {"tokens": -5}, {"tokens": 1.5}, {"tokens": NAN}, {"requests": 0},
     {"usd": 1, "requests": -1}, {"usd": 1, "on_exceeded": "stop"}],
)  # fmt: skip
def test_budgets_that_cannot_work_are_refused(keywords):
    with pytest.raises(ConfigurationError):
        Budget(**keywords)


def test_a_number_means_usd():
    assert Budget.of(3).usd == 3.0
    assert Budget.of(None) is None
    budget = Budget(tokens=1e6)
    assert Budget.of(budget) is budget
    assert budget.limits == Amounts(usd=None, tokens=1_000_000, requests=None)
    for value in (0, NAN, True, "5", [1]):
        with pytest.raises(ConfigurationError):
            Budget.of(value)


def test_what_is_set_aside_is_not_left():
    budget = Budget(usd=1.0, tokens=100, requests=5)
    first = budget.reserve(0.4, 30)
    assert budget.reserved == Amounts(0.4, 30, 1)
    assert budget.left == Amounts(0.6, 70, 4)
    assert budget.spent == Amounts(0.0, 0, 0)
    first.commit(0.1, 10)
    assert budget.reserved == Amounts(0.0, 0, 0)
    assert budget.spent == Amounts(0.1, 10, 1)
    assert budget.left == Amounts(0.9, 90, 4)


@pytest.mark.parametrize("limits", [{"usd": 1.0}, {"tokens": 100}, {"requests": 2}])
def test_each_unit_bounds(limits):
    budget = Budget(**limits)
    assert budget.reserve(0.5, 50)
    second = budget.reserve(0.5, 50)
    assert second
    assert budget.reserve(0.5, 50) is None
    second.cancel()
    assert budget.reserve(0.5, 50)


def test_a_reservation_ends_once():
    budget = Budget(usd=1.0)
    first, second = budget.reserve(0.4, 1), budget.reserve(0.4, 1)
    first.commit(0.3, 1)
    first.commit(None, None)
    first.cancel()
    assert (budget.spent.usd, budget.reserved.usd) == (0.3, 0.4)
    second.cancel()
    second.commit(0.4, 1)
    assert (budget.spent.usd, budget.reserved.usd) == (0.3, 0.0)


def test_what_cost_more_than_expected_is_charged_in_full():
    budget = Budget(usd=1.0)
    budget.reserve(0.9, 1).commit(1.5, 1)
    assert (budget.spent.usd, budget.left.usd) == (1.5, 0.0)
    assert budget.reserve(0.0001, 1) is None


def test_what_is_unknown_is_charged_as_expected():
    budget = Budget(usd=1.0)
    budget.reserve(0.4, 100).commit(None, None)
    budget.reserve(0.4, 100).commit(None, 7)
    assert budget.spent == Amounts(0.8, 107, 2)


def test_without_a_limit_in_usd_an_unknown_price_stays_unknown():
    budget = Budget(requests=9)
    budget.reserve(0.0, 10).commit(0.25, 10)
    assert budget.spent.usd == 0.25
    budget.reserve(0.0, 10).commit(None, 10)
    assert budget.spent == Amounts(None, 20, 2)


def test_cents_add_up():
    budget = Budget(usd=0.3)
    for _ in range(3):
        budget.reserve(0.1, 1).commit(0.1, 1)
    assert budget.left.usd == 0.0
    assert budget.reserve(0.0, 1)


def test_its_repr_has_the_figures():
    budget = Budget(usd=2.5, tokens=10_000)
    budget.reserve(1.0, 1_000).commit(0.125, 1_500)
    assert repr(budget) == (
        "<Budget: 0.125 USD of 2.5 USD, 1,500 tokens of 10,000 tokens spent, on_exceeded='raise'>"
    )


async def take(budget, usd=1.0, run=None):
    return await budget.acquire(usd=usd, tokens=1, run=run)


async def start(*coroutines):
    """Tasks that have run until they wait."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def rest():
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("on_exceeded", ["raise", "null"])
async def test_it_is_used_up_when_nothing_fits_and_nothing_comes_back(on_exceeded):
    budget = Budget(usd=1.0, on_exceeded=on_exceeded)
    (await take(budget)).commit(0.75, 1)
    with pytest.raises(BudgetExceeded) as caught:
        await take(budget, 0.5)
    message = str(caught.value)
    for part in ("0.75 USD of 1 USD are spent", "0.5 USD", "budget.add(usd=", "retry_failed"):
        assert part in message


async def test_while_calls_are_under_way_the_next_one_waits_for_what_they_leave():
    budget = Budget(usd=1.0)
    first = await take(budget)
    (second,) = await start(take(budget, 0.5))
    assert not second.done()
    assert not budget.paused
    first.commit(0.5, 1)
    assert (await second) is not None
    assert budget.left.usd == 0.0


@pytest.mark.parametrize("on_exceeded", ["raise", "null"])
async def test_whoever_waits_is_refused_once_the_last_call_has_ended(on_exceeded):
    budget = Budget(usd=1.0, on_exceeded=on_exceeded)
    first = await take(budget)
    large, small = await start(take(budget, 0.5), take(budget, 0.25))
    first.commit(0.7, 1)
    await rest()
    assert isinstance(large.exception(), BudgetExceeded)
    if on_exceeded == "raise":
        assert isinstance(small.exception(), BudgetExceeded)  # nothing new is started
    else:
        assert small.result() is not None


async def test_waiting_is_first_come_first_served():
    budget = Budget(usd=1.0)
    first = await take(budget)
    large, small = await start(take(budget, 0.9), take(budget, 0.1))
    assert budget.reserve(0.0, 1) is None  # nobody passes those who wait
    first.commit(0.5, 1)
    await rest()
    assert isinstance(large.exception(), BudgetExceeded)
    assert isinstance(small.exception(), BudgetExceeded)
    budget = Budget(usd=1.0, on_exceeded="pause")
    first = await take(budget)
    large, small = await start(take(budget, 0.9), take(budget, 0.1))
    first.commit(0.5, 1)
    await rest()
    assert not large.done()
    assert not small.done()  # it would fit
    budget.add(0.5)
    await rest()
    assert large.result()
    assert small.result()


async def test_a_pause_ends_with_add():
    budget = Budget(usd=1.0, on_exceeded="pause")
    (await take(budget)).commit(1.0, 1)
    (waiting,) = await start(take(budget))
    assert budget.paused
    budget.add(usd=0.5)
    await rest()
    assert not waiting.done()
    budget.add(usd=0.5)
    assert await waiting
    assert not budget.paused


@pytest.mark.parametrize(
    "keywords", [{"usd": 0}, {"usd": -1}, {"tokens": 5}, {"usd": 1, "tokens": 5}]
)
def test_add_refuses_what_makes_no_sense_and_then_changes_nothing(keywords):
    budget = Budget(usd=1.0)
    with pytest.raises(ConfigurationError):
        budget.add(**keywords)
    assert budget.limits == Amounts(1.0, None, None)


async def test_add_from_another_thread_wakes():
    budget = Budget(requests=1, on_exceeded="pause")
    await take(budget)
    (waiting,) = await start(take(budget))
    thread = threading.Thread(target=lambda: budget.add(requests=1))
    thread.start()
    assert await asyncio.wait_for(waiting, 5)
    thread.join()


def test_loops_in_threads_share_one_budget():
    budget = Budget(requests=200)
    calls = []

    async def worker(number):
        for _ in range(30):
            reservation = await budget.acquire(usd=0.0, tokens=1)
            await asyncio.sleep(0)
            if number % 2:
                reservation.commit(0.0, 1)
                calls.append(number)
            else:
                reservation.cancel()

    async def main():
        return await asyncio.gather(*(worker(i) for i in range(10)), return_exceptions=True)

    ends = []
    threads = [threading.Thread(target=lambda: ends.extend(asyncio.run(main()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == budget.spent.requests <= 200
    assert {type(end) for end in ends} <= {type(None), BudgetExceeded}
    assert budget.reserved.requests == 0


async def test_whoever_is_cancelled_leaves_the_queue_to_the_next():
    budget = Budget(usd=1.0, on_exceeded="pause")
    (await take(budget)).commit(0.5, 1)
    large, small = await start(take(budget), take(budget, 0.5))
    large.cancel()
    await rest()
    assert large.cancelled()
    assert small.result()


async def test_a_grant_that_arrives_too_late_is_given_back():
    budget = Budget(usd=1.0, on_exceeded="pause")
    first = await take(budget)
    late, third = await start(take(budget), take(budget))
    first.cancel()  # granted to `late`, who has not woken yet
    late.cancel()
    await rest()
    assert late.cancelled()
    assert third.result()
    assert budget.reserved.requests == 1


async def test_a_stopped_run_waits_no_longer():
    budget = Budget(usd=1.0, on_exceeded="pause")
    (await take(budget)).commit(1.0, 1)
    run = RunState(budget=budget)
    (waiting,) = await start(take(budget, run=run))
    run.stop()
    with pytest.raises(Withdrawn):
        await waiting
    assert not budget.paused


def test_a_loop_that_was_closed_holds_nothing_up():
    budget = Budget(usd=1.0, on_exceeded="pause")

    async def main():
        (await take(budget)).commit(1.0, 1)
        return await start(take(budget))

    loop = asyncio.new_event_loop()
    abandoned = loop.run_until_complete(main())
    loop.close()
    budget.add(1.0)
    assert budget.reserved.requests == 0
    assert budget.reserve(1.0, 1)
    abandoned[0]._log_destroy_pending = False  # it was left behind on purpose


def test_a_call_of_before_a_fork_gives_nothing_back_after_it():
    budget = Budget(requests=3)
    earlier = budget.reserve(0.0, 1)
    budget.after_fork()
    earlier.cancel()
    assert budget.left.requests == 3
    for _ in range(3):
        assert budget.reserve(0.0, 1)
    assert budget.reserve(0.0, 1) is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_a_free_lock_and_no_calls_under_way():
    budget = Budget(requests=3)
    budget.reserve(0.0, 1).commit(0.0, 1)
    budget.reserve(0.0, 1)
    held, over = threading.Event(), threading.Event()

    def hold():
        with budget._lock:
            held.set()
            over.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = os.fork()
    if not child:
        os._exit(budget.left.requests)
    over.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert budget.left.requests == 1


step = st.one_of(
    st.tuples(st.just("reserve"), st.integers(0, 60), st.integers(0, 60)),
    st.tuples(st.sampled_from(["commit", "cancel"]), st.integers(0, 60), st.integers(0, 60)),
    st.tuples(st.just("unknown"), st.just(0), st.just(0)),
)


@given(st.lists(step, max_size=60))
def test_what_was_granted_is_reserved_or_spent_or_given_back(steps):
    budget = Budget(usd=1.0, tokens=100, requests=10)
    held, usd, tokens, requests = [], 0, 0, 0
    for kind, cents, count in steps:
        if kind == "reserve":
            before = budget.left
            grant = budget.reserve(cents / 100, count)
            fits = cents / 100 <= before.usd and count <= before.tokens and before.requests
            # What is left is never shown as less than nothing.
            fits = fits and round(100 * (budget.spent.usd + budget.reserved.usd)) <= 100
            fits = fits and budget.spent.tokens + budget.reserved.tokens <= 100
            assert bool(grant) == bool(fits)
            if grant:
                held.append((grant, cents, count))
        elif held:
            grant, *expected = held.pop(0)
            if kind == "cancel":
                grant.cancel()
                continue
            charged = expected if kind == "unknown" else (cents, count)
            grant.commit(*(None, None) if kind == "unknown" else (cents / 100, count))
            usd, tokens, requests = usd + charged[0], tokens + charged[1], requests + 1
    assert budget.spent == Amounts(usd / 100, tokens, requests)
    assert budget.reserved.requests == len(held)
    assert budget.reserved.tokens == sum(count for *_, count in held)
    assert budget.spent.requests + budget.reserved.requests <= 10


@given(
    costs=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    real=st.lists(st.integers(0, 40), min_size=30, max_size=30),
    on_exceeded=st.sampled_from(["raise", "null"]),
)
def test_everybody_gets_an_answer_and_grants_come_in_order(costs, real, on_exceeded):
    budget = Budget(tokens=100, on_exceeded=on_exceeded)
    order = []

    async def call(number, cost):
        try:
            reservation = await budget.acquire(usd=0.0, tokens=cost)
        except BudgetExceeded:
            return "refused"
        order.append(number)
        for _ in range(cost % 4):
            await asyncio.sleep(0)
        reservation.commit(0.0, min(real[number], cost))
        return "made"

    async def main():
        return await asyncio.gather(*(call(i, cost) for i, cost in enumerate(costs)))

    ends = asyncio.run(main())
    assert order == sorted(order)
    assert ends.count("made") == len(order) == budget.spent.requests
    assert budget.spent.tokens <= 100
    assert budget.reserved.requests == 0
