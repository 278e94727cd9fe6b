"""Turn a folder of control files into a Manifest, or into one error that holds every fault found."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from platform_core.control.checks import check_reading
from platform_core.control.reading import Reading, read_control
from platform_core.control.report import Report, project_folder
from platform_core.errors import ConfigError
from platform_core.specs.manifest import Manifest


def load_manifest(control: Path, *, environment: str, state: Path) -> Manifest:
    """Read and check the control files of one location.

    References to other locations' workstreams are taken as they are; ``edp check`` looks at all locations.

    Args:
        control: folder of the control files; the folder that holds it is the location's package.
        environment: name of the environment whose values variables take.
        state: local folder of this installation, ``${env.state}``.

    Raises:
        ConfigError: with every fault of the folder, each with file and line.
    """
    control = control.absolute()
    report = Report(project_folder(control))
    reading = read_control(control, environment=environment, state=state, report=report)
    check_reading(reading, report)
    report.raise_if_any()
    return manifest_of(reading)


@cache
def load_manifest_cached(control: Path, *, environment: str, state: Path) -> Manifest:
    """As :func:`load_manifest`, but read once a process; a failure is not remembered."""
    return load_manifest(control, environment=environment, state=state)


def manifest_of(reading: Reading) -> Manifest:
    """The manifest of a location that was read without a fault.

    Raises:
        ConfigError: the location itself could not be read; its report says why.
    """
    if reading.location is None:
        raise ConfigError([])
    # Each spec was validated when it was read; doing it again would double the time of a start.
    return Manifest.model_construct(
        root=reading.root,
        location=reading.location.spec,
        variables=tuple(entry.spec for entry in reading.variables),
        connections=tuple(entry.spec for entry in reading.connections),
        ingestions=tuple(entry.spec for entry in reading.ingestions),
        steps=tuple(entry.spec for entry in reading.steps),
        dbt=tuple(entry.spec for entry in reading.dbt),
        refreshes=tuple(entry.spec for entry in reading.refreshes),
        upkeep=tuple(entry.spec for entry in reading.upkeep),
        alerts=tuple(entry.spec for entry in reading.alerts),
    )
