"""What a live view sends, when, and what it leaves behind; in IPython's own shell, no kernel."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from lbgpt_pandas.engine.report import RunSnapshot
from lbgpt_pandas.engine.states import DeploymentState, Failures, RunHeading
from lbgpt_pandas.notebook.bars import DELAY_S
from lbgpt_pandas.notebook.live import GAP_S, INTERRUPT, HandleView, WidgetView
from lbgpt_pandas.notebook.statics import WIDGET, StaticReport

pytest.importorskip("IPython")
ipywidgets = pytest.importorskip("ipywidgets")

HEADING = RunHeading("complete", "gpt-4o-mini", "azure", "answer", "run-1")
START = RunSnapshot(
    rows=200, done=0, failed=0, skipped=0, cached=0, shared=0, in_flight=0, retries=0,
    prompt_tokens=0, completion_tokens=0, cost_usd=0.0, elapsed_s=0.0, finished=False,
)  # fmt: skip
END = replace(START, done=200, elapsed_s=9.0, finished=True)


def at(elapsed_s, done=10, **changes):
    return replace(START, elapsed_s=elapsed_s, done=done, **changes)


class Switches:
    """Controls that remember what was pressed."""

    def __init__(self):
        self.pressed = []

    def pause(self):
        self.pressed.append("pause")

    def resume(self):
        self.pressed.append("resume")

    def cancel(self):
        self.pressed.append("cancel")


@pytest.fixture
def outputs(ipython_shell):
    """What an IPython shell was told to display so far."""
    from IPython.core.displaypub import CapturingDisplayPublisher

    shell = ipython_shell
    publisher = shell.display_pub = CapturingDisplayPublisher(parent=shell, shell=shell)
    return publisher.outputs


@pytest.fixture
def widgets():
    """The widgets that are open at this moment, by their kind."""
    from ipywidgets.widgets.widget import _instances

    before = set(_instances)

    def now(kind=ipywidgets.Widget):
        return [
            each
            for name, each in list(_instances.items())
            if name not in before and isinstance(each, kind)
        ]

    yield now
    for each in now():
        each.close()


@pytest.fixture(params=[HandleView, WidgetView])
def view(request, outputs, widgets):
    return request.param(HEADING)


def place_of(output):
    return output["transient"]["display_id"]


# --- when something is drawn ------------------------------------------------------------------


def test_a_short_run_draws_nothing(view, outputs, widgets):
    view.update(at(DELAY_S - 0.01))
    view.close(replace(END, elapsed_s=DELAY_S - 0.001))
    assert outputs == []
    assert widgets() == []


def test_a_run_that_was_never_ticked_leaves_its_report(view, outputs):
    view.close(END)
    assert [set(output["data"]) for output in outputs] == [{"text/html", "text/plain"}]
    assert "200 of 200 rows" in outputs[0]["data"]["text/plain"]


def test_drawings_keep_their_distance(outputs):
    view = HandleView(HEADING)
    for tick in range(50):  # every 20 ms for a second
        view.update(at(1.0 + tick / 50, done=tick))
    assert 2 <= len(outputs) <= 1 / GAP_S + 1


def test_what_is_the_same_is_not_drawn_again_within_a_second(outputs):
    view = HandleView(HEADING)
    resting = DeploymentState("east", health="resting", wait_s=8.9)
    shot = at(1.0, deployments=(resting,))
    view.update(shot)
    later = replace(shot, elapsed_s=1.4, deployments=(replace(resting, wait_s=8.5),))
    view.update(later)
    assert len(outputs) == 1
    view.update(replace(later, elapsed_s=1.6, retries=1))
    assert len(outputs) == 2


def test_clocks_move_every_second(outputs):
    view = HandleView(HEADING)
    for tick in range(51):
        view.update(at(1.0 + tick / 10))
    assert len(outputs) == 6


class DearView(HandleView):
    """Takes 5 ms of CPU time for a drawing."""

    def _change(self, html, snapshot):
        began = time.thread_time()
        while time.thread_time() - began < 0.005:
            pass
        super()._change(html, snapshot)


def test_a_dear_drawing_comes_less_often(outputs):
    view = DearView(HEADING)
    for tick in range(31):
        view.update(at(1.0 + tick / 10, done=tick))
    # The first, the second after 0.2 s, and from then on one in half a second or slower.
    assert 3 <= len(outputs) <= 8


def test_the_last_state_is_always_sent(view, outputs):
    view.update(at(1.0))
    view.update(at(1.001, done=150))
    view.close(replace(END, elapsed_s=1.002))
    assert "200 of 200 rows" in outputs[-1]["data"]["text/plain"]


# --- what is sent -----------------------------------------------------------------------------


def test_html_and_text_stand_beside_the_widget(outputs):
    view = WidgetView(HEADING, hint=INTERRUPT)
    view.update(at(1.0))
    (output,) = outputs
    assert set(output["data"]) == {"text/html", "text/plain", WIDGET}
    assert "10 of 200 rows" in output["data"]["text/plain"]
    assert INTERRUPT in output["data"]["text/html"]
    view.close(END)


def test_a_tick_changes_one_value_and_displays_nothing(outputs, widgets):
    view = WidgetView(HEADING)
    view.update(at(1.0))
    (screen,) = widgets(ipywidgets.HTML)
    changes = []
    for each in widgets():
        each.observe(changes.append)
    view.update(at(2.0, done=100))
    assert [(change["owner"], change["name"]) for change in changes] == [(screen, "value")]
    assert len(outputs) == 1
    view.close(END)


def test_the_report_takes_the_place_of_the_live_view(view, outputs):
    view.update(at(1.0))
    view.update(at(2.0, done=100))
    view.close(END)
    assert {place_of(output) for output in outputs} == {place_of(outputs[0])}
    assert [output["update"] for output in outputs] == [False] + [True] * (len(outputs) - 1)
    assert set(outputs[-1]["data"]) == {"text/html", "text/plain"}
    assert INTERRUPT not in outputs[-1]["data"]["text/html"]


def test_no_widget_is_left_open(widgets, outputs):
    view = WidgetView(HEADING, controls=Switches())
    view.update(at(1.0))
    assert len(widgets()) > 5
    view.close(END)
    assert widgets() == []


def test_a_run_that_was_given_up_is_reported_as_stopped(view, outputs):
    view.update(at(1.0))
    given_up = at(2.0, done=60, in_flight=4)
    view.close(given_up)
    text = outputs[-1]["data"]["text/html"]
    other = type(view)(HEADING)
    other.close(replace(given_up, finished=True, stopped=True))
    assert text == outputs[-1]["data"]["text/html"]


def test_text_from_outside_is_inert(view, outputs, widgets):
    evil = "<img src=x onerror=alert(1)></script>"
    view = type(view)(RunHeading("complete", evil, evil, evil, evil))
    shot = at(
        1.0,
        failed=1,
        failures=(Failures("Timeout", 1, evil),),
        deployments=(DeploymentState(evil),),
    )
    view.update(shot)
    view.update(replace(shot, elapsed_s=2.0, done=50))
    drawn = [output["data"].get("text/html", "") for output in outputs]
    drawn += [screen.value for screen in widgets(ipywidgets.HTML)]
    view.close(replace(shot, elapsed_s=3.0, finished=True))
    drawn.append(outputs[-1]["data"]["text/html"])
    assert len(drawn) >= 3
    assert not [text for text in drawn if "<img src=x" in text or "</script" in text]


def test_a_static_report_is_html_in_a_notebook_and_text_elsewhere():
    report = StaticReport("<b>3</b>", "three")
    assert repr(report) == "three"
    assert report._repr_mimebundle_() == {"text/html": "<b>3</b>", "text/plain": "three"}


# --- runs that other threads draw ---------------------------------------------------------------


@pytest.mark.parametrize("kind", [HandleView, WidgetView])
def test_a_place_in_the_cell_is_taken_at_once_and_filled_later(kind, outputs):
    view = kind(HEADING, place=True)
    assert [output["data"]["text/html"] for output in outputs] == [""]
    view.update(at(1.0))
    view.close(END)
    assert {place_of(output) for output in outputs} == {place_of(outputs[0])}
    assert "200 of 200 rows" in outputs[-1]["data"]["text/plain"]


def test_a_place_stays_empty_if_the_run_is_short(outputs):
    view = WidgetView(HEADING, place=True)
    view.update(at(DELAY_S / 2))
    view.close(replace(END, elapsed_s=DELAY_S / 1.5))
    assert len(outputs) == 1


def test_nothing_is_drawn_after_the_end(view, outputs, widgets):
    view.update(at(1.0))
    view.close(END)
    sent = len(outputs)
    view.update(at(20.0))
    view.close(replace(END, done=1))
    assert len(outputs) == sent
    assert widgets() == []


def test_a_ticking_thread_and_a_closing_one_agree_on_the_end(view, outputs):
    over = threading.Event()

    def tick():
        number = 0
        while not over.is_set():
            number += 1
            view.update(at(1.0 + number, done=number % 200))

    threads = [threading.Thread(target=tick) for _ in range(3)]
    for thread in threads:
        thread.start()
    while not outputs:
        pass
    view.close(END)
    sent = len(outputs)
    over.set()
    for thread in threads:
        thread.join()
    assert len(outputs) == sent
    assert set(outputs[-1]["data"]) == {"text/html", "text/plain"}
    assert len({place_of(output) for output in outputs}) == 1


# --- buttons ------------------------------------------------------------------------------------


def button(widgets, name):
    return next(each for each in widgets(ipywidgets.Button) if each.description == name)


def test_there_are_no_buttons_without_anything_to_control(widgets, outputs):
    view = WidgetView(HEADING)
    view.update(at(1.0))
    assert widgets(ipywidgets.Button) == []
    view.close(END)


def test_a_click_does_one_thing(widgets, outputs):
    switches = Switches()
    view = WidgetView(HEADING, controls=switches)
    view.update(at(1.0))
    button(widgets, "Pause").click()
    assert switches.pressed == ["pause"]
    view.update(at(2.0, paused=True))
    button(widgets, "Resume").click()
    assert switches.pressed == ["pause", "resume"]
    view.update(at(3.0))
    button(widgets, "Pause").click()
    button(widgets, "Cancel").click()
    assert switches.pressed == ["pause", "resume", "pause", "cancel"]
    view.close(END)


def test_what_is_stopped_can_be_neither_paused_nor_cancelled(widgets, outputs):
    view = WidgetView(HEADING, controls=Switches())
    view.update(at(1.0))
    assert [each.disabled for each in widgets(ipywidgets.Button)] == [False, False]
    view.update(at(2.0, stopped=True))
    assert [each.disabled for each in widgets(ipywidgets.Button)] == [True, True]
    view.close(END)
