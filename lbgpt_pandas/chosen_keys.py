"""Which stored answers a user means: by a mask, lines of a report, or keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from lbgpt_pandas.engine.caches.entries import is_key
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.runs import last_run

if TYPE_CHECKING:
    from lbgpt_pandas.engine.caching import Caching


class Chosen(NamedTuple):
    """Stored answers.

    Attributes
    ----------
    keys : list of str
        Of requests, in whatever cache their answers are.
    stored_keys : list of str
        Of answered questions that are to be near to nothing any more.
    """

    keys: list[str]
    stored_keys: list[str]
    caching: Caching | None = None
    """Where the last run had them from; None for keys that are not its own."""


def chosen_keys(given: Iterable[object] | pd.DataFrame) -> Chosen:
    """Find out which answers are meant.

    Parameters
    ----------
    given : boolean Series or array, DataFrame, or sequence of str
        See `AnswerCache.forget`.

    Raises
    ------
    ConfigurationError
        If it is nothing of these, or a mask that does not fit the last run.
    """
    chosen, report = _chosen(given), last_run()
    return chosen if report is None else chosen._replace(caching=report.caching_of(chosen.keys))


def _chosen(given: Iterable[object] | pd.DataFrame) -> Chosen:
    if isinstance(given, pd.DataFrame):
        if "stored_key" in given:
            return Chosen([], _checked(given["stored_key"]))
        if "key" in given:
            return Chosen(_checked(given["key"]), [])
        raise ConfigurationError(
            "the frame has no column key; give lines of lb.last_run().rows or of "
            "lb.cache.semantic_report()"
        )
    if not isinstance(given, Iterable):
        raise ConfigurationError(
            f"{given!r} chooses no rows; give a mask over the rows of the last run, lines of "
            "lb.last_run().rows or of lb.cache.semantic_report(), or keys"
        )
    values: list[object] = [given] if isinstance(given, str) else list(given)
    if pd.api.types.infer_dtype(values, skipna=True) == "boolean":
        return Chosen(_checked(_masked(given, values)), [])
    return Chosen(_checked(values), [])


def _masked(given: object, values: list[object]) -> pd.Series[Any]:
    report = last_run()
    if report is None:
        raise ConfigurationError(
            "a mask chooses rows of the last run, and there was none; give keys"
        )
    rows = report.rows
    if len(values) != len(rows):
        raise ConfigurationError(
            f"the mask has {len(values):,} values, and the last run had {len(rows):,} rows"
        )
    if isinstance(given, pd.Series) and not given.index.equals(rows.index):
        raise ConfigurationError(
            "the mask has another index than the last run, so it may be in another order; give "
            "one made from lb.last_run().rows, or its .to_numpy() if the order is the same"
        )
    mask = pd.array(values, dtype="boolean")  # type: ignore[call-overload]  # booleans and NA
    if mask.isna().any():
        raise ConfigurationError("the mask has NA; say by fillna(False) what that means")
    chosen: pd.Series[Any] = rows["key"][mask.to_numpy(dtype=bool)]
    return chosen


def _checked(keys: Iterable[object]) -> list[str]:
    found: dict[str, None] = {}
    for number, key in enumerate(keys):
        if isinstance(key, str) and is_key(key):
            found[key] = None
        elif key is not None and key is not pd.NA and key == key:  # noqa: PLR0124  # not NaN
            raise ConfigurationError(
                f"item {number} is no key of a request; keys are in the column key of "
                "lb.last_run().rows"
            )
    return list(found)
