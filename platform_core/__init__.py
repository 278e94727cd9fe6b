"""The public API: what a team's code location needs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from platform_core.definitions import build_definitions
    from platform_core.errors import StepError
    from platform_core.operations.notebook import notebook_step
    from platform_core.operations.process import InputTable, StepContext

__all__ = ["InputTable", "StepContext", "StepError", "build_definitions", "notebook_step"]

_HOMES = {
    "build_definitions": "platform_core.definitions",
    "InputTable": "platform_core.operations.process",
    "StepError": "platform_core.errors",
    "StepContext": "platform_core.operations.process",
    "notebook_step": "platform_core.operations.notebook",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a step's module then costs no Dagster."""
    if name not in _HOMES:
        raise AttributeError(f"module 'platform_core' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
