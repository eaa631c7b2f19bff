"""Envelopes, and a tier that never fails."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine.caches.base import MemoryCache, adapt
from lbgpt_pandas.engine.caches.standard import CorruptEntry, StandardTier, seal, unseal

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANSWER = {"choices": [{"message": {"content": 'ü "x" ,"resp":{'}}], "n": 1.5}
WHOSE = {"family": "openai", "model": "m"}


def sealed(key="k", payload=ANSWER):
    return seal(key, **WHOSE, payload=payload, created=NOW)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(key=st.text(min_size=1), payload=st.dictionaries(st.text(), json_values))
def test_what_is_sealed_is_unsealed(key, payload):
    text = seal(key, **WHOSE, payload=payload, created=NOW)
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


def test_an_envelope_under_another_key_is_corrupt():
    with pytest.raises(CorruptEntry, match="another key"):
        unseal("other", sealed("k"))


async def test_a_tier_finds_what_it_saved():
    tier = StandardTier(MemoryCache())
    assert await tier.find(["a"]) == {}
    assert await tier.save("a", **WHOSE, payload=ANSWER)
    assert await tier.find(["a", "b"]) == {"a": ANSWER}
    assert (tier.hits, tier.misses) == (1, 2)
    assert tier.take_notices() == []


async def test_a_damaged_entry_is_one_miss_and_gone():
    store = {"a": sealed("a").replace("1.5", "2.5"), "b": sealed("b")}
    tier = StandardTier(adapt(store))
    assert await tier.find(["a", "b"]) == {"b": ANSWER}
    assert list(store) == ["b"]
    assert tier.corrupt == 1
    assert len(tier.take_notices()) == 1
    assert tier.take_notices() == []


class Failing(dict):
    """Fails as long as it is told to."""

    broken = True

    def __getitem__(self, key):
        self.check("cannot read")
        return super().__getitem__(key)

    def __setitem__(self, key, value):
        self.check("No space left on device")
        super().__setitem__(key, value)

    def check(self, text):
        if self.broken:
            raise OSError(text)


async def test_a_store_that_cannot_be_read_is_a_row_of_misses_told_once():
    tier = StandardTier(adapt(Failing(a=sealed("a"))))
    for _ in range(3):
        assert await tier.find(["a"]) == {}
    assert tier.read_failures == 3
    (notice,) = tier.take_notices()
    assert "cannot read" in notice


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
    assert list(store) == ["e"]
