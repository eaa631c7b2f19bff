"""`extract`, `classify` and `matches`: typed columns, and what becomes of replies that do not fit."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Literal

import pandas as pd
import pytest
from pydantic import BaseModel

import lbgpt_pandas as lb
from lbgpt_pandas.testing import ScriptedGPT
from lbgpt_pandas.testing.wire import chat_completion


class Stay(BaseModel):
    city: str
    nights: int | None = None
    mood: Literal["good", "bad"]


NOTES = pd.DataFrame(
    {"text": ["Rome, 3 nights, lovely", "Oslo, awful", None, "Rome, 3 nights, lovely"]},
    index=["a", "b", "b", "c"],
)
ROME = json.dumps({"city": "Rome", "nights": 3, "mood": "good"})
OSLO = json.dumps({"city": "Oslo", "nights": None, "mood": "bad"})


def question(request):
    """The row's text; instructions stand before it, and what was asked again behind it."""
    return next(each["content"] for each in request.messages if each["role"] == "user")


def right(request):
    return ROME if "Rome" in question(request) else OSLO


def asked(engine):
    return [request.messages for request in engine.requests]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path):
    with lb.using(cache=tmp_path / "cache", progress="none"):
        yield


def test_fields_become_typed_columns_under_the_frames_index():
    frame = NOTES.lbgpt.extract("{text}", Stay, engine=ScriptedGPT(right), prefix="x_")
    assert frame.index.equals(NOTES.index)
    assert frame["x_city"].tolist()[:2] == ["Rome", "Oslo"]
    assert frame.isna().all(axis=1).tolist() == [False, False, True, False]
    kinds = frame.dtypes.astype(str).to_dict()
    assert (kinds["x_nights"], kinds["x_mood"]) == ("Int64", "category")
    assert lb.last_run().result.equals(frame)


def test_a_model_that_takes_schemas_is_sent_one_and_others_are_told():
    for model, sent in (("gpt-4o-mini", True), ("openai/gpt-4.1", True), ("some-model", False)):
        engine = ScriptedGPT(right)
        NOTES.head(1).lbgpt.extract("{text}", Stay, engine=engine, model=model)
        (request,) = engine.requests
        assert ("response_format" in request.params) is sent
        assert (request.messages[0]["role"] == "system") is not sent


def test_instructions_stand_behind_the_system_message_with_their_braces():
    engine = ScriptedGPT(ROME)
    NOTES.head(1).lbgpt.extract("{text}", {"city": str}, engine=engine, system="Be brief.")
    system = engine.requests[0].messages[0]["content"]
    assert system.startswith("Be brief.\n\nAnswer with JSON only")
    assert "{" in system
    assert "{{" not in system


def test_a_system_message_that_is_no_text_is_refused_where_instructions_are_needed():
    engine = ScriptedGPT(ROME)
    with pytest.raises(lb.ConfigurationError, match="give the rest of it as a text"):
        NOTES.lbgpt.extract("{text}", Stay, engine=engine, system=lb.col("text"))
    assert not engine.requests


def test_a_reply_that_does_not_fit_is_asked_again_with_what_is_wrong():
    replies = iter(['{"city": "Rome", "nights": "many", "mood": "good"}', "no idea", ROME])
    engine = ScriptedGPT(lambda _: next(replies))
    frame = NOTES.head(1).lbgpt.extract("{text}", Stay, engine=engine)
    assert frame.iloc[0].tolist() == ["Rome", 3, "good"]
    first, second, third = asked(engine)
    assert len(third) == len(second) + 2 == len(first) + 4
    assert "nights" in second[-1]["content"]
    assert second[-2] == {"role": "assistant", "content": asked_reply(second)}
    row = lb.last_run().rows.iloc[0]
    assert (row["status"], row["attempts"], row["source"]) == ("ok", 3, "provider")
    assert lb.last_run().summary.snapshot.failed == 0


def asked_reply(messages):
    return next(each["content"] for each in messages if each["role"] == "assistant")


def test_what_never_fits_fails_with_its_reply_and_the_cost_of_all_calls():
    engine = ScriptedGPT("I would rather not", model="gpt-4o-mini")
    with pytest.warns(lb.RowErrorsWarning, match="SchemaMismatch"):
        frame = NOTES.head(1).lbgpt.extract("{text}", Stay, engine=engine)
    assert frame.isna().all(axis=None)
    assert len(engine.requests) == 3
    report = lb.last_run()
    assert report.rows.iloc[0]["error_type"] == "SchemaMismatch"
    assert report.cost_usd > 0
    shot = report.summary.snapshot
    assert (shot.done, shot.failed, shot.asked) == (0, 1, 0)
    assert report.cost_usd == pytest.approx(shot.cost_usd)
    ((_, error),) = report.first_failures(1)
    assert error.raw == "I would rather not"


def test_partial_keeps_the_fields_that_are_valid():
    engine = ScriptedGPT('{"city": "Rome", "nights": "many", "mood": "good"}')
    frame = NOTES.head(1).lbgpt.extract(
        "{text}", Stay, engine=engine, partial=True, errors="ignore"
    )
    assert frame["city"].tolist() == ["Rome"]
    assert frame["nights"].isna().all()


def test_a_second_run_pays_nothing_not_even_for_what_was_asked_again():
    def reply(request):
        return right(request) if len(request.messages) > 2 else "hm"

    for _ in range(2):
        engine = ScriptedGPT(reply)
        frame = NOTES.lbgpt.extract("{text}", Stay, engine=engine)
        assert frame["city"].notna().sum() == 3
    assert engine.requests == []
    assert lb.last_run().cost_usd == 0
    assert set(lb.last_run().rows["source"]) == {"exact_cache", "skipped"}


def test_retry_failed_asks_the_failed_rows_and_returns_the_frame():
    broken = True

    def reply(request):
        return "no" if broken and "Oslo" in question(request) else right(request)

    engine = ScriptedGPT(reply)
    with pytest.warns(lb.RowErrorsWarning):
        NOTES.lbgpt.extract("{text}", Stay, engine=engine, cache_mode="off")
    broken = False
    before = len(engine.requests)
    frame = lb.last_run().retry_failed()
    assert len(engine.requests) == before + 1
    assert frame["city"].tolist()[:2] == ["Rome", "Oslo"]


def test_labels_become_a_category_and_near_ones_are_not_taken():
    engine = ScriptedGPT(lambda r: "good" if "Rome" in question(r) else "goodish")
    with pytest.warns(lb.RowErrorsWarning, match="SchemaMismatch"):
        moods = NOTES.lbgpt.classify("{text}", ["good", "bad", "very good"], engine=engine)
    assert moods.dtype == pd.CategoricalDtype(["good", "bad", "very good"])
    assert moods.tolist()[0] == "good"
    assert moods.isna().tolist() == [False, True, True, False]


def test_several_labels_are_lists():
    engine = ScriptedGPT('{"labels": ["b", "a"]}')
    found = NOTES.head(1).lbgpt.classify("{text}", ["a", "b", "c"], multi=True, engine=engine)
    assert found.tolist() == [["a", "b"]]


def test_matches_select_rows():
    engine = ScriptedGPT(lambda r: "yes" if "Rome" in question(r) else "No.")
    chosen = NOTES.lbgpt.matches("Is {text} warm?", engine=engine)
    assert chosen.dtype == "boolean"
    assert NOTES[chosen.fillna(value=False)].index.tolist() == ["a", "c"]


@pytest.mark.parametrize("keyword", ["response_format", "tools"])
def test_what_the_verb_says_itself_is_refused(keyword):
    with pytest.raises(lb.ConfigurationError, match=keyword):
        NOTES.lbgpt.matches("{text}", engine=ScriptedGPT("yes"), **{keyword: {}})


def test_bad_schemas_and_labels_fail_before_any_call():
    engine = ScriptedGPT(ROME)
    with pytest.raises(lb.ConfigurationError, match="when"):
        NOTES.lbgpt.extract("{text}", {"when": object}, engine=engine)
    with pytest.raises(lb.ConfigurationError):
        NOTES.lbgpt.classify("{text}", [], engine=engine)
    with pytest.raises(lb.TemplateError):
        NOTES.lbgpt.extract("{nowhere}", Stay, engine=engine)
    assert not engine.requests


def test_an_empty_frame_has_the_columns_all_the_same():
    frame = NOTES.head(0).lbgpt.extract("{text}", Stay, engine=ScriptedGPT(ROME))
    assert frame.columns.tolist() == ["city", "nights", "mood"]
    assert frame.empty


def test_parameters_go_to_the_provider():
    engine = ScriptedGPT("yes")
    NOTES.head(1).lbgpt.matches("{text}", engine=engine, temperature=0.25, seed=7)
    assert engine.requests[0].params["temperature"] == 0.25
    assert engine.requests[0].params["seed"] == 7


def test_retry_failed_asks_anew_for_replies_that_did_not_fit(tmp_path):
    replies = {"Oslo": "nonsense"}
    engine = ScriptedGPT(lambda request: replies.get(question(request)[:4], right(request)))
    with lb.using(engine=engine, cache=tmp_path, errors="ignore", progress="none"):
        first = NOTES["text"].lbgpt.extract("{}", Stay)
        assert first["mood"].isna().tolist() == [False, True, True, False]
        report, sent = lb.last_run(), len(engine.requests)
        # The same run again asks nobody: what did not fit is stored like any answer.
        assert NOTES["text"].lbgpt.extract("{}", Stay)["mood"].isna().sum() == 2
        assert len(engine.requests) == sent
        report.retry_failed()
        assert [question(request)[:4] for request in engine.requests[sent:]] == ["Oslo"] * 3
        replies.clear()
        sent = len(engine.requests)
        fixed = lb.last_run().retry_failed()
        assert fixed["mood"].tolist()[:2] == ["good", "bad"]
        assert [question(request)[:4] for request in engine.requests[sent:]] == ["Oslo"]
        # What fits has taken the place of what did not.
        again = NOTES["text"].lbgpt.extract("{}", Stay)
        assert again.equals(fixed)
        assert len(engine.requests) == sent + 1


def test_a_replayed_run_does_not_ask_anew(tmp_path):
    engine = ScriptedGPT("nonsense")
    with lb.using(engine=engine, cache=tmp_path, errors="ignore", progress="none"):
        NOTES["text"].lbgpt.extract("{}", Stay)
        sent = len(engine.requests)
        NOTES["text"].lbgpt.extract("{}", Stay, cache_mode="replay")
        lb.last_run().retry_failed()
    assert len(engine.requests) == sent


def unlike(request):
    """Fits at once for Rome, after one and two more questions for Oslo and Lima, never for Bonn."""
    city, rounds = question(request)[:4], len(request.messages)
    needed = {"Rome": 0, "Oslo": 1, "Lima": 2, "Bonn": 9}[city]
    tries = sum(each["role"] == "assistant" for each in request.messages)
    if tries < needed:
        return f'{{"city": "{city}", "nights": 3, "mood": "so so {rounds}"}}'
    return json.dumps({"city": city, "nights": None, "mood": "bad"})


@pytest.fixture
def towns():
    return pd.Series(["Rome", "Oslo", "Lima", None, "Bonn", "Oslo"])


def test_an_archive_holds_what_was_asked_again(tmp_path, towns):
    engine = ScriptedGPT(unlike)
    with lb.using(engine=engine, cache=tmp_path / "c", errors="ignore", progress="none"):
        made = towns.lbgpt.extract("{}", Stay, partial=True)
        assert made["mood"].isna().tolist() == [False, False, False, True, True, False]
        assert made["nights"].tolist()[4] == 3
        report = lb.last_run()
        path = report.export(tmp_path / "towns.lbgpt.zip")
        sent = len(engine.requests)
        with lb.replay(path):
            again = towns.lbgpt.extract("{}", Stay, partial=True)
            failed = lb.last_run().errors
        assert report.diff(path).empty
    pd.testing.assert_frame_equal(again, made)
    assert failed["error_type"].tolist() == ["SchemaMismatch"]
    assert len(engine.requests) == sent == 1 + 2 + 3 + 3
    with lb.using(engine=engine, cache=tmp_path / "other", errors="ignore", progress="none"):
        lb.load_run(path)
        pd.testing.assert_frame_equal(towns.lbgpt.extract("{}", Stay, partial=True), made)
    assert len(engine.requests) == sent


def test_an_archive_of_a_retried_run_holds_both(tmp_path, towns):
    never = {"Bonn"}
    engine = ScriptedGPT(
        lambda request: (
            unlike(request)
            if question(request)[:4] != "Bonn" or never
            else json.dumps({"city": "Bonn", "mood": "good"})
        )
    )
    with lb.using(engine=engine, cache=tmp_path / "c", errors="ignore", progress="none"):
        towns.lbgpt.extract("{}", Stay)
        report = lb.last_run()
        never.clear()
        made = report.retry_failed()
        assert made["mood"].isna().tolist() == [False, False, False, True, False, False]
        path = lb.last_run().export(tmp_path / "towns.lbgpt.zip")
        with lb.replay(path):
            pd.testing.assert_frame_equal(towns.lbgpt.extract("{}", Stay), made)
        assert report.diff(path)["change"].tolist() == ["status"]


def second_try_fails(request):
    """As `unlike`, but the second question for Lima is refused, and the third one is not."""
    tries = sum(each["role"] == "assistant" for each in request.messages)
    if question(request) == "Lima" and tries == 1:
        return lb.ContextTooLong("too long by now")
    return unlike(request)


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (lambda rows, **how: rows.lbgpt.extract("{}", Stay, **how), None),
        (lambda rows, **how: rows.lbgpt.classify("{}", ["good", "bad"], **how), "bad"),
        (lambda rows, **how: rows.lbgpt.matches("{}", **how), "yes"),
    ],
    ids=["extract", "classify", "matches"],
)
def test_an_archive_holds_what_failed_when_it_was_asked_again(tmp_path, towns, verb, said):
    def reply(request):
        answer = second_try_fails(request)
        fits = isinstance(answer, str) and answer.endswith('"bad"}')
        return said if said and fits else answer

    engine = ScriptedGPT(reply)
    with lb.using(cache=tmp_path / "c", errors="ignore", progress="none"):
        made = verb(towns, engine=engine)
        report, sent = lb.last_run(), len(engine.requests)
        assert report.rows["error_type"].fillna("").tolist() == [*[""] * 4, "SchemaMismatch", ""]
        path = report.export(tmp_path / "towns.lbgpt.zip")
        with lb.replay(path):
            again, rows = verb(towns), lb.last_run().rows
            assert verb(towns[:3]).equals(made[:3])
        assert again.equals(made)
        assert rows["message"].equals(report.rows["message"])
        assert len(engine.requests) == sent


def test_a_miss_among_what_is_asked_again_names_its_row(tmp_path, towns):
    engine = ScriptedGPT(unlike, max_parallel_calls=1)
    with lb.using(cache=tmp_path / "c", errors="ignore", progress="none"):
        with pytest.raises(lb.BudgetExceeded):
            towns.lbgpt.extract("{}", Stay, engine=engine, budget=lb.Budget(requests=5))
        errors = lb.last_run().errors
        assert (
            errors["message"].str.extract("asked for (.*?):")[0].tolist()
            == ["once, when the run was stopped"] * 2
        )
        path = lb.last_run().export(tmp_path / "towns.lbgpt.zip")
        with lb.replay(path), pytest.raises(lb.CacheMiss, match=r"row [24] .*stopped before"):
            towns.lbgpt.extract("{}", Stay)


CUT = {"finish_reason": "length", "message": {"role": "assistant", "content": '{"city": "Ro'}}
REFUSAL = {
    "finish_reason": "stop",
    "message": {"role": "assistant", "content": None, "refusal": "I won't."},
}


@pytest.mark.parametrize(("choice", "said"), [(CUT, "larger max_tokens"), (REFUSAL, "refused")])
def test_what_would_be_the_same_again_is_not_asked_again(tmp_path, towns, choice, said):
    usage = {"prompt_tokens": 5, "completion_tokens": 5}
    reply = {"id": "x", "model": "m", "choices": [choice | {"index": 0}], "usage": usage}
    engine = ScriptedGPT(lambda _request: reply)
    with lb.using(cache=tmp_path / "c", errors="ignore", progress="none"):
        towns.lbgpt.extract("{}", Stay, engine=engine)
        report = lb.last_run()
        assert len(engine.requests) == len(towns.dropna().unique())
        assert report.errors["message"].str.contains(said).all()
        path = report.export(tmp_path / "towns.lbgpt.zip")
        with lb.replay(path):
            towns.lbgpt.extract("{}", Stay)
            assert lb.last_run().errors["message"].equals(report.errors["message"])


def test_a_decimal_has_all_digits_of_the_reply():
    engine = ScriptedGPT('{"price": 12345678901234567.89, "rate": 0.1000000000000000055}')
    fields = {"price": Decimal, "rate": float}
    made = pd.Series(["x"]).lbgpt.extract("{}", fields, engine=engine)
    assert made["price"][0] == Decimal("12345678901234567.89")
    assert made["rate"][0] == 0.1


def test_a_key_that_is_refused_among_what_is_asked_again_ends_the_run(towns):
    def reply(request):
        is_first = len(request.messages) == len(engine.requests[0].messages)
        return "nonsense" if is_first else lb.AuthError("revoked", status=401)

    engine = ScriptedGPT(reply)
    with pytest.raises(lb.RunAborted, match="revoked"):
        towns.lbgpt.extract("{}", Stay, engine=engine, progress="none")
    assert lb.runs()["status"][0] == "aborted"


def with_logprobs(text, *tokens):
    """A whole body whose tokens have these log probabilities."""
    body = chat_completion({}, text, number=1, created=0, model="gpt-4o-mini")
    parts = [{"token": token, "logprob": logprob, "bytes": None} for token, logprob in tokens]
    body["choices"][0]["logprobs"] = {"content": parts}
    return body


GOOD = with_logprobs('{"label":"good"}', ('{"label":"', -3.0), ("good", -0.5), ('"}', -3.0))


def test_confidence_is_in_the_report_of_new_and_of_stored_answers():
    for source in ("provider", "exact_cache"):
        engine = ScriptedGPT(lambda _: GOOD, model="gpt-4o-mini")
        moods = NOTES.lbgpt.classify("{text}", ["good", "bad"], engine=engine, confidence=True)
        assert moods.dtype == "category"
        assert all(request.params["logprobs"] is True for request in engine.requests)
        rows = lb.last_run().rows
        assert rows["source"].iloc[0] == source
        assert rows["confidence"].dtype == "Float64"
        assert rows["confidence"].isna().tolist() == [False, False, True, False]
        assert rows["confidence"].iloc[0] == pytest.approx(0.60653, abs=1e-5)


def test_confidence_is_of_the_reply_that_was_taken():
    wrong = with_logprobs("nice", ("nice", -0.1))
    engine = ScriptedGPT([wrong, GOOD], model="gpt-4o-mini")
    NOTES.head(1).lbgpt.classify("{text}", ["good", "bad"], engine=engine, confidence=True)
    assert lb.last_run().rows["confidence"].iloc[0] == pytest.approx(0.60653, abs=1e-5)


def test_a_row_that_fails_has_no_confidence():
    engine = ScriptedGPT(lambda _: with_logprobs("nice", ("nice", -0.1)), model="gpt-4o-mini")
    NOTES.head(1).lbgpt.classify(
        "{text}", ["good"], engine=engine, confidence=True, errors="ignore"
    )
    assert lb.last_run().rows["confidence"].isna().all()


def test_nobody_is_asked_for_probabilities_unless_somebody_wants_them():
    engine = ScriptedGPT(lambda _: GOOD, model="gpt-4o-mini")
    NOTES.head(1).lbgpt.classify("{text}", ["good", "bad"], engine=engine)
    assert "logprobs" not in engine.requests[0].params
    assert lb.last_run().rows["confidence"].isna().all()


@pytest.mark.parametrize("model", ["gpt-5-mini", "o3", "anthropic/claude-sonnet-4-5"])
def test_models_without_probabilities_are_not_asked_for_them(model):
    engine = ScriptedGPT('{"answer": true}')
    with pytest.warns(lb.LbgptWarning, match="does not tell") as warned:
        found = NOTES.head(1).lbgpt.matches("{text}", engine=engine, model=model, confidence=True)
    assert warned[0].filename == __file__
    assert found.tolist() == [True]
    assert "logprobs" not in engine.requests[0].params
    assert lb.last_run().rows["confidence"].isna().all()


def test_yes_and_no_have_a_confidence_too():
    engine = ScriptedGPT(lambda _: with_logprobs("Yes", ("Yes", -0.25)))
    NOTES.head(1).lbgpt.matches("{text}", engine=engine, confidence=True)
    assert lb.last_run().rows["confidence"].iloc[0] == pytest.approx(0.7788, abs=1e-4)


def test_confidence_does_not_keep_the_providers_objects():
    engine = ScriptedGPT(lambda _: GOOD, model="gpt-4o-mini")
    NOTES.head(1).lbgpt.classify("{text}", ["good", "bad"], engine=engine, confidence=True)
    (outcome,) = lb.last_run()._outcomes
    assert outcome.completion.payload is None


def test_confidence_is_true_or_false():
    engine = ScriptedGPT(lambda _: GOOD)
    with pytest.raises(lb.ConfigurationError, match=r"confidence=0\.5"):
        NOTES.lbgpt.classify("{text}", ["good", "bad"], engine=engine, confidence=0.5)
    assert not engine.requests
