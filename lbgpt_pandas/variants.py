"""``df.lbgpt.compare``: several ways to ask, over the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lbgpt_pandas.comparison import Comparison
from lbgpt_pandas.engine.budget import Budget
from lbgpt_pandas.engine.errors import ConfigurationError, LbgptError
from lbgpt_pandas.forms import LabelForm
from lbgpt_pandas.labels import Labels
from lbgpt_pandas.preparation import Preparation

if TYPE_CHECKING:
    from lbgpt_pandas.runs import RowRun


class ComparisonVerbs(Preparation):
    """`compare`."""

    def compare(
        self,
        variants: Mapping[str, object],
        *,
        sample: float | None = None,
        random_state: Any = None,
        **keywords: Any,
    ) -> pd.DataFrame:
        """Ask the same rows in several ways, and put the answers side by side.

        All variants are prepared before the first one asks. A budget is that of all of them.

        Parameters
        ----------
        variants : mapping of str to template or dict
            By name: a template, or the keywords of `complete` that are the variant's own
            (``template``, ``model``, ``system``, ``temperature``, ...). With ``labels`` (and
            ``multi``) it is one of `classify`.
        sample : int or float, optional
            How many rows, or which part of them, are drawn for all variants alike; all by
            default. They stay in their order.
        random_state : int or random generator, optional
            For the draw, as for ``DataFrame.sample``.
        **keywords
            Of `complete` for all variants, and parameters for the provider.

        Returns
        -------
        DataFrame
            A column a variant under the index of the rows. ``lb.last_comparison()`` has cost,
            time and agreement, and draws them.

        Raises
        ------
        ConfigurationError, TemplateError
            If a variant cannot work, with its name, or the sample cannot be drawn; before any
            call.

        Examples
        --------
        >>> import pandas as pd
        >>> from lbgpt_pandas.testing import ScriptedGPT
        >>> texts = pd.Series(["a", "b"])
        >>> variants = {"plain": "{}", "polite": {"template": "{}", "system": "Be polite."}}
        >>> texts.lbgpt.compare(variants, engine=ScriptedGPT("x"), cache_mode="off").shape
        (2, 2)
        """
        if not isinstance(variants, Mapping) or not variants:
            raise ConfigurationError(
                "compare: give a mapping of names to templates, or to dicts of what differs, such "
                "as {'short': '{text}', 'strict': {'template': '{text}', 'temperature': 0}}"
            )
        if keywords.get("budget") is not None:
            keywords["budget"] = Budget.of(keywords["budget"])
        rows = _drawn(self._data, sample, random_state)
        runs = {str(name): self._variant(rows, name, it, keywords) for name, it in variants.items()}
        if len(runs) < len(variants):
            raise ConfigurationError("compare: two variants have the same name")
        answers = {name: run.run() for name, run in runs.items()}
        frame = pd.DataFrame(answers, index=rows.index)
        Comparison(frame, {name: run.report for name, run in runs.items()})
        return frame

    def _variant(
        self,
        rows: pd.DataFrame | pd.Series[Any],
        name: str,
        variant: object,
        keywords: Mapping[str, Any],
    ) -> RowRun:
        own = dict(variant) if isinstance(variant, Mapping) else {"template": variant}
        given = {"name": str(name), **keywords, **own}
        try:
            form = None
            if "labels" in given:
                labels, multi = given.pop("labels"), given.pop("multi", False)
                form = LabelForm("classify", Labels.of(labels, multi=multi))
            return type(self)(rows)._prepared(given, form)  # noqa: SLF001  # of this class
        except (LbgptError, TypeError) as error:
            raise type(error)(f"variant {name!r}: {error}") from error


def _drawn(
    data: pd.DataFrame | pd.Series[Any], sample: object, random_state: Any
) -> pd.DataFrame | pd.Series[Any]:
    """Draw rows and keep their order."""
    if sample is None:
        return data
    if isinstance(sample, bool | np.bool_) or not isinstance(sample, int | float | np.number):
        raise ConfigurationError(f"sample={sample!r}: give a number of rows, or a part such as 0.1")
    whole = isinstance(sample, int | np.integer)
    if not (1 <= sample <= len(data) if whole else 0 < sample <= 1):
        raise ConfigurationError(
            f"sample={sample!r}: give a number from 1 to {len(data):,}, or a part of 1 such as 0.1"
        )
    number = int(sample) if whole else max(1, round(float(sample) * len(data)))
    places = pd.Series(range(len(data))).sample(n=number, random_state=random_state)
    return data.iloc[np.sort(places.to_numpy())]
