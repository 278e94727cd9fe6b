"""Named values of one environment: ``dagster_home/environments/<name>.yaml``.

The name is never compared in code: what differs between environments is a value in a file.
"""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo

from platform_core.errors import ConfigError, Issue, Place
from platform_core.specs.alerts import AlertsSpec
from platform_core.specs.base import Duration, Model, Name, Plain, SecretRef, Spec
from platform_core.specs.person import Person
from platform_core.specs.run_policy import MaxConcurrent
from platform_core.specs.upkeep import Size

_FOLDER = Path("dagster_home/environments")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,254}")


class LakeSpec(Model):
    """Where tables live."""

    root: str = Field(description="Folder or URL; a relative folder counts from the state folder.")
    storage_options: dict[str, str | SecretRef] = Field(
        default_factory=dict, description="Options of the object store; what is secret is written {secret: <name>}."
    )


class ManifestOrigin(StrEnum):
    """Where code locations get their metadata from."""

    FILES = "files"
    SNAPSHOT = "snapshot"


class SnapshotsSpec(Model):
    """Where applied metadata is published."""

    root: str = Field(description="Folder or fsspec URL; a relative folder counts from the state folder.")
    storage_options: dict[str, SecretRef | str | bool | int | Plain] = Field(
        default_factory=dict,
        description="Options of the fsspec file system; what is secret is written {secret: <name>}.",
    )


class ControlSpec(Model):
    """Where leases, the load log and all that is applied is kept."""

    url: str = Field(
        default="sqlite:///control.db",
        description="SQLAlchemy URL without a password: sqlite:///<file> (relative: in the state folder) or "
        "postgresql+psycopg://<user>@<host>/<database>.",
    )
    password: SecretRef | None = Field(default=None, description="Password of the database's user.")
    max_deletes: int = Field(
        default=10, ge=0, description="A plan that deletes more rows of the control tables needs a person's reason."
    )
    lease: Duration = Field(
        default=timedelta(seconds=60), description="How long a lease holds without a sign of life of its holder."
    )
    manifest: ManifestOrigin = Field(
        default=ManifestOrigin.FILES,
        description="What code locations load: their control files, or the snapshot that each apply publishes.",
    )
    snapshots: SnapshotsSpec | None = Field(
        default=None, description="Where snapshots are published; default: _platform/manifests in the lake."
    )


class DatabaseSpec(Model):
    """A database that tables are served from; migrations name it with ``-- target: <name>``."""

    url: str | None = Field(
        description="postgresql+psycopg://<user>@<host>/<database>, without a password; null: this environment has "
        "none, and migrations of it are left out.",
    )
    password: SecretRef | None = Field(default=None, description="Password of the database's user.")


class DatabricksSpec(Model):
    """A SQL warehouse or cluster of Databricks, and who signs in: a token, or a service principal."""

    host: str = Field(
        pattern=r"^[A-Za-z0-9.-]+$",
        description="Its host name, without https://.",
        examples=["adb-1234.5.azuredatabricks.net"],
    )
    http_path: str = Field(
        pattern=r"^/?sql/[^?\s]+$",
        description="Its HTTP path, from its connection details.",
        examples=["/sql/1.0/warehouses/abc"],
    )
    catalog: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="Catalog of Unity Catalog that models are built in.")
    token: SecretRef | None = Field(default=None, description="Personal access token; or client_id and client_secret.")
    client_id: str | None = Field(default=None, description="Service principal that signs in by OAuth.")
    client_secret: SecretRef | None = Field(default=None, description="Its secret.")

    @model_validator(mode="after")
    def _check_sign_in(self) -> Self:
        if [self.token is None, self.client_id is None, self.client_secret is None] not in (
            [False, True, True],
            [True, False, False],
        ):
            raise ValueError("needs either a token, or a client_id with its client_secret")
        return self


class DbtChoice(Model):
    """Where dbt projects are built: in DuckDB, or in what the environment has beside it."""

    target: str | None = Field(
        default=None, description="Target in each project's profiles.yml; default: the profile's own."
    )
    database: Name | None = Field(
        default=None,
        description="One of databases, which a target of type postgres builds in: the lake tables that models read are "
        "copied there, and what models publish is copied back.",
    )
    databricks: DatabricksSpec | None = Field(
        default=None,
        description="What a target of type databricks builds in; it reads the lake's tables in place, and what models "
        "publish is copied back.",
    )
    variables: dict[str, str | SecretRef] = Field(
        default_factory=dict,
        description="Environment variables for profiles.yml, such as {PGHOST: db.example}; a secret is written "
        "{secret: <name>}, and its variable begins with DBT_ENV_SECRET_, which keeps it out of dbt's logs.",
    )

    @field_validator("variables")
    @classmethod
    def _check_variables(cls, value: dict[str, str | SecretRef]) -> dict[str, str | SecretRef]:
        for name, given in value.items():
            if not _VARIABLE.fullmatch(name) or name.startswith("EDP_"):
                raise ValueError("a variable's name is upper case letters, digits and _, and does not begin with EDP_")
            if isinstance(given, SecretRef) and not name.startswith("DBT_ENV_SECRET_"):
                raise ValueError("a variable that holds a secret begins with DBT_ENV_SECRET_")
        return value


class LogsSpec(Model):
    """Log files for Loki, Elastic and the like, in ``logs/`` of the state folder."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    max_size: Size = Field(default=16 * 1024**2, description="A file begins anew at this size, such as 16 MB.")
    files: int = Field(default=4, ge=2, le=100, description="Files that one process may leave, its newest included.")
    keep: Duration = Field(default=timedelta(days=14), description="Files of ended processes go after this time.")


class PluginChoice(Model):
    """A plug-in and its options."""

    type: str
    options: Plain = Field(default_factory=dict)


class EngineChoice(PluginChoice):
    """An engine, its options, and how many steps may use it."""

    max_concurrent: MaxConcurrent | None = Field(
        default=None,
        description="Most steps that may use the engine at a time, in all runs together; default: no limit but that "
        "of each run.",
    )


class EnvironmentSpec(Spec):
    """What differs between a laptop, staging and production."""

    name: Name
    lake: LakeSpec
    secrets: PluginChoice = Field(description="The secret store.")
    secret_warning: Duration = Field(
        default=timedelta(days=30), description="How long before its end a secret is warned of, in lists and in logs."
    )
    engine: EngineChoice = Field(default=EngineChoice(type="local"))
    spark: EngineChoice | None = Field(
        default=None,
        description="Where steps of kind spark get their session, and of type local dbt targets of type spark theirs; "
        "default: there are none of them here.",
    )
    control: ControlSpec = Field(default=ControlSpec(), description="The control database.")
    databases: dict[Name, DatabaseSpec] = Field(
        default_factory=dict, description="Databases that tables are served from, by name."
    )
    dbt: DbtChoice = Field(default=DbtChoice(), description="How dbt projects are built.")
    alerts: AlertsSpec | None = Field(default=None, description="How people are told; default: nobody is.")
    logs: LogsSpec | None = Field(
        default=None, description="Logs of steps as JSON lines, one file a process; default: none are written."
    )
    max_concurrent: int = Field(default=8, ge=1, description="Most steps of one run at a time.")
    schedules: bool = Field(default=False, description="Whether schedules and sensors start by themselves.")
    developer: bool = Field(
        default=False,
        description="Personal development: every table, schema and dashboard is the user's own, and what a user has "
        "not built is read from the shared tables of the lake. Schedules stay off.",
    )

    _person: Person | None = PrivateAttr(default=None)

    @field_validator("dbt")
    @classmethod
    def _check_dbt(cls, value: DbtChoice, info: ValidationInfo) -> DbtChoice:
        known = info.data.get("databases", {})
        if value.database is not None and value.database not in known:
            names = ", ".join(known) or "none is declared"
            raise ValueError(f"database '{value.database}' is not one of 'databases': {names}")
        return value

    @field_validator("developer")
    @classmethod
    def _check_developer(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("schedules"):
            raise ValueError("a personal environment starts nothing by itself: remove 'schedules: true'")
        if value and info.data.get("alerts") is not None:
            raise ValueError("what one person tries out is nobody else's alarm: remove 'alerts'")
        control = info.data.get("control")
        if value and isinstance(control, ControlSpec) and control.manifest is not ManifestOrigin.FILES:
            raise ValueError("a personal environment runs what its user's control files say: remove 'manifest'")
        return value

    def used_by(self, person: Person | None) -> Self:
        """Remember who uses it; returns the spec. None: it is not known who."""
        self._person = person
        return self

    @property
    def person(self) -> Person | None:
        """Whose tables are made in it; None where they are everybody's.

        Raises:
            ConfigError: they are somebody's, and it is not known whose.
        """
        if not self.developer:
            return None
        if self._person is None:
            raise ConfigError(
                [
                    Issue(
                        self.place or Place(_FOLDER / f"{self.name}.yaml"),
                        f"environment '{self.name}' is a personal one, and it is not known whose tables are meant",
                        (
                            "looked at: EDP_USER, then the account of this process, which must not be one that many "
                            "machines have (root, ubuntu, …)",
                            "set EDP_USER to your name, such as EDP_USER=anna",
                        ),
                    )
                ]
            )
        return self._person
