"""A small company's control folder, and plug-ins that need nothing installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any, ClassVar

import pytest
from pydantic import Field

from platform_core.control.load import load_manifest
from platform_core.errors import ConfigError
from platform_core.plugins import registry
from platform_core.plugins.interfaces import Mask, ReadRequest, Source
from platform_core.specs.base import Model, SecretRef
from platform_core.specs.manifest import Manifest

GOOD = {
    "control/location.yaml": """\
        location: sales
        workstreams:
          - name: erp
            owners: [team:sales, a.user@example.com]
            schedule: {cron: "0 6 * * 1-5", timezone: Europe/Amsterdam}
        """,
    "control/variables.yaml": """\
        variables:
          database: {default: "${env.state}/erp.db", prod: /srv/erp.db}
          port: {default: 5432}
        """,
    "control/connections.yaml": """\
        connections:
          - name: erp
            type: server
            host: db.example.com
            port: ${var.port}
            password: {secret: erp/reader}
          - name: lists
            type: folder
            root: ${var.database}
            max_concurrent: 2
          - name: reports
            type: service
            tenant: example
        """,
    "control/ingestion/erp.yaml": """\
        source: erp
        tables:
          - object: public.customers
            mode: full
            key: [customer_id]
            columns:
              email: {mask: hash, domain: email}
              name:  {mask: full}
          - object: public.orders
            mode: incremental
            key: [order_id]
            cursor: updated_at
            lookback: 2 hours
        """,
    "control/processing/silver.yaml": """\
        steps:
          - name: order_totals
            layer: silver
            kind: sql
            sql: sql/order_totals.sql
            variables: {lowest: 10}
          - name: forecast
            layer: gold
            kind: python
            function: sales.steps:train
            depends_on: [silver.order_totals]
        """,
    "control/refresh.yaml": """\
        dashboards:
          - name: overview
            type: page
            shows: [silver.order_totals, gold.forecast]
            colour: blue
          - name: board
            type: service
            connection: reports
            shows: [gold.forecast]
        """,
    "sql/order_totals.sql": """\
        select customer_id, sum(amount) as amount
        from bronze.orders join bronze.customers using (customer_id)
        where amount > $lowest
        group by all
        """,
    "steps.py": "def train(context):\n    return None\n\nasync def later(context): ...\n",
    "__init__.py": "raise RuntimeError('nothing imports a location to check it')\n",
}


class ServerOptions(Model):
    host: str
    port: int = Field(default=5432, ge=1, le=65535)
    password: SecretRef


class FolderOptions(Model):
    root: str


class FolderObject(Model):
    format: str = "csv"


class HashOptions(Model):
    domain: str


class PageOptions(Model):
    colour: str = "red"


class ServiceConnection(Model):
    tenant: str


class Server(Source):
    Options: ClassVar[Any] = ServerOptions
    ObjectOptions: ClassVar[Any] = Model
    dialect = "sqlite"

    @classmethod
    def check_text(cls, request: ReadRequest) -> None:
        for what, text in (("query", request.query), ("filter", request.filter)):
            if text is not None and "drop" in text.lower():
                raise ValueError(f"the {what} drops something\n  write one that reads")


class Folder(Source):
    Options: ClassVar[Any] = FolderOptions
    ObjectOptions: ClassVar[Any] = FolderObject
    keeps_state = True


class FullMask(Mask):
    keeps_apart = False
    Options: ClassVar[Any] = Model


class HashMask(Mask):
    Options: ClassVar[Any] = HashOptions


class Page:
    Options: ClassVar[Any] = PageOptions
    ConnectionOptions: ClassVar[Any] = None


class Service:
    Options: ClassVar[Any] = Model
    ConnectionOptions: ClassVar[Any] = ServiceConnection


class SecretFiles:
    class Options(Model):
        root: str = "secrets"


class Engine:
    class Options(Model):
        threads: int = 2
        spill_folder: Path | None = None


@dataclass(frozen=True)
class Installed:
    """What an entry point looks like to the registry."""

    plugin: type[Any] | None

    def load(self) -> type[Any]:
        if self.plugin is None:
            raise ImportError("No module named 'driver'")
        return self.plugin


PLUGINS: dict[str, dict[str, Installed]] = {
    "source": {"server": Installed(Server), "folder": Installed(Folder), "broken": Installed(None)},
    "mask": {"full": Installed(FullMask), "hash": Installed(HashMask), "partial": Installed(FullMask)},
    "dashboard": {"page": Installed(Page), "service": Installed(Service), "broken_page": Installed(None)},
    "secret store": {"files": Installed(SecretFiles)},
    "engine": {"local": Installed(Engine)},
    "alert channel": {"post": Installed(SecretFiles)},
}


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The registry knows the plug-ins of this file only."""
    monkeypatch.setattr(registry, "_entries", PLUGINS.__getitem__)
    registry.plugin.cache_clear()
    yield
    registry.plugin.cache_clear()


Files = dict[str, str | bytes | None]


@dataclass(frozen=True)
class Package:
    """A location's package on disk."""

    root: Path

    @property
    def control(self) -> Path:
        return self.root / "control"

    def write(self, files: Files) -> Package:
        """Write, replace or (None) remove files of the package."""
        for name, content in files.items():
            file = self.root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                file.unlink()
            elif isinstance(content, bytes):
                file.write_bytes(content)
            else:
                file.write_text(dedent(content))
        return self

    def load(self, environment: str = "dev") -> Manifest:
        return load_manifest(self.control, environment=environment, state=Path("/state"))

    def faults(self, environment: str = "dev") -> str:
        """The text of the error that loading gives; fails the test if it gives none."""
        with pytest.raises(ConfigError) as caught:
            self.load(environment)
        return str(caught.value)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """The good package, in the current folder."""
    root = tmp_path / "sales"
    root.mkdir()
    monkeypatch.chdir(root)
    return Package(root).write(dict(GOOD))


@pytest.fixture
def make_package(tmp_path: Path) -> Callable[[str, Files], Package]:
    """Makes further packages beside each other."""

    def make(name: str, files: Files) -> Package:
        (tmp_path / name).mkdir()
        return Package(tmp_path / name).write(files)

    return make
