"""Numbered SQL files, as migrations and reviewed changes are: their names, their text, and how memory fits them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from platform_core.control.documents import MAX_BYTES
from platform_core.control.report import Report

NAME = re.compile(r"(?P<number>[0-9]{4})_(?P<name>[a-z0-9_]+)\.sql")
"""How such a file is named."""


class Numbered(Protocol):
    """A file with a number; files of one folder are applied in their order."""

    @property
    def number(self) -> int:
        """Counted from 1."""

    @property
    def file(self) -> Path:
        """Absolute path."""


def read_text(file: Path, report: Report) -> str | None:
    """The text of a file, whatever its line ends; None where it cannot be read, which goes to the report."""
    try:
        if file.stat().st_size > MAX_BYTES:
            report.add(file, 0, f"has more than {MAX_BYTES:,} bytes")
            return None
        # A checkout may give a file other line ends, and editors a mark at its beginning.
        return file.read_text(encoding="utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        report.add(file, 0, f"cannot be read: {error.strerror or type(error).__name__}")
    except UnicodeDecodeError:
        report.add(file, 0, "is not UTF-8 text", "save the file as UTF-8")
    return None


def check_numbers(files: Sequence[Numbered], report: Report, *, noun: str) -> None:
    """Numbers count on from 0001, each once: their order is the order in which the changes are made.

    Args:
        files: of one folder, in order of their names.
        noun: what a person calls one of them.
    """
    expected = 1
    for each, before in zip(files, [None, *files], strict=False):
        if before is not None and each.number == before.number:
            report.add(
                each.file,
                0,
                f"number {each.number:04d} is taken by {before.file.name}",
                f"give the one that was applied nowhere yet the next free number, {files[-1].number + 1:04d}",
            )
            continue
        if each.number != expected:
            report.add(
                each.file,
                0,
                f"number {each.number:04d} follows {expected - 1:04d}: there is no {noun} {expected:04d}",
                f"restore {expected:04d} from git if it was applied; else rename this file to {expected:04d}_…",
            )
        expected = each.number + 1


def report_missing(
    file: Path, number: int, report: Report, *, noun: str, applied: str, text_now_in: Path | None = None
) -> None:
    """A file that is remembered is not there.

    Args:
        file: where it should be.
        applied: that, where and when it was applied.
        text_now_in: another file that has its text.
    """
    moved = (f"its text is now in {text_now_in.name}: give that file its old name back",) if text_now_in else ()
    report.add(file, 0, f"the file of {noun} {number:04d} is missing", applied, *moved, "restore the file from git")


def report_late(file: Path, number: int, report: Report, *, noun: str, later: int, applied: str) -> None:
    """A file was not applied, but a later one was."""
    report.add(
        file,
        0,
        f"{noun} {number:04d} was not applied, but the later {later:04d} was",
        applied,
        "give this file the next free number; a number in the middle would make environments differ",
    )


def report_edited(file: Path, number: int, report: Report, *, noun: str, applied: str, line: int = 0) -> None:
    """The text of a file is not the one that was applied."""
    report.add(
        file,
        line,
        f"{noun} {number:04d} was edited after it had been applied",
        applied,
        f"put its text back (git log shows it), and make the change in a new {noun}",
    )


def report_renamed(file: Path, number: int, report: Report, *, noun: str, applied: str, before: str) -> None:
    """A file had another name when it was applied."""
    report.add(
        file,
        0,
        f"{noun} {number:04d} had another name when it was applied: {before}.sql",
        applied,
        "give the file its old name back",
    )
