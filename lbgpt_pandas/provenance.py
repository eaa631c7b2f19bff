"""What a run's requests were made of, as text that can be kept."""

from __future__ import annotations

import hashlib
import inspect
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbgpt_pandas.prompts import Templates


@dataclass(frozen=True, slots=True)
class Provenance:
    """Template and arguments that turned rows into requests.

    Attributes
    ----------
    template : str
        Text of the template, or of ``messages=``; the source of a callable where it is known.
    system : str or None
        The same of the system message.
    columns : tuple of str or None
        Fields that the templates name; None if each row decides that.
    na, duplicates : str
        As they were given.
    sha256 : str
        Digest of `template` and `system`.
    """

    template: str
    system: str | None
    columns: tuple[str, ...] | None
    na: str
    duplicates: str
    sha256: str

    @classmethod
    def of(
        cls,
        template: object,
        messages: object,
        system: object,
        *,
        templates: Templates,
        na: str,
        duplicates: str,
    ) -> Provenance:
        """Describe the arguments of a call; `templates` is what they were compiled to."""
        body = _text(template) if messages is None else f"messages={_text(messages)}"
        opening = None if system is None else _text(system)
        columns: dict[str, None] | None = {}
        for each in templates:
            used = () if each is None else each.used()
            columns = None if columns is None or used is None else columns | dict.fromkeys(used)
        return cls(
            template=_writable(body),
            system=None if opening is None else _writable(opening),
            columns=None if columns is None else tuple(columns),
            na=na,
            duplicates=duplicates,
            sha256=hashlib.sha256(repr((body, opening)).encode("utf-8", "replace")).hexdigest(),
        )


def _writable(text: str) -> str:
    """Return a text without halves of characters, which no file takes."""
    return text.encode("utf-8", "replace").decode()


def _text(source: object) -> str:
    if isinstance(source, str):
        return source
    if isinstance(source, list | tuple | dict):
        return json.dumps(source, ensure_ascii=False, default=_text)
    if callable(source):
        with suppress(OSError, TypeError):
            return inspect.getsource(source).strip()
        return f"<function {getattr(source, '__qualname__', type(source).__name__)}>"
    name = getattr(source, "name", None)
    return f"<{type(source).__name__} {name!r}>" if name else f"<{type(source).__name__}>"
