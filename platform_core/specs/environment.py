"""Named values of one environment: ``dagster_home/environments/<name>.yaml``.

The name is never compared in code: what differs between environments is a value in a file.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from platform_core.specs.base import Duration, Model, Name, Plain, SecretRef, Spec


class LakeSpec(Model):
    """Where tables live."""

    root: str = Field(description="Folder or URL; a relative folder counts from the state folder.")
    storage_options: dict[str, str | SecretRef] = Field(
        default_factory=dict, description="Options of the object store; what is secret is written {secret: <name>}."
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


class DatabaseSpec(Model):
    """A database that tables are served from; migrations name it with ``-- target: <name>``."""

    url: str | None = Field(
        description="postgresql+psycopg://<user>@<host>/<database>, without a password; null: this environment has "
        "none, and migrations of it are left out.",
    )
    password: SecretRef | None = Field(default=None, description="Password of the database's user.")


class PluginChoice(Model):
    """A plug-in and its options."""

    type: str
    options: Plain = Field(default_factory=dict)


class EnvironmentSpec(Spec):
    """What differs between a laptop, staging and production."""

    name: Name
    lake: LakeSpec
    secrets: PluginChoice = Field(description="The secret store.")
    secret_warning: Duration = Field(
        default=timedelta(days=30), description="How long before its end a secret is warned of, in lists and in logs."
    )
    engine: PluginChoice = Field(default=PluginChoice(type="local"))
    control: ControlSpec = Field(default=ControlSpec(), description="The control database.")
    databases: dict[Name, DatabaseSpec] = Field(
        default_factory=dict, description="Databases that tables are served from, by name."
    )
    max_concurrent: int = Field(default=8, ge=1, description="Most steps of one run at a time.")
    schedules: bool = Field(default=False, description="Whether schedules and sensors start by themselves.")
