"""What a user sees and clicks in JupyterLab while a column is made."""

from __future__ import annotations

import json
import re

import pytest

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(150)]

TWO_KEYS = """
import pandas as pd
import lbgpt_pandas as lb
from lbgpt_pandas.testing import FakeProvider

server = FakeProvider(latency_s=0.2)
server.start()
keys = [
    lb.ChatGPT("EMPTY", base_url=server.base_url, name=name, limit_rpm=rpm, max_parallel_calls=12)
    for name, rpm in (("east", 6_000), ("west", 3_000))
]
engine = lb.MultiLoadBalancedGPT(keys, allocation_function="max_headroom")
lb.configure(engine, model="m", cache=None)
rows = pd.Series([f"row {number}" for number in range(400)])
"""
HOSTILE = """
import pandas as pd
import lbgpt_pandas as lb
from lbgpt_pandas.testing import ScriptedGPT

EVIL = (
    "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    "![x](http://evil.example/x.png) [link](javascript:alert(3)) <svg onload=alert(4)>"
    "<iframe src='http://evil.example'></iframe> $\\\\href{javascript:alert(5)}{x}$"
)
def answer(request):
    text = request.messages[-1]["content"]
    return lb.BadRequest(EVIL, status=400) if "fail" in text else EVIL
engine = ScriptedGPT(answer, latency_s=0.7, name=EVIL, limit_rpm=600)
lb.configure(engine, model=EVIL, cache=None, errors="ignore")
rows = pd.Series(["fine", "fail"])
"""


def done(text):
    return int(re.search(r"([\d,]+) of 400 rows", text)[1].replace(",", ""))


def wait_for_more_than(browser, rows):
    """Wait until cell 1 shows that more rows are done."""
    browser.page.wait_for_function(
        """rows => {
            const text = document.querySelectorAll('.jp-Cell')[1].innerText;
            const found = text.match(/([\\d,]+) of 400 rows/);
            return found && Number(found[1].replace(',', '')) > rows;
        }""",
        arg=rows,
    )


def outputs(place, cell):
    return json.loads(place.read_text())["cells"][cell]["outputs"]


def test_the_view_moves_while_the_cell_runs_and_the_report_stays(lab, browser):
    place = lab.write("moves.ipynb", [TWO_KEYS, 'answers = rows.lbgpt.complete("{}")'])
    browser.open(lab.url("moves.ipynb"))
    browser.run(0)
    browser.start(1)
    browser.wait_for(1, "of 400 rows")
    wait_for_more_than(browser, 0)
    first = browser.output(1).inner_text()
    early = browser.picture(1)
    browser.page.wait_for_timeout(1_000)
    later = browser.output(1).inner_text()
    assert done(first) < done(later) < 400
    assert browser.picture(1) != early
    assert "east" in later
    assert "west" in later
    assert "Interrupt" in later
    assert browser.output(1).locator(".widget-html").count()
    last = browser.wait_for(1, "400 of 400 rows")
    browser.output(1).locator(".widget-html").wait_for(state="detached")
    assert "Interrupt" not in last
    browser.save()
    (saved,) = outputs(place, 1)
    assert set(saved["data"]) == {"text/html", "text/plain"}
    assert "400 of 400 rows" in "".join(saved["data"]["text/plain"])
    browser.open(lab.url("moves.ipynb"))
    assert "400 of 400 rows" in browser.wait_for(1, "400 of 400 rows")


def test_a_run_in_the_background_is_paused_resumed_and_cancelled_by_clicks(lab, browser):
    place = lab.write(
        "clicks.ipynb",
        [TWO_KEYS, 'run = rows.lbgpt.submit("again {}");', "print(run.progress())", "run.done"],
    )
    browser.open(lab.url("clicks.ipynb"))
    browser.run(0)
    browser.run(1)
    browser.wait_for(1, "of 400 rows")
    browser.click(1, "Pause")
    browser.wait_for(1, "Resume")
    browser.run(2)
    assert "paused=True" in browser.output(2).inner_text()
    browser.page.wait_for_timeout(600)  # what was on the wire arrives
    held = done(browser.output(1).inner_text())
    browser.page.wait_for_timeout(600)
    assert done(browser.output(1).inner_text()) == held < 400
    browser.click(1, "Resume")
    wait_for_more_than(browser, held)
    browser.click(1, "Cancel")
    browser.output(1).get_by_role("button").first.wait_for(state="detached")
    assert done(browser.output(1).inner_text()) < 400
    browser.run(3)
    assert "True" in browser.output(3).inner_text()
    browser.save()
    (saved,) = outputs(place, 1)
    assert set(saved["data"]) == {"text/html", "text/plain"}


def test_what_models_and_providers_say_is_inert_in_every_view(lab, browser):
    lab.write(
        "hostile.ipynb",
        [
            HOSTILE,
            'rows.lbgpt.complete("{}", name=EVIL);',
            "lb.last_run()",
            "lb.dashboard()",
            "%load_ext lbgpt_pandas",
            "%%lbgpt\nfine",
            "%lbgpt status",
            "lb.settings()",
            "run = rows.lbgpt.submit('{}')\nrun.result()\nrun",
            "engine",
        ],
    )
    browser.open(lab.url("hostile.ipynb"))
    for cell in range(10):
        browser.run(cell)
    browser.page.wait_for_timeout(700)
    for cell in (1, 2, 3, 5, 8):
        assert "onerror=alert(1)" in browser.output(cell).inner_html(), cell
        assert not browser.output(cell).locator("img[src='x'], iframe, script, svg[onload]").count()
        assert not browser.output(cell).locator("a[href^='javascript']").count(), cell
        assert not browser.output(cell).locator("mjx-container").count(), cell
    assert browser.dialogs == []
    assert [
        url for url in browser.requests if not url.startswith((lab.base, "data:", "blob:"))
    ] == []
