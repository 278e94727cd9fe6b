"""Checks what processing steps run: the query of a SQL step, the function of a Python or Spark step, a notebook."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from platform_core.control.documents import MAX_BYTES
from platform_core.control.modules import defined_names, find_module
from platform_core.control.notebooks import check_notebook
from platform_core.control.reading import Entry, Reading, with_spec
from platform_core.control.report import Report, excerpt
from platform_core.specs.processing import EXTERNAL_LAYER, WINDOW_VARIABLES, ProcessingSpec, WriteMode
from platform_core.specs.table import TableRef


def check_steps(reading: Reading, report: Report) -> None:
    """Check every step; a SQL step that declares no tables gets those of its query."""
    root = reading.root.resolve()
    functions = _Functions(root, report)
    looked_at = {entry.spec.ref for entry in reading.steps if entry.spec.source is not None}
    for index, entry in enumerate(reading.steps):
        if entry.spec.sql is not None:
            reading.steps[index] = _sql_step(entry, root, report, looked_at=looked_at)
        elif entry.spec.function is not None:
            functions.check(entry, entry.spec.function)
        elif entry.spec.notebook is not None:
            check_notebook(entry, root, report)


def _sql_step(
    entry: Entry[ProcessingSpec], root: Path, report: Report, *, looked_at: Set[TableRef]
) -> Entry[ProcessingSpec]:
    # Locations without SQL steps need no SQL parser.
    from platform_core.specs.sql import SqlError, references

    spec = entry.spec
    file = _query_file(entry, root, report)
    text = _query_text(file, report) if file else None
    if file is None or text is None:
        return entry
    try:
        tables, names = references(text, workstream=spec.workstream)
    except SqlError as error:
        report.add(file, error.line, error.message, f"it is the query of {spec.ref}")
        return entry
    except RecursionError:
        report.add(file, 0, "is nested too deeply", f"it is the query of {spec.ref}")
        return entry
    _check_variables(entry, file, names, report)
    for table in tables:
        if table in looked_at:
            message = f"the query reads '{_written(table, spec.workstream)}', which is looked at only"
            entry.complain(report, ("sql",), message, f"see {report.shown(file)}", "ingest it, and read that table")
    # What another system owns can be waited for without being read.
    waited_for = tuple(ref for ref in spec.inputs if ref.layer == EXTERNAL_LAYER and ref not in tables)
    if len(waited_for) == len(spec.depends_on):
        needed = dict.fromkeys((*tables, *waited_for))
        return with_spec(entry, depends_on=tuple(_written(table, spec.workstream) for table in needed))
    _compare(entry, file, (*tables, *waited_for), report)
    return entry


def _query_file(entry: Entry[ProcessingSpec], root: Path, report: Report) -> Path | None:
    declared = entry.spec.sql or ""
    try:
        file = (root / declared).resolve()
        known = file.is_file()
    except (OSError, ValueError):
        entry.complain(report, ("sql",), f"'{excerpt(declared)}' is no path of a file")
        return None
    if not file.is_relative_to(root):
        entry.complain(
            report, ("sql",), f"'{excerpt(declared)}' lies outside the location's package", f"looked in {root}"
        )
        return None
    if not known:
        looked = f"looked for {report.shown(file)}"
        entry.complain(
            report, ("sql",), f"there is no file '{excerpt(declared)}'", looked, *_similar(file, root, report)
        )
        return None
    return file


def _similar(file: Path, root: Path, report: Report) -> tuple[str, ...]:
    folder = file.parent
    if not folder.is_dir():
        return ()
    names = {str(found.relative_to(root)) for found in folder.glob("*.sql")}
    return report.did_you_mean(str(file.relative_to(root)), names)


def _query_text(file: Path, report: Report) -> str | None:
    try:
        if file.stat().st_size > MAX_BYTES:
            report.add(file, 0, f"has more than {MAX_BYTES:,} bytes")
            return None
        return file.read_text(encoding="utf-8")
    except OSError as error:
        report.add(file, 0, f"cannot be read: {error.strerror or type(error).__name__}")
    except UnicodeDecodeError:
        report.add(file, 0, "is not UTF-8 text", "save the file as UTF-8")
    return None


def _check_variables(entry: Entry[ProcessingSpec], file: Path, names: tuple[str, ...], report: Report) -> None:
    declared = entry.spec.variables
    for name in names:
        if name in WINDOW_VARIABLES:
            _check_window(entry, file, name, report)
        elif name not in declared:
            hints = report.did_you_mean(name, declared) or (f"declare it: variables: {{{name}: …}}",)
            used = f"{report.shown(file)} uses ${name}"
            entry.complain(report, ("variables",), f"variable '{excerpt(name)}' is not declared", used, *hints)
    for name in declared:
        if name not in names:
            message = f"variable '{excerpt(name)}' is not used by the query"
            entry.complain(report, ("variables", name), message, f"looked for ${excerpt(name)} in {report.shown(file)}")


def _check_window(entry: Entry[ProcessingSpec], file: Path, name: str, report: Report) -> None:
    write = entry.spec.write
    if write in (WriteMode.PARTITION, WriteMode.MERGE):
        return
    harm = "add rows that are there already" if write is WriteMode.APPEND else "keep only the rows of its range"
    message = f"a backfill would {harm}: the query uses ${name}, and the step has write: {write}"
    entry.complain(report, ("write",), message, f"see {report.shown(file)}", "declare write: partition or merge")


def _compare(entry: Entry[ProcessingSpec], file: Path, tables: tuple[TableRef, ...], report: Report) -> None:
    declared = entry.spec.inputs
    shown = report.shown(file)
    for table in tables:
        if table not in declared:
            written = _written(table, entry.spec.workstream)
            message = f"the query reads '{written}', which depends_on does not list"
            entry.complain(report, ("depends_on",), message, f"see {shown}", "add it, or leave depends_on out")
    for index, table in enumerate(declared):
        if table not in tables:
            message = f"depends_on lists '{entry.spec.depends_on[index]}', which the query does not read"
            entry.complain(report, ("depends_on", index), message, f"see {shown}", "remove it, or leave depends_on out")


class _Functions:
    """Looks into each module once, however many steps run its functions."""

    def __init__(self, root: Path, report: Report) -> None:
        self.root = root
        self.report = report
        self._files: dict[str, Path | None] = {}
        self._names: dict[Path, dict[str, str] | None] = {}

    def check(self, entry: Entry[ProcessingSpec], declared: str) -> None:
        """Check that a step's function exists, without importing its module."""
        module, separator, name = declared.partition(":")
        if not separator or not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
            message = f"function '{excerpt(declared)}' must be written package.module:function"
            entry.complain(self.report, ("function",), message)
            return
        if module not in self._files:
            self._files[module] = find_module(module, folders=(self.root.parent,))
        file = self._files[module]
        if file is None:
            looked = f"looked in {self.report.shown(self.root.parent)} and in the installed packages"
            entry.complain(self.report, ("function",), f"there is no module '{excerpt(module)}'", looked)
            return
        if file not in self._names:
            self._names[file] = self._read(file, entry)
        names = self._names[file]
        if names is None:
            return
        if names.get(name) in ("function", "name"):
            return
        shown = self.report.shown(file)
        if name not in names:
            functions = [known for known, kind in names.items() if kind == "function"]
            hints = self.report.choice("functions there", name, functions)
            entry.complain(self.report, ("function",), f"there is no function '{excerpt(name)}' in {shown}", *hints)
        else:
            what = "an async function" if names[name] == "async" else "a class"
            entry.complain(self.report, ("function",), f"'{name}' in {shown} is {what}; a step runs a plain function")

    def _read(self, file: Path, entry: Entry[ProcessingSpec]) -> dict[str, str] | None:
        try:
            return defined_names(file)
        except SyntaxError as error:
            self.report.add(file, error.lineno or 0, f"is not valid Python: {error.msg}", f"{entry.spec.ref} runs it")
        except OSError as error:
            self.report.add(file, 0, f"cannot be read: {error.strerror or error}", f"{entry.spec.ref} runs it")
        return None


def _written(table: TableRef, workstream: str) -> str:
    return f"{table.layer}.{table.name}" if table.workstream == workstream else str(table)
