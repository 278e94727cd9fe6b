"""Steps that make tables from tables."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from pydantic import Field, model_validator

from platform_core.specs.base import Columns, Name, Owner, Spec, TableName, Tags
from platform_core.specs.expectation import Expectations, check_apart
from platform_core.specs.ingestion import ColumnSpec
from platform_core.specs.table import TableRef

RESERVED_LAYERS = ("bronze", "landing", "dashboard", "source", "files", "quarantined", "quality_state")
"""Layers that only the platform itself writes."""


class StepKind(StrEnum):
    """What a step runs."""

    SQL = "sql"
    PYTHON = "python"


class WriteMode(StrEnum):
    """How a step's result meets what the table holds; each is one Delta commit."""

    OVERWRITE = "overwrite"
    APPEND = "append"
    MERGE = "merge"


class ProcessingSpec(Spec):
    """One processing step and the table (or side effect) that it makes."""

    workstream: Name
    layer: Name
    name: Name
    kind: StepKind
    sql: str | None = Field(
        default=None, description="Path of a file with one SELECT, relative to the location's package."
    )
    function: str | None = Field(default=None, description="package.module:function of a Python step.")
    depends_on: tuple[TableName, ...] = Field(
        default=(), description="Tables read: layer.name or workstream.layer.name; for sql steps they may be left out."
    )
    write: WriteMode = WriteMode.OVERWRITE
    key: Columns = Field(default=(), description="Columns that identify a row; required for merge.")
    variables: dict[str, Any] = Field(default_factory=dict, description="Handed to a Python step; $name in a sql step.")
    columns: dict[str, ColumnSpec] = Field(default_factory=dict)
    expectations: Expectations = Field(default=(), description="What is expected of its current rows; each is a check.")
    description: str = ""
    tags: Tags = Field(default_factory=dict)
    owners: tuple[Owner, ...] = ()
    isolated: bool = Field(default=False, description="Run in a process of its own.")
    paused: bool = Field(default=False, description="Neither scheduled nor requested; it can be run by hand.")

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
        wanted, other = ("sql", "function") if self.kind is StepKind.SQL else ("function", "sql")
        if getattr(self, wanted) is None:
            raise ValueError(f"a step of kind {self.kind} needs '{wanted}'")
        if getattr(self, other) is not None:
            raise ValueError(f"a step of kind {self.kind} has no '{other}'")
        if self.write is WriteMode.MERGE and not self.key:
            raise ValueError("write: merge needs 'key': the columns that identify a row")
        if self.layer in RESERVED_LAYERS:
            raise ValueError(f"layer '{self.layer}' belongs to the platform; use silver, gold or a name of your own")
        if masked := [name for name, column in self.columns.items() if column.masking]:
            # A mask that nobody applies would be a promise that nobody keeps.
            raise ValueError(f"column '{masked[0]}': masks are applied when a table is ingested, not by a step")
        check_apart(self.expectations)
        return self
