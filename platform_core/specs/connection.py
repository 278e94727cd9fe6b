"""Where a source, dashboard service or other system is reached."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from platform_core.specs.base import Name, Plain, Spec
from platform_core.specs.run_policy import MaxConcurrent


class ConnectionSpec(Spec):
    """One system rows come from (or a dashboard lives in).

    Every key beside ``name``, ``workstream``, ``type``, ``description`` and ``max_concurrent`` is an
    option of the plug-in named by ``type``; the loader checks them against that plug-in's own model.
    """

    # Options of the plug-in stand beside the fixed keys; the loader moves them to `options`, so that here too
    # nothing unknown passes.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Name
    workstream: Name
    type: str = Field(description="Name of the source plug-in: files, sqlite, postgres, …")
    description: str = ""
    max_concurrent: MaxConcurrent | None = Field(
        default=None,
        description="Most steps that may use this connection at a time, in all runs together; None: no limit.",
    )
    options: Plain = Field(default_factory=dict, description="The plug-in's own options, as declared.")

    def option(self, name: str) -> object:
        """One declared option, or None."""
        return self.options.get(name)
