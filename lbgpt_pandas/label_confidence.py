"""How sure a model was of its label, from the log probabilities of the label's tokens."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.labels import Labels, YesNo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PLAIN = re.compile(rb"[\s\"'`*]*(.+?)[\s\"'`*.]*", re.DOTALL)
_OCTETS = range(256)
_THOUGHT_ENDS = b"</think>"


def label_confidence(
    logprobs: Mapping[str, Any] | None, labels: Labels | YesNo | Sequence[str]
) -> float | None:
    """Return the probability that the model gave to its label.

    That is the product over the tokens that the label is made of, without the JSON around it;
    for several labels, over all of them.

    Parameters
    ----------
    logprobs : mapping or None
        ``choices[0]["logprobs"]`` of a chat completion that was asked with ``logprobs=True``.
    labels : Labels, YesNo or list of str
        What was asked for.

    Returns
    -------
    float or None
        From 0 to 1; None without log probabilities, or where the reply is none of the labels.

    Examples
    --------
    >>> tokens = [{"token": "not", "logprob": -0.1}, {"token": " good", "logprob": -0.4}]
    >>> round(label_confidence({"content": tokens}, ["good", "not good"]), 3)
    0.607
    """
    tokens = _tokens(logprobs)
    asked = labels if isinstance(labels, Labels | YesNo) else Labels.of(labels)
    reply = b"".join(text for text, _ in tokens)
    answer, error = asked.parse(reply.decode("utf-8", "replace"))
    if error or answer == []:
        return None
    start, end = _span(reply, asked.key)
    total, position = 0.0, 0
    for text, logprob in tokens:
        if position < end and position + len(text) > start:
            total += logprob
        position += len(text)
    return min(1.0, math.exp(total))


def confidence_in(payload: Mapping[str, Any], labels: Labels | YesNo) -> float | None:
    """Return `label_confidence` of a ``chat.completion`` object."""
    return label_confidence(payload["choices"][0].get("logprobs"), labels)


def _tokens(logprobs: Mapping[str, Any] | None) -> list[tuple[bytes, float]]:
    """Return the reply's tokens with their log probabilities; none if one of them is odd."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    tokens = []
    for each in content if isinstance(content, list) else ():
        logprob = each.get("logprob")
        if not isinstance(logprob, int | float) or math.isnan(logprob):
            return []
        tokens.append((_bytes(each), float(logprob)))
    return tokens


def _bytes(token: dict[str, Any]) -> bytes:
    # A token may be part of a character, of which the text alone does not tell the bytes.
    octets = token.get("bytes")
    if isinstance(octets, list) and all(octet in _OCTETS for octet in octets):
        return bytes(octets)
    return str(token.get("token", "")).encode("utf-8", "replace")


def _span(reply: bytes, key: str) -> tuple[int, int]:
    """Return where the answer stands in a reply: its first byte, and the one after its last."""
    start = reply.rfind(_THOUGHT_ENDS) + len(_THOUGHT_ENDS) if _THOUGHT_ENDS in reply else 0
    member = rb'"%s"\s*:\s*(?:\[(.*?)\]|"((?:[^"\\]|\\.)*)"|(\w+))' % key.encode()
    found = list(re.compile(member, re.DOTALL | re.IGNORECASE).finditer(reply, start))
    match = found[-1] if found else _PLAIN.fullmatch(reply, start)
    if match is None:
        return 0, len(reply)
    group = match.lastindex or 0
    return match.start(group), match.end(group)
