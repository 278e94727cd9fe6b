"""Look at an asset that another system owns: which version it has, and whether it is as fresh as it must be."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from platform_core.errors import PlatformError, SourceError, StepError, redacted
from platform_core.lake.delta import open_table
from platform_core.operations.platform import Platform
from platform_core.operations.secret_use import SecretUse
from platform_core.plugins.interfaces import Observation, ReadRequest, Source
from platform_core.plugins.registry import plugin
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.processing import ProcessingSpec
from platform_core.specs.table import TableRef

LAKE_SOURCE = "delta"
"""Plug-in that looks at external tables of the lake itself."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An external asset, as it was when it was looked at.

    Args:
        asset: which one.
        version: tells this state of it from the next.
        changed_at: when it came to be so, UTC; None: its system does not say.
        figures: numbers and short texts of its system.
        seconds: how long the look took.
    """

    asset: TableRef
    version: str
    changed_at: dt.datetime | None
    figures: Mapping[str, int | float | str] = field(default_factory=dict)
    seconds: float = 0.0

    def age(self, *, first_seen: dt.datetime | None, now: dt.datetime) -> dt.timedelta | None:
        """How old it is; None where nobody knows.

        Args:
            first_seen: when this version was first seen, UTC: counts where its system says nothing.
            now: UTC.
        """
        since = self.changed_at or first_seen
        return None if since is None else max(now - since, dt.timedelta(0))


def look(spec: ProcessingSpec, *, connection: ConnectionSpec | None, platform: Platform) -> Seen:
    """Look at an external asset once; nothing of it is read where its system tells how it stands.

    Args:
        spec: a step of kind external.
        connection: behind which it is; None: it is a table of the lake.
        platform: the environment.

    Raises:
        SourceError: it is not there, or its system does not answer, or tells no version.
        SecretError: a secret of the connection is missing.
    """
    clock = time.monotonic()
    where = told(spec)
    secrets = SecretUse(platform)
    try:
        found = _observed(spec, connection, platform, secrets, where=where)
    except SourceError as error:
        if platform.cancelled() or not secrets.renewed(error):
            raise
        found = _observed(spec, connection, platform, secrets, where=where)
    return Seen(
        asset=spec.ref,
        version=found.version,
        changed_at=found.changed_at,
        figures=found.figures,
        seconds=time.monotonic() - clock,
    )


def refuse_stale(spec: ProcessingSpec, seen: Seen, *, first_seen: dt.datetime | None, now: dt.datetime) -> None:
    """Refuse an external asset that is older than its step allows.

    Raises:
        StepError: it is too old.
    """
    age = seen.age(first_seen=first_seen, now=now)
    if spec.fresh is None or age is None or age <= spec.fresh:
        return
    since = seen.changed_at or first_seen
    what = "last changed" if seen.changed_at else "was first seen like this"
    raise StepError(
        f"{told(spec)}: too old: it {what} at {since:%Y-%m-%d %H:%M} UTC, {_whole(age)} ago, "
        f"and 'fresh' allows {_whole(spec.fresh)}\n  ask its owners, or raise 'fresh'"
    )


def told(spec: ProcessingSpec) -> str:
    """An external asset with the place where it is declared, for messages."""
    return f"external {spec.ref}" + (f" ({spec.place})" if spec.place else "")


def _observed(
    spec: ProcessingSpec, connection: ConnectionSpec | None, platform: Platform, secrets: SecretUse, *, where: str
) -> Observation:
    try:
        source, object_ = _opened(spec, connection, platform, secrets)
        try:
            return source.observe(ReadRequest(object=object_), by=spec.compare)
        finally:
            source.close()
    except SourceError as error:
        raise SourceError(f"{where}: {error}") from None
    except PlatformError:
        raise
    except Exception as error:  # noqa: BLE001 - drivers raise what they like, and their texts may hold anything
        raise SourceError(f"{where}: it cannot be looked at\n  {redacted(error)}") from None


def _opened(
    spec: ProcessingSpec, connection: ConnectionSpec | None, platform: Platform, secrets: SecretUse
) -> tuple[Source, str]:
    if connection is not None:
        kind = plugin("source", connection.type)
        made: Source = kind(kind.Options(**connection.options), secret=secrets)
        return made, str(spec.object)
    kind = plugin("source", LAKE_SOURCE)
    lake = platform.lake
    own = open_table(lake.table(spec.ref), storage_options=lake.storage_options)
    # A person's own copy goes before what everybody sees, as for every reader.
    root = lake.root if own is not None or lake.shared is None else lake.shared
    made = kind(kind.Options(root=root, storage_options=dict(lake.storage_options)), secret=secrets)
    return made, "/".join(spec.ref)


def _whole(span: dt.timedelta) -> str:
    """A span of time in its largest unit, rounded down."""
    seconds = int(span.total_seconds())
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}s"
    return f"{seconds} seconds"
