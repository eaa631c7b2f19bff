"""Snapshots of runs in every state, made by hand, and what a browser reads in the HTML of them."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from lbgpt_pandas.engine.report import RunSnapshot
from lbgpt_pandas.engine.states import (
    BudgetState,
    DeploymentState,
    Failures,
    Gauge,
    RunHeading,
)

TAGS = {
    "b", "bdi", "caption", "code", "details", "div", "img", "span", "summary",
    "table", "tbody", "td", "th", "tr",
}  # fmt: skip
ATTRIBUTES = {"style", "title", "open", "alt", "src"}
VOID = {"img"}


class Page(HTMLParser):
    """What a browser makes of HTML, and complaints about what is not ours."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.words, self.open, self.complaints = [], [], [], [], []
        self.feed(html)
        self.close()
        self.complaints += [f"{tag} stays open" for tag in self.open]

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.words)).strip()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag in {"div", "td", "th", "summary", "caption"}:
            self.words.append(" ")
        if tag not in TAGS:
            self.complaints.append(f"<{tag}>")
        self.complaints += [f"<{tag} {name}>" for name, _ in attributes if name not in ATTRIBUTES]
        for name, value in attributes:
            if name == "style" and re.search(r"url\s*\(|expression|@import|position", value):
                self.complaints.append(value)
            if name == "src" and not re.fullmatch(r"data:image/svg\+xml;base64,[\w+/=]+", value):
                self.complaints.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.complaints.append(f"</{tag}>")
        if tag in {"div", "td", "th", "summary", "caption"}:
            self.words.append(" ")

    def handle_data(self, data):
        self.words.append(data)

    def handle_comment(self, data):
        self.complaints.append(f"<!--{data}")

    handle_decl = unknown_decl = handle_pi = handle_comment


@pytest.fixture
def page():
    """A function that reads HTML and insists that all of it is ours."""

    def read(html):
        read = Page(html)
        assert not read.complaints
        assert re.search(r"\$[^<]", html) is None
        return read

    return read


@pytest.fixture
def heading():
    return RunHeading("complete", "gpt-4o-mini", "Balanced of 3", "answer", "7f3c")


@pytest.fixture
def running():
    deployments = (
        DeploymentState(
            "openai-a", requests=Gauge(312, 1200), tokens=Gauge(88_000, 200_000),
            in_flight=21, places=64, answered=1913, source="header",
        ),
        DeploymentState("azure-eu", in_flight=43, places=64, answered=3827, refused=2),
        DeploymentState("azure-us", "resting", wait_s=11.4, fault="ServerError 503"),
    )  # fmt: skip
    return RunSnapshot(
        rows=12_480, done=9_610, failed=100, skipped=0, cached=3_120, shared=750, in_flight=64,
        retries=23, prompt_tokens=1_800_000, completion_tokens=300_000, cost_usd=1.27,
        elapsed_s=238.0, finished=False, semantic=499, saved_usd=0.41, refused=2,
        deployments=deployments, budget=(BudgetState("usd", 1.27, 5.0),),
        failures=(Failures("ContentFiltered", 81, "no"), Failures("ContextTooLong", 19, "long")),
    )  # fmt: skip


@pytest.fixture
def finished(running):
    return replace(running, finished=True, done=12_340, skipped=40, in_flight=0)
