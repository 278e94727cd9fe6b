"""What git declares for the state machine's project, written as control files."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from tests.control_plane.conftest import Project

HOMES = ("crm", "finance")
"""The locations; the second one may leave the workspace."""

WORKSTREAMS = ("crm", "finance", "ship")
"""The last one moves between the locations."""


@dataclass(frozen=True)
class Table:
    """What git says of one table."""

    hours: int
    mask: str | None = None

    def written(self, name: str) -> str:
        options = {"hash": "mask: hash, domain: email", "full": "mask: full"}
        columns = f", columns: {{email: {{{options[self.mask]}}}}}" if self.mask else ""
        head = f"object: {name}, mode: incremental, key: [id], cursor: updated_at"
        return f"  - {{{head}, lookback: {self.hours} hours{columns}}}"


@dataclass
class Git:
    """What the control files declare."""

    tables: dict[str, dict[str, Table]]
    home: dict[str, str]
    paths: dict[str, int]
    listed: tuple[str, ...] = HOMES

    def names(self) -> set[tuple[str, str, str]]:
        """Location, address and lookback of every table of the listed locations."""
        return {
            (self.home[workstream], f"{workstream}.{name}", f"{table.hours} hours")
            for workstream, tables in self.tables.items()
            for name, table in tables.items()
            if self.home[workstream] in self.listed
        }

    def write(self, project: Project) -> None:
        entries = "".join(
            f"  - python_module: {{module_name: {name}.definitions, location_name: {name}, working_directory: .}}\n"
            for name in self.listed
        )
        project.write("workspace.yaml", f"load_from:\n{entries}")
        for home in HOMES:
            shutil.rmtree(project.folder / home / "control", ignore_errors=True)
            own = [name for name in WORKSTREAMS if self.home[name] == home]
            listed = ", ".join(f"{{name: {name}, owners: [team:{name}]}}" for name in own)
            project.write(f"{home}/control/location.yaml", f"location: {home}\nworkstreams: [{listed}]\n")
            default = f'"${{env.state}}/{self.paths[home]}.db"'
            project.write(f"{home}/control/variables.yaml", f"variables:\n  database: {{default: {default}}}\n")
            for name in own:
                head = f"workstream: {name}\n"
                path = '"${var.database}"'
                project.write(
                    f"{home}/control/connections/{name}.yaml",
                    f"{head}connections:\n  - {{name: erp, type: sqlite, path: {path}}}\n",
                )
                if tables := self.tables[name]:
                    lines = "\n".join(table.written(each) for each, table in tables.items())
                    project.write(f"{home}/control/ingestion/{name}.yaml", f"{head}source: erp\ntables:\n{lines}\n")
