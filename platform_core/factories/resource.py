"""The one resource of all assets: the platform, opened for a step."""

import datetime as dt
from functools import cache
from typing import Any

import dagster as dg
from pydantic import Field

from platform_core.control.environment import load_environment
from platform_core.execution import cancel_requested
from platform_core.operations.platform import Platform, open_platform
from platform_core.operations.run_options import RunOptions, run_options
from platform_core.settings import Settings, arm_fault, read_settings

PLATFORM = "platform"
"""Key of the resource."""


@cache
def _opened(settings: Settings) -> Platform:
    arm_fault()
    return open_platform(load_environment(settings), state=settings.state)


def opened_platform() -> Platform:
    """The platform of this process, for what runs beside steps; errors as of :meth:`PlatformResource.open`."""
    return _opened(read_settings())


class PlatformResource(dg.ConfigurableResource[Any]):
    """Gives a step the platform of its environment; its configuration is what a run asks of all its steps."""

    full_refresh: bool = Field(
        default=False, description="Make the tables of steps and dbt models anew, as if no run had been before."
    )
    since: str | None = Field(
        default=None, description="Backfill: the first moment of the range, such as 2026-01-31; UTC without a zone."
    )
    until: str | None = Field(
        default=None, description="The first moment after the range; none: the present, when each step begins."
    )

    def open(self, context: dg.AssetExecutionContext) -> Platform:
        """The platform with the log and the cancellation of this step.

        Raises:
            ConfigError: the environment's file is wrong, or what the run asks for contradicts itself.
            PluginError: a plug-in that the environment names is missing.
        """
        run = run_options(
            run=context.run.root_run_id or context.run.run_id,
            full_refresh=self.full_refresh,
            since=self.since,
            until=self.until,
            now=dt.datetime.now(dt.UTC),
        )
        return opened_platform().for_step(context.log, lambda: cancel_requested(context), run=run)


def run_config(asked: RunOptions) -> dict[str, Any]:
    """Run configuration that asks it of all steps of a run; empty where nothing is asked for."""
    given: dict[str, Any] = {"full_refresh": True} if asked.full_refresh else {}
    if asked.window is not None:
        given |= {"since": asked.window.start.isoformat(), "until": asked.window.end.isoformat()}
    return {"resources": {PLATFORM: {"config": given}}} if given else {}
