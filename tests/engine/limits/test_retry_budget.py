"""The retry budget: ten and a fifth of the last minute's answers, then the oldest three."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine.limits.retry_budget import RetryBudget


def test_ten_are_granted_without_any_answer_and_then_the_oldest_three_alone():
    budget = RetryBudget()
    assert all(budget.grant(0.0, order=row) for row in range(10, 20))
    assert [budget.grant(0.0, order=row) for row in range(20, 25)] == [False] * 5
    assert [budget.grant(0.0, order=row) for row in (10, 11, 12, 13)] == [True, True, True, False]


def test_a_row_that_is_done_makes_room_among_the_oldest():
    budget = RetryBudget()
    for row in range(12):
        budget.grant(0.0, order=row)
    assert not budget.grant(0.0, order=3)
    budget.settled(0)
    assert budget.grant(0.0, order=3)


def test_five_answers_pay_for_one_retry_for_a_minute():
    budget = RetryBudget()
    for _ in range(50):
        budget.success(0.0)
    granted = sum(budget.grant(1.0, order=row) for row in range(100, 200))
    assert granted == 20  # ten, and ten for fifty answers; none of these rows is old
    assert not budget.grant(59.0, order=300)
    assert budget.grant(62.0, order=300)


def test_rows_that_are_done_and_fail_again_are_counted_once():
    budget = RetryBudget()
    for _ in range(3):
        for row in range(300):
            budget.grant(0.0, order=row)
        for row in range(1, 300):
            budget.settled(row)
    for row in range(100):
        budget.grant(0.0, order=row)
    assert [row for row in range(100) if budget.grant(0.0, order=row)] == [0, 1, 2]


def test_rows_that_are_done_are_not_kept():
    budget = RetryBudget()
    for row in range(10_000):
        budget.success(float(row))
        budget.grant(float(row), order=row)
        budget.settled(row)
    assert len(budget._oldest_first) < 100


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=120))
def test_when_it_is_empty_the_three_oldest_failing_rows_go_on(history):
    budget, failing = RetryBudget(), set()
    for row in range(100, 110):
        budget.grant(0.0, order=row)
        budget.settled(row)
    for is_done, row in history:
        if is_done:
            budget.settled(row)
            failing.discard(row)
        else:
            failing.add(row)
            assert budget.grant(0.0, order=row) == (row in sorted(failing)[:3])


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5), st.integers(0, 40)), max_size=200))
def test_a_minute_never_sees_more_than_the_budget_beside_the_oldest(history):
    budget, now, answers, granted = RetryBudget(), 0.0, [], []
    failing: set[int] = set()
    for is_answer, seconds, row in history:
        now += seconds
        if is_answer:
            budget.success(now)
            answers.append(now)
            continue
        failing.add(row)
        is_old = row in sorted(failing)[:3]
        if budget.grant(now, order=row) and not is_old:
            granted.append(now)
            # A second's grace, because answers are counted by the second.
            recent = sum(at > now - 61 for at in answers)
            assert sum(at > now - 60 for at in granted) <= 10 + 0.2 * recent + 1
