"""environment.yml (conda) and pyproject.toml say the same."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

PYPI_NAMES = {"redis-py": "redis", "go-task": "go-task-bin"}
"""What conda-forge calls otherwise."""

EXTRAS_OF_CONDA_PACKAGES = {"dask": {"dataframe", "distributed"}}
"""Extras that the conda package of this name always contains."""

NOT_COMPARED = {"pip", "python"}


def declared() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    requirements = [Requirement(line) for lines in lists for line in lines]
    return {
        canonicalize_name(requirement.name): requirement
        for requirement in requirements
        if requirement.name != project["name"]
    }


def conda_lines() -> list[object]:
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert isinstance(lines, list)
    return lines


def of_conda() -> dict[str, Requirement]:
    found = {}
    for line in conda_lines():
        if isinstance(line, str):
            requirement = Requirement(line)
            requirement.name = PYPI_NAMES.get(requirement.name, requirement.name)
            name = canonicalize_name(requirement.name)
            requirement.extras = EXTRAS_OF_CONDA_PACKAGES.get(name, set())
            found[name] = requirement
    return found


def pip_lines() -> list[str]:
    (section,) = [line for line in conda_lines() if isinstance(line, dict)]
    lines = section["pip"]
    assert isinstance(lines, list)
    return lines


def of_pip() -> dict[str, Requirement]:
    requirements = [Requirement(line) for line in pip_lines() if not line.startswith("--")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def test_every_package_stands_once() -> None:
    assert not of_conda().keys() & of_pip().keys()
    strings = [line for line in conda_lines() if isinstance(line, str)]
    assert len(strings) == len(of_conda())
    assert len(pip_lines()) == len(of_pip()) + 1, "the package itself comes by pip"


def test_nothing_is_missing_and_nothing_extra() -> None:
    listed = (of_conda().keys() | of_pip().keys()) - NOT_COMPARED
    assert listed == declared().keys()


@pytest.mark.parametrize("name", sorted(declared()))
def test_bounds_extras_and_markers_agree(name: str) -> None:
    wanted = declared()[name]
    listed = (of_conda() | of_pip())[name]
    assert listed.specifier == wanted.specifier
    assert listed.extras == wanted.extras
    assert str(listed.marker) == str(wanted.marker)


def test_python_agrees() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert of_conda()["python"].specifier == SpecifierSet(project["requires-python"])


def test_the_package_itself_is_installed_from_here() -> None:
    assert "--editable ." in pip_lines()
