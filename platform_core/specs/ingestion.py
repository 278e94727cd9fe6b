"""What is ingested: one object of a source, one bronze table."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from platform_core.specs.base import Column, Columns, Duration, Model, Name, Owner, Plain, Spec, Tags
from platform_core.specs.table import TableRef

TECHNICAL_COLUMNS = ("_is_current", "_is_deleted", "_modified_at", "_batch_id", "_row_hash")


class LoadMode(StrEnum):
    """How a load is compared with what bronze holds."""

    FULL = "full"
    INCREMENTAL = "incremental"
    APPEND = "append"


class MaskingRule(Model):
    """How one column is masked before the first byte is written.

    Every key beside ``mask`` is an option of that mask; the loader checks them against the mask's own model.
    """

    mask: str = Field(description="Name of the mask plug-in: full, partial, hash, …")
    options: Plain = Field(default_factory=dict)


class ColumnSpec(Model):
    """What is declared about one column; a column that needs nothing said is not listed."""

    description: str = ""
    personal: bool = Field(default=False, description="Holds personal data, masked or not.")
    masking: MaskingRule | None = Field(default=None, description="Written as `mask: <name>` plus its options.")


class IngestionSpec(Spec):
    """One object of a source, ingested as one bronze table."""

    workstream: Name
    source: Name = Field(description="Name of the connection it is read from.")
    object: str = Field(min_length=1, description="Table, path or endpoint at the source.")
    table: Name = Field(
        description="Name of the bronze table; default: the last part of the object, if that is a name."
    )
    mode: LoadMode
    key: Columns = Field(default=(), description="Columns that identify a row; required but for append.")
    cursor: Column | None = Field(
        default=None, description="Column that grows with every change; required for incremental."
    )
    lookback: Duration = Field(default=timedelta(0), description="How far before the watermark rows are read again.")
    sequence_by: Column | None = Field(
        default=None, description="Column that tells the newer of two rows; default: the cursor."
    )
    deleted_flag: Column | None = Field(
        default=None, description="Boolean column of the source that marks a row as gone."
    )
    max_delete_ratio: float = Field(
        default=0.5, ge=0, le=1, description="Largest share of current rows that one full load may flag deleted."
    )
    columns: dict[Column, ColumnSpec] = Field(default_factory=dict)
    options: Plain = Field(default_factory=dict, description="Options of the source plug-in for this object.")
    description: str = ""
    tags: Tags = Field(default_factory=dict)
    owners: tuple[Owner, ...] = ()
    isolated: bool = Field(default=False, description="Run in a process of its own.")

    @property
    def ref(self) -> TableRef:
        """The bronze table."""
        return TableRef(self.workstream, "bronze", self.table)

    @property
    def masks(self) -> dict[str, MaskingRule]:
        """Masking rule by column name."""
        return {name: column.masking for name, column in self.columns.items() if column.masking}

    @property
    def holds_personal_data(self) -> bool:
        """Whether any column is classified personal or masked."""
        return any(column.personal or column.masking for column in self.columns.values())

    @model_validator(mode="after")
    def _check_mode(self) -> Self:
        if self.mode is not LoadMode.APPEND and not self.key:
            raise ValueError(f"mode {self.mode} needs 'key': the columns that identify a row")
        if self.mode is LoadMode.INCREMENTAL and not self.cursor:
            raise ValueError("mode incremental needs 'cursor': a column that grows with every change")
        if self.mode is LoadMode.FULL and self.cursor:
            raise ValueError("mode full reads the whole object; remove 'cursor' or use mode incremental")
        if self.mode is LoadMode.APPEND and self.key:
            raise ValueError("mode append has no key; remove 'key' or use mode incremental")
        if self.lookback and not self.cursor:
            raise ValueError("'lookback' needs 'cursor'")
        if self.deleted_flag and self.mode is LoadMode.APPEND:
            raise ValueError("mode append never changes a row; remove 'deleted_flag' or use mode incremental")
        for column in (*self.key, self.cursor, *self.columns):
            if column in TECHNICAL_COLUMNS:
                raise ValueError(f"column '{column}' is added by the platform; a source's column has another name")
        masks = self.masks
        for column in filter(None, (self.cursor, self.sequence_by, self.deleted_flag)):
            if column in masks:
                raise ValueError(f"column '{column}' orders or flags rows and so cannot be masked")
        return self

    def sequence_column(self) -> str | None:
        """The column by which the newer of two rows of one key is known."""
        return self.sequence_by or self.cursor
