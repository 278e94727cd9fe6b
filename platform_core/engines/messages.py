"""Say what DuckDB refused without repeating a row value.

DuckDB puts the offending value into the text of many errors. While it reads a query it has seen no row yet, so what
it says then names columns, tables and types only. What it says while rows flow is replaced by the kind of error and
the line of the query.
"""

from __future__ import annotations

import re

_LINE = re.compile(r"^LINE (\d+):", re.MULTILINE)
_KIND = re.compile(r"(?:[\w.]*\n)?([A-Z][A-Za-z]*(?: [A-Za-z]+){0,3} Error|INTERNAL Error): ")
_READING = ("Binder Error", "Catalog Error", "Parser Error", "Syntax Error")
_PIVOT = re.compile(r"\bpivot\b", re.IGNORECASE)
"""Makes columns whose names are row values."""

_LISTS = ("Candidate functions:", "Candidate bindings:")
"""Behind these words stands what DuckDB knows: every type of a function, or columns of the query."""

_ADVICE = {
    "Conversion Error": "a value does not fit the type it is cast to; try_cast gives null instead",
    "Out of Range Error": "a value does not fit the type it is cast to; try_cast gives null instead",
    "Out of Memory Error": "raise the engine's memory_limit, or let the query keep fewer rows at a time",
    "Permission Error": "a query reads the tables it names and nothing else",
    "Invalid Input Error": "a function was given something it cannot take",
    "INTERRUPT Error": "the run was cancelled",
    "Constraint Error": "a value breaks a constraint of the table",
}
_CONDITION = re.compile(r"\[([A-Z][A-Z0-9_]+(?:\.[A-Z0-9_]+)*)\] ")
"""What Spark and Databricks begin an error with; SQLSTATE stands at its end."""

_JAVA = re.compile(r"\b(?:java|scala|org\.apache|io\.delta|py4j)\.[\w.$]+")
_SPARK_LEFT_OUT = "Spark's own text is left out, for it may hold row values"
_LEFT_OUT = "DuckDB's own text is left out, for it may hold row values"


def reading_message(error: Exception, sql: str) -> str:
    """What DuckDB said about a query that it has read but not run, without the values of literals it tried to cast."""
    if _kind(str(error)) not in _READING or _PIVOT.search(sql):
        return running_message(error, sql)
    text = str(error).partition(_LISTS[0])[0]
    return "\n  ".join(line.strip() for line in text.strip().splitlines() if line.strip())


def running_message(error: BaseException, sql: str) -> str:
    """What went wrong while a query ran: the kind of error and the line of the query, no word of DuckDB's own."""
    kind = _kind(str(error)) or type(error).__name__
    lines = [f"{kind} while the query ran"]
    if (quoted := _quoted_line(str(error), sql)) is not None:
        lines.append(quoted)
    if kind in _ADVICE:
        lines.append(_ADVICE[kind])
    return "\n  ".join([*lines, _LEFT_OUT])


def clean_text(text: str) -> str:
    """A message of dbt, which may quote DuckDB or Spark, free of row values.

    Lines up to the database's own error are kept, and that error where it was found while reading the query.
    """
    kept = []
    lines = text.strip().splitlines()
    for number, line in enumerate(lines):
        kind = _kind(line.strip())
        if kind is not None and kind not in _READING:
            # Whatever follows belongs to the same message and may go on quoting values.
            kept += [f"{kind}: {_ADVICE.get(kind, 'a value was refused')}", _LEFT_OUT]
            break
        if line.strip().startswith(_LISTS):
            # Columns of a pivot are named by row values, and here nobody knows the query.
            break
        if (condition := _CONDITION.search(line)) is not None:
            # Class 42 is about the query itself. Behind it stands the plan, with whatever literals it has.
            about, state, _ = "\n".join(lines[number:]).partition(" SQLSTATE: 42")
            read = state and "SQLSTATE" not in about
            kept += [each.strip() for each in about.splitlines()] if read else [f"{condition[1]}: {_SPARK_LEFT_OUT}"]
            break
        if _JAVA.search(line):
            kept.append(_SPARK_LEFT_OUT)
            break
        kept.append(line.strip())
    return "\n  ".join(line for line in kept if line)


def _kind(text: str) -> str | None:
    found = _KIND.match(text)
    return found[1] if found else None


def _quoted_line(text: str, sql: str) -> str | None:
    # The number only: the text beside it is looked up in the query itself.
    numbers = [int(number) for number in _LINE.findall(text)]
    lines = sql.splitlines()
    if not numbers or not 0 < numbers[-1] <= len(lines):
        return None
    return f"line {numbers[-1]}: {lines[numbers[-1] - 1].strip()}"
