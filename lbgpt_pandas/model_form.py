"""Answers as instances of a pydantic model: ``response_format=Model``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lbgpt_pandas.engine.errors import ConfigurationError, InvalidInput
from lbgpt_pandas.engine.repair import Check
from lbgpt_pandas.examples import answer_as_text
from lbgpt_pandas.forms import WISH, takes_schemas
from lbgpt_pandas.replies import answer_text, find_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from lbgpt_pandas.engine.base import _BaseGPT
    from lbgpt_pandas.engine.types import Outcome
    from lbgpt_pandas.frames import RowPlan

MOST_PROBLEMS = 3
"""Faults of a reply that the model is told at a time."""


class ModelForm:
    """A column of instances of a pydantic model.

    Parameters
    ----------
    model : type of BaseModel
        Of pydantic 2.

    Raises
    ------
    ConfigurationError
        If it is another class, or has no JSON schema.
    """

    verb = "complete"
    keeps_payloads = False
    measure: Callable[[dict[str, Any]], float | None] | None = None

    def __init__(self, model: type[Any]) -> None:
        if not callable(getattr(model, "model_validate_json", None)):
            raise ConfigurationError(
                f"response_format={model.__name__} is no pydantic model (version 2); give one, a "
                'JSON schema as a dict, or {"type": "json_object"}'
            )
        try:
            self._schema = model.model_json_schema()
        except Exception as error:
            raise ConfigurationError(
                f"response_format={model.__name__} has no JSON schema: {error}"
            ) from error
        self._model = model
        self.check = Check(self._problem, WISH)

    def params(self, engine: _BaseGPT, model: str) -> dict[str, Any]:
        """Return ``response_format`` for models that take it."""
        if not takes_schemas(engine, model):
            return {}
        form = {"name": self._model.__name__, "schema": self._schema}
        return {"response_format": {"type": "json_schema", "json_schema": form}}

    def instructions(self, engine: _BaseGPT, model: str) -> str:
        """Return the schema in words, for models that do not."""
        if takes_schemas(engine, model):
            return ""
        schema = json.dumps(self._schema, ensure_ascii=False)
        return f"Answer with JSON only, which fits this JSON schema, no other text: {schema}"

    def writer(self, engine: _BaseGPT, model: str) -> Callable[[object], str]:
        """Return what writes the answer of an example."""
        del engine, model
        return self._write

    def result(
        self, plan: RowPlan, outcomes: Sequence[Outcome | None], *, name: Hashable | None
    ) -> pd.Series[Any]:
        """Return a column of dtype object under the input's index; None without an answer.

        Each row has an instance of its own.
        """
        cells = np.empty(plan.rows, dtype=object)
        for position, code in enumerate(plan.codes.tolist()):
            outcome = outcomes[code] if code >= 0 else None
            if outcome is not None and outcome.completion is not None:
                cells[position] = self._read(outcome.completion.text)
        return pd.Series(cells, index=plan.index, name=name, dtype="object")

    def _read(self, text: str | None) -> Any:
        validate = self._model.model_validate_json
        try:
            return validate(answer_text(text))
        except ValueError as error:
            problem = error
        reply, fits = find_objects(text), []
        for each in reply.objects:
            try:
                fits.append(validate(json.dumps(each)))
            except ValueError as error:
                problem = error
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise ValueError(f"there are {len(fits)} JSON objects that fit; give one")
        raise problem if reply.objects else ValueError(reply.error)

    def _problem(self, text: str | None) -> str:
        try:
            self._read(text)
        except ValueError as error:
            return _told(error)
        return ""

    def _write(self, answer: object) -> str:
        text = answer_as_text(answer)
        if problem := self._problem(text):
            raise InvalidInput(f"the answer does not fit {self._model.__name__}: {problem}")
        return text


def _told(error: ValueError) -> str:
    """Say what is wrong with a reply, without the reply and pydantic's addresses."""
    errors = getattr(error, "errors", None)
    if not callable(errors):
        return str(error)
    told = [
        f"{'.'.join(map(str, each['loc'])) or 'the object'}: {each['msg']}"
        for each in errors(include_url=False, include_input=False)
    ]
    more = f" and {len(told) - MOST_PROBLEMS} more" if len(told) > MOST_PROBLEMS else ""
    return "; ".join(told[:MOST_PROBLEMS]) + more
