"""Examples before each row: inputs rendered as the rows are, and the answers they should get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lbgpt_pandas.cells import cell_text, column_values, is_missing, short
from lbgpt_pandas.engine.canonical import canonical_json
from lbgpt_pandas.engine.errors import ConfigurationError, InvalidInput, TemplateError
from lbgpt_pandas.rendering import Template
from lbgpt_pandas.rows import INDEX, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from numpy.typing import NDArray

    from lbgpt_pandas.engine.types import Message
    from lbgpt_pandas.rows import Block

    Frame = pd.DataFrame | pd.Series[Any]

ANSWER = "answer"
MOST_EXAMPLES = 1_000
"""More are a frame that was given by mistake: each row is sent with all of them."""

_OPENING_ROLES = frozenset({"system", "developer"})
_PAIR = 2


class Exemplified(Template):
    """A template whose rows have examples before them.

    Parameters
    ----------
    body : Template
        Of the rows, and of the examples' inputs.
    turns : sequence of dict
        See `example_turns`. They follow a system message and come before the rest.
    """

    def __init__(self, body: Template, turns: Sequence[Message]) -> None:
        self._body, self._turns = body, tuple(turns)

    def used(self) -> tuple[str, ...] | None:
        """Names of the template's fields."""
        return self._body.used()

    def render(self, block: Block) -> Sequence[Hashable]:
        """Render the template; the examples are the same for all rows."""
        return self._body.render(block)

    def messages(self, rendered: Any) -> list[Message]:
        """Chat messages of one rendered row."""
        messages = self._body.messages(rendered)
        start = _opening(messages)
        return [*messages[:start], *self._turns, *messages[start:]]

    def described(self) -> str:
        """Text of the examples; images in it are digests."""
        return canonical_json(list(self._turns))


def example_turns(
    examples: object,
    *,
    data: Frame,
    template: Template,
    write: Callable[[object], str] | None = None,
) -> list[Message]:
    """Render examples as turns of user and assistant.

    Parameters
    ----------
    examples : DataFrame or list of pairs
        A frame with the columns that the template uses and one of answers: ``answer``, unless the
        template uses that, else the only column that `data` has not. Or pairs of an input and its
        answer, where an input is a dict or Series by column, or the cell itself if `data` is a
        Series or the template uses a single column.
    data : DataFrame or Series
        The rows that the examples stand before.
    template : Template
        Compiled for `data`.
    write : callable, optional
        Gets an answer, which is not NA, and returns its text; by default a text is itself, a
        pydantic object and a dict are JSON, and other values the text that a cell has.

    Returns
    -------
    list of dict
        Chat messages, without system messages.

    Raises
    ------
    TemplateError
        If a column that the template uses is missing, or the template does not fit.
    ConfigurationError
        If there are no examples or over 1,000, one of them is NA or cannot be sent, or it is not
        clear which column has the answers.

    Examples
    --------
    >>> from lbgpt_pandas.templates import compile_template
    >>> moods = pd.Series(["lovely", "awful"])
    >>> template = compile_template("{}", fields=Table(moods).fields)
    >>> example_turns([("nice", "good")], data=moods, template=template)
    [{'role': 'user', 'content': 'nice'}, {'role': 'assistant', 'content': 'good'}]
    """
    try:
        inputs, answers = _divided(examples, data, template.used())
        turns = _rendered(inputs, answers, template, write or answer_as_text)
        # As it is sent: no half of a character, and nothing that is not JSON.
        canonical_json(turns)
    except TemplateError as error:
        raise TemplateError(f"examples=: {error}") from error.__cause__
    except (ConfigurationError, InvalidInput) as error:
        raise ConfigurationError(f"examples=: {error.args[0]}") from error
    return turns


def answer_as_text(answer: object) -> str:
    """Text of an answer as a model would have given it.

    Raises
    ------
    InvalidInput
        If it has none.
    """
    dump = None if isinstance(answer, type) else getattr(answer, "model_dump_json", None)
    text = dump() if callable(dump) else cell_text(answer)
    return str(text)


def _divided(
    examples: object, data: Frame, used: tuple[str, ...] | None
) -> tuple[Frame, list[object]]:
    """Part inputs, in the shape of `data`, and answers."""
    if isinstance(examples, pd.DataFrame):
        _check_number(len(examples))
        return _of_frame(examples, data, used)
    if isinstance(examples, list | tuple):
        _check_number(len(examples))
        return _of_pairs(examples, data, used)
    raise ConfigurationError(
        f"a {type(examples).__name__}: give a DataFrame with a column 'answer', or a list of pairs "
        "(input, answer)"
    )


def _check_number(number: int) -> None:
    if not number:
        raise ConfigurationError("there are none; leave the argument out")
    if number > MOST_EXAMPLES:
        raise ConfigurationError(
            f"{number:,} are more than {MOST_EXAMPLES:,}, and each row would be sent with all of "
            "them; choose some, such as examples.sample(20)"
        )


def _of_frame(
    examples: pd.DataFrame, data: Frame, used: tuple[str, ...] | None
) -> tuple[Frame, list[object]]:
    place = _answer_place(examples, data, used)
    answers = column_values(examples.iloc[:, place].array)[0]
    others = [number for number in range(examples.shape[1]) if number != place]
    if isinstance(data, pd.DataFrame):
        return examples.iloc[:, others], answers
    if len(others) != 1:
        raise ConfigurationError(
            f"for a Series the frame has two columns, inputs and answers, not {examples.shape[1]}"
        )
    inputs = examples.iloc[:, others[0]].copy(deep=False)
    inputs.name = data.name
    return inputs, answers


def _answer_place(examples: pd.DataFrame, data: Frame, used: tuple[str, ...] | None) -> int:
    labels = list(examples.columns)
    known = set(data.columns) if isinstance(data, pd.DataFrame) else {data.name}
    named = [
        place for place, label in enumerate(labels) if isinstance(label, str) and label == ANSWER
    ]
    if len(named) == 1 and (used is None or ANSWER not in used):
        return named[0]
    other = [place for place, label in enumerate(labels) if label not in known]
    if len(other) == 1:
        return other[0]
    raise ConfigurationError(
        "it is not clear which column has the answers; name it 'answer', or give a list of pairs "
        "(input, answer)"
    )


def _of_pairs(
    pairs: Sequence[object], data: Frame, used: tuple[str, ...] | None
) -> tuple[Frame, list[object]]:
    rows, answers = [], []
    for number, pair in enumerate(pairs):
        if not isinstance(pair, list | tuple) or len(pair) != _PAIR:
            raise ConfigurationError(f"item {number} is no pair (input, answer)")
        rows.append(pair[0])
        answers.append(pair[1])
    lines: list[dict[Hashable, object]] = []
    if isinstance(data, pd.DataFrame):
        lines = [_line(number, row, used) for number, row in enumerate(rows)]
    labels = list(dict.fromkeys(label for line in lines for label in line))
    if used is not None and INDEX in used and INDEX not in labels:
        raise TemplateError("the template uses {index}, which a pair has not; give a DataFrame")
    if isinstance(data, pd.Series):
        return pd.Series(_cells(rows), name=data.name, dtype="object"), answers
    columns = [_cells([line.get(label) for line in lines]) for label in labels]
    frame = pd.DataFrame(dict(enumerate(columns)), index=range(len(lines)), dtype=object)
    # Labels may be anything, also tuples, which would become levels.
    frame.columns = pd.Index(labels, dtype=object, tupleize_cols=False)
    return frame, answers


def _line(number: int, row: object, used: tuple[str, ...] | None) -> dict[Hashable, object]:
    if isinstance(row, Mapping | pd.Series):
        return dict(row.items())
    if used is not None and len(used) == 1:
        return {used[0]: row}
    raise ConfigurationError(
        f"the input of item {number} is a {type(row).__name__}; give a dict with the columns that "
        "the template uses"
    )


def _cells(values: Sequence[object]) -> NDArray[np.object_]:
    """Return values as a column of objects, whatever they are."""
    cells = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        cells[place] = value
    return cells


def _rendered(
    inputs: Frame, answers: Sequence[object], template: Template, write: Callable[[object], str]
) -> list[Message]:
    block = next(Table(inputs).blocks(fill=None))
    prompts = template.render(block)
    turns: list[Message] = []
    for offset, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        where = block.where(offset)
        if offset in block.missing:
            raise ConfigurationError(
                f"{where}: column {short(block.missing[offset])}, which the template uses, is NA"
            )
        if offset in block.faulty:
            raise block.faulty[offset]
        if prompt is None:
            raise TemplateError(f"{where}: the template gave nothing")
        if is_missing(answer):
            raise ConfigurationError(f"{where}: the answer is NA")
        text = write(answer)
        if not text.strip():
            raise ConfigurationError(f"{where}: the answer is empty")
        messages = template.messages(prompt)
        turns += messages[_opening(messages) :]
        turns.append({"role": "assistant", "content": text})
    return turns


def _opening(messages: Sequence[Message]) -> int:
    """How many messages at the start are a system's."""
    roles = [message.get("role") in _OPENING_ROLES for message in messages]
    return roles.index(False) if False in roles else len(roles)
