"""Rules of the house that ruff, mypy and the import contracts do not know.

Each rule is a function from a module to complaints. It is tried on every file of the package,
and on a sample that breaks it, so that a rule that has gone blind is noticed.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lbgpt_pandas"

MAX_LINES = 400
MAX_BODY_LINES = 50
VAGUE_FILES = {"utils", "util", "helpers", "helper", "manager", "common", "misc", "base_utils"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FOREIGN_LOOPS = {"asyncio.run", "asyncio.get_event_loop"}
NAMES_OF_LBGPT = {"_BaseGPT"}
"""Names that begin with an underscore because LBGPT's do."""
ADVERTISING = re.compile(r"\b(robust|seamless|powerful|effortless|blazing)", re.IGNORECASE)


@dataclass(frozen=True)
class Module:
    path: Path
    source: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    def imports(self) -> Iterator[tuple[ast.stmt, str, list[str]]]:
        """Each import as statement, module and imported names."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node, alias.name, []
            elif isinstance(node, ast.ImportFrom):
                name = "." * node.level + (node.module or "")
                yield node, name, [alias.name for alias in node.names]


def no_foreign_event_loop(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in FOREIGN_LOOPS:
            yield f"{node.lineno}: {ast.unparse(node)}; use engine.portal"


def no_pickle(module: Module) -> Iterator[str]:
    for node, name, _ in module.imports():
        if name.partition(".")[0] in PICKLES:
            yield f"{node.lineno}: {name} executes what it reads"


def no_relative_import(module: Module) -> Iterator[str]:
    for node, name, _ in module.imports():
        if name.startswith("."):
            yield f"{node.lineno}: {name}"


def no_import_from_the_top(module: Module) -> Iterator[str]:
    if module.path.name == "__main__.py":
        return  # the command line is a user of the package
    for node, name, _ in module.imports():
        if name == "lbgpt_pandas":
            yield f"{node.lineno}: the package's __init__ sees all parts, no part sees it"


def no_private_name_of_a_sibling(module: Module) -> Iterator[str]:
    for node, name, imported in module.imports():
        if name.startswith("lbgpt_pandas"):
            private = {each for each in imported if re.match("_(?!_)", each)} - NAMES_OF_LBGPT
            if private:
                yield f"{node.lineno}: {', '.join(sorted(private))} of {name}"


def no_swallowed_exception(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        kind = ast.unparse(node.type) if node.type else "BaseException"
        silent = all(
            isinstance(line, ast.Pass | ast.Continue)
            or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
            for line in node.body
        )
        if silent and kind in {"Exception", "BaseException"}:
            yield f"{node.lineno}: except {kind}, and nothing is done"


def annotations_from_the_future(module: Module) -> Iterator[str]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.AnnAssign
    annotates = any(isinstance(node, kinds) for node in ast.walk(module.tree))
    if annotates and not any(name == "__future__" for _, name, _ in module.imports()):
        yield "from __future__ import annotations is missing"


def reasons_for_type_ignore(module: Module) -> Iterator[str]:
    for number, line in enumerate(module.source.splitlines(), 1):
        if "# type: ignore" in line and not re.search(r"# type: ignore\[[\w, -]+\]  # \S", line):
            yield f"{number}: a type: ignore needs its code and, after two spaces, its reason"


def short_file(module: Module) -> Iterator[str]:
    lines = module.source.count("\n")
    if lines > MAX_LINES:
        yield f"{lines} lines"


def short_functions(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body and node.end_lineno:
                lines = node.end_lineno - body[0].lineno + 1
                if lines > MAX_BODY_LINES:
                    yield f"{node.lineno}: {node.name} has {lines} lines"


def a_telling_name(module: Module) -> Iterator[str]:
    if module.path.stem in VAGUE_FILES:
        yield "a name that says what is inside, please"


def no_advertising(module: Module) -> Iterator[str]:
    for number, line in enumerate(module.source.splitlines(), 1):
        if ADVERTISING.search(line):
            yield f"{number}: {line.strip()}"


BROKEN: dict[Callable[[Module], Iterator[str]], str] = {
    no_foreign_event_loop: "asyncio.run(main())",
    no_pickle: "def load():\n    from pickle import loads",
    no_relative_import: "from . import portal",
    no_import_from_the_top: "from lbgpt_pandas import settings",
    no_private_name_of_a_sibling: "from lbgpt_pandas.frames import _codes, col",
    no_swallowed_exception: "try:\n    f()\nexcept Exception:\n    pass",
    annotations_from_the_future: "x: int = 1",
    reasons_for_type_ignore: "x = 1  # type: ignore[assignment]",
    short_file: "x = 1\n" * (MAX_LINES + 1),
    short_functions: "def f():\n" + "    x = 1\n" * (MAX_BODY_LINES + 1),
    a_telling_name: "",
    no_advertising: '"""A robust client."""',
}

FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("rule", BROKEN, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Callable[[Module], Iterator[str]]) -> None:
    complaints = {
        str(path.relative_to(ROOT)): found
        for path in FILES
        if (found := list(rule(Module(path, path.read_text()))))
    }
    assert not complaints


@pytest.mark.parametrize("rule", BROKEN, ids=lambda rule: rule.__name__)
def test_the_rule_finds_what_breaks_it(rule: Callable[[Module], Iterator[str]]) -> None:
    assert list(rule(Module(Path("utils.py"), BROKEN[rule])))


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_prose_is_sober(name: str) -> None:
    assert not list(no_advertising(Module(Path(name), (ROOT / name).read_text())))
