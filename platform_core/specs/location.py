"""The code location itself and its workstreams: ``control/location.yaml``."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, field_validator

from platform_core.specs.base import Model, Name, Owner, Spec
from platform_core.specs.run_policy import Priority

RESERVED_WORKSTREAMS = ("main", "memory", "system", "temp")
"""Databases that DuckDB has already; a workstream is a database in SQL."""


class Overlap(StrEnum):
    """What happens when a schedule's time comes while its previous run is active."""

    SKIP = "skip"
    QUEUE = "queue"


class CatchUp(StrEnum):
    """What happens to times that passed while nothing could be started."""

    NONE = "none"
    ONE = "one"


class ScheduleSpec(Model):
    """When the whole graph of a workstream runs."""

    cron: str = Field(description="Five cron fields.", examples=["0 6 * * *"])
    timezone: str = Field(default="UTC", description="IANA time zone in which the cron fields are read.")
    overlap: Overlap = Field(
        default=Overlap.QUEUE,
        description="While the previous run is active, skip this time, or queue one run that begins after it.",
    )
    catch_up: CatchUp = Field(
        default=CatchUp.ONE, description="After downtime, start none or one run for all the times that passed."
    )


class WorkstreamSpec(Spec):
    """A named stream of work inside a location; first part of every asset key and storage path."""

    name: Name
    description: str = ""
    owners: tuple[Owner, ...] = Field(
        min_length=1, description="E-mail addresses, or team:<name>.", examples=[["team:mobility"]]
    )
    schedule: ScheduleSpec | None = None
    priority: Priority = Field(
        default=0,
        description="-100 to 100, of its runs in the queue and of what it holds: the higher number goes first.",
    )

    @field_validator("name")
    @classmethod
    def _check_reserved(cls, name: str) -> str:
        if name in RESERVED_WORKSTREAMS:
            raise ValueError(f"'{name}' has a meaning of its own in SQL; choose another name")
        return name


class LocationSpec(Spec):
    """A team's package: which workstreams it holds."""

    name: Name
    description: str = ""
    workstreams: tuple[WorkstreamSpec, ...] = ()
