"""The kinds of steps, and which keys each of them needs and takes."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator

from platform_core.specs.base import Duration

EXTERNAL_LAYER = "external"
"""Layer of everything that another system owns; only steps of kind ``external`` stand in it."""


SHORTEST_SPAN = timedelta(seconds=30)
"""Conditions are asked no more often."""


def _check_span(value: timedelta) -> timedelta:
    if value < SHORTEST_SPAN:
        raise ValueError("must be 30 seconds or more: nothing is looked at more often")
    return value


Span = Annotated[Duration, AfterValidator(_check_span)]
"""A span of time within which something is looked at once."""


class StepKind(StrEnum):
    """What a step runs."""

    SQL = "sql"
    PYTHON = "python"
    NOTEBOOK = "notebook"
    SPARK = "spark"
    EXTERNAL = "external"


class Compare(StrEnum):
    """By what one version of something external is told from the next."""

    STAMP = "stamp"
    CONTENT = "content"


NEEDS = {
    StepKind.SQL: "sql",
    StepKind.PYTHON: "function",
    StepKind.NOTEBOOK: "notebook",
    StepKind.SPARK: "function",
}
"""The key that says what a step of a kind runs; an external one runs nothing."""

_OBSERVED = ("source", "object", "compare", "fresh", "every")
_MADE = (
    "sql",
    "function",
    "notebook",
    "depends_on",
    "write",
    "key",
    "partition_by",
    "variables",
    "columns",
    "expectations",
)


def kind_fault(kind: StepKind, layer: str, *, declared: Collection[str]) -> str | None:
    """What is wrong with the keys of a step for its kind; None where nothing is.

    Args:
        kind: of the step.
        layer: of the step.
        declared: keys whose value is another one than their default.
    """
    if kind is StepKind.EXTERNAL:
        return _external_fault(layer, declared)
    wanted = NEEDS[kind]
    if wanted not in declared:
        return f"a step of kind {kind} needs '{wanted}'"
    for other in (*dict.fromkeys(NEEDS.values()), *_OBSERVED):
        if other in declared and other != wanted:
            return f"a step of kind {kind} has no '{other}'"
    return None


def _external_fault(layer: str, declared: Collection[str]) -> str | None:
    if layer != EXTERNAL_LAYER:
        return f"what another system owns stands in layer '{EXTERNAL_LAYER}'"
    for key in _MADE:
        if key in declared:
            return f"a step of kind external has no '{key}': another system makes it, and it is only looked at"
    if ("source" in declared) != ("object" in declared):
        return "'source' and 'object' go together: a connection, and what is looked at there"
    if "compare" in declared and "source" not in declared:
        return "'compare' needs 'source': a table of the lake is told by its version"
    return None
