"""What was recorded of a run: its requests and failures, and how another request differs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from lbgpt_pandas.engine import errors
from lbgpt_pandas.engine.errors import CacheMiss, LbgptError, RequestError
from lbgpt_pandas.engine.keys import keyed_params
from lbgpt_pandas.engine.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from lbgpt_pandas.engine.types import Request

ABSENT = "(absent)"
NOT_STORED = "nothing is stored under its key"

_SECRET_NAME = re.compile(
    r"(?:^|[-_])(?:api[-_]?key|authorization|password|passwd|secret|(?:secret[-_]?)?access[-_]?key"
    r"|private[-_]?key|subscription[-_]?key|(?:access|auth|session|bearer|refresh)[-_]?token"
    r"|credentials?|cookie)$",
    re.IGNORECASE,
)
_SHOWN = 40
_LEAD = 12
_COMPARED = 2_000
_COMPARED_CHARACTERS = 400


def record_of(request: Request, *, family: str) -> dict[str, object]:
    """Return what identifies a request, as plain data without secrets.

    Parameters
    ----------
    request : Request
        As it is sent.
    family : str
        Whose model answers it.

    Returns
    -------
    dict
        ``family``, ``model`` (its alias, if it has one), ``params`` (those that are part of
        the key), ``messages`` and ``sample``.
    """
    alias = request.options.get("model_name_cache_alias")
    return {
        "family": family,
        "model": alias or request.model,
        "params": without_secrets(keyed_params(request.params)),
        "messages": _plain(request.messages),
        "sample": request.sample,
    }


def without_secrets(value: object) -> object:
    """Return JSON data with ``***`` where a key stands, or something under a key's name."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            str(name): "***"
            if item is not None and _SECRET_NAME.search(str(name))
            else without_secrets(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return _plain(value)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    # A pydantic class or object, of which the name says enough here.
    return f"<{getattr(value, '__name__', type(value).__name__)}>"


class Difference(NamedTuple):
    """Where two requests differ first.

    Attributes
    ----------
    field : str
        Such as ``temperature`` or ``messages[0].content``.
    here, there : str
        The two values, shortened to where they differ.
    """

    field: str
    here: str
    there: str


def first_difference(here: Mapping[str, object], there: Mapping[str, object]) -> Difference | None:
    """Find the first field in which two records differ; None if there is none.

    The model comes first, then the parameters by name, the messages, and what else is in a key.

    Examples
    --------
    >>> cold = {"model": "m", "params": {"temperature": 0.0}}
    >>> first_difference(cold, {"model": "m", "params": {"temperature": 0.5}})
    Difference(field='temperature', here='0.0', there='0.5')
    """
    places = [("model", "model"), ("", "params"), ("messages", "messages")]
    places += [("sample", "sample"), ("family", "family")]
    for path, name in places:
        found = _differ(path, here.get(name), there.get(name))
        if found is not None:
            return found
    return None


def _differ(path: str, here: object, there: object) -> Difference | None:
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for name in sorted({*map(str, here), *map(str, there)}, key=_reading_order):
            below = f"{path}.{name}" if path else name
            found = _differ(below, here.get(name, _NOTHING), there.get(name, _NOTHING))
            if found is not None:
                return found
        return None
    if isinstance(here, list | tuple) and isinstance(there, list | tuple):
        for number in range(max(len(here), len(there))):
            pair = [side[number] if number < len(side) else _NOTHING for side in (here, there)]
            found = _differ(f"{path}[{number}]", *pair)
            if found is not None:
                return found
        return None
    if here == there and isinstance(here, bool) == isinstance(there, bool):
        return None
    return Difference(path, *_shortened(here, there))


def _reading_order(name: str) -> tuple[bool, str]:
    return name != "role", name


class _Nothing:
    def __repr__(self) -> str:
        return ABSENT


_NOTHING = _Nothing()


def _shortened(here: object, there: object) -> tuple[str, str]:
    start = 0
    if isinstance(here, str) and isinstance(there, str):
        pairs = zip(here, there, strict=False)
        same = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(here), len(there)))
        longest = max(len(here), len(there))
        start = max(0, min(same - _LEAD, longest - _SHOWN)) if longest > _SHOWN else 0
    return _window(here, start), _window(there, start)


def _window(value: object, start: int) -> str:
    if isinstance(value, str):
        part = value[start : start + _SHOWN]
        end = "…" if len(value) > start + _SHOWN else ""
        return redact(repr(f"{'…' if start else ''}{part}{end}"))
    text = redact(repr(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class Recording:
    """What replay knows besides the answers.

    Parameters
    ----------
    where : str
        What is replayed: an archive's name, or the cache.
    keys : sequence of str or None, optional
        The recorded run's keys in row order, None for rows without a request.
    failures : mapping of str to dict, optional
        Requests that failed in it, by key; see `failure_of`.
    near : mapping of str to dict, optional
        Requests that got the answer to nearly the same question, which is not recorded, by key,
        with its ``similarity``.
    load_requests : callable, optional
        Returns the recorded requests by key; called at the first miss.
    """

    def __init__(
        self,
        *,
        where: str,
        keys: Sequence[str | None] = (),
        failures: Mapping[str, Mapping[str, object]] | None = None,
        near: Mapping[str, Mapping[str, float]] | None = None,
        load_requests: Callable[[], Mapping[str, Mapping[str, object]]] = dict,
    ) -> None:
        self.where = where
        self._keys = keys
        self._failures = dict(failures or {})
        self._near = dict(near or {})
        self._load_requests = load_requests

    def __repr__(self) -> str:
        return f"Recording({self.where!r})"

    @cached_property
    def _requests(self) -> Mapping[str, Mapping[str, object]]:
        return self._load_requests()

    def failure(self, key: str) -> LbgptError | None:
        """Return the error of a request that failed when it was recorded."""
        found = self._failures.get(key)
        return None if found is None else _error(found)

    def miss(self, numbers: Iterable[int]) -> CacheMiss:
        """Return the error of requests that were not recorded, without a reason yet."""
        missing = tuple(numbers)
        error = CacheMiss(
            f"{len(missing):,} requests are not in {self.where}, the first is number {missing[0]}"
        )
        error.numbers = missing
        return error

    def reason(
        self,
        record: Mapping[str, object],
        *,
        key: str,
        position: int,
        answered: Collection[str] = (),
    ) -> str:
        """Say why a request has no recorded answer.

        Parameters
        ----------
        record : mapping
            What is asked; see `record_of`.
        key : str
            Its key.
        position : int
            Of the first row that asks for it.
        answered : collection of str
            Keys of other rows' requests, which were found and are not what this one was.
        """
        if key in self._near:
            similarity = self._near[key]["similarity"]
            return (
                "it took the answer to nearly the same question (semantic cache, similarity "
                f"{similarity:.4f}) when this was recorded, and an archive holds no such answers"
            )
        if key in self._keys:
            return "it was not answered when this was recorded: the run was stopped before"
        nearest = self._nearest(record, position=position, answered=answered)
        if nearest is None:
            return NOT_STORED
        difference = first_difference(record, self._requests[nearest])
        if difference is None:
            return "a schema in it has its properties in another order"
        row = f"row {self._keys.index(nearest)}" if nearest in self._keys else "another request"
        field, here, there = difference
        return f"{field}: {here} here, {there} in {row} there"

    def _nearest(
        self, record: Mapping[str, object], *, position: int, answered: Collection[str]
    ) -> str | None:
        at_its_place = self._keys[position] if position < len(self._keys) else None
        if at_its_place in self._requests and at_its_place not in answered:
            return at_its_place
        text = last_text(record)
        texts = {key: last_text(other) for key, other in self._requests.items()}
        unused = [key for key in texts if key not in answered] or list(texts)
        for keys in (unused, texts):
            alike = next((key for key in keys if texts[key] == text), None)
            if alike is not None:
                return alike
        matcher = difflib.SequenceMatcher(b=text[:_COMPARED_CHARACTERS], autojunk=False)

        def likeness(key: str) -> float:
            matcher.set_seq1(texts[key][:_COMPARED_CHARACTERS])
            return matcher.quick_ratio()

        return max(islice(unused, _COMPARED), key=likeness, default=None)


def last_text(record: Mapping[str, object]) -> str:
    """Return the text of a record's last user message; of its last message if there is none."""
    messages = record.get("messages")
    if not isinstance(messages, list | tuple) or not messages:
        return ""
    of_user = [each for each in messages if each.get("role") == "user"]
    content = (of_user or messages)[-1].get("content")
    return content if isinstance(content, str) else str(content)


def failure_of(error: LbgptError) -> dict[str, object]:
    """Return what is recorded of a request's failure."""
    return {
        "type": type(error).__name__,
        "code": getattr(error, "code", None),
        "status": getattr(error, "status", None),
        "message": redact(str(error))[:_COMPARED],
    }


def _error(failure: Mapping[str, object]) -> LbgptError:
    """Make the error again that was recorded."""
    kind = getattr(errors, str(failure.get("type")), None)
    message = str(failure.get("message"))
    if isinstance(kind, type) and issubclass(kind, errors.BudgetExceeded):
        return kind(message)
    if not (isinstance(kind, type) and issubclass(kind, RequestError)):
        kind = RequestError
    code, status = failure.get("code"), failure.get("status")
    return kind(
        message,
        code=code if isinstance(code, str) else None,
        status=status if isinstance(status, int) else None,
    )
