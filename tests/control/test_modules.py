"""Modules are found, and looked into, without being imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from platform_core.control.modules import defined_names, find_module, find_package


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "team" / "deep").mkdir(parents=True)
    (tmp_path / "space" / "inner").mkdir(parents=True)
    for name in ("team/__init__.py", "team/deep/__init__.py", "team/deep/steps.py", "space/inner/steps.py"):
        (tmp_path / name).write_text("raise RuntimeError('imported')\n")
    return tmp_path


def test_a_module_is_found_in_packages_and_namespaces(folder: Path) -> None:
    assert find_module("team.deep.steps", folders=(folder,)) == folder / "team/deep/steps.py"
    assert find_module("team", folders=(folder,)) == folder / "team/__init__.py"
    assert find_module("space.inner.steps", folders=(folder,)) == folder / "space/inner/steps.py"
    assert find_package("team.deep.steps", folders=(folder,)) == folder / "team/deep"
    assert not {"team", "team.deep", "space"} & set(sys.modules)


@pytest.mark.parametrize(
    "name", ["team.nothing", "nothing", "team.deep.steps.more", "", "team..deep", "../team", "a b"]
)
def test_what_is_no_module_is_not_found(folder: Path, name: str) -> None:
    assert find_module(name, folders=(folder,)) is None


def test_an_installed_module_is_found() -> None:
    assert find_module("platform_core.errors") == Path(sys.modules["platform_core.errors"].__file__ or "")


def test_names_of_the_top_level_are_known(tmp_path: Path) -> None:
    file = tmp_path / "steps.py"
    file.write_text(
        "import os.path\nfrom x import a as b\nc = d = 1\ne: int = 2\n"
        "def f():\n    def inner(): ...\nasync def g(): ...\nclass H:\n    def method(self): ...\n"
        "if c:\n    def i(): ...\nelse:\n    try:\n        def j(): ...\n    except ValueError:\n        k = 1\n"
    )
    assert defined_names(file) == {
        "os": "name",
        "b": "name",
        "c": "name",
        "d": "name",
        "e": "name",
        "f": "function",
        "g": "async",
        "H": "class",
        "i": "function",
        "j": "function",
        "k": "name",
    }


@pytest.mark.parametrize("text", ["def f(:\n", "x = '\0'", "(" * 10_000])
def test_what_is_no_python_is_a_syntax_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "steps.py"
    file.write_text(text)
    with pytest.raises(SyntaxError):
        defined_names(file)
