"""Verbs whose replies have a form: typed fields, labels, yes or no."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lbgpt_pandas.forms import LabelForm, TypedForm
from lbgpt_pandas.labels import Labels, YesNo
from lbgpt_pandas.preparation import Preparation
from lbgpt_pandas.schemas import Schema

if TYPE_CHECKING:
    import pandas as pd


class StructuredVerbs(Preparation):
    """`extract`, `classify` and `matches`."""

    def extract(
        self,
        template: object,
        schema: object,
        *,
        prefix: str = "",
        partial: bool = False,
        **keywords: Any,
    ) -> pd.DataFrame:
        """Read typed fields out of every row.

        Parameters
        ----------
        template : str, callable, jinja2.Template or list of messages
            As for `complete`.
        schema : type of BaseModel, TypedDict, or mapping of str to type
            Names and types of the fields; ``X | None`` where the text may not say.
        prefix : str, default ""
            Put before the columns' names.
        partial : bool, default False
            Whether a row that fails keeps the fields that were valid.
        **keywords
            Of `complete`, and parameters for the provider.

        Returns
        -------
        DataFrame
            A column a field under the input's index: int is Int64, float Float64, bool boolean,
            Literal and Enum category, date and datetime datetime64[us], str the string dtype of
            this pandas, what is nested object. A reply that does not fit is asked again with
            what is wrong, twice at most; then the row is NA, with `SchemaMismatch` in the
            report and the reply in ``error.raw``.

        Raises
        ------
        ConfigurationError
            If a type cannot be a column; before any call.

        Examples
        --------
        >>> import pandas as pd
        >>> from lbgpt_pandas.testing import ScriptedGPT
        >>> engine = ScriptedGPT('{"city": "Rome", "nights": 3}')
        >>> notes = pd.Series(["Three nights in Rome"])
        >>> notes.lbgpt.extract("{}", {"city": str, "nights": int}, engine=engine, cache_mode="off")
           city  nights
        0  Rome       3
        """
        form = TypedForm(Schema.of(schema), prefix=prefix, partial=partial)
        frame: pd.DataFrame = self._checked(template, keywords, form).run()
        return frame

    def classify(
        self,
        template: object,
        labels: object,
        *,
        multi: bool = False,
        confidence: bool = False,
        **keywords: Any,
    ) -> pd.Series[Any]:
        """Give every row one of the labels.

        Parameters
        ----------
        template : str, callable, jinja2.Template or list of messages
            As for `complete`.
        labels : list of str, type of Enum, or mapping of str to str
            What an answer may be; a mapping says what each label means.
        multi : bool, default False
            Whether any number of labels may apply.
        confidence : bool, default False
            Whether to ask for ``logprobs``, where the model gives them, and to put the
            probability that the model gave to the tokens of its label into the column
            ``confidence`` of ``lb.last_run().rows``: from 0 to 1, NA where there is none. It
            orders rows by doubt, and is no share of right answers; with the embedded model it is
            low, because its grammar rules out texts that the model would have preferred.
        **keywords
            Of `complete`, and parameters for the provider.

        Returns
        -------
        Series
            Category of all labels in order; with `multi` lists. A reply outside the labels is
            asked again, twice at most, and never turned into a label that is like it; then the
            row is NA, with `SchemaMismatch` in the report.

        Raises
        ------
        ConfigurationError
            If there are no labels, over 1,000, or two that look the same; before any call.

        Examples
        --------
        >>> import pandas as pd
        >>> from lbgpt_pandas.testing import ScriptedGPT
        >>> engine = ScriptedGPT('{"label": "good"}')
        >>> moods = pd.Series(["lovely"]).lbgpt.classify("{}", ["good", "bad"], engine=engine)
        >>> moods.tolist(), moods.cat.categories.tolist()
        (['good'], ['good', 'bad'])
        """
        form = LabelForm("classify", Labels.of(labels, multi=multi), confidence=confidence)
        column: pd.Series[Any] = self._checked(template, keywords, form).run()
        return column

    def matches(
        self, template: object, *, confidence: bool = False, **keywords: Any
    ) -> pd.Series[Any]:
        """Ask a question about every row that is answered with yes or no.

        Parameters
        ----------
        template : str, callable, jinja2.Template or list of messages
            As for `complete`, such as ``"Is {review} about shipping?"``.
        confidence : bool, default False
            As for `classify`.
        **keywords
            Of `complete`, and parameters for the provider.

        Returns
        -------
        Series of boolean
            To select rows with: ``df[df.lbgpt.matches(...)]``; NA, which selects nothing, where
            there is no answer.

        Examples
        --------
        >>> import pandas as pd
        >>> from lbgpt_pandas.testing import ScriptedGPT
        >>> reviews = pd.DataFrame({"text": ["it came late", "too dear"]})
        >>> reviews[reviews.lbgpt.matches("Is {text} about time?", engine=ScriptedGPT("yes"))].shape
        (2, 1)
        """
        form = LabelForm("matches", YesNo(), confidence=confidence)
        column: pd.Series[Any] = self._checked(template, keywords, form).run()
        return column
