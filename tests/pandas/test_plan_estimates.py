"""Estimates of a plan: tokens, answers, time."""

from __future__ import annotations

import random
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lbgpt_pandas as lb
from lbgpt_pandas.answer_estimates import completion_rule, earlier_answers
from lbgpt_pandas.durations import Load, duration, measured_latency_s
from lbgpt_pandas.engine.limits.estimate import TokenEstimator
from lbgpt_pandas.engine.types import Request, TokenCount
from lbgpt_pandas.testing import FakeClock, ScriptedGPT
from lbgpt_pandas.tiktoken_data import tokenizer
from lbgpt_pandas.token_estimates import Answered, measure, prompt_rule, some_of

NO_ANSWERS = Answered.of([])


def ask(text, **params):
    return Request([{"role": "user", "content": text}], {"model": "gpt-4o-mini", **params})


def rule(engine, *, request=None, measured=None, answered=NO_ANSWERS, texts=()):
    request = request or ask("x")
    measured = measure([], []) if measured is None else measured
    return prompt_rule(engine, request, measured=measured, answered=answered, texts=texts)


def keyed():
    return lb.ChatGPT("sk-test-0123456789")


# Prompts


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=60), min_size=1, max_size=4))
def test_characters_are_counted_as_the_engine_counts_them(texts):
    messages = [{"role": "user", "content": text} for text in texts]
    measured = measure([Request(messages)], [0])
    assert measured.by_characters[0] == TokenEstimator().prompt(messages, model=None)


def test_other_scripts_are_counted_by_their_bytes():
    latin, foreign = ask("wohin mit dem großen Müll? " * 20), ask("大きなごみはどこへ " * 20)
    measured = measure([latin, foreign], [0, 1])
    assert measured.is_latin.tolist() == [True, False]
    assert measured.by_rule[0] == measured.by_characters[0]
    assert measured.by_rule[1] > 2 * measured.by_characters[1]


def test_stored_answers_of_the_frame_tell_the_line_that_prompts_follow():
    sizes = [40, 80, 160, 400, 900, 1_600]
    requests = [ask("a" * size) for size in sizes]
    # A provider that counts a token for each three characters and 50 for tools.
    answered = Answered.of([(size / 3 + 50, 1) for size in sizes])
    fitted = rule(keyed(), measured=measure(requests, range(6)), answered=answered)
    assert fitted.source == "6 stored answers of this frame"
    tokens = fitted.tokens(measure([ask("a" * 3_000)], [0]))
    assert tokens[0] == pytest.approx(1_050, rel=0.01)


def test_four_answers_are_too_few_and_equal_prompts_have_a_ratio():
    requests = [ask("a" * 100)] * 8
    few = rule(keyed(), measured=measure(requests, range(4)), answered=Answered.of([(90, 1)] * 4))
    assert few.source == "four characters a token"
    fitted = rule(
        keyed(), measured=measure(requests, range(8)), answered=Answered.of([(64, 1)] * 8)
    )
    assert fitted.tokens(measure(requests, [0]))[0] == 64


def test_tools_and_schemas_are_part_of_the_prompt():
    plain, tools = ask("x"), ask("x", tools=[{"type": "function", "function": {"name": "f" * 400}}])
    measured = measure([plain], [0])
    more = rule(keyed(), request=tools).tokens(measured) - rule(keyed(), request=plain).tokens(
        measured
    )
    assert more[0] > 100
    own = lb.ChatGPT("sk-test-0123456789", tools=tools.params["tools"])
    assert rule(own, request=plain).tokens(measured) == rule(keyed(), request=tools).tokens(
        measured
    )


def test_images_count_and_tool_calls_of_earlier_turns_as_well():
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    seen = Request([{"role": "user", "content": [{"type": "text", "text": "?"}, image]}])
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "x" * 400}}
    called = Request([{"role": "assistant", "content": None, "tool_calls": [call]}])
    assert measure([seen, called], [0]).by_rule[0] > 1_000
    assert measure([seen, called], [1]).by_rule[0] > 100


def test_earlier_calls_teach_each_script_by_itself():
    engine = ScriptedGPT(limit_tpm=1_000_000)
    estimator = engine.deployment.estimator
    for _ in range(60):
        for text, tokens in (("a" * 4_000, 2_000), ("я" * 4_000, 3_000)):
            message = {"role": "user", "content": text}
            estimator.observe([message], TokenCount(tokens, 9), model="gpt-4o-mini")
    learned = rule(engine)
    assert learned.source == "earlier calls of this engine"
    tokens = learned.tokens(measure([ask("a" * 400), ask("я" * 400)], [0, 1]))
    assert tokens.tolist() == pytest.approx([214, 320], rel=0.05)


# tiktoken

LITELLM = find_spec("litellm")
TABLES = Path(LITELLM.origin).parent / "litellm_core_utils" / "tokenizers" if LITELLM else None


@pytest.fixture
def tables(monkeypatch):
    pytest.importorskip("tiktoken")
    if TABLES is None or not TABLES.exists():
        pytest.skip("no table of tiktoken's on this machine")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(TABLES))


def test_the_tokenizer_is_used_where_its_table_lies_on_this_machine(tables):
    encode = tokenizer("openai/gpt-4o-mini-2024-07-18")
    assert [len(tokens) for tokens in encode(["Where is Rome?", ""])] == [4, 0]
    texts = [ask("Where is the nearest post office, please? " * 10) for _ in range(3)]
    fitted = rule(keyed(), texts=texts)
    assert fitted.source == "tiktoken, 3 prompts"
    tokens = fitted.tokens(measure(texts, [0]))[0]
    assert tokens == len(encode([texts[0].messages[0]["content"]])[0]) + 7


def test_a_server_of_ones_own_has_tokens_of_its_own(tables):
    engine = lb.ChatGPT("sk-test-0123456789", base_url="http://127.0.0.1:9/v1")
    assert rule(engine, texts=[ask("x")]).source == "four characters a token"


@pytest.mark.parametrize("place", ["", "empty", "damaged"])
def test_nothing_is_downloaded(place, tmp_path, monkeypatch):
    pytest.importorskip("tiktoken")
    directory = "" if not place else str(tmp_path)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", directory)
    files = ["fb374d419588a4632f3f557e76b4b70aebbca790", "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"]
    if place == "damaged":
        for name in files:
            (tmp_path / name).write_bytes(b"IQ== 0\n")
    assert tokenizer("gpt-4o-mini") is None
    assert tokenizer("gpt-4") is None
    assert rule(keyed(), texts=[ask("x")]).source == "four characters a token"
    if place == "damaged":
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)


def test_models_of_others_have_no_tokenizer(tables):
    assert tokenizer("claude-haiku-4-5") is None
    assert tokenizer("") is None


# Answers


@pytest.mark.parametrize(
    ("params", "each", "most"),
    [
        ({}, (4, 256, 1_024), None),
        ({"max_tokens": 100}, (4, 100, 100), 100),
        ({"max_tokens": 5_000}, (4, 256, 5_000), 5_000),
        ({"max_completion_tokens": 3, "max_tokens": 100}, (3, 3, 3), 3),
        ({"n": 3}, (12, 768, 3_072), None),
        ({"n": 2, "max_tokens": 100}, (8, 200, 200), 200),
        ({"model": "gpt-5-mini"}, (64, 1_024, 8_192), None),
        ({"model": "gpt-5-mini", "reasoning_effort": "none"}, (4, 256, 1_024), None),
    ],
)
def test_without_answers_the_range_is_wide_and_says_so(params, each, most):
    found = completion_rule(keyed(), ask("x", **params), answered=NO_ANSWERS)
    assert (tuple(found.each), found.most) == (each, most)
    assert "no answers known" in found.source


def test_stored_answers_tell_their_length_up_to_the_limit():
    answered = Answered.of([(10 * n, 50 + n % 2) for n in range(1, 20)])
    found = completion_rule(keyed(), ask("x"), answered=answered)
    assert found.tokens(np.array([7, 700]), found.each.expected).tolist() == [51, 51]
    cut = completion_rule(keyed(), ask("x", max_tokens=20), answered=answered)
    assert cut.tokens(np.array([7, 700]), cut.each.expected).tolist() == [20, 20]


def test_answers_that_grow_with_their_prompts_are_seen_to():
    answered = Answered.of([(10 * n, 20 * n + 1) for n in range(1, 20)])
    found = completion_rule(keyed(), ask("x"), answered=answered)
    assert found.grows
    assert found.tokens(np.array([1_000]), found.each.expected)[0] == pytest.approx(2_000, rel=0.02)


@given(
    st.lists(st.tuples(st.integers(1, 10_000), st.integers(0, 10_000)), max_size=30),
    st.integers(1, 5_000) | st.none(),
)
def test_a_range_is_in_order_and_within_the_limit(pairs, limit):
    request = ask("x") if limit is None else ask("x", max_tokens=limit)
    found = completion_rule(ScriptedGPT(), request, answered=Answered.of(pairs))
    prompts = np.array([1, 50, 5_000])
    low, expected, high = (found.tokens(prompts, each) for each in found.each)
    assert (low >= 1).all()
    assert (low <= expected).all()
    assert (expected <= high).all()
    assert limit is None or (high <= limit).all()


def test_answers_of_other_models_are_kept_apart():
    def reply(request):
        return "yes " * (400 if request.model == "chatty" else 1)

    engine = ScriptedGPT(reply, name="told-apart")
    rows = pd.Series([f"row {n}" for n in range(8)])
    for model in ("chatty", "terse"):
        rows.lbgpt.complete("{}", model=model, engine=engine, cache_mode="off", progress=False)
    terse, chatty = (earlier_answers(engine, model).completions for model in ("terse", "chatty"))
    assert len(terse) == len(chatty) == 8
    assert chatty.mean() > 20 * terse.mean()
    assert len(earlier_answers(engine, "another").completions) == 0


def test_a_sample_of_values_is_always_the_same():
    values = list(range(1_000))
    random.seed(7)
    assert some_of(values, 10) == some_of(values, 10)
    assert some_of(values, 2_000) is values


# Time


def limited(clock, **limits):
    return ScriptedGPT(clock=clock, max_parallel_calls=10, **limits)


def load(requests, **more):
    return Load(requests, **{"prompt": 100.0, "completion": 50.0, "most": None, **more})


def told(engine, what, *, latency_s=1.0, max_parallel=None):
    return duration(engine, what, latency_s=latency_s, max_parallel=max_parallel).seconds


@pytest.mark.parametrize(
    ("limits", "what", "seconds"),
    [
        ({"limit_rpm": 60}, load(60), 6),
        ({"limit_rpm": 60}, load(61), 61),
        ({"limit_rpm": 60}, load(600), 9 * 60 + 1),
        ({"limit_rpm": 60, "limit_burst_s": 1}, load(600), 600),
        ({"limit_tpm": 15_000}, load(1_000), 9 * 60 + 1),
        ({"limit_tpm": 15_000, "limit_rpm": 50}, load(1_000), 19 * 60 + 1),
        ({"limit_tpm": 15_000}, load(1_000, most=1_400), 99 * 60 + 1),
        ({}, load(1_000), 100),
    ],
)
def test_the_scarcest_of_limits_and_places_decides(limits, what, seconds):
    assert told(limited(FakeClock(), **limits), what) == pytest.approx(seconds, rel=0.05)


def test_limits_of_all_deployments_add_up_and_shared_ones_do_not():
    clock = FakeClock()
    one = limited(clock, limit_rpm=60)
    both = lb.MultiLoadBalancedGPT([limited(clock, limit_rpm=60), limited(clock, limit_rpm=60)])
    shared = {"limit_rpm": 60, "quota_group": "of-a-plan"}
    grouped = lb.MultiLoadBalancedGPT([limited(clock, **shared), limited(clock, **shared)])
    spare = lb.MultiLoadBalancedGPT([limited(clock, limit_rpm=60), limited(clock, tier=1)])
    assert told(one, load(600)) == pytest.approx(541, rel=0.05)
    assert told(both, load(600)) == pytest.approx(241, rel=0.05)
    assert told(grouped, load(600)) == pytest.approx(541, rel=0.05)
    assert told(spare, load(600)) == pytest.approx(541, rel=0.05)


def test_the_runs_own_cap_slows_it_down():
    engine = limited(FakeClock())
    assert told(engine, load(100)) == 10
    assert told(engine, load(100), max_parallel=2) == 50


def test_what_is_not_known_is_said():
    clock = FakeClock()
    nothing = duration(limited(clock), load(10), latency_s=None, max_parallel=None)
    assert nothing.seconds is None
    assert "no limit and no call" in nothing.note
    some = duration(limited(clock, limit_rpm=1), load(10), latency_s=None, max_parallel=None)
    assert some.seconds == pytest.approx(9 * 60, rel=0.05)
    assert "limits alone" in some.note
    assert duration(limited(clock), load(0), latency_s=None, max_parallel=None).seconds == 0.0


def test_calls_are_measured_and_the_plan_takes_their_time():
    clock = FakeClock()
    engine = ScriptedGPT("yes", clock=clock, latency_s=2.0, max_parallel_calls=5)
    rows = pd.Series([f"row {n}" for n in range(110)])
    assert measured_latency_s(engine) is None
    rows[:10].lbgpt.complete("{}", engine=engine, progress=False)
    assert measured_latency_s(engine) == pytest.approx(2.0)
    plan = rows.lbgpt.plan("{}", engine=engine)
    assert plan.eta_s == pytest.approx(40.0)
    begun = clock.monotonic()
    with lb.using(progress=False):
        plan.run()
    assert clock.monotonic() - begun == pytest.approx(plan.eta_s, rel=0.1)


def test_a_limited_run_takes_as_long_as_was_said():
    clock = FakeClock()
    engine = ScriptedGPT("yes", clock=clock, latency_s=1.0, limit_rpm=30, cache={})
    rows = pd.Series([f"row {n}" for n in range(150)])
    with lb.using(progress=False):
        rows[:10].lbgpt.complete("{}", engine=engine)
        clock.advance(120)
        plan = rows.lbgpt.plan("{}", engine=engine)
        begun = clock.monotonic()
        plan.run()
    assert clock.monotonic() - begun == pytest.approx(plan.eta_s, rel=0.15)
