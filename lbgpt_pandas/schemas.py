"""What `extract` asks for: fields and their types, and whether a reply has them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from lbgpt_pandas.engine.canonical import canonical_bytes
from lbgpt_pandas.engine.errors import ConfigurationError, InvalidInput
from lbgpt_pandas.examples import answer_as_text
from lbgpt_pandas.replies import find_objects
from lbgpt_pandas.schema_checks import Settling, field_validators, plain, problems_of, written
from lbgpt_pandas.schema_columns import Columns, Field, Unfit, fitting, kind_of, make_columns
from lbgpt_pandas.schema_shapes import is_nullable, outline, strict
from lbgpt_pandas.schema_types import column_names, has_aware_time, model_of, shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel
    from pydantic_core import SchemaValidator

    from lbgpt_pandas.schema_checks import Path
    from lbgpt_pandas.schema_shapes import Shape

_LONGEST_NAME = 64
_NAMED_KEYS = 10
_INVALID = object()


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a reply gave.

    Attributes
    ----------
    values : dict or None
        Each field by name, as its cell holds it; None if the reply does not fit.
    model : BaseModel or None
        The same as an object of the model.
    partial : dict
        The fields that are valid each by itself; all of them where `values` is not None.
    error : str
        What is wrong, as a model can be told; empty where nothing is.
    """

    values: dict[str, Any] | None
    model: BaseModel | None
    partial: dict[str, Any]
    error: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Schema:
    """Fields with types, made with `Schema.of`.

    Attributes
    ----------
    name : str
        For the provider: at most 64 ASCII letters, digits, ``_`` and ``-``.
    model : type of BaseModel
        The pydantic model that checks an answer.
    fields : tuple of Field
        Name and column of each field, in order.
    json_schema : dict
        For a provider's strict mode: no further properties, all of them required, those that
        may be left out nullable; not to be changed.
    fingerprint : str
        64 hexadecimal digits; the same for schemas that ask for the same and give the same
        columns.
    """

    name: str
    model: type[BaseModel]
    fields: tuple[Field, ...]
    json_schema: dict[str, Any]
    fingerprint: str
    _shape: Shape

    @classmethod
    def of(cls, spec: object, *, what: str = "schema") -> Schema:
        """Read a specification.

        Parameters
        ----------
        spec : type of BaseModel, TypedDict, mapping of str to type, or Schema
            A str in ``Annotated[int, "in years"]`` is a description.
        what : str, default "schema"
            What the user calls it, for the errors.

        Raises
        ------
        ConfigurationError
            For a type that cannot be a column (a callable, Any, bytes, a set, a dict with free
            keys, another class), a recursive or empty schema, names that look the same, and
            more than 100 fields. Names the field.

        Examples
        --------
        >>> schema = Schema.of({"city": str, "stars": int | None})
        >>> schema.parse('{"city": "Rome", "stars": "4"}').values
        {'city': 'Rome', 'stars': 4}
        >>> schema.parse('{"city": "Rome", "stars": "many"}').error
        'stars: "many" is not integer | null'
        """
        if isinstance(spec, cls):
            return spec
        try:
            model = model_of(spec, what=what)
            shape = shape_of(model, what=what)
        except RecursionError:
            raise ConfigurationError(f"{what}: it is nested too deeply, or in itself") from None
        fields = tuple(_fields(model, shape))
        form = strict(shape)
        try:
            identity = canonical_bytes(
                {"schema": form, "columns": [[each.name, each.kind] for each in fields]},
                name=what,
            )
        except InvalidInput as error:
            raise ConfigurationError(f"{what}: it cannot be sent: {error}") from None
        return cls(
            name=re.sub(r"[^A-Za-z0-9_-]", "_", model.__name__)[:_LONGEST_NAME] or "answer",
            model=model,
            fields=fields,
            json_schema=form,
            fingerprint=hashlib.sha256(identity).hexdigest(),
            _shape=shape,
        )

    def __repr__(self) -> str:
        columns = ", ".join(f"{each.name}: {each.kind}" for each in self.fields)
        return f"Schema({self.name}: {columns})"

    @property
    def response_format(self) -> dict[str, Any]:
        """What a request sends as ``response_format``."""
        form = {"name": self.name, "schema": self.json_schema, "strict": True}
        return {"type": "json_schema", "json_schema": form}

    @property
    def instructions(self) -> str:
        """Text that asks for the JSON, for a model that takes no ``response_format``."""
        about = self._shape.get("description")
        return "\n".join(
            [
                "Answer with JSON only: one object with exactly these keys, no other text.",
                *([" ".join(about.split())] if about else []),
                outline(self._shape),
                *(["Use null where the text does not say."] if self._has_null() else []),
            ]
        )

    def write(self, answer: object, *, as_json: bool) -> str:
        """Write the answer of an example, as JSON in any case.

        Raises
        ------
        InvalidInput
            If it does not fit.
        """
        del as_json
        text = answer_as_text(answer)
        if problem := self.parse(text).error:
            raise InvalidInput(f"the answer does not fit: {problem}")
        return text

    def parse(self, text: str | None) -> Parsed:
        """Find the answer in a reply and check it.

        Text around the JSON, code fences and one idle comma do not matter. Of several objects
        the one that fits is taken; if several fit, none is. Values are read as pydantic reads
        them in lax mode (``"3"`` is 3, ``"yes"`` and 1 are True), but a bool is no number, a
        number no date, and ``"NaN"`` no float. An option may differ in case and outer space,
        and in nothing else.

        Parameters
        ----------
        text : str or None
            The reply.

        Returns
        -------
        Parsed
        """
        reply = find_objects(text)
        results = [self._check(each) for each in reply.objects]
        found = [result for result in results if not result.error]
        if len(found) == 1:
            return found[0]
        if found:
            return Parsed(None, None, {}, f"there are {len(found)} JSON objects; give one")
        if not results:
            return Parsed(None, None, {}, reply.error)
        errors = [each for each in (results[-1].error, reply.error) if each]
        return replace(results[-1], error="; ".join(errors))

    def columns(
        self,
        rows: Sequence[Mapping[str, object] | None],
        *,
        index: pd.Index[Any],
        prefix: str = "",
    ) -> Columns:
        """Make a frame of parsed rows, aligned by position.

        int becomes Int64, float Float64, bool boolean, Literal and Enum category (all of them
        in order), date and datetime datetime64[us], str the string dtype of this pandas, and
        what is nested object. A datetime with a zone is turned into UTC; the column has the
        zone UTC where the type is pydantic's ``AwareDatetime``, else none. The dtypes are those
        of the schema, whatever the rows hold.

        Parameters
        ----------
        rows : sequence of mapping or None, as long as `index`
            ``Parsed.values``, or ``Parsed.partial``; a missing field and None are NA.
        index : Index
            Of the frame; any, also with duplicates.
        prefix : str, default ""
            Put before the names.

        Returns
        -------
        Columns
            The frame, and by position what did not fit (its cell is NA).

        Raises
        ------
        ValueError
            If there are not as many rows as places in the index.
        """
        return make_columns(rows, self.fields, index=index, prefix=prefix)

    @property
    def dtypes(self) -> dict[str, Any]:
        """The dtype of each column, by the name of the field."""
        frame = make_columns([], self.fields, index=pd.RangeIndex(0), prefix="").frame
        return dict(frame.dtypes)

    def _has_null(self) -> bool:
        properties, required = self._shape["properties"], self._shape["required"]
        return any(key not in required or is_nullable(each) for key, each in properties.items())

    def _check(self, value: dict[str, Any]) -> Parsed:
        from pydantic import ValidationError  # noqa: PLC0415  # heavy

        keys = list(self._shape["properties"])
        if value and not any(key in value for key in keys):
            names = ", ".join(map(json.dumps, keys[:_NAMED_KEYS]))
            return Parsed(None, None, {}, f"the object has none of the keys {names}")
        settling = Settling()
        settled = settling.settle(value, self._shape)
        problems = dict(settling.problems)
        model = None
        try:
            model = self.model.model_validate_json(json.dumps(settled))
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False)
            problems = problems_of(details, settled, self._shape) | problems
        except Exception as error:  # noqa: BLE001  # a validator of the user's
            text = f"a check of {self.name} could not be made ({type(error).__name__})"
            problems.setdefault((), text)
        if model is None or problems:
            return Parsed(None, None, self._valid(settled, problems), written(problems))
        values = {each.name: plain(getattr(model, each.attribute)) for each in self.fields}
        problems = self._unfit(values)
        if problems:
            valid = {each.name: values[each.name] for each in self._others(problems)}
            return Parsed(None, None, valid, written(problems))
        return Parsed(values, model, values, "")

    def _unfit(self, values: Mapping[str, Any]) -> dict[Path, str]:
        found: dict[Path, str] = {}
        for each in self.fields:
            try:
                fitting(values[each.name], each)
            except Unfit as error:
                found[each.key,] = str(error)
        return found

    def _others(self, problems: Mapping[Path, str]) -> list[Field]:
        wrong = {path[0] for path in problems if path}
        return [each for each in self.fields if each.key not in wrong]

    def _valid(self, value: Mapping[str, Any], problems: Mapping[Path, str]) -> dict[str, Any]:
        """Return the fields that are valid each by itself."""
        validators = field_validators(self.model)
        found = {
            each.name: _alone(validators[each.attribute], value[each.key], each)
            for each in self._others(problems)
            if each.attribute in validators and each.key in value
        }
        return {name: each for name, each in found.items() if each is not _INVALID}


def _alone(validator: SchemaValidator, value: object, field: Field) -> object:
    """Return the value of a field that is checked alone, `_INVALID` if it is none."""
    try:
        found = plain(validator.validate_json(json.dumps(value)))
        fitting(found, field)
    except Exception:  # noqa: BLE001  # a validator of the user's may raise anything
        return _INVALID
    return found


def _fields(model: type[BaseModel], shape: Shape) -> list[Field]:
    fields = []
    names = column_names(model)
    for (name, attribute), (key, each) in zip(
        names.items(), shape["properties"].items(), strict=True
    ):
        aware = has_aware_time(model.model_fields[attribute].annotation)
        kind, options = kind_of(each, aware=aware)
        fields.append(Field(name, attribute, key, kind, options))
    return fields
