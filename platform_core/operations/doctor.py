"""Looks at all that an environment needs: storage, databases, secrets, connections, versions and clocks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from platform_core.control.environment import load_environment
from platform_core.control.secret_references import Dependents, secret_dependents
from platform_core.control.workspace import WorkspaceCheck, examine
from platform_core.errors import PlatformError
from platform_core.operations.doctor_database import database_checks
from platform_core.operations.doctor_findings import Check, Examined, Finding, Machine, Subject, Verdict, run_checks
from platform_core.operations.doctor_secrets import connection_checks, secret_checks
from platform_core.operations.doctor_snapshot import snapshot_checks
from platform_core.operations.doctor_storage import space_of, storage_checks
from platform_core.operations.doctor_versions import version_checks, version_of
from platform_core.operations.platform import open_secrets
from platform_core.plugins.interfaces import SecretStore
from platform_core.secrets.masking_keys import MASKING_KEY
from platform_core.settings import Settings
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.manifest import Manifest

LIMIT = 20.0
"""Seconds that a check may take."""

AREAS = (
    "control files",
    "storage",
    "control database",
    "serving database",
    "snapshot",
    "masking keys",
    "secrets",
    "connections",
    "dagster",
    "versions",
    "clock",
)
"""In the order in which they are told."""

THIS_MACHINE = Machine(now=lambda: dt.datetime.now(dt.UTC), space=space_of, version=version_of)


@dataclass
class _Known:
    """What is needed to know what to look at; findings where it could not be had."""

    environment: EnvironmentSpec | None = None
    secrets: SecretStore | None = None
    found: list[WorkspaceCheck] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def manifests(self) -> list[Manifest]:
        return [manifest for each in self.found for manifest in each.manifests]


def examine_environment(
    settings: Settings, *, limit: float = LIMIT, machine: Machine = THIS_MACHINE, more: Iterable[Check] = ()
) -> Examined:
    """Look at everything that an environment needs; what fails keeps nothing else from being looked at.

    Nothing is changed, but for a probe that is written to the lake and removed.

    Args:
        settings: of the project; they name the environment.
        limit: seconds that a check may take.
        more: what the caller wants looked at beside it.
    """
    known = _know(settings)
    checks = [*_checks(known, settings, machine), *more]
    answered = run_checks(checks, limit=limit)
    findings = sorted([*known.findings, *answered.findings], key=lambda each: AREAS.index(each.area))
    return Examined(findings=tuple(findings), abandoned=answered.abandoned)


def _know(settings: Settings) -> _Known:
    known = _Known()
    about = Subject(area="control files", name="environment", looked_at=str(settings.environments))
    try:
        known.environment = load_environment(settings)
        known.secrets = open_secrets(known.environment.secrets)
    except PlatformError as error:
        known.findings.append(about.failure(error))
    else:
        # What they say depends on the environment, of which all was told.
        known.found = [*_sound_locations(settings, known.findings)]
    return known


def _sound_locations(settings: Settings, findings: list[Finding]) -> Iterator[WorkspaceCheck]:
    """All locations; where some have faults, the others one by one."""
    about = Subject(area="control files", name="locations", looked_at=str(settings.project))
    found = examine(settings)
    if found.unchecked:
        findings.append(
            about.finding(
                Verdict.WARNING,
                f"not looked at, as their control files are not on this machine: {', '.join(found.unchecked)}",
                advice="run edp doctor where they are, too",
            )
        )
    if not found.report:
        findings.append(about.finding(Verdict.OK, f"{found.files} files without a fault"))
        yield found
        return
    faults = found.report.issues
    findings.append(
        about.finding(
            Verdict.FAILED,
            f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'}, the first: {faults[0].place}: "
            f"{faults[0].message}",
            advice=f"see all of them: edp check --env {settings.environment}",
        )
    )
    for name in [tables.reading.location.spec.name for tables in found.read if tables.reading.location]:
        alone = examine(settings, only=[name])
        if not alone.report:
            yield alone


def _checks(known: _Known, settings: Settings, machine: Machine) -> Iterator[Check]:
    environment, secrets = known.environment, known.secrets
    if environment is not None and secrets is not None:
        state = settings.state
        yield from _planned(
            "storage", lambda: storage_checks(environment, secrets=secrets, state=state, machine=machine)
        )
        yield from _planned(
            "control database", lambda: database_checks(environment, secrets=secrets, state=state, machine=machine)
        )
        yield from _planned(
            "snapshot", lambda: snapshot_checks(environment, secrets=secrets, project=settings.project, state=state)
        )
        yield from _planned(
            "secrets",
            lambda: secret_checks(
                _dependents(known, environment),
                environment,
                secrets=secrets,
                owners={spec.name: spec.owners for each in known.manifests for spec in each.location.workstreams},
                machine=machine,
            ),
        )
        yield from _planned(
            "connections", lambda: connection_checks(known.manifests, environment, secrets=secrets, state=state)
        )
    yield from _planned("versions", lambda: version_checks(environment, known.manifests, machine=machine))


def _planned(area: str, plan: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks of an area; where they cannot even be planned, one that says why."""
    try:
        return [*plan()]
    except PlatformError as error:
        about = Subject(area=area, name="all")
        found = about.failure(error)
        return [Check(about=about, look=lambda: [found])]


def _dependents(known: _Known, environment: EnvironmentSpec) -> dict[str, Dependents]:
    asked = [tables for each in known.found for tables in each.asked]
    return secret_dependents(asked, environment=environment, masking_key=MASKING_KEY)
