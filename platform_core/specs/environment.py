"""Named values of one environment: ``dagster_home/environments/<name>.yaml``.

The name is never compared in code: what differs between environments is a value in a file.
"""

from __future__ import annotations

from pydantic import Field

from platform_core.specs.base import Model, Name, Plain, Spec


class LakeSpec(Model):
    """Where tables live."""

    root: str = Field(description="Folder or URL; a relative folder counts from the state folder.")
    storage_options: dict[str, str] = Field(default_factory=dict)


class PluginChoice(Model):
    """A plug-in and its options."""

    type: str
    options: Plain = Field(default_factory=dict)


class EnvironmentSpec(Spec):
    """What differs between a laptop, staging and production."""

    name: Name
    lake: LakeSpec
    secrets: PluginChoice = Field(description="The secret store.")
    engine: PluginChoice = Field(default=PluginChoice(type="local"))
    max_concurrent: int = Field(default=8, ge=1, description="Most steps of one run at a time.")
    schedules: bool = Field(default=False, description="Whether schedules and sensors start by themselves.")
