"""Dashboards, refreshed only when all that they show is up to date."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from platform_core.specs.base import Name, Owner, Plain, Spec, TableName, Tags
from platform_core.specs.run_policy import EntryPriority, EntryRetries, Paused, Timeout
from platform_core.specs.table import TableRef


class Cut(StrEnum):
    """Which tables a dashboard may show together."""

    CONSISTENT = "consistent"
    LATEST = "latest"


class RefreshSpec(Spec):
    """One dashboard and the tables it shows.

    Every key beside the fields below is an option of the dashboard plug-in named by ``type``.
    """

    workstream: Name
    name: Name
    type: str = Field(description="Name of the dashboard plug-in: page, powerbi, …")
    connection: Name | None = Field(
        default=None, description="Connection to the dashboard service, where it needs one."
    )
    shows: tuple[TableName, ...] = Field(min_length=1, description="Tables: layer.name or workstream.layer.name.")
    paused: Paused = False
    cut: Cut = Field(
        default=Cut.CONSISTENT,
        description="consistent: only while all it shows is made from one state of whatever is behind; latest: as is.",
    )
    title: str = ""
    description: str = ""
    tags: Tags = Field(default_factory=dict)
    owners: tuple[Owner, ...] = ()
    priority: EntryPriority = None
    retries: EntryRetries = None
    timeout: Timeout = None
    options: Plain = Field(default_factory=dict)

    @property
    def ref(self) -> TableRef:
        """The dashboard, addressed like a table: ``workstream.dashboard.name``."""
        return TableRef(self.workstream, "dashboard", self.name)

    @property
    def inputs(self) -> tuple[TableRef, ...]:
        """The tables it shows, in declared order."""
        return tuple(TableRef.parse(text, workstream=self.workstream) for text in self.shows)
