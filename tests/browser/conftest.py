"""A JupyterLab for all browser tests, and a page for each."""

from __future__ import annotations

import importlib.util

import pytest

from tests.browser.lab import Browser, JupyterLab, chromium


@pytest.fixture(scope="module")
def playwright():
    """The browser's driver; not for longer, because it keeps an event loop running in this thread."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("the browser's driver is missing: pip install playwright")
    if chromium() is None:
        pytest.skip("the browser is missing: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def lab(playwright, tmp_path_factory):
    with JupyterLab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture
def browser(playwright, lab, tmp_path):
    opened = Browser(playwright, tmp_path / "chromium", theme="light", width=1000, height=1200)
    yield opened
    opened.close()
