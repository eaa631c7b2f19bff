"""What FAISS and Qdrant stores promise alike."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.semantic.base import SemanticCache, SemanticEntry

HERE = ["faiss", "qdrant folder", "qdrant memory"]
KINDS = [*HERE, "qdrant by a stand-in server"]


@pytest.fixture(params=KINDS)
def store(request, tmp_path, embedder):
    """A store that is closed in the end."""
    if request.param == "faiss":
        pytest.importorskip("faiss")
        from lbgpt_pandas.engine.semantic.faiss import FaissSemanticCache

        store = FaissSemanticCache(embedder, tmp_path / "store")
    else:
        pytest.importorskip("qdrant_client")
        from lbgpt_pandas.engine.semantic.qdrant import QdrantSemanticCache

        place = {
            "qdrant folder": lambda: {"path": tmp_path / "store"},
            "qdrant memory": lambda: {"host": ":memory:"},
            "qdrant by a stand-in server": lambda: {"url": request.getfixturevalue("stand_in").url},
        }[request.param]()
        store = QdrantSemanticCache(embedder, "questions", **place)
    yield store
    asyncio.run(store.close())


def keys(lists):
    return [[one.key for one in near] for near in lists]


def test_it_is_a_semantic_cache(store, embedder):
    assert store.embedder is embedder
    assert store.threshold == 0.985
    assert isinstance(store, SemanticCache)


async def test_an_empty_store_finds_nothing(store, vectors):
    assert await store.get_many(["k0"]) == {}
    assert await store.search(["s", "s"], vectors(2), at_least=-1.0) == [[], []]
    assert await store.search([], vectors(0), at_least=-1.0) == []
    with pytest.raises(ValueError, match="2 scopes"):
        await store.search(["s", "s"], vectors(1), at_least=-1.0)
    assert await store.count() == 0
    assert await store.delete_many(["k0"]) == 0
    assert [page async for page in store.scan()] == []
    await store.add([])
    assert await store.count() == 0


async def test_neighbours_come_nearest_first_with_their_similarity(store, entries, vectors):
    await store.add(entries(50))
    rows = vectors(50)
    (near,) = await store.search(["s"], rows[:1] * 0.5, at_least=-1.0, limit=5)
    expected = sorted(range(50), key=lambda at: -float(rows[0] @ rows[at]))[:5]
    assert [one.key for one in near] == [f"k{at}" for at in expected] or near[0].similarity < 1
    (near,) = await store.search(["s"], rows[:1], at_least=-1.0, limit=5)
    assert [one.key for one in near] == [f"k{at}" for at in expected]
    assert [one.similarity for one in near] == pytest.approx(
        [float(rows[0] @ rows[at]) for at in expected], abs=1e-5
    )
    assert (near[0].text, near[0].envelope, near[0].similarity) == ("t0", "e0", 1.0)


async def test_only_what_is_near_enough_is_found(store, entries, vectors):
    await store.add(entries(50))
    rows = vectors(50)
    similarities = sorted((float(rows[3] @ row) for row in rows), reverse=True)
    between = (similarities[1] + similarities[2]) / 2
    (near,) = await store.search(["s"], rows[3:4], at_least=between)
    assert len(near) == 2
    # In float32 a vector's similarity to itself is not always 1.
    itself = await store.search(["s"] * 50, rows, at_least=1.0)
    assert keys(itself) == [[f"k{at}"] for at in range(50)]


async def test_nothing_is_found_outside_the_scope(store, entries, vectors):
    await store.add(entries(20, scope="one"))
    others = [SemanticEntry(f"x{at}", "two", "t", "e", row) for at, row in enumerate(vectors(20))]
    await store.add(others)
    found = await store.search(["one", "two", "three"], vectors(3), at_least=0.999)
    assert keys(found) == [["k0"], ["x1"], []]


async def test_more_of_another_scope_do_not_hide_those_of_this_one(store, entries, vectors):
    (row,) = vectors(1)
    crowd = [SemanticEntry(f"x{at}", "other", "t", "e", row) for at in range(300)]
    await store.add(crowd + entries(1))
    assert keys(await store.search(["s"], vectors(1), at_least=0.9)) == [["k0"]]
    (near,) = await store.search(["other"], vectors(1), at_least=0.9, limit=3)
    assert len(near) == 3


async def test_entries_are_found_by_key_without_a_vector(store, entries):
    await store.add(entries(10))
    assert await store.get_many(["k3", "k9", "k10"]) == {"k3": "e3", "k9": "e9"}
    many = await asyncio.gather(*(store.get_many([f"k{at}", "none"]) for at in range(10)))
    assert many == [{f"k{at}": f"e{at}"} for at in range(10)]


async def test_the_first_answer_under_a_key_stays(store, entries, vectors):
    (first,) = entries(1)
    second = SemanticEntry(first.key, "s", "other", "other", vectors(2)[1])
    await store.add([first, second])
    await store.add([second])
    assert await store.get_many(["k0"]) == {"k0": "e0"}
    assert await store.count() == 1
    assert keys(await store.search(["s"], vectors(1), at_least=0.999)) == [["k0"]]


async def test_what_is_removed_is_not_found(store, entries, vectors):
    await store.add(entries(20))
    assert len((await store.search(["s"], vectors(1), at_least=-1.0, limit=20))[0]) == 20
    assert await store.delete_many(["k0", "k1", "none"]) == 2
    assert await store.delete_many([]) == 0
    assert await store.get_many(["k0", "k2"]) == {"k2": "e2"}
    assert await store.count() == 18
    (near,) = await store.search(["s"], vectors(1), at_least=-1.0, limit=20)
    assert len(near) == 18
    assert not {"k0", "k1"} & {one.key for one in near}
    await store.add(entries(1))
    assert keys(await store.search(["s"], vectors(1), at_least=0.999)) == [["k0"]]


async def test_all_entries_are_scanned(store, entries):
    await store.add(entries(2_500, dimension=4))
    pages = [page async for page in store.scan()]
    assert len(pages) > 1
    assert sorted(one for page in pages for one in page) == sorted(
        (f"k{at}", f"t{at}", f"e{at}") for at in range(2_500)
    )


async def test_texts_come_back_as_they_were(store, vectors):
    texts = [
        "",
        "\x00",
        "e\u0301 \u00e9",
        "🏳️‍🌈",
        "\u202eabc",
        "'); DROP TABLE entries;",
        "x" * 2**20,
    ]
    rows = vectors(len(texts))
    await store.add(
        [
            SemanticEntry(f"k{at}", text, text, text, row)
            for at, (text, row) in enumerate(zip(texts, rows, strict=True))
        ]
    )
    wanted = {f"k{at}": text for at, text in enumerate(texts)}
    assert await store.get_many(list(wanted)) == wanted
    found = await store.search(texts, rows, at_least=0.999)
    assert [near[0].text for near in found] == texts


async def test_another_dimension_is_refused_with_what_to_do(store, entries, vectors):
    await store.add(entries(3))
    with pytest.raises(
        ConfigurationError, match=r"given vectors.* 8 dimensions.* 16\. Give the embedder"
    ):
        await store.search(["s"], vectors(1, 8), at_least=0.9)
    wrong = [SemanticEntry("wrong", "s", "t", "e", vectors(1, 8)[0])]
    outcomes = await asyncio.gather(
        store.add(wrong), store.add(entries(1, first=3)), store.search(["s"], vectors(1), at_least=0.9),
        return_exceptions=True,
    )  # fmt: skip
    assert [type(outcome) for outcome in outcomes] == [ConfigurationError, type(None), list]
    assert await store.get_many(["wrong", "k3"]) == {"k3": "e3"}


async def test_what_cannot_be_stored_is_refused_alone(store, entries, vectors):
    (row,) = vectors(1)
    bad = [
        SemanticEntry("a", "s", "\ud800", "e", row),
        SemanticEntry("a", "s", "t", b"e", row),
        SemanticEntry("a", "s", "t", "e", row * float("nan")),
        SemanticEntry("a", "s", "t", "e", row.reshape(4, 4)),
        SemanticEntry("a", "s", "t", "e", row[:0]),
    ]
    outcomes = await asyncio.gather(
        store.add(entries(1)), *(store.add([one]) for one in bad), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [
        type(None), UnicodeEncodeError, TypeError, ValueError, ValueError, ValueError,
    ]  # fmt: skip
    assert await store.get_many(["a", "k0"]) == {"k0": "e0"}


async def test_a_search_that_nobody_waits_for_any_more_hurts_nobody(store, entries, vectors):
    await store.add(entries(20))
    tasks = [asyncio.ensure_future(store.search(["s"], vectors(1), at_least=0.9)) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert [keys(outcome) for outcome in outcomes[1:]] == [[["k0"]]] * 4


async def test_each_of_many_at_once_gets_its_own(store, entries, vectors):
    all_of_them = entries(200)
    await asyncio.gather(*(store.add([one]) for one in all_of_them))
    rows = vectors(200)
    found = await asyncio.gather(
        *(store.search(["s"], rows[at : at + 1], at_least=0.999) for at in range(200))
    )
    assert [keys(one) for one in found] == [[[f"k{at}"]] for at in range(200)]
    limits = await asyncio.gather(
        *(store.search(["s"], rows[:1], at_least=-1.0, limit=limit) for limit in (1, 5, 3))
    )
    assert [len(near) for ((near),) in limits] == [1, 5, 3]


def test_over_several_loops_and_threads(store, entries, vectors):
    rows = vectors(80)

    async def work(first):
        await store.add(entries(10, first=first))
        await asyncio.gather(
            *(store.search(["s"] * 10, rows[first : first + 10], at_least=0.999) for _ in range(3))
        )
        assert len(await store.get_many([f"k{first}"])) == 1

    threads = [threading.Thread(target=asyncio.run, args=(work(at * 10),)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(3):
        assert asyncio.run(store.count()) == 80
    found = asyncio.run(store.search(["s"] * 80, rows, at_least=0.999))
    assert keys(found) == [[f"k{at}"] for at in range(80)]


async def test_closing_is_no_end(store, entries, vectors):
    await store.close()
    await store.add(entries(20))
    before = await store.search(["s"] * 3, vectors(3), at_least=-1.0)
    await store.close()
    await store.close()
    assert await store.search(["s"] * 3, vectors(3), at_least=-1.0) == before
    assert await store.get_many(["k5"]) == {"k5": "e5"}


async def largest_gap(work):
    """Return the longest time for which the event loop did not come round during `work`."""
    gaps, last = [0.0], time.perf_counter()
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.sleep(0.005)
        now = time.perf_counter()
        gaps.append(now - last)
        last = now
    await task
    return max(gaps)


@pytest.mark.parametrize("store", HERE, indirect=True)
async def test_the_event_loop_goes_on_during_searches_and_additions(store, entries, vectors):
    everything = entries(3_000, dimension=128)
    rows = vectors(2_000, 128)
    # Whatever is loaded is loaded at the first use.
    await store.add(everything[:2_000])
    await store.search(["s"], rows[:1], at_least=0.985)

    async def busy():
        for start in range(0, 1_000, 50):
            await asyncio.gather(
                *(store.search(["s"] * 10, rows[at : at + 10], at_least=0.985) for at in range(start, start + 50, 10)),
                *(store.search(["s"], rows[at : at + 1], at_least=0.985) for at in range(start, start + 50)),
                store.add(everything[2_000 + start : 2_050 + start]),
                store.get_many([one.key for one in everything[start : start + 50]]),
            )  # fmt: skip

    async def idle():
        await asyncio.to_thread(time.sleep, 0.05)

    # The machine may be busy with other things, so that one quiet run in three is enough.
    for _ in range(3):
        nothing = await largest_gap(idle())
        gap = await largest_gap(busy())
        if gap < 0.05 + nothing:
            break
    assert gap < 0.05 + nothing
