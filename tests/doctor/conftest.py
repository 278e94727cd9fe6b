"""A project of one location, and what doctor finds in it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import dedent

import pytest

from platform_core.control.environment import load_environment
from platform_core.control.store.store import ControlStore, open_store
from platform_core.operations.doctor import THIS_MACHINE, examine_environment
from platform_core.operations.doctor_findings import Check, Finding, Machine, Verdict
from platform_core.settings import Settings
from tests.services.postgres import PostgresServer

PASSWORD = "doctor-canary-4f7a"
FILES = {
    "workspace.yaml": """\
        load_from:
          - python_module: {module_name: shop.definitions, location_name: shop, working_directory: .}
        """,
    "shop/__init__.py": "",
    "shop/definitions.py": "",
    "shop/control/location.yaml": """\
        location: shop
        workstreams: [{name: shop, owners: ['team:shop']}]
        """,
    "shop/control/connections.yaml": """\
        connections:
          - {name: lists, type: files, root: '${env.state}/lists'}
        """,
    "shop/control/ingestion.yaml": """\
        source: lists
        tables:
          - {object: prices.csv, table: prices, mode: full, key: [item]}
        """,
    "state/lists/prices.csv": "item,price\nbread,3\n",
}


@dataclass
class Project:
    """A project in a folder of the test's."""

    folder: Path
    machine: Machine = THIS_MACHINE
    more: list[Check] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, text in FILES.items():
            self.write(name, text)
        self.write_environment()

    @property
    def settings(self) -> Settings:
        return Settings(
            project=self.folder, home=self.folder / "home", state=self.folder / "state", environment="staging"
        )

    def write(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
        return file

    def write_environment(self, *lines: str, lake: str = "{root: lake}") -> None:
        """The file of the environment, with further lines."""
        given = [f"lake: {lake}", "secrets: {type: files, options: {path: secrets}}", *lines]
        self.write("home/environments/staging.yaml", "\n".join(given) + "\n")

    def set_secret(self, name: str, value: str) -> None:
        file = self.write(f"state/secrets/{name}", value)
        file.parent.chmod(0o700)
        file.chmod(0o600)

    def use_server(self, server: PostgresServer, *, database: str, password: str | None = None) -> None:
        """Keep the control tables on a server."""
        self.set_secret("platform/control", password or server.password)
        url = f"postgresql+psycopg://{server.user}@{server.host}:{server.port}/{database}"
        self.write_environment(f"control: {{url: '{url}', password: {{secret: platform/control}}}}")

    def store(self) -> ControlStore:
        return open_store(load_environment(self.settings), state=self.settings.state)

    def prepare(self) -> None:
        """Make the control tables."""
        store = self.store()
        store.prepare()
        store.close()

    def skew(self, seconds: float) -> None:
        """Have this machine's clock go wrong."""
        off = dt.timedelta(seconds=seconds)
        self.machine = replace(self.machine, now=lambda: dt.datetime.now(dt.UTC) + off)

    def findings(self, *, limit: float = 20) -> list[Finding]:
        return list(examine_environment(self.settings, limit=limit, machine=self.machine, more=self.more).findings)

    def of(self, area: str, name: str | None = None) -> list[Finding]:
        """What is found in an area, about one thing or all."""
        return chosen(self.findings(), area, name)


def chosen(findings: Iterable[Finding], area: str, name: str | None = None) -> list[Finding]:
    return [each for each in findings if each.area == area and name in (None, each.name)]


def one(findings: Iterable[Finding], area: str, name: str) -> Finding:
    [found] = chosen(findings, area, name)
    return found


def failed(findings: Iterable[Finding]) -> list[str]:
    """Areas and names of what failed."""
    return [f"{each.area}: {each.name}" for each in findings if each.verdict is Verdict.FAILED]


Make = Callable[[], Project]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project in which all is well, on SQLite."""
    found = Project(tmp_path)
    (found.settings.state / "lake").mkdir()
    found.prepare()
    return found
