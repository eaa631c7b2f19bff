"""``%lbgpt`` and ``%%lbgpt`` in an IPython shell of this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings

import pandas as pd
import pytest

pytest.importorskip("IPython")

from IPython.core.error import UsageError

import lbgpt_pandas as lb
from lbgpt_pandas.engine.errors import AuthError, RateLimited
from lbgpt_pandas.notebook import magics
from lbgpt_pandas.notebook.answer_forms import MOST_SHOWN, bundle_of, value_of
from lbgpt_pandas.notebook.commands import LEVELS
from lbgpt_pandas.testing import ScriptedGPT

KEY = "sk-proj-abcdef0123456789"


@pytest.fixture
def shell(ipython_shell):
    ipython_shell.run_line_magic("load_ext", "lbgpt_pandas")
    return ipython_shell


class Session:
    """Runs cells; what a cell prints and returns is kept."""

    def __init__(self, shell, capsys):
        self.shell, self._capsys = shell, capsys
        self.names = shell.user_ns

    def run(self, code):
        """Run a cell that must not fail; return its result."""
        done = self.shell.run_cell(code, store_history=True)
        self.printed = self._capsys.readouterr()
        assert done.success, self.printed.err
        return done.result

    def fail(self, code):
        """Run a cell that must fail with a plain UsageError of one line; return the line."""
        done = self.shell.run_cell(code, store_history=True)
        self.printed = self._capsys.readouterr()
        assert type(done.error_in_exec) is UsageError, (done, self.printed)
        assert "Traceback" not in self.printed.err + self.printed.out
        lines = self.printed.err.strip().splitlines()
        assert len(lines) == 1, lines
        return lines[0].removeprefix("UsageError: ")


@pytest.fixture
def session(shell, capsys):
    return Session(shell, capsys)


@pytest.fixture
def engine():
    made = ScriptedGPT(name="east", limit_rpm=1_000_000)
    lb.configure(made, model="gpt-4o-mini", cache={})
    return made


@pytest.fixture
def reviews(session):
    session.names["df"] = pd.DataFrame(
        {"text": ["good", "bad", None], "price": [1.5, 2.0, 3.0]}, index=["a", "b", "c"]
    )
    return session.names["df"]


def asked(engine):
    return [request.messages[-1]["content"] for request in engine.requests]


# --- the line ---------------------------------------------------------------------------------


def test_no_command_shows_help_and_the_state_in_one_line(session, engine):
    text = str(session.run("%lbgpt"))
    for name in ("status", "headroom", "usage", "config", "models", "cache", "report", "runs"):
        assert f"    {name} " in text
    state = text.strip().splitlines()[-1]
    assert "east" in state
    assert "gpt-4o-mini" in state
    assert "0 calls in flight, 0 runs in the background · " in state


FRESH = """
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
shell.run_line_magic("load_ext", "lbgpt_pandas")
assert "no engine yet" in str(shell.run_line_magic("lbgpt", ""))
assert shell.run_line_magic("lbgpt", "status").empty
"""


@pytest.mark.process
def test_the_state_without_any_engine(tmp_path):
    # In a process of its own, because engines of other tests may still be alive in this one.
    home = {"IPYTHONDIR": str(tmp_path), "LBGPT_CACHE_DIR": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", FRESH], check=True, env=os.environ | home)


@pytest.mark.parametrize(
    "line",
    [
        "--help", "-h", "status -h", "headroom -h", "usage --help", "config --help", "models -h",
        "cache --help", "cache clear --help", "cache info -h", "cache stats -h", "cache path -h",
        "cache forget -h", "cache export -h", "cache load -h", "cache near -h", "report --help",
        "runs -h", "cancel -h", "retry -h",
    ],
)  # fmt: skip
def test_every_command_explains_itself(session, line):
    assert session.run(f"%lbgpt {line}") is None
    assert session.printed.out.startswith(f"usage: %lbgpt {line.rpartition(' ')[0]}".strip())
    assert session.printed.err == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("stauts", "no command 'stauts'; did you mean 'status'?"),
        ("xyzzy", "there are status, headroom, usage"),
        ("status now", "unrecognized arguments: now"),
        ("usage --by", "expected one argument"),
        ("usage --by modl", "no level 'modl'; did you mean 'model'?"),
        ("usage --by ,", "no level ','"),
        ("usage --since yesterdayish", "since='yesterdayish' is not understood"),
        ("usage 'open", "cannot be divided into words"),
        ("models nothing-like-it", "no known model matches"),
        ("cache clean", "invalid choice: 'clean'"),
        ("cache clear", "add --yes"),
        ("cache forget", "required: WHAT"),
        ("cache forget nobody", "no variable nobody"),
        ("cache forget engine", "is a ScriptedGPT"),
        ("cache export", "required: FILE"),
        ("cache load /nowhere/at/all.zip", "FileNotFoundError"),
        ("report", "no run yet in this process"),
        ("report nope", "no run 'nope' is registered"),
        ("cancel", "no run is going on"),
        ("retry", "no run yet"),
        ("retry nope", "not of this process"),
        ("config modle=x", "no setting 'modle'; did you mean 'model'?"),
        ("config model=", "model= has no value"),
        ("config errors=rais", "errors='rais' is not one of"),
        ("config budget=lots", "give a number of USD"),
        ("config max_parallel=1.5", "give a whole number"),
        ("config max_parallel=0", "at least 1"),
        ("config engine=nobody", "no variable nobody"),
        ("config engine=df", "engine=DataFrame is not an engine"),
        ("config --file /nowhere/at/all.toml", "FileNotFoundError"),
    ],
)
def test_a_wrong_line_is_one_plain_line(session, engine, reviews, line, message):
    session.names["engine"] = engine
    assert message in session.fail(f"%lbgpt {line}")
    with pytest.raises(UsageError):
        session.shell.run_line_magic("lbgpt", line)


def test_ipython_expands_no_variable_of_the_line(session, engine):
    session.names["text"] = "status"
    assert "'{text}'" in session.fail("%lbgpt {text}")
    assert "'$text'" in session.fail("%lbgpt $text")


def test_a_result_is_kept_and_a_semicolon_only_hides_it(session, engine, reviews):
    session.run("df.lbgpt.complete('{text}')")
    assert session.run("u = %lbgpt usage;\nu").index.names == ["model", "deployment"]
    assert session.run("%lbgpt usage ;") is None
    assert session.run("%lbgpt usage").equals(session.names["u"])
    assert session.shell.run_line_magic("lbgpt", "usage;").equals(session.names["u"])


def test_a_line_inside_a_function_sees_its_names(session, engine):
    session.run(
        "def f():\n    inner = engine_of()\n    %lbgpt config engine=inner\n"
        "from lbgpt_pandas.testing import ScriptedGPT\n"
        "engine_of = lambda: ScriptedGPT(name='inner')\nf()"
    )
    assert lb.settings().engine.name == "inner"


# --- commands ---------------------------------------------------------------------------------


def test_status_and_headroom(session, engine):
    status = session.run("%lbgpt status")
    assert status.index[0] == "east"
    first = status.iloc[0]
    assert (first["state"], first["requests_limit"], first["in_flight"]) == ("ready", 1_000_000, 0)
    assert session.run("%lbgpt headroom")["requests"].iloc[0] == 1_000_000


def test_usage_in_its_forms(session, engine, reviews):
    session.run("df.lbgpt.complete('{text}', model='usage-model')")
    frame = session.run("%lbgpt usage --by model --since 1h")
    assert frame.loc["usage-model", "requests"] == 2
    assert session.run("%lbgpt usage --by deployment,model").index.names == ["deployment", "model"]
    flat = session.run("%lbgpt usage --df")
    assert list(flat.columns[:2]) == ["model", "deployment"]
    text = session.run("%lbgpt usage --json --by model")
    assert repr(text) == str(text)
    assert {"model": "usage-model", "requests": 2}.items() <= next(
        line for line in json.loads(text) if line["model"] == "usage-model"
    ).items()
    assert set(LEVELS) >= set(session.run("%lbgpt usage --by day,minute").index.names)


def test_config_shows_and_sets(session, engine, tmp_path):
    assert session.run("%lbgpt config").model == "gpt-4o-mini"
    assert session.run("%lbgpt config model") == "gpt-4o-mini"
    assert session.run("%lbgpt config errors progress") == {"errors": "coerce", "progress": "auto"}
    session.run(f"%lbgpt config model=m errors=raise budget=2.5 max_parallel=3 cache={tmp_path}/c")
    now = lb.settings()
    assert (now.model, now.errors, now.budget.usd, now.max_parallel) == ("m", "raise", 2.5, 3)
    assert str(tmp_path / "c") in repr(now.cache)
    session.run("%lbgpt config model=none budget=none cache=none progress=false engine=none")
    now = lb.settings()
    assert (now.model, now.budget, now.cache, now.progress, now.engine) == (None,) * 3 + (
        False,
        None,
    )
    session.names["mine"] = engine
    assert session.run("%lbgpt config engine=mine").engine is engine


def test_config_takes_files(session, engine, tmp_path):
    toml, js = tmp_path / "a.toml", tmp_path / "b.json"
    toml.write_text('[lbgpt]\nmodel = "from-toml"\nmax_parallel = 7\n')
    js.write_text('{"model": "from-json", "budget": 3}')
    session.run(f"%lbgpt config --file {toml}")
    assert (lb.settings().model, lb.settings().max_parallel) == ("from-toml", 7)
    session.run(f"%lbgpt config --file {js} model=from-line")
    assert (lb.settings().model, lb.settings().budget.usd) == ("from-line", 3.0)
    js.write_text("{")
    assert "is no JSON" in session.fail(f"%lbgpt config --file {js}")
    js.write_text("[1]")
    assert "holds no settings" in session.fail(f"%lbgpt config --file {js}")
    toml.write_text("modl = 'x'")
    assert "did you mean 'model'" in session.fail(f"%lbgpt config --file {toml}")
    toml.write_text(f"api_key = '{KEY}'")
    assert KEY not in session.fail(f"%lbgpt config --file {toml}")


def test_config_shows_no_secret(session):
    lb.configure(lb.ChatGPT(KEY))
    shown = session.run("%lbgpt config")
    assert KEY not in repr(shown) + shown._repr_html_() + str(session.run("%lbgpt"))


def test_models_of_engines_and_prices(session):
    azure = lb.AzureGPT("k", "https://x.test", {"gpt-4o": "mine-4o"}, name="azure")
    lb.configure(lb.MultiLoadBalancedGPT([azure, ScriptedGPT(name="east", model="house")]))
    models = session.run("%lbgpt models")
    assert list(models.index[:2]) == ["gpt-4o", "house"]
    assert models.loc["gpt-4o", ["offered_by", "called", "prompt_usd"]].tolist() == [
        "azure", "mine-4o", 2.5,
    ]  # fmt: skip
    assert models.loc["house", "prompt_usd"] is pd.NA
    # What engines of other tests offer comes before what only has a price.
    found = list(session.run("%lbgpt models GPT-4o*").index)
    assert found[0] == "gpt-4o"
    assert {"gpt-4o-2024-05-13", "gpt-4o-mini"} <= set(found)
    assert all(name.startswith("gpt-4o") for name in found)
    assert "o3-mini" in session.run("%lbgpt models o3").index


def test_the_cache_is_looked_at_cleared_and_moved(session, engine, reviews, tmp_path):
    session.run("df.lbgpt.complete('{text}')")
    assert session.run("%lbgpt cache").entries == session.run("%lbgpt cache info").entries == 2
    assert session.run("%lbgpt cache stats").loc["gpt-4o-mini", "entries"] == 2
    assert "dict" in session.run("%lbgpt cache path")
    assert "all 2" in session.fail("%lbgpt cache clear")
    assert "of model gpt-4o-mini, older than 7 days" in session.fail(
        "%lbgpt cache clear --model gpt-4o-mini --older 7d"
    )
    assert session.run("%lbgpt cache clear --older 7d --yes") == 0
    place = tmp_path / "a.zip"
    assert session.run(f"%lbgpt cache export {place}") == 2
    key = lb.last_run().rows["key"].iloc[0]
    assert session.run(f"%lbgpt cache forget {key}") == 1
    session.run("mask = [False, True, False]")
    assert session.run("%lbgpt cache forget mask") == 1
    assert session.run(f"%lbgpt cache load {place}").added == 2
    session.run("lines = lb.last_run().rows.iloc[:1]" if "lb" in session.names else
                "import lbgpt_pandas as lb; lines = lb.last_run().rows.iloc[:1]")  # fmt: skip
    assert session.run("%lbgpt cache forget lines") == 1
    assert session.run(f"%lbgpt cache clear --run {lb.last_run().id} --yes") == 1
    assert session.run("%lbgpt cache near").empty
    session.run("%lbgpt config cache=none")
    assert "no exact cache" in session.fail("%lbgpt cache path")


def test_reports_are_shown_and_saved(session, engine, reviews, tmp_path):
    session.run("df.lbgpt.complete('{text}')")
    last = lb.last_run()
    assert session.run("%lbgpt report") is last
    assert session.run(f"%lbgpt report {last.id}") is last
    assert json.loads(session.run("%lbgpt report --json"))["id"] == last.id
    texts = {}
    for suffix in ("html", "txt", "json", "csv"):
        session.run(f"%lbgpt report --save {tmp_path}/r.{suffix}")
        texts[suffix] = (tmp_path / f"r.{suffix}").read_text()
    assert texts["html"].startswith("<!doctype html>")
    assert "gpt-4o-mini" in texts["txt"]
    assert json.loads(texts["json"])["id"] == last.id
    assert texts["csv"].count("\n") == 4
    assert "give .html" in session.fail(f"%lbgpt report --save {tmp_path}/r.docx")
    session.run("%lbgpt config cache=" + str(tmp_path / "disk"))
    session.run("df.lbgpt.complete('{text}')")
    session.run(f"%lbgpt report --save {tmp_path}/r.zip")
    assert (tmp_path / "r.zip").exists()


def test_a_run_of_another_process_is_shown_from_the_registry(session, engine, reviews, monkeypatch):
    session.run("df.lbgpt.complete('{text}')")
    id_ = lb.last_run().id
    monkeypatch.setattr("lbgpt_pandas.notebook.commands.last_run", lambda: None)
    assert session.run(f"%lbgpt report {id_}")["model"] == "gpt-4o-mini"
    assert json.loads(session.run(f"%lbgpt report {id_} --json"))["id"] == id_
    assert "--save needs its rows" in session.fail(f"%lbgpt report {id_} --save x.csv")
    assert "run its cell again" in session.fail(f"%lbgpt retry {id_}")


def test_retry_asks_for_the_failed_rows_only(session, reviews):
    broken = [True]

    def answer(request):
        is_bad = "bad" in request.messages[-1]["content"] and broken
        return ContentError() if is_bad else "ok"

    def ContentError():  # noqa: N802
        return lb.BadRequest("no", status=400, code="nope")

    engine = ScriptedGPT(answer)
    lb.configure(engine, model="m", cache={}, errors="ignore")
    session.run("first = df.lbgpt.complete('{text}', name='mood')")
    assert session.names["first"].isna().tolist() == [False, True, True]
    broken.clear()
    assert session.run("%lbgpt retry").tolist()[:2] == ["ok", "ok"]
    assert len(engine.requests) == 3


def test_background_runs_are_listed_and_cancelled(session, reviews):
    gate = threading.Event()

    async def answer(_request):
        import asyncio

        while not gate.is_set():
            await asyncio.sleep(0.01)
        return "ok"

    lb.configure(ScriptedGPT(answer), model="m", cache={}, progress="none")
    session.run("one = df.lbgpt.submit('{text} 1'); two = df.lbgpt.submit('{text} 2')")
    one, two = session.names["one"], session.names["two"]
    try:
        listed = session.run("%lbgpt runs")
        assert listed["status"].tolist()[:2] == ["running", "running"]
        assert listed["id"].tolist()[:2] == [two.id, one.id]
        assert listed.dtypes.equals(lb.runs().dtypes)
        assert "2 runs are going on: give one of" in session.fail("%lbgpt cancel")
        assert "no run 'x'" in session.fail("%lbgpt cancel x")
        assert one.id in session.run(f"%lbgpt cancel {one.id}")
        with pytest.raises(lb.RunAborted):
            one.result(timeout=5)
        assert two.id in session.run("%lbgpt cancel")
        with pytest.raises(lb.RunAborted):
            two.result(timeout=5)
    finally:
        gate.set()
    assert "no run is going on" in session.fail("%lbgpt cancel all")
    assert session.run(f"%lbgpt report {one.id}").id == one.id


# --- the cell ---------------------------------------------------------------------------------


def test_a_prompt_is_asked_and_its_answer_shown_and_kept(session, engine):
    session.names["who"] = "Ann"
    assert (
        session.run('%%lbgpt -s "You are {{who}}." -t 0 --max-tokens 9\nHi {{who}} {"a": 1}\n')
        is None
    )
    assert session.printed.out == 'Hi Ann {"a": 1}\n'
    assert session.names["_lbgpt"] == 'Hi Ann {"a": 1}'
    request = engine.requests[0]
    assert request.messages[0] == {"role": "system", "content": "You are Ann."}
    assert {
        "temperature": 0.0,
        "max_tokens": 9,
        "model": "gpt-4o-mini",
    }.items() <= request.params.items()


def test_a_name_takes_the_answer_and_nothing_is_shown(session, engine):
    for line in ("answer <<", "-o answer", "answer << -m other", "answer  <<  --no-stream"):
        session.names.pop("answer", None)
        session.run(f"%%lbgpt {line}\nHi")
        assert session.names["answer"] == "Hi"
        assert session.printed.out == ""
    assert {request.model for request in engine.requests} == {"gpt-4o-mini", "other"}
    session.run("%%lbgpt -q\nHi")
    assert session.printed.out == ""


def test_cell_and_column_share_the_cache(session, engine, reviews):
    session.run("df.lbgpt.complete('Is {text} fine?', temperature=0)")
    session.run("%%lbgpt -t 0\nIs good fine?")
    assert session.printed.out == "Is good fine?\n"
    assert len(engine.requests) == 2
    session.run("%%lbgpt -t 0\nNew")
    session.run("%%lbgpt -t 0 --no-stream\nNew")
    session.run("import pandas as pd; pd.Series(['New']).lbgpt.complete('{}', temperature=0)")
    assert len(engine.requests) == 3
    session.run("%%lbgpt -t 0 -n\nNew")
    session.run("%%lbgpt -t 0 -n --no-stream\nNew")
    assert len(engine.requests) == 5


def test_a_streamed_answer_counts_against_the_budget_and_in_usage(session):
    lb.configure(ScriptedGPT("yes"), model="m", cache={}, budget=lb.Budget(requests=1))
    session.run("%%lbgpt\none")
    assert session.fail("%%lbgpt\ntwo").startswith("BudgetExceeded: ")
    assert session.fail("%%lbgpt --no-stream\ntwo").startswith("BudgetExceeded: ")
    session.run("%%lbgpt\none")


def test_replay_asks_nobody(session, engine):
    session.run("%%lbgpt\none")
    session.run("%lbgpt config cache_mode=replay")
    session.run("%%lbgpt\none")
    assert "CacheMiss" in session.fail("%%lbgpt\ntwo")
    assert len(engine.requests) == 1


def test_rows_into_a_column_a_variable_or_neither(session, engine, reviews):
    assert session.run("%%lbgpt --df df --col mood\nSay {text} at {price:.2f}") is None
    df = session.names["df"]
    assert df is reviews
    assert df["mood"].isna().tolist() == [False, False, True]
    assert df["mood"].iloc[0] == "Say good at 1.50"
    session.run("%%lbgpt moods << --df df\nSay {text} at {price:.2f}")
    assert session.names["moods"].equals(df["mood"].rename("moods"))
    found = session.run("%%lbgpt --df df --no-cache\nSay {text}")
    assert found is session.names["_lbgpt"]
    assert found.index.tolist() == ["a", "b", "c"]
    assert (
        session.run("%%lbgpt --df df['text'] -s 'to {index}'\n{} {\"a\": {}}").iloc[0]
        == 'good {"a": good}'
    )
    session.run("%%lbgpt --df df --col mood2\nSay {text}")
    session.run("%%lbgpt --df df --col mood\nAgain {text}")
    assert df["mood"].iloc[0] == "Again good"
    assert session.run("%%lbgpt -q --df df\nSay {text}") is None


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("%%lbgpt\n \n", "holds no prompt"),
        ("%%lbgpt -m\nx", "expected one argument"),
        ("%%lbgpt --temprature 1\nx", "unrecognized arguments: --temprature"),
        ("%%lbgpt -t hot\nx", "invalid _temperature value: 'hot'|-t/--temperature"),
        ("%%lbgpt -t 3\nx", "3 is not between 0 and 2"),
        ("%%lbgpt -t nan\nx", "nan is not between"),
        ("%%lbgpt --max-tokens 0\nx", "0 is not a whole number"),
        ("%%lbgpt -f pdf\nx", "invalid choice: 'pdf'"),
        ("%%lbgpt -s 'open\nx", "cannot be divided into words"),
        ("%%lbgpt 1x <<\nx", "1x cannot be the name of a variable"),
        ("%%lbgpt class <<\nx", "class is a word of Python"),
        ("%%lbgpt a << -o b\nx", "give the result one name"),
        ("%%lbgpt --col c\nx", "--col needs --df"),
        ("%%lbgpt --df dff\n{text}", "no variable dff; did you mean 'df'?"),
        ("%%lbgpt --df rows\n{text}", "rows is a list"),
        ("%%lbgpt --df df\n{txt}", "no column 'txt'; did you mean 'text'?"),
        ("%%lbgpt --df df\n{text.upper}", "attributes and indices are not reached"),
        ("%%lbgpt --df df\n{text:>99999}", "wider than"),
        ("%%lbgpt --df df --col text\n{text}", "the prompt reads this column"),
        ("%%lbgpt --df df --col price\nx {text} {price:.1f}", "the prompt reads this column"),
        ("%%lbgpt --df df[:2] --col c\n{text}", "made anew each time"),
        ("%%lbgpt --df df['text'] --col c\n{}", "a Series has no columns"),
        ("%%lbgpt --df wide --col c\nx", "several levels"),
        ("%%lbgpt --df df -f json\n{text}", "-f is for a single answer"),
        ("%%lbgpt\nHi {{whoo}}", "no variable whoo"),
        ("%%lbgpt\nHi {{rows.append(1)}}", "no calls"),
        ("%%lbgpt\nHi {rows}", "{{rows}} is the value"),
        ("%%lbgpt -s 'x {{whoo}}'\nHi", "no variable whoo"),
        (f"%%lbgpt -m {KEY}\nHi", "looks like a key"),
        (f"%%lbgpt --api-key {KEY}\nHi", "looks like a key"),
    ],
)
def test_a_wrong_cell_is_one_plain_line_and_asks_nobody(session, engine, reviews, cell, message):
    session.names["rows"] = [1]
    session.names["wide"] = pd.DataFrame({("a", "b"): [1]})
    before = reviews.copy()
    said = session.fail(cell)
    assert any(part in said for part in message.split("|")), said
    assert KEY not in said
    assert engine.requests == []
    assert reviews.equals(before)


@pytest.mark.parametrize("body", ["", "\n", "\nx"])
def test_the_cell_explains_itself_also_without_a_body(session, engine, body):
    for line in ("--help", "-h", "-m x --help"):
        session.run(f"%%lbgpt {line}{body}")
        assert "braces in the prompt" in session.printed.out
    assert engine.requests == []


def test_a_cell_called_inside_a_function_sees_the_notebooks_names_only(session, engine):
    session.names["who"] = "global"
    session.run(
        "def f():\n    who = 'local'\n    get_ipython().run_cell_magic('lbgpt', '-q', 'Hi {{who}}')\nf()"
    )
    assert session.names["_lbgpt"] == "Hi global"


def test_a_failing_provider_is_one_line_with_its_kind(session):
    lb.configure(ScriptedGPT(AuthError("bad key", status=401)), model="m", cache={})
    for option in ("", " --no-stream"):
        assert session.fail(f"%%lbgpt{option}\nHi").startswith("AuthError: bad key")
    assert session.fail("%%lbgpt --df df\nHi").startswith("--df: ")


def test_no_engine_is_one_line_that_says_what_to_do(session):
    assert "OPENAI_API_KEY" in session.fail("%%lbgpt -m gpt-4o\nHi")


def test_an_answer_that_breaks_off_is_kept_as_far_as_it_came(session):
    parts = [
        {"choices": [{"index": 0, "delta": {"content": "half "}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"content": "an"}, "finish_reason": None}]},
    ]
    lb.configure(ScriptedGPT(lambda _: parts, stop_after_attempts=1), model="m", cache={})
    assert session.fail("%%lbgpt\nHi").startswith("IncompleteStream")
    assert session.names["_lbgpt"] == "half an"
    assert "half an\n[the answer broke off" in session.printed.out


def test_rows_that_fail_are_na_with_one_warning(session, reviews):
    def answer(request):
        if "bad" in request.messages[-1]["content"]:
            return lb.BadRequest("no", status=400, code="nope")
        return "ok"

    lb.configure(ScriptedGPT(answer), model="m", cache={})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        session.run("%%lbgpt --df df --col mood\n{text}")
    assert [each.category for each in caught] == [lb.RowErrorsWarning]
    assert session.names["df"]["mood"].isna().tolist() == [False, True, True]
    session.run("%lbgpt config errors=raise")
    assert "1 of 3 rows failed" in session.fail("%%lbgpt --df df --col other\n{text}!")
    assert "other" not in session.names["df"]


def test_a_dry_run_calls_nobody_and_needs_no_key(session, reviews):
    lb.configure(None, model="gpt-4o-mini")
    plan = session.run(
        '%%lbgpt --df df --dry-run --max-tokens 10 -s Be-brief\nSay {text} <b>{"a": 1}'
    )
    assert (plan.rows, plan.requests, plan.skipped, plan.most_completion_tokens) == (3, 2, 1, 20)
    assert plan.prompts[0] == 'system: Be-brief\nuser: Say good <b>{"a": 1}'
    assert 0 < plan.prompt_usd < plan.most_usd < 0.01
    text, html = repr(plan), plan._repr_html_()
    assert "nothing was sent" in text
    assert "at most 20" in text
    assert "&lt;b&gt;" in html
    assert "<b>{" not in html
    once = session.run("%%lbgpt --dry-run\nHi")
    assert (once.requests, once.most_usd, once.prompts) == (1, None, ("user: Hi",))
    session.names["empty"] = pd.DataFrame({"text": []})
    none = session.run("%%lbgpt --df empty --dry-run\n{text}")
    assert (none.requests, none.prompt_tokens, none.prompts) == (0, 0, ())


def test_a_dry_run_of_many_rows_counts_a_sample(session, engine):
    session.names["many"] = pd.DataFrame(
        {"text": [f"text {number:06d}" for number in range(9_000)]}
    )
    plan = session.run("%%lbgpt --df many --dry-run\n{text}")
    one = session.run("%%lbgpt --dry-run\ntext 000000").prompt_tokens
    assert plan.prompt_tokens == 9_000 * one
    assert len(plan.prompts) == 3


@pytest.mark.parametrize(
    ("form", "answer", "value"),
    [
        ("text", "a", "a"),
        ("json", '{"a": [1]}', {"a": [1]}),
        ("json", 'Sure:\n```json\n{"a": 1}\n```\nDone', {"a": 1}),
        ("code", "Sure:\n```python\nprint(1)\n```\nDone", "print(1)"),
        ("code", "print(1)\n", "print(1)"),
    ],
)
def test_forms_give_values(session, form, answer, value):
    lb.configure(ScriptedGPT(answer), model="m", cache={})
    session.run(f"%%lbgpt x << -f {form}\nHi")
    assert session.names["x"] == value
    assert session.names["_lbgpt"] == answer


def test_an_answer_that_is_no_json_is_kept(session):
    lb.configure(ScriptedGPT("no json"), model="m", cache={})
    assert "its text is in _lbgpt" in session.fail("%%lbgpt x << -f json\nHi")
    assert session.names["_lbgpt"] == "no json"
    assert "x" not in session.names


def test_forms_hold_no_live_html():
    hostile = "<img src=x onerror=alert(1)> **b**"
    for form in ("markdown", "json", "code"):
        bundle = bundle_of(hostile, form, note="<i>")
        assert set(bundle) == {"text/html", "text/plain"}
        assert "<img" not in bundle["text/html"]
        assert "<i>" not in bundle["text/html"]
    assert bundle_of(hostile, "text") == {"text/plain": hostile}
    assert bundle_of("a\x1b[2Jb\n\tc", "text") == {"text/plain": "a [2Jb\n\tc"}


def test_a_huge_answer_is_cut_on_the_screen_only():
    text = "x" * (MOST_SHOWN + 1_234)
    bundle = bundle_of(text, "markdown")
    assert "1,234 more characters are not shown" in bundle["text/html"]
    assert len(bundle["text/plain"]) < MOST_SHOWN + 100
    assert value_of(text, "markdown") == text


def test_an_empty_answer_says_so(session):
    lb.configure(ScriptedGPT(""), model="m", cache={})
    session.run("%%lbgpt\nHi")
    assert "the answer is empty" in session.printed.out


# --- loading ----------------------------------------------------------------------------------


def test_unloading_leaves_nothing_behind(session):
    shell = session.shell
    session.run("%unload_ext lbgpt_pandas")
    assert "not found" in session.fail("%lbgpt status")
    assert "not found" in session.fail("%%lbgpt\nHi")
    assert shell.Completer.custom_matchers == []
    assert magics.with_body not in shell.input_transformers_cleanup
    session.run("%load_ext lbgpt_pandas")
    session.run("%lbgpt status")


def test_loading_again_registers_once(session):
    before = len(session.shell.input_transformers_cleanup)
    for _ in range(3):
        session.run("%reload_ext lbgpt_pandas")
        magics.load_ipython_extension(session.shell)
    assert len(session.shell.input_transformers_cleanup) == before
    assert len(session.shell.Completer.custom_matchers) == 1
    session.run("%lbgpt status")


def test_the_docstring_is_the_help(session):
    assert "cancel" in magics.LbgptMagics.lbgpt.__doc__
    assert "--dry-run" in magics.LbgptMagics.lbgpt.__doc__


def complete(shell, text, line=0):
    lines = text.split("\n")
    from IPython.core.completer import provisionalcompleter

    offset = len("\n".join(lines[: line + 1])) if line else len(lines[0])
    with provisionalcompleter():
        found = list(shell.Completer.completions(text, offset))
    return [text[: each.start].split("\n")[-1].split(" ")[-1] + each.text for each in found]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("%lbgpt ca", ["cache", "cancel"]),
        ("x = %lbgpt us", ["usage"]),
        ("%lbgpt cache ", ["info", "stats", "path", "clear", "forget", "export", "load", "near"]),
        ("%lbgpt cache cl", ["clear"]),
        ("%lbgpt cache clear --", ["--help", "--model", "--older", "--run", "--yes"]),
        ("%lbgpt usage --by ", list(LEVELS)),
        ("%lbgpt config err", ["errors=", "errors=coerce", "errors=raise", "errors=ignore"]),
        ("%lbgpt config errors=r", ["errors=raise"]),
        ("%lbgpt report la", ["last"]),
        ("%%lbgpt --m", ["--model", "--max-tokens"]),
        ("%%lbgpt answer << --f", ["--format"]),
        ("%%lbgpt -f m", ["markdown"]),
        ("%%lbgpt --df ", ["df"]),
        ("%%lbgpt -m gpt-4.1-", ["gpt-4.1-mini", "gpt-4.1-nano"]),
    ],
)
def test_tab_offers_what_may_stand_there_and_nothing_else(session, engine, reviews, text, words):
    assert complete(session.shell, text) == words


def test_tab_offers_columns_and_variables_in_a_prompt(session, engine, reviews):
    session.names["textbook"] = 1
    assert complete(session.shell, "%%lbgpt --df df\nSay {te", 1) == ["{text"]
    assert complete(session.shell, "%%lbgpt\nSay {{textb", 1) == ["{{textbook"]


def test_tab_elsewhere_is_left_alone(session):
    assert "print" in complete(session.shell, "prin")
    assert complete(session.shell, "print('%lbgpt', 'zzzq") == []
    assert RateLimited is lb.RateLimited
