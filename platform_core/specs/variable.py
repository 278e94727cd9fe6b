"""Values that differ by environment: ``control/variables.yaml``, used as ``${var.name}`` in control YAML.

Two more are there without being declared: ``${env.state}``, the local folder of the installation, and
``${location.root}``, the folder of the location's package.
"""

from __future__ import annotations

from pydantic import Field

from platform_core.specs.base import Name, Spec

Value = str | int | float | bool
"""What a variable can hold; it keeps its type where it stands alone."""


class VariableSpec(Spec):
    """One variable: a default, and a value for each environment that differs."""

    name: Name
    default: Value | None = Field(
        default=None, description="Value wherever no other is given; None: each must give one."
    )
    values: dict[Name, Value] = Field(default_factory=dict, description="Value by name of environment.")
    description: str = ""

    def resolve(self, environment: str) -> Value | None:
        """The value in the named environment; None where none is given."""
        return self.values.get(environment, self.default)
