"""Tables that ship with the package, for the demo and the notebooks."""

from __future__ import annotations

from importlib.resources import files
from io import StringIO

import pandas as pd


def load_openings() -> pd.DataFrame:
    """Load the opening sentences of 70 novels and tales first published before 1929.

    Returns
    -------
    DataFrame
        Columns ``author``, ``title``, ``year`` (int64), ``opening``; a line for each work. In
        the public domain; see ``data/README.md`` in the package for the source.

    Examples
    --------
    >>> openings = load_openings()
    >>> openings.loc[openings["title"] == "Moby-Dick", "opening"].item()
    'Call me Ishmael.'
    """
    text = files("lbgpt_pandas").joinpath("data/openings.csv").read_text(encoding="utf-8")
    return pd.read_csv(StringIO(text))
