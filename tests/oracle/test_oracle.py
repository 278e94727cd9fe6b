"""Whatever happens to a source, to a load or to the process that makes it: bronze is what the model says."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis.stateful import RuleBasedStateMachine

from platform_core.faults import FaultPoint
from tests import state_machine
from tests.oracle.machine import Figures, Oracle
from tests.oracle.table import Bench

STEPS = 10_000
STEPS_OF_A_TABLE = 100

RULES = state_machine.rules_of(Oracle)


def play(bench: Bench, figures: Figures, *, chosen: int, shrink: bool = True) -> None:
    """Play a few tables; the first difference from the model ends it."""
    machine: type[RuleBasedStateMachine] = type("SeededOracle", (Oracle,), {"bench": bench, "figures": figures})
    began = time.perf_counter()
    try:
        state_machine.play(
            machine,
            chosen=chosen,
            steps=STEPS_OF_A_TABLE,
            shrinks=shrink,
            again=f"--oracle-seed {chosen} plays it again, first of all",
        )
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
    assert figures.told > 0
    assert len(figures.crashes) > len(FaultPoint) // 2
