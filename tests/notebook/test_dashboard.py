"""What the dashboard draws, and when it stops; in IPython's own shell and in a real kernel."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from lbgpt_pandas.drawing.panel import CacheCounts
from lbgpt_pandas.engine import ChatGPT
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.states import DeploymentState, Gauge
from lbgpt_pandas.notebook.dashboard import IDLE_S, Dashboard, dashboard
from lbgpt_pandas.settings import using
from lbgpt_pandas.testing import ScriptedGPT

WIDGET = "application/vnd.jupyter.widget-view+json"


class World:
    """Deployments and a clock to be moved by hand."""

    def __init__(self):
        self.now, self.in_flight, self.answered, self.hits = 0.0, 0, 0, 0
        self.board = Dashboard(self.look, interval_s=60.0, now=lambda: self.now)

    def look(self):
        state = DeploymentState(
            "east",
            requests=Gauge(480, 500),
            in_flight=self.in_flight,
            answered=self.answered,
        )
        return [state], CacheCounts(hits=self.hits)

    def pass_time(self, seconds):
        self.now += seconds
        self.board.tick()


@pytest.fixture
def world():
    made = World()
    yield made
    made.board.stop()


def test_it_is_text_where_there_is_no_notebook(world):
    text = repr(world.board)
    assert "east: ready, 480 of 500 requests left, 0 in flight" in text
    bundle = world.board._repr_mimebundle_()
    assert bundle["text/plain"] == text
    assert "east" in bundle["text/html"]
    with pytest.raises(NotImplementedError):
        world.board._ipython_display_()
    assert not world.board.is_running


def test_it_shows_the_configured_deployments():
    with using(ChatGPT("sk-secret", limit_rpm=500, name="north")):
        board = dashboard()
        text = repr(board)
    assert "north: ready, 500 of 500 requests left" in text
    assert "sk-secret" not in text


def test_it_counts_what_the_caches_found():
    column = pd.Series([f"row {number}" for number in range(4)])
    with using(ScriptedGPT("yes", name="north"), cache={}):
        board = dashboard()
        assert "caches: 0 hits, 0 misses" in repr(board)
        for _ in range(3):
            column.lbgpt.complete("{}", progress=False)
        assert "caches: 8 hits, 4 misses" in repr(board)


@pytest.mark.parametrize("interval", [0.1, 0, -1, float("nan"), "1", True, None])
def test_an_interval_is_a_number_of_seconds(interval):
    with pytest.raises(ConfigurationError, match="interval_s"):
        dashboard(interval)


def test_it_stops_ten_minutes_after_the_last_call(world):
    world.pass_time(IDLE_S - 1)
    world.answered += 1
    world.pass_time(IDLE_S - 1)
    world.hits += 1
    world.pass_time(IDLE_S - 1)
    assert "Drawing stopped" not in repr(world.board)
    world.pass_time(IDLE_S - 1)
    world.in_flight = 1
    world.pass_time(IDLE_S)
    world.in_flight = 0
    world.pass_time(IDLE_S - 1)
    assert "Drawing stopped" not in repr(world.board)
    world.pass_time(1)
    assert "Drawing stopped: no call for 10 minutes" in repr(world.board)


def test_what_it_showed_last_stays_after_stop(world):
    world.pass_time(1)
    world.board.stop()
    world.answered, before = 99, repr(world.board)
    world.pass_time(1)
    world.board.stop()
    assert repr(world.board) == before
    assert "east: ready" in before


# --- in a kernel ----------------------------------------------------------------------------------

PREAMBLE = """
    import lbgpt_pandas.notebook.dashboard as module
    from lbgpt_pandas.drawing.panel import CacheCounts
    from lbgpt_pandas.engine.states import DeploymentState, Gauge

    answered = 0

    def look():
        global answered
        answered += 1
        return [DeploymentState("east", requests=Gauge(480, 500), answered=answered)], CacheCounts()

    def board():
        global seen
        module.UNSEEN_S = 0.1
        seen = module.Dashboard(look, interval_s=0.05)
        return seen
"""


@pytest.fixture(scope="module")
def kernel(start_kernel, kernel_has):
    pytest.importorskip("jupyter_client")
    if not kernel_has("ipywidgets"):
        pytest.skip("ipywidgets is not installed in the kernel's Python")
    running = start_kernel()
    running.run(PREAMBLE)
    return running


@pytest.fixture
def shown(kernel):
    """A dashboard that is drawn: its display_id and its widget's model."""
    cell = kernel.run("board()")
    (content,) = [content for kind, content in cell.messages if kind == "display_data"]
    yield content["transient"]["display_id"], content["data"][WIDGET]["model_id"]
    kernel.run("seen.stop()")


def drawings(kernel, model):
    return [
        content["data"]["state"]["value"]
        for kind, content in kernel.messages
        if kind == "comm_msg"
        and content["comm_id"] == model
        and "value" in content["data"].get("state", {})
    ]


def last_output(kernel, place):
    return [
        content["data"]
        for kind, content in kernel.messages
        if kind == "update_display_data" and content["transient"]["display_id"] == place
    ][-1]


def is_still(kernel, place):
    cell = kernel.run("print(seen.is_running)")
    return cell.stdout == "False\n" and WIDGET not in last_output(kernel, place)


@pytest.mark.kernel
@pytest.mark.process
def test_it_moves_between_cells_and_while_one_is_busy(kernel, shown):
    _, model = shown
    kernel.wait_until(lambda: len(drawings(kernel, model)) >= 3)
    busy = kernel.send("import time; time.sleep(1)")
    before = len(drawings(kernel, model))
    kernel.wait_until(lambda: len(drawings(kernel, model)) >= before + 3)
    assert busy.status is None
    kernel.finish(busy)


@pytest.mark.kernel
@pytest.mark.process
def test_stop_leaves_the_last_state_in_its_place(kernel, shown):
    place, _ = shown
    kernel.run("seen.stop()")
    assert is_still(kernel, place)
    assert set(last_output(kernel, place)) == {"text/html", "text/plain"}
    assert "stop() was called" in last_output(kernel, place)["text/plain"]


@pytest.mark.kernel
@pytest.mark.process
def test_it_stops_when_its_output_is_cleared(kernel, shown):
    place, model = shown
    kernel.tell(model, method="update", state={"_view_count": 1}, buffer_paths=[])
    kernel.wait_until(lambda: len(drawings(kernel, model)) >= 3)
    assert kernel.run("print(seen.is_running)").stdout == "True\n"
    kernel.tell(model, method="update", state={"_view_count": 0}, buffer_paths=[])
    kernel.wait_until(lambda: is_still(kernel, place))
    assert "its output was cleared" in last_output(kernel, place)["text/plain"]


@pytest.mark.kernel
@pytest.mark.process
def test_it_stops_when_its_widget_is_closed(kernel, shown):
    place, _ = shown
    kernel.run("import ipywidgets; ipywidgets.Widget.close_all()")
    kernel.wait_until(lambda: is_still(kernel, place))
    assert "its widget was closed" in last_output(kernel, place)["text/plain"]


@pytest.mark.kernel
@pytest.mark.process
def test_it_stops_when_the_front_end_closes_the_widget(kernel, shown):
    place, model = shown
    kernel.tell(model, kind="comm_close")
    kernel.wait_until(lambda: is_still(kernel, place))


@pytest.mark.kernel
@pytest.mark.process
def test_it_is_html_where_there_are_no_widgets(kernel):
    kernel.run('import sys; hidden = sys.modules["ipywidgets"]; sys.modules["ipywidgets"] = None')
    cell = kernel.run("board()")
    kernel.run('sys.modules["ipywidgets"] = hidden')
    assert [set(bundle) for bundle in cell.displayed[:1]] == [{"text/html", "text/plain"}]
    place = cell.messages[[kind for kind, _ in cell.messages].index("display_data")][1][
        "transient"
    ]["display_id"]
    kernel.wait_until(lambda: json.dumps(kernel.messages[-40:], default=str).count(place) >= 3)
    kernel.run("seen.stop()")
    assert is_still(kernel, place)
