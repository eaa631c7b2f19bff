"""The default cache on disk: private, durable, without pickle, nothing lost to damage."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import shutil
import sqlite3
import sys
import threading
import time
from pathlib import Path

import diskcache
import pytest

from lbgpt_pandas.engine.caches import directory as directory_module
from lbgpt_pandas.engine.caches import group_writer
from lbgpt_pandas.engine.caches.adapters import UNREADABLE
from lbgpt_pandas.engine.caches.database import DATABASE
from lbgpt_pandas.engine.caches.disk import DiskCache, default_directory
from lbgpt_pandas.engine.caches.safedisk import SafeDisk
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.errors import CacheCorrupt, ConfigurationError

WHOSE = {"family": "f", "model": "m"}
KEYS = [str(number) for number in range(200)]


@pytest.fixture
async def cache(tmp_path):
    cache = DiskCache(tmp_path / "cache")
    yield cache
    await cache.close()


def change(cache, *statements):
    """Change the database as somebody else would."""
    connection = sqlite3.connect(cache.directory / DATABASE)
    with connection:
        for statement, *values in statements:
            connection.execute(statement, values)
    connection.close()


# Texts in, texts out


async def test_texts_survive_closing(cache):
    await cache.set("a", "1")
    await cache.close()
    assert await cache.get_many(["a", "b"]) == {"a": "1"}
    again = DiskCache(cache.directory)
    assert await again.get_many(["a"]) == {"a": "1"}
    await again.close()


async def test_it_says_which_texts_another_may_have_stored_before(cache):
    other = DiskCache(cache.directory)
    await other.set("b", "theirs")
    await asyncio.gather(*(cache.set(key, "ours") for key in "ab"))
    assert "b" in cache.contested("ab")
    await cache.set("c", "ours")
    await cache.set("b", "newer", replace=True)
    assert cache.contested("c") == []
    assert cache.contested("xyz") == []
    await other.close()


async def test_many_texts_of_both_kinds_are_stored_in_one_go(cache):
    await cache.set("5", "first")
    entries = [(str(n), str(n), n % 7 == 0) for n in range(100)] + [("5", "again", False)]
    await asyncio.gather(*(cache.set(k, v, replace=replace) for k, v, replace in entries))
    found = await cache.get_many([str(n) for n in range(100)])
    assert found == {str(n): str(n) for n in range(100)} | {"5": "first"}


async def test_the_first_writer_wins_unless_it_is_replaced(cache):
    await cache.set("a", "first")
    await cache.set("a", "second")
    assert await cache.get_many(["a"]) == {"a": "first"}
    await cache.set("a", "third", replace=True)
    assert await cache.get_many(["a"]) == {"a": "third"}
    await cache.delete("a")
    await cache.delete("a")
    assert await cache.get_many(["a"]) == {}


async def test_many_at_once_and_large_ones(cache):
    texts = {str(number): "x" * (number * 20) for number in range(2_000)} | {"big": "ü" * 2**20}
    await asyncio.gather(*(cache.set(key, text) for key, text in texts.items()))
    assert await cache.get_many(list(texts)) == texts
    assert await cache.get_many([]) == {}


async def test_any_text_comes_back_as_it_was(cache):
    texts = ["", "\x00 a \x00", "e\u0301 \u00e9", "🏳️‍🌈", "\u202eabc", "'); DROP TABLE Cache;"]
    for number, text in enumerate(texts):
        await cache.set(f"k{number}", text)
        await cache.set("k" + text, text)
    found = await cache.get_many([f"k{number}" for number in range(len(texts))])
    assert found == {f"k{number}": text for number, text in enumerate(texts)}


async def test_what_is_no_text_is_refused_alone(cache):
    results = await asyncio.gather(
        cache.set("good", "1"), cache.set("a", "\ud800"), cache.set("\ud800", "a"),
        cache.set("a", b"1"), cache.set(3, "1"), return_exceptions=True,
    )  # fmt: skip
    kinds = [type(result) for result in results]
    assert kinds == [type(None), UnicodeEncodeError, UnicodeEncodeError, TypeError, TypeError]
    assert await cache.get_many(["good", "a"]) == {"good": "1"}


async def test_it_is_a_diskcache_directory(cache):
    long = "x" * 100_000
    await cache.set("ours", long)
    with diskcache.Cache(str(cache.directory), disk=SafeDisk) as store:
        assert store["ours"] == long
        store["theirs"] = "2"
        assert len(store) == 2
    assert await cache.get_many(["ours", "theirs"]) == {"ours": long, "theirs": "2"}


async def test_nothing_is_ever_evicted(cache):
    await cache.set("a", "1")
    with diskcache.Cache(str(cache.directory), disk=SafeDisk) as store:
        assert (store.eviction_policy, store.cull_limit) == ("none", 0)
        assert store.size_limit >= 2**62


async def test_a_write_goes_on_although_nobody_waits_for_it(cache):
    task = asyncio.create_task(cache.set("a", "1"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await cache.close()
    assert await cache.get_many(["a"]) == {"a": "1"}


def test_over_several_loops_and_threads(tmp_path):
    cache = DiskCache(tmp_path / "cache")
    threads = [
        threading.Thread(target=asyncio.run, args=(cache.set(str(number), "x"),))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(3):
        assert len(asyncio.run(cache.get_many(KEYS))) == 8
        asyncio.run(cache.set("more", "y"))
    asyncio.run(cache.close())


def files_open_below(directory):
    links = list(Path("/proc/self/fd").iterdir())
    return [link for link in links if str(directory) in os.path.realpath(link)]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("closed", [True, False])
def test_no_file_stays_open(tmp_path, monkeypatch, closed):
    monkeypatch.setattr(group_writer, "IDLE_S", 0.01)
    cache = DiskCache(tmp_path / "cache")
    threads = [threading.Thread(target=asyncio.run, args=(work,)) for work in (
        cache.set("a", "1"), cache.get_many(["a"]), cache.get_many(["b"]),
    )]  # fmt: skip
    for thread in threads:
        thread.start()
        thread.join()
    assert files_open_below(tmp_path)
    if closed:
        asyncio.run(cache.close())
        assert not (tmp_path / "cache" / f"{DATABASE}-wal").exists()
    del cache, threads, thread
    deadline = time.monotonic() + 5
    while files_open_below(tmp_path) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert not files_open_below(tmp_path)


# Nothing planted is run, nothing damaged is believed


class Bomb:
    """Leaves a directory behind if it is ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


async def test_a_planted_pickle_is_not_run(cache, tmp_path):
    await cache.set("a", "1")
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    (cache.directory / "bomb.val").write_bytes(bomb)
    row = "INSERT INTO Cache (key, raw, mode, filename, value) VALUES (?, ?, ?, ?, ?)"
    change(
        cache,
        ("UPDATE Cache SET value = ?, mode = 4", bomb),
        (row, bomb, 0, 1, None, "x"),
        (row, bomb, 1, 1, None, "x"),
        (row, "file", 1, 4, "bomb.val", None),
        (row, "text file", 1, 3, "../secret", None),
        (row, "blob", 1, 1, None, b"x"),
        (row, "number", 1, 1, None, 3),
        (row, "nothing", 1, 1, None, None),
    )
    names = ["a", "file", "text file", "blob", "number", "nothing"]
    assert await cache.get_many(names) == dict.fromkeys(names, UNREADABLE)
    for name in names:
        await cache.set(name, "good")
    assert await cache.get_many(names) == dict.fromkeys(names, "good")
    assert not (tmp_path / "exploded").exists()


async def test_a_planted_pickle_is_one_miss_and_gone(cache, tmp_path):
    tier = StandardTier(cache)
    for key in "ab":
        await tier.save(key, **WHOSE, payload={"text": "answer"})
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    change(cache, ("UPDATE Cache SET value = ?, mode = 4 WHERE key = 'a'", bomb))
    assert await tier.find(["a", "b"]) == {"b": {"text": "answer"}}
    assert await cache.get_many(["a"]) == {}
    assert (tier.corrupt, len(tier.take_notices())) == (1, 1)
    assert not (tmp_path / "exploded").exists()


async def test_a_flipped_byte_is_one_miss_with_a_notice(cache):
    tier = StandardTier(cache)
    for key in ("first", "second"):
        await tier.save(key, **WHOSE, payload={"text": f"the {key} answer"})
    await cache.close()
    raw = (cache.directory / DATABASE).read_bytes()
    at = raw.index(b"the first answer") + 4
    for flipped in (b"F", b"\xff"):
        (cache.directory / DATABASE).write_bytes(raw[:at] + flipped + raw[at + 1 :])
        tier = StandardTier(cache)
        assert await tier.find(["first", "second"]) == {"second": {"text": "the second answer"}}
        assert await cache.get_many(["first"]) == {}
        (notice,) = tier.take_notices()
        assert "damaged" in notice
        await cache.close()


def garbage(raw):
    return b"not a database at all" * 100


def garbage_header(raw):
    return bytes(100) + raw[100:]


def garbage_inside(raw):
    return raw[:4096] + b"\x17" * (len(raw) // 2) + raw[4096 + len(raw) // 2 :]


def cut_short(raw):
    return raw[: len(raw) // 2]


def cut_within_the_header(raw):
    return raw[:50]


DAMAGES = [garbage, garbage_header, garbage_inside, cut_short, cut_within_the_header]


async def filled(directory):
    cache = DiskCache(directory)
    await asyncio.gather(*(cache.set(key, "x" * 2_000) for key in KEYS))
    await cache.close()
    return cache


def quarantined(cache):
    return [path.name for path in cache.directory.glob(f"{DATABASE}.corrupt-*[0-9]")]


@pytest.mark.parametrize("reads_first", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_database_is_moved_aside(tmp_path, damage, reads_first):
    cache = await filled(tmp_path / "cache")
    database = cache.directory / DATABASE
    damaged = damage(database.read_bytes())
    database.write_bytes(damaged)
    keep = database.with_name("precious.txt")
    keep.write_text("")
    if reads_first:
        assert len(await cache.get_many(KEYS)) < len(KEYS)
    await asyncio.gather(*(cache.set(f"new {key}", "2") for key in KEYS))
    found = await cache.get_many([f"new {key}" for key in KEYS] + KEYS)
    assert found == {f"new {key}": "2" for key in KEYS}
    (aside,) = quarantined(cache)
    assert (cache.directory / aside).read_bytes()[:50] == damaged[:50]
    (notice,) = cache.take_notices()
    assert aside in notice
    assert cache.take_notices() == []
    assert keep.exists()
    await cache.close()


async def test_a_database_damaged_while_it_is_open_is_moved_aside_once(tmp_path):
    one, two = await filled(tmp_path / "cache"), DiskCache(tmp_path / "cache")
    assert await two.get_many(["0"])
    await one.close()
    # In the log, which is not folded in while it is open.
    await asyncio.gather(*(two.set(f"log {key}", "x" * 2_000) for key in KEYS))
    with (one.directory / DATABASE).open("r+b") as file:
        file.seek(4096)
        file.write(b"\x17" * 200_000)
    for cache in (one, two):
        await cache.get_many(KEYS)
        await cache.set(repr(cache), "1")
    assert await one.get_many([repr(one), repr(two)]) == {repr(one): "1", repr(two): "1"}
    assert await one.get_many([f"log {key}" for key in KEYS]) == {}
    (aside,) = quarantined(one)
    assert (one.directory / f"{aside}-wal").stat().st_size > 100_000
    assert len(one.take_notices() + two.take_notices()) == 1
    await one.close()
    await two.close()


async def test_what_another_process_has_repaired_is_not_moved_aside_again(tmp_path):
    cache, other = DiskCache(tmp_path / "cache"), DiskCache(tmp_path / "cache")
    await cache.set("a", "1")
    (tmp_path / "garbage").write_bytes(b"garbage" * 1_000)
    connection = sqlite3.connect(tmp_path / "garbage")
    attempts = []

    def read(database):
        attempts.append(database)
        if len(attempts) == 1:
            database.close()
            (cache.directory / DATABASE).rename(tmp_path / "aside")
            other._do(lambda fresh: fresh.store([("theirs", "2", False)]), writes=True)
            connection.execute("SELECT * FROM Cache")
        return database.get_many(["theirs"])

    assert cache._do(read) == {"theirs": "2"}
    assert len(attempts) == 2
    assert not quarantined(cache)
    assert not cache.take_notices()
    connection.close()
    await cache.close()
    await other.close()


async def test_an_old_log_is_not_played_into_the_new_database(cache, tmp_path):
    await asyncio.gather(*(cache.set(key, "x" * 2_000) for key in KEYS))
    killed = tmp_path / "killed"
    # As a killed process leaves it: with a log that is not folded in.
    shutil.copytree(cache.directory, killed)
    assert (killed / f"{DATABASE}-wal").stat().st_size > 100_000
    (killed / DATABASE).write_bytes(b"garbage" * 10_000)
    (killed / f"{DATABASE}-shm").unlink()
    again = DiskCache(killed)
    assert await again.get_many(KEYS) == {}
    await again.set("a", "1")
    assert await again.get_many(["a"]) == {"a": "1"}
    assert len(quarantined(again)) == 1
    await again.close()


async def test_an_empty_file_is_an_empty_cache(tmp_path):
    cache = await filled(tmp_path / "cache")
    (cache.directory / DATABASE).write_bytes(b"")
    await cache.set("a", "1")
    assert await cache.get_many(["a", *KEYS]) == {"a": "1"}
    await cache.close()


@pytest.mark.parametrize("damage", DAMAGES)
async def test_reading_only_moves_nothing_aside(tmp_path, damage):
    cache = await filled(tmp_path / "cache")
    database = cache.directory / DATABASE
    damaged = damage(database.read_bytes())
    database.write_bytes(damaged)
    reader = DiskCache(cache.directory, read_only=True)
    with pytest.raises(sqlite3.DatabaseError):
        await reader.get_many(KEYS)
    tier = StandardTier(reader)
    assert await tier.find(KEYS) == {}
    assert len(tier.take_notices()) == 1
    assert database.read_bytes() == damaged
    assert not quarantined(cache)
    await reader.close()


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_look_without_repair_moves_nothing_aside(tmp_path, damage):
    await filled(tmp_path / "cache")
    cache = DiskCache(tmp_path / "cache")
    database = cache.directory / DATABASE
    damaged = damage(database.read_bytes())
    database.write_bytes(damaged)
    before = sorted(cache.directory.iterdir())
    tier = StandardTier(cache)
    assert await tier.find(KEYS, repair=False) == {}
    (notice,) = tier.take_notices()
    assert "cannot be read" in notice
    assert "damaged" in notice
    with pytest.raises(CacheCorrupt, match="left as it is"):
        await tier.envelopes(KEYS)
    await cache.close()
    assert sorted(cache.directory.iterdir()) == before
    assert database.read_bytes() == damaged
    tier.reset()
    assert await tier.find(KEYS) == {}
    assert len(quarantined(cache)) == 1
    await cache.close()


@pytest.mark.parametrize("there", ["nothing", "directory", "empty file"])
async def test_a_look_without_repair_makes_nothing(tmp_path, there):
    cache = DiskCache(tmp_path / "cache")
    if there != "nothing":
        cache.directory.mkdir()
    if there == "empty file":
        (cache.directory / DATABASE).touch()
    before = sorted(tmp_path.rglob("*"))
    tier = StandardTier(cache)
    assert await tier.find(KEYS, repair=False) == {}
    assert await tier.envelopes(KEYS) == {}
    assert tier.take_notices() == []
    await cache.close()
    assert sorted(tmp_path.rglob("*")) == before


async def test_a_look_leaves_no_side_files_behind(tmp_path):
    await filled(tmp_path / "cache")
    cache = DiskCache(tmp_path / "cache")
    before = sorted(cache.directory.iterdir())
    assert len(await cache.peek_many(KEYS)) == len(KEYS)
    await cache.close()
    assert sorted(cache.directory.iterdir()) == before


@pytest.mark.parametrize("removed", ["directory", "database"])
async def test_a_cache_that_is_removed_while_it_is_open_is_made_again(cache, removed):
    await cache.set("a", "1")
    if removed == "directory":
        shutil.rmtree(cache.directory)
    else:
        for path in cache.directory.glob(f"{DATABASE}*"):
            path.unlink()
    assert await cache.get_many(["a"]) == {}
    await cache.set("b", "2")
    again = DiskCache(cache.directory)
    assert await again.get_many(["a", "b"]) == {"b": "2"}
    await again.close()


# Whose directory, and on what


async def test_nobody_else_may_read_and_git_ignores_it(cache):
    await cache.set("a", "1")
    assert cache.directory.stat().st_mode & 0o777 == 0o700
    files = list(cache.directory.glob(f"{DATABASE}*"))
    assert len(files) == 3
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert (cache.directory / ".gitignore").read_text() == "*\n"


async def test_a_directory_with_other_things_stays_as_it_is(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    tmp_path.chmod(0o755)
    cache = DiskCache(tmp_path)
    await cache.set("a", "1")
    await cache.close()
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", DATABASE}
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / DATABASE).stat().st_mode & 0o777 == 0o600


async def test_files_that_others_could_read_are_closed_to_them(cache):
    await cache.set("a", "1")
    await cache.close()
    (cache.directory / DATABASE).chmod(0o644)
    await cache.set("b", "1")
    modes = {path.stat().st_mode & 0o777 for path in cache.directory.glob(f"{DATABASE}*")}
    assert modes == {0o600}


@pytest.mark.parametrize("method", ["get_many", "set"])
async def test_directories_that_cannot_be_trusted_are_refused(tmp_path, method):
    for name, mode in (("real", 0o700), ("group", 0o770), ("all", 0o707)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("")
    words = {"link": "is a link", "file": "is a file", "group": "chmod go-w", "all": "chmod go-w"}
    for name, word in words.items():
        for read_only in (True, False)[method == "set" :]:
            cache = DiskCache(tmp_path / name, read_only=read_only)
            with pytest.raises(ConfigurationError, match=word):
                await (cache.set("a", "1") if method == "set" else cache.get_many(["a"]))
    assert not any((tmp_path / "real").iterdir())


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root to chown")
async def test_a_directory_of_another_user_is_refused(tmp_path):
    directory = tmp_path / "theirs"
    directory.mkdir(mode=0o700)
    os.chown(directory, 12345, 12345)
    with pytest.raises(ConfigurationError, match="another user"):
        await DiskCache(directory).get_many(["a"])


async def test_read_only_reads_and_changes_nothing(cache, tmp_path):
    await cache.set("a", "1")
    reader = DiskCache(cache.directory, read_only=True)
    assert await reader.get_many(["a"]) == {"a": "1"}
    await cache.set("b", "2")
    assert await reader.get_many(["a", "b"]) == {"a": "1", "b": "2"}
    with pytest.raises(PermissionError, match="reading only"):
        await reader.set("c", "3")
    await reader.delete("a")
    assert await reader.get_many(["a"]) == {"a": "1"}
    await reader.close()
    missing = DiskCache(tmp_path / "none", read_only=True)
    with pytest.raises(FileNotFoundError):
        await missing.get_many(["a"])
    assert not (tmp_path / "none").exists()


async def test_a_network_file_system_is_told_once_and_has_no_shared_log(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/x {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(directory_module, "MOUNTS", mounts)
    cache = DiskCache(tmp_path / "cache")
    for _ in range(2):
        await cache.set("a", "1")
        assert not (cache.directory / f"{DATABASE}-wal").exists()
        await cache.close()
    assert await cache.get_many(["a"]) == {"a": "1"}
    (notice,) = cache.take_notices()
    assert "nfs4" in notice
    await cache.close()


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("SOMEWHERE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert DiskCache("$SOMEWHERE/c").directory == tmp_path / "c"
    assert DiskCache("~/c").directory == tmp_path / "c"
    assert DiskCache(Path("c")).directory == Path.cwd() / "c"


def test_the_default_directory_is_given_or_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("LBGPT_CACHE_DIR", str(tmp_path))
    assert default_directory() == tmp_path
    monkeypatch.delenv("LBGPT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_directory().name == "lbgpt_pandas"
