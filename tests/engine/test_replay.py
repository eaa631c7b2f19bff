"""What replay is made of: records, differences, and an engine that only makes keys."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine import ChatGPT, Request
from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.caches.base import MemoryCache
from lbgpt_pandas.engine.caches.recorded import RecordedCache, find_recorded
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.caching import Caching
from lbgpt_pandas.engine.errors import (
    BudgetExceeded,
    CacheCorrupt,
    CacheMiss,
    ConfigurationError,
    ContentFiltered,
    RequestError,
)
from lbgpt_pandas.engine.keys import TRANSPORT_KEYS, KeyMaker
from lbgpt_pandas.engine.recording import Recording, failure_of, first_difference, record_of
from lbgpt_pandas.engine.replay import ReplayGPT
from lbgpt_pandas.testing import ScriptedGPT

HELLO = [{"role": "user", "content": "Hello"}]

texts = st.text(max_size=5).filter(lambda text: text.isprintable())
leaves = st.none() | st.booleans() | st.integers(-5, 5) | texts
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def key_of(record):
    maker = KeyMaker(family=record["family"], model_alias=record["model"], params=record["params"])
    return maker.key(record["messages"], record["sample"])


# --- records ---------------------------------------------------------------------------------


@given(
    params=st.dictionaries(texts.map("p_".__add__), values, max_size=4),
    content=texts,
    sample=st.integers(0, 3),
)
def test_a_record_has_all_that_is_in_the_key(params, content, sample):
    messages = [{"role": "user", "content": content}]
    request = Request(messages, {"model": "m", **params}, sample=sample)
    record = json.loads(json.dumps(record_of(request, family="openai")))
    expected = KeyMaker.for_request(request, family="openai").key(messages, sample)
    assert key_of(record) == expected


@pytest.mark.parametrize("name", [*sorted(TRANSPORT_KEYS), "lbgpt_anything"])
def test_what_is_not_in_the_key_is_not_in_the_record(name):
    request = Request(HELLO, {"model": "m", name: "sk-canary-0123456789"})
    assert record_of(request, family="f")["params"] == {}


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({"extra_body": {"api_key": "x1", "n": 1}}, {"extra_body": {"api_key": "***", "n": 1}}),
        ({"x": [{"Authorization": "abc"}]}, {"x": [{"Authorization": "***"}]}),
        ({"client_secret": "abc"}, {"client_secret": "***"}),
        ({"note": "see sk-canary-0123456789"}, {"note": "see ***"}),
        ({"max_tokens": 3, "secretary": "Ms X"}, {"max_tokens": 3, "secretary": "Ms X"}),
    ],
)
def test_secrets_in_parameters_are_masked(params, kept):
    assert record_of(Request(HELLO, params), family="f")["params"] == kept


def test_the_alias_is_the_model():
    request = Request(HELLO, {"model": "m-2024"}, {"model_name_cache_alias": "m"})
    assert record_of(request, family="f")["model"] == "m"


# --- differences -----------------------------------------------------------------------------


def record(*messages, sample=0, family="f", model="m", **params):
    request = Request(list(messages) or HELLO, {"model": model, **params}, sample=sample)
    return record_of(request, family=family)


def user(content):
    return {"role": "user", "content": content}


PARTS = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        (record(), record(), None),
        (record(temperature=1), record(temperature=1.0), None),
        (record(stop=("a",)), record(stop=["a"]), None),
        (record(model="n"), record(temperature=1), ("model", "'n'", "'m'")),
        (record(temperature=0.0), record(temperature=0.5), ("temperature", "0.0", "0.5")),
        (record(store_it=True), record(store_it=1), ("store_it", "True", "1")),
        (record(seed=1), record(), ("seed", "1", "(absent)")),
        (record(a={"b": [1, 2]}), record(a={"b": [1]}), ("a.b[1]", "2", "(absent)")),
        (record(user("a")), record(user("b")), ("messages[0].content", "'a'", "'b'")),
        (
            record({"role": "system", "content": "s"}, user("a")),
            record(user("a")),
            ("messages[0].role", "'system'", "'user'"),
        ),
        (
            record(user(PARTS)),
            record(user([{"type": "text", "text": "b"}, PARTS[1]])),
            ("messages[0].content[0].text", "'a'", "'b'"),
        ),
        (record(sample=1), record(), ("sample", "1", "0")),
        (record(family="g"), record(), ("family", "'g'", "'f'")),
    ],
)
def test_the_first_difference(here, there, expected):
    assert first_difference(here, there) == expected


@given(values, values)
def test_a_difference_is_found_exactly_where_keys_differ(here, there):
    pair = [record(p=here), record(p=there)]
    same = key_of(pair[0]) == key_of(pair[1])
    found = first_difference(*pair)
    if found is not None:
        assert not same
    elif not same:
        # The order of what may be a schema is in the key.
        assert pair[0] == pair[1]


def test_secrets_are_not_shown():
    found = first_difference(record(user("sk-canary-0123456789")), record(user("x")))
    assert "canary" not in str(found)


# --- a recording -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ContentFiltered("no", code="content_filter", status=400),
        BudgetExceeded("spent"),
        RequestError("unknown"),
    ],
)
def test_failures_come_back(error):
    recording = Recording(where="x", failures={"k": json.loads(json.dumps(failure_of(error)))})
    back = recording.failure("k")
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert getattr(back, "code", None) == getattr(error, "code", None)
    assert recording.failure("other") is None


@pytest.mark.parametrize("kind", ["LbgptError", "Sequence", "__builtins__", "redact", None])
def test_failures_of_unknown_kind_are_request_errors(kind):
    recording = Recording(where="x", failures={"k": {"type": kind, "message": "m", "code": 3}})
    assert type(recording.failure("k")) is RequestError


def recording_of(**contents):
    requests = {key: record(user(text)) for key, text in contents.items()}
    return Recording(where="x", keys=list(requests), load_requests=lambda: requests)


def reason(recording, text, *, position, answered=()):
    return recording.reason(record(user(text)), key="new", position=position, answered=answered)


def test_the_nearest_request_is_that_of_the_same_row():
    assert "'b' in row 1" in reason(recording_of(k="a", l="b"), "x", position=1)


def test_then_the_one_with_the_same_text():
    recording = recording_of(k="a", l="b")
    other = Recording(
        where="x",
        keys=["k", "l"],
        load_requests=lambda: {
            "k": record(user("a"), temperature=1),
            "l": record(user("b"), temperature=2),
        },
    )
    assert "temperature: (absent) here, 2 in row 1" in reason(other, "b", position=7)
    assert "properties in another order" in reason(recording, "b", position=7)


def test_then_the_one_most_alike_and_not_one_that_answered_another_row():
    recording = recording_of(k="zzzz", l="Where is Paris?", m="Where is Rome?")
    assert "row 2" in reason(recording, "Where is Rom?", position=9)
    assert "row 1" in reason(recording, "Where is Rom?", position=9, answered={"m"})
    assert "row 2" in reason(recording, "Where is Rom?", position=0, answered={"k"})


def test_requests_are_loaded_for_a_miss_only():
    loaded = []
    recording = Recording(where="x", load_requests=lambda: loaded.append(1) or {})
    assert recording.failure("k") is None
    assert loaded == []
    assert "nothing is stored" in reason(recording, "x", position=0)
    assert "nothing is stored" in reason(recording, "y", position=0)
    assert loaded == [1]


# --- the engine --------------------------------------------------------------------------------


def test_it_makes_the_keys_of_another_engine():
    tools = [{"type": "function", "function": {"name": "f"}}]
    original = ChatGPT("sk-canary-0123456789", tools=tools)
    replay = ReplayGPT(family=original.family, tools=tools)
    request = Request(HELLO, {"model": "m"})
    expected = original.key_maker(request).key(HELLO)
    assert replay.key_maker(request).key(HELLO) == expected
    assert ReplayGPT(family="other").key_maker(request).key(HELLO) != expected


@pytest.mark.parametrize("method", ["chat_completion", "cached_chat_completion"])
def test_a_call_to_it_is_a_miss(method):
    engine = ReplayGPT(family="openai", model="m")
    ask = {"messages": HELLO, "model": "m"}
    call = getattr(engine, method)
    with pytest.raises(CacheMiss, match="calls nobody"):
        asyncio.run(call(**ask) if method == "chat_completion" else call(ask))
    with pytest.raises(CacheMiss):
        asyncio.run(engine.embedding("m", input="x"))


# --- the cache ---------------------------------------------------------------------------------


def run(engine, requests, cache, *, recording=None, mode="replay"):
    caching = Caching.of(StandardTier(cache), mode, recording=recording)
    batch = Batch(engine, requests, caching=caching)
    return asyncio.run(batch.arun())


def test_a_batch_in_replay_asks_nobody():
    requests = [Request([user(text)], {"model": "m"}) for text in "abc"]
    cache, engine = MemoryCache(), ScriptedGPT("x")
    run(ScriptedGPT("x"), requests[:2], cache, mode="use")
    with pytest.raises(CacheMiss, match="1 requests are not in the cache") as caught:
        run(engine, requests, cache)
    assert caught.value.numbers == (2,)
    assert [each.completion.text for each in run(engine, requests[:2], cache)] == ["x", "x"]
    assert engine.requests == []


def test_replay_without_a_cache_is_refused():
    with pytest.raises(ConfigurationError, match="needs a cache"):
        Caching.of(None, "replay")


@pytest.mark.parametrize("text", ["", "{}", "x"])
def test_damaged_entries_are_errors(text):
    cache = MemoryCache()
    asyncio.run(cache.set("v1:0", text))
    with pytest.raises(CacheCorrupt, match="v1:0"):
        asyncio.run(find_recorded(StandardTier(cache), ["v1:0"]))
    assert asyncio.run(cache.get_many(["v1:0"])) == {"v1:0": text}


def test_recorded_answers_are_only_read():
    cache = RecordedCache({"k": "v"}, location="x.zip")

    async def main():
        with pytest.raises(PermissionError, match=r"x\.zip"):
            await cache.set("k", "w")
        await cache.delete("k")
        assert await cache.delete_many(["k"]) == 0
        return [page async for page in cache.scan()], await cache.get_many(["k", "l"])

    assert asyncio.run(main()) == ([{"k": "v"}], {"k": "v"})
    assert len(cache) == 1
