"""``%lbgpt`` and ``%%lbgpt``; loaded by ``%load_ext lbgpt_pandas`` and by nothing else."""

from __future__ import annotations

import re
from collections import ChainMap
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import (
    Magics,
    line_cell_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
)

from lbgpt_pandas.engine.errors import ConfigurationError, LbgptError, RowErrors, TemplateError
from lbgpt_pandas.engine.secrets import redact
from lbgpt_pandas.notebook.arguments import Help, Misuse
from lbgpt_pandas.notebook.cell_magic import cell_parser, run_cell
from lbgpt_pandas.notebook.commands import line_parser, run_line
from lbgpt_pandas.notebook.completions import matcher_of
from lbgpt_pandas.notebook.names import Scope
from lbgpt_pandas.notebook.pasted_keys import refuse_keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

NAME = "lbgpt"

_SELF_EXPLAINING = (ConfigurationError, TemplateError, RowErrors)
_ASKS_FOR_HELP = re.compile(r"%%lbgpt\s+(?:\S.*\s)?(?:-h|--help)\s*")


@magics_class
class LbgptMagics(Magics):
    """The line and the cell magic."""

    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    def lbgpt(
        self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None
    ) -> object:
        """Run a command, or ask a model what the cell says."""
        shell: Any = self.shell
        user_ns: dict[str, Any] = shell.user_ns
        names = user_ns if local_ns is None else ChainMap(local_ns, user_ns)
        scope = Scope(names, user_ns)
        if cell is not None:
            return _explained(lambda: run_cell(line, cell, scope), line)
        words = line.strip()
        bare = words.rstrip("; \t")
        result = _explained(lambda: run_line(bare, scope), line)
        return None if bare != words and self._stands_alone(line) else result

    def _stands_alone(self, line: str) -> bool:
        """Tell whether nobody takes the result, so that a semicolon means: do not show it."""
        call = f"get_ipython().run_line_magic({NAME!r}, {line!r})"
        shell: Any = self.shell
        history = shell.history_manager
        cells = [] if history is None else history.input_hist_parsed
        return bool(cells) and any(each.strip() == call for each in cells[-1].splitlines())


def _explained(run: Callable[[], object], line: str) -> object:
    """Run; a failure that we foresee is one line, because a traceback would say no more.

    It has to be IPython's own class: of a subclass it shows the traceback.
    """
    message = ""
    try:
        refuse_keys(line)
        return run()
    except Help as text:
        print(text)  # noqa: T201  # help is a text in the cell's output, not a value
        return None
    except Misuse as error:
        message = str(error)
    except (LbgptError, OSError) as error:
        kind = "" if isinstance(error, _SELF_EXPLAINING) else f"{type(error).__name__}: "
        notes = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
        message = f"{kind}{error}{notes}"
    raise UsageError(" ".join(redact(message).split())) from None


def with_body(lines: list[str]) -> list[str]:
    """Add an empty line to a cell that only asks for help, which IPython refuses without one.

    Parameters
    ----------
    lines : list of str
        Of the cell.
    """
    text = "".join(lines)
    if "\n" not in text.strip() and _ASKS_FOR_HELP.fullmatch(text.strip()):
        return [f"{text.strip()}\n", "\n"]
    return lines


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register magics and completions; doing it again replaces them."""
    unload_ipython_extension(shell)
    LbgptMagics.lbgpt.__doc__ = f"{line_parser().format_help()}\n{cell_parser().format_help()}"
    shell.register_magics(LbgptMagics)
    shell.input_transformers_cleanup.append(with_body)
    if shell.Completer is not None:
        shell.Completer.custom_matchers.append(matcher_of(shell))


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take back what `load_ipython_extension` registered; does nothing if there is nothing."""
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop(NAME, None)
    shell.magics_manager.registry.pop(LbgptMagics.__name__, None)
    transformers = shell.input_transformers_cleanup
    transformers[:] = [each for each in transformers if not _is_ours(each, with_body)]
    if shell.Completer is not None:
        matchers = shell.Completer.custom_matchers
        matchers[:] = [each for each in matchers if not _is_ours(each, matcher_of)]


def _is_ours(found: object, function: Callable[..., object]) -> bool:
    """Compare by module, because a reloaded function is another one."""
    return getattr(found, "__module__", None) == function.__module__
