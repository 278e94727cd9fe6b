"""A dashboard asks the event log whether what it shows is fit to be shown."""

from collections.abc import Iterator

import dagster as dg
import pytest

from platform_core.factories.readiness import unfit_tables
from platform_core.specs.table import TableRef

TABLE = TableRef("w", "gold", "t")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def build(instance: dg.DagsterInstance, *, fail: bool = False, check_passes: bool = True) -> None:
    spec = dg.AssetCheckSpec("good", asset=list(TABLE), blocking=True)

    @dg.asset(key=list(TABLE), check_specs=[spec])
    def table() -> dg.MaterializeResult:
        if fail:
            raise RuntimeError
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=check_passes, check_name="good")])

    dg.materialize([table], instance=instance, raise_on_error=False)


def test_a_table_that_was_built_and_checked_is_fit(instance: dg.DagsterInstance) -> None:
    build(instance)
    assert unfit_tables(instance, [TABLE]) == {}


def test_a_table_that_was_never_built_is_not_fit(instance: dg.DagsterInstance) -> None:
    assert unfit_tables(instance, [TABLE]) == {TABLE: "was never built"}


def test_a_table_whose_last_attempt_failed_is_not_fit(instance: dg.DagsterInstance) -> None:
    build(instance)
    build(instance, fail=True)
    assert "set out to" in unfit_tables(instance, [TABLE])[TABLE]


def test_a_table_that_failed_a_blocking_check_is_not_fit(instance: dg.DagsterInstance) -> None:
    build(instance, check_passes=False)
    assert "blocking check" in unfit_tables(instance, [TABLE])[TABLE]


def test_a_table_is_fit_again_after_it_was_mended(instance: dg.DagsterInstance) -> None:
    build(instance, fail=True)
    build(instance, check_passes=False)
    build(instance)
    assert unfit_tables(instance, [TABLE]) == {}
