"""What came back for several rows: which answer is whose, and what each of them cost."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from lbgpt_pandas.engine.types import Completion, TokenCount
from lbgpt_pandas.engine.vectors import shares

if TYPE_CHECKING:
    from collections.abc import Sequence

_BEGINNING = re.compile(r'"answers"\s*:\s*\[|\[(?=\s*\{\s*"(?:id|answer)"\s*:)')
_THOUGHT_BEGINS, _THOUGHT_ENDS = "<think>", "</think>"
_SPACE = re.compile(r"[\s,]*")
_WORD = re.compile(r"\w+")


class _Ambiguous(ValueError):
    """An object names a key twice."""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Ambiguous
    return found


# Numbers keep the digits that were written, and a raw end of line inside a string is one.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_once, parse_float=str, parse_int=str, parse_constant=str, strict=False
)


def read_answers(text: str | None, ids: Sequence[str]) -> dict[str, str]:
    """Find the answers that are certain.

    Entries are read in order as far as they are whole JSON, so that what stands before a cut is
    not lost; lists of them may stand anywhere in prose. Foreign ids are ignored; an id that is
    missing, comes twice (in a draft and after it, say), or has no text or an empty one is not
    certain, nor is an answer that names an id, which stands in no row's text: a weak model
    repeats what it was given. Half of a character becomes U+FFFD.

    Examples
    --------
    >>> read_answers('{"answers": [{"id": "b", "answer": "Rome"}, {"id": "a", "ans', ["a", "b"])
    {'b': 'Rome'}
    """
    entries = _entries(text or "")
    wanted = set(ids)
    counts = Counter(each.get("id") for each in entries if isinstance(each.get("id"), str))
    return {
        str(each["id"]): answer
        for each in entries
        if isinstance(each.get("id"), str) and each["id"] in wanted and counts[each["id"]] == 1
        if (answer := _text_of(each.get("answer"))).strip()
        and not any(word in answer for word in ids)
    }


def _entries(text: str) -> list[dict[str, Any]]:
    """Objects of all lists of answers, but for those of what the model thought aloud before."""
    entries: list[dict[str, Any]] = []
    if text.lstrip().startswith(_THOUGHT_BEGINS) and _THOUGHT_ENDS not in text:
        return entries
    place = 0
    while True:
        beginning = _BEGINNING.search(text, place)
        # Inside an answer the mark ends no thought.
        if text.find(_THOUGHT_ENDS, place, beginning.start() if beginning else None) >= 0:
            entries.clear()
        if beginning is None:
            return entries
        place = beginning.end()
        try:
            while True:
                place = _SPACE.match(text, place).end()  # type: ignore[union-attr]  # always one
                entry, place = _DECODER.raw_decode(text, place)
                if isinstance(entry, dict):
                    entries.append(entry)
        except _Ambiguous:
            return []
        except (ValueError, RecursionError):
            continue


def _text_of(answer: object) -> str:
    """Text of an answer; booleans as JSON, nothing for what is no text."""
    if isinstance(answer, str):
        return answer.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return json.dumps(answer) if isinstance(answer, bool) else ""


def parts_of(whole: Completion, answers: Sequence[str], prompts: Sequence[int]) -> list[Completion]:
    """Divide a completion among the rows that it answered.

    Parameters
    ----------
    whole : Completion
        Of the call, with its payload.
    answers : sequence of str
        One or more.
    prompts : sequence of int
        Weights by which tokens of the prompt are divided.

    Returns
    -------
    list of Completion
        Each with a payload of its own, as of an answer that was asked for alone. Their tokens
        add up to those of `whole`.
    """
    count = whole.tokens
    told = [len(answer.encode()) + 1 for answer in answers]
    divided = zip(
        shares(count.prompt, prompts),
        shares(count.completion, told),
        shares(count.cached, prompts),
        strict=True,
    )
    return [
        _part(whole, answer, TokenCount(prompt, completion, cached, count.estimated))
        for answer, (prompt, completion, cached) in zip(answers, divided, strict=True)
    ]


def _part(whole: Completion, answer: str, tokens: TokenCount) -> Completion:
    about = whole.payload or {}
    payload: dict[str, object] = {
        name: about[name] for name in ("id", "object", "created", "model") if name in about
    }
    message = {"role": "assistant", "content": answer}
    payload["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
    if not tokens.estimated:
        payload["usage"] = {
            "prompt_tokens": tokens.prompt,
            "completion_tokens": tokens.completion,
            "total_tokens": tokens.total,
            "prompt_tokens_details": {"cached_tokens": tokens.cached},
        }
    return replace(
        whole, payload=payload, text=answer, finish_reason="stop", tokens=tokens, digest=None
    )


def likeness(one: str, other: str, *, exact: bool) -> float:
    """How like two answers are, from 0 to 1.

    Parameters
    ----------
    exact : bool
        Whether only the same text counts, but for outer space; otherwise the part of the words
        that both have, twice counted, of the words of both (F1).

    Examples
    --------
    >>> likeness("Rome ", "Rome", exact=True), likeness("in Rome", "Rome", exact=False) > 0.6
    (1.0, True)
    """
    if one.strip() == other.strip():
        return 1.0
    if exact:
        return 0.0
    mine, theirs = (Counter(_WORD.findall(text.casefold())) for text in (one, other))
    total = mine.total() + theirs.total()
    return 2 * (mine & theirs).total() / total if total else 0.0
