"""Tells how the secrets of an environment stand, and proves that they resolve and let us in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from platform_core.control.secret_references import Dependents
from platform_core.errors import PlatformError, SecretError, SecretMissing, redacted
from platform_core.masks.keys import require_strong
from platform_core.operations.extract import opened
from platform_core.operations.platform import Platform
from platform_core.operations.refresh import probe
from platform_core.operations.secret_use import end_in_words
from platform_core.plugins.interfaces import SecretEntry, SecretStore
from platform_core.plugins.registry import plugin_names
from platform_core.secrets.masking_keys import MASKING_KEY, PREVIOUS_MASKING_KEY
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.refresh import RefreshSpec

_AT_A_TIME = 4

Ask = Callable[[], tuple[bool | None, str]]
"""Asks a connection something; whether it lets us in (None: not tested), and what was asked or is wrong."""


class Standing(StrEnum):
    """How a secret stands."""

    SET = "set"
    EXPIRES_SOON = "expires soon"
    EXPIRED = "expired"
    DISABLED = "disabled"
    MISSING = "missing"
    UNREADABLE = "unreadable"

    @property
    def is_good(self) -> bool:
        """Whether what depends on it can work."""
        return self in (Standing.SET, Standing.EXPIRES_SOON)


@dataclass(frozen=True, kw_only=True)
class SecretStanding:
    """One secret, without its value.

    Args:
        name: ``<workstream>/<name>``.
        standing: how it stands.
        owner: as its store knows it, else the owners of its workstream.
        created_at: when the present value was set, UTC; None where the store does not know.
        expires_at: when it ends, UTC.
        dependents: what depends on it.
        told: what is wrong, or soon will be; empty where nothing is.
    """

    name: str
    standing: Standing
    owner: str | None
    created_at: dt.datetime | None
    expires_at: dt.datetime | None
    dependents: Dependents
    told: str = ""


@dataclass(frozen=True, kw_only=True)
class ConnectionTest:
    """Whether a connection lets us in.

    Args:
        name: ``<workstream>.<name>``.
        type: of the connection.
        good: None where it was not tested.
        told: what was asked, or what is wrong.
    """

    name: str
    type: str
    good: bool | None
    told: str


@dataclass(frozen=True, kw_only=True)
class PlannedTest:
    """The test of one connection, not yet run.

    Args:
        name: ``<workstream>.<name>``.
        type: of the connection.
    """

    name: str
    type: str
    ask: Ask

    def run(self) -> ConnectionTest:
        """Run it; what goes wrong stands in the result."""
        good, told = _outcome(self.ask)
        return ConnectionTest(name=self.name, type=self.type, good=good, told=told)


def secret_standings(
    store: SecretStore,
    *,
    dependents: Mapping[str, Dependents],
    owners: Mapping[str, Sequence[str]],
    warning: dt.timedelta,
    now: dt.datetime,
    environment: str | None = None,
) -> list[SecretStanding]:
    """Every secret that the store holds or that is referred to, by name; no value is looked at where the store lists.

    Args:
        dependents: by secret.
        owners: by workstream.
        warning: how long before its end a secret is warned of.
        now: the time, UTC.
        environment: named in what is to be done; None: it is the one that commands take by themselves.

    Raises:
        SecretError: the store cannot be read at all.
    """
    held = {entry.name: entry for entry in store.entries()} if store.listable else {}
    found = []
    for name in sorted({*held, *dependents}):
        entry, told = held.get(name), ""
        if entry is None and not store.listable:
            entry, told = _looked_up(store, name)
        found.append(
            _standing(
                name,
                entry,
                told,
                dependents=dependents.get(name, Dependents()),
                owners=owners.get(name.partition("/")[0], ()),
                warning=warning,
                now=now,
                environment=environment,
            )
        )
    return found


def check_secrets(
    store: SecretStore,
    *,
    dependents: Mapping[str, Dependents],
    owners: Mapping[str, Sequence[str]],
    warning: dt.timedelta,
    now: dt.datetime,
    environment: str | None = None,
) -> list[SecretStanding]:
    """Every secret that is referred to, read from its store; arguments as of :func:`secret_standings`."""
    held = _held(store)

    def check(name: str) -> SecretStanding:
        entry, told = _read(store, name, held.get(name))
        return _standing(
            name,
            entry,
            told,
            dependents=dependents[name],
            owners=owners.get(name.partition("/")[0], ()),
            warning=warning,
            now=now,
            environment=environment,
        )

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return list(pool.map(check, sorted(dependents)))


def check_connections(manifests: Sequence[Manifest], *, platform: Platform) -> list[ConnectionTest]:
    """Ask every source for the columns of one declared table, and every dashboard service whether it lets us in.

    No row reaches the lake or a message.

    Args:
        manifests: of the locations.
        platform: of the environment.
    """
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return list(pool.map(lambda each: each.run(), connection_tests(manifests, platform=platform)))


def connection_tests(manifests: Sequence[Manifest], *, platform: Platform) -> list[PlannedTest]:
    """The tests that :func:`check_connections` runs, for whoever runs each by itself."""
    return [
        PlannedTest(
            name=f"{spec.workstream}.{spec.name}",
            type=spec.type,
            ask=_test(manifest, spec.workstream, spec.name, platform),
        )
        for manifest in manifests
        for spec in manifest.connections
    ]


def _held(store: SecretStore) -> dict[str, SecretEntry]:
    """What the store tells; nothing where it cannot: whether each secret is there is then asked one by one."""
    try:
        return {entry.name: entry for entry in store.entries()} if store.listable else {}
    except SecretError:
        return {}


def _looked_up(store: SecretStore, name: str) -> tuple[SecretEntry | None, str]:
    """An entry of a secret whose store cannot list; None with what is wrong where it is missing."""
    try:
        secret = store.get(name)
    except SecretError as error:
        return None, str(error) if not isinstance(error, SecretMissing) else ""
    return SecretEntry(name=name, expires_at=secret.expires_at), ""


def _read(store: SecretStore, name: str, entry: SecretEntry | None) -> tuple[SecretEntry | None, str]:
    """As :func:`_looked_up`, with the value read anew, and looked at where it is a key."""
    try:
        secret = store.fresh(name)
    except SecretMissing:
        return None, ""
    except SecretError as error:
        return entry, str(error)
    try:
        if name.partition("/")[2] in (MASKING_KEY, PREVIOUS_MASKING_KEY):
            require_strong(secret)
    except SecretError as error:
        return entry, str(error)
    return entry or SecretEntry(name=name, expires_at=secret.expires_at), ""


def _standing(
    name: str,
    entry: SecretEntry | None,
    told: str,
    *,
    dependents: Dependents,
    owners: Sequence[str],
    warning: dt.timedelta,
    now: dt.datetime,
    environment: str | None,
) -> SecretStanding:
    standing, command = Standing.SET, f"edp secrets set {name}" + (f" --env {environment}" if environment else "")
    if told:
        standing = Standing.UNREADABLE
    elif entry is None:
        standing, told = Standing.MISSING, f"set it: {command}"
    elif not entry.enabled:
        standing, told = Standing.DISABLED, "enable it in its store, or set it anew"
    elif entry.expires_at is not None and entry.expires_at - now <= warning:
        standing = Standing.EXPIRED if entry.expires_at <= now else Standing.EXPIRES_SOON
        told = f"it {end_in_words(entry.expires_at, now=now)}; set a new one: {command}"
    return SecretStanding(
        name=name,
        standing=standing,
        owner=(entry.owner if entry else None) or ", ".join(owners) or None,
        created_at=entry.created_at if entry else None,
        expires_at=entry.expires_at if entry else None,
        dependents=dependents,
        told=told,
    )


def _test(manifest: Manifest, workstream: str, name: str, platform: Platform) -> Ask:
    """What proves that a connection lets us in."""
    connection = manifest.connection(workstream, name)
    table = next((spec for spec in manifest.ingestions if (spec.workstream, spec.source) == (workstream, name)), None)
    shown = next(
        (spec for spec in manifest.refreshes if (spec.workstream, spec.connection) == (workstream, name)), None
    )

    if table is not None and connection.type in plugin_names("source"):
        return partial(_columns, table, connection, platform)
    if shown is not None:
        return partial(_service, shown, connection, manifest.root, platform)
    return lambda: (None, "nothing is read through it")


def _columns(table: IngestionSpec, connection: ConnectionSpec, platform: Platform) -> tuple[bool | None, str]:
    with opened(table, connection=connection, platform=platform) as extract:
        count = len(extract.schema())
        return True, f"{table.object} has {count} {'column' if count == 1 else 'columns'}"


def _service(shown: RefreshSpec, connection: ConnectionSpec, root: Path, platform: Platform) -> tuple[bool | None, str]:
    if probe(shown, connection=connection, root=root, platform=platform):
        return True, f"lets us in, asked about {shown.ref}"
    return None, f"dashboards of type {shown.type} have nothing to ask"


def _outcome(ask: Ask) -> tuple[bool | None, str]:
    try:
        return ask()
    except PlatformError as error:
        return False, str(error)
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything, and its text may hold values
        return False, redacted(error)


def problems(standings: Sequence[SecretStanding], tests: Sequence[ConnectionTest] = ()) -> Iterator[str]:
    """Names of all that is not as it must be."""
    yield from (each.name for each in standings if not each.standing.is_good)
    yield from (each.name for each in tests if each.good is False)
