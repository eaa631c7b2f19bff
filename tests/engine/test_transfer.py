"""Caches become archives and archives are merged into caches, whole or not at all."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

import pytest

from lbgpt_pandas.engine.archive import Entry, open_archive, write_archive
from lbgpt_pandas.engine.caches.adapters import KEYS_A_SCAN
from lbgpt_pandas.engine.caches.base import MemoryCache, adapt
from lbgpt_pandas.engine.caches.disk import DiskCache
from lbgpt_pandas.engine.caches.envelope import seal
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.errors import CacheCorrupt, ConfigurationError
from lbgpt_pandas.engine.inventory import Inventory, store_errors, take_inventory
from lbgpt_pandas.engine.transfer import export_cache, merge, merge_archive

MADE = datetime(2026, 1, 1, tzinfo=UTC)
MANY = 2 * KEYS_A_SCAN + 3


def key_of(number):
    return f"v1:{number:064x}"


def sealed(number, text="ü"):
    return seal(key_of(number), family="f", model="m", payload={"text": text}, created=MADE)


def texts(count):
    return {key_of(number): sealed(number) for number in range(count)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.lbgpt.zip"


async def test_more_than_a_page_goes_there_and_back(tmp_path, path):
    entries = texts(MANY)
    assert await export_cache(
        StandardTier(adapt(dict(reversed(entries.items())))), path, manifest={}
    ) == (
        MANY,
        0,
    )
    with open_archive(path) as archive:
        assert [entry.key for entry in archive.entries()] == list(entries)
    disk = DiskCache(tmp_path / "cache")
    assert await merge_archive(disk, path) == (MANY, 0)
    assert await disk.get_many(list(entries)) == entries
    assert await merge_archive(disk, path) == (0, MANY)
    await disk.close()


async def test_nothing_is_stored_of_an_archive_whose_last_answer_is_damaged(path):
    entries = [Entry(key, text) for key, text in texts(MANY).items()]
    entries[-1] = Entry(entries[-1].key, entries[0].envelope)
    write_archive(path, {}, entries)
    cache = MemoryCache()
    with pytest.raises(CacheCorrupt):
        await merge_archive(cache, path)
    assert len(cache) == 0


async def test_who_stored_first_wins_also_during_the_merge(tmp_path):
    disk = DiskCache(tmp_path / "cache")
    theirs = sealed(1, "theirs")
    both = asyncio.gather(disk.set(key_of(1), theirs), merge(disk, {key_of(1): sealed(1)}))
    await both
    assert await disk.get_many([key_of(1)]) == {key_of(1): theirs}
    await disk.close()


async def test_what_is_damaged_gives_way_also_where_the_first_writer_wins(tmp_path):
    disk = DiskCache(tmp_path / "cache")
    await disk.set(key_of(1), "damaged")
    assert await merge(disk, texts(2)) == (2, 0)
    assert await disk.get_many(list(texts(2))) == texts(2)
    await disk.close()


async def test_a_cancelled_export_ends_its_thread_and_leaves_nothing_behind(path):
    entries = texts(MANY)
    reading, threads = asyncio.Event(), threading.active_count()

    class Cache(MemoryCache):
        async def get_many(self, keys):
            reading.set()
            await asyncio.sleep(0.02)
            return await super().get_many(keys)

    cache = Cache()
    for key, text in entries.items():
        await cache.set(key, text)
    path.write_text("an earlier one")
    export = asyncio.create_task(export_cache(StandardTier(cache), path, manifest={}))
    await reading.wait()
    export.cancel()
    with pytest.raises(asyncio.CancelledError):
        await export
    await asyncio.get_running_loop().shutdown_default_executor()
    assert threading.active_count() <= threads
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert path.read_text() == "an earlier one"


async def test_a_store_that_cannot_be_written_is_named(path):
    class Full(dict):
        def __setitem__(self, key, value):
            raise OSError(28, "No space left on device")

    await export_cache(StandardTier(adapt(texts(3))), path, manifest={})
    with pytest.raises(ConfigurationError, match=r"a Full object cannot be changed.*No space"):
        await merge_archive(adapt(Full()), path)


async def test_errors_of_this_package_are_not_wrapped():
    with pytest.raises(CacheCorrupt, match=r"^as it was$"), store_errors(MemoryCache(), "read"):
        raise CacheCorrupt("as it was")


async def test_bytes_are_counted_not_letters():
    entries = texts(2)
    found = await take_inventory(adapt(entries))
    share = found.by_model["m"]
    assert (share.entries, share.bytes) == (2, sum(len(text.encode()) for text in entries.values()))
    assert share.oldest == share.newest == MADE


def test_an_entry_under_another_ones_key_is_damaged():
    found = Inventory()
    found.count({key_of(2): sealed(1), key_of(1): sealed(1), "mine": "something"})
    assert (found.damaged, found.by_model["m"].entries) == (1, 1)


async def test_what_is_held_in_memory_is_exported(path):
    class Full(MemoryCache):
        async def set(self, key, value, *, replace=False):
            if key == key_of(2):
                raise OSError("no space")
            await super().set(key, value, replace=replace)

    tier = StandardTier(Full())
    for number in (1, 2):
        await tier.save(key_of(number), family="f", model="m", payload={"text": number})
    assert await export_cache(tier, path, manifest={}) == (2, 0)
    with open_archive(path) as archive:
        assert [entry.key for entry in archive.entries()] == [key_of(1), key_of(2)]
