"""Several processes on one directory: killed, forked, out of space, without the right to write."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

import pytest

from lbgpt_pandas.engine.caches.database import DATABASE
from lbgpt_pandas.engine.caches.disk import DiskCache
from lbgpt_pandas.engine.caches.standard import StandardTier

pytestmark = [
    pytest.mark.process,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

KEYS = [f"k{number}" for number in range(1_000)]
NOBODY = 65534

WRITER = """
import asyncio, json, sys
from lbgpt_pandas.engine.caches.disk import DiskCache

async def main(directory, text):
    cache = DiskCache(directory)
    for start in range(0, 1_000, 20):
        keys = [f"k{number}" for number in range(start, start + 20)]
        await asyncio.gather(*(cache.set(key, text) for key in keys))
        print(start + 20, flush=True)
    print(json.dumps(await cache.get_many([f"k{number}" for number in range(1_000)])))
    await cache.close()

asyncio.run(main(*sys.argv[1:]))
"""


def start(script, *arguments):
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def integrity(directory):
    connection = sqlite3.connect(directory / DATABASE)
    try:
        return connection.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        connection.close()


def side_files(directory):
    return [path.name for path in directory.glob(f"{DATABASE}-*")]


def read(directory, keys):
    cache = DiskCache(directory)
    try:
        return asyncio.run(cache.get_many(keys))
    finally:
        asyncio.run(cache.close())


def in_child(work, *arguments):
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def check(child):
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("after", [20, 500])
def test_what_was_acknowledged_survives_a_kill(tmp_path, after):
    process = start(WRITER, tmp_path / "cache", "x" * 5_000)
    acknowledged = 0
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged >= after:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert acknowledged >= after
    assert integrity(tmp_path / "cache") == "ok"
    found = read(tmp_path / "cache", KEYS)
    assert set(KEYS[:acknowledged]) <= set(found)
    assert set(found.values()) == {"x" * 5_000}


def test_two_processes_agree_on_every_text(tmp_path):
    processes = [start(WRITER, tmp_path / "cache", text) for text in ("one", "two")]
    seen = []
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        seen.append(json.loads(output.splitlines()[-1]))
    assert integrity(tmp_path / "cache") == "ok"
    assert seen[0] == seen[1] == read(tmp_path / "cache", KEYS)
    assert set(seen[0]) == set(KEYS)
    assert set(seen[0].values()) <= {"one", "two"}


def test_processes_that_meet_a_damaged_database_move_it_aside_once(tmp_path):
    for attempt in range(5):
        directory = tmp_path / str(attempt)
        directory.mkdir(mode=0o700)
        (directory / DATABASE).write_bytes(b"garbage" * 1_000)
        cache, ready = DiskCache(directory), tmp_path / f"ready {attempt}"

        def child(number, cache=cache, ready=ready):
            while not ready.exists():
                pass
            asyncio.run(cache.set(f"k{number}", "x"))
            asyncio.run(cache.close())

        children = [in_child(child, number) for number in range(3)]
        ready.write_text("")
        for one in children:
            check(one)
        assert len(read(directory, KEYS[:3])) == 3
        assert len(list(directory.glob("*.corrupt-*[0-9]"))) == 1


def test_a_forked_child_opens_its_own(tmp_path):
    cache = DiskCache(tmp_path / "cache")
    asyncio.run(cache.set("parent", "1"))

    def child():
        assert asyncio.run(cache.get_many(["parent"])) == {"parent": "1"}
        asyncio.run(cache.set("child", "2"))
        asyncio.run(cache.close())

    check(in_child(child))
    assert asyncio.run(cache.get_many(["parent", "child"])) == {"parent": "1", "child": "2"}
    asyncio.run(cache.set("parent", "3", replace=True))
    asyncio.run(cache.close())
    assert read(tmp_path / "cache", ["parent", "child"]) == {"parent": "3", "child": "2"}


def test_forks_in_the_middle_of_reads_and_writes(tmp_path):
    cache = DiskCache(tmp_path / "cache")
    asyncio.run(cache.set("0", "x"))
    stop = threading.Event()
    written = []

    async def busy(name):
        while not stop.is_set():
            keys = [f"{name} {len(written)} {number}" for number in range(50)]
            await asyncio.gather(*(cache.set(key, "x" * 500) for key in keys))
            written.extend(keys)
            await cache.get_many(keys)

    def child(number):
        async def work():
            assert await cache.get_many(["0"]) == {"0": "x"}
            await asyncio.gather(*(cache.set(f"child {number} {n}", "y") for n in range(20)))
            await cache.close()

        asyncio.run(work())

    threads = [threading.Thread(target=asyncio.run, args=(busy(name),)) for name in "ab"]
    for thread in threads:
        thread.start()
    children = [in_child(child, number) for number in range(12)]
    for one in children:
        check(one)
    stop.set()
    for thread in threads:
        thread.join()
    asyncio.run(cache.close())
    assert integrity(tmp_path / "cache") == "ok"
    keys = written + [f"child {number} {n}" for number in range(12) for n in range(20)]
    assert len(read(tmp_path / "cache", keys)) == len(keys)


def test_a_full_disk_keeps_the_answers_and_says_so_once(tmp_path):
    cache = DiskCache(tmp_path / "cache")
    tier = StandardTier(cache)
    whose = {"family": "f", "model": "m", "payload": {"text": "x" * 20_000}}

    async def save(keys):
        return await asyncio.gather(*(tier.save(key, **whose) for key in keys))

    def child():
        assert all(asyncio.run(save(KEYS[:10])))
        size = sum(path.stat().st_size for path in cache.directory.iterdir())
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, limits[1]))
        assert not all(asyncio.run(save(KEYS[10:500])))
        (notice,) = tier.take_notices()
        assert "cannot be written" in notice
        assert len(asyncio.run(tier.find(KEYS[:10]))) == 10
        # A new handle on the full disk reads what is there.
        assert len(asyncio.run(StandardTier(DiskCache(cache.directory)).find(KEYS[:10]))) == 10
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        tier.reset()
        assert all(asyncio.run(save(KEYS[500:])))
        asyncio.run(cache.close())

    check(in_child(child))
    assert integrity(tmp_path / "cache") == "ok"
    assert set(KEYS[:10] + KEYS[500:]) <= set(asyncio.run(tier.find(KEYS)))
    asyncio.run(cache.close())


@pytest.fixture
def public_directory():
    """Outside pytest's own directory, which no other user may enter."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    path.chmod(0o755)
    shutil.rmtree(path)


@pytest.mark.parametrize("writer_is_there", [False, True])
def test_a_directory_that_cannot_be_written_is_read(public_directory, writer_is_there):
    cache = DiskCache(public_directory)
    tier = StandardTier(cache)
    asyncio.run(tier.save("a", family="f", model="m", payload={"n": 1}))
    if not writer_is_there:
        asyncio.run(cache.close())
    for path in public_directory.iterdir():
        path.chmod(0o444)
    public_directory.chmod(0o555)

    def child():
        if os.getuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        for read_only in (False, True):
            mine = StandardTier(DiskCache(public_directory, read_only=read_only))
            assert asyncio.run(mine.find(["a"])) == {"a": {"n": 1}}
            assert not asyncio.run(mine.save("b", family="f", model="m", payload={}))
            assert asyncio.run(mine.find(["a", "b"])) == {"a": {"n": 1}, "b": {}}
            assert asyncio.run(mine.cache.get_many(["b"])) == {}
            assert len(mine.take_notices()) == 1

    check(in_child(child))
    asyncio.run(cache.close())


def test_a_directory_that_can_be_written_again_is(public_directory):
    cache = DiskCache(public_directory)
    asyncio.run(cache.set("a", "1"))
    asyncio.run(cache.close())
    database = public_directory / DATABASE
    modes = {database: 0o400, public_directory: 0o500}
    for path, mode in modes.items():
        path.chmod(mode)
        if os.getuid() == 0:
            os.chown(path, NOBODY, NOBODY)

    def child():
        if os.getuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        mine = DiskCache(public_directory)
        assert asyncio.run(mine.get_many(["a"])) == {"a": "1"}
        for path, mode in modes.items():
            path.chmod(mode | 0o300)
        asyncio.run(mine.set("b", "2"))
        assert asyncio.run(mine.get_many(["a", "b"])) == {"a": "1", "b": "2"}
        asyncio.run(mine.close())

    check(in_child(child))


AT_EXIT = """
import asyncio, atexit, sys
from lbgpt_pandas.engine.caches.disk import DiskCache

cache = DiskCache(sys.argv[1])

async def main():
    # Nobody waits for these.
    tasks = [asyncio.ensure_future(cache.set(f"k{number}", "x" * 50_000)) for number in range(1_000)]
    await asyncio.sleep(0)

if sys.argv[2:]:
    atexit.register(lambda: asyncio.run(cache.set("late", "y")))
asyncio.run(main())
"""


@pytest.mark.parametrize("late", [[], ["late"]])
def test_what_was_begun_is_written_when_the_interpreter_exits(tmp_path, late):
    process = start(AT_EXIT, tmp_path / "cache", *late)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "", "")
    # Closed properly: the log is folded into the database.
    assert side_files(tmp_path / "cache") == []
    assert len(read(tmp_path / "cache", [*KEYS, *late])) == 1_000 + len(late)
    assert side_files(tmp_path / "cache") == []
