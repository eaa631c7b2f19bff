"""Caches are looked through and emptied, and what else lies in a user's store is left alone."""

from __future__ import annotations

import asyncio
import dbm.dumb
import os
import pickle
import shelve
import sqlite3
from collections import UserDict, defaultdict
from datetime import UTC, datetime

import diskcache
import pytest

from lbgpt_pandas.engine.caches.adapters import KEYS_A_SCAN, UNREADABLE
from lbgpt_pandas.engine.caches.base import MemoryCache, Scannable, adapt
from lbgpt_pandas.engine.caches.database import DATABASE
from lbgpt_pandas.engine.caches.disk import DiskCache
from lbgpt_pandas.engine.caches.entries import Head, is_key, read_head
from lbgpt_pandas.engine.caches.envelope import seal
from lbgpt_pandas.engine.caches.recorded import RecordedCache
from lbgpt_pandas.engine.caches.safedisk import SafeDisk
from lbgpt_pandas.engine.errors import ConfigurationError

MADE = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def key_of(number):
    return f"v1:{number:064x}"


TEXTS = {key_of(number): f"text {number}" for number in range(10)}


async def scanned(cache):
    found = {}
    async for texts in cache.scan():
        assert 0 < len(texts) <= 10_000
        found |= texts
    return found


# The stores of this package


@pytest.fixture(params=["disk", "memory"])
async def cache(request, tmp_path):
    cache = DiskCache(tmp_path / "cache") if request.param == "disk" else MemoryCache()
    yield cache
    await cache.close()


async def test_all_texts_are_found_and_some_removed(cache):
    assert isinstance(cache, Scannable)
    assert await scanned(cache) == {}
    for key, text in TEXTS.items():
        await cache.set(key, text)
    assert await scanned(cache) == TEXTS
    gone = [*list(TEXTS)[:4], "never there"]
    assert await cache.delete_many(gone) == 4
    assert await cache.delete_many(gone) == 0
    assert await cache.delete_many([]) == 0
    assert await scanned(cache) == {key: TEXTS[key] for key in list(TEXTS)[4:]}


async def test_more_than_a_page_is_read_and_removed(cache):
    texts = {key_of(number): str(number) for number in range(2 * KEYS_A_SCAN + 1)}
    await asyncio.gather(*(cache.set(key, text) for key, text in texts.items()))
    assert await scanned(cache) == texts
    assert await cache.delete_many(list(texts)) == len(texts)
    assert await scanned(cache) == {}


async def test_what_is_removed_while_it_is_looked_through_does_not_end_it(cache):
    texts = {key_of(number): str(number) for number in range(KEYS_A_SCAN + 10)}
    await asyncio.gather(*(cache.set(key, text) for key, text in texts.items()))
    found = {}
    async for some in cache.scan():
        found |= some
        await cache.delete_many([*some, key_of(KEYS_A_SCAN + 5)])
    assert key_of(KEYS_A_SCAN + 9) in found
    assert key_of(KEYS_A_SCAN + 5) not in found


async def test_looking_through_memory_does_not_make_an_entry_young():
    cache = MemoryCache(max_entries=2)
    await cache.set("old", "1")
    await cache.set("new", "2")
    await scanned(cache)
    await cache.set("newest", "3")
    assert set(await scanned(cache)) == {"new", "newest"}


async def test_an_archive_is_looked_through_and_stays():
    cache = RecordedCache(TEXTS, location="study.lbgpt.zip")
    assert isinstance(cache, Scannable)
    assert await scanned(cache) == TEXTS
    assert await cache.delete_many(list(TEXTS)) == 0
    assert await scanned(cache) == TEXTS


# The database


@pytest.fixture
async def disk(tmp_path):
    cache = DiskCache(tmp_path / "cache")
    yield cache
    await cache.close()


class Bomb:
    """Leaves a directory behind if it is ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


async def test_a_planted_pickle_is_seen_as_damaged_and_not_run(disk, tmp_path):
    await disk.set(key_of(1), "1")
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    connection = sqlite3.connect(disk.directory / DATABASE)
    row = "INSERT INTO Cache (key, raw, mode, filename, value) VALUES (?, ?, ?, ?, ?)"
    with connection:
        connection.execute(row, (key_of(2), 1, 4, None, bomb))
        connection.execute(row, (key_of(3), 1, 4, "bomb.val", None))
        connection.execute(row, (bomb, 0, 1, None, "under a pickled key"))
        connection.execute(row, (bomb, 1, 1, None, "under a key of bytes"))
    connection.close()
    planted = {key_of(2): UNREADABLE, key_of(3): UNREADABLE}
    assert await scanned(disk) == {key_of(1): "1"} | planted
    assert await disk.delete_many(list(planted)) == 2
    assert await scanned(disk) == {key_of(1): "1"}
    assert not (tmp_path / "exploded").exists()


async def test_texts_are_removed_all_or_none(disk):
    await asyncio.gather(*(disk.set(key, text) for key, text in TEXTS.items()))
    connection = sqlite3.connect(disk.directory / DATABASE)
    with connection:
        connection.execute(
            "CREATE TRIGGER no BEFORE DELETE ON Cache "
            f"WHEN OLD.key = '{key_of(9)}' BEGIN SELECT raise(ABORT, 'no'); END"
        )
    connection.close()
    # In two statements, of which the second fails.
    keys = [*list(TEXTS)[:9], *map(str, range(KEYS_A_SCAN)), key_of(9)]
    with pytest.raises(sqlite3.IntegrityError):
        await disk.delete_many(keys)
    assert await scanned(disk) == TEXTS


async def test_a_read_only_cache_is_looked_through_and_refuses_to_be_emptied(disk):
    await disk.set(key_of(1), "1")
    reader = DiskCache(disk.directory, read_only=True)
    assert await scanned(reader) == {key_of(1): "1"}
    with pytest.raises(PermissionError, match="opened for reading only"):
        await reader.delete_many([key_of(1)])
    assert await scanned(reader) == {key_of(1): "1"}
    await reader.close()


@pytest.mark.parametrize("key", ["\ud800", b"v1", 3])
async def test_what_is_no_text_is_no_key_to_remove(disk, key):
    with pytest.raises((TypeError, UnicodeEncodeError)):
        await disk.delete_many([key])


async def test_the_files_are_measured_and_damaged_ones_named(disk):
    assert await disk.on_disk() == (0, ())
    await disk.set(key_of(1), "x" * 100_000)
    await disk.close()
    assert (await disk.on_disk()).bytes > 100_000
    (disk.directory / DATABASE).write_bytes(b"garbage" * 1_000)
    assert await scanned(disk) == {}
    (disk.directory / f"{DATABASE}.corrupt-20260101T000000-wal").write_text("")
    (disk.directory / f"{DATABASE}.corrupt-20260101T000000").write_text("")
    names = (await disk.on_disk()).moved_aside
    assert len(names) == 2
    assert not any(name.endswith("-wal") for name in names)


# What users bring


class RedisLike:
    """As redis clients are: bytes come back, keys are listed as bytes."""

    def __init__(self):
        self.texts = {}

    def get(self, key):
        return self.texts.get(key.encode())

    def set(self, key, value):
        self.texts[key.encode()] = value.encode()

    def delete(self, key):
        self.texts.pop(key.encode(), None)

    def scan_iter(self):
        yield from list(self.texts)


class AsyncRedisLike:
    """As redis.asyncio's client is."""

    def __init__(self):
        self.texts = {}

    async def get(self, key):
        return self.texts.get(key.encode())

    async def set(self, key, value):
        self.texts[key.encode()] = value.encode()

    async def delete(self, key):
        self.texts.pop(key.encode(), None)

    async def scan_iter(self):
        for key in list(self.texts):
            yield key


class AsyncNamed:
    """With LBGPT's names; ``akeys`` is a coroutine."""

    def __init__(self):
        self.texts = {}

    async def aget(self, key):
        return self.texts.get(key)

    async def aset(self, key, value):
        self.texts[key] = value

    async def adelete(self, key):
        del self.texts[key]

    async def akeys(self):
        return list(self.texts)


STORES = {
    "dict": lambda path: {},
    "defaultdict": lambda path: defaultdict(str),
    "user dict": lambda path: UserDict(),
    # Not whatever dbm is the best: SQLite's, from Python 3.13 on, belongs to one thread.
    "shelve": lambda path: shelve.Shelf(dbm.dumb.open(str(path / "shelf"))),  # noqa: SIM115  # a user's
    "diskcache": lambda path: diskcache.Cache(str(path), disk=SafeDisk),
    "diskcache index": lambda path: diskcache.Index.fromcache(
        diskcache.Cache(str(path), disk=SafeDisk)
    ),
    "redis": lambda path: RedisLike(),
    "async redis": lambda path: AsyncRedisLike(),
    "async": lambda path: AsyncNamed(),
}


@pytest.mark.parametrize("kind", STORES)
async def test_a_users_store_is_looked_through_and_emptied(kind, tmp_path):
    store = STORES[kind](tmp_path)
    cache = adapt(store)
    assert isinstance(cache, Scannable)
    for key, text in TEXTS.items():
        await cache.set(key, text)
    await cache.set("a thing of mine", "stays")
    assert await scanned(cache) == TEXTS
    assert await cache.delete_many([*list(TEXTS)[:3], key_of(99)]) == 3
    assert await scanned(cache) == {key: TEXTS[key] for key in list(TEXTS)[3:]}
    assert await cache.get_many(["a thing of mine"]) == {"a thing of mine": "stays"}
    assert type(store).__name__ in cache.location
    # An Index has no close of its own.
    for each in (store, getattr(store, "cache", None)):
        if hasattr(each, "close"):
            each.close()


class Bare:
    """Nothing but item access."""

    def __init__(self):
        self.texts = {}

    def __getitem__(self, key):
        return self.texts[key]

    def __setitem__(self, key, value):
        self.texts[key] = value


class BareGetSet:
    """Nothing but get and set."""

    def __init__(self):
        self.texts = {}

    def get(self, key):
        return self.texts.get(key)

    def set(self, key, value):
        self.texts[key] = value


class BareAsync:
    """Nothing but aget and aset."""

    async def aget(self, key):
        return None

    async def aset(self, key, value):
        pass


@pytest.mark.parametrize("kind", [Bare, BareGetSet, BareAsync])
async def test_a_store_that_cannot_says_so(kind):
    cache = adapt(kind())
    await cache.set(key_of(1), "1")
    with pytest.raises(ConfigurationError, match=f"cache={kind.__name__} cannot list"):
        await scanned(cache)
    with pytest.raises(ConfigurationError, match=f"cache={kind.__name__} cannot remove"):
        await cache.delete_many([key_of(1)])


async def test_values_that_are_no_text_are_seen_as_damaged():
    cache = adapt({key_of(1): 3, key_of(2): b"bytes", key_of(3): None, 4: "no key", b"\xff": "no"})
    assert await scanned(cache) == {key_of(1): UNREADABLE, key_of(2): "bytes"}


# What is told of an entry without unsealing it


def sealed(key, *, created=MADE, family="openai", model="gpt-4o"):
    payload = {"text": '"model":"another"'}
    return seal(key, family=family, model=model, payload=payload, created=created)


@pytest.mark.parametrize("model", ["gpt-4o", 'a "quoted" \\ one', "ü", "\ud800", ""])
def test_a_head_is_read_as_it_was_sealed(model):
    text = sealed(key_of(1), model=model, family="127.0.0.1:80")
    assert read_head(key_of(1), text) == Head(MADE, "127.0.0.1:80", model)


def test_a_head_without_fractions_and_one_of_another_zone():
    text = sealed(key_of(1), created=MADE.replace(microsecond=7))
    assert read_head(key_of(1), text).created.microsecond == 7
    other = text.replace("12:30:00.000007+00:00", "14:30:00+02:00")
    assert read_head(key_of(1), other).created == MADE
    naive = text.replace("12:30:00.000007+00:00", "12:30:00")
    assert read_head(key_of(1), naive).created == MADE


@pytest.mark.parametrize(
    "text",
    ["", "{}", "not JSON", sealed(key_of(2)), sealed(key_of(1))[1:],
     sealed(key_of(1)).replace("2026-03-01T", "2026-33-01T"), '{"v":1,' * 1_000,
     sealed(key_of(1)).replace('"gpt-4o"', '"\\x"')],
    ids=range(8),
)  # fmt: skip
def test_what_is_no_envelope_has_no_head(text):
    assert read_head(key_of(1), text) is None


@pytest.mark.parametrize(
    "key", ["", "v1:", "v1:" + 63 * "0", "v1:" + 65 * "0", "v1:" + 64 * "G", key_of(1) + "\n", 3]
)
def test_what_is_no_key(key):
    assert not is_key(key)
    assert is_key(key_of(1))
