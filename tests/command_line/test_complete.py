"""``complete`` and ``plan`` from the shell: files, exit codes, messages, what is left behind."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from lbgpt_pandas.engine.caches.group_writer import MOST_IN_A_GROUP
from lbgpt_pandas.engine.crew import SPARE_WORKERS
from lbgpt_pandas.testing import FakeProvider, Fault

KEY = "sk-CANARY0123456789abcdef"
ASK = ("--template", "Is this good? {text}", "--model", "gpt-4o-mini")
FRAME = pd.DataFrame({"id": ["007", "008", "009"], "text": ["a", None, "b,\n"]})
ANSWERS = ["A:Is this good? a", None, "A:Is this good? b,\n"]


@pytest.fixture
def source(tmp_path):
    FRAME.to_csv(tmp_path / "in.csv", index=False)
    return "in.csv"


def read(path):
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
    elif path.suffix == ".jsonl":
        lines = path.read_text().splitlines()
        frame = pd.DataFrame([json.loads(line) for line in lines], dtype=object)
    else:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    frame = frame.astype(object)
    return frame.where(frame.notna(), None)


@pytest.mark.process
def test_every_format_from_every_other_one(command, provider, tmp_path):
    FRAME.to_csv(tmp_path / "in.csv", index=False)
    FRAME.to_parquet(tmp_path / "in.parquet")
    FRAME.to_json(tmp_path / "in.jsonl", orient="records", lines=True)
    kinds = ("csv", "parquet", "jsonl")
    for kind, other in zip(kinds, (*kinds[1:], "csv"), strict=True):
        done = command("complete", f"in.{kind}", *ASK, "--out", f"out.{other}")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        found = read(tmp_path / f"out.{other}")
        assert found.to_dict("list") == {
            "id": FRAME["id"].tolist(), "text": ["a", None, "b,\n"], "answer": ANSWERS
        }  # fmt: skip
    assert len(provider.requests) == 2, "the later ones took the answers of the first"
    assert "3 rows: 2 already answered, 0 to go, 1 skipped (NA)" in done.stderr
    assert KEY not in done.stderr


@pytest.mark.process
def test_stdout_has_the_table_and_nothing_else(command, inside, source):
    done = command("complete", source, *ASK, "--out", "-", "--column", "good")
    assert done.stdout == (
        'id,text,good\n007,a,A:Is this good? a\n008,,\n009,"b,\n","A:Is this good? b,\n"\n'
    )
    assert "2 asked" in done.stderr
    quiet = inside("complete", source, *ASK, "--out", "-", "--column", "good", "--quiet")
    assert (quiet.stdout, quiet.stderr) == (done.stdout, "")


def test_options_reach_the_request(inside, provider, source, tmp_path):
    (tmp_path / "prompt.txt").write_text("Rate {text}\n")
    done = inside(
        "complete", source, "--template-file", "prompt.txt", "--model", "m", "--out", "o.csv",
        "--system", "You are {id}.", "--param", "temperature=0", "--param", "reasoning_effort=low",
        "--na", "nothing", "--limit", "2", "--cache-dir", "other", "--max-parallel", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    bodies = [record.body for record in provider.requests]
    assert [body["messages"][1]["content"] for body in bodies] == ["Rate a", "Rate nothing"]
    assert bodies[0]["messages"][0]["content"] == "You are 007."
    assert (bodies[0]["temperature"], bodies[0]["reasoning_effort"]) == (0, "low")
    assert len(read(tmp_path / "o.csv")) == 2
    assert (tmp_path / "other").is_dir()
    assert not (tmp_path / "cache").exists()


def test_failed_rows_are_listed_and_the_others_written(inside, source, tmp_path):
    with FakeProvider(reply=lambda body: body["messages"][0]["content"], faults=refuse_b) as server:
        done = inside("complete", source, *ASK, "--out", "o.jsonl", OPENAI_BASE_URL=server.base_url)
        assert done.returncode == 1
        assert "row 2 failed: ContentFiltered: " in done.stderr
        assert "Traceback" not in done.stderr
        found = read(tmp_path / "o.jsonl")
        assert found["answer"].tolist() == ["Is this good? a", None, None]
        assert found["answer_error"].notna().tolist() == [False, False, True]
        ignored = inside(
            "complete", source, *ASK, "--out", "i.jsonl", "--errors", "ignore",
            OPENAI_BASE_URL=server.base_url,
        )  # fmt: skip
        assert ignored.returncode == 1
        assert "row 2" not in ignored.stderr
        raised = inside(
            "complete", source, *ASK, "--out", "r.jsonl", "--errors", "raise",
            OPENAI_BASE_URL=server.base_url,
        )  # fmt: skip
        assert raised.returncode == 1
        assert "1 of 3 rows have an answer, which are stored" in raised.stderr
        assert not (tmp_path / "r.jsonl").exists()


def refuse_b(record):
    return Fault.content_filter() if "b," in json.dumps(record.body) else None


def test_a_column_that_is_there_is_kept(inside, source, tmp_path):
    done = inside("complete", source, *ASK, "--out", "o.csv", "--column", "id")
    assert done.returncode == 2
    assert "has a column 'id' already" in done.stderr
    done = inside("complete", source, *ASK, "--out", "o.csv", "--column", "id", "--force")
    assert list(read(tmp_path / "o.csv").columns) == ["id", "text"]
    assert read(tmp_path / "o.csv")["id"].tolist() == ANSWERS


def test_a_file_that_is_there_is_kept(inside, provider, source, tmp_path):
    target = tmp_path / "o.csv"
    target.write_text("precious")
    target.chmod(0o640)
    (tmp_path / "link.csv").symlink_to(target)
    done = inside("complete", source, *ASK, "--out", "o.csv")
    assert done.returncode == 2
    assert "--force replaces it" in done.stderr
    assert target.read_text() == "precious"
    assert not provider.requests
    assert inside("complete", source, *ASK, "--out", "link.csv", "--force").returncode == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert read(target)["answer"].tolist() == ANSWERS
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_fatal_failure_leaves_the_target_alone(inside, provider, source, tmp_path):
    (tmp_path / "o.csv").write_text("precious")
    with FakeProvider(keys=["another"]) as server:
        done = inside(
            "complete", source, *ASK, "--out", "o.csv", "--force", OPENAI_BASE_URL=server.base_url
        )
    assert done.returncode == 1
    assert "AuthError" in done.stderr
    assert "Nothing was written. None of 3 rows has an answer" in done.stderr
    assert (tmp_path / "o.csv").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["in.csv", "o.csv"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["complete", "none.csv", *ASK, "--out", "o.csv"], "there is no file 'none.csv'"),
        (["complete", "in.csv", *ASK, "--out", "no/o.csv"], "there is no folder"),
        (["complete", "in.csv", *ASK, "--out", "o.xls"], "no format that is known"),
        (["complete", "in.csv", *ASK, "--out", "folder.csv", "--force"], "no plain file"),
        (["complete", "in.csv", *ASK], "--out"),
        (["complete", "in.csv", "--model", "m", "--out", "o.csv"], "one of the two"),
        (["plan", "in.csv", "--template", "{txet}", "--model", "m"], "did you mean 'text'"),
        (["plan", "in.csv", *ASK, "--param", "temprature=0"], "did you mean 'temperature'"),
        (["plan", "in.csv", *ASK, "--param", "stream=True"], "JSON writes true"),
        (["plan", "in.csv", *ASK, "--param", "stop=[1"], "is no JSON"),
        (["plan", "in.csv", *ASK, "--param", "engine=1"], "no parameter of a provider"),
        (["plan", "in.csv", *ASK, "--limit", "0"], "at least 1"),
        (["plan", "in.csv", *ASK, "--budget-usd", "-1"], "above 0"),
        (["plan", "in.csv", *ASK, "--model", "local", "--param", f"user={KEY}"], "like a key"),
        (["plan", "in.csv", "--system", f"x {KEY}", *ASK], "like a key"),
        (["plan", "in.csv", *ASK, "--api-key", "plain-words"], "like a key"),
        (["cache", "clear"], "add --yes"),
        (["cache", "info", "--cache-dir", "no"], "there is no folder 'no'"),
        (["cache", "load", "none.zip"], "there is no file"),
        (["cache"], "required"),
    ],
)
def test_misuse_is_one_line_and_ends_with_2(inside, provider, arguments, words, tmp_path):
    FRAME.to_csv(tmp_path / "in.csv", index=False)
    (tmp_path / "folder.csv").mkdir()
    done = inside(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    err = done.stderr
    assert err.startswith("lbgpt_pandas: ")
    assert err.count("\n") == 1
    assert words in err
    assert KEY not in err
    assert "plain-words" not in err
    assert not provider.requests
    assert not (tmp_path / "o.csv").exists()


def test_words_about_keys_and_names_that_are_checksums_are_no_keys(inside, tmp_path):
    name = "d41d8cd98f00b204e9800998ecf8427e.csv"
    FRAME.to_csv(tmp_path / name, index=False)
    template = "Explain the basic concepts, the bearer certificate and the API key: {text}"
    done = inside("plan", name, f"--template={template}", "--model", "gpt-4o-mini")
    assert "3: 1 skipped (NA)" in done.stdout, done.stderr


def test_answers_that_nobody_keeps_are_not_promised(inside, source):
    with FakeProvider(faults=refuse_b) as server:
        done = inside(
            "complete", source, *ASK, "--out", "o.csv", "--cache-mode", "off", "--errors", "raise",
            OPENAI_BASE_URL=server.base_url,
        )  # fmt: skip
    assert "1 of 3 rows have an answer; cache_mode='off' keeps none of them" in done.stderr


def test_plan_needs_no_key_and_takes_the_arguments_of_complete(inside, provider, source, tmp_path):
    arguments = (source, *ASK, "--out", "o.csv", "--limit", "2")
    done = inside("plan", *arguments, OPENAI_API_KEY="")
    assert done.returncode == 0, done.stderr
    assert "1 different: 0 stored" in done.stdout
    assert not provider.requests
    assert inside("complete", *arguments).returncode == 0
    assert "1 different: 1 stored" in inside("plan", *arguments).stdout


def test_answers_are_moved_from_cache_to_cache(inside, provider, source):
    assert inside("complete", source, *ASK, "--out", "o.csv").returncode == 0
    assert "gpt-4o-mini   2" in inside("cache", "info").stdout
    assert inside("cache", "export", "a.zip").stdout == "2 answers in a.zip\n"
    assert inside("cache", "export", "a.zip").returncode == 2
    assert inside("cache", "load", "a.zip", "--cache-dir", "b").stdout.startswith("2 answers added")
    assert inside("cache", "clear", "--yes").stdout == "2 answers removed\n"
    assert inside("complete", source, *ASK, "--out", "p.csv", "--cache-dir", "b").returncode == 0
    assert len(provider.requests) == 2


def test_the_commands_of_the_readme_run(inside, provider, tmp_path):
    _, _, rest = (
        (Path(__file__).parents[2] / "README.md").read_text().partition("## Command line\n")
    )
    lines = rest.partition("```bash\n")[2].partition("```")[0].splitlines()
    FRAME.to_csv(tmp_path / "reviews.csv", index=False)
    for line in lines:
        python, dash_m, package, *arguments = shlex.split(line)
        assert (python, dash_m, package) == ("python", "-m", "lbgpt_pandas")
        assert inside(*arguments).returncode == 0
    assert read(tmp_path / "good.parquet")["answer"].tolist() == ANSWERS
    assert len(provider.requests) == 2


ROWS = 1_500


def start(environment, folder, *, target="o.parquet"):
    frame = pd.DataFrame({"text": [f"row {number}" for number in range(ROWS)]})
    if not (folder / "in.parquet").exists():
        frame.to_parquet(folder / "in.parquet")
    words = ["-m", "lbgpt_pandas", "complete", "in.parquet", *ASK, "--out", target]
    return subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )


def wait_for(provider, requests, process):
    deadline = time.monotonic() + 60
    while len(provider.requests) < requests and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.process
def test_a_killed_command_goes_on_where_it_was(provider, environment, tmp_path):
    first = start(environment, tmp_path)
    wait_for(provider, ROWS // 2, first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert {path.name for path in tmp_path.iterdir()} == {"in.parquet", "cache"}
    half = len(provider.requests)
    assert half < ROWS
    second = start(environment, tmp_path)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 0
    assert "already answered" in said
    found = pd.read_parquet(tmp_path / "o.parquet")
    assert found["answer"].tolist() == [f"A:Is this good? row {n}" for n in range(ROWS)]
    # Asked twice are at most the calls on the wire and the answers on their way to the disk:
    # those that a row waits for, one group that is being written and one that gathers.
    on_their_way = SPARE_WORKERS + 2 * MOST_IN_A_GROUP
    assert ROWS <= len(provider.requests) <= ROWS + 64 + on_their_way


@pytest.mark.process
def test_ctrl_c_ends_it_soon_and_says_how_to_go_on(environment, tmp_path):
    with FakeProvider(latency_s=0.05) as server:
        process = start(environment | {"OPENAI_BASE_URL": server.base_url}, tmp_path)
        wait_for(server, 100, process)
        process.send_signal(signal.SIGINT)
        pressed = time.monotonic()
        _, said = process.communicate(timeout=30)
        seconds = time.monotonic() - pressed
    assert process.returncode == 130
    assert "interrupted. Nothing was written. " in said
    assert "rows have an answer, which are stored; the same command goes on" in said
    assert "Traceback" not in said
    assert not (tmp_path / "o.parquet").exists()
    assert seconds < 5, "about 0.5 s on an idle machine"


@pytest.mark.process
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
def test_a_full_disk_is_no_lost_answer(command, provider, source, tmp_path):
    full = os.open("/dev/full", os.O_WRONLY)
    done = subprocess.run(
        [sys.executable, "-m", "lbgpt_pandas", "complete", source, *ASK, "--out", "-"],
        stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False,
        env=os.environ | {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": provider.base_url},
    )  # fmt: skip
    os.close(full)
    assert done.returncode == 1
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr
