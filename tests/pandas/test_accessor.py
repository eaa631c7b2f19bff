"""``df.lbgpt.complete`` as a pandas user meets it."""

from __future__ import annotations

import asyncio
import re
import warnings

import numpy as np
import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.testing import FakeProvider, Fault, ScriptedGPT

CITIES = pd.DataFrame({"city": ["Paris", "Rome", None, "Paris"], "n": [1, 2, 3, 4]})


def prompts(engine):
    return [request.messages[-1]["content"] for request in engine.requests]


def upper():
    return ScriptedGPT(lambda r: r.messages[-1]["content"].upper())


def test_every_row_has_its_own_answer_and_equal_rows_share_one():
    engine = upper()
    before = CITIES.copy(deep=True)
    answers = CITIES.lbgpt.complete("Where is {city}?", engine=engine, name="where")
    assert answers.tolist()[:2] == ["WHERE IS PARIS?", "WHERE IS ROME?"]
    assert answers.iloc[3] == answers.iloc[0]
    assert answers.isna().tolist() == [False, False, True, False]
    assert answers.name == "where"
    assert sorted(prompts(engine)) == ["Where is Paris?", "Where is Rome?"]
    pd.testing.assert_frame_equal(CITIES, before)
    pd.testing.assert_index_equal(answers.index, CITIES.index)


def test_a_second_call_costs_nothing():
    first, second = upper(), upper()
    a = CITIES.lbgpt.complete("{city}", engine=first)
    b = CITIES.sample(frac=1, random_state=1).lbgpt.complete("{city}", engine=second)
    assert second.requests == []
    pd.testing.assert_series_equal(a, b.sort_index())
    assert lb.last_run().cost_usd == 0.0


@pytest.mark.parametrize(
    "index",
    [
        pd.Index(["x", "x", "y", "x"]),
        pd.MultiIndex.from_tuples([(1, "a"), (1, "a"), (2, "b"), (3, "c")]),
        pd.Index([3, 1, 2, 0]),
        pd.date_range("2024-01-01", periods=4, tz="Europe/Berlin"),
    ],
)
def test_alignment_is_by_position(index):
    frame = pd.DataFrame({"t": list("abca")}, index=index)
    frame["answer"] = frame.lbgpt.complete("{t}", engine=upper())
    assert frame["answer"].tolist() == list("ABCA")


def test_a_series_has_its_value():
    series = pd.Series(["a", "b"], name="text")
    for template in ("{value}", "{text}", "{}"):
        assert series.lbgpt.complete(template, engine=upper()).tolist() == ["A", "B"]


def test_empty_and_all_na_frames_make_no_call():
    engine = upper()
    empty = CITIES.iloc[:0].lbgpt.complete("{city}", engine=engine)
    text = CITIES.iloc[:1].lbgpt.complete("{city}", engine=engine)
    assert empty.dtype == text.dtype
    assert len(empty) == 0
    only_na = CITIES.iloc[2:3].lbgpt.complete("{city}", engine=ScriptedGPT("never"))
    assert only_na.isna().all()
    assert len(engine.requests) == 1


def test_system_model_and_params_are_sent():
    engine = ScriptedGPT("ok")
    CITIES.head(1).lbgpt.complete(
        "{city}", system="Speak {n}", model="m-1", temperature=0, top_k=3, engine=engine
    )
    request = engine.requests[0]
    assert request.messages[0] == {"role": "system", "content": "Speak 1"}
    assert dict(request.params) == {"model": "m-1", "temperature": 0, "top_k": 3}


def test_numpy_numbers_are_sent_as_numbers():
    engine = ScriptedGPT("ok")
    CITIES.head(1).lbgpt.complete(
        "{city}", engine=engine, seed=np.int64(3), temperature=np.float32(0.1), stop=(".",)
    )
    params = dict(engine.requests[0].params)
    assert params == {"model": "scripted", "seed": 3, "temperature": 0.1, "stop": ["."]}


def test_private_keywords_are_not_sent():
    engine = ScriptedGPT("ok")
    CITIES.head(1).lbgpt.complete("{city}", request_timeout=5, engine=engine)
    assert "request_timeout" not in engine.requests[0].params
    assert engine.requests[0].options == {"request_timeout": 5}


@pytest.mark.parametrize(
    ("keyword", "suggestion"),
    [("temprature", "temperature"), ("modle", "model"), ("max_token", "max_tokens"),
     ("duplicate", "duplicates"), ("sytem", "system"), ("progres", "progress")],
)  # fmt: skip
def test_misspelt_keywords_get_a_suggestion_before_any_call(keyword, suggestion):
    engine = ScriptedGPT("ok")
    with pytest.raises(TypeError, match=f"did you mean '{suggestion}'"):
        CITIES.lbgpt.complete("{city}", engine=engine, **{keyword: 1})
    assert engine.requests == []


@pytest.mark.parametrize("keyword", ["top_k", "min_p", "guided_choice", "repetition_penalty"])
def test_provider_parameters_pass(keyword):
    engine = ScriptedGPT("ok")
    CITIES.head(1).lbgpt.complete("{city}", engine=engine, **{keyword: 1})
    assert engine.requests[0].params[keyword] == 1


@pytest.mark.parametrize(
    "keywords",
    [{"errors": "drop"}, {"cache_mode": "replays"}, {"cache_mode": "x"}, {"progress": "bar"},
     {"request_timeout": "x"}, {"request_timeout": -1}, {"timeout": 3}, {"on_error": "null"},
     {"cache": {}}, {"n": 2}, {"model": 5}, {"name": ["a"]}, {"response_format": int},
     {"stop": {"a"}}, {"temperature": float("nan")}, {"metadata": {"a": object()}},
     {"max_parallel": 0}, {"examples": []}, {"budget": 0}, {"stream": True}, {"engine": object()},
     {"engine": "gpt-4o"}],
)  # fmt: skip
def test_arguments_that_cannot_work_are_refused_before_any_call(keywords):
    engine = ScriptedGPT("ok")
    with pytest.raises(lb.ConfigurationError):
        CITIES.lbgpt.complete("{city}", **{"engine": engine, **keywords})
    assert engine.requests == []


def test_a_missing_column_names_the_nearest():
    engine = ScriptedGPT("ok")
    with pytest.raises(lb.TemplateError, match="city"):
        CITIES.lbgpt.complete("{citty}", engine=engine)
    with pytest.raises(KeyError):
        CITIES.lbgpt.complete("{citty}", engine=engine)
    assert engine.requests == []


def fail_on(bad):
    def reply(request):
        if bad in request.messages[-1]["content"]:
            return lb.BadRequest("no such luck", status=400, code="unlucky")
        return "ok"

    return reply


def test_coerce_gives_na_and_one_warning_that_points_here():
    with pytest.warns(lb.RowErrorsWarning, match=r"1 of 4 rows failed \(1 BadRequest\)") as caught:
        answers = CITIES.lbgpt.complete("{city}", engine=ScriptedGPT(fail_on("Rome")))
    assert answers.isna().tolist() == [False, True, True, False]
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "row 1 (index 1)" in str(caught[0].message)


async def test_the_warning_of_acomplete_is_there_too():
    with pytest.warns(lb.RowErrorsWarning, match="1 of 4 rows failed"):
        await CITIES.lbgpt.acomplete("{city}", engine=ScriptedGPT(fail_on("Rome")))


def test_ignore_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = CITIES.lbgpt.complete(
            "{city}", engine=ScriptedGPT(fail_on("Rome")), errors="ignore"
        )
    assert answers.isna().sum() == 2


def test_raise_stops_and_carries_report_and_result():
    engine = ScriptedGPT(fail_on("row 3"))
    frame = pd.DataFrame({"i": range(100)})
    with pytest.raises(lb.RowErrors) as caught:
        frame.lbgpt.complete("row {i}!", engine=engine, errors="raise", max_parallel=1)
    assert len(engine.requests) == 4
    assert isinstance(caught.value.exceptions[0], lb.BadRequest)
    assert caught.value.result.notna().sum() == 3
    assert caught.value.report is lb.last_run()
    assert lb.last_run().rows["status"].value_counts().to_dict() == {
        "not_run": 96, "ok": 3, "failed": 1,
    }  # fmt: skip


def test_raise_sends_nothing_if_a_row_cannot_be_sent():
    engine = ScriptedGPT("ok")
    frame = pd.DataFrame({"t": ["fine", b"raw"]})
    with pytest.raises(lb.RowErrors, match="1 InvalidInput"):
        frame.lbgpt.complete("{t}", engine=engine, errors="raise")
    assert engine.requests == []


def test_the_report_has_a_line_for_each_row():
    with pytest.warns(lb.RowErrorsWarning):
        CITIES.lbgpt.complete("{city}", engine=ScriptedGPT(fail_on("Rome"), name="east"))
    report = lb.last_run()
    rows = report.rows
    assert list(rows.columns) == [
        "status", "source", "error_type", "error_code", "message", "attempts", "deployment",
        "latency_s", "prompt_tokens", "completion_tokens", "cost_usd", "finish_reason",
        "similarity", "key", "request_id", "maybe_billed", "confidence",
    ]  # fmt: skip
    assert rows["status"].tolist() == ["ok", "failed", "skipped", "ok"]
    assert rows["source"].tolist() == ["provider", "provider", "skipped", "shared"]
    assert rows["attempts"].tolist() == [1, 1, 0, 0]
    assert rows.loc[1, ["error_type", "error_code", "message"]].tolist() == [
        "BadRequest", "unlucky", "no such luck",
    ]  # fmt: skip
    assert rows["key"].iloc[0] == rows["key"].iloc[3]
    assert len(report.errors) == 1
    assert report.usage.loc[("east", "scripted"), "requests"] == 1
    assert "RunReport" in repr(report)
    assert "1 × BadRequest" in str(report)
    assert "1 × BadRequest" in report._repr_html_()


def test_model_output_is_inert_in_html():
    nasty = "<img src=x onerror=alert(1)></script>"
    engine = ScriptedGPT(lambda _: lb.BadRequest(nasty, status=400), name=nasty)
    with pytest.warns(lb.RowErrorsWarning):
        CITIES.head(1).lbgpt.complete("{city}", engine=engine, model=nasty)
    html = lb.last_run()._repr_html_() + lb.settings()._repr_html_()
    assert "<img" not in html
    assert re.search(r"\$[^<]", html) is None
    assert "</script>" not in html


def test_retry_failed_asks_exactly_the_failed_rows():
    broken = {"on": True}

    def reply(request):
        text = request.messages[-1]["content"]
        if text == "Rome" and broken["on"]:
            return lb.BadRequest("no", status=400)
        return text.upper()

    engine = ScriptedGPT(reply)
    with pytest.warns(lb.RowErrorsWarning):
        CITIES.lbgpt.complete("{city}", engine=engine, cache_mode="off")
    broken["on"] = False
    fixed = lb.last_run().retry_failed()
    assert fixed.tolist()[:2] == ["PARIS", "ROME"]
    assert sorted(prompts(engine)) == ["Paris", "Rome", "Rome"]
    assert len(lb.last_run().errors) == 0
    assert lb.last_run().rows["attempts"].tolist()[:2] == [1, 2]
    assert lb.last_run().summary.calls == 3


def test_independent_duplicates_are_samples_of_their_own():
    numbers = iter(range(100))
    engine = ScriptedGPT(lambda _: str(next(numbers)))
    frame = pd.DataFrame({"t": ["a"] * 5})
    first = frame.lbgpt.complete("{t}", engine=engine, duplicates="independent")
    assert sorted(first) == ["0", "1", "2", "3", "4"]
    again = frame.lbgpt.complete("{t}", engine=engine, duplicates="independent")
    pd.testing.assert_series_equal(first, again)
    longer = pd.concat([frame, frame.head(1)])
    longer.lbgpt.complete("{t}", engine=engine, duplicates="independent")
    assert len(engine.requests) == 6


def test_sampling_with_shared_duplicates_warns():
    with pytest.warns(lb.LbgptWarning, match="independent") as caught:
        CITIES.lbgpt.complete("{city}", engine=upper(), temperature=0.7)
    assert caught[0].filename == __file__


def test_a_cache_that_failed_is_told_of_in_each_run_and_tried_again():
    class Full(dict):
        broken = True

        def __setitem__(self, key, value):
            if self.broken:
                raise OSError("No space left on device")
            super().__setitem__(key, value)

    store = Full()
    frame = pd.DataFrame({"t": ["a"]})
    for _ in range(2):
        with pytest.warns(lb.CacheWarning, match="No space left") as caught:
            answers = frame.lbgpt.complete("{t}", engine=ScriptedGPT("paid", cache=store))
        assert answers.tolist() == ["paid"]
        assert caught[0].filename == __file__
    store.broken = False
    frame.lbgpt.complete("{t}", engine=ScriptedGPT("paid", cache=store))
    assert len(store) == 1


def test_bytes_and_surrogates_are_row_errors_without_a_call():
    frame = pd.DataFrame({"t": ["fine", b"raw", "lone \ud800"]})
    engine = ScriptedGPT("ok")
    with pytest.warns(lb.RowErrorsWarning, match="2 InvalidInput"):
        answers = frame.lbgpt.complete("{t}", engine=engine)
    assert answers.notna().tolist() == [True, False, False]
    assert len(engine.requests) == 1
    assert lb.last_run().rows["error_type"].tolist()[1:] == ["InvalidInput"] * 2


async def test_acomplete_twice_at_once_and_sync_inside_the_loop():
    engine = upper()
    frame = pd.DataFrame({"t": list("abc")})
    a, b = await asyncio.gather(
        frame.lbgpt.acomplete("1{t}", engine=engine), frame.lbgpt.acomplete("2{t}", engine=engine)
    )
    assert (a.tolist(), b.tolist()) == (["1A", "1B", "1C"], ["2A", "2B", "2C"])
    assert frame.lbgpt.complete("3{t}", engine=engine).tolist() == ["3A", "3B", "3C"]


async def test_a_cancelled_acomplete_keeps_finished_rows():
    def slow(request):
        return 30.0 if request.messages[-1]["content"] == "c" else 0.0

    engine = ScriptedGPT("ok", latency_s=slow)
    frame = pd.DataFrame({"t": list("abc")})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(frame.lbgpt.acomplete("{t}", engine=engine), 0.3)
    report = lb.last_run()
    assert report.rows["status"].tolist() == ["ok", "ok", "not_run"]
    assert report.result.tolist()[:2] == ["ok", "ok"]
    again = ScriptedGPT("again")
    assert frame.lbgpt.complete("{t}", engine=again).tolist() == ["ok", "ok", "again"]


def test_over_a_real_server_through_the_sdk():
    with FakeProvider() as server:
        engine = lb.ChatGPT("sk-CANARY0123456789", base_url=server.base_url)
        frame = pd.DataFrame({"t": [f"row {i}" for i in range(50)]})
        for _ in range(3):
            answers = frame.lbgpt.complete("{t}", model="gpt-4o-mini", engine=engine)
        assert answers.tolist() == [f"A:row {i}" for i in range(50)]
        assert len(server.requests) == 50
        azure = lb.AzureGPT("sk-CANARY0123456789", server.azure_base, {"gpt-4o-mini": "dep"})
        more = pd.DataFrame({"t": ["azure row"]})
        assert more.lbgpt.complete("{t}", model="gpt-4o-mini", engine=azure).tolist() == [
            "A:azure row"
        ]
        assert lb.last_run().cost_usd > 0


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(status):
    with FakeProvider() as other:
        location = {"location": f"{other.base_url}/chat/completions"}
        with FakeProvider(faults=lambda _: Fault.respond(status, "", headers=location)) as server:
            for engine in (
                lb.ChatGPT("sk-CANARY0123456789", base_url=server.base_url),
                lb.AzureGPT("sk-CANARY0123456789", server.azure_base, {"m": "m"}),
            ):
                with pytest.raises(lb.NotFound, match="redirects"):
                    CITIES.lbgpt.complete("{city}", model="m", engine=engine)
            assert len(server.requests) == 2
        assert len(other.requests) == 0


def test_errors_of_many_rows_keep_no_traceback():
    engine = ScriptedGPT(fail_on("Rome"))
    with pytest.warns(lb.RowErrorsWarning):
        CITIES.lbgpt.complete("{city}", engine=engine)
    ((_, error),) = lb.last_run().first_failures(1)
    assert error.__traceback__ is None
    assert error.__context__ is None


def test_a_wrong_key_is_one_call_and_an_auth_error():
    with FakeProvider(keys=["good"]) as server:
        engine = lb.ChatGPT("sk-CANARY0123456789", base_url=server.base_url)
        frame = pd.DataFrame({"t": [f"row {i}" for i in range(50)]})
        with pytest.raises(lb.AuthError) as caught:
            frame.lbgpt.complete("{t}", model="gpt-4o-mini", engine=engine)
        assert len(server.requests) == 1
        assert "CANARY" not in str(caught.value)
        assert any("0 of 50 rows" in note for note in caught.value.__notes__)


def test_an_unknown_model_is_one_call_and_a_clear_error():
    with FakeProvider(models=["gpt-4o-mini"]) as server:
        engine = lb.ChatGPT("sk-CANARY0123456789", base_url=server.base_url)
        frame = pd.DataFrame({"t": [f"row {i}" for i in range(50)]})
        with pytest.raises(lb.NotFound, match="gpt-9"):
            frame.lbgpt.complete("{t}", model="gpt-9", engine=engine)
        assert len(server.requests) == 1


def test_a_broken_accessor_argument_does_not_break_dir():
    assert "lbgpt" in dir(CITIES)
    assert CITIES.lbgpt is not None
