"""``lb.cache``: what is stored is counted, removed, forgotten row by row, moved elsewhere."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import pickle
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.answers import AnswerCache
from lbgpt_pandas.engine.archive import open_archive
from lbgpt_pandas.engine.caches.database import DATABASE
from lbgpt_pandas.engine.caches.disk import DiskCache
from lbgpt_pandas.engine.caches.envelope import seal
from lbgpt_pandas.engine.semantic.base import Neighbour, SemanticEntry
from lbgpt_pandas.settings import default_semantic
from lbgpt_pandas.testing import ScriptedGPT

CACHE = lb.cache
CITIES = pd.DataFrame({"city": ["Paris", "Rome", "Oslo", "Paris", None]}, index=list("abcde"))
JANUARY = datetime(2026, 1, 1, 12, tzinfo=UTC)


def upper(**settings):
    return ScriptedGPT(lambda r: r.messages[-1]["content"].upper(), **settings)


def asked(engine):
    return sorted(request.messages[-1]["content"] for request in engine.requests)


def ask(frame=CITIES, **keywords):
    """Run, and return the prompts that were sent."""
    engine = upper()
    frame.lbgpt.complete("{city}", engine=engine, progress="none", **keywords)
    return asked(engine)


def key_of(number):
    return f"v1:{number:064x}"


def sealed(number, *, created=JANUARY, model="m"):
    payload = {"choices": [{"message": {"content": f"answer {number}"}}]}
    return seal(key_of(number), family="f", model=model, payload=payload, created=created)


class Letters:
    """An embedder: texts of the same letters are near to each other."""

    name = "letters"

    async def embed(self, texts, *, engine):
        rows = np.zeros((len(texts), 128), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for letter in text:
                row[ord(letter) % 128] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class NearStore:
    """A semantic cache in a dict."""

    location = "a dict"
    threshold = 0.985

    def __init__(self):
        self.embedder = Letters()
        self.entries = {}

    async def get_many(self, keys):
        return {key: self.entries[key].envelope for key in keys if key in self.entries}

    async def search(self, scopes, vectors, *, at_least, limit=8):
        def near(scope, vector):
            found = [
                Neighbour(entry.key, entry.text, entry.envelope, float(entry.vector @ vector))
                for entry in self.entries.values()
                if entry.scope == scope
            ]
            return [each for each in found if each.similarity >= at_least][:limit]

        return [near(*pair) for pair in zip(scopes, vectors, strict=True)]

    async def add(self, entries):
        for entry in entries:
            self.entries.setdefault(entry.key, entry)

    async def delete_many(self, keys):
        return sum(self.entries.pop(key, None) is not None for key in keys)

    async def scan(self):
        yield [(entry.key, entry.text, entry.envelope) for entry in self.entries.values()]

    async def count(self):
        return len(self.entries)

    async def close(self):
        pass


@pytest.fixture
def near():
    """A semantic cache in force."""
    store = NearStore()
    lb.configure(semantic_cache=store)
    return store


# info


def test_info_of_an_empty_cache():
    info = CACHE.info()
    assert (info.entries, info.bytes, info.damaged, info.moved_aside) == (0, 0, 0, ())
    assert info.oldest is info.newest is info.semantic is None
    assert len(info.by_model) == 0
    assert info.location == os.environ["LBGPT_CACHE_DIR"]


def test_info_counts_answers_by_model():
    before = datetime.now(UTC)
    ask(model="one")
    ask(CITIES[:2], model="two")
    ask(model="one")
    info = CACHE.info()
    assert info.entries == 5
    assert info.by_model["entries"].to_dict() == {"one": 3, "two": 2}
    assert info.by_model["bytes"].sum() == info.bytes > 5 * 200
    assert before <= info.oldest <= info.newest <= datetime.now(UTC)
    assert info.by_model.loc["two", "newest"] == info.newest
    assert (info.hits, info.misses, info.corrupt, info.damaged) == (3, 5, 0, 0)
    assert info.disk_bytes > 4_096
    assert info.ttl_s is None


def test_the_dtypes_of_an_empty_frame_are_those_of_a_full_one():
    empty = CACHE.info().by_model
    ask()
    full = CACHE.info().by_model
    assert empty.dtypes.to_dict() == full.dtypes.to_dict()
    assert str(full["oldest"].dtype) == "datetime64[us, UTC]"


def test_info_as_text_and_html():
    ask(model="<b>model</b>")
    info = CACHE.info()
    assert repr(info).startswith("<CacheInfo 3 answers, ")
    assert "<b>model</b>" in str(info)
    assert "3" in str(info)
    html = info._repr_html_()
    assert "&lt;b&gt;model" in html
    assert "<b>" not in html


def test_info_without_any_cache():
    lb.configure(cache=None)
    info = CACHE.info()
    assert (info.location, info.entries) == (None, 0)
    assert repr(info) == "<CacheInfo: no cache>"
    assert "no exact cache" in str(info)


def test_info_tells_of_damage():
    ask()
    directory = Path(os.environ["LBGPT_CACHE_DIR"])
    with sqlite3.connect(directory / DATABASE) as connection:
        connection.execute("UPDATE Cache SET value = 'nonsense' WHERE rowid = 1")
    connection.close()
    assert (CACHE.info().entries, CACHE.info().damaged) == (2, 1)
    with pytest.warns(lb.CacheWarning, match="damaged"):
        assert len(ask()) == 1
    assert (CACHE.info().damaged, CACHE.info().corrupt) == (0, 1)
    asyncio.run(lb.settings().cache.cache.close())
    (directory / DATABASE).write_bytes(b"garbage" * 1_000)
    info = CACHE.info()
    assert info.entries == 0
    assert len(info.moved_aside) == 1
    assert info.moved_aside[0] in str(info)


def test_info_of_the_semantic_cache(near):
    ask()
    semantic = CACHE.info().semantic
    assert (semantic.entries, semantic.embedder, semantic.threshold) == (3, "letters", 0.985)
    assert "letters" in str(CACHE.info())
    lb.configure(cache=None)
    assert CACHE.info().semantic.entries == 3


def test_what_else_lies_in_a_store_is_not_counted_and_not_removed():
    store = {"session": "mine", "v1:short": "mine"}
    lb.configure(cache=store)
    ask()
    assert CACHE.info().entries == 3
    assert CACHE.clear() == 3
    assert store == {"session": "mine", "v1:short": "mine"}


def test_foreign_entries_of_the_default_directory_stay():
    ask()
    cache = lb.settings().cache.cache
    asyncio.run(cache.set("a thing of mine", "stays"))
    assert CACHE.info().entries == 3
    assert CACHE.clear() == 3
    assert asyncio.run(cache.get_many(["a thing of mine"])) == {"a thing of mine": "stays"}


def test_the_cache_of_the_configured_engine_comes_first():
    own = {}
    engine = upper(cache=own)
    lb.configure(engine)
    CITIES.lbgpt.complete("{city}")
    assert len(own) == CACHE.info().entries == 3
    with lb.using(None):
        assert CACHE.info().entries == 0
    assert CACHE.clear() == 3
    assert own == {}


def test_a_block_has_its_own_cache():
    ask()
    with lb.using(cache={}):
        assert CACHE.info().entries == 0
        assert "dict" in repr(CACHE)
    assert CACHE.info().entries == 3
    assert os.environ["LBGPT_CACHE_DIR"] in repr(CACHE)


# clear


@pytest.fixture
def dated():
    """Answers of two models, one a month from January on."""
    store = {
        key_of(month): sealed(month, created=JANUARY.replace(month=month), model="odd-even"[:month])
        for month in range(1, 5)
    }
    lb.configure(cache=store)
    return store


def test_clear_removes_everything_and_says_how_much(near):
    ask()
    assert CACHE.clear() == 6
    assert CACHE.info().entries == 0
    assert near.entries == {}
    assert CACHE.clear() == 0
    assert ask() == ["Oslo", "Paris", "Rome"]


def test_clear_by_model(near):
    ask(model="one")
    ask(model="two")
    assert CACHE.clear(model="three") == 0
    assert CACHE.clear("one") == 6
    assert ask(model="two") == []
    assert ask(model="one") == ["Oslo", "Paris", "Rome"]


@pytest.mark.parametrize(
    "before",
    [datetime(2026, 3, 1, tzinfo=UTC), "2026-03-01 00:00+00:00", pd.Timestamp("2026-03-01"),
     np.datetime64("2026-03-01"), lambda: datetime.now(UTC) - datetime(2026, 3, 1, tzinfo=UTC),
     lambda: pd.Timedelta(datetime.now(UTC) - datetime(2026, 3, 1, tzinfo=UTC))],
    ids=range(6),
)  # fmt: skip
def test_clear_by_age(dated, before):
    assert CACHE.clear(before=before() if callable(before) else before) == 2
    assert list(dated) == [key_of(3), key_of(4)]


def test_what_was_made_at_that_very_moment_stays(dated):
    assert CACHE.clear(before=JANUARY) == 0
    assert CACHE.clear(before=JANUARY + timedelta(microseconds=1)) == 1


def test_all_conditions_must_hold(dated):
    assert CACHE.clear(model="odd", before="2026-03-01") == 0
    assert CACHE.clear(model="odd", before="2026-03-31") == 1
    assert CACHE.clear(before=timedelta(days=100_000)) == 0
    assert key_of(3) not in dated
    assert len(dated) == 3


def test_damaged_entries_are_of_no_model_and_no_age(dated):
    dated[key_of(9)] = "damaged"
    assert CACHE.clear(before="1 minute") == 4
    assert list(dated) == [key_of(9)]
    assert CACHE.clear() == 1
    assert dated == {}


def test_clear_by_run():
    ask(CITIES[:2])
    ask(CITIES[1:4])
    run = lb.last_run().id
    assert CACHE.clear(model="other", run=run) == 0
    assert CACHE.clear(run=run) == 3
    ask(CITIES[:1])
    assert CACHE.clear(before="1 day", run=lb.last_run().id) == 0
    assert CACHE.clear(model="scripted", run=lb.last_run().id) == 1


def test_a_run_is_cleared_from_the_semantic_cache_too(near):
    ask(CITIES[:1])
    ask(CITIES[1:3])
    assert CACHE.clear(run=lb.last_run().id) == 4
    assert [entry.text for entry in near.entries.values()] == ["Paris"]


def test_a_run_is_cleared_from_a_store_that_does_not_list_its_keys():
    class Bare:
        def __init__(self):
            self.texts = {}

        def __getitem__(self, key):
            return self.texts[key]

        def __setitem__(self, key, value):
            self.texts[key] = value

        def __delitem__(self, key):
            del self.texts[key]

    lb.configure(cache=Bare())
    ask()
    with pytest.raises(lb.ConfigurationError, match="cache=Bare cannot list"):
        CACHE.info()
    with pytest.raises(lb.ConfigurationError, match="cache=Bare cannot list"):
        CACHE.clear(model="scripted")
    assert CACHE.clear(run=lb.last_run().id) == 3


@pytest.mark.parametrize(
    ("conditions", "words"),
    [({"run": "none"}, "no run 'none'"), ({"before": "yesterdays"}, "before="),
     ({"before": 3}, "before="), ({"before": timedelta(-1)}, "before=")],
)  # fmt: skip
def test_a_condition_that_means_nothing_removes_nothing(dated, conditions, words):
    with pytest.raises(lb.ConfigurationError, match=words):
        CACHE.clear(**conditions)
    assert len(dated) == 4


# forget


def test_forgotten_rows_are_asked_again_and_no_others():
    ask()
    assert CACHE.forget(CITIES["city"] == "Rome") == 1
    assert ask() == ["Rome"]
    assert ask() == []


def test_all_rows_that_share_a_request_are_forgotten():
    ask()
    assert CACHE.forget([True, False, False, False, False]) == 1
    assert lb.last_run().rows["source"].tolist()[3] == "shared"
    assert ask() == ["Paris"]


@pytest.mark.parametrize(
    "chosen",
    [
        lambda rows: rows[rows["status"] == "ok"].iloc[1:3],
        lambda rows: rows["key"].iloc[1:3],
        lambda rows: rows["key"].iloc[1:3].tolist(),
        lambda rows: pd.Index(rows["key"].iloc[[1, 2, 4]]),
        lambda rows: set(rows["key"].iloc[1:3]),
        lambda rows: rows["key"].iloc[[1, 2, 2, 4]].to_numpy(),
        lambda rows: rows["key"].isin(rows["key"].iloc[1:3]),
        lambda rows: np.array([False, True, True, False, True]),
        lambda rows: pd.array([False, True, True, False, False], dtype="boolean"),
        lambda rows: pd.Series([False, True, True, False, False], rows.index, dtype=object),
    ],
    ids=range(10),
)
def test_rows_are_chosen_by_lines_keys_or_a_mask(chosen):
    ask()
    assert CACHE.forget(chosen(lb.last_run().rows)) == 2
    assert ask() == ["Oslo", "Rome"]


def test_one_key_is_enough_and_none_too_many():
    ask()
    assert CACHE.forget(lb.last_run().rows["key"].iloc[0]) == 1
    assert CACHE.forget([]) == 0
    assert CACHE.forget(lb.last_run().rows.iloc[:0]) == 0
    assert CACHE.forget([None, np.nan, pd.NA]) == 0
    assert ask() == ["Paris"]


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ([True], "1 values, and the last run had 5 rows"),
        (pd.Series([True] * 5), "another index"),
        (pd.Series([True] * 5, list("abced")), "another index"),
        (pd.Series([True, None, False, False, False], list("abcde")), "has NA"),
        (["Paris"], "item 0 is no key"),
        ([key_of(1), 3], "item 1 is no key"),
        (CITIES, "no column key"),
        (CITIES["city"], "item 0 is no key"),
        ("v1:", "item 0 is no key"),
        (5, "5 chooses no rows; give a mask"),
        (None, "None chooses no rows; give a mask"),
    ],
    ids=range(11),
)
def test_what_chooses_no_rows_is_refused_and_forgets_nothing(chosen, words):
    ask()
    with pytest.raises(lb.ConfigurationError, match=words) as caught:
        CACHE.forget(chosen)
    assert "Paris" not in str(caught.value)
    assert ask() == []


def test_a_mask_needs_a_run():
    with pytest.raises(lb.ConfigurationError, match="there was none"):
        CACHE.forget([True])


def test_forgetting_reaches_both_tiers(near):
    ask()
    assert CACHE.forget(lb.last_run().rows.iloc[[0]]) == 2
    assert sorted(entry.text for entry in near.entries.values()) == ["Oslo", "Rome"]
    assert ask() == ["Paris"]


@pytest.mark.parametrize("choose", [lambda rows: [True] * 5, lambda rows: rows["key"].tolist()])
def test_rows_of_the_last_run_are_forgotten_where_it_had_their_answers(choose):
    engine = upper(cache={})
    CITIES.lbgpt.complete("{city}", engine=engine)
    with lb.using(cache={}, semantic_cache=NearStore()):
        CITIES.lbgpt.complete("{city}!", engine=upper())
        assert CACHE.forget(choose(lb.last_run().rows)) == 6
        CITIES.lbgpt.complete("{city}", engine=engine)
    assert CACHE.forget(choose(lb.last_run().rows)) == 3
    CITIES.lbgpt.complete("{city}", engine=engine)
    assert len(engine.requests) == 6


def test_what_a_run_without_a_cache_chose_is_forgotten_here():
    ask()
    ask(cache_mode="off")
    assert CACHE.forget([True] * 5) == 3


def test_answers_that_wait_for_their_store_are_reached_too():
    class Moody(dict):
        fails = True

        def __setitem__(self, key, value):
            if self.fails:
                raise OSError("not now")
            super().__setitem__(key, value)

    store = Moody()
    lb.configure(cache=store)
    with pytest.warns(lb.CacheWarning, match="not now"):
        ask()
    run = lb.last_run()
    store.fails = False
    assert CACHE.forget(run.rows.iloc[[0]]) == 1
    assert len(store) == 2
    assert ask() == ["Paris"]


# Near answers

TWICE = pd.DataFrame({"city": ["Where is Paris", "Where is Paris "]})


def test_near_hits_are_reported_newest_first(near):
    assert len(CACHE.semantic_report()) == 0
    empty = CACHE.semantic_report().dtypes.to_dict()
    ask(TWICE[:1])
    ask(TWICE[1:])
    [key] = lb.last_run().rows["key"]
    ask(pd.DataFrame({"city": [" Where is Paris"]}))
    report = CACHE.semantic_report()
    assert report.dtypes.to_dict() == empty
    assert report["at"].is_monotonic_decreasing
    assert report["key"].tolist() == [lb.last_run().rows["key"].iloc[0], key]
    line = report.iloc[1]
    assert (line["asked"], line["stored"]) == ("Where is Paris", "Where is Paris")
    assert (line["answer"], line["model"]) == ("WHERE IS PARIS", "scripted")
    assert line["similarity"] > 0.999
    assert line["stored_key"] in near.entries


def test_a_false_near_hit_is_forgotten_and_the_exact_answer_stays(near):
    ask(TWICE[:1])
    assert ask(TWICE[1:]) == []
    assert CACHE.forget(CACHE.semantic_report()) == 1
    assert near.entries == {}
    assert ask(TWICE[:1]) == []
    near.entries.clear()
    assert ask(TWICE[1:]) == ["Where is Paris "]


def test_forgetting_a_near_hit_leaves_an_exact_answer_that_came_later(near):
    ask(TWICE[:1])
    assert ask(TWICE[1:]) == []
    assert ask(TWICE[1:], semantic=False) == ["Where is Paris "]
    assert CACHE.forget(CACHE.semantic_report()) == 1
    assert ask(TWICE) == []


def test_a_row_with_a_near_answer_is_forgotten_with_what_it_took(near):
    ask(TWICE[:1])
    assert ask(TWICE[1:]) == []
    assert lb.last_run().rows["source"].tolist() == ["semantic_cache"]
    assert CACHE.forget([True]) == 1
    assert ask(TWICE[1:]) == ["Where is Paris "]
    assert ask(TWICE[:1]) == []


def test_without_a_semantic_cache_the_report_is_empty():
    assert list(CACHE.semantic_report().columns)[:2] == ["at", "asked"]


def fill_default_semantic():
    cache = default_semantic().cache
    entry = SemanticEntry(key_of(1), "s", "text", sealed(1), np.ones(1, np.float32))
    asyncio.run(cache.add([entry]))
    assert cache.location.startswith(os.environ["LBGPT_CACHE_DIR"])
    return cache


def test_the_default_semantic_cache_is_found_where_a_call_used_it():
    assert CACHE.info().semantic is None
    cache = fill_default_semantic()
    assert CACHE.clear() == 1
    fill_default_semantic()
    with lb.using(cache={}):
        assert CACHE.clear() == 1
    asyncio.run(cache.close())


def test_the_default_semantic_cache_of_an_earlier_process_belongs_to_the_default_cache(monkeypatch):
    asyncio.run(fill_default_semantic().close())
    module = importlib.import_module("lbgpt_pandas.settings")
    monkeypatch.setattr(module, "_semantic_tiers", {})
    with lb.using(cache={}):
        assert CACHE.clear() == 0
    assert CACHE.clear() == 1
    asyncio.run(default_semantic().cache.close())


# Archives


def test_a_cache_goes_into_an_archive_and_back(tmp_path):
    ask()
    rows = lb.last_run().rows
    path = tmp_path / "answers.lbgpt.zip"
    assert CACHE.export(path) == 3
    with open_archive(path) as archive:
        assert archive.manifest["kind"] == "cache"
        assert {entry.key for entry in archive.entries()} == set(rows["key"].dropna())
    with lb.using(cache={}):
        assert CACHE.load(path) == (3, 0)
        assert CACHE.load(path) == (0, 3)
        assert ask() == []
        assert CACHE.export(tmp_path / "again.lbgpt.zip") == 3
    assert path.read_bytes() == (tmp_path / "again.lbgpt.zip").read_bytes()


def test_what_is_stored_already_stays_and_what_is_damaged_gives_way(tmp_path):
    theirs = {key_of(number): sealed(number) for number in (1, 2, 3)}
    with lb.using(cache=theirs):
        CACHE.export(tmp_path / "theirs.lbgpt.zip")
    mine = {key_of(1): sealed(1, model="mine"), key_of(2): "damaged"}
    with lb.using(cache=mine):
        assert CACHE.load(tmp_path / "theirs.lbgpt.zip") == (2, 1)
    assert mine == theirs | {key_of(1): sealed(1, model="mine")}


@pytest.mark.parametrize("planted", ["pickle", "flipped"])
def test_damaged_entries_are_left_out_with_a_warning(tmp_path, planted):
    ask()
    directory = Path(os.environ["LBGPT_CACHE_DIR"])

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    with sqlite3.connect(directory / DATABASE) as connection:
        if planted == "pickle":
            bomb = pickle.dumps(Bomb())
            connection.execute("UPDATE Cache SET value = ?, mode = 4 WHERE rowid = 1", (bomb,))
        else:
            connection.execute("UPDATE Cache SET value = replace(value, 'PARIS', 'Paris')")
    connection.close()
    assert CACHE.info().damaged == (planted == "pickle")
    with pytest.warns(lb.CacheWarning, match="1 damaged entries") as caught:
        assert CACHE.export(tmp_path / "answers.lbgpt.zip") == 2
    assert caught[0].filename == __file__
    with lb.using(cache={}):
        assert CACHE.load(tmp_path / "answers.lbgpt.zip") == (2, 0)
    assert not (tmp_path / "exploded").exists()


def test_a_damaged_archive_changes_nothing(tmp_path):
    with lb.using(cache={key_of(1): sealed(1)}):
        CACHE.export(tmp_path / "answers.lbgpt.zip")
    raw = bytearray((tmp_path / "answers.lbgpt.zip").read_bytes())
    raw[len(raw) // 4] ^= 1
    (tmp_path / "answers.lbgpt.zip").write_bytes(raw)
    with pytest.raises(lb.CacheCorrupt):
        CACHE.load(tmp_path / "answers.lbgpt.zip")
    assert CACHE.info().entries == 0


def test_an_archive_that_cannot_be_written_or_read(tmp_path):
    ask()
    with pytest.raises(FileNotFoundError):
        CACHE.export(tmp_path / "none" / "answers.lbgpt.zip")
    with pytest.raises(FileNotFoundError):
        CACHE.load(tmp_path / "answers.lbgpt.zip")


# Faults


def test_a_read_only_cache_says_so_and_keeps_everything(tmp_path):
    ask()
    run = lb.last_run()
    CACHE.export(tmp_path / "answers.lbgpt.zip")
    CACHE.forget([True, False, False, False, False])
    with lb.using(cache=DiskCache(os.environ["LBGPT_CACHE_DIR"], read_only=True)):
        assert CACHE.info().entries == 2
        for work in (
            CACHE.clear, lambda: CACHE.forget(run.rows), lambda: CACHE.clear(run=run.id),
            lambda: CACHE.load(tmp_path / "answers.lbgpt.zip"),
        ):  # fmt: skip
            with pytest.raises(lb.ConfigurationError, match="opened for reading only"):
                work()
        assert CACHE.info().entries == 2


def test_a_store_that_fails_is_named_without_its_secrets():
    class Down(dict):
        def __getitem__(self, key):
            raise ConnectionError("no route to redis://x?token=CANARY-0123456789")

    lb.configure(cache=Down({key_of(1): ""}))
    with pytest.raises(lb.ConfigurationError, match="a Down object cannot be read") as caught:
        CACHE.info()
    assert "CANARY" not in str(caught.value)


def test_a_cache_that_cannot_be_looked_through_says_so():
    class Port:
        async def get_many(self, keys):
            return {}

        async def set(self, key, value, *, replace=False):
            pass

        async def delete(self, key):
            pass

        async def close(self):
            pass

    lb.configure(cache=Port())
    with pytest.raises(lb.ConfigurationError, match="Port cannot be looked through"):
        CACHE.clear()


def test_without_a_cache_there_is_nothing_to_work_on(tmp_path):
    lb.configure(cache=None)
    for work in (
        CACHE.clear, lambda: CACHE.forget([key_of(1)]), lambda: CACHE.load(tmp_path / "a"),
        lambda: CACHE.export(tmp_path / "a"),
    ):  # fmt: skip
        with pytest.raises(lb.ConfigurationError, match="no exact cache"):
            work()


# Loops


async def test_the_twins_are_awaited(tmp_path):
    await CITIES.lbgpt.acomplete("{city}", engine=upper(), progress="none")
    run = lb.last_run()
    assert (await CACHE.ainfo()).entries == 3
    assert await CACHE.aexport(tmp_path / "answers.lbgpt.zip") == 3
    assert await CACHE.aforget(run.rows.iloc[[0]]) == 1
    assert await CACHE.aload(tmp_path / "answers.lbgpt.zip") == (1, 2)
    assert await CACHE.aclear(run=run.id) == 3
    # Inside a running loop, as in a notebook's cell.
    assert CACHE.info().entries == 0


def test_twins_share_a_signature():
    names = [name for name, _ in inspect.getmembers(AnswerCache, inspect.isfunction)]
    twins = [(name, f"a{name}") for name in names if f"a{name}" in names]
    assert len(twins) == 5
    for name, aname in twins:
        one, other = getattr(AnswerCache, name), getattr(AnswerCache, aname)
        assert inspect.signature(one) == inspect.signature(other)
        assert inspect.iscoroutinefunction(other)
