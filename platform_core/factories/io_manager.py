"""The IO manager that refuses: data lives in the lake, never in pickled return values."""

from __future__ import annotations

import dagster as dg

from platform_core.errors import StepError


class RefusingIOManager(dg.IOManager):
    """Lets a step return nothing, or a ``MaterializeResult`` without a value; refuses everything else.

    Dagster's default would pickle each return value into its own storage: rows in a second place, outside the lake,
    kept for ever.
    """

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Accept None.

        Raises:
            StepError: any other value; names step, output and the value's type, never the value.
        """
        if obj is None:
            return
        raise StepError(
            f"{_source(context)} returned a value of type {type(obj).__name__}\n"
            "  Dagster stores no values here: write a table of the lake, return dagster.MaterializeResult without value"
        )

    def load_input(self, context: dg.InputContext) -> object:
        """There is never a stored value.

        Raises:
            StepError: always; names the input and what it wants to read.
        """
        wanted = "a value from outside the run" if context.upstream_output is None else _source(context.upstream_output)
        raise StepError(
            f"input '{context.name}' asks for the value of {wanted}\n"
            "  Dagster stores no values here: name the dependency in deps=[...] and read the table from the lake"
        )


def _source(context: dg.OutputContext) -> str:
    if context.has_asset_key:
        return f"asset {context.asset_key.to_user_string()}, output '{context.name}'"
    return f"step {context.step_key}, output '{context.name}'"


@dg.io_manager(description="Refuses to pickle: data lives in the lake.")
def refusing_io_manager() -> RefusingIOManager:
    """The IO manager that every location binds as ``io_manager``."""
    return RefusingIOManager()
