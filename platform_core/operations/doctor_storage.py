"""Looks at the lake and at the disks that loads write to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from platform_core.errors import StorageError
from platform_core.lake.paths import Lake
from platform_core.lake.probing import probe
from platform_core.lake.storage import local_path
from platform_core.operations.doctor_clock import clock_finding
from platform_core.operations.doctor_findings import Check, Finding, Machine, Subject, Verdict
from platform_core.operations.platform import open_lake
from platform_core.plugins.interfaces import SecretStore
from platform_core.specs.environment import EnvironmentSpec

_MEGABYTE = 1_000_000
_GIGABYTE = 1_000 * _MEGABYTE

_FULL = (0.01, 500 * _MEGABYTE)
"""Part of the disk and bytes: below either, loads may fail at any time."""

_FILLING = (0.10, 20 * _GIGABYTE)
"""Below both, somebody should look: a large disk has room enough at one percent of it, a small one has not."""


def storage_checks(
    environment: EnvironmentSpec, *, secrets: SecretStore, state: Path, machine: Machine
) -> Iterator[Check]:
    """Whether the lake can be used, and whether disks have room.

    Args:
        environment: paths in it are resolved.
        state: local folder of this installation.
    """
    root = environment.lake.root
    about = Subject(area="storage", name="lake", looked_at=root)
    yield Check(about=about, look=lambda: _lake(about, open_lake(environment, secrets=secrets), machine))
    for names, folder in _disks(environment, state):
        yield _disk_check(names, folder, machine)


def _lake(about: Subject, lake: Lake, machine: Machine) -> Iterator[Finding]:
    folder = local_path(lake.root)
    if folder is not None and not folder.exists():
        yield _not_there(about, folder)
        return
    if folder is not None and not folder.is_dir():
        raise StorageError(f"{lake.root} is a file, where the lake's folder should be\n  correct lake.root")
    found = probe(lake, now=machine.now)
    told = f"takes files, gives them back and removes them; keeps both of two commits ({found.seconds * 1000:,.0f} ms)"
    yield about.finding(Verdict.OK, told)
    if found.stored_at is not None:
        yield clock_finding("lake", found.stored_at, found.between, looked_at=lake.root, unit=1.0)


def _not_there(about: Subject, folder: Path) -> Finding:
    parent = next(each for each in folder.parents if each.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        return about.finding(
            Verdict.FAILED,
            "the folder is not there, and cannot be made",
            advice=f"make it, or give this user the right to write to {parent}",
        )
    return about.finding(
        Verdict.WARNING,
        "the folder is not there yet",
        advice="the first load makes it; if it should hold tables, mount its disk or correct lake.root",
    )


def _disks(environment: EnvironmentSpec, state: Path) -> Iterator[tuple[list[str], str]]:
    """Folders that loads write to, those on one disk together, by what they are for."""
    wanted = {"state folder": str(state)}
    if local_path(environment.lake.root) is not None:
        wanted = {"lake": str(local_path(environment.lake.root)), **wanted}
    if isinstance(spill := environment.engine.options.get("spill"), str):
        wanted["spill of the engine"] = spill
    disks: dict[int, tuple[list[str], str]] = {}
    for name, path in wanted.items():
        there = next(each for each in (Path(path), *Path(path).parents) if each.exists())
        names, _ = disks.setdefault(there.stat().st_dev, ([], str(there)))
        names.append(name)
    yield from disks.values()


def _disk_check(names: Sequence[str], folder: str, machine: Machine) -> Check:
    about = Subject(area="storage", name="disk", looked_at=folder)

    def look() -> Iterator[Finding]:
        free, whole = machine.space(folder)
        if not whole:
            yield about.finding(Verdict.OK, f"its file system does not tell its size, for {' and '.join(names)}")
            return
        part = free / whole
        told = f"{_size(free)} of {_size(whole)} free ({part:.0%}), for {' and '.join(names)}"
        if part < _FULL[0] or free < _FULL[1]:
            verdict = Verdict.FAILED
        elif part < _FILLING[0] and free < _FILLING[1]:
            verdict = Verdict.WARNING
        else:
            yield about.finding(Verdict.OK, told)
            return
        yield about.finding(
            verdict,
            told,
            advice="make room: upkeep removes what is old (docs/how-to/upkeep.md), or use a larger disk",
        )

    return Check(about=about, look=look)


def _size(count: int) -> str:
    if count < _GIGABYTE:
        return f"{count / _MEGABYTE:,.0f} MB"
    return f"{count / _GIGABYTE:,.1f} GB"


def space_of(folder: str) -> tuple[int, int]:
    """Bytes that this user may still write, and bytes altogether, on the disk of a folder."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
