"""How a state machine is played from a seed: so many projects of so many steps, the first fault of which ends it."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

PLAYS_OF_A_SEED = 9
"""From the eleventh on, Hypothesis would play variations of what it has played already."""


def rules_of(machine: type[RuleBasedStateMachine]) -> set[str]:
    """Names of all rules of a machine."""
    return {name for name in dir(machine) if hasattr(getattr(machine, name), "hypothesis_stateful_rule")}


def play(machine: type[RuleBasedStateMachine], *, chosen: int, steps: int, shrinks: bool, again: str) -> None:
    """Play a machine a few times from its beginning.

    Args:
        chosen: the seed.
        steps: of each time.
        shrinks: whether what is found is made short, which may take minutes.
        again: tells how to play it again.
    """
    try:
        run_state_machine_as_test(
            seed(chosen)(machine),
            settings=settings(
                max_examples=PLAYS_OF_A_SEED,
                stateful_step_count=steps,
                deadline=None,
                derandomize=False,
                database=None,
                print_blob=True,
                phases=(Phase.generate, Phase.shrink) if shrinks else (Phase.generate,),
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    except Exception as error:
        error.add_note(again)
        raise
