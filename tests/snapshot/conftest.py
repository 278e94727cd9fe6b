"""A project whose code locations load snapshots."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from platform_core.control.snapshot.content import Snapshot
from platform_core.control.snapshot.loading import load_snapshot
from platform_core.control.snapshot.publish import Published, publish_snapshot
from tests.control_plane.conftest import Databases, Project


class Publishing:
    """A project of two teams, applied at serial 1, and what is published of it."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.state = project.settings().state
        self.folder = self.state / "lake/_platform/manifests/dev"
        project.write_environment("dev", manifest="snapshot")

    def publish(self) -> Published:
        return publish_snapshot(self.project.environment(), self.project.store(), state=self.state)

    def load(self, location: str = "crm", *, digest: str | None = None) -> Snapshot:
        return load_snapshot(
            self.project.folder / location, environment=self.project.environment(), state=self.state, digest=digest
        )

    def change(self, hours: int) -> int:
        """Apply a change of one table; returns the serial."""
        file = self.project.folder / "crm/control/ingestion.yaml"
        lines = [
            f"    lookback: {hours} hours" if "lookback:" in line else line for line in file.read_text().splitlines()
        ]
        file.write_text("\n".join(lines) + "\n")
        return self.project.apply().serial

    def lookback(self, location: str = "crm") -> str:
        """The value that :meth:`change` changes, as it is published."""
        [table] = [each for each in self.load(location).manifest.ingestions if each.table == "orders"]
        return str(table.lookback)

    def pointer_file(self, location: str = "crm") -> Path:
        return self.folder / location / "pointer.json"

    def pointer(self, location: str = "crm") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.pointer_file(location).read_text())
        return found

    def content_file(self, location: str = "crm") -> Path:
        return self.folder / location / f"{self.pointer(location)['content']}.json"


@pytest.fixture(scope="session")
def snapshot_databases(tmp_path_factory: pytest.TempPathFactory) -> Databases:
    """Applied databases are copied: applying takes longer than most tests."""
    return Databases(None, tmp_path_factory.mktemp("templates"))


@pytest.fixture
def publishing(snapshot_databases: Databases, tmp_path: Path) -> Iterator[Publishing]:
    """Applied, and not published yet."""
    yield Publishing(snapshot_databases.project(tmp_path, state="applied"))
    snapshot_databases.close()


@pytest.fixture
def published(publishing: Publishing) -> Publishing:
    """Applied and published at serial 1."""
    publishing.publish()
    return publishing
