"""The kinds of control files, and how an entry of a file becomes the fields of a spec.

A file says its workstream (and source) once at the top, and options of a plug-in stand flat beside an entry's
own keys; a spec holds each in full.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from platform_core.specs.alerts import AlertRule
from platform_core.specs.base import Model, Name, Plain, Spec, is_name
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.ingestion import ColumnSpec, IngestionSpec
from platform_core.specs.location import WorkstreamSpec
from platform_core.specs.processing import ProcessingSpec
from platform_core.specs.refresh import RefreshSpec
from platform_core.specs.upkeep import UpkeepSpec

LOCATION = "location"
VARIABLES = "variables"
WORKSTREAM = "workstream"
COLUMN_KEYS = ("mask", "personal", "description")

_DOTTED = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
# The ending of a file is no table's name.
_ENDINGS = frozenset({"csv", "gz", "json", "jsonl", "ndjson", "parquet", "tsv", "txt", "xlsx", "xml", "zip", "zst"})


class LocationFile(Model):
    """``control/location.yaml``."""

    location: Name = Field(description="Name of the code location.")
    description: str = ""
    workstreams: tuple[WorkstreamSpec, ...] = Field(min_length=1)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of control file.

    Args:
        name: of its file or folder below ``control/``.
        entries: the key of its list.
        model: the spec of one entry.
        head: keys at the top of the file that hold for every entry.
        flat: whether options of a plug-in stand beside the entry's own keys.
        noun: what a person calls one entry.
        example: how such a file begins.
    """

    name: str
    entries: str
    model: type[Spec]
    head: tuple[str, ...] = (WORKSTREAM,)
    flat: bool = False
    noun: str
    example: str

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of one entry, options of plug-ins left out."""
        hidden = {*self.head, "options"} if self.flat else set(self.head)
        fields = self.model.model_fields.items()
        return tuple(field.alias or name for name, field in fields if name not in hidden)


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            name="connections",
            entries="connections",
            model=ConnectionSpec,
            flat=True,
            noun="connection",
            example="connections: [{name: erp, type: postgres, …}]",
        ),
        Kind(
            name="ingestion",
            entries="tables",
            model=IngestionSpec,
            head=(WORKSTREAM, "source"),
            noun="table",
            example="source: <connection>",
        ),
        Kind(
            name="processing",
            entries="steps",
            model=ProcessingSpec,
            noun="step",
            example="steps: [{name: orders, layer: silver, kind: sql, sql: sql/orders.sql}]",
        ),
        Kind(
            name="dbt",
            entries="projects",
            model=DbtSpec,
            noun="dbt project",
            example="projects: [{name: analytics, project: ../dbt/analytics}]",
        ),
        Kind(
            name="refresh",
            entries="dashboards",
            model=RefreshSpec,
            flat=True,
            noun="dashboard",
            example="dashboards: [{name: sales, type: page, shows: [gold.sales]}]",
        ),
        Kind(
            name="upkeep",
            entries="policies",
            model=UpkeepSpec,
            noun="policy",
            example="policies: [{name: compaction, operation: compact}]",
        ),
        Kind(
            name="alerts",
            entries="rules",
            model=AlertRule,
            noun="rule",
            example="rules: [{name: failures, channels: [team]}]",
        ),
    )
}
"""The kinds that list specs, by name."""

KIND_NAMES = (LOCATION, VARIABLES, *KINDS)
"""Every kind of control file."""

KNOWN_KEYS: dict[type[BaseModel], tuple[str, ...]] = {
    ColumnSpec: COLUMN_KEYS,
    **{kind.model: kind.keys for kind in KINDS.values()},
}
"""Keys as a person writes them, where they differ from a model's fields."""


def fields_of(kind: Kind, entry: Mapping[str, Any], head: Mapping[str, Any]) -> Plain:
    """The fields of a spec from one entry of a file.

    What has the wrong shape is passed on as it is: the model says what is wrong with it.

    Args:
        kind: of the file.
        entry: the entry.
        head: the keys at the top of the file, checked.
    """
    if kind.flat:
        own = {key: entry[key] for key in kind.keys if key in entry}
        options = {key: value for key, value in entry.items() if key not in own}
        return {**own, **head, "options": options}
    fields = {**entry, **head}
    columns = entry.get("columns")
    if isinstance(columns, dict):
        fields["columns"] = {name: _column_fields(column) for name, column in columns.items()}
    if kind.model is IngestionSpec and "table" not in entry and (table := default_table(entry.get("object"))):
        fields["table"] = table
    if kind.model is IngestionSpec and "query" in entry and "object" not in entry and "table" in entry:
        fields["object"] = entry["table"]
    return fields


def file_path(path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Where a person wrote what a spec has at a path."""
    if len(path) >= 3 and path[0] == "columns" and path[2] == "masking":
        return (*path[:2], *path[3:])
    return path


def default_table(object_: object) -> str | None:
    """The table that an object is named after: its last part, if that is a table's name and no file's ending."""
    if not isinstance(object_, str) or len(object_) > 255 or not _DOTTED.fullmatch(object_):
        return None
    last = object_.rpartition(".")[2]
    return last if is_name(last) and last not in _ENDINGS else None


def _column_fields(column: object) -> object:
    if not isinstance(column, dict) or "mask" not in column:
        return column
    own = {key: column[key] for key in ("description", "personal") if key in column}
    options = {key: value for key, value in column.items() if key not in COLUMN_KEYS}
    return {**own, "masking": {"mask": column["mask"], "options": options}}
