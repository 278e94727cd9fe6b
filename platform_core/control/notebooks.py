"""Checks the notebooks that steps run, without running or importing anything."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from platform_core.control.documents import MAX_BYTES
from platform_core.control.reading import Entry
from platform_core.control.report import Report, excerpt
from platform_core.specs.processing import ProcessingSpec

PARAMETERS = "parameters"
"""Tag of the cell whose values a run replaces, as papermill has it."""

_CALL = "notebook_step"


def check_notebook(entry: Entry[ProcessingSpec], root: Path, report: Report) -> None:
    """Check that a step's notebook is there, is one of Python, and has the parameters that the step sets.

    Args:
        entry: of a step of kind notebook.
        root: folder of the location's package, resolved.
        report: takes the issues.
    """
    file = _file(entry, root, report)
    content = _content(entry, file, report) if file else None
    if file is None or content is None:
        return
    shown = str(report.shown(file))
    language = _at(content, "metadata", "kernelspec", "language") or _at(content, "metadata", "language_info", "name")
    if language not in (None, "python"):
        message = f"{shown} is a notebook of {excerpt(str(language))}; a step runs notebooks of Python"
        entry.complain(report, ("notebook",), message)
        return
    cells = [cell for cell in content["cells"] if isinstance(cell, dict) and cell.get("cell_type") == "code"]
    _check_parameters(entry, cells, shown, report)
    _check_name(entry, cells, shown, report)


def _file(entry: Entry[ProcessingSpec], root: Path, report: Report) -> Path | None:
    declared = entry.spec.notebook or ""
    try:
        file = (root / declared).resolve()
        known = file.is_file()
    except (OSError, ValueError):
        entry.complain(report, ("notebook",), f"'{excerpt(declared)}' is no path of a file")
        return None
    if not file.is_relative_to(root):
        message = f"'{excerpt(declared)}' lies outside the location's package"
        entry.complain(report, ("notebook",), message, f"looked in {root}")
        return None
    if not known:
        near = (
            {str(found.relative_to(root)) for found in file.parent.glob("*.ipynb")} if file.parent.is_dir() else set()
        )
        hints = report.did_you_mean(str(file.relative_to(root)), near)
        message = f"there is no notebook '{excerpt(declared)}'"
        entry.complain(report, ("notebook",), message, f"looked for {report.shown(file)}", *hints)
        return None
    return file


def _content(entry: Entry[ProcessingSpec], file: Path, report: Report) -> dict[str, Any] | None:
    shown = report.shown(file)
    try:
        if file.stat().st_size > MAX_BYTES:
            message = f"{shown} has more than {MAX_BYTES:,} bytes"
            entry.complain(report, ("notebook",), message, "clear its output, which does not belong into git")
            return None
        found = json.loads(file.read_bytes())
    except OSError as error:
        entry.complain(report, ("notebook",), f"{shown} cannot be read: {error.strerror or type(error).__name__}")
        return None
    except (ValueError, RecursionError):
        entry.complain(report, ("notebook",), f"{shown} is no notebook: it is not JSON")
        return None
    if not isinstance(found, dict) or not isinstance(found.get("cells"), list) or found.get("nbformat") != 4:
        message = f"{shown} is no notebook of format 4"
        entry.complain(report, ("notebook",), message, "save it with a current Jupyter")
        return None
    return found


def _check_parameters(entry: Entry[ProcessingSpec], cells: list[dict[str, Any]], shown: str, report: Report) -> None:
    tagged = [cell for cell in cells if PARAMETERS in (_at(cell, "metadata", "tags") or ())]
    if not tagged:
        hint = f"tag the cell that sets them with '{PARAMETERS}', in the cell's properties; it may be empty"
        entry.complain(report, ("notebook",), f"{shown} has no cell tagged '{PARAMETERS}'", hint)
        return
    if len(tagged) > 1:
        message = f"{shown} has {len(tagged)} cells tagged '{PARAMETERS}'; a run replaces the values of one"
        entry.complain(report, ("notebook",), message, "take the tag off the others")
        return
    names = _assigned(_source(tagged[0]))
    if names is None:
        message = f"the cell of {shown} tagged '{PARAMETERS}' is not plain Python"
        entry.complain(report, ("notebook",), message, "it sets values and nothing else: no magics, no shell")
        return
    for name in entry.spec.variables:
        if name not in names:
            hints = report.choice("parameters there", name, sorted(names))
            message = f"variable '{excerpt(name)}' is no parameter of {shown}"
            entry.complain(report, ("variables", name), message, *hints)


def _check_name(entry: Entry[ProcessingSpec], cells: list[dict[str, Any]], shown: str, report: Report) -> None:
    """A notebook that asks for another step would fail in every run, after its kernel has started."""
    for cell in cells:
        for name in _asked_for(_source(cell)):
            if name != str(entry.spec.ref):
                message = f"{shown} asks for step '{excerpt(name)}', and is run as {entry.spec.ref}"
                entry.complain(report, ("notebook",), message, f'write there: {_CALL}("{entry.spec.ref}")')


def _asked_for(source: str) -> list[str]:
    """Names that are written out in calls of ``notebook_step``; none of a cell that is not plain Python."""
    tree = _parsed(source)
    if tree is None:
        return []
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        call.args[0].value
        for call in calls
        if _called(call.func) == _CALL
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    ]


def _called(function: ast.expr) -> str | None:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else None


def _assigned(source: str) -> set[str] | None:
    """Names that a cell sets; None where it is not plain Python."""
    tree = _parsed(source)
    if tree is None:
        return None
    names: set[str] = set()
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.add(statement.target.id)
    return names


def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _source(cell: dict[str, Any]) -> str:
    source = cell.get("source", "")
    return "".join(map(str, source)) if isinstance(source, list) else str(source)


def _at(value: object, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
