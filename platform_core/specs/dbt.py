"""A dbt project of analysts, as a part of the graph."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from platform_core.specs.base import Name, Owner, Spec
from platform_core.specs.processing import RESERVED_LAYERS
from platform_core.specs.run_policy import EntryPriority, EntryRetries, Paused, Timeout

_NEEDS_STATE = ("state:", "result:", "source_status:")


def _check_selector(value: str) -> str:
    if not value.strip() or value.startswith("-") or len(value) > 255:
        raise ValueError("must read like dbt's --select: tag:daily, +revenue, path:models/finance")
    if value.lstrip("+@0123456789").startswith(_NEEDS_STATE):
        raise ValueError("compares with another state of the project, which only `edp dbt build --modified` does")
    return value


Selector = Annotated[
    str, AfterValidator(_check_selector), Field(json_schema_extra={"examples": ["tag:daily", "+revenue"]})
]
"""Models in dbt's own words."""


class DbtSpec(Spec):
    """One dbt project, or a part of one; its models become assets ``[workstream, layer, model]``.

    A dbt source ``source('<workstream>', '<table>')`` with ``schema: <layer>`` is that table of the lake.
    """

    workstream: Name
    name: Name
    project: str = Field(description="Folder of the dbt project, relative to the location's package.")
    select: tuple[Selector, ...] = Field(
        default=(), description="Models of it, as for dbt's --select, such as tag:daily; default: all."
    )
    exclude: tuple[Selector, ...] = Field(default=(), description="Models to leave out, as for dbt's --exclude.")
    layer: Name = Field(default="gold", description="Layer of the models that readers see.")
    staging: Name = Field(
        default="staging",
        description="Layer of all other models: assets of that name, but no tables of the lake. Two projects of one "
        "workstream that both have a model of one name need one of their own each.",
    )
    target: str | None = Field(
        default=None, description="Target in profiles.yml; default: the environment's, then the profile's own."
    )
    publish: str = Field(
        default="marts",
        description="Models, seeds and snapshots below a folder of this name in models/, seeds/ or snapshots/ are "
        "published as Delta tables.",
    )
    description: str = ""
    owners: tuple[Owner, ...] = ()
    paused: Paused = False
    priority: EntryPriority = None
    retries: EntryRetries = None
    timeout: Timeout = None

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        for layer in (self.layer, self.staging):
            if layer in RESERVED_LAYERS:
                raise ValueError(f"layer '{layer}' belongs to the platform; use gold or a name of your own")
        if self.layer == self.staging:
            raise ValueError(f"layer and staging are both '{self.layer}': readers could not tell which tables exist")
        return self
