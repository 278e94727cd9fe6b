"""Steps that make tables from tables."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from pydantic import Field, model_validator

from platform_core.specs.base import Columns, Duration, Name, Owner, Spec, TableName, Tags
from platform_core.specs.expectation import Expectations, check_apart
from platform_core.specs.ingestion import ColumnSpec
from platform_core.specs.run_policy import EntryPriority, EntryRetries, Paused, Timeout
from platform_core.specs.step_kinds import EXTERNAL_LAYER, Compare, Span, StepKind, kind_fault
from platform_core.specs.table import TableRef

__all__ = [
    "EXTERNAL_LAYER",
    "RESERVED_LAYERS",
    "WINDOW_VARIABLES",
    "Compare",
    "ProcessingSpec",
    "StepKind",
    "WriteMode",
]

RESERVED_LAYERS = ("bronze", "landing", "dashboard", "source", "files", "quarantined", "quality_state", EXTERNAL_LAYER)
"""Layers that only the platform itself writes, and the one that other systems do."""


class WriteMode(StrEnum):
    """How a step's result meets what the table holds; each is one Delta commit."""

    OVERWRITE = "overwrite"
    APPEND = "append"
    MERGE = "merge"
    PARTITION = "partition"


WINDOW_VARIABLES = ("window_start", "window_end")
"""Parameters that every SQL step may use without declaring them: the range of a backfill, null where there is none."""


class ProcessingSpec(Spec):
    """One processing step and the table (or side effect) that it makes."""

    workstream: Name
    layer: Name
    name: Name
    kind: StepKind
    sql: str | None = Field(
        default=None, description="Path of a file with one SELECT, relative to the location's package."
    )
    function: str | None = Field(default=None, description="package.module:function of a Python or Spark step.")
    notebook: str | None = Field(
        default=None, description="Path of a Jupyter notebook, relative to the location's package."
    )
    source: Name | None = Field(
        default=None, description="Connection behind which something external is; default: it is a table of the lake."
    )
    object: str | None = Field(default=None, description="What is looked at there: a table, files or a path.")
    compare: Compare = Field(
        default=Compare.STAMP,
        description="stamp: something external has changed when what its system says of it has: version, ETag, "
        "Last-Modified, size and time; content: when its content has, which is read each time.",
    )
    fresh: Duration | None = Field(
        default=None, description="An external asset that is older than this must not be read; default: no limit."
    )
    every: Span | None = Field(
        default=None, description="How often an external asset is looked at; default: with the workstream's schedule."
    )
    depends_on: tuple[TableName, ...] = Field(
        default=(), description="Tables read: layer.name or workstream.layer.name; for sql steps they may be left out."
    )
    write: WriteMode = WriteMode.OVERWRITE
    key: Columns = Field(default=(), description="Columns that identify a row; required for merge.")
    partition_by: Columns = Field(
        default=(),
        description="Columns whose values are a partition; write: partition replaces those that it has rows of.",
    )
    variables: dict[str, Any] = Field(
        default_factory=dict, description="Handed to a step; $name in a sql step; parameters of a notebook."
    )
    columns: dict[str, ColumnSpec] = Field(default_factory=dict)
    expectations: Expectations = Field(default=(), description="What is expected of its current rows; each is a check.")
    description: str = ""
    tags: Tags = Field(default_factory=dict)
    owners: tuple[Owner, ...] = ()
    isolated: bool = Field(default=False, description="Run in a process of its own.")
    paused: Paused = False
    priority: EntryPriority = None
    retries: EntryRetries = None
    timeout: Timeout = None

    @property
    def ref(self) -> TableRef:
        """The table that the step makes."""
        return TableRef(self.workstream, self.layer, self.name)

    @property
    def inputs(self) -> tuple[TableRef, ...]:
        """The tables it reads, in declared order."""
        return tuple(TableRef.parse(text, workstream=self.workstream) for text in self.depends_on)

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        declared = [
            name
            for name in self.model_fields_set
            if getattr(self, name) != type(self).model_fields[name].get_default(call_default_factory=True)
        ]
        if fault := kind_fault(self.kind, self.layer, declared=declared):
            raise ValueError(fault)
        if self.write is WriteMode.MERGE and not self.key:
            raise ValueError("write: merge needs 'key': the columns that identify a row")
        if fault := _partition_fault(self.write, self.partition_by):
            raise ValueError(fault)
        if self.kind is StepKind.SQL and (taken := [name for name in WINDOW_VARIABLES if name in self.variables]):
            raise ValueError(f"variable '{taken[0]}' is the platform's own, the range of a backfill; rename yours")
        if self.layer in RESERVED_LAYERS and self.kind is not StepKind.EXTERNAL:
            raise ValueError(f"layer '{self.layer}' belongs to the platform; use silver, gold or a name of your own")
        if masked := [name for name, column in self.columns.items() if column.masking]:
            # A mask that nobody applies would be a promise that nobody keeps.
            raise ValueError(f"column '{masked[0]}': masks are applied when a table is ingested, not by a step")
        check_apart(self.expectations)
        return self


def _partition_fault(write: WriteMode, partition_by: tuple[str, ...]) -> str | None:
    if write is WriteMode.PARTITION and not partition_by:
        return "write: partition needs 'partition_by': the columns whose values are a partition"
    if partition_by and write is not WriteMode.PARTITION:
        return f"'partition_by' belongs to write: partition, not to write: {write}; to say what a row is, use 'key'"
    return None
