"""Finds modules and what they define without importing them.

Importing a team's code to check its YAML would run that code, and load whatever it imports.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

_MAX_BYTES = 4 * 1024 * 1024


def find_module(name: str, *, folders: tuple[Path, ...] = ()) -> Path | None:
    """The file of a module; None where there is none.

    Args:
        name: dotted.
        folders: looked at before ``sys.path``.
    """
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    search = [*map(str, folders), *sys.path]
    found: Path | None = None
    for position, part in enumerate(parts):
        spec = PathFinder.find_spec(part, search)
        if spec is None and position == 0:
            spec = _installed(part)
        if spec is None:
            return None
        found = Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
        search = list(spec.submodule_search_locations or ())
    return found


def _installed(package: str) -> ModuleSpec | None:
    """A top-level package by whatever finder knows it: an editable installation can bring its own."""
    try:
        # Only names with dots make this import something.
        return importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None


def find_package(name: str, *, folders: tuple[Path, ...] = ()) -> Path | None:
    """The folder of the package that a module lies in (or of the package itself); None where there is none."""
    file = find_module(name, folders=folders)
    return file.parent if file else None


def defined_names(file: Path) -> dict[str, str]:
    """Names that a module defines at its top level, with what each is: ``function``, ``async``, ``class``, ``name``.

    Args:
        file: Python source.

    Raises:
        SyntaxError: it is not Python.
        OSError: it cannot be read.
    """
    data = file.read_bytes()
    if len(data) > _MAX_BYTES:
        raise OSError(f"has more than {_MAX_BYTES:,} bytes")
    try:
        tree = ast.parse(data)
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(type(error).__name__) from None
    names: dict[str, str] = {}
    waiting: list[ast.stmt] = tree.body[::-1]
    while waiting:
        statement = waiting.pop()
        if isinstance(statement, ast.FunctionDef):
            names[statement.name] = "function"
        elif isinstance(statement, ast.AsyncFunctionDef):
            names[statement.name] = "async"
        elif isinstance(statement, ast.ClassDef):
            names[statement.name] = "class"
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0]: "name" for alias in statement.names}
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names |= {target.id: "name" for target in targets if isinstance(target, ast.Name)}
        else:
            for block in ("body", "orelse", "finalbody"):
                waiting.extend(getattr(statement, block, []))
            for handler in getattr(statement, "handlers", []):
                waiting.extend(handler.body)
    return names
