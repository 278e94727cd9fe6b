"""Looks whether what code locations load is what is applied, and whether it can be loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from platform_core.control.database import Database, open_database
from platform_core.control.snapshot.folders import open_folder
from platform_core.control.snapshot.loading import load_snapshot
from platform_core.control.snapshot.standing import lag, published_pointers
from platform_core.control.store.rows import AppliedState, read_locations, read_state
from platform_core.errors import PlatformError
from platform_core.operations.doctor_findings import Check, Finding, Subject, Verdict
from platform_core.plugins.interfaces import SecretStore
from platform_core.specs.environment import EnvironmentSpec, ManifestOrigin

_PATIENCE = 3.0


def snapshot_checks(
    environment: EnvironmentSpec, *, secrets: SecretStore, project: Path, state: Path
) -> Iterator[Check]:
    """What is published of each location, beside what is applied.

    Args:
        project: folder of the project, below which the packages of locations are taken to be.
        state: local folder of this installation.
    """
    about = Subject(area="snapshot", name="published", looked_at="control.manifest of the environment")
    if environment.control.manifest is ManifestOrigin.FILES:
        told = "code locations read their control files, and no snapshot"
        yield Check(about=about, look=lambda: [about.finding(Verdict.OK, told)])
        return
    about = Subject(area="snapshot", name="published", looked_at=open_folder(environment, state=state).shown(""))
    database = open_database(environment.control, state=state, secrets=secrets)
    yield Check(about=about, look=lambda: _look(about, database, environment, project=project, state=state))


def _look(
    about: Subject, database: Database, environment: EnvironmentSpec, *, project: Path, state: Path
) -> Iterator[Finding]:
    applied: AppliedState | None = None
    try:
        applied, locations = database.look(_applied, patience=_PATIENCE)
    except PlatformError:
        # That the database is away is told of it; code locations go on with what is published.
        locations = open_folder(environment, state=state).folders()
    finally:
        database.close()
    for name in locations:
        try:
            found = load_snapshot(project / name, environment=environment, state=state, location=name)
        except PlatformError as error:
            yield about.failure(error, name=name)
        else:
            yield about.finding(Verdict.OK, f"serial {found.provenance.serial} can be loaded", name=name)
    if not locations:
        yield about.finding(
            Verdict.WARNING,
            "nothing is applied, so that code locations have nothing to load",
            advice=f"plan and apply: edp plan --env {environment.name} --out plan.json, edp apply plan.json",
        )
    if applied is not None and applied.serial:
        pointers = published_pointers(environment, state=state, locations=locations)
        repair = f"edp publish --env {environment.name}"
        late = lag(applied, locations, pointers, repair=repair)
        if late is None:
            yield about.finding(Verdict.OK, f"all of serial {applied.serial}")
        else:
            yield about.finding(Verdict.FAILED, late.removesuffix(f": {repair}"), advice=f"publish it: {repair}")


def _applied(connection: sa.Connection) -> tuple[AppliedState, list[str]]:
    return read_state(connection), read_locations(connection)
