"""What a column of checked replies becomes: typed columns, categories, booleans."""

from __future__ import annotations

import re
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from lbgpt_pandas.engine.errors import ConfigurationError, LbgptWarning, SchemaMismatch
from lbgpt_pandas.engine.gpt import LocalGPT
from lbgpt_pandas.engine.repair import Check
from lbgpt_pandas.label_confidence import confidence_in

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import pandas as pd

    from lbgpt_pandas.engine.base import _BaseGPT
    from lbgpt_pandas.engine.types import Outcome
    from lbgpt_pandas.frames import RowPlan
    from lbgpt_pandas.labels import Labels, YesNo
    from lbgpt_pandas.schemas import Schema

WISH = "Answer again, with what was asked for and nothing else."

_STRUCTURED = re.compile(
    r"gpt-4o(?!.*(audio|realtime|2024-05))|gpt-4\.1|gpt-[5-9]|o1(?!-(mini|preview))|o[3-9]\b"
)
"""Models of OpenAI that take a JSON schema, as of 2026-11."""


_WITHOUT_LOGPROBS = re.compile(r"o[1-9]\b|gpt-5|claude")
"""Models that refuse requests with ``logprobs``, as of 2026-11."""


class Form(Protocol):
    """What replies have to be, and what they become."""

    verb: str
    check: Check
    keeps_payloads: bool
    """Whether the texts of answers are not enough."""
    measure: Callable[[dict[str, Any]], float | None] | None
    """Gets a provider's object and returns how probable the answer was; None: not asked for."""

    def params(self, engine: _BaseGPT, model: str) -> dict[str, Any]:
        """Return what is sent besides the prompt."""
        ...

    def instructions(self, engine: _BaseGPT, model: str) -> str:
        """Return what the system message has to say; empty where the parameters say it."""
        ...

    def writer(self, engine: _BaseGPT, model: str) -> Callable[[object], str] | None:
        """Return what writes the answer of an example; None: as its text."""
        ...

    def result(
        self, plan: RowPlan, outcomes: Sequence[Outcome | None], *, name: Hashable | None
    ) -> Any:
        """Put the answers in the rows that asked for them."""
        ...


def takes_schemas(engine: _BaseGPT, model: str) -> bool:
    """Tell whether a model is known to keep to a JSON schema that is sent along.

    The embedded model is made to, by a grammar; others are told in words, and checked.
    """
    if isinstance(engine, LocalGPT):
        return True
    return _STRUCTURED.match(model.rpartition("/")[2]) is not None


class _JsonForm:
    """A form that is asked for by a JSON schema where the model takes one, else in words."""

    keeps_payloads = False
    measure: Callable[[dict[str, Any]], float | None] | None = None

    def __init__(
        self, verb: str, form: Schema | Labels | YesNo, problem: Callable[[str | None], str]
    ) -> None:
        self.verb = verb
        self.check = Check(problem, WISH)
        self._form = form

    def params(self, engine: _BaseGPT, model: str) -> dict[str, Any]:
        """Return ``response_format`` for models that take it."""
        if not takes_schemas(engine, model):
            return {}
        return {"response_format": self._form.response_format}

    def instructions(self, engine: _BaseGPT, model: str) -> str:
        """Return the form in words, for models that do not."""
        return "" if takes_schemas(engine, model) else self._form.instructions

    def writer(self, engine: _BaseGPT, model: str) -> Callable[[object], str]:
        """Return what writes the answer of an example as the model is to answer."""
        return partial(self._form.write, as_json=takes_schemas(engine, model))


class TypedForm(_JsonForm):
    """A frame with a typed column for each field of a schema.

    Parameters
    ----------
    schema : Schema
        The fields.
    prefix : str
        Put before their names.
    partial : bool
        Whether a row whose reply does not fit keeps the fields that do.
    """

    def __init__(self, schema: Schema, *, prefix: str, partial: bool) -> None:
        super().__init__("extract", schema, lambda text: schema.parse(text).error)
        if not isinstance(prefix, str):
            raise ConfigurationError(f"prefix={prefix!r} is no text")
        self._schema, self._prefix, self._partial = schema, prefix, partial

    def result(
        self,
        plan: RowPlan,
        outcomes: Sequence[Outcome | None],
        *,
        name: Hashable | None,  # noqa: ARG002  # a frame has none
    ) -> pd.DataFrame:
        """Return a frame under the input's index; rows without an answer are NA."""
        found = [self._values(outcome) for outcome in outcomes]
        rows = [found[code] if code >= 0 else None for code in plan.codes.tolist()]
        return self._schema.columns(rows, index=plan.index, prefix=self._prefix).frame

    def _values(self, outcome: Outcome | None) -> dict[str, Any] | None:
        if outcome is None:
            return None
        if outcome.completion is not None:
            return self._schema.parse(outcome.completion.text).values  # noqa: PD011  # no frame
        if self._partial and isinstance(outcome.error, SchemaMismatch):
            return self._schema.parse(outcome.error.raw).partial
        return None


class LabelForm(_JsonForm):
    """A column of labels, or of yes and no.

    Parameters
    ----------
    verb : str
        The accessor's method.
    labels : Labels or YesNo
        What an answer may be.
    confidence : bool
        Whether to ask for the probabilities of tokens, and to measure the label by them.
    """

    def __init__(self, verb: str, labels: Labels | YesNo, *, confidence: bool = False) -> None:
        super().__init__(verb, labels, lambda text: labels.parse(text)[1])
        if not isinstance(confidence, bool):
            raise ConfigurationError(f"confidence={confidence!r} is neither True nor False")
        self._labels = labels
        if confidence:
            self.measure = partial(confidence_in, labels=labels)

    def params(self, engine: _BaseGPT, model: str) -> dict[str, Any]:
        """Return ``response_format`` and ``logprobs``, for models that take them."""
        params = super().params(engine, model)
        if self.measure is None:
            return params
        if isinstance(engine, LocalGPT):
            # llama.cpp adds the 20 most probable tokens to each one unless it is told otherwise.
            return params | {"logprobs": True, "top_logprobs": 1}
        if _WITHOUT_LOGPROBS.match(model.rpartition("/")[2]):
            warnings.warn(
                f"confidence=True: {model} does not tell the probabilities of its tokens, so that "
                "the confidence of every row is NA; gpt-4o-mini, gpt-4.1 and the local model do",
                LbgptWarning,
                stacklevel=6,
            )
            return params
        return params | {"logprobs": True}

    def result(
        self, plan: RowPlan, outcomes: Sequence[Outcome | None], *, name: Hashable | None
    ) -> pd.Series[Any]:
        """Return a column under the input's index; rows without an answer are NA."""
        found = [
            None
            if outcome is None or outcome.completion is None
            else self._labels.parse(outcome.completion.text)[0]
            for outcome in outcomes
        ]
        rows: list[Any] = [found[code] if code >= 0 else None for code in plan.codes.tolist()]
        return self._labels.column(rows, index=plan.index, name=name)


def with_instructions(system: object, instructions: str) -> object:
    """Put instructions behind a system message.

    Raises
    ------
    ConfigurationError
        If that is neither a text nor missing.
    """
    if not instructions:
        return system
    # A system message is a template, in which single braces mark fields.
    literal = instructions.replace("{", "{{").replace("}", "}}")
    if system is None:
        return literal
    if isinstance(system, str):
        return f"{system}\n\n{literal}"
    raise ConfigurationError(
        f"system={type(system).__name__}: this model is told in the system message what form its "
        "answer must have, so give the rest of it as a text; or use a model that takes JSON "
        "schemas, such as gpt-4o-mini or the local one"
    )
