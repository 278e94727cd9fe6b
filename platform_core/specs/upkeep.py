"""What keeps the lake small and quick: ``control/upkeep.yaml``."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from platform_core.specs.base import Columns, Duration, Name, Owner, Spec, TableName, Tags
from platform_core.specs.run_policy import EntryPriority, EntryRetries, Paused, Timeout
from platform_core.specs.table import TableRef

_SIZE = re.compile(r"([0-9]{1,6})\s*(KB|MB|GB)")
_UNITS = {"KB": 1024, "MB": 1024**2, "GB": 1024**3}
_PATTERN = re.compile(r"[a-z0-9_*]+\.[a-z0-9_*]+\.[a-z0-9_*]+")


def _parse_size(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None or match[1].strip("0") == "":
        raise ValueError("must read like '128 MB': a whole number and KB, MB or GB")
    return int(match[1]) * _UNITS[match[2]]


Size = Annotated[
    int,
    BeforeValidator(_parse_size, json_schema_input_type=str),
    Field(json_schema_extra={"examples": ["64 MB", "128 MB", "1 GB"]}),
]
"""A number of bytes, written like ``128 MB``."""


class Operation(StrEnum):
    """What is done to tables."""

    COMPACT = "compact"
    VACUUM = "vacuum"
    LANDING = "landing"
    ORPHANS = "orphans"
    LOGS = "logs"


_OPTIONS: dict[Operation, frozenset[str]] = {
    Operation.COMPACT: frozenset({"target_size", "small_files", "z_order"}),
    Operation.VACUUM: frozenset({"retention"}),
    Operation.LANDING: frozenset({"retention", "keep"}),
    Operation.ORPHANS: frozenset({"retention"}),
    Operation.LOGS: frozenset({"retention"}),
}
_RETENTION = {
    Operation.VACUUM: timedelta(days=7),
    Operation.LANDING: timedelta(days=30),
    Operation.ORPHANS: timedelta(days=2),
    Operation.LOGS: timedelta(days=30),
}
LEAST_RETENTION = timedelta(days=1)
"""Below this a run could lose files that it still reads."""


class UpkeepSpec(Spec):
    """One operation on many tables of the lake, run as an asset."""

    workstream: Name
    name: Name
    operation: Operation = Field(
        description="compact: merge small files; vacuum: remove files that left a table; landing: remove landed "
        "batches; orphans: remove what killed writers left; logs: shorten the logs of tables and of loads."
    )
    tables: tuple[str, ...] = Field(
        default=("*.*.*",),
        min_length=1,
        description="Tables of the whole lake: workstream.layer.name, where * stands for any text.",
    )
    retention: Duration | None = Field(
        default=None,
        description="Age from which something is removed; default: vacuum 7 days, orphans 2, landing and logs 30. "
        "What a run that is still going on may read stays longer.",
    )
    keep: int = Field(default=2, ge=0, description="landing: newest batches of a table that stay, to be replayed.")
    target_size: Size = Field(default=128 * 1024**2, description="compact: size of a file, such as 128 MB.")
    small_files: int = Field(
        default=8, ge=1, description="compact: so many files below half of that size leave a table as it is."
    )
    z_order: dict[TableName, Columns] = Field(
        default_factory=dict, description="compact: columns by which rows of a table are clustered, by its full name."
    )
    description: str = ""
    tags: Tags = Field(default_factory=dict)
    owners: tuple[Owner, ...] = ()
    paused: Paused = False
    priority: EntryPriority = None
    retries: EntryRetries = None
    timeout: Timeout = None

    @property
    def ref(self) -> TableRef:
        """The operation, addressed like a table: ``workstream.upkeep.name``."""
        return TableRef(self.workstream, "upkeep", self.name)

    def age(self) -> timedelta:
        """Age from which something is removed; nothing is by compaction."""
        return self.retention if self.retention is not None else _RETENTION.get(self.operation, timedelta(0))

    def covers(self, ref: TableRef) -> bool:
        """Whether a table is among those declared."""
        return any(fnmatchcase(str(ref), pattern) for pattern in self.tables)

    @model_validator(mode="after")
    def _check_operation(self) -> Self:
        own = _OPTIONS[self.operation]
        every = frozenset().union(*_OPTIONS.values())
        for name in sorted((every - own) & self.model_fields_set):
            raise ValueError(
                f"'{name}' means nothing to operation {self.operation}; it takes: {', '.join(sorted(own))}"
            )
        for pattern in self.tables:
            if not _PATTERN.fullmatch(pattern):
                raise ValueError("'tables' are written workstream.layer.name, where * stands for any text")
        if self.operation is not Operation.COMPACT and self.age() < LEAST_RETENTION:
            raise ValueError("'retention' must be at least 1 day: a run may still read what is younger")
        for name in self.z_order:
            if name.count(".") != 2:
                raise ValueError("tables in 'z_order' are written workstream.layer.name")
        return self
