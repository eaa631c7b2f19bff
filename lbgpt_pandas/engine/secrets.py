"""Keys are held masked, and whatever leaves the engine as text is redacted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable

_PATTERNS = (
    re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_*-]{6,}"),
    re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"),
    re.compile(
        r"(?i)([\"']?(?:x-)?(?:api[-_ ]?key|authorization|access[-_]token|client[-_]secret)"
        r"[\"']?\s*[:=]\s*[\"']?)[^\s\"',;&}]{4,}"
    ),
    re.compile(r"(?i)([?&](?:key|api-key|api_key|token|sig)=)[^&\s\"']+"),
)
_VISIBLE_TAIL = 4
_SHORTEST_WITH_TAIL = 12
_SHORTEST_CONCEALED = 4


def redact(text: str) -> str:
    """Replace everything in `text` that looks like a credential by ``***``.

    Parameters
    ----------
    text : str
        A message, header or URL from outside.

    Returns
    -------
    str
        The text without keys, bearer tokens, or ``key=`` query values.

    Examples
    --------
    >>> redact("Incorrect API key provided: sk-abcdefghijkl")
    'Incorrect API key provided: ***'
    >>> redact("Authorization: Bearer abcdef123456")
    'Authorization: ***'
    """
    for pattern in _PATTERNS:
        text = pattern.sub(
            lambda match: (
                f"{match[1]}***"
                if match.lastindex and not match[1].lower().startswith(("bearer", "basic"))
                else "***"
            ),
            text,
        )
    # "Authorization: Bearer x" passes two patterns; the scheme's name may stand between.
    return re.sub(r"\*{3}(?:\s+\*{3})+", "***", text)


def conceal(text: str, keys: Iterable[str]) -> str:
    """Replace known keys in a text, whatever they look like.

    Parameters
    ----------
    text : str
        A message from outside.
    keys : iterable of str
        Those of less than four characters are left alone: they stand in many words.

    Examples
    --------
    >>> conceal("wrong key: plain-words-here", ["plain-words-here"])
    'wrong key: ***'
    """
    for key in keys:
        if len(key) >= _SHORTEST_CONCEALED:
            text = text.replace(key, "***")
    return text


class Secret:
    """A key that shows itself only through :meth:`reveal`.

    Parameters
    ----------
    value : str
        The key.

    Examples
    --------
    >>> Secret("sk-canary-0123456789")
    Secret('sk-…6789')
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the key itself."""
        return self._value

    @property
    def masked(self) -> str:
        """Prefix and last four characters; nothing at all of a short key."""
        if len(self._value) < _SHORTEST_WITH_TAIL:
            return "***"
        prefix = "sk-" if self._value.startswith("sk-") else ""
        return f"{prefix}…{self._value[-_VISIBLE_TAIL:]}"

    def __repr__(self) -> str:
        """Show the masked key."""
        return f"Secret({self.masked!r})"

    def __str__(self) -> str:
        """Show the masked key."""
        return self.masked

    def __format__(self, spec: str) -> str:
        """Format the masked key."""
        return format(self.masked, spec)

    def __eq__(self, other: object) -> bool:
        """Two secrets are equal if their keys are."""
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        """Hash of the key."""
        return hash(("Secret", self._value))

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled."""
        msg = "a Secret is not pickled; pass the name of an environment variable instead"
        raise TypeError(msg)
