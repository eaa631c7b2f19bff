"""JupyterLab in a real browser: a server of its own, and a page that is read and clicked."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from playwright.sync_api import BrowserContext, Locator, Playwright

ROOT = Path(__file__).parents[2]
PATIENCE_S = 40.0
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
]  # fmt: skip
LAB = (
    "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
    "--ServerApp.port_retries=0", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
)  # fmt: skip
APP = "(window.jupyterapp || window.jupyterlab)"
NOTEBOOK = f"{APP}.shell.currentWidget"


def chromium() -> str | None:
    """Return where Chromium is; the browser of the system, nothing is downloaded."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class JupyterLab:
    """A server on this machine in a directory of its own, for one theme.

    Parameters
    ----------
    home : path
        An empty directory.
    theme : {"light", "dark"}
        How pages look.
    """

    def __init__(self, home: Path, *, theme: str = "light") -> None:
        self.theme = theme
        self.root = home / "notebooks"
        self.root.mkdir()
        self._home = home
        self._token = secrets.token_hex(16)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self.base = f"http://127.0.0.1:{self._port}"
        self._settle()

    def _settle(self) -> None:
        """Write settings: the theme, and no dialog about news."""
        folder = self._home / "settings" / "@jupyterlab" / "apputils-extension"
        folder.mkdir(parents=True)
        theme = {"theme": f"JupyterLab {self.theme.title()}"}
        (folder / "themes.jupyterlab-settings").write_text(json.dumps(theme))
        silent = {"checkForUpdates": False, "fetchNews": "false"}
        (folder / "notification.jupyterlab-settings").write_text(json.dumps(silent))

    def __enter__(self) -> Self:
        self._log = (self._home / "lab.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, *LAB, f"--port={self._port}", f"--ServerApp.root_dir={self.root}"],
            env=self._environment(),
            stdout=self._log,
            stderr=self._log,
            cwd=self.root,
        )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError((self._home / "lab.log").read_text())
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def url(self, notebook: str) -> str:
        """Return where a notebook is opened."""
        return f"{self.base}/doc/tree/{notebook}?token={self._token}&reset"

    def write(self, name: str, cells: Sequence[str]) -> Path:
        """Make a notebook of code cells."""
        made = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            # Without it JupyterLab asks for a kernel in a dialog.
            metadata={
                "kernelspec": {
                    "name": "python3",
                    "display_name": "Python 3",
                    "language": "python",
                }
            },
        )
        place = self.root / name
        nbformat.write(made, place)
        return place

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.base}/api?token={self._token}", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.endswith("_API_KEY") and not name.startswith(("JUPYTER", "LBGPT_"))
        }
        folders = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
            "LBGPT_CACHE_DIR": "cache",
        }
        path = os.pathsep.join(filter(None, (kept.get("PYTHONPATH"), str(ROOT))))
        own = {name: str(self._home / folder) for name, folder in folders.items()}
        return kept | own | {"JUPYTER_TOKEN": self._token, "PYTHONPATH": path}


class Browser:
    """Chromium with one page; what the page asked for and complained about is kept.

    Parameters
    ----------
    playwright : Playwright
        Drives it.
    home : path
        An empty directory for its profile.
    theme : {"light", "dark"}
        What the system is said to prefer.
    width, height : int
        Of the window, in pixels.
    """

    def __init__(
        self, playwright: Playwright, home: Path, *, theme: str, width: int, height: int
    ) -> None:
        self._context: BrowserContext = playwright.chromium.launch_persistent_context(
            str(home),
            executable_path=chromium(),
            headless=True,
            args=FLAGS,
            viewport={"width": width, "height": height},
            device_scale_factor=1,
            color_scheme="dark" if theme == "dark" else "light",
        )
        pages = self._context.pages
        self.page = pages[0] if pages else self._context.new_page()
        self.page.set_default_timeout(PATIENCE_S * 1000)
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", self._note_dialog)

    def _note_dialog(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def close(self) -> None:
        """End the browser."""
        self._context.close()

    def open(self, url: str) -> None:
        """Open a notebook and wait for its kernel."""
        self.page.goto(url, wait_until="domcontentloaded")
        self.page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
        self.page.wait_for_function(
            f"() => !!{APP} && {NOTEBOOK}?.sessionContext?.session?.kernel?.status === 'idle'"
        )

    def start(self, cell: int) -> None:
        """Run a cell and go on at once."""
        self.page.evaluate(
            f"""index => {{
                const notebook = {NOTEBOOK}.content;
                notebook.activeCellIndex = index;
                notebook.deselectAll();
                {APP}.commands.execute('notebook:run-cell');
            }}""",
            cell,
        )

    def run(self, cell: int) -> None:
        """Run a cell and wait until it is done."""
        before = self.count(cell)
        self.start(cell)
        self.page.wait_for_function(
            f"""([index, before]) => {{
                const panel = {NOTEBOOK};
                const count = panel.content.widgets[index].model.executionCount;
                return count !== null && count !== before
                    && panel.sessionContext.session.kernel.status === 'idle';
            }}""",
            arg=[cell, before],
        )

    def count(self, cell: int) -> int | None:
        """Return a cell's number in its brackets."""
        found: int | None = self.page.evaluate(
            f"index => {NOTEBOOK}.content.widgets[index].model.executionCount", cell
        )
        return found

    def output(self, cell: int) -> Locator:
        """Return a cell's output."""
        return self.page.locator(".jp-Cell").nth(cell).locator(".jp-Cell-outputArea")

    def wait_for(self, cell: int, text: str) -> str:
        """Wait until a cell's output holds a text; return all of it."""
        self.output(cell).filter(has_text=text).wait_for()
        return self.output(cell).inner_text()

    def click(self, cell: int, label: str) -> None:
        """Click a button in a cell's output."""
        self.output(cell).get_by_role("button", name=label).click()

    def save(self) -> None:
        """Save the notebook."""
        self.page.evaluate(f"() => {NOTEBOOK}.context.save()")

    def picture(self, cell: int, place: Path | None = None) -> bytes:
        """Draw a cell's output."""
        output = self.output(cell)
        output.scroll_into_view_if_needed()
        return output.screenshot(path=place)
