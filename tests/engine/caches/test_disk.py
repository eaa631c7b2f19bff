"""The default cache on disk: private, durable, without pickle, shared by processes."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from lbgpt_pandas.engine.caches.database import DATABASE
from lbgpt_pandas.engine.caches.disk import DiskCache, default_directory
from lbgpt_pandas.engine.caches.safedisk import SafeDisk
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

WHOSE = {"family": "f", "model": "m"}


@pytest.fixture
async def cache(tmp_path):
    cache = DiskCache(tmp_path / "cache")
    yield cache
    await cache.close()


async def test_texts_survive_closing(cache):
    await cache.set("a", "1")
    await cache.close()
    assert await cache.get_many(["a", "b"]) == {"a": "1"}
    again = DiskCache(cache.directory)
    assert await again.get_many(["a"]) == {"a": "1"}
    await again.close()


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
    texts = {str(number): "x" * (number * 40) for number in range(2_000)} | {"big": "y" * 2**20}
    await asyncio.gather(*(cache.set(key, text) for key, text in texts.items()))
    assert await cache.get_many(list(texts)) == texts


async def test_nobody_else_may_read_and_git_ignores_it(cache):
    await cache.set("a", "1")
    assert cache.directory.stat().st_mode & 0o777 == 0o700
    files = [path for path in cache.directory.iterdir() if path.name.startswith(DATABASE)]
    assert files
    assert {path.stat().st_mode & 0o077 for path in files} == {0}
    assert (cache.directory / ".gitignore").read_text() == "*\n"


async def test_nothing_is_ever_evicted(cache):
    await cache.set("a", "1")
    with sqlite3.connect(cache.directory / DATABASE) as connection:
        settings = dict(connection.execute("SELECT key, value FROM Settings"))
    connection.close()
    assert settings["eviction_policy"] == "none"
    assert settings["cull_limit"] == 0
    assert settings["size_limit"] >= 2**62


class Bomb:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


async def test_a_planted_pickle_is_not_run(cache, tmp_path):
    await cache.set("a", "1")
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    with sqlite3.connect(cache.directory / DATABASE) as connection:
        connection.execute("UPDATE Cache SET value = ?, mode = 4", (bomb,))
        connection.execute(
            "INSERT INTO Cache (key, raw, mode, value) VALUES (?, 0, 1, 'x')", (bomb,)
        )
    connection.close()
    assert await cache.get_many(["a"]) == {}
    import diskcache

    with diskcache.Cache(str(cache.directory), disk=SafeDisk) as store:
        with pytest.raises(ValueError, match="not plain text"):
            store["a"]
        with pytest.raises(ValueError, match="pickle"):
            list(store)
        for bad in ({"a": 1}, 3, ("a",)):
            with pytest.raises(TypeError):
                store["b"] = bad
            with pytest.raises(TypeError):
                store[bad] = "b"
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("damage", [b"not a database at all" * 100, b""])
async def test_a_damaged_database_is_moved_aside(tmp_path, damage):
    directory = tmp_path / "cache"
    directory.mkdir(mode=0o700)
    (directory / DATABASE).write_bytes(damage)
    cache = DiskCache(directory)
    await cache.set("a", "1")
    assert await cache.get_many(["a"]) == {"a": "1"}
    aside = list(tmp_path.glob("cache.corrupt-*"))
    assert len(aside) == bool(damage)
    assert len(cache.take_notices()) == bool(damage)
    await cache.close()


async def test_a_database_damaged_while_it_is_used_is_moved_aside(tmp_path):
    first = DiskCache(tmp_path / "cache")
    for number in range(200):
        await first.set(str(number), "x" * 2_000)
    await first.close()
    database = tmp_path / "cache" / DATABASE
    raw = bytearray(database.read_bytes())
    raw[4096 : len(raw) // 2] = b"\x17" * (len(raw) // 2 - 4096)
    database.write_bytes(raw)
    tier = StandardTier(DiskCache(tmp_path / "cache"))
    assert len(await tier.find([str(number) for number in range(200)])) == 0
    assert await tier.save("a", **WHOSE, payload={})
    assert await tier.find(["a"]) == {"a": {}}
    assert tier.take_notices()
    await tier.cache.close()


async def test_a_flipped_byte_is_one_miss(cache):
    tier = StandardTier(cache)
    for key in "ab":
        await tier.save(key, **WHOSE, payload={"text": "answer"})
    with sqlite3.connect(cache.directory / DATABASE) as connection:
        connection.execute("UPDATE Cache SET value = replace(value, 'nsw', 'msw') WHERE key = 'a'")
    connection.close()
    assert await tier.find(["a", "b"]) == {"b": {"text": "answer"}}
    assert await cache.get_many(["a"]) == {}


async def test_directories_that_cannot_be_trusted_are_refused(tmp_path):
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "file").write_text("")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name, word in (("link", "link"), ("file", "file"), ("open", "chmod go-w")):
        with pytest.raises(ConfigurationError, match=word):
            await DiskCache(tmp_path / name).set("a", "1")


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
    with pytest.raises(PermissionError):
        await reader.set("b", "2")
    await reader.close()
    missing = DiskCache(tmp_path / "none", read_only=True)
    with pytest.raises(FileNotFoundError):
        await missing.get_many(["a"])
    assert not (tmp_path / "none").exists()


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
    assert len(asyncio.run(cache.get_many(list(map(str, range(8)))))) == 8
    asyncio.run(cache.close())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.process
def test_a_forked_child_opens_its_own(tmp_path):
    cache = DiskCache(tmp_path / "cache")
    asyncio.run(cache.set("parent", "1"))
    child = os.fork()
    if child == 0:
        asyncio.run(cache.set("child", "2"))
        os._exit(0 if asyncio.run(cache.get_many(["parent"])) == {"parent": "1"} else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert asyncio.run(cache.get_many(["parent", "child"])) == {"parent": "1", "child": "2"}
    asyncio.run(cache.close())


WRITER = """
import asyncio, sys
from lbgpt_pandas.engine.caches.disk import DiskCache

async def main(directory, text):
    cache = DiskCache(directory)
    for number in range(1_000):
        await cache.set(f"k{number}", text)
        print(number, flush=True)
    await cache.close()

asyncio.run(main(*sys.argv[1:]))
"""


def writer(directory: Path, text: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(directory), text]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def integrity(directory: Path) -> str:
    connection = sqlite3.connect(directory / DATABASE)
    try:
        return connection.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        connection.close()


@pytest.mark.process
def test_what_was_acknowledged_survives_a_kill(tmp_path):
    process = writer(tmp_path / "cache", "x")
    acknowledged = 0
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged >= 300:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert integrity(tmp_path / "cache") == "ok"
    cache = DiskCache(tmp_path / "cache")
    keys = [f"k{number}" for number in range(acknowledged + 1)]
    assert len(asyncio.run(cache.get_many(keys))) == acknowledged + 1
    asyncio.run(cache.close())


@pytest.mark.process
def test_two_processes_agree_on_every_text(tmp_path):
    processes = [writer(tmp_path / "cache", text) for text in ("one", "two")]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert integrity(tmp_path / "cache") == "ok"
    cache = DiskCache(tmp_path / "cache")
    found = asyncio.run(cache.get_many([f"k{number}" for number in range(1_000)]))
    assert len(found) == 1_000
    assert set(found.values()) <= {"one", "two"}
    asyncio.run(cache.close())


def test_the_default_directory_is_given_or_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("LBGPT_CACHE_DIR", str(tmp_path))
    assert default_directory() == tmp_path
    monkeypatch.delenv("LBGPT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_directory().name == "lbgpt_pandas"
