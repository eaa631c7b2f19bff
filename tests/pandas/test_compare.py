"""`compare`: the same rows asked in several ways."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.testing import ScriptedGPT

FRAME = pd.DataFrame(
    {"text": ["late", "kind", None, "late", "dear", "<b>x</b>"]}, index=list("aabcde")
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path):
    with lb.using(cache=tmp_path / "cache", progress="none"):
        yield


@pytest.fixture
def engine():
    def reply(request):
        text = request.messages[-1]["content"]
        if "strict" in str(request.messages[0]["content"]) and "kind" in text:
            return "no"
        return " YES" if request.params.get("temperature") == 0 else "yes  "

    return ScriptedGPT(reply, model="gpt-4o-mini")


VARIANTS = {
    "plain": "{text}?",
    "strict": {"template": "{text}?", "system": "Be strict.", "temperature": 0},
    "label": {"template": "{text}?", "labels": ["yes", "no"]},
}


def test_answers_stand_side_by_side_and_the_report_says_the_rest(engine):
    VARIANTS["label"]["engine"] = ScriptedGPT("yes")
    answers = FRAME.lbgpt.compare(VARIANTS, engine=engine)
    assert list(answers.columns) == ["plain", "strict", "label"]
    assert answers.index.equals(FRAME.index)
    assert answers["label"].dtype == "category"
    assert answers.isna().all(axis=1).tolist() == [False, False, True, False, False, False]
    comparison = lb.last_comparison()
    assert comparison.agreement.loc["plain", "strict"] == pytest.approx(4 / 5)
    assert comparison.agreement.loc["plain", "label"] == 1.0
    assert np.array_equal(comparison.agreement, comparison.agreement.T)
    table = comparison.table
    assert table["rows"].tolist() == [6, 6, 6]
    assert table["failed"].tolist() == [0, 0, 0]
    assert table.loc["strict", "prompt_tokens"] > table.loc["plain", "prompt_tokens"]
    assert table.loc["plain", "cost_usd"] > 0
    assert table.loc["plain", "usd_per_1000_rows"] == pytest.approx(
        1000 * table.loc["plain", "cost_usd"] / 5
    )
    assert table.loc["label", "cost_usd"] is pd.NA
    assert table["latency_p50_s"].notna().all()
    assert comparison.disagreements()["strict"].tolist() == ["no"]
    assert comparison.disagreements().index.tolist() == ["a"]
    assert set(comparison.reports) == set(VARIANTS)


def test_the_cost_is_that_of_the_answers_also_of_cached_ones(engine):
    two = {name: VARIANTS[name] for name in ("plain", "strict")}
    FRAME.lbgpt.compare(two, engine=engine)
    before, sent = lb.last_comparison().table, len(engine.requests)
    FRAME.lbgpt.compare(two, engine=engine)
    after = lb.last_comparison().table
    assert len(engine.requests) == sent
    assert after["cost_usd"].tolist() == pytest.approx(before["cost_usd"].tolist())
    assert after["latency_p50_s"].isna().all()


def test_a_sample_is_the_same_for_all_and_keeps_its_order(engine):
    numbers = pd.DataFrame({"text": [f"t{n:03d}" for n in range(100)]})
    answers = numbers.lbgpt.compare(
        {"one": "{text}", "two": "Now {text}"}, sample=20, random_state=1, engine=engine
    )
    assert len(answers) == 20
    assert answers.index.is_monotonic_increasing
    asked = [request.messages[-1]["content"][-4:] for request in engine.requests]
    assert sorted(asked[:20]) == sorted(asked[20:]) == [f"t{n:03d}" for n in answers.index]
    again = numbers.lbgpt.compare({"one": "{text}"}, sample=0.2, random_state=1, engine=engine)
    assert again.index.equals(answers.index)
    assert len(engine.requests) == 40


@pytest.mark.parametrize(
    ("variants", "keywords", "message"),
    [
        ({}, {}, "give a mapping"),
        (["{text}"], {}, "give a mapping"),
        ({"good": "{text}", "bad": "{txet}"}, {}, r"variant 'bad': .*did you mean 'text'"),
        ({"good": "{text}", "bad": {"template": "{text}", "na": 3}}, {}, "variant 'bad'"),
        ({"good": "{text}", "bad": {"template": "{text}", "temprature": 3}}, {}, "temperature"),
        ({"good": "{text}", "bad": {"template": "{text}", "labels": []}}, {}, "variant 'bad'"),
        ({1: "{text}", "1": "{text}!"}, {}, "the same name"),
        ({"good": "{text}"}, {"sample": 7}, "from 1 to 6"),
        ({"good": "{text}"}, {"sample": 1.5}, "from 1 to 6"),
        ({"good": "{text}"}, {"sample": True}, "sample=True"),
    ],
)
def test_what_cannot_work_is_refused_before_any_call(engine, variants, keywords, message):
    with pytest.raises((lb.ConfigurationError, lb.TemplateError, TypeError), match=message):
        FRAME.lbgpt.compare(variants, engine=engine, **keywords)
    assert engine.requests == []


def test_a_budget_is_that_of_all_variants(engine):
    texts = pd.Series([f"t{n}" for n in range(30)])
    with pytest.raises(lb.BudgetExceeded):
        texts.lbgpt.compare({"a": "{}", "b": "B {}"}, budget=lb.Budget(requests=40), engine=engine)
    assert len(engine.requests) == 40


def test_series_text_and_html(engine):
    FRAME["text"].lbgpt.compare({"<b>x</b>": "{}", "two": "{}!"}, engine=engine)
    comparison = lb.last_comparison()
    assert "agreement" in str(comparison)
    assert "6 rows" in repr(comparison)
    html = comparison._repr_html_()
    assert "<b>x" not in html
    assert "100.0%" in html


def test_the_plot_has_three_parts(engine, tmp_path):
    pytest.importorskip("matplotlib")
    FRAME.lbgpt.compare({name: VARIANTS[name] for name in ("plain", "strict")}, engine=engine)
    figure = lb.last_comparison().plot()
    assert [axes.get_title() for axes in figure.axes][2] == "rows with equal answers"
    figure.savefig(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 5_000
