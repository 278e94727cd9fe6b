"""Where each table of the lake lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from platform_core.specs.table import TableRef


@dataclass(frozen=True)
class Lake:
    """The root folder or URL of all tables, and how its object store is reached."""

    root: str
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def table(self, ref: TableRef) -> str:
        """URI of a Delta table: ``<root>/<workstream>/<layer>/<name>``."""
        return "/".join((self.root.rstrip("/"), *ref))

    def landing(self, ref: TableRef) -> str:
        """URI of the folder that holds the landed batches of a bronze table."""
        return self.table(ref._replace(layer="landing"))

    def quarantine(self, ref: TableRef) -> str:
        """URI of the folder that holds the rows that loads of a bronze table set aside."""
        return self.table(ref._replace(layer="quarantine"))

    def source_state(self, ref: TableRef) -> str:
        """URI of the folder that holds what a source remembers of the loads of a bronze table."""
        return self.table(ref._replace(layer="source_state"))

    def dashboard(self, ref: TableRef) -> str:
        """URI of the folder that holds the files of a dashboard."""
        return self.table(ref)
