"""Turns what is expected of a table into the checks of its asset."""

from collections.abc import Collection
from typing import Any

import dagster as dg

from platform_core.factories import translation
from platform_core.factories.asset import Checks
from platform_core.operations.platform import Platform
from platform_core.operations.quality import Checked, ExpectationResult, QualityResult, evaluate
from platform_core.specs.expectation import ExpectationKind, ExpectationSpec, Severity
from platform_core.specs.expectation_tables import read_by
from platform_core.specs.table import TableRef


def build_checks(spec: Checked) -> Checks | None:
    """The checks of a table, evaluated together; None where nothing is expected of it."""
    if not spec.expectations:
        return None

    def look(platform: Platform, asked: Collection[str]) -> list[dg.AssetCheckResult]:
        result = evaluate(spec, platform=platform, only=asked)
        return [_result(each, result) for each in result.results]

    return Checks(specs=tuple(_spec(each, spec.ref) for each in spec.expectations), look=look)


def checked_against(spec: Checked) -> tuple[TableRef, ...]:
    """Other tables that the expectations of a table read: built first, or it would be judged by old ones."""
    return tuple(dict.fromkeys(ref for each in spec.expectations for ref in read_by(each, spec.ref)))


def describe(expectation: ExpectationSpec) -> str:
    """What is expected, in one line."""
    if expectation.description:
        return expectation.description
    named = ", ".join(expectation.columns)
    said = {
        ExpectationKind.NOT_NULL: f"{named} always has a value",
        ExpectationKind.UNIQUE: f"no two rows share {named}",
        ExpectationKind.ACCEPTED_VALUES: f"{named} has one of the declared values",
        ExpectationKind.RANGE: f"{named} is within its range",
        ExpectationKind.MATCHES: f"{named} matches its pattern",
        ExpectationKind.ROW_COUNT: "the number of rows is within its range",
        ExpectationKind.ROW_COUNT_CHANGE: "the number of rows moves no further than it may",
        ExpectationKind.FRESH: f"the newest {named or '_modified_at'} is new enough",
        ExpectationKind.REFERENCES: f"every {named} stands in the referenced column, too",
        ExpectationKind.SQL: "the query gives no row" if expectation.is_query else "the condition holds for every row",
    }[expectation.kind]
    tolerated = f"; at most {expectation.at_most} of the rows may fail" if expectation.at_most else ""
    return f"{said}{tolerated}"


def _spec(expectation: ExpectationSpec, table: TableRef) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        expectation.check,
        asset=translation.asset_key(table),
        description=describe(expectation),
        blocking=expectation.blocks,
        metadata={"edp/expectation": str(expectation.kind), "edp/severity": str(expectation.severity)},
    )


def _result(each: ExpectationResult, of: QualityResult) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {"edp/version": of.version}
    figures = {"edp/checked_rows": each.checked, "edp/failing_rows": each.failing, "edp/ratio": each.ratio}
    metadata |= {name: figure for name, figure in figures.items() if figure is not None}
    if of.quarantined is not None and each.failing is not None:
        metadata["edp/quarantined_rows"] = of.quarantined
    return dg.AssetCheckResult(
        asset_key=translation.asset_key(of.table),
        check_name=each.check,
        passed=each.passed,
        severity=dg.AssetCheckSeverity.WARN if each.severity is Severity.WARN else dg.AssetCheckSeverity.ERROR,
        description=each.message or _said(each),
        metadata=metadata,
    )


def _said(each: ExpectationResult) -> str | None:
    """What a person reads beside a check that failed, without opening its figures."""
    if each.passed or each.failing is None:
        return None
    return f"{each.failing:,} rows fail" if each.checked is None else f"{each.failing:,} of {each.checked:,} rows fail"
