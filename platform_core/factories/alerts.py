"""The sensor of a location that sees its runs end, writes what that tells to the outbox, and sends what waits there.

It runs beside the daemon, never in the process of a run: a channel that hangs, or a control database that is away,
holds up no load. What could not be written is found again: the cursor stays where it was.
"""

import datetime as dt
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG

from platform_core.control.database import open_database
from platform_core.control.outbox import Outbox
from platform_core.control.references import Tables
from platform_core.control.workspace import examine
from platform_core.errors import ControlError, PlatformError
from platform_core.factories import translation
from platform_core.factories.resource import opened_platform
from platform_core.factories.run_facts import data_ages, finished_run
from platform_core.factories.watching import watch
from platform_core.operations.alerts.dispatch import Dispatcher, Round, open_channels
from platform_core.operations.alerts.facts import FinishedRun, Surroundings, workstream_owner
from platform_core.operations.alerts.raising import is_unexplained, raise_alerts, remind
from platform_core.settings import Settings, read_settings
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.table import TableRef

INTERVAL = dt.timedelta(seconds=30)
"""A message goes out at most about this long after its run has ended."""

READING_SECONDS = 20.0
"""Most seconds of one tick for runs that have ended; the rest wait for the next."""

SETTLED = dt.timedelta(seconds=60)
"""The cursor stays behind events that are younger: a database may show an older event after a newer one."""

RETRY_PATIENCE = dt.timedelta(minutes=10)
"""A failed run that Dagster means to retry is told after this time if no retry was started."""

CAUSE_PATIENCE = dt.timedelta(minutes=2)
"""What refused its inputs is told after this time if no location has told what is the matter with these."""

_PAGE = 500
_ENDED = (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED)


@dataclass
class Cursor:
    """How far the sensor has read.

    Args:
        after: storage id of the last settled event, by type of event.
        began: when the sensor first looked; what lies before is not its business.
        serial: the last apply that was told of.
        tidied: when old rows were last removed.
    """

    after: dict[str, int] = field(default_factory=dict)
    began: float = 0.0
    serial: int | None = None
    tidied: float = 0.0

    @classmethod
    def read(cls, text: str | None) -> "Cursor":
        """As :meth:`write` wrote it; a new one where there is none."""
        return cls(**json.loads(text)) if text else cls()

    def write(self) -> str:
        """As Dagster keeps it."""
        return json.dumps(vars(self))


def alert_sensor_name(location: str) -> str:
    """The sensor of a location."""
    return f"{location}_alerts"


def build_alert_sensors(manifest: Manifest, environment: EnvironmentSpec) -> list[dg.SensorDefinition]:
    """The sensor of a location; none where the environment neither tells people nor keeps logs."""
    if environment.alerts is None and environment.logs is None:
        return []

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        inputs = inputs_of(context.repository_def.asset_graph) if context.repository_def is not None else {}
        cursor = Cursor.read(context.cursor)
        try:
            told = look(context.instance, cursor, manifest=manifest, environment=environment, inputs=inputs)
        except ControlError as error:
            return dg.SkipReason(f"nothing is lost, it is tried again: {error}")
        finally:
            context.update_cursor(cursor.write())
        return dg.SkipReason(told)

    return [
        dg.SensorDefinition(
            name=alert_sensor_name(manifest.location.name),
            evaluation_fn=evaluate,
            minimum_interval_seconds=int(INTERVAL.total_seconds()),
            description="Tells people what failed and what works again, and keeps the log of steps.",
            default_status=dg.DefaultSensorStatus.RUNNING if environment.schedules else dg.DefaultSensorStatus.STOPPED,
        )
    ]


def look(
    instance: dg.DagsterInstance,
    cursor: Cursor,
    *,
    manifest: Manifest,
    environment: EnvironmentSpec,
    inputs: Mapping[TableRef, Sequence[TableRef]],
) -> str:
    """One tick: record runs that have ended, watch what should have happened, send what waits.

    Args:
        cursor: changed as far as the tick comes.
        inputs: what each asset of the location reads.

    Returns:
        What was done, in words.

    Raises:
        ControlError: the control database is away.
    """
    outbox = opened_outbox(read_settings())
    now = dt.datetime.now(dt.UTC)
    if not cursor.began:
        cursor.began, cursor.after = now.timestamp(), _newest(instance)
    runs = _record(instance, cursor, outbox=outbox, manifest=manifest, environment=environment, inputs=inputs)
    if environment.alerts is None:
        return f"{runs} runs seen"
    watch(
        instance,
        cursor,
        outbox=outbox,
        manifest=manifest,
        environment=environment,
        around=lambda: surroundings(manifest, inputs),
        now=now,
    )
    remind(outbox=outbox, rules=manifest.alerts, location=manifest.location.name, now=now)
    if now.timestamp() - cursor.tidied > dt.timedelta(days=1).total_seconds():
        outbox.forget(older=environment.alerts.keep)
        cursor.tidied = now.timestamp()
    sent = dispatcher(outbox, environment).deliver()
    return f"{runs} runs seen; {_in_words(sent)}"


@cache
def opened_outbox(settings: Settings) -> Outbox:
    """The outbox of an installation, shared by all that this process does.

    Raises:
        ConfigError: the environment's file is wrong.
    """
    platform = opened_platform()
    return Outbox(open_database(platform.environment.control, state=settings.state, secrets=platform.secrets))


def dispatcher(outbox: Outbox, environment: EnvironmentSpec) -> Dispatcher:
    """What sends the messages of an environment that has channels."""
    alerts = environment.alerts
    if alerts is None:
        raise PlatformError("the environment has no channels for alerts")
    channels = open_channels(alerts, secrets=opened_platform().secrets)
    return Dispatcher(outbox, channels, fallback=alerts.fallback, tries=alerts.tries)


def _newest(instance: dg.DagsterInstance) -> dict[str, int]:
    newest = {}
    for type_ in _ENDED:
        found = instance.fetch_run_status_changes(type_, limit=1).records
        newest[type_.value] = found[0].storage_id if found else 0
    return newest


def _record(
    instance: dg.DagsterInstance,
    cursor: Cursor,
    *,
    outbox: Outbox,
    manifest: Manifest,
    environment: EnvironmentSpec,
    inputs: Mapping[TableRef, Sequence[TableRef]],
) -> int:
    """Write what runs that have ended tell, in their order; returns how many were written."""
    ends, location = time.monotonic() + READING_SECONDS, manifest.location.name
    changes = _changes(instance, cursor)
    known = outbox.has_seen([run_id for _, _, _, run_id in changes]) if changes else set()
    held: set[str] = set()
    recorded = 0
    for storage_id, type_, at, run_id in changes:
        if time.monotonic() > ends:
            break
        if run_id not in known:
            record = next(iter(instance.get_run_records(dg.RunsFilter(run_ids=[run_id]), limit=1)), None)
            if record is not None and _is_of(record, manifest):
                run = None if _waits_for_retry(record, at) else finished_run(instance, record, location=location)
                if run is None or (
                    environment.alerts is not None
                    and dt.datetime.now(dt.UTC) - at < CAUSE_PATIENCE
                    and is_unexplained(run, outbox=outbox, around=lambda: surroundings(manifest, inputs))
                ):
                    held.add(type_)
                else:
                    recorded += _write(run, record, instance, outbox, manifest, environment, inputs)
        if type_ not in held and at < dt.datetime.now(dt.UTC) - SETTLED:
            cursor.after[type_] = max(cursor.after.get(type_, 0), storage_id)
        else:
            held.add(type_)
    return recorded


def _write(
    run: FinishedRun,
    record: dg.RunRecord,
    instance: dg.DagsterInstance,
    outbox: Outbox,
    manifest: Manifest,
    environment: EnvironmentSpec,
    inputs: Mapping[TableRef, Sequence[TableRef]],
) -> int:
    told = raise_alerts(
        run,
        outbox=outbox,
        rules=manifest.alerts,
        alerts=environment.alerts,
        around=lambda: surroundings(manifest, inputs),
        ages=lambda refs: data_ages(instance, refs),
        now=dt.datetime.now(dt.UTC),
        retried=AUTO_RETRY_RUN_ID_TAG in record.dagster_run.tags,
    )
    return int(told is not None)


def _changes(instance: dg.DagsterInstance, cursor: Cursor) -> list[tuple[int, str, dt.datetime, str]]:
    """Ends of runs after the cursor, in order: storage id, type, time, run."""
    found: list[tuple[int, str, dt.datetime, str]] = []
    cut: list[int] = []
    for type_ in _ENDED:
        # One of three types that the filter knows; its own annotation names them one by one.
        kind: Any = type_
        filter_ = dg.RunStatusChangeRecordsFilter(event_type=kind, after_storage_id=cursor.after.get(type_.value, 0))
        records = instance.fetch_run_status_changes(filter_, limit=_PAGE, ascending=True).records
        if len(records) == _PAGE:
            cut.append(records[-1].storage_id)
        found += [
            (each.storage_id, type_.value, dt.datetime.fromtimestamp(each.timestamp, dt.UTC), each.run_id)
            for each in records
        ]
    return sorted(each for each in found if not cut or each[0] <= min(cut))


def _is_of(record: dg.RunRecord, manifest: Manifest) -> bool:
    """Whether a run is one of this location."""
    origin = record.dagster_run.remote_job_origin
    if origin is not None:
        return bool(origin.location_name == manifest.location.name)
    own = {workstream.name for workstream in manifest.location.workstreams}
    return record.dagster_run.job_name in own


def _waits_for_retry(record: dg.RunRecord, ended: dt.datetime) -> bool:
    tags = record.dagster_run.tags
    return (
        record.dagster_run.status is dg.DagsterRunStatus.FAILURE
        and tags.get(WILL_RETRY_TAG) == "true"
        and AUTO_RETRY_RUN_ID_TAG not in tags
        and dt.datetime.now(dt.UTC) - ended < RETRY_PATIENCE
    )


def surroundings(manifest: Manifest, inputs: Mapping[TableRef, Sequence[TableRef]]) -> Surroundings:
    """What lies around the tables of a location, those of other locations included as far as their files are here.

    Args:
        inputs: what each asset of the location reads.
    """
    edges: dict[TableRef, tuple[TableRef, ...]] = {}
    owners: dict[TableRef, tuple[str, ...]] = {}
    for tables in _others():
        edges |= tables.edges()
        for dashboard in tables.reading.refreshes:
            edges[dashboard.spec.ref] = dashboard.spec.inputs
            owners[dashboard.spec.ref] = tuple(dashboard.spec.owners)
        for workstream in tables.reading.workstreams:
            owners[workstream_owner(workstream.spec.name)] = tuple(workstream.spec.owners)
    edges |= {ref: tuple(read) for ref, read in inputs.items()}
    owners |= {spec.ref: tuple(spec.owners) for spec in manifest.ingestions}
    owners |= {spec.ref: tuple(spec.owners) for spec in manifest.steps}
    owners |= {spec.ref: tuple(spec.owners) for spec in manifest.refreshes}
    for own in manifest.location.workstreams:
        owners[workstream_owner(own.name)] = tuple(own.owners)
    connections = {spec.ref: f"{spec.workstream}.{spec.source}" for spec in manifest.ingestions}
    connections |= {spec.ref: f"{spec.workstream}.{spec.source}" for spec in manifest.steps if spec.source}
    return Surroundings(inputs=edges, connections=connections, owners=owners)


def _others() -> Iterable[Tables]:
    try:
        return examine(read_settings()).read
    except PlatformError:
        # A fault in somebody's control files must not keep a failure from being told.
        return ()


def inputs_of(graph: AssetGraph) -> dict[TableRef, list[TableRef]]:
    """What each asset of a location reads."""
    found: dict[TableRef, list[TableRef]] = {}
    for key in graph.get_all_asset_keys():
        ref = translation.table_ref(key)
        if ref is not None:
            parents = graph.get(key).parent_keys
            found[ref] = [read for parent in parents if (read := translation.table_ref(parent)) is not None]
    return found


def _in_words(done: Round) -> str:
    parts = [
        f"{len(references)} {what}"
        for references, what in ((done.sent, "sent"), (done.postponed, "postponed"), (done.failed, "not taken"))
        if references
    ]
    return f"messages: {', '.join(parts)}" if parts else "no message is due"
