"""Write ``docs/reference/faults.md``: which test proves what about which fault.

A test names its faults at the begin of its name (``test_a6_a7_…``), or in a line of its docstring (``FAULTS B7``).
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[1]
PAGE = PROJECT / "docs" / "reference" / "faults.md"
NOT_TESTED = PROJECT / "docs" / "decisions" / "0014-faults-not-tested.md"

FAULTS = {
    "A1": "a load is killed at any moment",
    "A2": "the process of a step is killed",
    "A3": "the process of a run is killed, and a step of it lives on",
    "A4": "code server and run die together",
    "A5": "the daemon dies in the middle of a run",
    "A6": "a disk is full",
    "A7": "a disk returns errors",
    "A8": "a landed file is torn",
    "A9": "a bit of a landed file is flipped",
    "A10": "a landing has files without manifest, or a manifest without files",
    "A11": "a crash between the commit and what follows it",
    "A12": "a batch is applied again, or out of order",
    "A13": "a run is cancelled while it applies a batch",
    "A14": "a large extract in little memory",
    "A15": "control database and lake are restored from different days",
    "A16": "upkeep beside loads and readers",
    "B1": "a source dies in the middle of an extract",
    "B2": "a source suddenly lacks most of its rows",
    "B3": "a column is added at the source",
    "B4": "a column is gone at the source",
    "B5": "a column has another type at the source",
    "B6": "columns have odd or colliding names",
    "B7": "keys are doubled",
    "B8": "keys are null or not a number",
    "B9": "rows come late, or with the cursor value of others",
    "B10": "a transaction of the source commits after it was read past",
    "B11": "clocks, time zones and dates at their limits",
    "B12": "rows are deleted and come back, keys change",
    "B13": "files in odd encodings, ragged or torn",
    "B14": "files are replaced or grow while they are read",
    "B15": "a REST service misbehaves",
    "B16": "numbers at their limits",
    "C1": "two loads of one table at once",
    "C2": "the holder of a lease is paused past its time",
    "C3": "plans and their application at once",
    "C4": "a kill in the middle of an application",
    "C5": "control tables are changed by hand",
    "C6": "migrations are edited, missing, out of order, or run twice at once",
    "C7": "old code meets new tables",
    "C8": "the control database is away",
    "C9": "the control database is busy",
    "C10": "several processes start first on an empty home",
    "C11": "a code location is broken",
    "C12": "a table's declaration is broken",
    "C13": "ten thousand tables",
    "C14": "two dbt builds want one database",
    "C15": "a dbt build fails or is killed halfway",
    "C16": "a schedule finds its previous run active",
    "D1": "a dashboard service asks for patience",
    "D2": "a dashboard is being refreshed already",
    "D3": "whether a refresh was begun is not known",
    "D4": "a refresh never ends, fails, or its token expires",
    "D5": "channels for alerts are away, slow, or refuse",
    "D6": "a thousand failures at once",
    "D7": "the text of an error tries to be more than text",
    "D8": "the secret store is away, refuses, or is slow",
    "E3": "SQL is injected through declarations",
    "E5": "paths leave the folder of a source",
    "E8": "addresses lead into one's own network",
    "E10": "files are bombs",
    "E13": "a workstream names what belongs to another",
    "F1": "personal data on its way through every load and failure",
    "F2": "messages quote row values",
    "F3": "secrets in configurations, logs and command lines",
    "F4": "the vault is stolen, cut short, rolled back, or written by two at once",
    "F5": "somebody wants to read a stored secret",
    "F6": "a secret is rotated while loads run",
    "F7": "masked values are guessed",
    "F8": "masked values are joined",
    "F9": "one value is written in different ways",
    "F10": "null, empty and placeholder values are masked",
    "F11": "a masking key is rotated",
    "F12": "short values are masked in part",
    "F13": "a mask is removed or weakened",
    "F14": "personal data in statistics, names and nested values",
}

REQUIRED = (
    *(f"A{number}" for number in range(1, 17)),
    *(f"B{number}" for number in range(1, 17)),
    *("C1", "C2", "C12", "C13", "C14", "C15", "C16", "E5", "E8", "F1", "F2"),
    *(f"D{number}" for number in range(1, 8)),
    *(f"F{number}" for number in range(7, 15)),
)

_IN_NAME = re.compile(r"^test((?:_[a-h][0-9]{1,2})+)_")
_IN_DOCSTRING = re.compile(r"FAULTS ((?:[A-H][0-9]{1,2}(?:, | and )?)+)")
_IN_RECORD = re.compile(r"^- \*\*([A-H][0-9]{1,2})\*\*", re.MULTILINE)
_ID = re.compile(r"[A-Ha-h][0-9]{1,2}")


def proofs() -> dict[str, dict[str, list[str]]]:
    """Names of tests, by fault and by file."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(PROJECT.glob("tests/**/test_*.py")):
        for name, faults in _tests(path):
            for fault in faults:
                found[fault][path.relative_to(PROJECT).as_posix()].append(name)
    return found


def not_tested() -> set[str]:
    """Faults of which the record says why there is no test, or that only a part has one."""
    return set(_IN_RECORD.findall(NOT_TESTED.read_text()))


def page() -> str:
    """The page as it has to be."""
    found, excused = proofs(), not_tested()
    unknown = sorted((set(found) | excused) - set(FAULTS))
    if unknown:
        raise SystemExit(f"faults without a description in {Path(__file__).name}: {', '.join(unknown)}")
    lines = [
        "# Faults and their tests",
        "",
        "Written by `python scripts/faults_table.py` from the names of the tests. What has no test, or one of a part "
        f"only, is explained in [the record](../decisions/{NOT_TESTED.name}).",
        "",
        "| | fault | tests |",
        "|---|---|---|",
    ]
    for fault, description in FAULTS.items():
        files = [f"`{file}`: {_shortened(names)}" for file, names in found.get(fault, {}).items()]
        if fault in excused:
            files.append(f"[see the record](../decisions/{NOT_TESTED.name})")
        if files:
            lines.append(f"| {fault} | {description} | {'<br>'.join(files)} |")
    return "\n".join([*lines, ""])


def _shortened(names: list[str]) -> str:
    said = [_IN_NAME.sub("", name).removeprefix("test_").replace("_", " ") for name in names]
    more = f" and {len(said) - 3} more" if len(said) > 4 else ""
    return "; ".join(said[:3] if more else said) + more


def _tests(path: Path) -> Iterator[tuple[str, list[str]]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        faults = {fault.upper() for fault in _ID.findall(match[1])} if (match := _IN_NAME.match(node.name)) else set()
        for said in _IN_DOCSTRING.findall(ast.get_docstring(node) or ""):
            faults |= set(_ID.findall(said))
        if faults:
            yield node.name, sorted(faults)


if __name__ == "__main__":
    written = page()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.exists() and PAGE.read_text() == written else 1)
    PAGE.write_text(written)
