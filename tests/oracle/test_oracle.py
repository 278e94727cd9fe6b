"""Whatever happens to a source, to a load or to the process that makes it: bronze is what the model says."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from platform_core.faults import FaultPoint
from tests.oracle.machine import Figures, Oracle
from tests.oracle.table import Bench

STEPS = 10_000
STEPS_OF_A_TABLE = 100
TABLES = int(os.environ.get("ORC_TABLES", 72))
"""A few more than are needed for 10,000 steps: now and then Hypothesis ends a table early."""

RULES = {name for name in dir(Oracle) if hasattr(getattr(Oracle, name), "hypothesis_stateful_rule")}


def run(
    bench: Bench, *, chosen: int, tables: int, phases: tuple[Phase, ...] = (Phase.generate, Phase.shrink)
) -> Figures:
    """Play so many tables; every difference from the model ends it."""
    figures = Figures()
    machine: type[RuleBasedStateMachine] = type("SeededOracle", (Oracle,), {"bench": bench, "figures": figures})
    began = time.perf_counter()
    try:
        run_state_machine_as_test(
            seed(chosen)(machine),
            settings=settings(
                max_examples=tables,
                stateful_step_count=STEPS_OF_A_TABLE,
                deadline=None,
                derandomize=False,
                database=None,
                print_blob=True,
                phases=(Phase.generate,) if "ORC_NOSHRINK" in os.environ else phases,
                report_multiple_bugs=False,
                verbosity=Verbosity.normal,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        figures.seconds = time.perf_counter() - began
    return figures


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a1_a11_a12_b7_b8_b9_b10_b12_c1_bronze_equals_the_model(
    bench: Bench, oracle_seed: int, oracle_scale: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(f"\noracle: seed {oracle_seed} (--oracle-seed {oracle_seed} plays it again)")
    figures = run(bench, chosen=oracle_seed, tables=TABLES * oracle_scale)
    with capsys.disabled():
        print("\n".join(f"oracle: {line}" for line in figures.lines()))
    assert figures.steps >= STEPS * oracle_scale
    assert set(figures.rules) == RULES
    assert figures.lost == figures.doubled == figures.falsely_deleted == 0
    assert min(figures.ends[end] for end in ("succeeded", "stopped", "schema", "keys", "crashed")) > 0
    assert figures.approvals > 0
    assert figures.kills.total() > 0
    assert len(figures.crashes) > len(FaultPoint) // 2
