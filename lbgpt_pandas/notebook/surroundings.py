"""Where this process runs: a Jupyter kernel, a terminal, neither; the one place that looks."""

from __future__ import annotations

import importlib.util
import sys

FIRST_WITH_BUTTONS_IN_AWAIT = 7
"""Major version of ipykernel from which on a click reaches a cell that awaits."""


def in_kernel() -> bool:
    """Return whether this code runs in a Jupyter kernel; imports nothing to find out."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def has_widgets() -> bool:
    """Return whether ipywidgets is installed; imports nothing to find out."""
    return importlib.util.find_spec("ipywidgets") is not None


def in_terminal() -> bool:
    """Return whether somebody reads what is written to stderr."""
    return sys.stderr is not None and sys.stderr.isatty()


def clicks_reach_an_await() -> bool:
    """Return whether a button works while its own cell awaits.

    ipykernel 7.4 hears it in the cell's thread, 7.0 to 7.3 in a thread of its own if the front
    end sends widget messages there, as JupyterLab does; 6 hears it when the cell is over. While a
    cell blocks in a sync call, no version is to be relied on.
    """
    version = getattr(sys.modules.get("ipykernel"), "version_info", (0,))
    return int(version[0]) >= FIRST_WITH_BUTTONS_IN_AWAIT
