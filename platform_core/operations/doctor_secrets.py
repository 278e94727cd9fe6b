"""Looks whether secrets, masking keys among them, resolve, and whether connections let us in."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from platform_core.control.loads import open_loads
from platform_core.control.secret_references import Dependents
from platform_core.lake.paths import Lake
from platform_core.operations.doctor_findings import Check, Finding, Machine, Subject, Verdict
from platform_core.operations.platform import Platform
from platform_core.operations.secret_checks import PlannedTest, SecretStanding, check_secrets, connection_tests
from platform_core.plugins.interfaces import SecretStore
from platform_core.plugins.registry import plugin
from platform_core.secrets.masking_keys import MASKING_KEY
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.manifest import Manifest

_QUIET = logging.getLogger("platform_core.doctor")
"""What a load would write to its log stands in the findings."""


def secret_checks(
    dependents: Mapping[str, Dependents],
    environment: EnvironmentSpec,
    *,
    secrets: SecretStore,
    owners: Mapping[str, Sequence[str]],
    machine: Machine,
) -> Iterator[Check]:
    """Whether each secret that is referred to can be read; masking keys by themselves, as their loss is for good.

    Args:
        dependents: what depends on each secret, by its name.
        owners: by workstream.
    """
    keys = {name: each for name, each in dependents.items() if name.partition("/")[2] == MASKING_KEY}
    others = {name: each for name, each in dependents.items() if name not in keys}
    for area, noun, chosen in (("masking keys", "masking key", keys), ("secrets", "secret", others)):
        about = Subject(area=area, name="store", looked_at=f"secret store '{environment.secrets.type}'")
        look = _look_at_secrets(about, noun, chosen, environment, secrets=secrets, owners=owners, now=machine.now)
        yield Check(about=about, look=look)


def _look_at_secrets(
    about: Subject,
    noun: str,
    dependents: Mapping[str, Dependents],
    environment: EnvironmentSpec,
    *,
    secrets: SecretStore,
    owners: Mapping[str, Sequence[str]],
    now: Callable[[], dt.datetime],
) -> Callable[[], Iterator[Finding]]:
    def look() -> Iterator[Finding]:
        if not dependents:
            yield about.finding(Verdict.OK, f"nothing refers to a {noun}")
            return
        standings = check_secrets(
            secrets,
            dependents=dependents,
            owners=owners,
            warning=environment.secret_warning,
            now=now(),
            environment=environment.name,
        )
        good = sum(each.standing.is_good for each in standings)
        told = f"{good} of {len(standings)} {noun}s can be read"
        yield about.finding(Verdict.OK if good == len(standings) else Verdict.FAILED, told)
        for each in standings:
            if each.told or not each.standing.is_good:
                yield _standing(about, each)

    return look


def _standing(about: Subject, each: SecretStanding) -> Finding:
    told = f"{each.standing}; owner: {each.owner}" if each.owner else str(each.standing)
    verdict = Verdict.WARNING if each.standing.is_good else Verdict.FAILED
    return about.finding(verdict, told, advice=each.told, name=each.name)


def connection_checks(
    manifests: Sequence[Manifest], environment: EnvironmentSpec, *, secrets: SecretStore, state: Path
) -> Iterator[Check]:
    """Whether each connection lets us in: a source is asked for columns, a dashboard's service for its history."""
    _QUIET.disabled = True
    engine = plugin("engine", environment.engine.type)
    platform = Platform(
        environment=environment,
        # Nothing is read or written there, so that a lake that is away hides no connection.
        lake=Lake.of(environment.lake.root, environment.person, storage_options={}),
        engine=engine(engine.Options(**environment.engine.options)),
        secrets=secrets,
        loads=open_loads(environment.control, state=state, secrets=secrets, person=environment.person),
        state=state,
        log=_QUIET,
        # Where a password is refused, nobody waits for a new one.
        cancelled=lambda: True,
    )
    for each in connection_tests(manifests, platform=platform):
        about = Subject(area="connections", name=each.name, looked_at=f"connection of type {each.type}")
        yield Check(about=about, look=_look_at_connection(about, each))


def _look_at_connection(about: Subject, test: PlannedTest) -> Callable[[], Iterator[Finding]]:
    def look() -> Iterator[Finding]:
        found = test.run()
        if found.good is not False:
            yield about.finding(Verdict.OK, found.told if found.good else f"not tested: {found.told}")
            return
        told, *more = found.told.splitlines()
        yield about.finding(Verdict.FAILED, told, advice="\n".join(line.strip() for line in more))

    return look
