"""Where each table of the lake lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from platform_core.specs.person import PEOPLE, Person
from platform_core.specs.table import TableRef

ROOT_VARIABLE = "EDP_LAKE_ROOT"
SHARED_ROOT_VARIABLE = "EDP_LAKE_SHARED_ROOT"
"""Environment variables that tell a dbt process a lake's ``root`` and ``shared``."""

DEFERRED_VARIABLE = "EDP_DBT_DEFERRED"
"""And which models of the project are tables of the lake: JSON, schema and name in dbt's database, then the table."""


@dataclass(frozen=True)
class Lake:
    """The root folder or URL of all tables, and how its object store is reached.

    All writers get their paths from :meth:`table` and its neighbours, which never leave ``root``.

    Args:
        root: of the tables that are made here: all of them, or those of one person.
        shared: root of the tables that are read where the person has none; None: the lake is nobody's own. Readers
            ask :meth:`shared_table` for it, and nothing else does.
    """

    root: str
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)
    shared: str | None = None

    def __post_init__(self) -> None:
        if self.shared is not None and not self.root.startswith(f"{self.shared.rstrip('/')}/{PEOPLE}/"):
            raise ValueError(f"{self.root} is no person's folder of the lake {self.shared}")

    @classmethod
    def of(cls, root: str, person: Person | None, *, storage_options: Mapping[str, str]) -> Lake:
        """The lake at ``root`` as a person sees it, or as everybody does."""
        if person is None:
            return cls(root, storage_options)
        return cls(person.root(root), storage_options, root)

    def table(self, ref: TableRef) -> str:
        """URI of a Delta table: ``<root>/<workstream>/<layer>/<name>``."""
        return "/".join((self.root.rstrip("/"), *ref))

    def shared_table(self, ref: TableRef) -> str | None:
        """URI of the shared table of this name, to be read and never written; None where the lake is nobody's own."""
        return None if self.shared is None else Lake(self.shared).table(ref)

    def places(self, ref: TableRef) -> str:
        """Where a table is looked for by readers, for messages."""
        shared = self.shared_table(ref)
        return self.table(ref) if shared is None else f"{self.table(ref)}, then {shared}"

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
