"""Reads the migrations of a location: ``ddl/<workstream>/NNNN_name.sql``, each parsed into its statements."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from platform_core.control.numbered_files import NAME, check_numbers, read_text
from platform_core.control.report import Report, excerpt
from platform_core.specs.base import is_name
from platform_core.specs.ddl import LAKE, STATEMENTS_PER_MIGRATION, Stamp

if TYPE_CHECKING:
    from sqlglot import exp

DDL_FOLDER = "ddl"
DIALECTS = {LAKE: "duckdb"}
SERVING_DIALECT = "postgres"

_TARGET = re.compile(r"--\s*target:\s*(?P<target>\S.*?)\s*")
_SIMILAR = re.compile(r"--\s*targets?\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One statement of a migration.

    Args:
        position: within its migration, counted from 1.
        sql: as it is written, without the semicolon.
        line: of its first word, counted from 1.
        node: parsed.
    """

    position: int
    sql: str
    line: int
    node: exp.Expression = field(compare=False, repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One file of changes, in the order in which they are made.

    Args:
        location: name of the code location.
        number: within its workstream, counted from 1.
        name: of the file, without its ending.
        file: absolute path.
        shown: path as a person reads it.
        target: ``lake``, or the name of a database of the environment.
        checksum: SHA-256 (hex) of the text; line ends do not count.
    """

    location: str
    workstream: str
    number: int
    name: str
    file: Path
    shown: Path
    target: str
    checksum: str
    statements: tuple[Statement, ...]

    def __str__(self) -> str:
        return f"{self.workstream}/{self.name}"

    def stamp(self, statement: Statement) -> Stamp:
        """What the statement's change carries."""
        return Stamp(
            workstream=self.workstream, number=self.number, statement=statement.position, digest=statement.digest
        )


def read_migrations(root: Path, *, location: str, workstreams: Sequence[str], report: Report) -> list[Migration]:
    """All migrations of a location, by workstream and number.

    Args:
        root: folder of the location's package; without a folder ``ddl`` there are none.
        workstreams: names that the location declares.
        report: takes what is wrong with files and numbers.
    """
    folder = root / DDL_FOLDER
    if not folder.is_dir():
        return []
    found: list[Migration] = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith((".", "_")):
            continue
        if not entry.is_dir():
            report.add(
                entry, 0, "a migration lies in the folder of its workstream", f"move it to ddl/{_any(workstreams)}/"
            )
        elif entry.name not in workstreams:
            hints = report.choice("workstreams of the location", entry.name, workstreams)
            report.add(entry, 0, f"'{excerpt(entry.name)}' is no workstream of location '{location}'", *hints)
        else:
            of_one = list(_of_workstream(entry, location, report))
            check_numbers(of_one, report, noun="migration")
            found += of_one
    return found


def _any(workstreams: Sequence[str]) -> str:
    return workstreams[0] if len(workstreams) == 1 else "<workstream>"


def _of_workstream(folder: Path, location: str, report: Report) -> Iterator[Migration]:
    for file in sorted(folder.iterdir()):
        if file.name.startswith("."):
            continue
        match = NAME.fullmatch(file.name)
        if match is None or not file.is_file():
            report.add(
                file, 0, "is no migration", "name it with four digits and words: 0001_create_stations.sql, counted on"
            )
            continue
        text = read_text(file, report)
        if text is None:
            continue
        target = _target(file, text, report)
        statements = _statements(file, text, target, report) if target else None
        if target is None or statements is None:
            continue
        yield Migration(
            location=location,
            workstream=folder.name,
            number=int(match["number"]),
            name=file.stem,
            file=file,
            shown=report.shown(file),
            target=target,
            checksum=hashlib.sha256(text.encode()).hexdigest(),
            statements=statements,
        )


def _target(file: Path, text: str, report: Report) -> str | None:
    """The target that the first line names; the lake where it names none."""
    first = text.partition("\n")[0].strip()
    if match := _TARGET.fullmatch(first):
        if is_name(match["target"]):
            return match["target"]
        report.add(file, 1, f"target '{excerpt(match['target'])}' is no name", "write -- target: <name of a database>")
        return None
    for number, line in enumerate(text.splitlines(), start=1):
        if _SIMILAR.match(line.strip()):
            report.add(file, number, "a target is named in the first line, such as: -- target: serving")
            return None
    return LAKE


def dialect_of(target: str) -> str:
    """The dialect in which migrations of a target are written."""
    return DIALECTS.get(target, SERVING_DIALECT)


def _statements(file: Path, text: str, target: str, report: Report) -> tuple[Statement, ...] | None:
    from platform_core.control.ddl_parsing import SqlFault, split

    try:
        parts = split(text, dialect=dialect_of(target))
    except SqlFault as fault:
        report.add(file, fault.line, fault.message)
        return None
    if not parts:
        report.add(file, 0, "holds no statement", "write one, or remove the file if it was never applied")
        return None
    if len(parts) >= STATEMENTS_PER_MIGRATION:
        report.add(file, 0, f"holds {len(parts):,} statements", "spread them over several migrations")
        return None
    return tuple(
        Statement(position=position, sql=part.sql, line=part.line, node=part.node)
        for position, part in enumerate(parts, start=1)
    )
