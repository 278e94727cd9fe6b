"""A dbt project of analysts, as a part of the graph."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from platform_core.specs.base import Name, Owner, Spec
from platform_core.specs.processing import RESERVED_LAYERS


class DbtSpec(Spec):
    """One dbt project; its models become assets ``[workstream, layer, model]``.

    A dbt source ``source('<workstream>', '<table>')`` with ``schema: <layer>`` is that table of the lake.
    """

    workstream: Name
    name: Name
    project: str = Field(description="Folder of the dbt project, relative to the location's package.")
    layer: Name = Field(default="gold", description="Layer of the models that readers see.")
    target: str | None = Field(default=None, description="Target in profiles.yml; default: the profile's own.")
    publish: str = Field(
        default="marts", description="Models below this folder of models/ are published as Delta tables."
    )
    description: str = ""
    owners: tuple[Owner, ...] = ()

    @model_validator(mode="after")
    def _check_layer(self) -> Self:
        if self.layer in RESERVED_LAYERS:
            raise ValueError(f"layer '{self.layer}' belongs to the platform; use gold or a name of your own")
        return self
