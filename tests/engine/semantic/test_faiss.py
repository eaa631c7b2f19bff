"""Vectors beside answers in a directory: whole, private, shared by processes, without pickle."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import pytest

faiss = pytest.importorskip("faiss")

from lbgpt_pandas.engine.caches import directory as directory_module  # noqa: E402
from lbgpt_pandas.engine.caches import group_writer  # noqa: E402
from lbgpt_pandas.engine.errors import ConfigurationError, MissingExtraError  # noqa: E402
from lbgpt_pandas.engine.semantic.entry_database import DATABASE, EntryDatabase  # noqa: E402
from lbgpt_pandas.engine.semantic.faiss import FaissSemanticCache  # noqa: E402

NOBODY = 65534
FORKS = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
async def cache(tmp_path, embedder):
    cache = FaissSemanticCache(embedder, tmp_path / "cache")
    yield cache
    await cache.close()


def sql(cache, *statements):
    """Do in the database what somebody else would."""
    connection = sqlite3.connect(cache.path / DATABASE)
    try:
        with connection:
            return [connection.execute(one, values).fetchall() for one, *values in statements]
    finally:
        connection.close()


def keys(lists):
    return [[one.key for one in near] for near in lists]


def in_child(work):
    child = os.fork()
    if child:
        return child
    code = 1
    signal.alarm(30)
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def check(child):
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def start(script, *arguments):
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# What is kept, and how


async def test_reopening_gives_the_same_neighbours(cache, entries, vectors, embedder):
    await cache.add(entries(500))
    before = await cache.search(["s"] * 50, vectors(50), at_least=-1.0)
    await cache.close()
    again = FaissSemanticCache(embedder, cache.path)
    assert await again.search(["s"] * 50, vectors(50), at_least=-1.0) == before
    await again.close()


async def test_texts_answers_and_vectors_lie_in_one_table_as_they_are(cache, entries, vectors):
    await cache.add(entries(2, scope="scope"))
    ((row, _),) = sql(cache, ["SELECT * FROM entries ORDER BY id"])
    identifier, key, scope, created, dimension, vector, text, envelope = row
    assert (identifier, key, scope, dimension, text, envelope) == (1, "k0", "scope", 16, "t0", "e0")
    assert vector == vectors(1).astype("<f4").tobytes()
    assert time.time() - created < 60
    assert sql(cache, ["PRAGMA journal_mode"], ["PRAGMA integrity_check"]) == [
        [("wal",)],
        [("ok",)],
    ]


async def test_more_than_one_page_of_vectors_is_loaded(cache, entries, vectors):
    await cache.add(entries(4_500, dimension=4))
    await cache.close()
    rows = vectors(4_500, 4)
    wanted = [0, 1_999, 2_000, 3_999, 4_000, 4_499]
    found = await cache.search(["s"] * len(wanted), rows[wanted], at_least=0.9999999, limit=1)
    assert keys(found) == [[f"k{at}"] for at in wanted]


async def test_many_queries_at_once_are_answered_in_order(cache, entries, vectors):
    await cache.add([*entries(50, scope="a"), *entries(50, first=50, scope="b")])
    rows = vectors(100)
    scopes = ["a"] * 50 + ["b"] * 50
    found = await cache.search(scopes * 25, rows.repeat(25, axis=0).reshape(100, 25, 16).transpose(1, 0, 2).reshape(-1, 16), at_least=0.99)  # fmt: skip
    assert keys(found) == [[f"k{at}"] for at in range(100)] * 25


async def test_in_an_empty_scope_another_dimension_may_follow(cache, entries, vectors):
    await cache.add(entries(3))
    await cache.search(["s"], vectors(1), at_least=0.9)
    await cache.delete_many(["k0", "k1", "k2"])
    await cache.add(entries(3, dimension=8))
    assert keys(await cache.search(["s"], vectors(1, 8), at_least=0.9)) == [["k0"]]
    with pytest.raises(ConfigurationError, match=r"16 dimensions.* 8"):
        await cache.search(["s"], vectors(1), at_least=0.9)


async def test_two_scopes_may_have_different_dimensions(cache, entries, vectors):
    await cache.add(entries(3))
    await cache.add(entries(3, first=3, scope="other", dimension=8))
    assert keys(await cache.search(["other"], vectors(4, 8)[3:], at_least=0.9)) == [["k3"]]
    assert keys(await cache.search(["s"], vectors(1), at_least=0.9)) == [["k0"]]


async def test_an_addition_is_stored_whole_or_not_at_all(cache, entries):
    mixed = [*entries(3), *entries(1, first=3, dimension=8), *entries(1, first=4)]
    with pytest.raises(ConfigurationError):
        await cache.add(mixed)
    assert await cache.count() == 0


async def test_an_addition_goes_on_although_nobody_waits_for_it(cache, entries):
    task = asyncio.create_task(cache.add(entries(1)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await cache.close()
    assert await cache.get_many(["k0"]) == {"k0": "e0"}


# Other processes


async def test_what_others_add_and_remove_is_noticed(cache, entries, vectors, embedder):
    other = FaissSemanticCache(embedder, cache.path)
    await cache.add(entries(5))
    rows = vectors(10)
    assert keys(await cache.search(["s"], rows[7:8], at_least=0.99)) == [[]]
    await other.add(entries(5, first=5))
    assert keys(await cache.search(["s"], rows[7:8], at_least=0.99)) == [["k7"]]
    await other.delete_many(["k7"])
    assert keys(await cache.search(["s"], rows[7:8], at_least=0.99)) == [[]]
    await other.close()


async def test_what_is_gone_does_not_take_the_place_of_what_is_there(cache, entries, vectors):
    await cache.add(entries(100))
    (query,) = vectors(1)
    ((*nearest,),) = await cache.search(["s"], query[None], at_least=-1.0, limit=10)
    gone = [(one.key,) for one in nearest[:8]]
    sql(cache, *(["DELETE FROM entries WHERE key = ?", *key] for key in gone))
    (left,) = await cache.search(["s"], query[None], at_least=-1.0, limit=2)
    assert left == nearest[8:]


def test_several_that_make_the_database_at_once(tmp_path):
    errors = []

    def make(barrier, directory):
        barrier.wait()
        try:
            EntryDatabase(directory, read_only=False).close()
        except Exception as error:
            errors.append(error)

    for number in range(20):
        directory = tmp_path / str(number)
        directory.mkdir()
        barrier = threading.Barrier(4)
        threads = [threading.Thread(target=make, args=(barrier, directory)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


PROCESS = """
import asyncio, json, sys
import numpy
from lbgpt_pandas.engine.semantic.base import SemanticEntry
from lbgpt_pandas.engine.semantic.faiss import FaissSemanticCache

def entries(first, number, envelope):
    drawn = numpy.random.default_rng(0).standard_normal((first + number, 16))
    drawn /= numpy.linalg.norm(drawn, axis=1, keepdims=True)
    rows = drawn.astype(numpy.float32)[first:]
    return [SemanticEntry(f"k{at}", "s", f"t{at}", envelope, row) for at, row in enumerate(rows, first)]

async def main(directory, envelope):
    cache = FaissSemanticCache(None, directory)
    everything = entries(0, 1_000, envelope)
    for start in range(0, 1_000, 20):
        some = everything[start : start + 20]
        await asyncio.gather(*(cache.add([one]) for one in some))
        near = await cache.search(["s"] * 20, numpy.array([one.vector for one in some]), at_least=0.99)
        assert [one[0].key for one in near] == [one.key for one in some]
        print(start + 20, flush=True)
    print(json.dumps(await cache.get_many([one.key for one in everything])))
    await cache.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.process
@pytest.mark.parametrize("after", [20, 500])
async def test_after_a_kill_every_vector_has_its_answer(cache, vectors, after):
    process = start(PROCESS, cache.path, "x" * 5_000)
    acknowledged = 0
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged >= after:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert acknowledged >= after
    rows = vectors(1_000)
    found = await cache.search(["s"] * 1_000, rows, at_least=0.99)
    assert keys(found)[:acknowledged] == [[f"k{at}"] for at in range(acknowledged)]
    assert {one.envelope for near in found for one in near} == {"x" * 5_000}
    assert await cache.count() == sum(map(len, found))
    assert sql(cache, ["PRAGMA integrity_check"]) == [[("ok",)]]
    assert cache.take_notices() == []


@pytest.mark.process
async def test_two_processes_agree_on_every_answer(cache, vectors):
    processes = [start(PROCESS, cache.path, text) for text in ("first", "second")]
    results = [process.communicate() for process in processes]
    assert [error for _, error in results] == ["", ""]
    answers = [json.loads(output.splitlines()[-1]) for output, _ in results]
    assert answers[0] == answers[1]
    assert len(answers[0]) == 1_000
    found = await cache.search(["s"] * 1_000, vectors(1_000), at_least=0.99)
    assert {one.key: one.envelope for near in found for one in near} == answers[0]
    assert sql(cache, ["PRAGMA integrity_check"]) == [[("ok",)]]


@FORKS
@pytest.mark.process
def test_a_forked_child_searches_and_adds(tmp_path, embedder, entries, vectors):
    cache = FaissSemanticCache(embedder, tmp_path / "cache")
    rows = vectors(600)
    asyncio.run(cache.add(entries(500)))
    # Both start threads that a child does not have.
    for number in (1, 600):
        asyncio.run(cache.search(["s"] * number, rows[:number], at_least=0.99))

    def child():
        assert keys(asyncio.run(cache.search(["s"], rows[3:4], at_least=0.99))) == [["k3"]]
        asyncio.run(cache.add(entries(100, first=500)))
        found = asyncio.run(cache.search(["s"] * 600, rows, at_least=0.99))
        assert keys(found) == [[f"k{at}"] for at in range(600)]
        asyncio.run(cache.close())

    check(in_child(child))
    found = asyncio.run(cache.search(["s"] * 600, rows, at_least=0.99))
    assert keys(found) == [[f"k{at}"] for at in range(600)]
    asyncio.run(cache.close())


@FORKS
@pytest.mark.process
def test_forks_in_the_middle_of_searches_and_additions(tmp_path, embedder, entries, vectors):
    cache = FaissSemanticCache(embedder, tmp_path / "cache")
    rows = vectors(100)
    asyncio.run(cache.add(entries(100)))
    stop = threading.Event()
    rounds = []

    async def busy(name):
        while not stop.is_set():
            await cache.add(entries(50, scope=f"{name} {len(rounds)}"))
            await cache.search(["s"] * 100, rows, at_least=0.99)
            rounds.append(name)

    def child():
        assert keys(asyncio.run(cache.search(["s"], rows[:1], at_least=0.99))) == [["k0"]]
        asyncio.run(cache.add(entries(20, first=100, scope="child")))
        asyncio.run(cache.close())

    threads = [threading.Thread(target=asyncio.run, args=(busy(name),)) for name in "ab"]
    for thread in threads:
        thread.start()
    children = [in_child(child) for _ in range(8)]
    for one in children:
        check(one)
    stop.set()
    for thread in threads:
        thread.join()
    assert asyncio.run(cache.count()) == 120
    asyncio.run(cache.close())
    assert sql(cache, ["PRAGMA integrity_check"]) == [[("ok",)]]


# What is not sound


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("column", ["text", "envelope", "vector", "key"])
async def test_a_planted_pickle_is_no_hit_and_not_run(cache, entries, vectors, tmp_path, column):
    await cache.add(entries(3))
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    sql(cache, [f"UPDATE entries SET {column} = ? WHERE key = 'k1'", trap])
    found = await cache.search(["s"] * 3, vectors(3), at_least=0.99)
    assert keys(found) == [["k0"], [], ["k2"]]
    assert await cache.get_many(["k0", "k1", "k2"]) == {"k0": "e0", "k2": "e2"}
    assert [one for page in [page async for page in cache.scan()] for one, _, _ in page] == [
        "k0",
        "k2",
    ]
    # It does not keep the place of what comes under its key.
    await cache.add(entries(3))
    assert keys(await cache.search(["s"] * 3, vectors(3), at_least=0.99)) == [
        ["k0"],
        ["k1"],
        ["k2"],
    ]
    assert not (tmp_path / "sprung").exists()


async def test_a_pickle_planted_behind_a_loaded_index_is_no_hit(cache, entries, vectors):
    await cache.add(entries(3))
    assert keys(await cache.search(["s"], vectors(2)[1:], at_least=0.99)) == [["k1"]]
    sql(cache, ["UPDATE entries SET envelope = ? WHERE key = 'k1'", b"\x80\x04."])
    assert keys(await cache.search(["s"], vectors(2)[1:], at_least=0.99)) == [[]]


def damage_header(path):
    with path.open("r+b") as file:
        file.write(b"garbage " * 20)


def damage_pages(path):
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


@pytest.mark.parametrize("damage", [damage_header, damage_pages])
async def test_a_damaged_database_is_moved_aside(cache, entries, vectors, damage):
    await cache.add(entries(200))
    await cache.close()
    damage(cache.path / DATABASE)
    assert await cache.search(["s"], vectors(1), at_least=0.9) == [[]]
    (notice,) = cache.take_notices()
    assert "is damaged" in notice
    assert str(cache.path) in notice
    await cache.add(entries(2))
    assert keys(await cache.search(["s"], vectors(1), at_least=0.9)) == [["k0"]]
    (aside,) = cache.path.glob(f"{DATABASE}.corrupt-*")
    assert aside.stat().st_size > 4096


async def test_a_database_that_is_removed_while_it_is_open_is_begun_anew(cache, entries, vectors):
    await cache.add(entries(20))
    await cache.search(["s"], vectors(1), at_least=0.9)
    shutil.rmtree(cache.path)
    await cache.add(entries(1, first=5))
    found = await cache.search(["s"] * 20, vectors(20), at_least=0.99)
    assert keys(found) == [[]] * 5 + [["k5"]] + [[]] * 14


async def test_a_database_of_a_later_release_is_left_alone(cache, entries):
    await cache.add(entries(1))
    await cache.close()
    sql(cache, ["PRAGMA user_version = 99"])
    with pytest.raises(ConfigurationError, match="a later release"):
        await cache.get_many(["k0"])


# Whose it is, and where


async def test_nobody_else_may_read_and_git_ignores_it(cache, entries):
    await cache.add(entries(1))
    assert cache.path.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in cache.path.iterdir()}
    assert (cache.path / ".gitignore").read_text() == "*\n"
    assert {mode for name, mode in modes.items() if name.startswith(DATABASE)} == {0o600}


@pytest.mark.parametrize("what", ["link", "file", "open"])
async def test_directories_that_cannot_be_trusted_are_refused(tmp_path, embedder, entries, what):
    place = tmp_path / "place"
    if what == "link":
        (tmp_path / "target").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "target")
    elif what == "file":
        place.touch()
    else:
        place.mkdir()
        place.chmod(0o777)
    cache = FaissSemanticCache(embedder, place)
    for use in (cache.add(entries(1)), cache.get_many(["k0"])):
        with pytest.raises(ConfigurationError, match="place"):
            await use


@FORKS
@pytest.mark.process
@pytest.mark.skipif(os.name != "posix", reason="users and modes of POSIX")
def test_a_directory_that_cannot_be_written_is_searched(embedder, entries, vectors):
    path = Path(tempfile.mkdtemp())
    cache = FaissSemanticCache(embedder, path)
    asyncio.run(cache.add(entries(3)))
    asyncio.run(cache.close())
    for file in path.iterdir():
        file.chmod(0o444)
    path.chmod(0o555)

    def child():
        if os.getuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        mine = FaissSemanticCache(embedder, path)
        assert keys(asyncio.run(mine.search(["s"], vectors(1), at_least=0.9))) == [["k0"]]
        with pytest.raises((OSError, sqlite3.Error)):
            asyncio.run(mine.add(entries(1, first=3)))
        assert asyncio.run(mine.get_many(["k0", "k3"])) == {"k0": "e0"}

    check(in_child(child))
    path.chmod(0o755)
    shutil.rmtree(path)


async def test_a_network_file_system_is_told_and_has_no_shared_log(
    tmp_path, embedder, entries, monkeypatch
):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/x {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(directory_module, "MOUNTS", mounts)
    cache = FaissSemanticCache(embedder, tmp_path / "cache")
    await cache.add(entries(1))
    assert sql(cache, ["PRAGMA journal_mode"]) == [[("delete",)]]
    await cache.close()
    (notice,) = cache.take_notices()
    assert "nfs4" in notice
    assert "path=" in notice


def test_making_one_touches_nothing(tmp_path, embedder, monkeypatch):
    monkeypatch.setenv("SOMEWHERE", str(tmp_path))
    cache = FaissSemanticCache(embedder, "$SOMEWHERE/cache")
    assert cache.path == tmp_path / "cache"
    assert cache.location == str(tmp_path / "cache")
    assert repr(cache) == f"FaissSemanticCache('{tmp_path}/cache')"
    assert not cache.path.exists()


async def test_without_faiss_the_install_line_is_told(cache, entries, vectors, monkeypatch):
    await cache.add(entries(1))
    assert await cache.get_many(["k0"]) == {"k0": "e0"}
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lbgpt-pandas\[faiss\]'"):
        await cache.search(["s"], vectors(1), at_least=0.9)


# The event loop


async def ticks_during(work):
    """Count how often the event loop comes round while `work` goes on."""
    task, ticks = asyncio.ensure_future(work), 0
    while not task.done():
        await asyncio.sleep(0.005)
        ticks += 1
    await task
    return ticks


async def test_the_loop_goes_on_while_another_process_writes(cache, entries):
    await cache.add(entries(1))
    other = sqlite3.connect(cache.path / DATABASE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    addition = asyncio.ensure_future(cache.add(entries(1, first=1)))
    assert await ticks_during(asyncio.sleep(0.05)) >= 5
    assert not addition.done()
    assert await cache.get_many(["k0", "k1"]) == {"k0": "e0"}
    other.execute("ROLLBACK")
    other.close()
    await addition
    assert await cache.get_many(["k1"]) == {"k1": "e1"}


async def test_the_loop_goes_on_during_one_large_search(cache, entries, vectors):
    await cache.add(entries(10_000, dimension=64))
    rows = vectors(8_000, 64)
    await cache.search(["s"], rows[:1], at_least=0.9)
    started = time.perf_counter()
    ticks = await ticks_during(cache.search(["s"] * 8_000, rows, at_least=0.99))
    # A tick takes a hundredth of a second even where all processors are taken.
    assert ticks >= (time.perf_counter() - started) / 0.05


def test_the_threads_end_when_there_is_nothing_to_do(
    tmp_path, embedder, entries, vectors, monkeypatch
):
    monkeypatch.setattr(group_writer, "IDLE_S", 0.01)
    cache = FaissSemanticCache(embedder, tmp_path / "cache")
    others = set(threading.enumerate())
    for _ in range(2):
        asyncio.run(cache.add(entries(1)))
        asyncio.run(cache.search(["s"], vectors(1), at_least=0.9))
        deadline = time.monotonic() + 10
        while set(threading.enumerate()) - others:
            assert time.monotonic() < deadline
            time.sleep(0.005)
    asyncio.run(cache.close())
