"""Names and messages are anybody's text: whatever they are, the HTML stays ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbgpt_pandas.drawing.panel import CacheCounts, History, panel_html
from lbgpt_pandas.drawing.run import run_html, run_line, run_text
from lbgpt_pandas.engine.markup import table_html
from lbgpt_pandas.engine.states import DeploymentState, Failures, Gauge, RunHeading

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)",
    "</title></style></details><svg onload=alert(1)>",
    "<!-- ", "]]>", "<?php", "&lt;b&gt;", "$\\href{javascript:alert(1)}{x}$", "\\(x\\)",
    "\x00\x1b[31m\u202etxt.exe\u2028\u2029\x85", "a\nb\tc", "\ud800", "x" * 5_000,
    "<b>" * 400, "$" * 400, '"' * 400,
]  # fmt: skip
texts = st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=80))


def views(text, snapshot):
    deployments = tuple(
        DeploymentState(f"{text}{i}", "resting", fault=text, requests=Gauge(1, 2), source=text)
        for i in range(10)
    )
    failures = tuple(Failures(text, 1, text) for _ in range(4))
    heading = RunHeading(text, text + "m", text, text, text)
    for finished in (False, True):
        run = replace(snapshot, deployments=deployments, failures=failures, finished=finished)
        yield run_html(heading, run, hint=text, notes=[text, text])
    history = History()
    history.note(0.0, deployments, CacheCounts(3, 4, 1))
    yield panel_html(history)
    yield table_html(text, [(text, text)])


def lines(text, snapshot):
    run = replace(snapshot, deployments=(DeploymentState(text, fault=text),))
    heading = RunHeading(text, text, text, text, text)
    return [run_line(heading, run), *run_text(heading, run, notes=[text]).split("\n")]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_inert(page, running, text):
    for html in views(text, running):
        page(html)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts)
def test_any_text_is_inert(page, running, text):
    for html, plain in zip(views(text, running), views("x", running), strict=True):
        assert elements(page(html)) == elements(page(plain))
    assert all(line.isprintable() for line in lines(text, running))


def elements(read):
    """All tags but those around single characters."""
    return [tag for tag in read.tags if tag != "span"]


def test_formulas_are_broken_up(page, running):
    for html in views("$x$ \\(y\\)", running):
        assert "<span>$</span>x<span>$</span>" in html
        words = page(html).words
        assert "\\" in words
        assert not any("\\" in word for word in words if len(word) > 1)
