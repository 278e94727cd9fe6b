"""Where steps wait for room: the higher priority first, and no more at a time than all runs together may be."""

from collections.abc import Iterator

import dagster as dg
import pytest

from tests.execution.in_memory import own_instance, run_assets


@pytest.fixture
def in_memory() -> Iterator[dg.DagsterInstance]:
    with own_instance() as instance:
        yield instance


def starts(result: dg.JobExecutionResult) -> list[str]:
    return [str(event.step_key) for event in result.all_events if event.is_step_start]


def step(name: str, **attributes: object) -> dg.AssetsDefinition:
    @dg.asset(name=name, **attributes)
    def body() -> None: ...

    return body


def test_of_the_steps_that_could_start_the_one_of_the_highest_priority_does(in_memory: dg.DagsterInstance) -> None:
    assets = [
        step("a_last", op_tags={"dagster/priority": "-5"}),
        step("b_usual"),
        step("c_first", op_tags={"dagster/priority": "10"}),
        step("d_after_first", deps=["c_first"], op_tags={"dagster/priority": "3"}),
    ]

    result = run_assets(assets, in_memory, max_concurrent=1)

    assert starts(result) == ["c_first", "d_after_first", "b_usual", "a_last"]


def test_a_run_tells_the_instance_the_limits_that_are_declared(instance: dg.DagsterInstance) -> None:
    storage = instance.event_log_storage
    for pool in ("changed", "no_longer_limited", "of_somebody_else"):
        storage.set_concurrency_slots(pool, 7)

    limits = {"new": 2, "changed": 3, "no_longer_limited": None, "never_limited": None}
    assert run_assets([step("a")], instance, pool_limits=limits).success

    pools = {pool.name: pool.limit for pool in storage.get_pool_limits()}
    assert [pools.get(name) for name in (*limits, "of_somebody_else")] == [2, 3, None, None, 7]


def test_a_step_waits_for_room_that_another_run_has_taken(instance: dg.DagsterInstance) -> None:
    storage = instance.event_log_storage
    storage.set_concurrency_slots("erp", 1)
    other_run = instance.create_run_for_job(dg.Definitions([step("x")]).resolve_implicit_global_asset_job_def())
    assert storage.claim_concurrency_slot("erp", other_run.run_id, "load").is_claimed

    @dg.asset
    def lets_go() -> None:
        storage.free_concurrency_slots_for_run(other_run.run_id)

    assets = [
        lets_go,
        step("blocked", pool="erp", op_tags={"dagster/priority": "9"}),
        step("not_limited", pool="crm"),
    ]
    result = run_assets(assets, instance, pool_limits={"erp": 1, "crm": None})

    assert result.success
    assert starts(result)[-1] == "blocked"
    assert storage.get_concurrency_info("erp").active_slot_count == 0
    assert "crm" not in storage.get_concurrency_keys()
