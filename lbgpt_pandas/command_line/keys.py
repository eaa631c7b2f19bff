"""Keys among the arguments of a command: noticed before anything is done, and refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lbgpt_pandas.command_line.tables import Format
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.notebook.arguments import Misuse
from lbgpt_pandas.notebook.pasted_keys import gives_key, holds_key

if TYPE_CHECKING:
    from collections.abc import Sequence

PROSE = ("--template", "--system")
"""Options whose values may speak of keys."""

REFUSAL = (
    "an argument looks like a key, so nothing was done. Keys come from the environment: "
    "OPENAI_API_KEY, or AZURE_OPENAI_API_KEY with AZURE_OPENAI_ENDPOINT. The shell's history has "
    "kept this line, and others on this machine may have seen it: delete it, and replace the key. "
    "A text that only looks like one can come by --template-file"
)


def refuse_keys(arguments: Sequence[str]) -> None:
    """Raise `Misuse` if an argument seems to be a key; the message does not repeat it.

    Parameters
    ----------
    arguments : sequence of str
        Those of the process.

    Examples
    --------
    >>> refuse_keys(["complete", "a.csv", "--template", "What is a bearer token: {x}"])
    >>> refuse_keys(["plan", "--param", "api_key=abcdef"])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    lbgpt_pandas.notebook.arguments.Misuse: an argument looks like a key, ...
    """
    prose, others = [], []
    option = ""
    for word in arguments:
        name, equals, value = word.partition("=")
        if option in PROSE:
            prose.append(word)
        elif name in PROSE and equals:
            prose.append(value)
        elif not _is_file(word):
            others.append(word)
        option = "" if option in PROSE else word
    if any(map(holds_key, prose)) or gives_key(" ".join(others)):
        raise Misuse(REFUSAL)


def _is_file(word: str) -> bool:
    """Tell a file, whose name may be a checksum, from a key."""
    try:
        Format.of(word)
    except ConfigurationError:
        try:
            return Path(word).exists()
        except (OSError, ValueError):
            return False
    return True
