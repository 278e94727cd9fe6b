"""What the refusing IO manager lets pass, and how it refuses."""

import dagster as dg
import pytest

from platform_core.errors import StepError
from platform_core.factories.io_manager import RefusingIOManager, refusing_io_manager


def _materialize(*assets: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
    return dg.materialize(list(assets), resources={"io_manager": refusing_io_manager}, raise_on_error=False)


def _error_chain(result: dg.ExecuteInProcessResult) -> str:
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    error = failure.step_failure_data.error
    texts = []
    while error is not None:
        texts.append(f"{error.cls_name}: {error.message}")
        error = error.cause
    return "\n".join(texts)


def test_an_asset_that_returns_metadata_only_passes() -> None:
    @dg.asset
    def table() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"rows": 3})

    assert _materialize(table).success


def test_an_asset_that_returns_nothing_passes() -> None:
    @dg.asset
    def table():
        return None

    assert _materialize(table).success


def test_a_returned_value_is_refused_by_asset_output_and_type_without_the_value() -> None:
    @dg.asset(key=["crm", "bronze", "riders"])
    def table():
        return {"email": "ada@example.com"}

    chain = _error_chain(_materialize(table))

    assert StepError.__name__ in chain
    assert "asset crm/bronze/riders, output 'result' returned a value of type dict" in chain
    assert "MaterializeResult" in chain
    assert "ada@example.com" not in chain


def test_a_value_inside_a_materialize_result_is_refused() -> None:
    @dg.asset
    def table() -> dg.MaterializeResult[int]:
        return dg.MaterializeResult(value=3)

    assert "asset table, output 'result' returned a value of type int" in _error_chain(_materialize(table))


def test_a_value_of_a_plain_op_is_refused_by_step() -> None:
    @dg.op
    def count():
        return 3

    @dg.job(resource_defs={"io_manager": refusing_io_manager})
    def counting():
        count()

    result = counting.execute_in_process(raise_on_error=False)

    assert "step count, output 'result' returned a value of type int" in _error_chain(result)


def test_an_input_that_wants_a_stored_value_is_refused_with_what_to_do() -> None:
    @dg.asset
    def table():
        return None

    @dg.asset
    def reader(table):
        return None

    chain = _error_chain(_materialize(table, reader))

    assert "input 'table' asks for the value of asset table, output 'result'" in chain
    assert "deps=[...]" in chain


def test_the_refusal_is_raised_as_a_platform_error_outside_dagster_too() -> None:
    manager = RefusingIOManager()

    with pytest.raises(StepError, match="step load, output 'result'"):
        manager.handle_output(dg.build_output_context(step_key="load", name="result"), 1)
