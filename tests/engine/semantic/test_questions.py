"""Which part of a request may differ a little, and what must be the same."""

from __future__ import annotations

import pytest

from lbgpt_pandas.engine.errors import InvalidInput
from lbgpt_pandas.engine.keys import KeyMaker
from lbgpt_pandas.engine.semantic.questions import ENCODING_OPTION, FRAME_OPTION, question_of
from lbgpt_pandas.engine.types import Request

ASKED = {"role": "user", "content": "Where is Rome?"}
SYSTEM = {"role": "system", "content": "Be brief."}


def question(*messages, family="openai", options=None, sample=0, **params):
    request = Request(list(messages), {"model": "m", **params}, options or {}, sample)
    maker = KeyMaker.for_request(request, family=family)
    return question_of(request, maker.key(request.messages), maker)


def test_the_user_text_is_embedded_and_the_rest_is_the_scope():
    one = question(SYSTEM, ASKED, temperature=0)
    other = question(SYSTEM, {"role": "user", "content": "Where's Rome?"}, temperature=0)
    assert (one.text, other.text) == ("Where is Rome?", "Where's Rome?")
    assert one.scope == other.scope
    assert one.key != other.key


@pytest.mark.parametrize(
    "other",
    [
        question({"role": "system", "content": "Be long."}, ASKED, temperature=0),
        question({"role": "developer", "content": "Be brief."}, ASKED, temperature=0),
        question(ASKED, temperature=0),
        question(SYSTEM, {**ASKED, "name": "ann"}, temperature=0),
        question(SYSTEM, ASKED, temperature=1),
        question(SYSTEM, ASKED),
        question(SYSTEM, ASKED, temperature=0, max_tokens=5),
        question(SYSTEM, ASKED, temperature=0, tools=[]),
        question(SYSTEM, ASKED, temperature=0, model="n"),
        question(SYSTEM, ASKED, temperature=0, family="other"),
        question(SYSTEM, ASKED, temperature=0, options={ENCODING_OPTION: "all"}),
        question(SYSTEM, ASKED, temperature=0, options={FRAME_OPTION: ("Where is ", "?")}),
    ],
)
def test_whatever_else_differs_is_another_scope(other):
    assert other.scope != question(SYSTEM, ASKED, temperature=0).scope


def test_what_does_not_change_the_answer_is_not_in_the_scope():
    assert question(ASKED, user="me", service_tier="flex").scope == question(ASKED).scope


def test_of_a_rendered_prompt_only_the_values_are_embedded():
    framed = question(ASKED, options={FRAME_OPTION: ("Where is ", "?")})
    assert framed.text == "Rome"
    # Another engine's change of the messages may have taken the frame away.
    assert question(ASKED, options={FRAME_OPTION: ("Why ", "?")}).text == "Where is Rome?"
    assert (
        question(ASKED, options={FRAME_OPTION: ("Where is Rome", "Rome?")}).text == ASKED["content"]
    )


def test_the_encodings():
    texts = {
        encoding: question(SYSTEM, ASKED, options={ENCODING_OPTION: encoding}).text
        for encoding in ("user_only", "all", "system_only")
    }
    assert texts == {
        "user_only": "Where is Rome?",
        "all": "Be brief.\nWhere is Rome?",
        "system_only": "Be brief.",
    }
    only_system = {ENCODING_OPTION: "system_only"}
    long = {"role": "system", "content": "Be long."}
    paris = {"role": "user", "content": "Where is Paris?"}
    one = question(SYSTEM, ASKED, options=only_system)
    assert one.scope == question(long, ASKED, options=only_system).scope
    assert one.scope != question(SYSTEM, paris, options=only_system).scope
    with pytest.raises(InvalidInput, match="'user_only', 'all', 'system_only'"):
        question(ASKED, options={ENCODING_OPTION: "users"})


def test_where_one_system_message_ends_is_no_matter_of_likeness():
    def scope(*systems):
        messages = [{"role": "system", "content": text} for text in systems]
        return question(*messages, ASKED, options={ENCODING_OPTION: "system_only"}).scope

    assert scope("a\nb", "c") != scope("a", "b\nc")
    assert scope("a\nb", "c") == scope("a\nB", "C")
    assert scope("a") == scope("b\nc")


def test_parts_of_text_are_joined():
    parts = [{"type": "text", "text": "Where is"}, {"type": "text", "text": "Rome?"}]
    assert question({"role": "user", "content": parts}).text == "Where is\nRome?"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [SYSTEM],
        [{"role": "user", "content": "  "}],
        [{"role": "user", "content": None}],
        [ASKED, {"role": "assistant", "content": "In Italy."}, ASKED],
        [{"role": "assistant", "content": "In Italy."}, ASKED],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {}}]}],
        [{"role": "user", "content": [{"type": "text", "text": 5}]}],
    ],
)
def test_what_cannot_be_compared_has_no_question(messages):
    assert question(*messages) is None


def test_an_independent_sample_is_never_answered_by_likeness():
    assert question(ASKED, sample=1) is None
    assert question(SYSTEM, options={ENCODING_OPTION: "system_only"}) is None
    empty = Request([ASKED], {"model": "m"}, {FRAME_OPTION: ("Where is Rome", "?")})
    maker = KeyMaker.for_request(empty, family="openai")
    assert question_of(empty, "k", maker) is None
