"""Answered questions in a Qdrant collection: local mode for real, a server by a stand-in.

No Qdrant server can be had for these tests. The stand-in speaks its REST interface over the local
mode, and shows what the cache sends and how it takes refusals, not how a server searches.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

qdrant_client = pytest.importorskip("qdrant_client")
models = qdrant_client.models

from lbgpt_pandas.engine.errors import ConfigurationError, MissingExtraError  # noqa: E402
from lbgpt_pandas.engine.semantic import qdrant_collection  # noqa: E402
from lbgpt_pandas.engine.semantic.base import SemanticEntry  # noqa: E402
from lbgpt_pandas.engine.semantic.qdrant import QdrantSemanticCache  # noqa: E402

CANARY = "canary-key-0123456789"


@pytest.fixture
async def folder(tmp_path, embedder):
    cache = QdrantSemanticCache(embedder, "questions", path=tmp_path / "folder")
    yield cache
    await cache.close()


@pytest.fixture
async def remote(stand_in, embedder):
    cache = QdrantSemanticCache(embedder, "questions", url=stand_in.url)
    yield cache
    await cache.close()


def keys(lists):
    return [[one.key for one in near] for near in lists]


def storage(tmp_path):
    (file,) = (tmp_path / "folder").glob("collection/*/storage.sqlite")
    return file


def change(file, statement, *values):
    connection = sqlite3.connect(file)
    with connection:
        connection.execute(statement, values)
    connection.close()


# Where it is


@pytest.mark.parametrize(
    "place", [{}, {"host": "h", "url": "http://h"}, {"host": "h", "path": "p"}]
)
def test_exactly_one_place_is_given(embedder, place):
    with pytest.raises(ConfigurationError, match="one of host=, url= and path="):
        QdrantSemanticCache(embedder, "questions", **place)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_timeout_is_above_zero(embedder, timeout_s):
    with pytest.raises(ConfigurationError, match="timeout_s"):
        QdrantSemanticCache(embedder, "questions", "h", timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("place", "location"),
    [
        ({"host": ":memory:"}, ":memory:"),
        ({"path": ":memory:"}, ":memory:"),
        ({"url": ":memory:"}, ":memory:"),
        ({"host": "qdrant.example"}, "http://qdrant.example:6333"),
        ({"host": "qdrant.example", "port": 1, "api_key": CANARY}, "https://qdrant.example:1"),
        ({"url": "https://qdrant.example:2/sub"}, "https://qdrant.example:2/sub"),
        ({"url": "qdrant.example:2"}, "http://qdrant.example:2"),
    ],
)
def test_its_location_is_told_without_the_key(embedder, place, location):
    cache = QdrantSemanticCache(embedder, "questions", **place)
    assert cache.location == f"{location}, collection questions"
    assert repr(cache) == f"QdrantSemanticCache('{cache.location}')"
    assert CANARY not in repr(vars(cache)) + repr(vars(cache._connection))


def test_a_url_holds_no_password(embedder):
    with pytest.raises(ConfigurationError, match="api_key=") as caught:
        QdrantSemanticCache(embedder, "questions", url=f"https://user:{CANARY}@qdrant.example")
    assert CANARY not in str(caught.value)


def test_a_key_that_leaves_this_machine_in_the_open_is_told(embedder):
    given = {"embedding_model": embedder, "collection_name": "questions", "api_key": CANARY}
    cache = QdrantSemanticCache(**given, url="http://qdrant.example:6333")
    (notice,) = cache.take_notices()
    assert "without encryption" in notice
    assert CANARY not in notice
    assert cache.take_notices() == []
    for place in (
        {"url": "http://127.0.0.1:1"},
        {"url": "https://q.example"},
        {"host": "q.example"},
    ):
        assert QdrantSemanticCache(**given, **place).take_notices() == []


def test_making_one_touches_nothing(tmp_path, embedder, monkeypatch):
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    cache = QdrantSemanticCache(embedder, "questions", path=tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    with pytest.raises(MissingExtraError, match=r"pip install 'lbgpt-pandas\[qdrant\]'"):
        asyncio.run(cache.get_many(["k0"]))


# In memory


async def test_what_lies_in_memory_belongs_to_one_object_and_outlives_closing(
    embedder, entries, vectors
):
    one, other = (QdrantSemanticCache(embedder, "questions", ":memory:") for _ in range(2))
    await one.add(entries(3))
    await one.close()
    assert await one.count() == 3
    assert await other.count() == 0


async def test_a_collection_for_something_else_is_refused(embedder, vectors):
    for number, config in enumerate(
        [
            models.VectorParams(size=16, distance=models.Distance.DOT),
            {"named": models.VectorParams(size=16, distance=models.Distance.COSINE)},
        ]
    ):
        cache = QdrantSemanticCache(embedder, f"questions {number}", ":memory:")
        cache._connection.do(
            lambda client, n=number, c=config: client.create_collection(f"questions {n}", c)
        )
        with pytest.raises(ConfigurationError, match="made for something else"):
            await cache.search(["s"], vectors(1), at_least=0.9)


async def test_points_that_are_no_entries_are_passed_over(embedder, entries, vectors):
    cache = QdrantSemanticCache(embedder, "questions", ":memory:")
    await cache.add(entries(3))
    rows = vectors(3)
    damaged = [
        {"key": "k1", "scope": "s", "text": ["t1"], "envelope": "e1"},
        {"key": "k2", "scope": "s", "text": "t2"},
    ]
    points = [
        models.PointStruct(
            id=qdrant_collection.point_id(f"k{at}"), vector=rows[at].tolist(), payload=payload
        )
        for at, payload in enumerate(damaged, 1)
    ]
    points.append(models.PointStruct(id=7, vector=rows[0].tolist(), payload=None))
    cache._connection.do(lambda client: client.upsert("questions", points))
    assert keys(await cache.search(["s"] * 3, rows, at_least=0.99)) == [["k0"], [], []]
    assert await cache.get_many(["k0", "k1", "k2"]) == {"k0": "e0"}
    assert [page async for page in cache.scan()] == [[("k0", "t0", "e0")]]
    # They do not keep the place of what comes under their keys.
    await cache.add(entries(3))
    assert keys(await cache.search(["s"] * 3, rows, at_least=0.99)) == [["k0"], ["k1"], ["k2"]]


async def test_a_collection_that_was_removed_is_made_again(embedder, entries, vectors):
    cache = QdrantSemanticCache(embedder, "questions", ":memory:")
    await cache.add(entries(3))
    cache._connection.do(lambda client: client.delete_collection("questions"))
    assert await cache.search(["s"], vectors(1), at_least=0.9) == [[]]
    await cache.add(entries(1, dimension=8))
    assert keys(await cache.search(["s"], vectors(1, 8), at_least=0.9)) == [["k0"]]


# In a folder


async def test_reopening_a_folder_gives_the_same_neighbours(
    folder, entries, vectors, tmp_path, embedder
):
    await folder.add(entries(100))
    before = await folder.search(["s"] * 20, vectors(20), at_least=-1.0)
    await folder.close()
    again = QdrantSemanticCache(embedder, "questions", path=tmp_path / "folder")
    assert await again.search(["s"] * 20, vectors(20), at_least=-1.0) == before
    await again.close()


async def test_a_cell_that_is_run_twice_shares_the_folder(folder, entries, tmp_path, embedder):
    await folder.add(entries(3))
    again = QdrantSemanticCache(embedder, "questions", path=tmp_path / "folder")
    other = QdrantSemanticCache(embedder, "others", path=str(tmp_path / "folder"))
    await again.add(entries(1, first=3))
    await other.add(entries(1))
    assert (await folder.count(), await again.count(), await other.count()) == (4, 4, 1)
    await again.close()
    assert await folder.get_many(["k3"]) == {"k3": "e3"}


def test_threads_that_share_a_folder_lose_nothing(tmp_path, embedder, entries, vectors):
    rows = vectors(480)

    async def work(first):
        cache = QdrantSemanticCache(embedder, "questions", path=tmp_path / "folder")
        for start in range(first, first + 60, 10):
            await cache.add(entries(10, first=start))
            found = await cache.search(["s"] * 10, rows[start : start + 10], at_least=0.99)
            assert keys(found) == [[f"k{at}"] for at in range(start, start + 10)]
            await cache.delete_many([f"k{start}"])
        await cache.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(asyncio.run, [work(first) for first in range(0, 480, 60)]))
    cache = QdrantSemanticCache(embedder, "questions", path=tmp_path / "folder")
    found = asyncio.run(cache.search(["s"] * 480, rows, at_least=0.99))
    assert keys(found) == [[f"k{at}"] if at % 10 else [] for at in range(480)]
    assert asyncio.run(cache.count()) == 432
    asyncio.run(cache.close())


async def test_nobody_else_may_read_the_folder(folder, entries, tmp_path):
    await folder.add(entries(3))
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700
    assert storage(tmp_path).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "folder" / ".gitignore").exists()


async def test_a_folder_that_others_may_write_to_is_refused(folder, entries, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder").chmod(0o777)
    with pytest.raises(ConfigurationError, match="chmod go-w"):
        await folder.add(entries(1))


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def trap(path):
    return Trap(path)


def trap_in_a_point(path):
    return models.PointStruct.model_construct(id=1, vector=[1.0], payload={"a": Trap(path)})


@pytest.mark.parametrize("bait", [trap, trap_in_a_point])
async def test_a_planted_pickle_is_refused_and_not_run(folder, entries, tmp_path, bait):
    await folder.add(entries(3))
    await folder.close()
    planted = pickle.dumps(bait(tmp_path / "sprung"))
    change(storage(tmp_path), "INSERT INTO points VALUES ('x', ?)", planted)
    with pytest.raises(ConfigurationError, match="could run code"):
        await folder.get_many(["k0"])
    assert not (tmp_path / "sprung").exists()
    pickle.loads(planted)
    assert (tmp_path / "sprung").exists()
    change(storage(tmp_path), "DELETE FROM points WHERE id = 'x'")
    assert await folder.get_many(["k0"]) == {"k0": "e0"}


@pytest.mark.parametrize("bytes_", [b"", b"garbage", b"\x80\x04.", pickle.dumps("a text"), None, 3])
async def test_what_is_no_point_is_refused(folder, entries, tmp_path, bytes_):
    await folder.add(entries(3))
    await folder.close()
    change(storage(tmp_path), "INSERT INTO points VALUES ('x', ?)", bytes_)
    with pytest.raises(ConfigurationError, match="something else than points"):
        await folder.get_many(["k0"])


async def test_points_of_other_programs_are_no_reason_to_refuse(folder, entries, tmp_path):
    await folder.add(entries(3))
    values = {"n": [1, 2**40, 1.5, None, True], "t": "x" * 300, "d": {"a": {}}, "e": []}
    points = [models.PointStruct(id=at, vector=[0.5] * 16, payload=values) for at in (1, 2**40)]
    folder._connection.do(lambda client: client.upsert("questions", points))
    await folder.close()
    assert await folder.count() == 5


@pytest.mark.parametrize("name", ["meta.json", "storage.sqlite"])
async def test_a_damaged_folder_is_a_clear_error(folder, entries, tmp_path, name):
    await folder.add(entries(3))
    await folder.close()
    file = tmp_path / "folder" / name if name == "meta.json" else storage(tmp_path)
    file.write_bytes(b"garbage " * 1_000)
    with pytest.raises(ConfigurationError, match=f"{name} is damaged.*move the folder"):
        await folder.get_many(["k0"])


HOLDER = """
import asyncio, sys
import numpy
from lbgpt_pandas.engine.semantic.base import SemanticEntry
from lbgpt_pandas.engine.semantic.qdrant import QdrantSemanticCache

async def main():
    cache = QdrantSemanticCache(None, "questions", path=sys.argv[1])
    for at in range(100_000):
        row = numpy.zeros(16, dtype=numpy.float32)
        row[at % 16] = 1
        await cache.add([SemanticEntry(f"k{at}", "s", f"t{at}", f"e{at}", row)])
        print(at + 1, flush=True)

asyncio.run(main())
"""


@pytest.mark.process
def test_a_folder_in_use_is_a_clear_error_and_after_a_kill_it_is_whole(tmp_path, embedder):
    cache = QdrantSemanticCache(embedder, "questions", path=tmp_path / "folder")
    command = [sys.executable, "-W", "error", "-c", HOLDER, str(tmp_path / "folder")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    acknowledged = int(process.stdout.readline())
    with pytest.raises(
        ConfigurationError, match=r"another process uses the Qdrant folder.*FaissSem"
    ):
        asyncio.run(cache.get_many(["k0"]))
    while acknowledged < 50:
        acknowledged = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    acknowledged += len(rest.splitlines())
    wanted = {f"k{at}": f"e{at}" for at in range(acknowledged)}
    assert asyncio.run(cache.get_many(list(wanted))) == wanted
    # The next one may have been stored and not been told.
    assert asyncio.run(cache.count()) - acknowledged in {0, 1}
    asyncio.run(cache.close())


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("place", [{"host": ":memory:"}, {"path": "folder"}])
def test_a_forked_child_searches(tmp_path, embedder, entries, vectors, place):
    if "path" in place:
        place = {"path": tmp_path / "folder"}
    cache = QdrantSemanticCache(embedder, "questions", **place)
    asyncio.run(cache.add(entries(20)))
    child = os.fork()
    if not child:
        code = 1
        signal.alarm(30)
        try:
            found = asyncio.run(cache.search(["s"], vectors(4)[3:], at_least=0.99))
            assert keys(found) == [["k3"]]
            asyncio.run(cache.close())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert keys(asyncio.run(cache.search(["s"], vectors(4)[3:], at_least=0.99))) == [["k3"]]
    asyncio.run(cache.close())


def test_a_forgotten_cache_leaves_nothing_open(tmp_path, embedder, entries, monkeypatch):
    from lbgpt_pandas.engine.caches import group_writer

    monkeypatch.setattr(group_writer, "IDLE_S", 0.01)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cache = QdrantSemanticCache(embedder, "questions", path=tmp_path / "folder")
        asyncio.run(cache.add(entries(1)))
        for thread in [cache._additions._thread, cache._exact._thread]:
            if thread is not None:
                thread.join()
        del cache
        gc.collect()
    assert [str(one.message) for one in caught] == []
    again = QdrantSemanticCache(embedder, "questions", path=tmp_path / "folder")
    assert asyncio.run(again.count()) == 1
    asyncio.run(again.close())


async def test_the_client_warns_of_nothing(embedder, entries, tmp_path, stand_in, monkeypatch):
    from qdrant_client.local.local_collection import LocalCollection
    from qdrant_client.local.qdrant_local import QdrantLocal

    for kind in (LocalCollection, QdrantLocal):
        monkeypatch.setattr(kind, "LARGE_DATA_THRESHOLD", 2)
    stand_in.api_key = CANARY
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        for place in ({"path": tmp_path / "folder"}, {"url": stand_in.url, "api_key": CANARY}):
            cache = QdrantSemanticCache(embedder, "questions", **place)
            await cache.add(entries(5))
            await cache.close()
            await cache.add(entries(5, first=5))
            await cache.close()
        assert warnings.filters == filters
    assert [str(one.message) for one in caught] == []


# A server, by a stand-in that is no real Qdrant


async def test_stand_in_requests_carry_key_payload_and_indexes(
    stand_in, embedder, entries, vectors
):
    stand_in.api_key = CANARY
    cache = QdrantSemanticCache(embedder, "questions", url=stand_in.url, api_key=CANARY)
    (entry,) = entries(1)
    await cache.add([entry])
    await cache.search(["s"], vectors(1), at_least=0.9, limit=3)
    await cache.close()
    assert {headers.get("api-key") for _, _, headers, _ in stand_in.seen} == {CANARY}
    bodies = {(method, path.split("?")[0]): body for method, path, _, body in stand_in.seen}
    made = bodies["PUT", "/collections/questions"]
    assert made["vectors"] == {"size": 16, "distance": "Cosine"}
    indexed = [body for method, path, _, body in stand_in.seen if "/index" in path]
    assert indexed == [
        {"field_name": "key", "field_schema": "keyword"},
        {"field_name": "scope", "field_schema": "keyword"},
    ]
    upsert = bodies["PUT", "/collections/questions/points"]
    (point,) = upsert["points"]
    assert point["payload"] == {"key": "k0", "scope": "s", "text": "t0", "envelope": "e0"}
    assert point["vector"] == pytest.approx(entry.vector.tolist())
    assert upsert["update_mode"] == "insert_only"
    assert any("wait=true" in path for method, path, _, _ in stand_in.seen if method == "PUT")
    (query,) = bodies["POST", "/collections/questions/points/query/batch"]["searches"]
    assert query["filter"]["must"] == [{"key": "scope", "match": {"value": "s"}}]
    assert query["limit"] == 3
    assert query["score_threshold"] == pytest.approx(0.9, abs=1e-5)


async def test_stand_in_many_at_once_are_sent_together(stand_in, remote, entries, vectors):
    await remote.add(entries(300))
    stand_in.seen.clear()
    rows = vectors(300)
    stand_in.gate.clear()
    tasks = [
        asyncio.ensure_future(remote.search(["s"], rows[at : at + 1], at_least=0.99))
        for at in range(300)
    ]
    tasks += [asyncio.ensure_future(remote.get_many([f"k{at}"])) for at in range(300)]
    # The server does not answer, and the event loop goes on.
    for _ in range(10):
        await asyncio.sleep(0.005)
    assert not any(task.done() for task in tasks)
    stand_in.gate.set()
    results = await asyncio.gather(*tasks)
    assert [near[0].key for (near,) in results[:300]] == [f"k{at}" for at in range(300)]
    assert results[300:] == [{f"k{at}": f"e{at}"} for at in range(300)]
    assert len(stand_in.seen) <= 12


async def test_stand_in_two_processes_that_make_the_collection_at_once(stand_in, embedder, entries):
    caches = [QdrantSemanticCache(embedder, "questions", url=stand_in.url) for _ in range(4)]
    await asyncio.gather(*(one.add(entries(5, first=5 * at)) for at, one in enumerate(caches)))
    assert {await one.count() for one in caches} == {20}
    for one in caches:
        await one.close()


async def test_stand_in_what_another_stored_meanwhile_stays(stand_in, remote, entries, vectors):
    await remote.add(entries(1))

    def store_first(client):
        (point,) = client.retrieve(
            "questions", [qdrant_collection.point_id("k0")], with_vectors=True
        )
        point.payload["envelope"] = "first"
        point.payload["key"] = "k0"
        stand_in.client.upsert(
            "questions",
            [models.PointStruct(**point.model_dump(include={"id", "payload", "vector"}))],
        )

    store_first(stand_in.client)
    second = SemanticEntry("k0", "s", "t", "second", vectors(1)[0])
    await remote.add([second])
    assert await remote.get_many(["k0"]) == {"k0": "first"}


async def test_stand_in_a_collection_removed_under_the_cache_is_made_again(
    stand_in, remote, entries, vectors
):
    await remote.add(entries(3))
    stand_in.client.delete_collection("questions")
    assert await remote.get_many(["k0"]) == {}
    await remote.add(entries(3))
    stand_in.client.delete_collection("questions")
    assert await remote.search(["s"], vectors(1), at_least=0.9) == [[]]
    await remote.add(entries(3))
    stand_in.client.delete_collection("questions")
    await remote.add(entries(2, first=3))
    assert await remote.count() == 2


async def every_call(cache, entries, vectors):
    """Return the errors of all calls."""

    async def scan():
        return [page async for page in cache.scan()]

    calls = [
        cache.get_many(["k0"]),
        cache.search(["s"], vectors(1), at_least=0.9),
        cache.add(entries(1)),
        cache.delete_many(["k0"]),
        cache.count(),
        scan(),
    ]
    return await asyncio.gather(*calls, return_exceptions=True)


def told(error):
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


async def test_stand_in_a_refused_key_is_a_permission_error_without_the_key(
    stand_in, embedder, entries, vectors
):
    stand_in.api_key = "another-key"
    cache = QdrantSemanticCache(embedder, "questions", url=stand_in.url, api_key=CANARY)
    errors = await every_call(cache, entries, vectors)
    assert {type(error) for error in errors} == {PermissionError}
    for error in errors:
        assert stand_in.url in str(error)
        assert "api_key (HTTP 401)" in str(error)
        assert CANARY not in told(error)
    await cache.close()


async def test_stand_in_a_failing_server_is_an_error_without_the_key(
    stand_in, embedder, entries, vectors
):
    stand_in.api_key = CANARY
    stand_in.failure = (500, {"status": {"error": f"disk full, key was {CANARY}"}})
    cache = QdrantSemanticCache(embedder, "questions", url=stand_in.url, api_key=CANARY)
    errors = await every_call(cache, entries, vectors)
    assert {type(error) for error in errors} == {OSError}
    for error in errors:
        assert "answered HTTP 500" in str(error)
        assert "disk full" in str(error)
        assert CANARY not in told(error)
    # It recovers with the server.
    stand_in.failure = None
    await cache.add(entries(1))
    assert await cache.get_many(["k0"]) == {"k0": "e0"}
    await cache.close()


async def test_stand_in_nobody_listens(stand_in, embedder, entries, vectors):
    url = "http://127.0.0.1:1"
    cache = QdrantSemanticCache(embedder, "questions", url=url, api_key=CANARY)
    errors = await every_call(cache, entries, vectors)
    assert {type(error) for error in errors} == {ConnectionError}
    for error in errors:
        assert f"Qdrant at {url} cannot be reached" in str(error)
        assert CANARY not in told(error)
    await cache.close()


async def test_stand_in_a_server_that_does_not_answer_in_time(stand_in, embedder):
    stand_in.gate.clear()
    cache = QdrantSemanticCache(embedder, "questions", url=stand_in.url, timeout_s=0.05)
    with pytest.raises(TimeoutError, match=r"did not answer within 1 s"):
        await cache.count()
    await cache.close()
