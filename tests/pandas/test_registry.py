"""`lb.runs()`: every run has a line, and none fails for it."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shutil
import sqlite3
import stat
import time

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

import lbgpt_pandas as lb
from lbgpt_pandas.engine import DiskCache
from lbgpt_pandas.engine.transports import local
from lbgpt_pandas.registry import registry
from lbgpt_pandas.run_file import Keys
from lbgpt_pandas.testing import FakeProvider, ScriptedGPT

CITIES = pd.DataFrame({"city": ["Paris", "Rome", None, "Paris"]})


def complete(template="Where is {city}?", frame=CITIES, engine=None, **keywords):
    engine = engine or ScriptedGPT("x")
    return frame.lbgpt.complete(template, engine=engine, progress="none", **keywords)


def test_nothing_ran_yet():
    found = lb.runs()
    assert found.empty
    complete()
    assert found.dtypes.equals(lb.runs().dtypes)


def test_a_run_has_a_line():
    complete(system="Be brief.", max_tokens=5)
    line = lb.runs().iloc[0]
    report = lb.last_run()
    assert line["id"] == report.id
    assert line["status"] == "done"
    assert line[["template", "system"]].tolist() == ["Where is {city}?", "Be brief."]
    assert line["template_sha256"] == report.manifest["template_sha256"]
    assert line["params"] == {"max_tokens": 5}
    assert line["columns"] == ["city"]
    assert line[["model", "engine", "cache_mode"]].tolist() == ["scripted", "ScriptedGPT", "use"]
    counts = ["rows", "done", "failed", "skipped", "cached", "semantic", "shared", "calls"]
    assert line[counts].tolist() == [4, 3, 0, 1, 0, 0, 1, 2]
    assert line["prompt_tokens"] > 0
    assert pd.isna(line["cost_usd"])  # the price of a scripted model is unknown
    assert line["versions"]["pandas"] == pd.__version__
    assert line["started"] <= pd.Timestamp.now(tz="UTC")


def test_the_newest_comes_first_and_ids_sort_by_time():
    for number in range(5):
        complete(f"{number} {{city}}")
        time.sleep(0.002)
    found = lb.runs()
    assert found["template"].str[0].tolist() == list("43210")
    assert found["id"].is_monotonic_decreasing
    assert found["id"].str.len().eq(13).all()


def test_every_way_to_end_is_told():
    complete()
    with pytest.warns(lb.RowErrorsWarning):
        complete("a {city}", engine=ScriptedGPT(lb.ContextTooLong("too long")))
    with pytest.raises(lb.RowErrors):
        complete("b {city}", engine=ScriptedGPT(lb.ContextTooLong("too long")), errors="raise")
    with pytest.raises(lb.AuthError):
        complete("c {city}", engine=ScriptedGPT(lb.AuthError("no", status=401)))
    with pytest.raises(lb.CacheMiss):
        complete("d {city}", cache_mode="replay")

    async def interrupted():
        engine = ScriptedGPT("x", latency_s=30)
        run = asyncio.ensure_future(CITIES.lbgpt.acomplete("e {city}", engine=engine))
        while not engine.requests:
            await asyncio.sleep(0.001)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(interrupted())
    assert lb.runs()["status"].tolist()[::-1] == [
        "done", "failed", "failed", "aborted", "aborted", "interrupted"
    ]  # fmt: skip


def test_a_run_without_its_model_is_registered(monkeypatch):
    monkeypatch.setattr(local, "WEIGHTS_PACKAGE", "no_such_package")
    with pytest.raises(lb.MissingExtraError):
        complete(engine=lb.LocalGPT())
    assert lb.runs()["status"].tolist() == ["aborted"]


def test_retries_and_replays_are_runs_of_their_own(tmp_path):
    with pytest.warns(lb.RowErrorsWarning):
        complete(engine=ScriptedGPT([lb.ContextTooLong("no"), "x", "y"]))
    lb.last_run().retry_failed()
    assert len(set(registry().keys(lb.last_run().id)) - {None}) == 2
    path = lb.last_run().export(tmp_path / "x.zip")
    with lb.replay(path):
        CITIES.lbgpt.complete("Where is {city}?")
        assert len(lb.runs()) == 3
    assert lb.runs()["cache_mode"].tolist() == ["replay", "use", "use"]
    assert lb.runs()["id"].nunique() == 3


def test_keys_come_back_in_row_order():
    for frame in (CITIES, CITIES.dropna().drop_duplicates()):
        complete(frame=frame)
        about = lb.last_run().manifest
        assert registry().keys(lb.last_run().id) == about["keys"]
    with pytest.raises(lb.ConfigurationError, match="no run 'none'"):
        registry().keys("none")


def test_rows_that_cannot_be_sent_have_no_key():
    frame = pd.DataFrame({"city": ["a", "\ud800", b"x", None]})
    with pytest.warns(lb.RowErrorsWarning):
        complete(frame=frame)
    keys = registry().keys(lb.last_run().id)
    assert keys[0] is not None
    assert keys[1:] == [None] * 3


def test_the_same_column_is_stored_once():
    for _ in range(3):
        complete()
    complete("other {city}")
    digests = {json.dumps(registry().keys(name)) for name in lb.runs()["id"]}
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        (lambda row: f"Is {row['city']} a city?", "lambda row"),
        ([{"role": "user", "content": "{city}"}], '[{"role": "user", "content": "{city}"}]'),
        (lb.col("city"), "<col 'city'>"),
        ("key sk-canary-0123456789 {city}", "key *** {city}"),
    ],
)
def test_templates_of_every_kind_are_told(template, shown):
    complete(template)
    assert shown in lb.runs().loc[0, "template"]


def test_templates_that_sqlite_would_not_take():
    complete("half a character \ud800 {city}", errors="ignore", frame=CITIES.iloc[:0])
    assert len(lb.runs()) == 1


def test_it_lies_beside_the_cache(tmp_path):
    with lb.using(cache=tmp_path / "one"):
        complete()
        assert len(lb.runs()) == 1
        file = tmp_path / "one" / "runs.db"
        assert file.exists()
        if os.name == "posix":
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with lb.using(cache={}):
        complete()  # in the default directory
        assert len(lb.runs()) == 1
    assert len(lb.runs()) == 1


def test_a_cache_that_is_only_read_gets_no_registry(tmp_path):
    with lb.using(cache=tmp_path / "one"):
        complete()
        (tmp_path / "one" / "runs.db").unlink()
    with lb.using(cache=DiskCache(tmp_path / "one", read_only=True)):
        complete()
        assert lb.runs().empty
    assert not (tmp_path / "one" / "runs.db").exists()


def test_a_directory_that_cannot_be_used_costs_one_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("LBGPT_CACHE_DIR", str(tmp_path / "file"))
    with lb.using(cache={}):
        with pytest.warns(lb.CacheWarning, match="runs are not registered") as warned:
            assert complete().tolist()[0] == "x"
        assert len(warned) == 1
        complete("again {city}")
        (tmp_path / "file").unlink()
        complete("well {city}")
        assert len(lb.runs()) == 1
        registry()._holder.close()
        shutil.rmtree(tmp_path / "file")
        (tmp_path / "file").write_text("no directory again")
        with pytest.warns(lb.CacheWarning, match="runs are not registered"):
            complete("once more {city}")


def test_a_damaged_registry_is_moved_aside(tmp_path):
    with lb.using(cache=tmp_path / "one"):
        complete()
        registry()._holder.close()
        file = tmp_path / "one" / "runs.db"
        file.write_bytes(b"no database at all" * 200)
        with pytest.warns(lb.CacheWarning, match=r"runs\.db\.corrupt-"):
            complete("other {city}")
        assert lb.runs()["template"].tolist() == ["other {city}"]


def _run_some(path, word):
    with lb.using(cache=path):
        for number in range(5):
            complete(f"{word} {number} {{city}}")


@pytest.mark.parametrize("content", ["nothing", "other tables"])
def test_a_file_without_tables_holds_no_runs(tmp_path, content):
    (tmp_path / "one").mkdir(mode=0o700)
    file = tmp_path / "one" / "runs.db"
    file.touch()
    if content == "other tables":
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE keys (a)")
        connection.close()
    with lb.using(cache=DiskCache(tmp_path / "one", read_only=True)):
        assert lb.runs().empty
        with pytest.raises(lb.ConfigurationError, match="no run"):
            registry().keys("abc")
        registry()._holder.close()


def test_runs_that_cannot_be_read_say_why(tmp_path):
    with lb.using(cache=tmp_path / "one"):
        complete()
        registry()._holder.close()
    (tmp_path / "one" / "runs.db").write_bytes(b"\x17" * 5_000)
    with (
        lb.using(cache=DiskCache(tmp_path / "one", read_only=True)),
        pytest.raises(lb.ConfigurationError, match=r"runs\.db cannot be read: DatabaseError"),
    ):
        lb.runs()


def test_a_damaged_registry_is_told_once_by_runs(tmp_path):
    with lb.using(cache=tmp_path / "one"):
        complete()
        registry()._holder.close()
        file = tmp_path / "one" / "runs.db"
        file.write_bytes(b"\x17" * 5_000)
        with pytest.warns(lb.CacheWarning, match="damaged") as told:
            assert lb.runs().empty
        assert len(told) == 1
        assert told[0].filename == __file__
        assert lb.runs().empty


@pytest.mark.parametrize("mode", ["read_only", "replay"])
def test_a_run_that_only_reads_mends_no_registry(tmp_path, mode):
    with lb.using(cache=tmp_path / "one"):
        complete()
        registry()._holder.close()
        file = tmp_path / "one" / "runs.db"
        kept, damaged = file.read_bytes(), b"\x17" * 5_000
        file.write_bytes(damaged)
        with pytest.warns(lb.CacheWarning, match="not registered"):
            complete(cache_mode=mode)
        assert file.read_bytes() == damaged
        file.unlink()
        complete(cache_mode=mode)
        assert not file.exists()
        file.write_bytes(kept)
        complete(cache_mode=mode)
        assert lb.runs()["cache_mode"].tolist() == [mode, "use"]


def test_two_processes_register_in_one_file(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_run_some, args=(str(tmp_path / "one"), word)) for word in "ab"
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    with lb.using(cache=tmp_path / "one"):
        assert len(lb.runs()) == 10


def test_deployments_are_told():
    with FakeProvider() as server:
        engine = lb.MultiLoadBalancedGPT(
            [lb.ChatGPT(f"sk-{n}", base_url=server.base_url, name=n) for n in ("east", "west")],
            "round_robin",
            name="both",
        )
        complete(engine=engine, model="gpt-4o-mini")
    line = lb.runs().iloc[0]
    assert line["engine"] == "both"
    assert line["deployments"] == {"east": 1, "west": 1}
    assert line["cost_usd"] > 0


def test_packing_a_long_column_takes_milliseconds():
    keys = [f"v1:{number:064x}" for number in range(1, 100_001)]
    codes = np.arange(100_000)
    best = min(_seconds(lambda: Keys.of(keys, codes).sha256) for _ in range(3))
    assert Keys.of(keys, codes).in_order() == keys
    assert best < 0.2  # 15 ms where nothing else runs


def _seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def test_tools_of_an_engine_leave_no_key_and_cost_no_column(tmp_path):
    class Weather(BaseModel):
        city: str

    tools = [
        {
            "type": "mcp",
            "headers": {"Authorization": "Bearer sk-CANARY0123456789abcdef"},
            "aws_secret_access_key": "CANARY-secret",
            "schema": Weather,
        }
    ]
    engine = ScriptedGPT("fine", tools=tools)
    with lb.using(cache=tmp_path / "cache"):
        cities = pd.Series(["Paris"])
        assert cities.lbgpt.complete("{}", engine=engine, key_ignored="x").tolist() == ["fine"]
        assert "CANARY" not in json.dumps(lb.last_run().manifest)
    for file in (tmp_path / "cache").iterdir():
        assert b"CANARY" not in file.read_bytes()


async def test_awaiting_a_run_does_not_wait_for_the_file_of_runs_on_the_callers_loop(tmp_path):
    with lb.using(cache=tmp_path / "cache"):
        cities = pd.Series(["Paris"])
        await cities.lbgpt.acomplete("{}", engine=ScriptedGPT("first"))
        lock = sqlite3.connect(tmp_path / "cache" / "runs.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        run = asyncio.create_task(cities.lbgpt.acomplete("{}!", engine=ScriptedGPT("second")))
        ticks = 0
        while ticks < 20 or lb.last_run().result.tolist() != ["second"]:
            await asyncio.sleep(0.005)
            ticks += 1
        assert not run.done()
        lock.execute("COMMIT")
        lock.close()
        assert (await run).tolist() == ["second"]
