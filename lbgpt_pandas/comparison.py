"""What variants of a question cost, how fast they are, and how far they agree."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lbgpt_pandas.cells import is_missing
from lbgpt_pandas.drawing.amounts import duration
from lbgpt_pandas.engine.errors import MissingExtraError
from lbgpt_pandas.engine.markup import table_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lbgpt_pandas.reports import RunReport

MOST_SHOWN = 20
_HEIGHT_IN, _WIDTH_IN = 3.2, 10.0

_last: Comparison | None = None


def last_comparison() -> Comparison | None:
    """Return the report of the comparison of this process that ended last; None before the first.

    Examples
    --------
    >>> from lbgpt_pandas.testing import ScriptedGPT
    >>> texts = pd.Series(["a", "b"])
    >>> variants = {"short": "{}", "long": "Now: {}"}
    >>> answers = texts.lbgpt.compare(variants, engine=ScriptedGPT("x"), cache_mode="off")
    >>> last_comparison().agreement.loc["short", "long"]
    np.float64(1.0)
    """
    return _last


class Comparison:
    """Answers of several variants to the same rows, with what they cost.

    Parameters
    ----------
    answers : DataFrame
        A column a variant, under the index of the rows.
    reports : dict of str to RunReport
        What each variant's run did.
    """

    def __init__(self, answers: pd.DataFrame, reports: dict[str, RunReport]) -> None:
        global _last  # noqa: PLW0603  # lb.last_comparison() is one per process by definition
        self._answers, self.reports = answers, reports
        self._texts = pd.DataFrame(
            {name: _normalised(column) for name, column in answers.items()}, index=answers.index
        )
        _last = self

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(map(repr, self.reports))}: {len(self._answers):,} rows>"

    def __str__(self) -> str:
        lines = [f"lbgpt comparison · {len(self._answers):,} rows", self._shown().to_string()]
        return "\n".join([*lines, "", "agreement", self.agreement.round(3).to_string()])

    def _repr_html_(self) -> str:
        shown = self._shown()
        figures = [
            table_html(str(name), [(str(label), str(text)) for label, text in row.items()])
            for name, row in shown.iterrows()
        ]
        names, shares = list(self.reports), self.agreement.to_numpy()
        agreed = [
            (f"{names[one]} and {names[other]}", f"{shares[one, other]:.1%}")
            for one, other in combinations(range(len(names)), 2)
        ]
        return "".join([*figures, table_html("agreement", agreed)])

    @property
    def table(self) -> pd.DataFrame:
        """A frame with a line for each variant.

        Columns: ``rows`` (int64), ``failed`` (int64), ``cost_usd`` (list price of its answers,
        also of those that the cache had; each different request once; NA if a price is
        unknown), ``usd_per_1000_rows`` (over rows with an answer), ``prompt_tokens`` and
        ``completion_tokens`` (of different requests), ``latency_p50_s`` and ``latency_p95_s``
        (of answers that were asked for now; NA without any) and ``characters`` (mean length of
        the answers as text).
        """
        lines = {name: self._line(name) for name in self.reports}
        frame = pd.DataFrame.from_dict(lines, orient="index")
        kinds = {"rows": "int64", "failed": "int64"}
        counts = {"prompt_tokens": "Int64", "completion_tokens": "Int64"}
        rest = dict.fromkeys(frame.columns.difference([*kinds, *counts]), "Float64")
        return frame.astype({**kinds, **counts, **rest})

    @property
    def agreement(self) -> pd.DataFrame:
        """A square frame: the share of rows with equal answers, of those that both answered.

        Answers are equal as texts without regard to case, outer space and runs of space; values
        that are no texts as JSON. NaN where no row has both.
        """
        names = list(self.reports)
        shares = np.ones((len(names), len(names)))
        for row, one in enumerate(names):
            for column, other in enumerate(names):
                both = self._texts[[one, other]].dropna() if one != other else self._texts[[one]]
                both = both.dropna()
                equal = both.iloc[:, 0] == both.iloc[:, -1]
                shares[row, column] = equal.mean() if len(both) else np.nan
        return pd.DataFrame(shares, index=names, columns=names)

    def disagreements(self, limit: int = MOST_SHOWN) -> pd.DataFrame:
        """Return rows whose answers are not all equal, in row order.

        Parameters
        ----------
        limit : int, default 20
            How many at most.

        Returns
        -------
        DataFrame
            Their answers, a column a variant, under their labels.
        """
        rows = self._texts.itertuples(index=False, name=None)
        return self._answers[[len(set(row)) > 1 for row in rows]].head(limit)

    def plot(self) -> Figure:
        """Draw cost, time and agreement beside each other with matplotlib.

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed; the extra ``notebook`` has it.
        """
        try:
            from matplotlib.figure import Figure  # noqa: PLC0415  # loaded where it is wanted
        except ImportError as error:
            raise MissingExtraError(
                "plot() needs matplotlib: pip install 'lbgpt-pandas[notebook]'"
            ) from error
        table, agreement = self.table, self.agreement
        names = [str(name) for name in table.index]
        figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained")
        cost, time, both = figure.subplots(1, 3)
        cost.barh(names, table["usd_per_1000_rows"].astype(float).fillna(0.0), color="C0")
        cost.set_title("USD for 1,000 rows", fontsize=10)
        time.barh(names, table["latency_p95_s"].astype(float).fillna(0.0), color="C1", alpha=0.5)
        time.barh(names, table["latency_p50_s"].astype(float).fillna(0.0), color="C1")
        time.set_title("seconds an answer, p50 and p95", fontsize=10)
        for axes in (cost, time):
            axes.invert_yaxis()
        both.imshow(agreement, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(agreement.to_numpy()):
            text = "" if np.isnan(share) else f"{share:.0%}"
            is_dark = share > 0.5  # noqa: PLR2004  # of 1
            both.text(column, row, text, ha="center", va="center", color="w" if is_dark else "k")
        both.set_xticks(range(len(names)), names, rotation=30, ha="right")
        both.set_yticks(range(len(names)), names)
        both.set_title("rows with equal answers", fontsize=10)
        return figure

    def _line(self, name: str) -> dict[str, Any]:
        report, texts = self.reports[name], self._texts[name].dropna()
        rows = report.rows
        asked = rows.loc[rows["source"] == "provider", "latency_s"]
        once = rows[~rows["key"].duplicated() & rows["status"].eq("ok").to_numpy()]
        cost = report.list_price_usd
        return {
            "rows": len(rows),
            "failed": int(rows["status"].eq("failed").sum()),
            "cost_usd": cost,
            "usd_per_1000_rows": None if cost is None or texts.empty else 1e3 * cost / len(texts),
            "prompt_tokens": once["prompt_tokens"].sum(),
            "completion_tokens": once["completion_tokens"].sum(),
            "latency_p50_s": asked.quantile(0.5) if len(asked) else None,
            "latency_p95_s": asked.quantile(0.95) if len(asked) else None,
            "characters": texts.str.len().mean() if len(texts) else None,
        }

    def _shown(self) -> pd.DataFrame:
        """The table as texts."""
        columns = {
            column: [_shown(column, None if pd.isna(value) else value) for value in values]
            for column, values in self.table.items()
        }
        return pd.DataFrame(columns, index=list(self.reports))


def _shown(column: object, value: Any) -> str:
    name = str(column)
    if "usd" in name:
        return "unknown" if value is None else f"${value:,.4f}"
    if name.startswith("latency"):
        return duration(value)
    return "" if value is None else f"{value:,.1f}" if name == "characters" else f"{value:,}"


def _normalised(column: pd.Series[Any]) -> pd.Series[Any]:
    """Answers as texts that are equal where the answers are."""
    texts = [
        None if is_missing(value) else " ".join(_text(value).split()).casefold() for value in column
    ]
    return pd.Series(texts, index=column.index, dtype=object)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    dump = getattr(value, "model_dump_json", None)
    return str(dump() if callable(dump) else value)
