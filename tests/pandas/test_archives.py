"""Export, replay, load and diff as a pandas user meets them."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import sys
import threading
import warnings
import zipfile
from contextlib import contextmanager

import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.engine import DiskCache, Request
from lbgpt_pandas.engine.caches.base import MemoryCache
from lbgpt_pandas.engine.transports import local
from lbgpt_pandas.registry import registry
from lbgpt_pandas.resolution import resolve_engine
from lbgpt_pandas.testing import FakeProvider, ScriptedGPT

CITIES = pd.DataFrame(
    {"city": ["Paris", "Rome", None, "Paris", "Oslo"], "n": range(5)}, index=list("abcde")
)
TEMPLATE = "Where is {city}?"
CANARY = "sk-canary-0123456789abcdef"

_blocked: list[str] = []


def _no_sockets(event, arguments):
    if _blocked and event in ("socket.connect", "socket.bind", "socket.getaddrinfo"):
        raise ConnectionRefusedError(f"replay must not touch the network: {event} {arguments}")


sys.addaudithook(_no_sockets)


@contextmanager
def no_network():
    """Refuse every socket, also to this machine."""
    _blocked.append("by a test")
    try:
        yield
    finally:
        _blocked.clear()


def upper():
    return ScriptedGPT(lambda request: request.messages[-1]["content"].upper())


@pytest.fixture
def archive(tmp_path):
    """Of `CITIES`, asked once."""
    CITIES.lbgpt.complete(TEMPLATE, engine=upper())
    return lb.last_run().export(tmp_path / "study.lbgpt.zip")


def complete(frame=CITIES, template=TEMPLATE, **keywords):
    return frame.lbgpt.complete(template, progress="none", **keywords)


def strict(series):
    """A column byte for byte, with what is NA."""
    return series.index.tolist(), str(series.dtype), series.fillna("<NA>").tolist(), series.name


# --- replay ----------------------------------------------------------------------------------


def test_replay_gives_the_same_column_without_key_and_network(archive):
    recorded = lb.last_run().result
    with no_network(), lb.replay(archive):
        replayed = complete()
    assert strict(replayed) == strict(recorded)
    assert lb.last_run().rows["source"].value_counts()["exact_cache"] == 4


def test_replay_of_a_real_client(tmp_path, provider, monkeypatch):
    with monkeypatch.context() as environment:
        environment.setenv("OPENAI_API_KEY", CANARY)
        environment.setenv("OPENAI_BASE_URL", provider.base_url)
        recorded = complete(model="gpt-4o-mini", temperature=0, extra_headers={"X-Key": CANARY})
    path = lb.last_run().export(tmp_path / "x.zip")
    calls = len(provider.requests)
    with no_network(), lb.replay(path):
        replayed = complete(model="gpt-4o-mini", temperature=0)
    assert strict(replayed) == strict(recorded)
    assert len(provider.requests) == calls > 0


def test_a_reordered_frame_replays(archive):
    recorded = lb.last_run().result
    order = list("ecbda")
    with lb.replay(archive):
        replayed = complete(CITIES.loc[order])
    assert strict(replayed) == strict(recorded.loc[order])


def test_one_word_changed_names_the_row_and_the_field(archive):
    with lb.replay(archive), pytest.raises(lb.CacheMiss) as caught:
        complete(template="Where was {city}?")
    text = str(caught.value)
    assert text.startswith("row 0 (index 'a') is not in study.lbgpt.zip: messages[0].content: ")
    assert "'Where was Paris?' here, 'Where is Paris?' in row 0 there" in text
    assert "3 more rows" in text


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"temperature": 0.0}, "temperature: 0.0 here, (absent) in row 0"),
        ({"model": "other"}, "model: 'other' here, 'scripted' in row 0"),
        ({"system": "Be brief."}, "messages[0].role: 'system' here, 'user' in row 0"),
        (
            {"response_format": {"type": "json_object"}},
            "response_format: {'type': 'json_object'} here, (absent) in row 0",
        ),
    ],
)
def test_the_first_field_that_differs_is_named(archive, keywords, expected):
    with lb.replay(archive), pytest.raises(lb.CacheMiss, match=re.escape(expected)):
        complete(**keywords)


def test_another_engine_is_named_by_its_family(archive):
    engine = lb.ChatGPT(CANARY)
    with lb.replay(archive), pytest.raises(lb.CacheMiss, match="family: 'openai' here"):
        complete(engine=engine, model="scripted")


@pytest.mark.parametrize("place", [0, 2, 5])
def test_a_row_more_is_named(archive, place):
    more = pd.DataFrame({"city": ["Lima"], "n": [9]}, index=["new"])
    frame = pd.concat([CITIES.iloc[:place], more, CITIES.iloc[place:]])
    with lb.replay(archive), pytest.raises(lb.CacheMiss) as caught:
        complete(frame)
    assert str(caught.value).startswith(f"row {place} (index 'new')")
    assert "more rows" not in str(caught.value)
    assert "'Where is Lima?' here" in str(caught.value)


def test_a_miss_returns_nothing_whatever_errors_says(archive):
    frame = pd.concat([CITIES, CITIES.tail(1).assign(city="Lima")])
    for errors in ("coerce", "ignore", "raise"):
        with lb.replay(archive), pytest.raises(lb.CacheMiss):
            complete(frame, errors=errors)


def test_long_texts_are_shortened_to_where_they_differ(tmp_path):
    text = pd.Series(["x" * 5_000 + " one " + "y" * 5_000])
    complete(text, "{}", engine=upper())
    path = lb.last_run().export(tmp_path / "x.zip")
    other = text.str.replace("one", "two")
    with lb.replay(path), pytest.raises(lb.CacheMiss) as caught:
        complete(other, "{}")
    assert "two" in str(caught.value)
    assert "one" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_nothing_is_called_even_where_a_call_asks_for_it(archive):
    engine = upper()
    frame = CITIES.assign(city="Lima")
    for mode in ("use", "refresh", "off"):
        with lb.replay(archive), pytest.raises(lb.CacheMiss):
            complete(frame, engine=engine, cache_mode=mode)
        with lb.replay(archive), lb.using(engine), pytest.raises(lb.CacheMiss):
            complete(frame, cache_mode=mode)
    assert engine.requests == []
    with lb.replay(archive) as settings, pytest.raises(lb.CacheMiss, match="asks nobody"):
        settings.engine.chat_completion_list(
            [{"messages": [{"role": "user", "content": "Hi"}]}], show_progress=False
        )


def test_replay_reads_and_writes_no_other_cache(archive):
    complete(pd.Series(["Lima"]), TEMPLATE.replace("city", "value"), engine=upper())
    own = {}
    engine = ScriptedGPT("x", cache=own)
    with lb.replay(archive), pytest.raises(lb.CacheMiss):
        complete(pd.DataFrame({"city": ["Lima"]}), engine=engine)
    with lb.replay(archive):
        complete(engine=engine)
    assert own == {}


def test_replay_ends_with_its_block_and_is_seen_by_this_thread_only(archive):
    seen = []
    with lb.replay(archive):
        other = threading.Thread(target=lambda: seen.append(lb.settings().cache_mode))
        other.start()
        other.join()
        seen.append(lb.settings().cache_mode)
    seen.append(lb.settings().cache_mode)
    assert seen == ["use", "replay", "use"]


def test_replays_of_two_archives_at_once(tmp_path):
    paths = []
    for word in ("one", "two"):
        complete(pd.Series(["a", "b"]), "{}", engine=ScriptedGPT(word), cache_mode="refresh")
        paths.append(lb.last_run().export(tmp_path / word))

    async def column(path):
        with lb.replay(path):
            await asyncio.sleep(0)
            return (await pd.Series(["a", "b"]).lbgpt.acomplete("{}")).tolist()

    async def main():
        return await asyncio.gather(*map(column, paths))

    assert asyncio.run(main()) == [["one"] * 2, ["two"] * 2]


def test_independent_samples_replay(tmp_path):
    rows = pd.Series(["a", "a", "b", "a"])
    lines = iter(range(9))
    engine = ScriptedGPT(lambda _: f"draw {next(lines)}")
    recorded = complete(rows, "{}", engine=engine, duplicates="independent")
    path = lb.last_run().export(tmp_path / "x.zip")
    with lb.replay(path):
        assert strict(complete(rows, "{}", duplicates="independent")) == strict(recorded)
    assert recorded.nunique() == 4


def failing():
    def reply(request):
        if "Rome" in request.messages[-1]["content"]:
            return lb.ContextTooLong("too long", code="context_length_exceeded", status=400)
        return request.messages[-1]["content"].upper()

    return ScriptedGPT(reply)


def test_failed_rows_fail_again(tmp_path):
    frame = CITIES.assign(blob=[b"x", "y", "z", "v", "w"])
    with pytest.warns(lb.RowErrorsWarning):
        recorded = complete(frame, "{city} {blob}", engine=failing())
    first = lb.last_run()
    path = first.export(tmp_path / "x.zip")
    said = r"2 of 5 rows failed.*See lb\.last_run\(\)\.errors; replay repeats what was recorded"
    with lb.replay(path), pytest.warns(lb.RowErrorsWarning, match=said) as warned:
        replayed = complete(frame, "{city} {blob}")
    assert "retry_failed" not in str(warned[0].message)
    assert strict(replayed) == strict(recorded)
    columns = ["status", "error_type", "error_code"]
    pd.testing.assert_frame_equal(lb.last_run().errors[columns], first.errors[columns])
    with lb.replay(path), pytest.raises(lb.RowErrors) as caught:
        complete(frame, "{city} {blob}", errors="raise")
    assert isinstance(caught.value.exceptions[-1], lb.InvalidInput | lb.ContextTooLong)


def test_many_failures_alike_do_not_end_a_replay(tmp_path):
    rows = pd.Series([f"row {n}" for n in range(60)])

    def reply(request):
        if request.messages[-1]["content"] == "row 0":
            return "fine"
        return lb.BadRequest("no", code="bad", status=400)

    recorded = complete(rows, "{}", engine=ScriptedGPT(reply, cache={}), errors="ignore")
    path = lb.last_run().export(tmp_path / "x.zip")
    with lb.replay(path):
        assert strict(complete(rows, "{}", errors="ignore")) == strict(recorded)


def test_a_run_that_its_budget_stopped(tmp_path):
    rows = pd.Series(["a", "b", "c", "d"])
    with pytest.raises(lb.BudgetExceeded):
        complete(rows, "{}", engine=upper(), budget=lb.Budget(requests=2), max_parallel=1)
    report = lb.last_run()
    assert report.manifest["status"] == "aborted"
    path = report.export(tmp_path / "x.zip")
    with lb.replay(path):
        assert complete(rows.iloc[:2], "{}").tolist() == ["A", "B"]
        with pytest.raises(lb.CacheMiss, match=r"row 2 .*the run was stopped before"):
            complete(rows, "{}")
    with lb.replay(path), pytest.raises(lb.CacheMiss):
        lb.last_run().retry_failed()


def test_a_null_budget_replays_as_it_was(tmp_path):
    rows = pd.Series(["a", "b", "c"])
    budget = lb.Budget(requests=1, on_exceeded="null")
    recorded = complete(rows, "{}", engine=upper(), budget=budget, max_parallel=1, errors="ignore")
    path = lb.last_run().export(tmp_path / "x.zip")
    with lb.replay(path):
        assert strict(complete(rows, "{}", errors="ignore")) == strict(recorded)
    assert lb.last_run().errors["error_type"].tolist() == ["BudgetExceeded"] * 2


def test_azure_and_balancers_replay(tmp_path, monkeypatch):
    with FakeProvider() as server:
        azure = lb.AzureGPT(CANARY, server.azure_base, {"gpt-4o-mini": "deployed"}, name="west")
        both = lb.MultiLoadBalancedGPT(
            [lb.AzureGPT(CANARY, server.azure_base, {"gpt-4o-mini": "deployed"}, name="north")]
        )
        outside = lb.AzureGPT(CANARY, server.azure_base, {}, name="unmapped")
        for engine in (azure, both, outside):
            recorded = complete(engine=engine, model="gpt-4o-mini", cache_mode="refresh")
            path = lb.last_run().export(tmp_path / f"{engine.name}.zip")
            with lb.replay(path):
                assert strict(complete(model="gpt-4o-mini")) == strict(recorded)
        with lb.replay(tmp_path / "west.zip"):
            complete(
                engine=lb.ChatGPT("sk-another-key", base_url=server.base_url), model="gpt-4o-mini"
            )


def test_tools_of_the_engine_are_part_of_the_keys(tmp_path):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"b": 1, "a": 2}}}]
    recorded = complete(engine=ScriptedGPT("x", tools=tools))
    path = lb.last_run().export(tmp_path / "x.zip")
    with lb.replay(path):
        assert strict(complete()) == strict(recorded)


@pytest.mark.local_model
def test_the_embedded_model_replays_where_it_is_not_installed(tmp_path, monkeypatch):
    words = pd.Series(["one"])
    recorded = complete(words, "Say {}", model="local", max_tokens=2, temperature=0)
    path = lb.last_run().export(tmp_path / "x.zip")
    # Without it, whoever asks for the model's name gets a MissingExtraError.
    monkeypatch.setattr(local, "WEIGHTS_PACKAGE", "no_such_package")
    with no_network(), lb.replay(path):
        replayed = complete(words, "Say {}", model="local", max_tokens=2, temperature=0)
        assert lb.last_run().saved_usd == 0.0
    assert strict(replayed) == strict(recorded)
    with lb.using(model="local"), lb.replay(path):
        complete(words, "Say {}", max_tokens=2, temperature=0)


# --- cache_mode="replay" on a cache ------------------------------------------------------------


def test_replay_from_the_cache_needs_no_key(provider, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    with monkeypatch.context() as environment:
        environment.setenv("OPENAI_API_KEY", CANARY)
        recorded = complete(model="gpt-4o-mini")
    with no_network(), lb.using(model="gpt-4o-mini"):
        assert strict(complete(cache_mode="replay")) == strict(recorded)
        more = CITIES.assign(city=["Paris", "Lima", None, "a", "b"])
        with pytest.raises(lb.CacheMiss, match=r"row 1 \(index 'b'\).*the cache"):
            complete(more, cache_mode="replay")
        with pytest.raises(lb.ConfigurationError, match="no engine"):
            complete()


@pytest.mark.parametrize(
    ("variables", "family"),
    [
        ({}, "openai"),
        ({"OPENAI_BASE_URL": "https://llm.example:8000/v1"}, "llm.example:8000"),
        ({"AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com"}, "azure/r.openai.azure.com"),
    ],
)
def test_without_a_key_the_environment_says_whose_models_they_were(monkeypatch, variables, family):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    engine, _ = resolve_engine("m", keyless=True)
    request = Request([{"role": "user", "content": "Hi"}], {"model": "m"})
    assert engine.family_of(request) == family


def test_replay_needs_a_cache():
    with pytest.raises(lb.ConfigurationError, match="needs a cache"), lb.using(cache=None):
        complete(engine=upper(), cache_mode="replay")


def test_a_corrupt_entry_is_not_asked_anew(tmp_path):
    directory = tmp_path / "cache"
    with lb.using(cache=directory):
        complete(engine=upper())
        asyncio.run(lb.settings().cache.cache.close())
        with sqlite3.connect(directory / "cache.db") as connection:
            connection.execute("UPDATE Cache SET value = replace(value, 'ROME', 'ROMA')")
        connection.close()
        engine = upper()
        with pytest.raises(lb.CacheCorrupt, match="damaged"):
            complete(engine=engine, cache_mode="replay")
        assert engine.requests == []
        with pytest.warns(lb.CacheWarning, match="damaged"):
            assert complete(engine=engine).tolist()[1] == "WHERE IS ROME?"


def test_a_store_that_cannot_be_read_is_no_row_of_misses():
    class Broken(dict):
        def __getitem__(self, key):
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"), lb.using(cache=Broken()):
        complete(engine=upper(), cache_mode="replay")


def test_what_a_full_disk_left_in_memory_is_replayed_and_exported(tmp_path):
    class Full(dict):
        def __setitem__(self, key, value):
            raise OSError(28, "No space left")

    engine = upper()
    with lb.using(cache=Full()):
        with pytest.warns(lb.CacheWarning, match="kept in memory"):
            column = complete(engine=engine)
        archive = lb.last_run().export(tmp_path / "run.zip")
        asked = len(engine.requests)
        assert complete(engine=engine, cache_mode="replay").equals(column)
        assert lb.cache.export(tmp_path / "cache.zip") == asked
    assert len(engine.requests) == asked
    with lb.replay(archive):
        assert complete(engine=engine).equals(column)


def test_a_stopped_store_is_named_by_the_export(tmp_path):
    class Stopping(MemoryCache):
        is_down = False

        async def get_many(self, keys):
            if self.is_down:
                raise TimeoutError("no answer")
            return await super().get_many(keys)

    store = Stopping()
    with lb.using(cache=store):
        complete(engine=upper())
        store.is_down = True
        with pytest.raises(lb.ConfigurationError, match=r"cannot be read: TimeoutError: no answer"):
            lb.last_run().export(tmp_path / "run.zip")
    assert not list(tmp_path.glob("*.zip"))


def _damaged(directory, kind):
    with lb.using(cache=directory):
        complete(engine=upper())
        asyncio.run(lb.settings().cache.cache.close())
    registry_of(directory)._holder.close()
    file = directory / "cache.db"
    whole = file.read_bytes()
    file.write_bytes(b"\x17" * 100 + whole[100:] if kind == "header" else whole[: len(whole) // 2])
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def registry_of(directory):
    with lb.using(cache=directory):
        return registry()


@pytest.mark.parametrize("kind", ["header", "cut"])
def test_replay_and_read_only_leave_a_damaged_cache_as_it_is(tmp_path, kind):
    directory, engine = tmp_path / "cache", upper()
    before = _damaged(directory, kind)
    with lb.using(cache=directory):
        with pytest.raises(lb.CacheCorrupt, match="damaged"):
            complete(engine=engine, cache_mode="replay")
        assert engine.requests == []
        with pytest.warns(lb.CacheWarning, match="cannot be read.*damaged"):
            assert complete(engine=engine, cache_mode="read_only").notna().sum() == 4
        assert (directory / "cache.db").read_bytes() == before["cache.db"]
        asyncio.run(lb.settings().cache.cache.close())
        registry()._holder.close()
    assert {path.name for path in directory.iterdir()} == before.keys()
    with lb.using(cache=directory), pytest.warns(lb.CacheWarning, match="renamed"):
        complete(engine=engine)


def test_replay_and_read_only_make_no_directory(tmp_path):
    directory = tmp_path / "nowhere"
    with lb.using(cache=directory):
        with pytest.raises(lb.CacheMiss):
            complete(engine=upper(), cache_mode="replay")
        assert complete(engine=upper(), cache_mode="read_only").notna().sum() == 4
    assert not directory.exists()


# --- export ------------------------------------------------------------------------------------


def texts(path):
    with zipfile.ZipFile(path) as zipped:
        return {name: zipped.read(name).decode() for name in zipped.namelist()}


def test_no_secret_is_in_an_archive_a_registry_or_a_manifest(tmp_path, provider):
    engine = lb.ChatGPT(CANARY, base_url=provider.base_url)
    complete(
        engine=engine,
        model="gpt-4o-mini",
        user=CANARY,
        extra_headers={"Authorization": f"Bearer {CANARY}"},
        extra_query={"key": CANARY},
        extra_body={"api_key": "short", "password": "letmein", "note": f"key {CANARY}", "k": 1},
        metadata={"token": CANARY},
    )
    report = lb.last_run()
    found = texts(report.export(tmp_path / "x.zip")) | {"manifest": json.dumps(report.manifest)}
    found["runs"] = lb.runs().to_string(max_colwidth=None)
    found["db"] = (lb.settings().cache.cache.directory / "runs.db").read_bytes().decode("latin-1")
    for name, text in found.items():
        for secret in (CANARY, "canary", "short", "letmein"):
            assert secret not in text, name
    assert report.manifest["params"]["extra_body"]["k"] == 1
    with lb.replay(tmp_path / "x.zip"):
        complete(model="gpt-4o-mini", extra_body={
            "api_key": "short", "password": "letmein", "note": f"key {CANARY}", "k": 1})  # fmt: skip


def test_the_archive_says_what_was_asked(archive):
    lines = [json.loads(line) for line in texts(archive)["responses.jsonl"].splitlines()]
    assert [line["request"]["messages"][0]["content"] for line in lines] == [
        "Where is Paris?", "Where is Rome?", "Where is Oslo?"
    ]  # fmt: skip
    assert lines[0]["request"].keys() == {"family", "model", "params", "messages", "sample"}


def test_the_manifest(archive):
    about = lb.last_run().manifest
    assert about["template"] == TEMPLATE
    assert about["columns"] == ["city"]
    assert about["counts"]["rows"] == 5
    assert about["counts"]["skipped"] == 1
    assert about["keys"][0] == about["keys"][3] != about["keys"][1]
    assert about["keys"][2] is None
    assert about["versions"].keys() >= {"lbgpt-pandas", "python", "pandas"}
    assert about["engine"]["name"] == "ScriptedGPT"
    assert about["deployments"] == {"ScriptedGPT": 3}
    assert json.loads(texts(archive)["manifest.json"])["keys"] == about["keys"]
    other = CITIES.iloc[::-1]
    complete(other, engine=upper())
    assert lb.last_run().manifest["row_fingerprint"] != about["row_fingerprint"]


def test_an_export_twice_is_the_same_file(archive, tmp_path):
    other = lb.last_run().export(tmp_path / "again.zip")
    assert other.read_bytes() == archive.read_bytes()


def test_a_replayed_run_can_be_exported(archive, tmp_path):
    with lb.replay(archive):
        complete()
    again = lb.last_run().export(tmp_path / "again.zip")
    assert texts(again)["responses.jsonl"] == texts(archive)["responses.jsonl"]


def test_what_is_not_stored_cannot_be_exported(tmp_path):
    complete(engine=upper(), cache_mode="off")
    with pytest.raises(lb.ConfigurationError, match=r"3 of 3 answers.*cache_mode=.use"):
        lb.last_run().export(tmp_path / "x.zip")
    complete(engine=ScriptedGPT(cache=MemoryCache(max_entries=2)))
    with pytest.raises(lb.ConfigurationError, match="1 of 3 answers"):
        lb.last_run().export(tmp_path / "x.zip")
    assert list(tmp_path.glob("*.zip*")) == []


def test_answers_that_were_replaced_are_not_exported_as_this_runs(tmp_path):
    complete(engine=upper())
    report = lb.last_run()
    complete(engine=ScriptedGPT("other"), cache_mode="refresh")
    with pytest.raises(
        lb.ConfigurationError, match="3 answers in the cache are not as in this run"
    ):
        report.export(tmp_path / "x.zip")


def test_other_tool_calls_are_another_answer(tmp_path):
    def calling(name):
        call = {"id": "1", "type": "function", "function": {"name": name, "arguments": "{}"}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
        return ScriptedGPT(lambda _request: {"model": "m", "choices": [choice]})

    complete(CITIES.iloc[:1], engine=calling("look"))
    report = lb.last_run()
    report.export(tmp_path / "x.zip")
    complete(CITIES.iloc[:1], engine=calling("listen"), cache_mode="refresh")
    with pytest.raises(lb.ConfigurationError, match="1 answer in the cache is not as in this run"):
        report.export(tmp_path / "y.zip")


@pytest.mark.parametrize("frame", [CITIES.iloc[:0], CITIES.iloc[2:3]], ids=["empty", "all NA"])
def test_frames_without_requests(frame, tmp_path):
    complete(frame, engine=upper())
    path = lb.last_run().export(tmp_path / "x.zip")
    with lb.replay(path):
        assert complete(frame).isna().all()


# --- load_run ------------------------------------------------------------------------------------


def test_a_loaded_run_makes_no_call(archive, tmp_path):
    engine = upper()
    with lb.using(cache=tmp_path / "other"):
        loaded = lb.load_run(archive)
        assert (loaded.added, loaded.present, loaded.rows) == (3, 0, 5)
        assert loaded.id in repr(loaded)
        again = lb.load_run(archive)
        assert (again.added, again.present) == (0, 3)
        complete(engine=engine)
    assert engine.requests == []


@pytest.mark.parametrize("kind", [dict, MemoryCache])
def test_who_was_first_wins(archive, kind):
    cache = kind()
    with lb.using(cache=cache):
        complete(CITIES.head(1), engine=ScriptedGPT("mine"))
        assert lb.load_run(archive, into=cache).added == 2
        assert complete(engine=ScriptedGPT("never")).tolist()[:2] == ["mine", "WHERE IS ROME?"]


def test_a_damaged_archive_loads_nothing(archive, tmp_path):
    raw = bytearray(archive.read_bytes())
    raw[80] ^= 1
    archive.write_bytes(raw)
    cache = {}
    with pytest.raises(lb.CacheCorrupt, match=r"responses\.jsonl|manifest\.json"):
        lb.load_run(archive, into=cache)
    with pytest.raises(lb.CacheCorrupt), lb.replay(archive):
        pass
    assert cache == {}


def test_loading_needs_a_cache(archive):
    with pytest.raises(lb.ConfigurationError, match="into="), lb.using(cache=None):
        lb.load_run(archive)
    directory = DiskCache(archive.parent / "given")
    assert lb.load_run(archive, into=directory).added == 3


# --- diff ----------------------------------------------------------------------------------------


def report_of(frame, template=TEMPLATE, **keywords):
    keywords.setdefault("engine", upper())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lb.RowErrorsWarning)
        complete(frame, template, **keywords)
    return lb.last_run()


def test_equal_runs_do_not_differ(archive):
    first = lb.last_run()
    second = report_of(CITIES)
    assert first.diff(second).empty
    assert second.diff(archive).empty
    assert second.diff(str(archive)).empty


@pytest.mark.parametrize("other", [5, None])
def test_what_is_no_run_is_not_compared(other):
    with pytest.raises(lb.ConfigurationError, match="is no run to compare with; give the report"):
        report_of(CITIES).diff(other)


def test_another_answer():
    first = report_of(CITIES)
    found = first.diff(report_of(CITIES, engine=ScriptedGPT("other"), cache_mode="off"))
    assert found["change"].tolist() == ["answer"] * 4
    assert found["left_row"].tolist() == [0, 1, 3, 4] == found["right_row"].tolist()
    assert found.loc[0, ["left", "right"]].tolist() == ["WHERE IS PARIS?", "other"]


def test_another_request_names_its_field(archive):
    second = report_of(CITIES, template="Where was {city}?")
    found = second.diff(archive)
    assert found["change"].tolist() == ["request"] * 4
    assert set(found["field"]) == {"messages[0].content"}
    third = report_of(CITIES, temperature=0)
    assert set(third.diff(second)["field"]) == {"temperature"}


def test_another_status():
    first = report_of(CITIES)
    second = report_of(CITIES, engine=failing(), cache_mode="off")
    found = first.diff(second)
    assert found["change"].tolist() == ["status"]
    assert found["left_row"].tolist() == [1]
    assert found["right"].isna().all()
    filled = report_of(CITIES.fillna("Bonn"))
    assert first.diff(filled)["change"].tolist() == ["status"]


def test_rows_on_one_side_only(archive, tmp_path):
    first = report_of(CITIES)
    more = pd.concat([CITIES.tail(1).assign(city="Lima"), CITIES, CITIES.tail(1)])
    second = report_of(more)
    found = first.diff(second)
    assert found["change"].tolist() == ["only_right"] * 2
    assert found["right_row"].tolist() == [0, 6]
    assert found["right"].tolist() == ["WHERE IS LIMA?", "WHERE IS OSLO?"]
    back = second.diff(archive)
    assert back["change"].tolist() == ["only_left"] * 2
    assert back["left_row"].tolist() == [0, 6]
    assert back["left"].tolist() == ["WHERE IS LIMA?", "WHERE IS OSLO?"]


def test_na_rows_on_one_side_only():
    found = report_of(CITIES).diff(report_of(CITIES.dropna()))
    assert found["change"].tolist() == ["only_left"]
    assert found["left_row"].tolist() == [2]


def test_a_diff_with_a_stopped_run(tmp_path):
    rows = pd.Series(["a", "b"])
    with pytest.raises(lb.BudgetExceeded):
        report_of(rows, "{}", budget=lb.Budget(requests=1), max_parallel=1)
    path = lb.last_run().export(tmp_path / "x.zip")
    found = report_of(rows, "{}").diff(path)
    assert found["change"].tolist() == ["status"]
    assert found["left"].tolist() == ["B"]


# --- what a miss of the cache says ------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"temperature": 0.0}, "params.temperature: 0.0 here, (absent) in run "),
        ({"template": "Where was {city}?"}, "template: 'Where was {city}?' here, 'Where is"),
        ({"system": "Be brief."}, "system: 'Be brief.' here, None in run "),
        ({"model": "other"}, "model: 'other' here, 'scripted' in run "),
        ({"frame": CITIES.assign(city="Lima")}, "template and parameters are those of run "),
    ],
)
def test_a_miss_of_the_cache_names_what_the_last_runs_had(keywords, expected):
    complete(engine=upper())
    complete(template="quite another one", engine=upper(), max_tokens=3)
    with pytest.raises(lb.CacheMiss, match=re.escape(expected)):
        complete(engine=upper(), cache_mode="replay", **keywords)


def test_a_miss_leaves_a_damaged_file_of_runs_as_it_is(tmp_path):
    with lb.using(cache=tmp_path / "cache"):
        complete(engine=upper())
        registry()._holder.close()
        file = tmp_path / "cache" / "runs.db"
        file.write_bytes(b"\x17" * 5_000)
        with (
            pytest.warns(lb.CacheWarning, match="not registered"),
            pytest.raises(lb.CacheMiss, match="nothing is stored under its key"),
        ):
            complete(template="Who is {city}?", engine=upper(), cache_mode="replay")
        assert file.read_bytes() == b"\x17" * 5_000


def test_a_miss_of_an_empty_cache():
    with pytest.raises(lb.CacheMiss, match="nothing is stored under its key"):
        complete(engine=upper(), cache_mode="replay")
