"""Jinja templates under the rules of a sandbox, wherever they were compiled.

Imported at first use, because it imports jinja2.

A compiled jinja2 template reads attributes, items, filters and tests from the environment
that its render function gets as an argument. Handing it one that is sandboxed puts its rules
on a template that was made without them. Only calls go through the context, which therefore
checks them here.
"""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from jinja2 import BaseLoader, StrictUndefined, Template, TemplateSyntaxError
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range

from lbgpt_pandas.cells import cell_value
from lbgpt_pandas.engine.errors import InvalidInput, TemplateError
from lbgpt_pandas.rows import MissingCell, Row

if TYPE_CHECKING:
    from collections.abc import Hashable
    from types import TracebackType

    from jinja2 import Environment

    from lbgpt_pandas.rows import Block, FieldNames

MAX_CHARACTERS = 10_000_000
"""Longest text of one row."""

ROW = "row"
"""Name of the whole row in a template, for columns whose names are no identifiers."""


class NoLoader(BaseLoader):
    """Refuses ``include``, ``import`` and ``extends``."""

    def get_source(self, environment: Environment, template: str) -> Any:  # noqa: ARG002  # jinja2's signature
        """Raise a TemplateError: another template would come from outside the sandbox."""
        raise TemplateError(
            f"the jinja2 template refers to another one, {template!r}; include, import and "
            "extends are not supported"
        )


class CheckedContext(Context):
    """A context that calls only what the sandbox calls safe."""

    def call(self, callee: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call `callee` if that is safe.

        Raises
        ------
        SecurityError
            If it is not.
        """
        environment = cast("ImmutableSandboxedEnvironment", self.environment)
        if not environment.is_safe_callable(callee):
            raise SecurityError(f"{callee!r} is not safely callable")
        return super().call(callee, *args, **kwargs)


class StrictName(StrictUndefined):
    """A name or attribute that is unknown or refused; fails also inside a list that is written."""

    __slots__ = ()
    __repr__ = StrictUndefined._fail_with_undefined_error  # noqa: SLF001  # as its other methods do


class MissingValue(StrictName):
    """A cell that is NA: not ``defined``, so that ``default()`` applies; other uses end the row."""

    __slots__ = ()


class FaultyValue(StrictName):
    """A cell that cannot be sent; any use ends the row."""

    __slots__ = ()


def new_environment(**settings: Any) -> ImmutableSandboxedEnvironment:
    """Make a sandboxed environment with strict undefined names and no way to other templates."""
    environment = ImmutableSandboxedEnvironment(undefined=StrictName, loader=NoLoader(), **settings)
    environment.context_class = CheckedContext
    environment.globals = _safe_globals(environment.globals)
    return environment


def compile_source(source: str) -> Template:
    """Compile a template in the sandbox.

    Raises
    ------
    TemplateError
        For a syntax error, with its line.
    """
    try:
        return new_environment().from_string(source)
    except TemplateSyntaxError as error:
        raise TemplateError(f"jinja2 template, line {error.lineno}: {error.message}") from error


def _safe_globals(names: Mapping[str, Any]) -> dict[str, Any]:
    safe = dict(names)
    if safe.get("range") is builtins.range:
        safe["range"] = safe_range
    # It writes as many paragraphs as it is told to, past any cap.
    if safe.get("lipsum") is DEFAULT_NAMESPACE["lipsum"]:
        del safe["lipsum"]
    return safe


class SandboxedTemplate:
    """A compiled template and the environment that it is rendered in.

    Parameters
    ----------
    template : jinja2.Template
        From any environment; its filters, tests and globals are taken along, its undefined
        type and loader are not.

    Raises
    ------
    TemplateError
        If it has blocks, is asynchronous, or was compiled by a jinja2 that binds templates to
        their environment.
    """

    def __init__(self, template: Template) -> None:
        own = template.environment
        if template.blocks:
            raise TemplateError(
                "jinja2 templates with {% block %} or {% extends %} are not supported, because "
                "blocks are bound to the environment that compiled them; use {% macro %}"
            )
        if own.is_async:
            raise TemplateError("compile the jinja2 template without enable_async")
        if "environment" not in inspect.signature(template.root_render_func).parameters:
            raise TemplateError(
                "this jinja2 cannot render a compiled template in a sandbox; compile it with "
                "sandboxed(source)"
            )
        self._template = template
        self._environment = new_environment(
            autoescape=own.autoescape, finalize=own.finalize, newline_sequence=own.newline_sequence
        )
        self._environment.filters = dict(own.filters)
        self._environment.tests = dict(own.tests)
        self._environment.policies = dict(own.policies)
        self._globals = _safe_globals(template.globals)

    def render(self, block: Block, offset: int) -> str:
        """Text of one row.

        Raises
        ------
        MissingCell
            If a cell that is NA is used.
        InvalidInput
            If a cell that cannot be sent is used.
        TemplateError
            If rendering fails, or the text is longer than `MAX_CHARACTERS`.
        """
        variables = Variables(block, offset, self._globals)
        try:
            return self._joined(variables)
        except (MissingCell, InvalidInput, TemplateError):
            raise
        except Exception as error:
            variables.raise_if_refused(error)
            raise TemplateError(self._failure(error, variables)) from error

    def _joined(self, variables: Variables) -> str:
        context = CheckedContext(
            self._environment, cast("dict[str, Any]", variables), self._template.name, {}
        )
        pieces, length = [], 0
        root = cast("Any", self._template.root_render_func)
        for piece in root(context, environment=self._environment):
            text = str(piece)
            pieces.append(text)
            length += len(text)
            if length > MAX_CHARACTERS:
                raise TemplateError(
                    f"the jinja2 template wrote more than {MAX_CHARACTERS:,} characters"
                )
        return "".join(pieces)

    def _failure(self, error: Exception, variables: Variables) -> str:
        line = _line_of(error.__traceback__, self._template)
        # Messages of other errors may quote cells.
        reason = f": {error}" if isinstance(error, JinjaError) else ""
        hint = ""
        if isinstance(error, UndefinedError) and variables.unknown:
            hint = f"; {variables.fields.suggest(variables.unknown[0])}"
        return f"the jinja2 template failed{line} with {type(error).__name__}{reason}{hint}"


def _line_of(trace: TracebackType | None, template: Template) -> str:
    line = ""
    while trace is not None:
        if trace.tb_frame.f_globals.get("__jinja_template__") is template:
            line = f" in line {template.get_corresponding_lineno(trace.tb_lineno)}"
        trace = trace.tb_next
    return line


class Variables(Mapping[str, object]):
    """What a template's names stand for in one row: fields, ``row``, then globals.

    Jinja looks up every name of a template before it knows which branch it takes. Cells that
    are NA or cannot be sent are therefore objects that complain when they are used.
    """

    def __init__(self, block: Block, offset: int, further: Mapping[str, Any]) -> None:
        self.unknown: list[str] = []
        self._refused: list[MissingCell | InvalidInput] = []
        self._block, self._offset, self._globals = block, offset, further

    @property
    def fields(self) -> FieldNames:
        """Names of the frame."""
        return self._block.fields

    def __getitem__(self, name: str) -> object:
        if name in self.fields:
            return self._read(name)
        if name == ROW:
            return Row(self.fields, self._read)
        return self._globals[name]

    def __contains__(self, name: object) -> bool:
        known = name in self.fields or name == ROW or name in self._globals
        if not known:
            self.unknown.append(str(name))
        return known

    def __iter__(self) -> Iterator[str]:
        return iter({ROW, *self._globals, *(str(each) for each in self.fields)})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def raise_if_refused(self, error: Exception) -> None:
        """Raise what a cell was refused for, if `error` comes from using it.

        A serialiser asks an object's type instead of using it, and names the type in its error.
        """
        kinds = MissingValue.__name__, FaultyValue.__name__
        if isinstance(error, TypeError) and any(kind in str(error) for kind in kinds):
            for refused in self._refused:
                raise refused from error

    def _read(self, name: Hashable) -> object:
        try:
            return cell_value(self._block.value(name, self._offset))
        except MissingCell as missing:
            self._refused.append(missing)
            return MissingValue(str(missing), exc=cast("Any", MissingCell))
        except InvalidInput as invalid:
            fault = InvalidInput(f"column {name!r}: {invalid.message}")
            self._refused.append(fault)
            return FaultyValue(fault.message, exc=cast("Any", InvalidInput))
