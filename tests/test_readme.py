"""README.md: its blocks run, its commands are the ones that CI runs, its map is the package."""

from __future__ import annotations

import ast
import asyncio
import inspect
import itertools
import os
import re
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import lbgpt_pandas as lb
from lbgpt_pandas.testing import ScriptedGPT

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXPECTED = re.compile(r"^(?P<indent> *)(?P<expression>\S.*?)  # -> (?P<text>.+)$", re.MULTILINE)


def blocks(language: str) -> list[str]:
    return [text for name, text in FENCE.findall(README) if name == language]


def section(title: str) -> str:
    _, _, rest = README.partition(f"\n## {title}\n")
    assert rest, f"README has no section {title!r}"
    return rest.partition("\n## ")[0]


def with_checks(block: str) -> str:
    """Turn `expression  # -> text` into a comparison of what printing it shows."""
    return EXPECTED.sub(
        lambda found: f"{found['indent']}_same({found['expression']}, {found['text']!r})", block
    )


def same(value: object, text: str) -> None:
    assert str(value) == text


def run(block: str, namespace: dict[str, Any]) -> None:
    """Execute a block as a notebook would, with `await` at its top level."""
    code = compile(with_checks(block), "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, namespace)
    if inspect.iscoroutine(result):
        asyncio.run(result)


def test_the_blocks_run_in_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # a block writes an archive
    monkeypatch.setenv("OPENAI_API_KEY", "sk-CANARY0123456789abcdef")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "CANARY0123456789abcdef")
    lb.configure(ScriptedGPT("positive"), progress="none")
    namespace: dict[str, Any] = {"__name__": "readme", "_same": same}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in blocks("python"):
            run(block, namespace)
    shown = capsys.readouterr().out
    assert "CANARY" not in shown
    assert namespace["df"]["mood"].tolist()[:2] == ["positive", "positive"]
    assert namespace["df"]["mood"].isna().tolist() == [False, False, True]
    assert "item" in shown, "the misspelt column was answered with the right one"
    assert [
        line for line in shown.splitlines() if line.split(" ")[0] in {"use", "refresh", "off"}
    ] == ["use provider", "use exact_cache", "refresh provider", "off provider"]


def test_the_disk_holds_answers_and_no_questions() -> None:
    lb.configure(ScriptedGPT("the answer is kept"), model="m", progress="none")
    pd.Series(["a private question"]).lbgpt.complete("{value}")
    files = [path for path in Path(os.environ["LBGPT_CACHE_DIR"]).rglob("*") if path.is_file()]
    contents = b"".join(path.read_bytes() for path in files)
    assert b"the answer is kept" in contents
    assert b"a private question" not in contents


def test_expected_values_are_compared() -> None:
    run("1 + 1  # -> 2", {"_same": same})
    with pytest.raises(AssertionError):
        run("if True:\n    1 + 1  # -> 3", {"_same": same})
    assert sum(block.count("# -> ") for block in blocks("python")) >= 5


def test_blocks_are_of_known_languages() -> None:
    assert {name for name, _ in FENCE.findall(README)} == {"python", "bash", "text"}
    assert README.count("```") == 2 * len(FENCE.findall(README))


def test_the_commands_are_one_line_each() -> None:
    for title in ("Try it now", "Run the tests"):
        (command,) = FENCE.findall(section(title))
        assert command[0] == "bash"
        assert command[1].count("\n") == 1


def test_ci_runs_the_command_of_the_readme() -> None:
    _, command = FENCE.findall(section("Run the tests"))[0]
    assert command in (ROOT / ".ci" / "run").read_text()


def test_the_demo_is_a_command_and_a_task() -> None:
    _, command = FENCE.findall(section("Try it now"))[0]
    demo = "python -m lbgpt_pandas demo"
    assert demo in command
    assert demo in (ROOT / "Taskfile.yml").read_text()


def test_the_tasks_exist_and_are_named() -> None:
    tasks = yaml.safe_load((ROOT / "Taskfile.yml").read_text())["tasks"]
    names = {"install", "requirements-generate", "docker:start", "docker:stop", "lint", "test"}
    assert tasks.keys() == names | {"default", "demo", "screenshots", "bench"}
    assert tasks["requirements-generate"]["aliases"] == ["rg"]
    assert tasks["test"]["aliases"] == ["tests"]
    assert tasks["test"]["cmds"][0] == {"task": "lint"}
    for name in tasks.keys() - {"default"}:
        assert f"`{name}`" in section("For developers"), name


def test_hooks_and_tasks_check_the_same() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = [hook["entry"] for repo in config["repos"] for hook in repo["hooks"]]
    lint = yaml.safe_load((ROOT / "Taskfile.yml").read_text())["tasks"]["lint"]["cmds"]
    for command in lint:
        words = [word for word in command.split() if word not in {".", "--check"}]
        assert any(" ".join(words) in entry for entry in entries), command
    assert all(entry.startswith("uv ") for entry in entries), "versions are those of the lock"


def mapped_modules() -> set[str]:
    """Paths of the map. A folder has a line of its own and indents what is in it."""
    found, folders = set(), dict[int, str]()
    for line in FENCE.findall(section("For developers"))[0][1].splitlines():
        indent = len(line) - len(line.lstrip())
        folders = {depth: name for depth, name in folders.items() if depth < indent}
        for name in itertools.takewhile(lambda word: word.endswith((".py", "/")), line.split()):
            if name.endswith("/"):
                folders[indent] = name
            else:
                found.add("".join(folders.values()) + name)
    return found


def test_the_map_is_the_package() -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "lbgpt_pandas").rglob("*.py")}
    # An __init__ that only marks a folder needs no line.
    speaking = {
        name
        for name in files
        if not name.endswith("/__init__.py") or "import" in (ROOT / name).read_text()
    }
    assert mapped_modules() == speaking


def test_the_license_and_other_files_exist() -> None:
    for name in ("LICENSE", "CHANGELOG.md", "docker-compose.yml", "environment.yml", ".ci/run"):
        assert (ROOT / name).exists()


def test_it_stays_readable() -> None:
    for_users, _, for_developers = README.partition("\n## For developers\n")
    assert for_users.count("\n") < 540
    assert for_developers.count("\n") < 150
