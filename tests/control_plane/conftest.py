"""A project of two teams, and control databases of both kinds that its metadata is applied to."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import sqlalchemy as sa

from platform_core.control.environment import load_environment
from platform_core.control.plan.applying import Applied, apply_plan
from platform_core.control.plan.plan import Change, Plan
from platform_core.control.plan.planning import plan_from_git, plan_rollback
from platform_core.control.store.rows import read_manifest
from platform_core.control.store.store import ControlStore, open_store
from platform_core.settings import Settings
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.manifest import Manifest
from tests.forked import start_forked
from tests.services.postgres import PostgresServer

AUTHOR = "A. Tester <a.tester@example.com>"
PROJECT = Path(__file__).parents[2]

FILES = {
    "workspace.yaml": """\
        load_from:
          - python_module: {module_name: crm.definitions, location_name: crm, working_directory: .}
          - python_module: {module_name: finance.definitions, location_name: finance, working_directory: .}
        """,
    "crm/control/location.yaml": """\
        location: crm
        workstreams: [{name: crm, owners: [team:crm]}]
        """,
    "crm/control/variables.yaml": """\
        variables:
          database: {default: "${env.state}/crm.db"}
        """,
    "crm/control/connections.yaml": """\
        connections:
          - {name: crm, type: sqlite, path: "${var.database}"}
          - {name: lists, type: files, root: "${location.root}/lists"}
        """,
    "crm/control/ingestion.yaml": """\
        source: crm
        tables:
          - object: customers
            mode: full
            key: [id]
            columns:
              email: {mask: hash, domain: email, personal: true}
              name: {mask: full, personal: true}
          - object: orders
            mode: incremental
            key: [id]
            cursor: updated_at
            lookback: 2 hours
            columns:
              phone: {mask: partial, keep_last: 2, personal: true}
        """,
    "finance/control/location.yaml": """\
        location: finance
        workstreams: [{name: finance, owners: [team:finance]}]
        """,
    "finance/control/processing.yaml": """\
        steps:
          - name: margin
            layer: gold
            kind: sql
            sql: sql/margin.sql
            owners: [m.owner@example.com]
        """,
    "finance/control/refresh.yaml": """\
        dashboards:
          - name: board
            type: page
            shows: [gold.margin]
            figures: [{title: Orders, table: gold.margin, column: id, aggregate: count}]
        """,
    "finance/sql/margin.sql": "SELECT id FROM crm.bronze.orders\n",
}


class Worker:
    """Another process; ended with the test."""

    def __init__(self, folder: Path) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("EDP_", "DAGSTER_"))}
        self._process = start_forked([str(folder)], env=inherited, cwd=PROJECT, module="tests.control_plane.worker")

    def ask(self, command: str) -> Any:
        """Give a command and wait for the answer."""
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def kill(self) -> None:
        """End it, unless the test has done so."""
        if not self._process.stdout.closed:
            self._process.kill()
            self._process.communicate()


@dataclass
class Project:
    """A project in a folder of the test's, and the control tables of its environments."""

    folder: Path
    control: dict[str, Any]
    password: str | None = None
    opened: list[ControlStore] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    kept: dict[str, ControlStore] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for location in ("crm", "finance"):
            for name in ("__init__.py", "definitions.py"):
                self.write(f"{location}/{name}", "")
        for name, text in FILES.items():
            self.write(name, text)
        self.write_environment("dev")
        if self.password is not None:
            file = self.folder / "state" / "secrets" / "platform" / "control"
            file.parent.mkdir(parents=True, mode=0o700)
            file.touch(mode=0o600)
            file.write_text(self.password)

    def write(self, name: str, text: str) -> Path:
        """A file of the project, in place of what it was."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
        return file

    def edit(self, name: str, old: str, new: str) -> None:
        """Put one text of a file in the place of another."""
        file = self.folder / name
        text = file.read_text()
        assert old in text, (old, text)
        file.write_text(text.replace(old, new))

    def write_environment(self, name: str, **control: Any) -> None:
        lines = [
            "lake: {root: lake}",
            "secrets: {type: files, options: {path: secrets}}",
            f"control: {json.dumps(self.control | control)}",
        ]
        self.write(f"home/environments/{name}.yaml", "\n".join(lines) + "\n")

    def settings(self, environment: str = "dev") -> Settings:
        return Settings(
            project=self.folder, home=self.folder / "home", state=self.folder / "state", environment=environment
        )

    def environment(self, name: str = "dev") -> EnvironmentSpec:
        return load_environment(self.settings(name))

    def store(self, environment: str = "dev") -> ControlStore:
        """The control tables as another process opens them."""
        found = open_store(self.environment(environment), state=self.folder / "state")
        self.opened.append(found)
        return found

    def at_hand(self, environment: str = "dev") -> ControlStore:
        """The same for all that one process does: a store that was just opened compiles every statement anew."""
        spec = self.environment(environment)
        if spec.control.url not in self.kept:
            self.kept[str(spec.control.url)] = open_store(spec, state=self.folder / "state")
        return self.kept[str(spec.control.url)]

    def begin_anew(self) -> None:
        """What comes is done by another process: it has looked at nothing yet."""
        while self.kept:
            self.kept.popitem()[1].close()

    def plan(self, *locations: str, environment: str = "dev") -> Plan:
        return plan_from_git(
            self.settings(environment),
            self.environment(environment),
            self.at_hand(environment),
            author=AUTHOR,
            locations=locations,
        )

    def apply(self, plan: Plan | None = None, *, approve: str | None = None, environment: str = "dev") -> Applied:
        return apply_plan(
            plan or self.plan(environment=environment),
            self.environment(environment),
            self.at_hand(environment),
            author=AUTHOR,
            approval=approve,
        )

    def rollback(self, serial: int) -> Plan:
        return plan_rollback(self.settings(), self.environment(), self.at_hand(), serial=serial, author=AUTHOR)

    def manifest(self, location: str) -> Manifest:
        """What is applied of a location."""
        return self.at_hand().read(
            lambda connection: read_manifest(
                connection, location, root=self.folder / location, state=self.folder / "state"
            )
        )

    def sql(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Run a statement in the control database, as a person would."""

        def run(connection: sa.Connection) -> list[tuple[Any, ...]]:
            found = connection.execute(sa.text(statement.replace("control.", self.schema)), values)
            return [tuple(row) for row in found] if found.returns_rows else []

        return self.at_hand().change(run)

    @property
    def schema(self) -> str:
        return "control." if self.password is not None else ""

    def worker(self) -> Worker:
        """A process that works on this project: see ``worker.py``."""
        found = Worker(self.folder)
        self.workers.append(found)
        return found

    def close(self) -> None:
        self.begin_anew()
        for store in self.opened:
            store.close()
        for worker in self.workers:
            worker.kill()


def changed(plan: Plan) -> dict[str, str]:
    """What a plan does, by kind and address."""
    return {f"{change.kind} {change.address}": str(change.action) for change in plan.changes}


def change_of(plan: Plan, address: str) -> Change:
    [found] = [change for change in plan.changes if change.address == address]
    return found


class Databases:
    """Control databases of one kind, made as copies: bringing an empty one up to date takes longer than most tests."""

    def __init__(self, server: PostgresServer | None, folder: Path) -> None:
        self._server = server
        self._templates = folder
        self._made: dict[str, str] = {}
        self._projects: list[Project] = []
        self.name = "sqlite" if server is None else "postgresql"

    def project(self, folder: Path, *, state: str = "new") -> Project:
        """A project whose control database is ``new``, ``prepared``, or ``applied``: at serial 1."""
        template = None if state == "new" else self._template(state)
        if self._server is None:
            found = Project(folder, {})
            if template is not None:
                found.settings().state.mkdir(parents=True, exist_ok=True)
                shutil.copy(template, found.settings().state / "control.db")
        else:
            found = Project(folder, self._control(self._database(template)), self._server.password)
        self._projects.append(found)
        return found

    def close(self) -> None:
        while self._projects:
            self._projects.pop().close()

    def _template(self, state: str) -> str:
        if state not in self._made:
            project = self.project(self._templates / state)
            project.store().prepare()
            if state == "applied":
                project.apply()
            project.close()
            self._made[state] = (
                str(project.settings().state / "control.db")
                if self._server is None
                else project.control["url"].rpartition("/")[2]
            )
        return self._made[state]

    def _database(self, template: str | None) -> str:
        assert self._server is not None
        if template is None:
            return self._server.create_database()
        name = f"test_{secrets.token_hex(8)}"
        self._server.execute(f"CREATE DATABASE {name} TEMPLATE {template}", database="postgres")
        return name

    def _control(self, database: str) -> dict[str, Any]:
        assert self._server is not None
        url = f"postgresql+psycopg://{self._server.user}@{self._server.host}:{self._server.port}/{database}"
        return {"url": url, "password": {"secret": "platform/control"}}


_MADE = pytest.StashKey[dict[str, Databases]]()


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def all_databases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Databases:
    """Databases of each kind, for the session."""
    # Module by module each kind gets its turn, and rooms have this fixture of their own: what is copied is made once.
    made = request.config.stash.setdefault(_MADE, {})
    if request.param not in made:
        server = request.getfixturevalue("postgres_server") if request.param == "postgresql" else None
        made[request.param] = Databases(server, tmp_path_factory.mktemp("templates"))
    return made[request.param]


@pytest.fixture
def control_seed() -> int:
    """``CONTROL_SEED``; else a new one in the long form, and always the same in the short one, which gates merges."""
    if (given := os.environ.get("CONTROL_SEED")) is not None:
        return int(given)
    return random.SystemRandom().randrange(2**32) if int(os.environ.get("CONTROL_SCALE", "1")) > 1 else 1


@pytest.fixture
def control_scale() -> int:
    """How many times as much as usual is played: ``CONTROL_SCALE``."""
    return int(os.environ.get("CONTROL_SCALE", "1"))


@pytest.fixture
def control_shrinks() -> bool:
    """Whether what the state machine finds is made short, which may take minutes: ``CONTROL_SHRINK=1``."""
    return os.environ.get("CONTROL_SHRINK") == "1"


@pytest.fixture
def databases(all_databases: Databases) -> Iterator[Databases]:
    """Databases of each kind; what a test opened is closed after it."""
    yield all_databases
    all_databases.close()


@pytest.fixture
def project(databases: Databases, tmp_path: Path) -> Project:
    """Two teams whose metadata was never applied."""
    return databases.project(tmp_path, state="prepared")


@pytest.fixture
def applied(databases: Databases, tmp_path: Path) -> Project:
    """Two teams whose metadata is applied, at serial 1."""
    return databases.project(tmp_path, state="applied")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--applies", type=int, default=20, help="Concurrent applies in the control plane's tests.")
    parser.addoption("--kills", type=int, default=12, help="Kills during applies in the control plane's tests.")
