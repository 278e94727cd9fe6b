"""Give a PySpark function its session, and take the frame that it returns as Arrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from platform_core.errors import PlatformError, PluginError, StepError, redacted
from platform_core.operations.platform import Platform
from platform_core.operations.secret_use import SecretUse
from platform_core.operations.step_context import StepContext
from platform_core.plugins.interfaces import SparkSessions
from platform_core.plugins.registry import plugin
from platform_core.specs.processing import ProcessingSpec

SparkFunction = Callable[[StepContext, Any], Any]
"""A team's function: takes the context and the session."""


class SparkStep:
    """A session for one step."""

    def __init__(self, session: Any) -> None:
        """Keep the session: a ``pyspark.sql.SparkSession``, classic or of Spark Connect."""
        self.session = session

    def rows(self, function: SparkFunction, context: StepContext) -> Any:
        """What the function makes: a Spark frame becomes Arrow, anything else is what a Python step may return."""
        made = function(context, self.session)
        to_arrow = getattr(made, "toArrow", None)
        return to_arrow() if callable(to_arrow) else made


@contextmanager
def session_of(spec: ProcessingSpec, *, platform: Platform, where: str) -> Iterator[SparkStep]:
    """A session of the environment's Spark, given back when the block is left.

    Args:
        spec: of the step.
        platform: whose environment names a Spark.
        where: the step, for messages.

    Raises:
        PluginError: the environment names none, or what it needs is not installed.
        StepError: it cannot be reached.
    """
    choice = platform.environment.spark
    if choice is None:
        raise PluginError(
            f"{where}: environment '{platform.environment.name}' names no Spark\n"
            "  declare one in its file, such as spark: {type: local}"
        )
    kind: type[SparkSessions] = plugin("spark", choice.type)
    sessions = kind(kind.Options(**choice.options), secret=SecretUse(platform))
    try:
        opened = sessions.open(name=str(spec.ref))
    except PluginError as error:
        raise PluginError(f"{where}: {error}") from None
    except PlatformError:
        raise
    except Exception as error:  # noqa: BLE001 - Spark raises what it likes, with addresses and tokens in its texts
        raise StepError(f"{where}: Spark ({choice.type}) gives no session\n  {redacted(error)}") from None
    try:
        yield SparkStep(opened)
    finally:
        sessions.close(opened)
