"""What Dagster loads of this location: everything declared in control/."""

from pathlib import Path

import dagster as dg

from platform_core import build_definitions


@dg.definitions
def defs() -> dg.Definitions:
    """All definitions of the location."""
    return build_definitions(Path(__file__).parent / "control")
