"""E11: no pattern, however it was made, keeps a check busy for long."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest
from pydantic import ValidationError

from platform_core.control.expectation_checks import pattern_fault
from platform_core.specs.expectation import ExpectationSpec
from platform_core.specs.patterns import MOST_STATES, states
from tests.quality.worlds import World

CATASTROPHIC = ["(a+)+$", "(a|aa)+$", "(a|a?)+$", "(.*a){20}", "(.*)*(.*)*(.*)*x", "(x+x+)+y", "([a-zA-Z]+)*$"]
"""Each takes a backtracking engine time that doubles with every letter."""

MOST_SECONDS = 5
"""For a value of 100,000 letters on a busy machine; the longest seen is told in the table of faults."""


@pytest.mark.parametrize("pattern", [*CATASTROPHIC, "a{1,1000}" * 5])
def test_a_hostile_pattern_takes_time_in_proportion_to_the_value(world: World, pattern: str) -> None:
    assert pattern_fault(pattern) is None
    world.put(pa.table({"text": ["a" * 100_000 + "!"]}))
    began = time.monotonic()
    result = world.one(column="text", matches=pattern, name="hostile")
    assert time.monotonic() - began < MOST_SECONDS
    assert result.checked == 1


@pytest.mark.parametrize("pattern", ["a{1,1000}" * 6, "((a{30}){30}b){6}", "(a{30}){30}" * 90, "x{999999}"])
def test_a_pattern_that_repeats_too_much_is_refused(pattern: str) -> None:
    assert states(pattern) > MOST_STATES
    with pytest.raises(ValidationError, match="repeats too much"):
        ExpectationSpec(column="text", matches=pattern)


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "[", "(", "(?<=x)y", "a**", "((a{100}){100})"])
def test_a_pattern_that_re2_does_not_know_has_a_fault(pattern: str) -> None:
    assert pattern_fault(pattern)


@pytest.mark.parametrize(
    ("pattern", "length"),
    [
        ("", 0),
        ("abc", 3),
        ("a{3}b", 4),
        ("(ab){10}", 20),
        ("((a{10}){10}){10}", 1_000),
        ("[]a]{5}", 5),
        ("[^]a]{5}", 5),
        (r"[\]]{4}", 4),
        (r"\{x{2}", 3),
        ("a{2,}", 2),
        ("a{,3}", 3),
        ("(((", 0),
    ],
)
def test_the_length_of_a_pattern_written_out(pattern: str, length: int) -> None:
    assert states(pattern) == length
