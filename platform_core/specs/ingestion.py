"""What is ingested: one object of a source, one bronze table."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from platform_core.specs.base import Column, Columns, Duration, Model, Name, Owner, Plain, Spec, Tags
from platform_core.specs.expectation import Expectations, check_apart
from platform_core.specs.run_policy import EntryPriority, EntryRetries, Paused, Timeout
from platform_core.specs.table import TableRef

TECHNICAL_COLUMNS = ("_is_current", "_is_deleted", "_modified_at", "_batch_id", "_row_hash")


class LoadMode(StrEnum):
    """How a load is compared with what bronze holds."""

    FULL = "full"
    INCREMENTAL = "incremental"
    APPEND = "append"


class NewColumns(StrEnum):
    """What happens to a column of the source that bronze does not have."""

    EVOLVE = "evolve"
    IGNORE = "ignore"
    REFUSE = "refuse"


class MissingColumns(StrEnum):
    """What happens when the source no longer has a column of bronze."""

    REFUSE = "refuse"
    NULL = "null"


def _word(value: object) -> object:
    """YAML reads the word null as no value."""
    return MissingColumns.NULL if value is None else value


class TypeChange(StrEnum):
    """What happens when a column of the source has another type than in bronze."""

    WIDEN = "widen"
    REFUSE = "refuse"


class OnBadKey(StrEnum):
    """What happens to rows whose key is null, or the key of another row of the same load."""

    REFUSE = "refuse"
    QUARANTINE = "quarantine"


class SchemaContract(Model):
    """What may change in the columns of a source without a person's doing.

    A new column of a table that has masked or personal columns is refused until it is listed under ``columns``,
    whatever ``new_columns`` says.
    """

    new_columns: NewColumns = Field(
        default=NewColumns.EVOLVE, description="evolve: add it to bronze; ignore: leave it out; refuse: stop the load."
    )
    missing: Annotated[MissingColumns, BeforeValidator(_word, json_schema_input_type=MissingColumns | None)] = Field(
        default=MissingColumns.REFUSE, description="refuse: stop the load; null: rows of this load have null there."
    )
    type_change: TypeChange = Field(
        default=TypeChange.WIDEN,
        description="widen: a type that holds all values of the old one is taken over; refuse: stop the load.",
    )


class DetectDeletes(Model):
    """How deletes are found that the source does not flag: by comparing keys alone."""

    every: Duration = Field(description="How often the keys of source and bronze are compared.")


class DetectChanges(Model):
    """How a full load learns what changed: from the source, in place of reading and comparing all values.

    The source hands over the rows that changed since the last load, and of all others the key alone, which shows those
    that are gone. Everything is read where it cannot tell, and now and then in any case.
    """

    by: Literal["source"] = Field(description="source: it knows which rows have changed since the last load.")
    read_all_every: Duration = Field(
        default=timedelta(days=7), description="How often everything is read and compared even so."
    )


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
    object: str = Field(
        min_length=1, description="Table, path or endpoint at the source; beside `query` only its name in lineage."
    )
    query: str | None = Field(
        default=None,
        description="One SELECT in the source's dialect, read in place of an object; `object` is then only a name.",
    )
    filter: str | None = Field(
        default=None, description="Condition in SQL that the source checks: rows for which it is not true do not exist."
    )
    select: Columns = Field(
        default=(), description="Columns that are read, as the source names them; default: all that it has."
    )
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
    detect_deletes: DetectDeletes | None = Field(
        default=None, description="For incremental: find rows that are gone by comparing keys, now and then."
    )
    detect_changes: DetectChanges | None = Field(
        default=None, description="For full: read only the rows that changed, where the source can tell them."
    )
    max_delete_ratio: float = Field(
        default=0.5, ge=0, le=1, description="Largest share of current rows that one load may flag deleted."
    )
    delete_floor: int = Field(
        default=10, ge=0, description="A load that would flag fewer rows than this is never stopped for its ratio."
    )
    on_bad_key: OnBadKey = Field(
        default=OnBadKey.REFUSE,
        description="refuse: null or doubled keys stop the load; quarantine: such rows are set aside and counted. "
        "Of doubled keys the newest by a declared `sequence_by` is loaded; without one, none is.",
    )
    contract: SchemaContract = Field(
        default=SchemaContract(), alias="schema", description="What may change in the source's columns."
    )
    snapshot_history: bool = Field(
        default=False, description="Keep every version of every row in a table beside it, named <table>_history."
    )
    parallel: int = Field(default=1, ge=1, le=32, description="Readers of one load; needs a column to split by.")
    split_by: Column | None = Field(
        default=None,
        description="Column by whose ranges parallel readers share the rows; default: a key of one column.",
    )
    columns: dict[Column, ColumnSpec] = Field(default_factory=dict)
    expectations: Expectations = Field(default=(), description="What is expected of its current rows; each is a check.")
    options: Plain = Field(default_factory=dict, description="Options of the source plug-in for this object.")
    paused: Paused = False
    description: str = ""
    tags: Tags = Field(default_factory=dict)
    owners: tuple[Owner, ...] = ()
    isolated: bool = Field(default=False, description="Run in a process of its own.")
    priority: EntryPriority = None
    retries: EntryRetries = None
    timeout: Timeout = None

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
        if self.mode is LoadMode.FULL and self.cursor:
            raise ValueError("mode full reads the whole object; remove 'cursor' or use mode incremental")
        if self.mode is LoadMode.APPEND and self.key:
            raise ValueError("mode append has no key; remove 'key' or use mode incremental")
        if self.lookback and not self.cursor:
            raise ValueError("'lookback' needs 'cursor'")
        if self.detect_deletes and self.mode is not LoadMode.INCREMENTAL:
            raise ValueError("'detect_deletes' is for mode incremental: mode full finds deletes, append has none")
        if self.detect_changes:
            self._check_detect_changes()
        if self.snapshot_history and self.mode is LoadMode.APPEND:
            raise ValueError("mode append never changes a row, so it has no history; remove 'snapshot_history'")
        if self.split_by and self.parallel == 1:
            raise ValueError("'split_by' needs 'parallel': how many readers share the rows")
        if self.query and self.filter:
            raise ValueError("'filter' is for a table; write the condition into 'query'")
        if self.deleted_flag and self.mode is LoadMode.APPEND:
            raise ValueError("mode append never changes a row; remove 'deleted_flag' or use mode incremental")
        for column in (*self.key, self.cursor, *self.columns):
            if column in TECHNICAL_COLUMNS:
                raise ValueError(f"column '{column}' is added by the platform; a source's column has another name")
        masks = self.masks
        for column in filter(None, (self.cursor, self.sequence_by, self.deleted_flag)):
            if column in masks:
                raise ValueError(f"column '{column}' orders or flags rows and so cannot be masked")
        check_apart(self.expectations)
        return self

    def _check_detect_changes(self) -> None:
        if self.mode is not LoadMode.FULL:
            raise ValueError("'detect_changes' is for mode full; the other modes read what is new by their cursor")
        for name in ("query", "filter", "deleted_flag"):
            if getattr(self, name):
                raise ValueError(
                    f"'detect_changes' and '{name}' exclude each other: what decides on a row may change without the "
                    "row; remove one of them"
                )

    def sequence_column(self) -> str | None:
        """The column by which the newer of two rows of one key is known."""
        return self.sequence_by or self.cursor

    @property
    def history_ref(self) -> TableRef:
        """The table that keeps every version of every row, where there is one."""
        return TableRef(self.workstream, "bronze", f"{self.table}_history")
