"""A real kernel for the tests: cells are sent, waited for, interrupted.

The kernel is the ``ipykernel`` of the Python that runs the tests. Another one is tried by
giving a Python that has ``ipykernel`` and this package's dependencies::

    LBGPT_KERNEL_PYTHON=/path/to/venv/bin/python pytest tests/notebook/
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Read when the module is imported: the tests themselves run without such variables.
KERNEL_PYTHON = os.environ.get("LBGPT_KERNEL_PYTHON", sys.executable)
PATIENCE_S = 9.0
NAME = "lbgpt-test"
LAUNCH = ("-m", "ipykernel_launcher", "-f", "{connection_file}")


@pytest.fixture
def ipython_shell(tmp_path, monkeypatch):
    """A shell of IPython in this process."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    yield made
    made.restore_sys_module_state()
    InteractiveShell.clear_instance()
    # At the end of the process each of hundreds would collect garbage, for a second each.
    atexit.unregister(made.atexit_operations)


@dataclass
class Cell:
    """What came of one cell so far."""

    stdout: str = ""
    stderr: str = ""
    error: str | None = None
    status: str | None = None
    displayed: list[dict] = field(default_factory=list)
    widgets: list[dict] = field(default_factory=list, repr=False)
    messages: list[tuple[str, dict]] = field(default_factory=list, repr=False)
    idle: bool = False

    @property
    def ended(self):
        return self.idle and self.status is not None


def specs(directory, launch):
    """Make a kernel known, in a directory of its own."""
    import jupyter_client

    home = directory / "kernels" / NAME
    home.mkdir(parents=True)
    spec = {"argv": [KERNEL_PYTHON, *launch], "display_name": "t", "language": "python"}
    (home / "kernel.json").write_text(json.dumps(spec))
    return jupyter_client.kernelspec.KernelSpecManager(
        kernel_dirs=[str(home.parent)], ensure_native_kernel=False
    )


def environment(directory):
    """Variables of a kernel: this source tree, no key, nothing of the user's."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.endswith("_API_KEY") and not name.startswith("LBGPT_")
    }
    path = [part for part in (kept.get("PYTHONPATH"), str(ROOT)) if part]
    return kept | {
        "PYTHONPATH": os.pathsep.join(path),
        "LBGPT_CACHE_DIR": str(directory / "cache"),
        "IPYTHONDIR": str(directory / "ipython"),
        "JUPYTER_CONFIG_DIR": str(directory / "config"),
    }


class Kernel:
    """A kernel, and the cells that were sent to it."""

    def __init__(self, directory, launch):
        import jupyter_client

        self._manager = jupyter_client.KernelManager(
            kernel_name=NAME,
            kernel_spec_manager=specs(directory, launch),
            connection_file=str(directory / "connection.json"),
        )
        self._manager.start_kernel(cwd=str(directory), env=environment(directory))
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=30)
        self._cells = {}
        self.messages = []

    def close(self):
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)

    def send(self, code):
        """Queue a cell and return it at once."""
        cell = Cell()
        sent = self._client.execute(textwrap.dedent(code), allow_stdin=False)
        self._cells[sent] = cell
        return cell

    def run(self, code):
        """Run a cell to its end; it must not fail."""
        cell = self.send(code)
        self.finish(cell)
        assert cell.status == "ok", cell.error
        return cell

    def finish(self, cell):
        """Wait for the end of a cell."""
        self._pump(lambda: cell.ended)

    def wait_for(self, cell, text):
        """Wait until a cell has printed a text."""
        self._pump(lambda: text in cell.stdout)

    def wait_for_file(self, path):
        """Wait until the work of a cell has made a file: threads print where they like."""
        self._pump(path.exists)

    def wait_until(self, reached):
        """Wait until something is so."""
        self._pump(reached)

    def tell(self, widget, *, kind="comm_msg", **data):
        """Send a front end's message to a widget: ``method="update"`` or ``"custom"``."""
        content = {"comm_id": widget, "data": data}
        self._client.shell_channel.send(self._client.session.msg(kind, content))

    def interrupt(self):
        """Press the stop button; return when."""
        pressed = time.monotonic()
        self._manager.interrupt_kernel()
        return pressed

    def _pump(self, reached):
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            assert time.monotonic() < deadline, f"the kernel is silent: {self._cells.values()}"
            with contextlib.suppress(queue.Empty):
                self._hear(self._client.get_iopub_msg(timeout=0.05))
            with contextlib.suppress(queue.Empty):
                self._hear(self._client.get_shell_msg(timeout=0))

    def _hear(self, message):
        # A thread's messages may belong to no cell at all.
        self.messages.append((message["msg_type"], message["content"]))
        cell = self._cells.get(message["parent_header"].get("msg_id"))
        if cell is None:
            return
        content = message["content"]
        cell.messages.append((message["msg_type"], content))
        match message["msg_type"]:
            case "stream":
                setattr(cell, content["name"], getattr(cell, content["name"]) + content["text"])
            case "error":
                cell.error = f"{content['ename']}: {content['evalue']}"
            case "status":
                cell.idle = content["execution_state"] == "idle"
            case "execute_reply":
                cell.status = content["status"]
            case "display_data" | "execute_result" | "update_display_data":
                cell.displayed.append(content["data"])
            case "comm_open" | "comm_msg":
                cell.widgets.append(content["data"].get("state", {}))


@pytest.fixture(scope="session")
def kernel_has():
    """Tell whether the kernel's Python could import a module."""

    def has(module):
        code = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
        return subprocess.run([KERNEL_PYTHON, "-c", code], check=False).returncode == 0

    return has


@pytest.fixture(scope="module")
def start_kernel(tmp_path_factory, kernel_has):
    """Start kernels that end with the module."""
    if sys.platform == "win32":
        pytest.skip("signals are sent differently here")
    if not kernel_has("ipykernel"):
        pytest.skip("ipykernel is not installed")
    started = []

    def start(*launch):
        kernel = Kernel(tmp_path_factory.mktemp("kernel"), launch or LAUNCH)
        started.append(kernel)
        return kernel

    yield start
    for kernel in started:
        kernel.close()


@pytest.fixture(scope="module")
def run_notebook(tmp_path_factory, kernel_has):
    """Run cells as ``jupyter execute`` does; gives the notebook as it would be saved."""
    pytest.importorskip("nbclient")
    if sys.platform == "win32" or not kernel_has("ipykernel"):
        pytest.skip("no kernel to start")

    def run(cells, **options):
        import nbformat
        from nbclient import NotebookClient

        directory = tmp_path_factory.mktemp("notebook")
        specs(directory, LAUNCH)
        cells = [nbformat.v4.new_code_cell(textwrap.dedent(code)) for code in cells]
        notebook = nbformat.v4.new_notebook(cells=cells)
        client = NotebookClient(notebook, kernel_name=NAME, timeout=30, **options)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JUPYTER_PATH", str(directory))
            return client.execute(env=environment(directory), cwd=str(directory))

    return run
