"""``%lbgpt`` and ``%%lbgpt`` in a real kernel: replies, streams, interrupts, Tab, reload."""

from __future__ import annotations

import itertools
import time

import pytest

pytest.importorskip("jupyter_client")

pytestmark = [pytest.mark.kernel, pytest.mark.process]

KEY = "sk-proj-canary0123456789"
WIDGET = "application/vnd.jupyter.widget-view+json"

PREAMBLE = """
    %load_ext lbgpt_pandas
    import pathlib, time
    import pandas as pd
    import lbgpt_pandas as lb
    from lbgpt_pandas.testing import ScriptedGPT

    def part(text, finish=None):
        return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}

    def slow_words(count, gap_s, mark=None, then_s=0.0):
        "A stream of words; after them `mark` is made, and the rest waits."
        def answer(_request):
            parts = []
            for number in range(count):
                parts += [gap_s, part(f"word{number} ")]
            return [*parts, Touch(mark) if mark else 0.0, then_s, part("end", "stop")]
        return answer

    class Touch(dict):
        "A chunk without text that makes a file when it is read."
        def __init__(self, mark):
            super().__init__(part(""))
            self.mark = pathlib.Path(mark)
        def get(self, *arguments):
            self.mark.touch()
            return super().get(*arguments)
        def items(self):
            self.mark.touch()
            return super().items()

    lb.configure(ScriptedGPT(name="east"), model="m")
    df = pd.DataFrame({"text": ["good", "bad", None]})
"""


@pytest.fixture(scope="module")
def kernel(start_kernel):
    running = start_kernel()
    running.run(PREAMBLE)
    running.finish(running.send("1 / 0"))  # IPython's first traceback imports for 0.3 s
    return running


def fail(kernel, code):
    """Run a cell that fails with one line of stderr and no traceback; return the line."""
    cell = kernel.send(code)
    kernel.finish(cell)
    assert cell.status == "error"
    lines = cell.stderr.strip().splitlines()
    assert len(lines) == 1, cell
    assert lines[0].startswith("UsageError: ")
    assert cell.error is None  # no message "error", so no traceback either
    return lines[0].removeprefix("UsageError: ")


def everything(cell):
    return repr((cell.stdout, cell.stderr, cell.displayed, cell.widgets, cell.error))


def test_a_wrong_line_is_one_line_and_ends_run_all(kernel):
    wrong = kernel.send("%lbgpt stauts")
    after = kernel.send("print('must not run')")
    kernel.finish(wrong)
    kernel.finish(after)
    assert wrong.status == "error"
    assert wrong.stderr == "UsageError: %lbgpt has no command 'stauts'; did you mean 'status'?\n"
    assert after.status == "aborted"
    assert after.stdout == ""


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("%%lbgpt --df dff\n{text}", "no variable dff"),
        ("%%lbgpt --df df\n{txt}", "no column 'txt'"),
        ("%%lbgpt -t\nx", "expected one argument"),
        ("%%lbgpt\nHi {{nobody}}", "no variable nobody"),
        ("%lbgpt cache clear", "--yes"),
    ],
)
def test_mistakes_are_plain_lines(kernel, code, message):
    assert message in fail(kernel, code)


@pytest.mark.parametrize(
    "code",
    [
        f"%lbgpt config api_key={KEY}",
        f"%lbgpt {KEY}",
        f"%%lbgpt -m {KEY}\nHi",
        f"x = %lbgpt usage {KEY}",
    ],
)
def test_a_key_is_refused_and_is_in_no_output(kernel, code):
    cell = kernel.send(code)
    kernel.finish(cell)
    assert cell.status == "error"
    assert "OPENAI_API_KEY" in cell.stderr
    assert "history" in cell.stderr
    assert KEY not in everything(cell)


def test_results_are_shown_kept_and_hidden(kernel):
    kernel.run("%%lbgpt -q\nfor the usage")
    shown = kernel.run("%lbgpt usage")
    assert "text/html" in shown.displayed[0]
    assert kernel.run("%lbgpt usage;").displayed == []
    kept = kernel.run("u = %lbgpt usage --by model;\nprint(u.index.name)")
    assert (kept.stdout, kept.displayed) == ("model\n", [])
    text = kernel.run("%lbgpt usage --json").displayed[0]["text/plain"]
    assert text.startswith("[\n")
    assert '"model":"m"' in text


@pytest.mark.parametrize(
    "code", ["%lbgpt --help", "%lbgpt cache --help", "%%lbgpt --help", "%lbgpt usage -h"]
)
def test_help_is_a_text(kernel, code):
    cell = kernel.run(code)
    assert cell.stdout.startswith("usage: %")
    assert cell.stderr == ""


def test_the_question_mark_shows_the_help(kernel):
    # The pager is a payload of the reply, which the tests' kernel drops; the docstring is it.
    cell = kernel.run("print(get_ipython().find_line_magic('lbgpt').__doc__)")
    assert "--dry-run" in cell.stdout


# --- answers ----------------------------------------------------------------------------------


def test_an_answer_is_drawn_while_it_comes(kernel):
    kernel.run("lb.configure(ScriptedGPT(slow_words(10, 0.06)))")
    cell = kernel.run("%%lbgpt\nstream, please")
    texts = [data["text/plain"] for data in cell.displayed]
    assert texts[-1] == "".join(f"word{n} " for n in range(10)) + "end"
    assert 3 <= len(texts) <= 10  # 0.6 s at 10 Hz
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert "<p " in cell.displayed[-1]["text/html"]
    again = kernel.run("%%lbgpt\nstream, please")
    assert [data["text/plain"] for data in again.displayed] == [texts[-1]]
    assert kernel.run("print(_lbgpt == " + repr(texts[-1]) + ")").stdout == "True\n"


def test_an_answer_in_one_piece_is_drawn_once(kernel):
    kernel.run("lb.configure(ScriptedGPT('whole'))")
    cell = kernel.run("%%lbgpt --no-stream -f text\nin one piece")
    assert cell.displayed == [{"text/plain": "whole"}]
    assert kernel.run("%%lbgpt kept << -f text\nin one piece").displayed == []
    assert kernel.run("print(kept)").stdout == "whole\n"


def test_an_interrupted_answer_keeps_what_has_come(kernel, tmp_path):
    mark = tmp_path / "waiting"
    kernel.run(f"lb.configure(ScriptedGPT(slow_words(5, 0.0, {str(mark)!r}, 60)))")
    cell = kernel.send("%%lbgpt\nhang")
    kernel.wait_for_file(mark)
    kernel._pump(lambda: cell.displayed)
    pressed = kernel.interrupt()
    kernel.finish(cell)
    assert time.monotonic() - pressed < 1
    assert cell.error.startswith("KeyboardInterrupt")
    assert "interrupted" in cell.displayed[-1]["text/plain"]
    assert cell.displayed[-1]["text/plain"].startswith("word0 word1 word2 word3")
    assert kernel.run("print(_lbgpt)").stdout.startswith("word0 word1 word2 word3")
    kernel.run("lb.configure(ScriptedGPT('works'))")
    assert kernel.run("%%lbgpt\nhang").displayed[-1]["text/plain"] == "works"


def test_html_in_answers_is_text(kernel):
    hostile = (
        "<img src=x onerror=alert(1)></script><script>alert(2)</script> ![x](https://evil.test/y)"
    )
    kernel.run(f"lb.configure(ScriptedGPT({hostile!r}))")
    for form in ("markdown", "json", "code", "text"):
        cell = kernel.send(f"%%lbgpt -f {form}\nhostile {form}")
        kernel.finish(cell)
        for data in cell.displayed:
            assert set(data) <= {"text/html", "text/plain"}
            drawn = data.get("text/html", "")
            assert "<img" not in drawn
            assert "<script" not in drawn
            assert "src=" not in drawn.replace("&lt;img src=", "")


def test_rows_are_asked_and_nothing_is_drawn_for_a_quick_run(kernel):
    kernel.run("lb.configure(ScriptedGPT())")
    cell = kernel.run("%%lbgpt --df df --col mood\nSay {text}")
    assert cell.displayed == []
    assert cell.stderr == ""
    assert kernel.run("print(df['mood'].tolist()[:2])").stdout == "['Say good', 'Say bad']\n"
    shown = kernel.run("%%lbgpt --df df\nSay {text}")
    assert "Say good" in shown.displayed[0]["text/plain"]
    dry = kernel.run("%%lbgpt --df df --dry-run\nSay {text} <script>")
    assert "nothing was sent" in dry.displayed[0]["text/plain"]
    assert "<script>" not in dry.displayed[0]["text/html"]


def test_ipython_expands_nothing_in_line_and_cell(kernel):
    kernel.run("who = 'Ann'; lb.configure(ScriptedGPT())")
    cell = kernel.run(r"%%lbgpt --dry-run -s 'to $who \{who\}'" + "\nHi $who {{who}}")
    assert "system: to $who {who}\nuser: Hi $who Ann" in cell.displayed[0]["text/plain"]


# --- Tab --------------------------------------------------------------------------------------


def complete(kernel, code):
    """What a front end offers behind a text, as whole last words."""
    client = kernel._client
    sent = client.complete(code, len(code))
    deadline = time.monotonic() + 9
    while time.monotonic() < deadline:
        reply = client.get_shell_msg(timeout=5)
        if reply["parent_header"].get("msg_id") == sent:
            content = reply["content"]
            before = code[: content["cursor_start"]]
            return [(before + match).split("\n")[-1].split(" ")[-1] for match in content["matches"]]
    raise AssertionError("no reply")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("%lbgpt ca", ["cache", "cancel"]),
        ("%lbgpt cache ", ["info", "stats", "path", "clear", "forget", "export", "load", "near"]),
        ("x = %lbgpt us", ["usage"]),
        ("%%lbgpt --m", ["--model", "--max-tokens"]),
        (
            "%lbgpt config cache_mode=re",
            ["cache_mode=read_only", "cache_mode=refresh", "cache_mode=replay"],
        ),
        ("%%lbgpt --df d", ["df"]),
        ("%%lbgpt --df df\nSay {te", ["{text"]),
    ],
)
def test_tab_offers_ours_only(kernel, code, words):
    assert complete(kernel, code) == words


# --- widgets, reload --------------------------------------------------------------------------


def test_status_is_watched_live(kernel, kernel_has):
    if not kernel_has("ipywidgets"):
        pytest.skip("ipywidgets is not installed in the kernel's Python")
    cell = kernel.run("watched = %lbgpt status --watch\nwatched")
    assert any(WIDGET in data for data in cell.displayed)
    kernel.run("watched.stop()")


def test_reload_and_unload(kernel):
    kernel.run("%reload_ext lbgpt_pandas")
    kernel.run("%reload_ext lbgpt_pandas")
    assert "gpt" in kernel.run("%lbgpt").displayed[0]["text/plain"]
    assert complete(kernel, "%lbgpt ca") == ["cache", "cancel"]
    kernel.run("%unload_ext lbgpt_pandas")
    assert "not found" in fail(kernel, "%lbgpt")
    assert "not found" in fail(kernel, "%%lbgpt\nHi")
    assert "cancel" not in complete(kernel, "%lbgpt ca")
    kernel.run("%load_ext lbgpt_pandas")
    kernel.run("%lbgpt")
