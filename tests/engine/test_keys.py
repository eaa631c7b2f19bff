from __future__ import annotations

import copy
import gc
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from lbgpt_pandas.engine.errors import ConfigurationError, InvalidInput
from lbgpt_pandas.engine.keys import (
    KEY_VERSION,
    TRANSPORT_KEYS,
    KeyMaker,
    canonical_json,
    request_key,
)
from lbgpt_pandas.engine.types import PRIVATE_KEYS, Request

GOLDEN = Path(__file__).with_name("golden_keys.json")

HELLO = [
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": "What colour is the sky?"},
]
PARAMS = {"model": "gpt-4o-mini", "temperature": 0}

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
PLAIN_MESSAGES = st.lists(st.dictionaries(TEXTS, TEXTS, max_size=4), max_size=4)
PARAMS_OF_ALL_KINDS = st.dictionaries(
    st.sampled_from(["model", "temperature", "max_tokens", "stop", "user", "lbgpt_tag", "x-new"]),
    st.none() | st.booleans() | st.integers() | st.floats(-9, 9) | TEXTS | st.lists(TEXTS),
)


def key(messages: object = HELLO, /, **params: object) -> str:
    return request_key(Request(messages, {**PARAMS, **params}), family="openai")


def expected_key(request: Request, *, family: str, kind: str, model: object) -> str:
    """Make the key of a request with plain messages again, from engine.md's description."""
    document = {
        "family": family,
        "kind": kind,
        "model": model,
        "params": {
            name: value
            for name, value in request.params.items()
            if name not in TRANSPORT_KEYS | {"model"} and not name.startswith("lbgpt_")
        },
        "v": KEY_VERSION,
    }
    opened = canonical_json(document).removesuffix("}")
    messages = json.dumps(
        request.messages, sort_keys=True, ensure_ascii=False, separators=(",", ":")
    )
    text = f'{opened},"messages":{messages},"sample":{request.sample}}}'
    assert json.loads(text)["messages"] == request.messages
    return f"{KEY_VERSION}:{hashlib.sha256(text.encode()).hexdigest()}"


@given(
    PLAIN_MESSAGES,
    PARAMS_OF_ALL_KINDS,
    st.integers(0, 9),
    TEXTS,
    st.none() | st.text("ab", min_size=1),
)
def test_maker_and_request_key_and_description_agree(messages, params, sample, family, alias):
    options = {} if alias is None else {"model_name_cache_alias": alias}
    request = Request(messages, params, options, sample)
    maker = KeyMaker.for_request(request, family=family, kind="chat", model_alias="logical")
    found = request_key(request, family=family, kind="chat", model_alias="logical")
    assert maker.key(messages, sample) == found
    assert found == expected_key(request, family=family, kind="chat", model=alias or "logical")


@given(PLAIN_MESSAGES)
def test_plain_messages_take_the_short_way_to_the_same_key(messages):
    maker = KeyMaker(family="openai", model_alias=None, params=PARAMS)
    # An OrderedDict is written with care, a dict of texts by orjson.
    carefully = [OrderedDict(message) for message in messages]
    assert maker.key(messages) == maker.key(tuple(messages)) == maker.key(carefully)


@given(PLAIN_MESSAGES, PLAIN_MESSAGES)
def test_other_messages_have_another_key(first, second):
    assert (key(first) == key(second)) == (first == second)


def test_one_maker_serves_many_requests():
    maker = KeyMaker(family="openai", model_alias=None, params=PARAMS)
    first = maker.key(HELLO)
    assert maker.key(HELLO, 1) != first
    assert maker.key(HELLO) == first
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(maker.key, [HELLO] * 200)) == {first}


def test_a_key_is_its_version_and_64_hexadecimal_digits():
    assert re.fullmatch(r"v1:[0-9a-f]{64}", key())


@pytest.mark.process
def test_a_key_is_the_same_in_another_process():
    code = (
        "from lbgpt_pandas.engine.keys import request_key;"
        "from lbgpt_pandas.engine.types import Request;"
        f"print(request_key(Request({HELLO!r}, {PARAMS!r}), family='openai'))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert answer.stdout.strip() == key()


# What is not part of the key


def test_the_deny_list_is_the_one_of_the_design():
    assert {
        "stream", "stream_options", "timeout", "extra_headers", "extra_query", "api_key",
        "base_url", "organization", "user", "safety_identifier", "metadata", "store",
        "prompt_cache_key", "service_tier", "num_retries",
    } == TRANSPORT_KEYS - PRIVATE_KEYS  # fmt: skip


@pytest.mark.parametrize("name", sorted(TRANSPORT_KEYS | {"lbgpt_", "lbgpt_anything"}))
def test_transport_is_not_in_the_key(name):
    # Not even if it could not be written.
    assert key(**{name: object()}) == key(**{name: "other"}) == key()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("extra_body", {"top_k": 40}),
        ("reasoning_effort", "low"),
        ("a_field_of_the_year_2030", 1),
        ("users", "me"),
        ("xlbgpt_tag", 1),
        ("seed", 1),
        ("n", 2),
        ("max_tokens", 10),
        ("max_completion_tokens", 10),
        ("temperature", None),
    ],
)
def test_everything_else_is_in_the_key(name, value):
    assert key(**{name: value}) != key()


def test_what_the_sdk_leaves_out_is_not_in_the_key():
    import openai

    assert key(seed=openai.NOT_GIVEN) == key(seed=openai.omit) == key()


def test_no_setting_of_the_engine_is_in_the_key():
    options = {"request_timeout": 5, "semantic_cache_encoding_method": "all"}
    request = Request(HELLO, PARAMS, options)
    assert request_key(request, family="openai") == key()


def test_an_engine_that_ignores_a_parameter_never_meets_one_that_does_not():
    def make(ignored: frozenset[str], **params: object) -> str:
        maker = KeyMaker(
            family="openai", model_alias=None, params={**PARAMS, **params}, key_ignore=ignored
        )
        return maker.key(HELLO)

    lenient = frozenset({"max_tokens"})
    assert make(lenient, max_tokens=1) == make(lenient, max_tokens=2) == make(lenient)
    assert make(lenient) != key()
    assert make(frozenset(), max_tokens=1) == key(max_tokens=1)


@pytest.mark.parametrize("name", ["model", "messages"])
def test_what_makes_a_request_cannot_be_ignored(name):
    with pytest.raises(ConfigurationError, match=f"key_ignore cannot hold .*{name}"):
        KeyMaker(family="openai", model_alias=None, params={}, key_ignore=frozenset({name}))


# Equal and different requests


def test_the_order_of_parameters_and_of_fields_does_not_count():
    request = Request(
        [dict(reversed(message.items())) for message in HELLO], dict(reversed(PARAMS.items()))
    )
    assert request_key(request, family="openai") == key()


def test_whole_numbers_are_numbers():
    assert key(temperature=0.0) == key(temperature=0) == key(temperature=-0.0)
    assert key(temperature=1.0) == key(temperature=1)
    assert key(logprobs=True) != key(logprobs=1)


def test_whole_numbers_are_numbers_in_messages_as_well():
    def with_index(number: float) -> list[object]:
        return [{"role": "user", "content": "Hi", "index": number}]

    assert key(with_index(1)) == key(with_index(1.0)) != key(with_index(True))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_without_json_are_refused(value):
    with pytest.raises(InvalidInput, match=r"request\.params\.temperature is"):
        key(temperature=value)


@pytest.mark.parametrize(
    "content",
    [
        "What colour is the sky? ",
        " What colour is the sky?",
        "What colour is the sky?\n",
        "what colour is the sky?",
        "What colour is the sky\uff1f",
        "",
        None,
        ["What colour is the sky?"],
        [{"type": "text", "text": "What colour is the sky?"}],
    ],
)
def test_a_text_is_neither_stripped_nor_normalised(content):
    assert key([HELLO[0], {"role": "user", "content": content}]) != key()


def test_composed_and_decomposed_letters_are_different_texts():
    assert key([{"role": "user", "content": "é"}]) != key([{"role": "user", "content": "e\u0301"}])


def test_a_tuple_is_a_list():
    assert key(tuple(HELLO), stop=("a", "b")) == key(HELLO, stop=["a", "b"])


def test_a_subclass_of_str_is_its_text():
    class Text(str):
        __slots__ = ()

    messages = [{"role": Text("user"), Text("content"): Text("Hi")}]
    assert key(messages) == key([{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize(
    "change",
    [
        {"name": "anna"},
        {"tool_call_id": "call_1"},
        {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]},
        {"refusal": None},
        {"refusal": "no"},
        {"role": "developer"},
    ],
)
def test_every_field_of_a_message_counts(change):
    assert key([HELLO[0], {**HELLO[1], **change}]) != key()


def test_the_order_of_messages_counts():
    assert key(HELLO[::-1]) != key()


def test_the_model_counts_unless_an_alias_stands_for_it():
    def make(model: str, alias: object = None) -> str:
        options = {} if alias is None else {"model_name_cache_alias": alias}
        request = Request(HELLO, {"model": model}, options)
        return request_key(request, family="openai", model_alias=None)

    assert make("a") != make("b")
    assert make("a", "shared") == make("b", "shared") == make("shared")
    assert make("a", "other") != make("b", "shared")


def test_an_alias_of_the_request_wins_over_that_of_the_engine():
    request = Request(HELLO, {"model": "deployment-7"}, {"model_name_cache_alias": "mine"})
    plain = Request(HELLO, {"model": "deployment-7"})
    assert request_key(plain, family="openai", model_alias="gpt-4o") == request_key(
        Request(HELLO, {"model": "gpt-4o"}), family="openai"
    )
    assert request_key(request, family="openai", model_alias="gpt-4o") == request_key(
        Request(HELLO, {"model": "mine"}), family="openai"
    )


@pytest.mark.parametrize("alias", ["", 7, ["gpt-4o"]])
def test_an_alias_is_a_text(alias):
    request = Request(HELLO, PARAMS, {"model_name_cache_alias": alias})
    with pytest.raises(InvalidInput, match="model_name_cache_alias must be a non-empty str"):
        request_key(request, family="openai")


def test_another_family_is_another_model():
    request = Request(HELLO, PARAMS)
    assert request_key(request, family="127.0.0.1:8080") != request_key(request, family="openai")


def test_an_embedding_is_no_chat():
    maker = {
        kind: KeyMaker(family="openai", kind=kind, model_alias=None, params=PARAMS)
        for kind in ("chat", "embedding")
    }
    assert maker["chat"].key("sky") != maker["embedding"].key("sky")
    assert maker["embedding"].key("sky") != maker["embedding"].key(["sky"])


def test_samples_are_independent():
    keys = {request_key(Request(HELLO, PARAMS, {}, n), family="openai") for n in range(5)}
    assert len(keys) == 5
    with pytest.raises(TypeError):
        KeyMaker(family="openai", model_alias=None, params=PARAMS).key(HELLO, 1.5)


def test_the_order_of_a_schema_counts():
    def tool(*names: str) -> list[object]:
        parameters = {"type": "object", "properties": {name: {} for name in names}}
        return [{"type": "function", "function": {"name": "f", "parameters": parameters}}]

    def answer(*names: str) -> dict[str, object]:
        schema = {"type": "object", "properties": {name: {} for name in names}}
        return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}

    assert key(tools=tool("a", "b")) != key(tools=tool("b", "a"))
    assert key(response_format=answer("a", "b")) != key(response_format=answer("b", "a"))
    assert key(tools=tool("a", "b")) == key(tools=tool("a", "b"))


def test_a_pydantic_class_is_keyed_by_what_it_asks_for():
    def answer(kind: type) -> type[BaseModel]:
        class Answer(BaseModel):
            value: kind  # type: ignore[valid-type]

        return Answer

    assert key(response_format=answer(str)) == key(response_format=answer(str))
    assert key(response_format=answer(str)) != key(response_format=answer(int))


def test_an_image_is_not_the_text_that_describes_it():
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    text = {"type": "text", "text": "![image](https://example.org/a.png) None"}
    assert key([{"role": "user", "content": [image]}]) != key([{"role": "user", "content": [text]}])


def test_a_message_without_content_has_a_key():
    assert key([{"role": "assistant", "tool_calls": []}]) != key([{"role": "assistant"}])


# Bad input


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        ([{"role": "user", "content": b"Hi"}], r"messages\[0\]\.content is of type bytes"),
        ([HELLO[0], {"role": "user", "content": "\ud800"}], r"messages\[1\]\.content contains"),
        ([{"role": "user", "\udfff": "Hi"}], r"messages\[0\]\['\\udfff'\] contains"),
        ([{"role": "user", "content": float("nan")}], r"messages\[0\]\.content is nan"),
        ([{"role": "user", "content": {1, 2}}], r"messages\[0\]\.content is of type set"),
        ([object()], r"messages\[0\] is of type object"),
        (iter(HELLO), r"messages is of type list_iterator"),
    ],
)
def test_what_cannot_be_sent_is_named_and_not_quoted(messages, place):
    with pytest.raises(InvalidInput, match=place):
        key(messages)


def test_nothing_is_changed_by_making_a_key():
    messages, params = copy.deepcopy(HELLO), {"tools": [{"b": 1, "a": (1, 2)}], **PARAMS}
    before = copy.deepcopy(params)
    key(messages, **params)
    assert (messages, params) == (HELLO, before)


# For good


def golden() -> list[dict[str, object]]:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))["requests"]


def key_of(entry: dict[str, object]) -> str:
    request = Request(
        entry["messages"], entry["params"], entry.get("options", {}), entry.get("sample", 0)
    )
    return request_key(
        request,
        family=entry.get("family", "openai"),
        kind=entry.get("kind", "chat"),
        model_alias=entry.get("model_alias"),
    )


@pytest.mark.parametrize("entry", golden(), ids=lambda entry: entry["name"])
def test_a_key_never_changes(entry):
    assert key_of(entry) == entry["key"], (
        "This request has another key than before, so every answer that users have stored for "
        "such requests would be bought again, or another request's answer be found. If that is "
        "meant: raise KEY_VERSION in engine/keys.py, say so in the changelog, and run "
        "`python tests/engine/test_keys.py`, which writes the new keys for a new version only."
    )


def test_each_golden_request_has_its_own_key():
    keys = [entry["key"] for entry in golden()]
    assert len(keys) >= 25
    assert len(set(keys)) == len(keys)
    assert all(each.startswith(f"{KEY_VERSION}:") for each in keys)


def test_golden_requests_differ_from_the_first_in_one_place():
    first, *others = golden()
    for entry in others:
        parts = {
            part
            for part in {*entry, *first} - {"name", "key", "params"}
            if entry.get(part) != first.get(part)
        }
        params = {
            name
            for name in {*entry["params"], *first["params"]}
            if entry["params"].get(name, "absent") != first["params"].get(name, "absent")
        }
        assert len(parts) + len(params) == 1, entry["name"]


def test_a_key_costs_microseconds():
    maker = KeyMaker(family="openai", model_alias=None, params=PARAMS)
    gc.collect()
    begin = time.process_time()
    for _ in range(5_000):
        maker.key(HELLO)
    # 1 µs on a quiet machine; the bound only catches a lost short way (11 µs and more).
    assert (time.process_time() - begin) / 5_000 < 8e-6


def write_golden() -> None:
    """Write the keys anew; refuses to change those of a version that is in use."""
    content = json.loads(GOLDEN.read_text(encoding="utf-8"))
    if content["version"] == KEY_VERSION and any("key" in e for e in content["requests"]):
        raise SystemExit(f"the keys of {KEY_VERSION} are in use; raise KEY_VERSION first")
    for entry in content["requests"]:
        entry["key"] = key_of(entry)
    content["version"] = KEY_VERSION
    lines = ",\n".join(json.dumps(entry) for entry in content["requests"])
    GOLDEN.write_text(
        f'{{"version": "{KEY_VERSION}", "requests": [\n{lines}\n]}}\n', encoding="utf-8"
    )


if __name__ == "__main__":
    write_golden()
