"""Make the pictures of README from a real JupyterLab: ``python -m tests.browser.screenshots``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Playwright, sync_playwright

from tests.browser.lab import ROOT, Browser, JupyterLab

PLACE = ROOT / "notebooks" / "pictures"

SETUP = """
import pandas as pd
import lbgpt_pandas as lb
from lbgpt_pandas.testing import FakeProvider, Fault

def fault(record):
    if record.body["messages"][-1]["content"].endswith("day 13"):
        return Fault.content_filter()
    return Fault.server_error() if record.number % 41 == 0 else None

server = FakeProvider(
    reply="The customer is satisfied with the delivery and asks for a second one. " * 3,
    latency_s=lambda record: 0.15 + 0.3 * (record.number * 0.618 % 1),
    faults=fault,
)
server.start()
east = lb.ChatGPT("EMPTY", base_url=server.base_url, name="openai-east", limit_rpm=3_000,
                  limit_tpm=400_000, max_parallel_calls=16)
west = lb.ChatGPT("EMPTY", base_url=server.base_url, name="openai-west", limit_rpm=1_500,
                  limit_tpm=200_000, max_parallel_calls=16)
engine = lb.MultiLoadBalancedGPT([east, west], allocation_function="max_headroom")
lb.configure(engine, model="gpt-4o-mini", errors="ignore")
reviews = pd.DataFrame({"text": [f"Review {n % 900}: it came on day {n % 31}" for n in range(1_200)]})
few = reviews.head(3)
reviews[:250].lbgpt.complete("Summarise: {text}", progress="none");
"""
CELLS = [
    SETUP,
    'reviews["summary"] = reviews.lbgpt.complete("Summarise: {text}", budget=5, name="summary")',
    "lb.dashboard()",
    'reviews.text.lbgpt.submit("In French: {}", name="french");',
    "%load_ext lbgpt_pandas\n%lbgpt status",
    "%%lbgpt --df few --col short --dry-run\nIn five words: {text}",
]
WIDTHS = {"wide": 1000, "narrow": 440}


def draw(playwright: Playwright, theme: str, width: str) -> None:
    """Draw the pictures of one theme and width."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "lab").mkdir()
        with JupyterLab(home / "lab", theme=theme) as lab:
            lab.write("pictures.ipynb", CELLS)
            browser = Browser(
                playwright, home / "chromium", theme=theme, width=WIDTHS[width], height=1300
            )
            browser.open(lab.url("pictures.ipynb"))
            browser.run(0)
            browser.start(1)
            browser.wait_for(1, "asked")
            browser.page.wait_for_timeout(3_500)
            browser.picture(1, PLACE / f"running_{theme}_{width}.png")
            browser.wait_for(1, "from start to end")
            browser.page.wait_for_timeout(500)
            browser.picture(1, PLACE / f"report_{theme}_{width}.png")
            if width == "wide":
                draw_others(browser, theme)
            browser.close()


def draw_others(browser: Browser, theme: str) -> None:
    """Draw what looks alike at every width."""
    browser.run(2)
    browser.run(3)
    browser.page.wait_for_timeout(4_000)
    browser.picture(2, PLACE / f"dashboard_{theme}.png")
    browser.picture(3, PLACE / f"submitted_{theme}.png")
    browser.run(4)
    browser.run(5)
    browser.picture(5, PLACE / f"magic_{theme}.png")


def main() -> None:
    """Draw all of them."""
    PLACE.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        for theme in ("light", "dark"):
            for width in WIDTHS:
                draw(playwright, theme, width)
    for picture in sorted(PLACE.glob("*.png")):
        size = picture.stat().st_size / 1e3
        sys.stdout.write(f"{size:7.1f} kB  {picture.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
