"""A stored answer is read the same in one go and step by step."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine.caches.envelope import CorruptEntry, seal, unseal
from lbgpt_pandas.engine.completions import MAX_PLAUSIBLE_TOKENS, read_completion
from lbgpt_pandas.engine.errors import RequestError
from lbgpt_pandas.engine.stored import read_stored
from lbgpt_pandas.engine.types import Completion

QUESTION = [{"role": "user", "content": "How many words has this question?"}]
COUNTS = st.one_of(
    st.integers(-2, 200),
    st.sampled_from([None, True, 7.0, 7.5, "7", MAX_PLAUSIBLE_TOKENS, MAX_PLAUSIBLE_TOKENS + 1]),
    st.just(2**80),
)
TEXTS = st.one_of(st.text(max_size=12), st.sampled_from([None, 3, ["a"], "\ud800", "𝔸\0"]))


def maybe(**members):
    """A dict in which any member may be missing."""
    return st.fixed_dictionaries({}, optional=members)


ANSWERS = maybe(
    id=TEXTS,
    model=TEXTS,
    choices=st.one_of(
        st.lists(
            maybe(
                index=COUNTS,
                message=st.one_of(maybe(content=TEXTS, refusal=TEXTS, role=TEXTS), TEXTS),
                finish_reason=st.one_of(st.sampled_from(["stop", "content_filter"]), TEXTS),
            ),
            max_size=2,
        ),
        TEXTS,
    ),
    usage=st.one_of(
        maybe(
            prompt_tokens=COUNTS,
            completion_tokens=COUNTS,
            prompt_tokens_details=st.one_of(maybe(cached_tokens=COUNTS), TEXTS),
        ),
        TEXTS,
    ),
)
PLAIN = {
    "model": "gpt-4o-mini",
    "choices": [{"message": {"role": "assistant", "content": "Six."}, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 19,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
}


def sealed(payload):
    return seal("k", family="f", model="m", payload=payload, created=datetime.now(UTC))


def step_by_step(text):
    payload = unseal("k", text)
    try:
        return read_completion(payload, messages=QUESTION, deployment="", keep_payload=False)
    except RequestError as error:
        return type(error), str(error)


def in_one_go(text):
    answer = read_stored("k", text)
    if isinstance(answer, Completion):
        return answer
    assert answer == unseal("k", text)
    try:
        return read_completion(answer, messages=QUESTION, deployment="", keep_payload=False)
    except RequestError as error:
        return type(error), str(error)


@given(ANSWERS)
def test_both_ways_make_the_same_of_any_answer(payload):
    text = sealed(payload)
    assert in_one_go(text) == step_by_step(text)


@given(
    model=st.text(max_size=5),
    content=st.text(max_size=20),
    reason=st.one_of(st.none(), st.text(max_size=5)),
    counts=st.tuples(st.integers(-1, 99), st.integers(-1, 99), st.integers(-1, 99)),
)
def test_both_ways_make_the_same_of_a_usual_answer(model, content, reason, counts):
    payload = {
        "model": model,
        "choices": [{"message": {"content": content}, "finish_reason": reason}],
        "usage": {
            "prompt_tokens": counts[0],
            "completion_tokens": counts[1],
            "prompt_tokens_details": {"cached_tokens": counts[2]},
        },
    }
    text = sealed(payload)
    assert in_one_go(text) == step_by_step(text)


def test_a_usual_answer_is_read_in_one_go():
    answer = read_stored("k", sealed(PLAIN))
    assert isinstance(answer, Completion)
    assert (answer.text, answer.tokens.cached, answer.payload) == ("Six.", 4, None)


@pytest.mark.parametrize(
    "change",
    [
        {"usage": None},
        {"choices": [*PLAIN["choices"], *PLAIN["choices"]]},
        {"choices": [{"message": {"content": None, "tool_calls": []}}]},
        {"choices": [{"message": {"content": "x"}, "finish_reason": "content_filter"}]},
        {"model": None},
    ],
)
def test_an_unusual_answer_is_left_to_the_careful_way(change):
    assert read_stored("k", sealed(PLAIN | change)) == PLAIN | change


def test_what_is_no_answer_is_corrupt():
    text = sealed(PLAIN)
    with pytest.raises(CorruptEntry, match="another key"):
        read_stored("other", text)
    with pytest.raises(CorruptEntry, match="checksum"):
        read_stored("k", text.replace("Six.", "Ten."))
    for payload in (["list"], "text", 7):
        with pytest.raises(CorruptEntry, match="no answer"):
            read_stored("k", sealed(payload))


def test_a_number_that_is_none_is_no_token_count():
    text = sealed(PLAIN | {"usage": {"prompt_tokens": 1e3, "completion_tokens": 2}})
    assert math.isclose(orjson.loads(text)["resp"]["usage"]["prompt_tokens"], 1000)
    assert in_one_go(text) == step_by_step(text)
