"""Views of runs in the cells of a real kernel, and what they leave in the saved notebook."""

from __future__ import annotations

import html
import json
import re

import pytest

pytest.importorskip("jupyter_client")

DISPLAYS = {"display_data", "update_display_data"}
WIDGET = "application/vnd.jupyter.widget-view+json"

pytestmark = [pytest.mark.kernel, pytest.mark.process]

PREAMBLE = """
    import asyncio, sys, threading, time
    from dataclasses import replace
    import pandas as pd
    import lbgpt_pandas as lb
    from lbgpt_pandas.engine.report import RunSnapshot
    from lbgpt_pandas.engine.states import RunHeading
    from lbgpt_pandas.engine.views import open_view
    from lbgpt_pandas.testing import ScriptedGPT

    def slow(rows=30, *, latency_s=0.05, **settings):
        "A column that takes 0.9 s."
        frame = pd.DataFrame({"text": [f"{time.monotonic()} {n}" for n in range(rows)]})
        engine = ScriptedGPT("yes", latency_s=latency_s, max_parallel_calls=2, cache=None)
        return frame.lbgpt.complete("{text}", engine=engine, cache_mode="off", **settings)

    class Submitted:
        "A run of 200 rows that a thread of its own draws until it is told to end."

        def __init__(self, awaited=False):
            self.pressed, self.shot, self.over = [], RunSnapshot(
                rows=200, done=0, failed=0, skipped=0, cached=0, shared=0, in_flight=9,
                retries=0, prompt_tokens=0, completion_tokens=0, cost_usd=0.0, elapsed_s=0.0,
                finished=False,
            ), threading.Event()
            self.view = open_view("auto", RunHeading(), controls=self, awaited=awaited)
            self.thread = threading.Thread(target=self.draw, daemon=True)

        def start(self):
            self.thread.start()
            return self

        def advance(self):
            self.shot = replace(
                self.shot,
                elapsed_s=self.shot.elapsed_s + 0.6,
                done=min(199, self.shot.done + 1),
                paused=self.pressed[-1:] == ["pause"],
            )
            self.view.update(self.shot)

        def draw(self):
            while not self.over.wait(0.02):
                self.advance()
            self.view.close(replace(self.shot, done=200, finished=True))

        def end(self):
            self.over.set()
            self.thread.join()

        def pause(self):
            self.pressed.append("pause")

        def resume(self):
            self.pressed.append("resume")

        def cancel(self):
            self.pressed.append("cancel")
"""


@pytest.fixture(scope="module")
def kernel(start_kernel, kernel_has):
    if not kernel_has("ipywidgets"):
        pytest.skip("ipywidgets is not installed in the kernel's Python")
    running = start_kernel()
    running.run(PREAMBLE)
    running.finish(running.send("1 / 0"))  # IPython's first traceback imports for 0.3 s
    running.run("slow();")  # the first drawing imports the widgets
    return running


def shown(cell):
    """The outputs of a cell as a front end keeps them: the last bundle in each place."""
    places = {
        content["transient"]["display_id"]: content["data"]
        for kind, content in cell.messages
        if kind in DISPLAYS
    }
    return list(places.values())


def place_in(cell):
    """The only place for outputs that a cell has made."""
    (place,) = [
        content["transient"]["display_id"]
        for kind, content in cell.messages
        if kind == "display_data"
    ]
    return place


def bundles(kernel, place):
    """Everything that was shown in one place, whatever cell ran then."""
    return [
        content["data"]
        for kind, content in kernel.messages
        if kind in DISPLAYS and content["transient"]["display_id"] == place
    ]


def drawn(cell):
    """The values that a cell's HTML widget had, one after the other."""
    return [state["value"] for state in cell.widgets if "value" in state]


def is_report(bundle, text):
    return set(bundle) == {"text/html", "text/plain"} and text in bundle["text/plain"]


def words(markup):
    """What a reader sees."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split())


def model_of(cell, name):
    """The model of a button, once it is there."""
    models = [
        content["comm_id"]
        for kind, content in cell.messages
        if kind == "comm_open" and content["data"]["state"].get("description") == name
    ]
    return models[0] if models else None


# --- while the cell is busy -----------------------------------------------------------------------


def test_a_widget_moves_while_its_cell_is_blocked(kernel):
    cell = kernel.send("slow(40);")
    kernel.wait_until(lambda: len(drawn(cell)) >= 3)
    assert cell.status is None
    kernel.finish(cell)
    assert len(set(drawn(cell))) == len(drawn(cell))
    first = next(content for kind, content in cell.messages if kind == "display_data")
    assert set(first["data"]) == {"text/html", "text/plain", WIDGET}
    assert "Interrupt" in first["data"]["text/html"]
    assert cell.stderr == ""


def test_the_report_stands_in_the_widgets_place_afterwards(kernel):
    cell = kernel.run("slow();")
    (bundle,) = shown(cell)
    assert is_report(bundle, "30 of 30 rows")
    assert drawn(cell)[-1] != bundle["text/html"]
    opened = {content["comm_id"] for kind, content in cell.messages if kind == "comm_open"}
    closed = {content["comm_id"] for kind, content in cell.messages if kind == "comm_close"}
    assert opened == closed


def test_two_runs_of_a_cell_have_a_place_each(kernel):
    cell = kernel.run("slow(24, progress='widget'); slow(26, progress=True);")
    first, second = shown(cell)
    assert is_report(first, "24 of 24 rows")
    assert is_report(second, "26 of 26 rows")


def test_a_short_run_leaves_nothing(kernel):
    cell = kernel.run("slow(4); slow(4, progress=True);")
    assert cell.displayed == []
    assert not [kind for kind, _ in cell.messages if kind.startswith("comm")]


def test_a_thousand_rows_a_second_send_few_messages(kernel):
    cell = kernel.run(
        """
        frame = pd.DataFrame({"text": [f"{time.monotonic()} {n}" for n in range(3_000)]})
        engine = ScriptedGPT("yes", latency_s=0.05, max_parallel_calls=64, cache=None)
        frame.lbgpt.complete("{text}", engine=engine, cache_mode="off")
        print(lb.last_run().summary.snapshot.elapsed_s)
        """
    )
    sent = [kind for kind, _ in cell.messages if kind in {"comm_msg", "update_display_data"}]
    assert 2 <= len(sent) <= 5 * float(cell.stdout) + 2


def test_an_error_in_the_cell_leaves_the_report(kernel):
    cell = kernel.send(
        """
        def answer(request):
            return ValueError("no") if request.messages[-1]["content"] == "40" else "yes"

        engine = ScriptedGPT(answer, latency_s=0.05, max_parallel_calls=2, stop_after_attempts=1)
        frame = pd.DataFrame({"text": range(200)})
        frame.lbgpt.complete("{text}", engine=engine, cache_mode="off", errors="raise")
        """
    )
    kernel.finish(cell)
    assert cell.status == "error"
    (bundle,) = shown(cell)
    assert is_report(bundle, "of 200 rows")


def test_an_interrupt_leaves_the_report(kernel):
    cell = kernel.send("slow(900);")
    kernel.wait_until(lambda: drawn(cell))
    kernel.interrupt()
    kernel.finish(cell)
    assert cell.error.startswith("KeyboardInterrupt")
    (bundle,) = shown(cell)
    assert is_report(bundle, "of 900 rows")


def test_an_awaited_run_moves_and_leaves_the_report_too(kernel):
    cell = kernel.run(
        """
        frame = pd.DataFrame({"text": range(30)})
        engine = ScriptedGPT("yes", latency_s=0.05, max_parallel_calls=2)
        answers = await frame.lbgpt.acomplete("{text}", engine=engine, cache_mode="off")
        """
    )
    assert len(drawn(cell)) >= 2
    (bundle,) = shown(cell)
    assert is_report(bundle, "30 of 30 rows")


# --- without widgets --------------------------------------------------------------------------


@pytest.fixture
def without_widgets(kernel):
    kernel.run('hidden, sys.modules["ipywidgets"] = sys.modules.get("ipywidgets"), None')
    yield
    kernel.run('sys.modules["ipywidgets"] = hidden')


@pytest.mark.usefixtures("without_widgets")
def test_html_is_drawn_where_there_are_no_widgets(kernel):
    cell = kernel.send("slow(40);")
    kernel.wait_until(lambda: len(cell.displayed) >= 3)
    assert cell.status is None
    kernel.finish(cell)
    (bundle,) = shown(cell)
    assert is_report(bundle, "40 of 40 rows")
    assert cell.widgets == []
    assert cell.stderr == ""


@pytest.mark.usefixtures("without_widgets")
def test_a_submitted_run_without_widgets_says_how_to_stop_it(kernel):
    cell = kernel.run("run = Submitted().start()")
    place = place_in(cell)
    kernel.wait_until(lambda: len(bundles(kernel, place)) >= 3)
    kernel.run("run.end()")
    drawn_there = bundles(kernel, place)
    assert ".cancel()" in drawn_there[1]["text/html"]
    assert is_report(drawn_there[-1], "200 of 200 rows")


@pytest.mark.usefixtures("without_widgets")
def test_who_insists_on_a_widget_is_told_what_to_install(kernel):
    cell = kernel.send('slow(4, progress="widget");')
    kernel.finish(cell)
    assert cell.error.startswith("MissingExtraError")
    assert "pip install 'lbgpt-pandas[notebook]'" in cell.error


# --- runs that go on in later cells -----------------------------------------------------------


def test_a_submitted_run_keeps_its_place_in_its_cell(kernel):
    cell = kernel.run("run = Submitted().start()")
    place = place_in(cell)
    kernel.run("time.sleep(0.3)")
    kernel.run("run.end()")
    mine = bundles(kernel, place)
    assert [WIDGET in bundle for bundle in mine] == [False, True, False]
    assert is_report(mine[-1], "200 of 200 rows")


def test_buttons_of_a_submitted_run_work_between_cells(kernel):
    cell = kernel.run("run = Submitted().start()")
    kernel.wait_until(lambda: model_of(cell, "Cancel"))
    pause = model_of(cell, "Pause")
    kernel.tell(pause, method="custom", content={"event": "click"})
    kernel.wait_until(
        lambda: any(
            content["data"]["state"].get("description") == "Resume"
            for kind, content in kernel.messages
            if kind == "comm_msg"
        )
    )
    kernel.tell(pause, method="custom", content={"event": "click"})
    kernel.tell(model_of(cell, "Cancel"), method="custom", content={"event": "click"})
    pressed = kernel.run("print(run.pressed); run.end()")
    assert pressed.stdout == "['pause', 'resume', 'cancel']\n"


def test_a_click_cancels_a_submitted_column(kernel):
    cell = kernel.run(
        """
        frame = pd.DataFrame({"text": range(500)})
        engine = ScriptedGPT("yes", latency_s=0.05, max_parallel_calls=2)
        run = frame.lbgpt.submit("{text}", engine=engine, cache_mode="off")
        """
    )
    place = place_in(cell)
    kernel.wait_until(lambda: model_of(cell, "Cancel"))
    kernel.tell(model_of(cell, "Cancel"), method="custom", content={"event": "click"})
    kernel.wait_until(lambda: is_report(bundles(kernel, place)[-1], "of 500 rows"))
    after = kernel.run("time.sleep(0.05); print(run.done, 0 < run.partial().notna().sum() < 500)")
    assert after.stdout == "True True\n"


def version_of(kernel):
    cell = kernel.run("import ipykernel; print(list(ipykernel.version_info[:2]))")
    return tuple(json.loads(cell.stdout))


AWAIT = """
    run = Submitted(awaited=True)
    while not run.pressed and not run.over.is_set():
        run.advance()
        await asyncio.sleep(0.02)
    run.view.close(replace(run.shot, finished=True))
    print(run.pressed)
"""


def test_cancel_works_in_a_cell_that_awaits(kernel):
    if version_of(kernel) < (7, 4):
        pytest.skip("needs a front end that sends widget messages to a subshell, or a newer kernel")
    cell = kernel.send(AWAIT)
    kernel.wait_until(lambda: model_of(cell, "Cancel"))
    kernel.tell(model_of(cell, "Cancel"), method="custom", content={"event": "click"})
    kernel.finish(cell)
    assert cell.stdout == "['cancel']\n"


def test_a_cell_that_awaits_has_no_button_that_would_not_work(kernel):
    if version_of(kernel) >= (7, 0):
        pytest.skip("this kernel's buttons work")
    cell = kernel.send(AWAIT)
    kernel.wait_until(lambda: cell.displayed)
    kernel.interrupt()
    kernel.finish(cell)
    assert model_of(cell, "Cancel") is None
    assert "Interrupt" in drawn(cell)[0]


# --- on disk ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(run_notebook, kernel_has):
    if not kernel_has("ipywidgets"):
        pytest.skip("ipywidgets is not installed in the kernel's Python")
    cells = ["slow(30);", "run = Submitted().start()", "time.sleep(0.3)", "run.end()"]
    return {
        stores_state: run_notebook([PREAMBLE, *cells], store_widget_state=stores_state)
        for stores_state in (True, False)
    }


@pytest.mark.parametrize("stores_state", [True, False])
def test_the_saved_notebook_shows_the_last_figures(saved, stores_state):
    _, sync, submitted, *_ = saved[stores_state].cells
    for cell, text in ((sync, "30 of 30 rows"), (submitted, "200 of 200 rows")):
        (output,) = cell.outputs
        assert is_report(output.data, text)
        assert "Interrupt" not in output.data["text/html"]


@pytest.mark.parametrize("stores_state", [True, False])
def test_the_exported_page_shows_the_last_figures(saved, stores_state):
    html_exporter = pytest.importorskip("nbconvert").HTMLExporter
    page, _ = html_exporter().from_notebook_node(saved[stores_state])
    sync, submitted = (saved[stores_state].cells[n].outputs[0].data for n in (1, 2))
    # Markup is written a little differently there, words are not.
    for bundle in (sync, submitted):
        assert words(bundle["text/html"]) in words(page)
    assert f'<script type="{WIDGET}">' not in page
