"""Keys in the line of a magic: noticed before anything is done with the line, and refused."""

from __future__ import annotations

import re

from lbgpt_pandas.engine.secrets import redact
from lbgpt_pandas.notebook.arguments import Misuse

KEY_NAMES = frozenset(
    {
        "accesstoken", "apikey", "authorization", "authtoken", "azureopenaiapikey", "bearer",
        "clientsecret", "credential", "key", "openaiapikey", "password", "passwd", "secret",
        "subscriptionkey", "token",
    }
)  # fmt: skip

REFUSAL = (
    "the line holds what looks like a key, so nothing was done. Put the key into the environment "
    "variable OPENAI_API_KEY, or AZURE_OPENAI_API_KEY with AZURE_OPENAI_ENDPOINT, before Jupyter "
    "starts; or build the engine in Python, lb.configure(lb.ChatGPT(getpass.getpass())). IPython's "
    "history has kept this line and the notebook keeps the cell: delete it, clear the history, and "
    "replace the key if anybody else may have seen it"
)

_TOKENS = (
    re.compile(r"\b(?:sk|pk|rk)-(?=[\w-]*\d)[\w-]{12,}"),
    re.compile(r"(?<![0-9A-Za-z:])[0-9a-fA-F]{32}(?![0-9A-Za-z])"),  # Azure, until 2024
    re.compile(r"(?<![0-9A-Za-z])(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[0-9A-Za-z]{80,}(?![0-9A-Za-z])"),
    re.compile(
        r"(?<![0-9A-Za-z])(?:gsk|hf|xai|r8|nvapi|pplx|AIza|ghp|AKIA)[-_]?[0-9A-Za-z_-]{16,}"
    ),
)
_GIVEN = re.compile(r"(?:^|\s)-{0,2}([A-Za-z][\w-]*)\s*[=:]\s*[\"']?[^\s\"'{]")
_OPTION = re.compile(r"(?:^|\s)--([A-Za-z][\w-]*)\s+[^\s-]")


def refuse_keys(line: str) -> None:
    """Raise `Misuse` if a line seems to hold a key; the message does not repeat it.

    Parameters
    ----------
    line : str
        What follows the magic's name.

    Examples
    --------
    >>> refuse_keys("usage --by model")
    >>> refuse_keys("config api_key=abcdef")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    lbgpt_pandas.notebook.arguments.Misuse: the line holds what looks like a key, ...
    """
    if gives_key(line):
        raise Misuse(REFUSAL)


def gives_key(line: str) -> bool:
    """Tell whether a line seems to hold a key, by its look or by the name before it."""
    names = [match[1] for pattern in (_GIVEN, _OPTION) for match in pattern.finditer(line)]
    return redact(line) != line or holds_key(line) or any(map(is_name_of_a_key, names))


def holds_key(text: str) -> bool:
    """Tell whether a text has something in it that looks like a key; words about keys do not.

    Examples
    --------
    >>> holds_key("Is the API key: none, or basic access?"), holds_key("Use sk-0123456789abcdef.")
    (False, True)
    """
    return any(pattern.search(text) for pattern in _TOKENS)


def is_name_of_a_key(name: str) -> bool:
    """Tell whether what goes by this name is a key or a password.

    Examples
    --------
    >>> is_name_of_a_key("OPENAI-API-KEY"), is_name_of_a_key("max_tokens")
    (True, False)
    """
    bare = re.sub(r"[-_ ]", "", name).lower()
    return bare in KEY_NAMES or bare.endswith(("apikey", "secret", "password"))
