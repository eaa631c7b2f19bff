"""Envelopes, and a tier that never fails."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lbgpt_pandas.engine.caches.base import MemoryCache, adapt
from lbgpt_pandas.engine.caches.envelope import CorruptEntry, seal, unseal
from lbgpt_pandas.engine.caches.standard import KEYS_A_LOOKUP, StandardTier
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.testing import FakeClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANSWER = {"choices": [{"message": {"content": 'ü "x" ,"resp":{'}}], "n": 1.5}
WHOSE = {"family": "openai", "model": "m"}


def sealed(key="k", payload=ANSWER):
    return seal(key, **WHOSE, payload=payload, created=NOW)


# Lone surrogates: JSON can escape them, so a provider can send them; never a pair of them.
any_text = st.text(st.characters(exclude_categories=[])).filter(
    lambda text: json.loads(json.dumps(text)) == text
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | any_text,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip


@given(
    key=any_text,
    payload=st.dictionaries(any_text, json_values),
    model=any_text,
)
@example(
    key="ü",
    payload={"long": -(2**63) - 1, "half": "\ud800", "nested": [{"x": 2**70}]},
    model="\ud800",
)
def test_what_is_sealed_is_unsealed(key, payload, model):
    text = seal(key, family="f", model=model, payload=payload, created=NOW)
    text.encode()
    assert unseal(key, text) == payload
    assert json.loads(text)["resp"] == payload


def test_the_envelope_is_json_that_says_what_it_is():
    envelope = json.loads(sealed())
    assert envelope.pop("sha256")
    assert envelope == {
        "v": 1, "key": "k", "created": NOW.isoformat(), **WHOSE, "resp": ANSWER,
    }  # fmt: skip


@given(st.data())
def test_any_changed_byte_is_noticed(data):
    raw = bytearray(sealed().encode())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CorruptEntry):
        unseal("k", raw.decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("text", ["", "{}", "null", '{"v":2}', sealed()[:-1], sealed() + " "])
def test_what_is_no_envelope_is_corrupt(text):
    with pytest.raises(CorruptEntry):
        unseal("k", text)


def test_an_envelope_of_another_version_is_corrupt():
    with pytest.raises(CorruptEntry):
        unseal("k", sealed().replace('"v":1', '"v":2'))


@pytest.mark.parametrize("other", ["other", "k2", ""])
def test_an_envelope_under_another_key_is_corrupt(other):
    with pytest.raises(CorruptEntry, match="another key"):
        unseal(other, sealed("k"))


def forged(covered: str) -> str:
    return f'{{"v":1,"sha256":"{hashlib.sha256(covered.encode()).hexdigest()}",{covered}}}'


@pytest.mark.parametrize(
    "covered",
    ['"key":"k","resp":[]', '"key":"k","resp":3', '"key":"k","resp":', '"key":"k"', '"resp":{}',
     '"key":"k","resp":' + "[" * 100_000, '"key":"k","resp": ' + "[" * 100_000],
)  # fmt: skip
async def test_a_forged_envelope_is_corrupt_and_no_more(covered):
    store = {"k": forged(covered)}
    tier = StandardTier(adapt(store))
    assert await tier.find(["k"]) == {}
    assert (tier.corrupt, tier.misses, store) == (1, 1, {})


async def test_a_tier_finds_what_it_saved():
    tier = StandardTier(MemoryCache())
    assert await tier.find(["a"]) == {}
    assert await tier.save("a", **WHOSE, payload=ANSWER)
    assert await tier.find(["a", "b"]) == {"a": ANSWER}
    assert (tier.hits, tier.misses) == (1, 2)
    assert tier.take_notices() == []


async def test_what_was_found_belongs_to_the_caller():
    tier = StandardTier(MemoryCache())
    await tier.save("a", **WHOSE, payload=ANSWER)
    (await tier.find(["a"]))["a"].clear()
    assert await tier.find(["a"]) == {"a": ANSWER}


async def test_the_first_answer_stays_unless_it_is_replaced():
    tier = StandardTier(MemoryCache())
    for number, replace in ((1, False), (2, False), (3, True)):
        assert await tier.save("a", **WHOSE, payload={"n": number}, replace=replace)
        assert await tier.find(["a"]) == {"a": {"n": 1 if number < 3 else 3}}


async def test_a_damaged_entry_is_one_miss_and_gone():
    store = {"a": sealed("a").replace("1.5", "2.5"), "b": sealed("b")}
    tier = StandardTier(adapt(store))
    assert await tier.find(["a", "b"]) == {"b": ANSWER}
    assert list(store) == ["b"]
    assert (tier.corrupt, tier.hits, tier.misses) == (1, 1, 1)
    assert len(tier.take_notices()) == 1
    assert tier.take_notices() == []


async def test_a_damaged_entry_that_cannot_be_removed_is_replaced():
    class CannotDelete(MemoryCache):
        async def delete(self, key):
            raise NotImplementedError("no delete here")

    cache = CannotDelete()
    await cache.set("a", "damaged")
    tier = StandardTier(cache)
    assert await tier.find(["a"]) == {}
    assert len(tier.take_notices()) == 2
    assert await tier.save("a", **WHOSE, payload={"n": 1})
    assert await tier.save("a", **WHOSE, payload={"n": 2})
    assert await tier.find(["a"]) == {"a": {"n": 1}}


async def test_a_damaged_entry_is_left_alone_where_nothing_may_be_written():
    store = {"a": sealed("a").replace("1.5", "2.5")}
    tier = StandardTier(adapt(store))
    assert await tier.find(["a"], repair=False) == {}
    assert list(store) == ["a"]
    assert len(tier.take_notices()) == 1


class Failing(dict):
    """Fails as long as it is told to."""

    broken = True

    def __getitem__(self, key):
        self.check("cannot read, asked with Bearer abcdef0123456789")
        return super().__getitem__(key)

    def __setitem__(self, key, value):
        self.check("No space left on device")
        super().__setitem__(key, value)

    def check(self, text):
        if self.broken:
            raise OSError(28, text)


async def test_a_store_that_cannot_be_read_is_a_row_of_misses_told_once():
    tier = StandardTier(adapt(Failing(a=sealed("a"))))
    for _ in range(3):
        assert await tier.find(["a", "b"]) == {}
    assert (tier.read_failures, tier.misses) == (3, 6)
    (notice,) = tier.take_notices()
    assert "cannot read" in notice
    assert "abcdef" not in notice


async def test_a_store_that_cannot_be_written_is_left_alone_until_reset():
    store = Failing()
    tier = StandardTier(adapt(store))
    for key in "abc":
        assert not await tier.save(key, **WHOSE, payload=ANSWER)
    assert tier.write_failures == 1
    (notice,) = tier.take_notices()
    assert "No space left" in notice
    store.broken = False
    assert not await tier.save("d", **WHOSE, payload=ANSWER)
    tier.reset()
    assert await tier.save("e", **WHOSE, payload=ANSWER)
    # With what was held back meanwhile.
    assert sorted(store) == list("abcde")
    store.broken = True
    assert not await tier.save("f", **WHOSE, payload=ANSWER)
    assert len(tier.take_notices()) == 1


async def test_an_answer_that_is_no_json_does_not_stop_the_tier():
    tier = StandardTier(MemoryCache())
    circle = {}
    circle["self"] = circle
    for payload in ({"x": object()}, {"x": b""}, circle):
        assert not await tier.save("a", **WHOSE, payload=payload)
    assert len(tier.take_notices()) == 1
    assert await tier.save("a", **WHOSE, payload=ANSWER)


async def test_a_store_that_is_refused_is_an_error_before_any_call():
    class Refused(MemoryCache):
        async def get_many(self, keys):
            raise ConfigurationError("others may write there")

        async def set(self, key, value, *, replace=False):
            raise ConfigurationError("others may write there")

    tier = StandardTier(Refused())
    with pytest.raises(ConfigurationError, match="others may write"):
        await tier.find(["a"])
    # A paid answer is kept in any case.
    assert not await tier.save("a", **WHOSE, payload=ANSWER)
    assert len(tier.take_notices()) == 1


async def test_what_the_store_has_to_tell_is_passed_on_once():
    class Telling(MemoryCache):
        told = ("repaired",)

        def take_notices(self):
            told, self.told = list(self.told), ()
            return told

    tier = StandardTier(Telling())
    assert tier.take_notices() == ["repaired"]
    assert tier.take_notices() == []


async def test_a_long_column_leaves_the_loop_to_others():
    class Yielding(MemoryCache):
        async def get_many(self, keys):
            assert len(keys) <= KEYS_A_LOOKUP
            await asyncio.sleep(0)
            return await super().get_many(keys)

    keys = [str(number) for number in range(2 * KEYS_A_LOOKUP + 1)]
    cache = Yielding(max_entries=len(keys))
    for key in keys:
        await cache.set(key, sealed(key, {}))
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    assert len(await StandardTier(cache).find(keys)) == len(keys)
    counting.cancel()
    assert turns >= 3


@pytest.mark.parametrize("enabled", [True, False])
async def test_the_garbage_collector_is_left_as_it_was(enabled):
    tier = StandardTier(adapt({"a": sealed("a"), "b": "damaged"}))
    was_enabled = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        await tier.find(["a", "b"])
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()


def test_threads_count_together():
    tier = StandardTier(MemoryCache())

    async def work(_):
        for _ in range(200):
            await tier.find(["a"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: asyncio.run(work(n)), range(4)))
    assert tier.misses == 800


async def test_a_fresh_answer_of_somebody_else_does_not_give_way_to_a_second_one():
    clock, store = FakeClock(), MemoryCache()
    store.ttl_s = 60.0
    ours, theirs = StandardTier(store, clock=clock), StandardTier(store, clock=clock)

    async def save(tier, text):
        return await tier.save("k", family="f", model="m", payload={"text": text})

    await save(ours, "old")
    clock.advance(61.0)
    assert not await ours.find(["k"])
    assert not await theirs.find(["k"])
    await save(theirs, "theirs")
    await save(ours, "ours")
    assert (await ours.find(["k"]))["k"] == {"text": "theirs"}
