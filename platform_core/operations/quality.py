"""Evaluate what is expected of a table over its current rows: counts of rows, and never a value of one."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from sqlglot import exp

from platform_core.errors import StepError
from platform_core.lake.delta import DeltaTableReader, file_sizes, open_table, write
from platform_core.lake.views import ViewReader
from platform_core.operations import quality_sql
from platform_core.operations.inputs import open_inputs
from platform_core.operations.platform import Platform
from platform_core.operations.quality_counts import moved, read_counts, write_counts
from platform_core.operations.quality_result import ExpectationResult, QualityResult
from platform_core.operations.quality_sql import Misfit, Planned, columns_read, text_of
from platform_core.operations.some_columns import narrowed
from platform_core.specs.expectation import ExpectationKind, ExpectationSpec, RowCountChange, quarantined
from platform_core.specs.expectation_tables import read_by, target_table
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.processing import ProcessingSpec, WriteMode
from platform_core.specs.sql import SqlError, qualified, referenced_tables
from platform_core.specs.table import TableRef

__all__ = ["Checked", "ExpectationResult", "QualityResult", "evaluate"]

Checked = IngestionSpec | ProcessingSpec
"""What declares expectations of the table that it makes."""


def evaluate(
    spec: Checked,
    *,
    platform: Platform,
    only: Collection[str] | None = None,
    keep: bool = True,
    accept: bool = False,
) -> QualityResult:
    """Evaluate the expectations of a table as it is now.

    All that concern single rows, counts and freshness are one query over one scan of the columns that they name; each
    ``unique``, ``references`` and SELECT is one of its own. What cannot be evaluated is not met, and says why.

    Args:
        spec: what declares them.
        only: names of the checks to evaluate; None: all.
        keep: write failing rows to the side table, and remember row counts that are accepted.
        accept: remember the row counts whatever they were before.

    Raises:
        StepError: the table is not there, or the run was cancelled.
        StorageError: the lake refused.
    """
    clock = time.monotonic()
    chosen = [each for each in spec.expectations if only is None or each.check in only]
    evaluation = _Evaluation(spec, chosen, platform=platform)
    results = tuple(evaluation.results(accept=accept))
    copied = evaluation.set_aside() if keep and any(each.quarantine for each in chosen) else None
    if accept or (keep and all(each.passed or not each.blocking for each in results)):
        evaluation.remember(results)
    return QualityResult(
        table=spec.ref,
        version=evaluation.own.version,
        results=results,
        queries=evaluation.queries,
        quarantined=copied,
        seconds=time.monotonic() - clock,
    )


Fault = str
"""Why an expectation could not be evaluated."""


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """Counts of one expectation."""

    checked: int
    failing: int | None = None
    fresh: bool | None = None


class _Evaluation:
    """One look at one table, all versions of tables as of its beginning."""

    def __init__(self, spec: Checked, chosen: Sequence[ExpectationSpec], *, platform: Platform) -> None:
        self.platform = platform
        self.table = spec.ref
        self.queries = 0
        self._chosen = chosen
        self._declared = spec.expectations
        self._now = dt.datetime.now(dt.UTC)
        self._readers = self._open()
        self.own = self._readers[self.table]
        self._schema = self.own.schema
        self._counts = (
            read_counts(self.table, self.platform.lake) if any(each.row_count_change for each in chosen) else {}
        )

    def results(self, *, accept: bool) -> Iterator[ExpectationResult]:
        """The result of each expectation, in declared order."""
        planned = {each.check: self._plan(number, each) for number, each in enumerate(self._chosen)}
        measured = self._measure(planned)
        for each in self._chosen:
            found = measured[each.check]
            if isinstance(found, Fault):
                yield self._result(each, passed=False, message=found)
            else:
                yield self._judged(each, found, accept=accept)

    def set_aside(self) -> int | None:
        """Make the side table hold the rows that fail now; None where there are none and there never was one."""
        asked = [each for each in self._declared if each.quarantine]
        planned = [plan for number, each in enumerate(asked) if isinstance(plan := self._plan(number, each), Planned)]
        lake, side = self.platform.lake, quarantined(self.table)
        uri = lake.table(side)
        if not planned:
            return None
        targets = {ref: reader.schema for ref, reader in self._readers.items()}
        rows = self._select(
            quality_sql.failing_rows(planned, table=self.table, schema=self._schema, targets=targets),
            [value for plan in planned for value in plan.values.items()],
            whole=True,
        )
        first = next((batch for batch in rows if batch.num_rows), None)
        if first is None:
            held = open_table(uri, storage_options=lake.storage_options)
            if held is None or not file_sizes(held):
                return None if held is None else 0
        batches = pa.RecordBatchReader.from_batches(rows.schema, self._to_the_end(first, rows))
        metadata = {"checked_version": str(self.own.version)}
        return write(
            batches,
            table=side,
            uri=uri,
            storage_options=lake.storage_options,
            mode=WriteMode.OVERWRITE,
            metadata=metadata,
        ).rows

    def remember(self, results: Sequence[ExpectationResult]) -> None:
        """Keep the row counts of this look as those that later ones are compared with."""
        counts = {each.check: each.checked for each in results if each.checked is not None}
        entries = dict(self._counts)
        for each in self._chosen:
            if each.row_count_change is not None and each.check in counts:
                at = self._now.isoformat()
                rows = counts[each.check]
                entries[each.check] = {"rows": rows, "where": each.where, "version": self.own.version, "at": at}
        if entries != self._counts:
            write_counts(self.table, self.platform.lake, entries)

    def _open(self) -> Mapping[TableRef, DeltaTableReader | ViewReader]:
        wanted = [self.table]
        for each in (*self._chosen, *(each for each in self._declared if each.quarantine)):
            try:
                wanted += read_by(each, self.table)
            except SqlError:
                # Said of that expectation, when it is planned.
                continue
        opened = open_inputs(dict.fromkeys(wanted), platform=self.platform)
        if self.table in opened.missing:
            raise StepError(
                f"{self.table}: there is no such table yet, so nothing can be expected of it\n"
                f"  looked at: {self.platform.lake.places(self.table)}\n  build {self.table} first"
            )
        return opened.readers

    def _plan(self, number: int, expectation: ExpectationSpec) -> Planned | Fault:
        try:
            planned = quality_sql.plan(expectation, self._schema, number=number, now=self._now)
            for read in read_by(expectation, self.table):
                if read not in self._readers:
                    return f"table {read} does not exist yet; build it first"
            if expectation.references is not None and (target := target_table(expectation, self.table)) is not None:
                names = self._readers[target].schema.names
                planned = replace(planned, target=quality_sql.column_of(expectation.references.column, names))
        except (Misfit, SqlError) as error:
            return str(error)
        return planned

    def _measure(self, planned: Mapping[str, Planned | Fault]) -> dict[str, _Measured | Fault]:
        measured: dict[str, _Measured | Fault] = {}
        together: list[Planned] = []
        for check, plan in planned.items():
            if isinstance(plan, Fault):
                measured[check] = plan
            elif plan.kind is ExpectationKind.UNIQUE:
                query = quality_sql.doubles(plan, table=self.table, schema=self._schema)
                measured |= self._counted([plan], query)
            elif plan.kind is ExpectationKind.REFERENCES:
                measured |= self._counted([plan], self._strangers(plan))
            elif plan.expectation.is_query:
                measured[check] = self._rows_of(plan.expectation)
            else:
                together.append(plan)
        return measured | self._together(together)

    def _together(self, planned: Sequence[Planned]) -> dict[str, _Measured | Fault]:
        """All of them in one query; where that fails, each by itself, so that one keeps no other from its result."""
        if not planned:
            return {}
        query = quality_sql.counts(planned, table=self.table, schema=self._schema)
        measured = self._counted(planned, query)
        if len(planned) > 1 and any(isinstance(each, Fault) for each in measured.values()):
            return {check: found for each in planned for check, found in self._together([each]).items()}
        return measured

    def _strangers(self, plan: Planned) -> exp.Select:
        ref = target_table(plan.expectation, self.table)
        target = self._readers[self.table if ref is None else ref].schema
        return quality_sql.strangers(plan, table=self.table, schema=self._schema, target=target)

    def _counted(self, planned: Sequence[Planned], query: exp.Select) -> dict[str, _Measured | Fault]:
        """The one row of a query, dealt out to its expectations."""
        try:
            values = [value for plan in planned for value in plan.values.items()]
            found = self._select(query, values).read_all().to_pylist()
            self._stop_if_cancelled()
            (row,) = found
        except StepError as error:
            return dict.fromkeys((each.expectation.check for each in planned), self._fault(error))
        return {
            each.expectation.check: _Measured(
                # Of no rows, DuckDB counts null.
                checked=int(row[f"checked_{place}"] or 0),
                failing=int(row[f"failing_{place}"] or 0) if f"failing_{place}" in row else None,
                # Of no rows nothing is the newest.
                fresh=bool(row[f"fresh_{place}"]) if each.kind is ExpectationKind.FRESH else None,
            )
            for place, each in enumerate(planned)
        }

    def _rows_of(self, expectation: ExpectationSpec) -> _Measured | Fault:
        """Rows that a SELECT gives, as it was written: written anew it might mean something else."""
        try:
            sql = qualified(expectation.sql or "", workstream=self.table.workstream)
            tables = {ref: self._readers[ref] for ref in referenced_tables(sql, workstream="")}
            self.queries += 1
            stream = self.platform.engine.select(sql, tables=tables, variables={}, cancelled=self.platform.cancelled)
            failing = sum(batch.num_rows for batch in stream)
            self._stop_if_cancelled()
        except SqlError as error:
            return str(error)
        except StepError as error:
            return self._fault(error)
        return _Measured(checked=failing, failing=failing)

    def _select(
        self, query: exp.Select, values: Sequence[tuple[str, Any]], *, whole: bool = False
    ) -> pa.RecordBatchReader:
        sql = text_of(query)
        tables = {
            ref: reader if whole else narrowed(reader, columns_read(query, reader.schema.names))
            for ref in referenced_tables(sql, workstream="")
            if (reader := self._readers[ref]) is not None
        }
        self.queries += 1
        return self.platform.engine.select(
            sql, tables=tables, variables=dict(values), cancelled=self.platform.cancelled
        )

    def _to_the_end(self, first: pa.RecordBatch | None, rest: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        if first is not None:
            yield first
        yield from rest
        self._stop_if_cancelled()

    def _stop_if_cancelled(self) -> None:
        """A query that is interrupted may end as if these were all its rows."""
        if self.platform.cancelled():
            raise StepError(f"{self.table}: cancelled while it was checked")

    def _fault(self, error: StepError) -> Fault:
        self._stop_if_cancelled()
        # A line of the query is one that nobody wrote.
        lines = [line.strip() for line in str(error).splitlines() if not line.strip().startswith("line ")]
        return f"could not be evaluated: {'; '.join(lines)}"[:_LONGEST_FAULT]

    def _judged(self, each: ExpectationSpec, found: _Measured, *, accept: bool) -> ExpectationResult:
        match each.kind:
            case ExpectationKind.ROW_COUNT:
                return self._count_judged(each, found.checked)
            case ExpectationKind.ROW_COUNT_CHANGE:
                return self._change_judged(each, found.checked, accept=accept)
            case ExpectationKind.FRESH:
                late = "" if found.fresh else "there is nothing newer" if found.checked else "there are no rows"
                return self._result(each, passed=bool(found.fresh), checked=found.checked, message=late)
            case _:
                failing = found.failing or 0
                passed = each.tolerates(failing=failing, checked=found.checked)
                said = f"{failing:,} failing rows are tolerated" if passed and failing else ""
                checked = None if each.is_query else found.checked
                return self._result(each, passed=passed, checked=checked, failing=failing, message=said)

    def _count_judged(self, each: ExpectationSpec, rows: int) -> ExpectationResult:
        limits = each.row_count
        said = ""
        if limits is not None and limits.min is not None and rows < limits.min:
            said = f"{rows:,} rows are fewer than {limits.min:,}"
        elif limits is not None and limits.max is not None and rows > limits.max:
            said = f"{rows:,} rows are more than {limits.max:,}"
        return self._result(each, passed=not said, checked=rows, message=said)

    def _change_judged(self, each: ExpectationSpec, rows: int, *, accept: bool) -> ExpectationResult:
        earlier = self._counts.get(each.check)
        if accept:
            return self._result(each, passed=True, checked=rows, message=f"{rows:,} rows are accepted")
        if earlier is None or earlier["where"] != each.where:
            return self._result(each, passed=True, checked=rows, message="there is no earlier count")
        before = int(earlier["rows"])
        said = moved(each.row_count_change or RowCountChange(), before=before, rows=rows)
        if said:
            said += f"; the last that was accepted is of {earlier['at'][:10]}"
        return self._result(each, passed=not said, checked=rows, message=said)

    def _result(
        self,
        each: ExpectationSpec,
        *,
        passed: bool,
        checked: int | None = None,
        failing: int | None = None,
        message: str = "",
    ) -> ExpectationResult:
        return ExpectationResult(
            check=each.check,
            kind=each.kind,
            severity=each.severity,
            blocking=each.blocks,
            passed=passed,
            checked=checked,
            failing=failing,
            message=message,
        )


_LONGEST_FAULT = 500
