"""What arrives while a commit runs is committed together, and everybody hears of it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from lbgpt_pandas.engine.caches import group_writer
from lbgpt_pandas.engine.caches.group_writer import GroupWriter


class Ledger:
    """Records groups; the commit of an item in `hold` waits, one of an item in `bad` fails."""

    def __init__(self):
        self.groups, self.hold, self.bad = [], set(), set()
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.threads = set()

    @property
    def items(self):
        return [item for group in self.groups for item in group]

    def commit(self, items):
        self.threads.add(threading.current_thread())
        if self.hold & set(items):
            self.begun.set()
            assert self.go_on.wait(5)
        if self.bad & set(items):
            raise OSError(f"bad: {items}")
        self.groups.append(items)


@pytest.fixture
def ledger():
    return Ledger()


async def begun(ledger):
    while not ledger.begun.is_set():
        await asyncio.sleep(0.001)


async def test_what_waits_is_committed_together_and_in_order(ledger):
    writer = GroupWriter(ledger.commit, name="test")
    ledger.hold = {"first"}
    first = asyncio.create_task(writer.put("first"))
    await begun(ledger)
    rest = [asyncio.create_task(writer.put(number)) for number in range(100)]
    await asyncio.sleep(0)
    assert not first.done()
    ledger.go_on.set()
    await asyncio.gather(first, *rest)
    assert ledger.groups == [["first"], list(range(100))]
    assert threading.current_thread() not in ledger.threads
    assert len(ledger.threads) == 1


async def test_a_failure_is_told_to_its_group_alone(ledger):
    writer = GroupWriter(ledger.commit, name="test")
    ledger.hold, ledger.bad = {"first"}, {3}
    first = asyncio.create_task(writer.put("first"))
    await begun(ledger)
    rest = [asyncio.create_task(writer.put(number)) for number in range(5)]
    await asyncio.sleep(0)
    ledger.go_on.set()
    await first
    results = await asyncio.gather(*rest, return_exceptions=True)
    assert {type(result) for result in results} == {OSError}
    await writer.put("next")
    assert ledger.groups == [["first"], ["next"]]


async def test_who_stops_waiting_does_not_stop_the_commit(ledger):
    writer = GroupWriter(ledger.commit, name="test")
    ledger.hold = {"a"}
    tasks = [asyncio.create_task(writer.put(item)) for item in "ab"]
    await begun(ledger)
    tasks[0].cancel()
    ledger.go_on.set()
    await tasks[1]
    assert ledger.items == ["a", "b"]


def test_a_loop_that_is_closed_meanwhile_hurts_nobody(ledger):
    writer = GroupWriter(ledger.commit, name="test")
    ledger.hold = {"a"}

    async def begin():
        task = asyncio.create_task(writer.put("a"))
        await begun(ledger)
        task.cancel()

    asyncio.run(begin())
    ledger.go_on.set()
    asyncio.run(writer.put("b"))
    assert ledger.groups == [["a"], ["b"]]


def test_flushing_waits_for_all_that_was_put(ledger):
    writer = GroupWriter(ledger.commit, name="test")
    writer.flush()
    ledger.hold = {"a"}

    async def begin():
        task = asyncio.create_task(writer.put("a"))
        await begun(ledger)
        task.cancel()

    asyncio.run(begin())
    threading.Timer(0.02, ledger.go_on.set).start()
    writer.flush()
    assert ledger.groups == [["a"]]


def test_several_loops_at_the_same_time(ledger):
    writer = GroupWriter(ledger.commit, name="test")

    async def work(name):
        for number in range(100):
            await writer.put((name, number))

    threads = [threading.Thread(target=asyncio.run, args=(work(name),)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = ledger.items
    assert sorted(written) == [(name, number) for name in "abcd" for number in range(100)]
    for name in "abcd":
        assert [number for owner, number in written if owner == name] == list(range(100))


async def test_the_thread_ends_when_there_is_nothing_to_do_and_comes_back(ledger, monkeypatch):
    monkeypatch.setattr(group_writer, "IDLE_S", 0.01)
    writer = GroupWriter(ledger.commit, name="test")
    for item in "ab":
        await writer.put(item)
        while any(thread.is_alive() for thread in ledger.threads):
            await asyncio.sleep(0.005)
    assert len(ledger.threads) == 2


async def test_without_threads_the_item_is_written_all_the_same(ledger, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    writer = GroupWriter(ledger.commit, name="test")
    await writer.put("a")
    writer.flush()
    assert ledger.groups == [["a"]]


class Told:
    def __init__(self):
        self.ends, self.came = [], threading.Event()

    def __call__(self, items, error):
        self.ends.append((items, error))
        self.came.set()


def test_what_nobody_waits_for_gathers_and_is_told_together(ledger, monkeypatch):
    monkeypatch.setattr(group_writer, "GATHERING_S", 5.0)
    writer, told = GroupWriter(ledger.commit, name="test"), Told()
    for number in range(10):
        assert writer.put_soon(number, told)
    writer.flush()
    assert ledger.groups == [list(range(10))]
    assert told.ends == [(list(range(10)), None)]


def test_a_full_group_is_written_at_once_and_more_is_not_taken(ledger, monkeypatch):
    monkeypatch.setattr(group_writer, "GATHERING_S", 5.0)
    monkeypatch.setattr(group_writer, "MOST_IN_A_GROUP", 3)
    writer, told = GroupWriter(ledger.commit, name="test"), Told()
    ledger.hold = {0}
    assert all(writer.put_soon(number, told) for number in range(3))
    assert ledger.begun.wait(2)
    assert all(writer.put_soon(number, told) for number in range(3, 6))
    assert not writer.put_soon(6, told)
    ledger.go_on.set()
    writer.flush()
    assert ledger.items == list(range(6))


async def test_who_waits_does_not_wait_for_others_to_gather(ledger, monkeypatch):
    monkeypatch.setattr(group_writer, "GATHERING_S", 5.0)
    writer, told = GroupWriter(ledger.commit, name="test"), Told()
    assert writer.put_soon("soon", told)
    await asyncio.wait_for(writer.put("now"), 2)
    assert ledger.items == ["soon", "now"]


def test_a_failure_of_what_nobody_waits_for_is_told(ledger):
    writer, told = GroupWriter(ledger.commit, name="test"), Told()
    ledger.bad = {"x"}
    assert writer.put_soon("x", told)
    assert told.came.wait(2)
    ((items, error),) = told.ends
    assert items == ["x"]
    assert isinstance(error, OSError)


async def test_who_fails_to_listen_stops_nobody_elses_write(ledger, monkeypatch):
    failures = []
    monkeypatch.setattr(threading, "excepthook", failures.append)

    def listen(items, error):
        raise MemoryError("no place for what was told")

    writer = GroupWriter(ledger.commit, name="test")
    assert writer.put_soon("x", listen)
    await asyncio.wait_for(writer.put("y"), 2)
    await asyncio.wait_for(asyncio.to_thread(writer.flush), 2)
    assert ledger.items == ["x", "y"]
    assert [failure.exc_type for failure in failures] == [MemoryError]
