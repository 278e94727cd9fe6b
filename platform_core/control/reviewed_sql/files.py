"""Reads the reviewed SQL changes of an environment: ``control_sql/<environment>/NNNN_description.sql``."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from platform_core.control.ddl_parsing import SqlFault, split
from platform_core.control.documents import hidden_character
from platform_core.control.environment import environment_names
from platform_core.control.numbered_files import NAME, check_numbers, read_text
from platform_core.control.report import Report, excerpt
from platform_core.control.reviewed_sql.guard import Checked, checked
from platform_core.settings import Settings
from platform_core.specs.base import Owner

FOLDER = "control_sql"
NOUN = "change"
LONGEST_LIFE = dt.timedelta(days=366)
"""An override that is wanted for longer belongs into git."""

_MOST_STATEMENTS = 100
_KEYS = ("owner", "expires", "reason")
_HEADER = re.compile(r"--\s*(?P<key>[A-Za-z][A-Za-z_-]*)\s*:\s*(?P<value>.*?)\s*")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LONGEST_REASON = 500


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One statement of a change.

    Args:
        line: of its first word, counted from 1.
        checked: what it does, and how it is run.
    """

    line: int
    checked: Checked


@dataclass(frozen=True, kw_only=True)
class SqlChange:
    """One file, checked.

    Args:
        name: of the file, without its ending.
        file: absolute path.
        shown: path as a person reads it.
        checksum: SHA-256 (hex) of the text; line ends do not count.
        owner: who answers for it.
        expires: last day, UTC, on which what it sets holds against git.
        expires_line: where that is written.
    """

    number: int
    name: str
    file: Path
    shown: Path
    checksum: str
    owner: str
    expires: dt.date
    expires_line: int
    reason: str
    statements: tuple[Statement, ...]

    def __str__(self) -> str:
        return self.name


def read_changes(settings: Settings, *, dialect: str, report: Report) -> list[SqlChange]:
    """All changes of the settings' environment, by number; without a folder there are none.

    Args:
        dialect: of the environment's control database: ``sqlite`` or ``postgres``.
        report: takes what is wrong with files, numbers, headers and statements.
    """
    root = settings.project / FOLDER
    if not root.is_dir():
        return []
    _check_folders(root, environment_names(settings), report)
    folder = root / settings.environment
    found = list(_of_environment(folder, dialect, report)) if folder.is_dir() else []
    check_numbers(found, report, noun=NOUN)
    return found


def _check_folders(root: Path, environments: Sequence[str], report: Report) -> None:
    """A file or folder that nobody looks at looks as if it were applied."""
    for entry in sorted(root.iterdir()):
        if entry.name.startswith((".", "_")) or entry.suffix == ".md":
            continue
        if not entry.is_dir():
            report.add(entry, 0, "a change lies in the folder of its environment", f"such as {FOLDER}/dev/")
        elif entry.name not in environments:
            hints = report.choice("environments", entry.name, environments)
            report.add(entry, 0, f"'{excerpt(entry.name)}' is no environment", *hints)


def _of_environment(folder: Path, dialect: str, report: Report) -> Iterator[SqlChange]:
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or file.suffix == ".md":
            continue
        match = NAME.fullmatch(file.name)
        if match is None or not file.is_file():
            hint = "name it with four digits and words: 0001_pause_orders.sql, counted on"
            report.add(file, 0, f"is no {NOUN}", hint)
            continue
        if (text := read_text(file, report)) is None or not _check_characters(file, text, report):
            continue
        header = _Header(file, text, report)
        statements = _statements(file, text, dialect, report)
        if not header.is_whole or statements is None:
            continue
        yield SqlChange(
            number=int(match["number"]),
            name=file.stem,
            file=file,
            shown=report.shown(file),
            checksum=hashlib.sha256(text.encode()).hexdigest(),
            owner=header.values["owner"],
            expires=dt.date.fromisoformat(header.values["expires"]),
            expires_line=header.lines["expires"],
            reason=header.values["reason"],
            statements=statements,
        )


def _check_characters(file: Path, text: str, report: Report) -> bool:
    """What a reviewer does not see could make a statement read otherwise than it runs."""
    clean = True
    for number, line in enumerate(text.split("\n"), start=1):
        if found := hidden_character(line.replace("\t", " ")):
            report.add(file, number, f"holds the invisible character U+{ord(found):04X}", "remove it")
            clean = False
    return clean


class _Header:
    """The comments at the top of a file that say who wants it, until when, and why."""

    def __init__(self, file: Path, text: str, report: Report) -> None:
        self.values: dict[str, str] = {}
        self.lines: dict[str, int] = {}
        self._file = file
        self._report = report
        self._faults = 0
        for number, line in enumerate(text.split("\n"), start=1):
            written = line.strip()
            if written and not written.startswith("--"):
                break
            if match := _HEADER.fullmatch(written):
                self._take(match["key"].lower(), match["value"], number)
        for key in _KEYS:
            if key not in self.lines:
                self._refuse(1, f"'{key}' is missing", f"say at the top of the file: {_EXAMPLES[key]}")
        self.is_whole = self._faults == 0

    def _take(self, key: str, value: str, line: int) -> None:
        if key not in _KEYS:
            close = self._report.did_you_mean(key, _KEYS)
            if close:
                self._refuse(line, f"unknown key '{excerpt(key)}'", *close)
            return
        if key in self.lines:
            self._refuse(line, f"'{key}' stands twice", f"it stands on line {self.lines[key]} too")
            return
        self.lines[key], self.values[key] = line, value
        if key == "owner" and not _is_owner(value):
            self._refuse(line, "'owner' must be an e-mail address, or team:<name>", f"such as: {_EXAMPLES[key]}")
        elif key == "expires" and not _is_date(value):
            self._refuse(line, "'expires' must be a day of the calendar", f"such as: {_EXAMPLES[key]}")
        elif key == "reason" and not 0 < len(value) <= _LONGEST_REASON:
            self._refuse(line, f"'reason' must be 1 to {_LONGEST_REASON} characters", f"such as: {_EXAMPLES[key]}")

    def _refuse(self, line: int, message: str, *hints: str) -> None:
        self._faults += 1
        self._report.add(self._file, line, message, *hints)


_EXAMPLES = {
    "owner": "-- owner: team:crm",
    "expires": "-- expires: 2026-12-31",
    "reason": "-- reason: the source is down until Monday, ticket 812",
}


def _is_owner(text: str) -> bool:
    try:
        TypeAdapter(Owner).validate_python(text)
    except ValidationError:
        return False
    return True


def _is_date(text: str) -> bool:
    try:
        return bool(_DATE.fullmatch(text)) and dt.date.fromisoformat(text) is not None
    except ValueError:
        return False


def _statements(file: Path, text: str, dialect: str, report: Report) -> tuple[Statement, ...] | None:
    try:
        parts = split(text, dialect=dialect)
    except SqlFault as fault:
        report.add(file, fault.line, fault.message)
        return None
    if not parts:
        report.add(file, 0, "holds no statement", "write one, or remove the file if it was never applied")
        return None
    if len(parts) > _MOST_STATEMENTS:
        hint = "one UPDATE changes many rows; else spread them over several files"
        report.add(file, 0, f"holds {len(parts):,} statements; at most {_MOST_STATEMENTS} are run", hint)
        return None
    found = []
    for part in parts:
        try:
            statement = Statement(line=part.line, checked=checked(part.node, dialect=dialect))
        except SqlFault as fault:
            report.add(file, part.line, fault.message, *fault.hints)
            continue
        found.append(statement)
    return tuple(found) if len(found) == len(parts) else None
