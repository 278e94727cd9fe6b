"""Whatever happens to a source, to a load or to the process that makes it: bronze is what the model says."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from platform_core.faults import FaultPoint
from tests.oracle.machine import Figures, Oracle
from tests.oracle.table import Bench

STEPS = 10_000
STEPS_OF_A_TABLE = 100
TABLES_OF_A_SEED = 9
"""From the eleventh on, Hypothesis would play variations of what it has played already."""

RULES = {name for name in dir(Oracle) if hasattr(getattr(Oracle, name), "hypothesis_stateful_rule")}


def play(bench: Bench, figures: Figures, *, chosen: int, shrink: bool = True) -> None:
    """Play a few tables; the first difference from the model ends it."""
    machine: type[RuleBasedStateMachine] = type("SeededOracle", (Oracle,), {"bench": bench, "figures": figures})
    began = time.perf_counter()
    try:
        run_state_machine_as_test(
            seed(chosen)(machine),
            settings=settings(
                max_examples=TABLES_OF_A_SEED,
                stateful_step_count=STEPS_OF_A_TABLE,
                deadline=None,
                derandomize=False,
                database=None,
                print_blob=True,
                phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    except Exception as error:
        error.add_note(f"--oracle-seed {chosen} plays it again, first of all")
        raise
    finally:
        figures.seconds += time.perf_counter() - began


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a1_a11_a12_b7_b8_b9_b10_b12_c1_bronze_equals_the_model(
    bench: Bench, oracle_seed: int, oracle_scale: int, oracle_shrinks: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = Figures()
    with capsys.disabled():
        sys.stdout.write(f"\noracle: seed {oracle_seed} (--oracle-seed {oracle_seed} plays it again)\n")
    chosen = oracle_seed
    while figures.steps < STEPS * oracle_scale:
        steps = figures.steps
        play(bench, figures, chosen=chosen, shrink=oracle_shrinks)
        assert figures.steps > steps
        chosen += 1
    with capsys.disabled():
        sys.stdout.write("".join(f"oracle: {line}\n" for line in figures.lines()))
    assert figures.steps >= STEPS * oracle_scale
    assert set(figures.rules) == RULES
    assert figures.lost == figures.doubled == figures.falsely_deleted == 0
    assert min(figures.ends[end] for end in ("succeeded", "stopped", "schema", "keys", "crashed")) > 0
    assert figures.approvals > 0
    assert figures.kills.total() > 0
    assert len(figures.crashes) > len(FaultPoint) // 2
