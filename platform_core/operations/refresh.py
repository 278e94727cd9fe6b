"""Refresh one dashboard from the tables it shows, and say which version of each it was shown."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from platform_core.control.refresh_log import RefreshRow
from platform_core.errors import ControlError, InputsError, PlatformError, RefreshError, redacted
from platform_core.lake.delta import DeltaTableReader, open_table
from platform_core.lake.views import ViewReader
from platform_core.operations.inputs import OpenInputs, open_inputs, shown_name
from platform_core.operations.platform import Platform
from platform_core.operations.secret_use import SecretUse
from platform_core.plugins.interfaces import Dashboard, RefreshRequest, RefreshResult, ShownTable, TableReader
from platform_core.plugins.registry import plugin
from platform_core.specs.base import Model
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.refresh import RefreshSpec
from platform_core.specs.table import TableRef

_OPENINGS = 5
_LAST_MOMENTS = dt.timedelta(seconds=30)

CURRENT = "_is_current"
"""Column of bronze that is false for rows that are gone from the source."""


@dataclass(frozen=True, kw_only=True)
class RefreshOutcome:
    """What a refresh did.

    Args:
        dashboard: the dashboard.
        url: where a person finds it; empty if unknown.
        figures: numbers and short texts of the plug-in.
        cut: what was shown of each table, by table in full.
        moved: tables that had a newer version by the end: the dashboard may show some of it, and is due again.
        deferred: what was shown from the shared tables, for want of the person's own.
        as_of: when the newest shown table was made, UTC.
        started_at: when the refresh began, UTC: before the tables were opened.
        seconds: how long it took.
    """

    dashboard: TableRef
    url: str
    figures: Mapping[str, int | float | str]
    cut: Mapping[str, ShownTable]
    as_of: dt.datetime
    started_at: dt.datetime
    seconds: float
    moved: tuple[str, ...] = ()
    deferred: tuple[TableRef, ...] = ()

    @property
    def versions(self) -> dict[str, int]:
        """Delta version that was shown, by table in full."""
        return {name: shown.version for name, shown in self.cut.items()}


Judge = Callable[[], Hashable]
"""Raises InputsError where the tables must not be shown now; returns what tells their state from any other."""


def _unjudged() -> Hashable:
    return None


def refresh(
    spec: RefreshSpec,
    *,
    connection: ConnectionSpec | None,
    root: Path,
    platform: Platform,
    judge: Judge = _unjudged,
    run_id: str | None = None,
) -> RefreshOutcome:
    """Refresh a dashboard.

    All tables are opened before the plug-in starts, and shown as of that moment. They are judged before and after they
    are opened, so that what is shown is exactly what was judged. The attempt is noted in the log of refreshes; where
    that is away, this is said and the refresh counts all the same.

    Args:
        spec: the dashboard.
        connection: the connection that the spec names; None where it names none.
        root: folder that paths in the options count from.
        platform: the environment.
        judge: whether the tables may be shown.
        run_id: the Dagster run, for the log.

    Raises:
        InputsError: the tables must not be shown now; nothing was refreshed.
        RefreshError: a table is missing, options do not fit, or the dashboard is not known to be up to date.
        PluginError: there is no such dashboard plug-in.
        SecretError: a secret that the plug-in needs is missing.
        StorageError: the lake refused.
    """
    clock = time.monotonic()
    started_at = dt.datetime.now(dt.UTC)
    where = f"dashboard {spec.ref}" + (f" ({spec.place})" if spec.place else "")
    secrets = SecretUse(platform)
    _refuse_from_afar(spec, platform=platform, where=where)
    dashboard = _dashboard(spec, connection=connection, root=root, secrets=secrets, where=where)
    opened = _opened(spec, judge, platform=platform, where=where)
    cut = {name: _shown(table, platform) for name, table in _read(opened.readers, platform).items()}
    as_of = max((shown.made_at for shown in cut.values() if shown.made_at), default=started_at)
    log = _Log(platform, spec.ref)
    request = RefreshRequest(
        name=str(spec.ref),
        title=spec.title or spec.name.replace("_", " ").capitalize(),
        tables={name: _current(opened.readers[ref]) for name, ref in zip(spec.shows, spec.inputs, strict=True)},
        folder=platform.lake.dashboard(spec.ref),
        storage_options=platform.lake.storage_options,
        as_of=as_of,
        log=lambda line: platform.log.info("%s: %s", spec.ref, line),
        cancelled=platform.cancelled,
        timeout=_time_left(spec.timeout),
        cut=cut,
        remembered=log.remembered(),
        remember=log.remember,
    )
    row = RefreshRow(
        dashboard=spec.ref,
        status="failed",
        run_id=run_id,
        as_of=as_of,
        started_at=started_at,
        ended_at=started_at,
        cut=cut,
    )
    try:
        try:
            result = _refreshed(dashboard, request, where=where)
        except RefreshError as error:
            if platform.cancelled() or not secrets.renewed(error):
                raise
            platform.log.warning("%s: a secret was replaced meanwhile, beginning anew\n%s", spec.ref, error)
            dashboard = _dashboard(spec, connection=connection, root=root, secrets=secrets, where=where)
            result = _refreshed(dashboard, replace(request, remembered=log.remembered()), where=where)
    except PlatformError as error:
        log.record(replace(row, status="cancelled" if platform.cancelled() else "failed", error=redacted(error)))
        raise
    moved = _moved(spec, cut, platform=platform)
    if moved:
        platform.log.info("%s: newer meanwhile: %s; it is due again", spec.ref, ", ".join(moved))
    log.record(replace(row, status="succeeded", moved=moved, figures=result.figures, url=result.url or None))
    return RefreshOutcome(
        dashboard=spec.ref,
        url=result.url,
        figures=result.figures,
        cut=cut,
        moved=moved,
        deferred=opened.deferred,
        as_of=as_of,
        started_at=started_at,
        seconds=time.monotonic() - clock,
    )


class _Log:
    """The log of refreshes, whose absence keeps no dashboard from being refreshed."""

    def __init__(self, platform: Platform, dashboard: TableRef) -> None:
        self._log = platform.loads.refresh_log()
        self._platform = platform
        self._dashboard = dashboard

    def record(self, row: RefreshRow) -> None:
        ended = replace(row, ended_at=dt.datetime.now(dt.UTC))
        self._try(lambda: self._log.record(ended), "the refresh is not in the log of refreshes")

    def remember(self, what: Mapping[str, Any]) -> None:
        self._try(lambda: self._log.remember(self._dashboard, what), "the next attempt knows less of this one")

    def remembered(self) -> Mapping[str, Any]:
        found: list[Mapping[str, Any]] = []
        self._try(lambda: found.append(self._log.remembered(self._dashboard)), "nothing is known of earlier attempts")
        return found[0] if found else {}

    def _try(self, work: Callable[[], None], otherwise: str) -> None:
        try:
            work()
        except ControlError as error:
            self._platform.log.warning("%s: %s\n%s", self._dashboard, otherwise, error)


def probe(spec: RefreshSpec, *, connection: ConnectionSpec | None, root: Path, platform: Platform) -> bool:
    """Ask the service of a dashboard whether it lets us in, changing nothing; False where there is none to ask.

    Raises:
        RefreshError: it does not, or options do not fit.
        PluginError: there is no such dashboard plug-in.
        SecretError: a secret that the plug-in needs is missing.
    """
    where = f"dashboard {spec.ref}" + (f" ({spec.place})" if spec.place else "")
    dashboard = _dashboard(spec, connection=connection, root=root, secrets=SecretUse(platform), where=where)
    with _told(dashboard, str(spec.ref), where=where):
        return dashboard.probe()


def _dashboard(
    spec: RefreshSpec, *, connection: ConnectionSpec | None, root: Path, secrets: SecretUse, where: str
) -> Dashboard:
    loaded: type[Dashboard] = plugin("dashboard", spec.type)
    options = _checked(loaded.Options, spec.options, where=where)
    reached = None
    if loaded.ConnectionOptions is not None:
        if connection is None:
            raise RefreshError(f"{where}: type {spec.type} needs 'connection': the name of a connection of that type")
        if connection.type != spec.type:
            raise RefreshError(
                f"{where}: connection '{connection.name}' is of type {connection.type}, but {spec.type} is needed"
            )
        reached = _checked(loaded.ConnectionOptions, connection.options, where=f"connection '{connection.name}'")
    return loaded(options, connection=reached, secret=secrets, root=root)


def _checked(model: type[Model], options: Mapping[str, Any], *, where: str) -> Model:
    wrong: list[str] = []
    try:
        return model(**options)
    except ValidationError as error:
        for issue in error.errors(include_input=False, include_url=False, include_context=False):
            wrong.append(f"{'.'.join(str(part) for part in issue['loc']) or 'options'}: {issue['msg']}")
    raise RefreshError("\n  ".join([f"{where}: options do not fit", *wrong]))


def is_refreshed_here(type_: str, environment: EnvironmentSpec) -> bool:
    """Whether dashboards of a type are refreshed in an environment.

    In a personal one only those that write nothing but files into the folder they are given, which is the person's: a
    service elsewhere has one dashboard for everybody.

    Raises:
        PluginError: there is no such dashboard plug-in.
    """
    if not environment.developer:
        return True
    loaded: type[Dashboard] = plugin("dashboard", type_)
    return loaded.in_lake


def _refuse_from_afar(spec: RefreshSpec, *, platform: Platform, where: str) -> None:
    if not is_refreshed_here(spec.type, platform.environment):
        raise RefreshError(
            f"{where}: not refreshed: environment '{platform.environment.name}' is a personal one, and a dashboard of "
            f"type {spec.type} is everybody's\n  try the tables with a dashboard of type page"
        )


def _opened(spec: RefreshSpec, judge: Judge, *, platform: Platform, where: str) -> OpenInputs:
    """The tables as they were judged: none was built between the look at how they stand and their opening."""
    state = judge()
    for _ in range(_OPENINGS):
        opened = _open(spec.inputs, platform=platform, where=where)
        before, state = state, judge()
        if state == before:
            return opened
    raise InputsError(
        f"{where}: not refreshed: what it shows was built anew {_OPENINGS} times while it was being opened"
        "\n  it is due again when that has come to rest"
    )


def _open(refs: tuple[TableRef, ...], *, platform: Platform, where: str) -> OpenInputs:
    opened = open_inputs(refs, platform=platform)
    if opened.missing:
        lines = [f"table {ref} does not exist yet; looked at {platform.lake.places(ref)}" for ref in opened.missing]
        names = " ".join(map(str, opened.missing))
        raise RefreshError("\n  ".join([f"{where}: not refreshed", *lines, f"build first: {names}"]))
    if opened.deferred:
        platform.log.info("%s: shows the shared %s", where, ", ".join(map(str, opened.deferred)))
    return opened


def _shown(table: TableReader, platform: Platform) -> ShownTable:
    batch = table.batch if isinstance(table, DeltaTableReader) else 0
    return ShownTable(version=table.version, batch=batch, made_at=_made_at(table, platform))


def _read(readers: Mapping[TableRef, TableReader], platform: Platform) -> dict[str, TableReader]:
    """All that is read by its full name: tables, views, and what lies below these."""
    found: dict[str, TableReader] = {}
    for ref, table in readers.items():
        if isinstance(table, DeltaTableReader | ViewReader):
            found[shown_name(ref, table, platform.lake)] = table
        if isinstance(table, ViewReader):
            found |= _read(table.inputs, platform)
    return found


def _moved(spec: RefreshSpec, cut: Mapping[str, ShownTable], *, platform: Platform) -> tuple[str, ...]:
    """What has another version by now."""
    try:
        now = _read(open_inputs(spec.inputs, platform=platform).readers, platform)
    except PlatformError as error:
        # The dashboard is refreshed all the same; the event log tells what is newer.
        platform.log.warning("%s: not known what moved while it was refreshed\n%s", spec.ref, error)
        return ()
    return tuple(name for name, shown in cut.items() if name not in now or now[name].version != shown.version)


def _time_left(limit: dt.timedelta | None) -> dt.timedelta | None:
    """What a plug-in may take of the limit of its step, so that it ends by itself before it is ended."""
    return None if limit is None else limit - min(limit / 10, _LAST_MOMENTS)


def _made_at(table: TableReader, platform: Platform) -> dt.datetime | None:
    """When the version that is shown was committed, of a view the newest that it reads; None where none says."""
    if isinstance(table, ViewReader):
        return max((made for read in table.inputs.values() if (made := _made_at(read, platform))), default=None)
    if not isinstance(table, DeltaTableReader):
        return None
    newest = open_table(table.handle.table_uri, storage_options=platform.lake.storage_options)
    if newest is None:
        return None
    # History begins at the newest commit of the log, whichever version a handle was opened at.
    commits = newest.history(newest.version() - table.version + 1)
    stamp = commits[-1].get("timestamp") if commits else None
    return None if stamp is None else dt.datetime.fromtimestamp(stamp / 1_000, dt.UTC)


def _refreshed(dashboard: Dashboard, request: RefreshRequest, *, where: str) -> RefreshResult:
    with _told(dashboard, request.name, where=where):
        return dashboard.refresh(request)


@contextmanager
def _told(dashboard: Dashboard, name: str, *, where: str) -> Iterator[None]:
    """Errors of a plug-in, with the place of the dashboard, and without texts that could hold row values."""
    try:
        yield
    except RefreshError as error:
        raise RefreshError(f"{where}: {str(error).removeprefix(f'{name}: ')}") from None
    except PlatformError:
        raise
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything, and its text may hold row values
        raise RefreshError(f"{where}: plug-in {type(dashboard).__name__} failed\n  {redacted(error)}") from None


def _current(table: TableReader) -> TableReader:
    return CurrentRows(table) if CURRENT in table.schema.names else table


class CurrentRows(TableReader):
    """A bronze table without the rows that are gone from the source."""

    def __init__(self, table: TableReader) -> None:
        self._table = table

    @property
    def version(self) -> int:
        return self._table.version

    @property
    def schema(self) -> pa.Schema:
        return self._table.schema

    def read(self, *, columns: tuple[str, ...] | None = None) -> pa.RecordBatchReader:
        """Stream the current rows."""
        wanted = columns or tuple(self.schema.names)
        batches = self._table.read(columns=tuple(dict.fromkeys((*wanted, CURRENT))))
        schema = pa.schema([self.schema.field(name) for name in wanted])
        return pa.RecordBatchReader.from_batches(schema, _filtered(batches, wanted))


def _filtered(batches: pa.RecordBatchReader, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch.filter(batch.column(CURRENT)).select(columns)
