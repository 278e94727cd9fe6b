"""Reads ``workspace.yaml``, Dagster's own list of code locations, and checks all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from platform_core.control.alert_rules import check_channels
from platform_core.control.checks import check_reading
from platform_core.control.dbt_projects import check_dbt_targets
from platform_core.control.documents import Document, PathPart, kind_of, read_document
from platform_core.control.environment import environment_names, read_environment
from platform_core.control.load import manifest_of
from platform_core.control.modules import find_package
from platform_core.control.reading import read_control
from platform_core.control.references import Tables, check_between
from platform_core.control.report import Report, excerpt
from platform_core.errors import Place
from platform_core.settings import WORKSPACE_FILE, Settings
from platform_core.specs.manifest import Manifest

CONTROL_FOLDER = "control"
_KEYS = {
    "python_module": ("module_name", "location_name", "working_directory", "attribute", "executable_path"),
    "grpc_server": ("location_name", "host", "port", "socket", "ssl", "additional_metadata"),
}


@dataclass(frozen=True, kw_only=True)
class Location:
    """One code location of the workspace.

    Args:
        name: as Dagster shows it.
        module: the module that Dagster loads; for a code server, the one that is expected behind it.
        control: folder of its control files; None where its package is not installed here.
        place: where it is listed.
        folder: where its module is looked for first; None where its package is installed.
        served: whether a code server holds it, perhaps on another machine.
    """

    name: str
    module: str
    control: Path | None
    place: Place
    folder: Path | None = None
    served: bool = False


@dataclass(frozen=True, kw_only=True)
class WorkspaceCheck:
    """What came of checking a workspace.

    Args:
        manifests: of the locations without a fault, in the order of the workspace.
        report: every fault found.
        files: number of control files that were looked at.
        unchecked: locations whose control files are not on this machine.
        asked: what was read of the locations that were asked for; whole only where the report stayed empty.
        read: what was read of all locations, the others included.
    """

    manifests: list[Manifest] = field(default_factory=list)
    report: Report
    files: int
    unchecked: tuple[str, ...] = ()
    asked: tuple[Tables, ...] = ()
    read: tuple[Tables, ...] = ()


def read_workspace(settings: Settings) -> list[Location]:
    """The code locations of the project.

    Raises:
        ConfigError: ``workspace.yaml`` is wrong.
    """
    report = Report(settings.project)
    locations = _locations(settings, report)
    report.raise_if_any()
    return locations


def check_workspace(settings: Settings) -> list[Manifest]:
    """Load every location and check references between them.

    Raises:
        ConfigError: with every fault of every location.
    """
    found = examine(settings)
    found.report.raise_if_any()
    return found.manifests


def examine(settings: Settings, *, only: Sequence[str] = ()) -> WorkspaceCheck:
    """Check the environment's file and the locations of the project, and collect what is wrong.

    Args:
        settings: of the project.
        only: names of locations, or paths of control folders; empty: all locations of the workspace.
            Others are read too, to follow references into them, but their faults are left out.
    """
    report = Report(settings.project)
    environment = read_environment(settings, report)
    listed = _locations(settings, report)
    chosen = _chosen(listed, only, settings, report) if only else listed
    unlisted = [location for location in chosen if location not in listed]
    read: list[tuple[Location, Tables]] = []
    for location in (*listed, *unlisted):
        # The faults of a location that is not asked for are nobody's business now.
        found = _read(location, settings, report if location in chosen else Report(settings.project))
        if found is not None:
            read.append((location, found))
    asked = [tables for location, tables in read if location in chosen]
    check_between([tables for _, tables in read], report, about=asked)
    _check_environment_names(asked, settings, report)
    check_channels([tables.reading for tables in asked], settings, report)
    if environment is not None:
        for tables in asked:
            check_dbt_targets(tables.reading, environment, report)
    return WorkspaceCheck(
        manifests=[] if report else [manifest_of(tables.reading) for tables in asked],
        report=report,
        files=sum(tables.reading.files for tables in asked),
        unchecked=tuple(location.name for location in chosen if location.served and location.control is None),
        asked=tuple(asked),
        read=tuple(tables for _, tables in read),
    )


def _locations(settings: Settings, report: Report) -> list[Location]:
    file = settings.project / WORKSPACE_FILE
    document = read_document(file, report, example="load_from: [{python_module: …}]")
    if document is None:
        return []
    entries = document.value.get("load_from")
    if not isinstance(entries, list):
        report.add(file, document.line(("load_from",)), f"'load_from': expected a list, got {kind_of(entries)}")
        return []
    found: list[Location] = []
    for index, entry in enumerate(entries):
        location = _location(document, index, entry, report)
        if location is None:
            continue
        if any(other.name == location.name for other in found):
            report.add(file, location.place.line, f"location '{excerpt(location.name)}' is listed twice")
        found.append(location)
    return found


def _location(document: Document, index: int, entry: object, report: Report) -> Location | None:
    path: tuple[PathPart, ...] = ("load_from", index)
    place = document.place(path)
    if not isinstance(entry, dict) or len(entry) != 1:
        report.add(place.file, place.line, "expected one of python_module, grpc_server with its settings")
        return None
    kind, details = next(iter(entry.items()))
    if kind not in _KEYS:
        hints = report.choice("kinds", kind, _KEYS)
        report.add(place.file, place.line, f"unknown kind of location '{excerpt(kind)}'", *hints)
        return None
    if isinstance(details, str):
        details = {_KEYS[kind][0]: details}
    if not isinstance(details, dict):
        report.add(place.file, place.line, f"'{kind}': expected a mapping, got {kind_of(details)}")
        return None
    for key in details:
        if key not in _KEYS[kind]:
            hints = report.choice("keys", key, _KEYS[kind])
            report.add(place.file, document.line((*path, kind, key)), f"unknown key '{excerpt(key)}'", *hints)
    module, name = details.get("module_name"), details.get("location_name")
    if kind == "grpc_server" and isinstance(name, str):
        # The convention of this project: a location's definitions are in the module of its name.
        module = f"{name}.definitions"
    if not isinstance(module, str):
        needed = "location_name" if kind == "grpc_server" else "module_name"
        report.add(place.file, place.line, f"'{needed}' is missing, or no text")
        return None
    folder = details.get("working_directory")
    folders = (document.file.parent / folder,) if isinstance(folder, str) else ()
    package = find_package(module, folders=folders)
    if package is None and kind == "python_module":
        hint = "install the location's package; in this project: uv sync"
        report.add(place.file, place.line, f"there is no module '{excerpt(module)}'", hint)
    return Location(
        name=name if isinstance(name, str) else module,
        module=module,
        control=package / CONTROL_FOLDER if package else None,
        place=place,
        folder=folders[0] if folders else None,
        served=kind == "grpc_server",
    )


def _chosen(listed: Sequence[Location], only: Sequence[str], settings: Settings, report: Report) -> list[Location]:
    by_name = {location.name: location for location in listed}
    chosen = []
    for text in only:
        folder = Path(text).absolute()
        found = by_name.get(text) or _at(listed, folder)
        if found is None and folder.is_dir():
            control = folder if folder.name == CONTROL_FOLDER else folder / CONTROL_FOLDER
            found = Location(name=str(report.shown(control)), module="", control=control, place=Place(control))
        if found is None:
            hints = report.choice("locations", text, by_name)
            message = f"'{excerpt(text)}' is neither a location nor a folder"
            report.add(settings.project / WORKSPACE_FILE, 0, message, *hints)
        else:
            chosen.append(found)
    return chosen


def _at(listed: Sequence[Location], folder: Path) -> Location | None:
    """The location whose control folder, package or project folder this is."""
    resolved = folder.resolve()
    for location in listed:
        if location.control and resolved in [location.control.resolve(), *location.control.resolve().parents[:2]]:
            return location
    return None


def _read(location: Location, settings: Settings, report: Report) -> Tables | None:
    if location.control is None:
        return None
    reading = read_control(location.control, environment=settings.environment, state=settings.state, report=report)
    declared = reading.location
    if declared is not None and location.module and declared.spec.name != location.name:
        message = f"location is '{declared.spec.name}', workspace.yaml calls it '{excerpt(location.name)}'"
        report.add_at(declared.place, message, f"see {report.shown_place(location.place)}; make them equal")
    return check_reading(reading, report)


def _check_environment_names(locations: Sequence[Tables], settings: Settings, report: Report) -> None:
    """A value for an environment that does not exist is a typing error that nobody would notice."""
    known = environment_names(settings)
    for tables in locations:
        for entry in tables.reading.variables:
            for name in entry.spec.values:
                if name not in known:
                    hints = report.choice("environments", name, known)
                    entry.complain(report, (name,), f"unknown environment '{excerpt(name)}'", *hints)
