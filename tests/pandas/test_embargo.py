"""While an archive is replayed nobody asks, by whatever way."""

from __future__ import annotations

import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.engine.embargo import check_embargo
from lbgpt_pandas.testing import ScriptedGPT

WORDS = pd.Series(["a", "b"])
ASK = {"messages": [{"role": "user", "content": "hi"}], "model": "m"}


@pytest.fixture
def engine():
    return ScriptedGPT("said", max_parallel_calls=4)


@pytest.fixture
def archive(engine, tmp_path):
    with lb.using(engine=engine, cache=tmp_path / "cache", progress="none"):
        WORDS.lbgpt.complete("{}")
        path = lb.last_run().export(tmp_path / "study.lbgpt.zip")
        engine.requests.clear()
        yield path
        assert engine.requests == []


def in_thread(work):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_another_thread_cannot_begin_to_ask(archive, engine):
    def work():
        # The thread has the caller's engine, and no replay.
        return WORDS.lbgpt.complete("{} new", engine=engine, cache_mode="off")

    with lb.replay(archive), pytest.raises(lb.ConfigurationError, match="copy_context") as caught:
        in_thread(work)
    assert "study.lbgpt.zip" in str(caught.value)
    check_embargo("this")


def test_a_thread_that_takes_the_context_along_replays(archive):
    with lb.replay(archive):
        context = contextvars.copy_context()
        column = in_thread(lambda: context.run(WORDS.lbgpt.complete, "{}"))
    assert column.tolist() == ["said", "said"]


def test_retry_failed_of_a_live_run_is_refused(archive, engine):
    WORDS.lbgpt.complete("{}")
    report = lb.last_run()
    with lb.replay(archive), pytest.raises(lb.CacheMiss, match="this complete would ask"):
        report.retry_failed()
    assert report.retry_failed().tolist() == ["said", "said"]


def test_retry_failed_of_a_replayed_run_replays(archive):
    with lb.replay(archive):
        WORDS.lbgpt.complete("{}")
        assert lb.last_run().retry_failed().tolist() == ["said", "said"]


@pytest.mark.parametrize(
    "call",
    [
        lambda engine: engine.chat_completion(**ASK),
        lambda engine: engine.cached_chat_completion(ASK),
        lambda engine: engine.achat_completion_list([ASK], show_progress=False),
        lambda engine: engine.embedding("e", input="hi"),
        lambda engine: engine.cached_embedding("e", input="hi"),
    ],
)
async def test_an_engines_own_methods_are_refused(archive, engine, call):
    with lb.replay(archive), pytest.raises(lb.CacheMiss, match="asks nobody"):
        await call(engine)


async def test_streams_and_lists_are_refused(archive, engine):
    with lb.replay(archive):
        with pytest.raises(lb.CacheMiss, match="asks nobody"):
            engine.chat_completion_list([ASK], show_progress=False)
        async with aclosing(engine.streamed_chat_completion(**ASK)) as chunks:
            with pytest.raises(lb.CacheMiss, match="asks nobody"):
                await anext(chunks)


async def test_a_call_is_refused_wherever_it_was_prepared(archive, engine):
    prepared = engine._batch([ASK])
    async with engine:
        with lb.replay(archive), pytest.raises(lb.CacheMiss, match="this request would ask"):
            await prepared.arun()


def test_the_real_cache_is_not_changed(archive):
    with lb.replay(archive):
        for change in (
            lb.cache.clear,
            lambda: lb.cache.forget([True, True]),
            lambda: lb.cache.load(archive),
            lambda: lb.load_run(archive),
            lambda: in_thread(lb.cache.clear),
            lambda: in_thread(lambda: lb.load_run(archive)),
        ):
            with pytest.raises(lb.ConfigurationError, match=r"lb\.replay uses no cache"):
                change()
        assert lb.load_run(archive, into={}).added == 2
    assert lb.cache.info().entries == 2


def test_a_run_that_began_before_goes_on(archive, tmp_path):
    begun, go_on = threading.Event(), threading.Event()

    def reply(_):
        begun.set()
        assert go_on.wait(5)
        return "live"

    with lb.using(engine=ScriptedGPT(reply, max_parallel_calls=1), cache=tmp_path / "other"):
        run = pd.Series(["x", "y", "z"]).lbgpt.submit("{}")
        assert begun.wait(5)
        with lb.replay(archive):
            go_on.set()
            assert run.result(timeout=10).tolist() == ["live"] * 3
