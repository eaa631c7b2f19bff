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
    return _load("openings.csv")


def load_review_sentences() -> pd.DataFrame:
    """Load 180 sentences out of customers' reviews, which 20 people rated.

    Returns
    -------
    DataFrame
        Columns ``id`` (review and sentence), ``rating`` (float64, mean of the ratings from -4,
        extremely negative, to 4, extremely positive) and ``text``. Half are rated 1.5 or more,
        half -1.2 or less. MIT License, Hutto and Gilbert, ICWSM 2014; see ``data/README.md``
        in the package.

    Examples
    --------
    >>> sentences = load_review_sentences()
    >>> (sentences["rating"] > 0).sum()
    np.int64(90)
    """
    return _load("review_sentences.csv")


def _load(name: str) -> pd.DataFrame:
    text = files("lbgpt_pandas").joinpath("data", name).read_text(encoding="utf-8")
    return pd.read_csv(StringIO(text))
