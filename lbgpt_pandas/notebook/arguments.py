"""Command lines of the magics: words, options, help, and errors of one line."""

from __future__ import annotations

import argparse
import difflib
import re
from typing import TYPE_CHECKING, Any, NoReturn

from lbgpt_pandas.engine.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Completer = Callable[[Any], Iterable[str]]

_CLOSE = 0.6
_WORD = re.compile(
    r"""(?P<blank>\s+)|"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>[^']*)'|"""
    r"""\\(?P<escaped>["'\s])|(?P<index>\[\s*(?:"[^"]*"|'[^']*'))|(?P<plain>[^\s"'])""",
    re.DOTALL,
)
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([dhms])", re.IGNORECASE)
_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


class Misuse(Exception):
    """A magic cannot run as it was written; shown as one line without a traceback."""


class Help(Exception):
    """Somebody asked for help; the exception's text is it."""


class Parser(argparse.ArgumentParser):
    """An argument parser for a place where nobody may end the process.

    It raises `Misuse` where argparse would exit, and `Help` where it would print. Beside that
    it keeps what may be written, for Tab.

    Attributes
    ----------
    offered : list of argparse.Action
        Options and arguments, in the order in which help shows them.
    commands : dict of str to Parser
        Subcommands by name.
    words : dict of str to callable
        By the option or argument that a word is for: what could stand there, given the user's
        names.
    """

    def __init__(self, **settings: Any) -> None:
        self.offered: list[argparse.Action] = []
        self.commands: dict[str, Parser] = {}
        self.words: dict[str, Completer] = {}
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(add_help=False, allow_abbrev=False, **settings)
        self.color = False  # Python 3.14 would colour the text of a cell's output
        self.add_argument("-h", "--help", action=_ShowHelp, help="show this and do nothing")

    def add_argument(
        self, *names: str, words: Completer | None = None, **settings: Any
    ) -> argparse.Action:
        """Add an option or argument, and what Tab offers for it."""
        action = super().add_argument(*names, **settings)
        self.offered.append(action)
        if words is not None:
            self.words[action.dest] = words
        return action

    def add_commands(self, dest: str, *, required: bool = True) -> Commands:
        """Make room for subcommands, whose name will be in `dest`."""
        return Commands(self, dest, required=required)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse words.

        Raises
        ------
        Misuse
            If they are not understood.
        Help
            If they ask for it.
        """
        return self.parse_args(list(words))

    def error(self, message: str) -> NoReturn:
        """Raise `Misuse` with the message, which may quote the line."""
        raise Misuse(f"{redact(message)}; {self.prog} --help shows what there is")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Raise `Misuse`: a magic never ends the process."""
        raise Misuse(redact(message or f"{self.prog} ended with status {status}"))


class Commands:
    """The subcommands of a parser.

    Parameters
    ----------
    parser : Parser
        The one above.
    dest : str
        Where the name of the command is stored.
    required : bool
        Whether there must be one.
    """

    def __init__(self, parser: Parser, dest: str, *, required: bool) -> None:
        self._parser = parser
        self._group = parser.add_subparsers(
            title="commands", dest=dest, metavar="COMMAND", required=required, parser_class=Parser
        )

    def add(self, name: str, run: Callable[..., object], text: str) -> Parser:
        """Add a command.

        Parameters
        ----------
        name : str
            Of the command.
        run : callable
            Gets the parsed options and the `Scope`, and returns the command's result.
        text : str
            What it does, in one line.
        """
        command = self._group.add_parser(
            name, prog=f"{self._parser.prog} {name}", help=text, description=_sentence(text)
        )
        command.set_defaults(run=run)
        self._parser.commands[name] = command
        return command


class _ShowHelp(argparse.Action):
    """Raises the help text, so that no required argument is missed before."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Raise `Help`."""
        raise Help(parser.format_help())


def split_words(line: str) -> list[str]:
    r"""Divide a line into words at blanks outside quotes.

    It is what a shell does, but a backslash only escapes quotes and blanks, so that paths of
    Windows and ``\\{`` stay, and quotes behind a bracket belong to the word.

    Raises
    ------
    Misuse
        If a quote is left open.

    Examples
    --------
    >>> split_words("-s 'You are brief.' --df frames['a b']")
    ['-s', 'You are brief.', '--df', "frames['a b']"]
    """
    words: list[str] = []
    is_inside = False
    end = 0
    for token in _WORD.finditer(line):
        if token.start() != end:
            break
        end = token.end()
        if token["blank"]:
            is_inside = False
            continue
        if not is_inside:
            words.append("")
            is_inside = True
        words[-1] += _unquoted(token)
    if end != len(line):
        raise Misuse(
            "a quote is left open, so the line cannot be divided into words; quote a text with "
            'spaces or apostrophes: -s "It\'s brief."'
        )
    return words


def _unquoted(token: re.Match[str]) -> str:
    if token["double"] is not None:
        return token["double"].replace('\\"', '"')
    if token["single"] is not None:
        return token["single"]
    return token["escaped"] or token["index"] or token["plain"]


def age(text: str) -> str:
    """Write an age such as ``7d`` or ``2h`` as pandas reads it; anything else stays.

    Examples
    --------
    >>> age("7d"), age("1.5 h"), age("2026-11-01")
    ('7 days', '1.5 hours', '2026-11-01')
    """
    found = _AGE.fullmatch(text.strip())
    return text if found is None else f"{found[1]} {_UNITS[found[2].lower()]}"


def check_command(parser: Parser, words: Sequence[str]) -> None:
    """Raise `Misuse` with a suggestion if the first word is no command."""
    if words and not words[0].startswith("-") and words[0] not in parser.commands:
        name = redact(words[0])
        raise Misuse(f"{parser.prog} has no command {name!r}; {suggestion(name, parser.commands)}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Say which known word is meant, else which there are.

    Examples
    --------
    >>> suggestion("stauts", ["status", "usage"])
    "did you mean 'status'?"
    >>> suggestion("x", ["status", "usage"])
    'there are status, usage'
    """
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=_CLOSE)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
