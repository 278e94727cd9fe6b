"""The one resource of all assets: the platform, opened for a step."""

from functools import cache
from typing import Any

import dagster as dg

from platform_core.control.environment import load_environment
from platform_core.execution import cancel_requested
from platform_core.operations.platform import Platform, open_platform
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
    """Gives a step the platform of its environment; holds no value that a run could store."""

    def open(self, context: dg.AssetExecutionContext) -> Platform:
        """The platform with the log and the cancellation of this step.

        Raises:
            ConfigError: the environment's file is wrong.
            PluginError: a plug-in that it names is missing.
        """
        return opened_platform().for_step(context.log, lambda: cancel_requested(context))
