"""Values that differ by environment: ``control/variables.yaml``, used as ``${var.name}`` in control YAML."""

from __future__ import annotations

from pydantic import Field

from platform_core.specs.base import Name, Spec


class VariableSpec(Spec):
    """One variable: a default, and a value for each environment that differs."""

    name: Name
    default: str | None = Field(default=None, description="Value wherever no other is given; None: each must give one.")
    values: dict[str, str] = Field(default_factory=dict, description="Value by name of environment.")
    description: str = ""

    def resolve(self, environment: str) -> str | None:
        """The value in the named environment; None where none is given."""
        return self.values.get(environment, self.default)
