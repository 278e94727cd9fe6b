"""Finds the control files of a location and tells the kind of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from platform_core.control.report import Report
from platform_core.control.shapes import KIND_NAMES

_ENDING = ".yaml"
_LOOKALIKES = (".yaml", ".yml")
_MAX_FILES = 20_000


def control_files(control: Path, report: Report) -> list[tuple[str, Path]]:
    """Kind and path of every control file, in order of name.

    ``<kind>.yaml`` and every ``.yaml`` below ``<kind>/`` count; any other YAML file is an issue, because a file
    that nobody reads looks as if it were read.

    Args:
        control: absolute path of the folder.
        report: takes the issues.
    """
    if not control.is_dir():
        siblings = [entry.name for entry in _entries(control.parent, report)] if control.parent.is_dir() else []
        report.add(control, 0, "there is no such folder", *report.did_you_mean(control.name, siblings))
        return []
    found = []
    for file in _yaml_files(control, report):
        parts = file.relative_to(control).parts
        kind = parts[0] if len(parts) > 1 else file.stem
        if kind not in KIND_NAMES:
            what = "folder" if len(parts) > 1 else "control file"
            report.add(
                file, 0, f"unknown {what} '{parts[0]}'", _kinds_hint(report), *report.did_you_mean(kind, KIND_NAMES)
            )
        elif file.suffix != _ENDING:
            report.add(file, 0, "a control file ends in .yaml", f"rename it to {file.stem}{_ENDING}")
        else:
            found.append((kind, file))
    if len(found) > _MAX_FILES:
        report.add(control, 0, f"holds more than {_MAX_FILES:,} control files")
        return []
    return found


def _kinds_hint(report: Report) -> str:
    return report.known("kinds", KIND_NAMES) + " (each <kind>.yaml, or any .yaml file below <kind>/)"


def _yaml_files(folder: Path, report: Report) -> Iterator[Path]:
    """Every file below a folder with the ending of YAML, hidden ones left out; links to folders are not followed."""
    waiting, found = [folder], []
    while waiting:
        for entry in _entries(waiting.pop(), report):
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            elif entry.name.lower().endswith(_LOOKALIKES):
                found.append(Path(entry.path))
    yield from sorted(found)


def _entries(folder: Path, report: Report) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        report.add(folder, 0, f"cannot be read: {error.strerror or type(error).__name__}")
        return []
