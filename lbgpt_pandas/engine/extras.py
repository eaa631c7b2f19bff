"""Optional dependencies: imported at first use, with the install line when missing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.errors import MissingExtraError

if TYPE_CHECKING:
    from types import ModuleType


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional dependency.

    Parameters
    ----------
    module : str
        Name of the module, dots allowed.
    extra : str
        The extra of this package that installs it.

    Returns
    -------
    module

    Raises
    ------
    MissingExtraError
        If it is not installed, with the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        msg = (
            f"{module} is needed for this and is not installed. "
            f"Install it with: pip install 'lbgpt-pandas[{extra}]'"
        )
        raise MissingExtraError(msg) from error
