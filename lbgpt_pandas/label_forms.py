"""The texts of labels and answers: which of them mean the same, and where a reply has one."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from lbgpt_pandas.replies import answer_text, find_objects, load_json

_QUOTES = ('"', "'", "`", "*", "“", "”", "‘", "’", "«", "»")
_OPENING = re.compile(r"(?:the\s+)?(?:label|labels|answer)\s*[:=]\s*", re.IGNORECASE)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")


def folded(text: str) -> str:
    """Return a text without case and outer space."""
    # Folding may undo the normal form.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).strip()


def _unquoted(text: str) -> str:
    while len(text) > 1 and text.startswith(_QUOTES) and text.endswith(_QUOTES):
        text = text[1:-1].strip()
    return text


def bare_form(name: str) -> str:
    """Return a text without case, outer space, quotes and emphasis."""
    return _unquoted(folded(name))


def forms_of(text: str) -> list[str]:
    """Return what a reply may mean, the most literal first."""
    literal = folded(text)
    opened = literal[found.end() :] if (found := _OPENING.match(literal)) else literal
    forms = [literal]
    for each in (literal, opened):
        forms += [_unquoted(each), _unquoted(_unquoted(each).removesuffix(".").rstrip())]
    return forms


def parts_of(text: str) -> list[str]:
    """Divide a plain list of labels: a line each, else at commas and semicolons."""
    lines = [line for line in text.splitlines() if line.strip()]
    parts = lines if len(lines) > 1 else [part for part in re.split("[,;]", text) if part.strip()]
    return parts or [text]


def find_answer(text: str | None, key: str) -> tuple[object, str]:
    """Find what a reply says under a key, or as a whole, and what is wrong with it."""
    body = answer_text(text)
    if not body:
        return None, "the answer is empty"
    members = (each.items() for each in find_objects(body).objects)
    found = [value for each in members for name, value in each if name.casefold() == key]
    values = {json.dumps(value): value for value in found}
    if len(values) > 1:
        return None, f"there are {len(values)} answers; give one"
    if values:
        return values.popitem()[1], ""
    try:
        whole = load_json(body)
    except ValueError:
        return body, ""
    return (body if isinstance(whole, int | float) and not isinstance(whole, bool) else whole), ""


def object_format(key: str, shape: dict[str, Any]) -> dict[str, Any]:
    """Return the ``response_format`` for an object with one key."""
    schema = {
        "type": "object",
        "properties": {key: shape},
        "required": [key],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": key, "schema": schema, "strict": True}}


def quoted(text: str) -> str:
    """Write a text as JSON."""
    return json.dumps(text, ensure_ascii=False)


def without_bullet(line: str) -> str:
    """Return a line of a list without its bullet or number."""
    return _BULLET.sub("", line)
