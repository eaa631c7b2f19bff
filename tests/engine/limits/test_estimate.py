"""Estimates of tokens: a rule of thumb that answers correct."""

from __future__ import annotations

import pytest

from lbgpt_pandas.engine.limits.estimate import TokenEstimator, certain_tokens
from lbgpt_pandas.engine.types import TokenCount


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


def test_four_characters_a_token_and_a_little_for_each_message():
    estimator = TokenEstimator()
    assert estimator.prompt(user("x" * 400), model="m") == 100 + 4 + 3
    two = [*user("x" * 40), {"role": "assistant", "content": None}]
    assert estimator.prompt(two, model="m") == 10 + 8 + 3


def test_parts_are_added_up_and_an_image_counts_as_a_thousand():
    parts = [{"type": "text", "text": "x" * 40}, {"type": "image_url", "image_url": {"url": "u"}}]
    assert TokenEstimator().prompt(user(parts), model="m") == 10 + 1_000 + 7


def test_answers_correct_the_estimate_for_their_model_and_script():
    estimator = TokenEstimator()
    messages = user("x" * 4_000)
    for _ in range(30):
        estimator.observe(messages, TokenCount(prompt=2_000, completion=5), model="m")
    assert estimator.prompt(messages, model="m") == pytest.approx(2_000, rel=0.05)
    assert estimator.prompt(messages, model="other") == 1_007
    assert estimator.prompt(user("\u4f60" * 4_000), model="m") == 1_007


def test_a_dash_and_an_accent_do_not_make_another_script():
    estimator, plain = TokenEstimator(), user("x" * 4_000)
    for _ in range(30):
        estimator.observe(plain, TokenCount(prompt=2_000, completion=5), model="m")
    french = user("\u00e9t\u00e9 \u2014 \u00ab x \u00bb" + "x" * 3_988)
    assert estimator.prompt(french, model="m") == pytest.approx(2_000, rel=0.05)


def test_a_lone_surrogate_is_counted_like_any_other_character():
    assert TokenEstimator().prompt(user("\ud800" * 400), model="m") == 107


def test_choices_share_what_an_answer_took():
    estimator = TokenEstimator()
    for _ in range(20):
        tokens = TokenCount(prompt=9, completion=300)
        estimator.observe(user("q"), tokens, model="m", params={"n": 3})
    assert estimator.completion({}, model="m") == 100
    assert estimator.completion({"n": 3}, model="m") == 300


@pytest.mark.parametrize(
    ("prompt", "completion", "is_set", "counting", "expected"),
    [(30, 50, True, "larger", 50), (90, 50, True, "larger", 90), (30, 50, True, "sum", 80),
     (30, 50, False, "larger", 30), (30, 50, False, "sum", 30)],
)  # fmt: skip
def test_what_stays_counted_however_short_the_answer(
    prompt, completion, is_set, counting, expected
):
    assert certain_tokens(prompt, completion, is_set=is_set, counting=counting) == expected


def test_one_tiny_prompt_does_not_turn_the_estimate_of_a_large_one_round():
    estimator = TokenEstimator()
    estimator.observe(user("hi"), TokenCount(prompt=1, completion=1), model="m")
    assert estimator.prompt(user("x" * 4_000), model="m") > 800


def test_absurd_counts_do_not_spoil_it():
    estimator = TokenEstimator()
    estimator.observe(user("hello"), TokenCount(prompt=10**8, completion=5), model="m")
    assert estimator.prompt(user("hello"), model="m") < 100


def test_estimated_counts_teach_nothing():
    estimator = TokenEstimator()
    for _ in range(20):
        tokens = TokenCount(prompt=900, completion=900, estimated=True)
        estimator.observe(user("hello"), tokens, model="m")
    assert estimator.prompt(user("hello"), model="m") == 9
    assert estimator.completion({}, model="m") == 256


@pytest.mark.parametrize(
    ("params", "expected"),
    [({"max_tokens": 50}, 50), ({"max_completion_tokens": 70, "max_tokens": 50}, 70),
     ({"max_tokens": 50, "n": 3}, 150), ({}, 256), ({"n": 2}, 512), ({"max_tokens": None}, 256)],
)  # fmt: skip
def test_an_answer_may_take_what_was_set_for_each_choice(params, expected):
    assert TokenEstimator().completion(params, model="m") == expected


def test_without_a_setting_nine_in_ten_answers_fit():
    estimator = TokenEstimator()
    for count in range(1, 101):
        estimator.observe(user("q"), TokenCount(prompt=9, completion=count), model="m")
    assert 88 <= estimator.completion({}, model="m") <= 91


def test_a_few_short_answers_are_no_reason_to_expect_none_that_is_long():
    estimator = TokenEstimator()
    for _ in range(3):
        estimator.observe(user("q"), TokenCount(prompt=9, completion=1), model="m")
    assert estimator.completion({}, model="m") == 256


def test_old_answers_are_forgotten():
    estimator = TokenEstimator()
    for count in [1_000] * 200 + [10] * 200:
        estimator.observe(user("q"), TokenCount(prompt=9, completion=count), model="m")
    assert estimator.completion({}, model="m") == 10
