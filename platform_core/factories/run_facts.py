"""Reads from Dagster's event log what a finished run came to, without a row value."""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import replace

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from platform_core.control.alert_records import StepRow
from platform_core.factories import translation
from platform_core.operations.alerts.facts import CheckOutcome, FailedStep, FinishedRun, ShownDashboard
from platform_core.specs.table import TableRef

_Type = dg.DagsterEventType
_READ = {
    _Type.ASSET_MATERIALIZATION_PLANNED,
    _Type.ASSET_MATERIALIZATION,
    _Type.ASSET_OBSERVATION,
    _Type.ASSET_CHECK_EVALUATION,
    _Type.STEP_FAILURE,
}
_PAGE = 1_000
_OURS = "platform_core."
_FRAME = "  at "
_WITHHELD = "its text is withheld: it may hold row values"
_MOST_LOOKED_UP = 500


def finished_run(instance: dg.DagsterInstance, record: dg.RunRecord, *, location: str) -> FinishedRun:
    """What a finished run came to.

    Args:
        record: of the run.
        location: whose run it is.
    """
    run = record.dagster_run
    planned: dict[TableRef, str | None] = {}
    built: dict[TableRef, dt.datetime] = {}
    checks: list[CheckOutcome] = []
    failures: dict[str, tuple[SerializableErrorInfo | None, dt.datetime]] = {}
    for entry in _events(instance, run.run_id):
        event, at = entry.get_dagster_event(), dt.datetime.fromtimestamp(entry.timestamp, dt.UTC)
        ref = translation.table_ref(event.asset_key) if event.asset_key is not None else None
        if event.event_type is _Type.STEP_FAILURE and event.step_key is not None:
            failures[event.step_key] = event.step_failure_data.error, at
        elif event.event_type is _Type.ASSET_CHECK_EVALUATION:
            found = event.asset_check_evaluation_data
            table = translation.table_ref(found.asset_key)
            if table is not None:
                checks.append(
                    CheckOutcome(
                        table=table, name=found.check_name, passed=found.passed, blocking=bool(found.blocking), at=at
                    )
                )
        elif ref is not None and event.event_type is _Type.ASSET_MATERIALIZATION_PLANNED:
            planned[ref] = event.step_key
        elif ref is not None and event.event_type in (_Type.ASSET_MATERIALIZATION, _Type.ASSET_OBSERVATION):
            # What another system owns is built where it was looked at.
            built[ref] = at
    made: dict[str, list[TableRef]] = {}
    for ref, step in planned.items():
        # A step that makes several tables may have made some of them before it failed.
        if step in failures and (ref not in built or _makes_one(planned, step)):
            built.pop(ref, None)
            made.setdefault(str(step), []).append(ref)
    failed = tuple(_failed_step(step, tuple(made.get(step, ())), *failures[step]) for step in failures)
    broken = {ref for refs in made.values() for ref in refs}
    ended = record.end_time or record.update_timestamp.timestamp()
    return FinishedRun(
        run_id=run.run_id,
        job=run.job_name,
        location=location,
        succeeded=run.status is dg.DagsterRunStatus.SUCCESS,
        cancelled=run.status is dg.DagsterRunStatus.CANCELED,
        started_at=_moment(record.start_time),
        ended_at=dt.datetime.fromtimestamp(ended, dt.UTC),
        failed=_with_mended(instance, failed, run.run_id),
        built=built,
        skipped=tuple(sorted(ref for ref in planned if ref not in built and ref not in broken)),
        checks=tuple(checks),
        error=_run_error(instance, run.run_id) if run.status is dg.DagsterRunStatus.FAILURE and not failed else "",
        steps=tuple(_step_rows(instance, run, location, planned, failures)),
    )


def told_error(error: SerializableErrorInfo | None) -> tuple[str, str]:
    """Class and text of a step's error as Dagster stored it; the text of a class that is not ours is withheld."""
    innermost = error
    while error is not None:
        text = error.message.strip()
        if text.startswith(_OURS):
            name, _, rest = text.partition(": ")
            lines = [line for line in rest.splitlines() if not line.startswith(_FRAME)]
            return name.rpartition(".")[2], "\n".join(lines)
        innermost, error = error, error.cause
    if innermost is None:
        return "", "failed"
    name = innermost.cls_name or "error"
    return name, f"{name} ({_WITHHELD})"


def data_ages(instance: dg.DagsterInstance, refs: Sequence[TableRef]) -> list[ShownDashboard]:
    """How old the data is that dashboards show, in the order of the references."""
    keys = [translation.asset_key(ref) for ref in refs]
    found = {record.asset_entry.asset_key: record.asset_entry for record in instance.get_asset_records(keys)}
    shown = []
    for ref, key in zip(refs, keys, strict=True):
        entry = found.get(key)
        event = entry.last_materialization if entry is not None else None
        made = event.asset_materialization if event is not None else None
        as_of = made.metadata.get("edp/as_of") if made is not None else None
        value = as_of.value if isinstance(as_of, dg.TimestampMetadataValue) else None
        if value is None and event is not None:
            value = event.timestamp
        shown.append(ShownDashboard(ref=ref, as_of=_moment(value)))
    return shown


def _events(instance: dg.DagsterInstance, run_id: str) -> Iterator[dg.EventLogEntry]:
    cursor: str | None = None
    while True:
        page = instance.get_records_for_run(run_id, cursor=cursor, of_type=_READ, limit=_PAGE)
        yield from (record.event_log_entry for record in page.records)
        if not page.has_more:
            return
        cursor = page.cursor


def _makes_one(planned: dict[TableRef, str | None], step: str | None) -> bool:
    return sum(each == step for each in planned.values()) == 1


def _failed_step(
    step: str, makes: tuple[TableRef, ...], error: SerializableErrorInfo | None, at: dt.datetime
) -> FailedStep:
    error_class, text = told_error(error)
    return FailedStep(step=step, makes=makes, error_class=error_class, error=text, at=at)


def _with_mended(instance: dg.DagsterInstance, failed: tuple[FailedStep, ...], run_id: str) -> tuple[FailedStep, ...]:
    """The steps, with those marked whose tables another run has built since."""
    refs = [ref for step in failed for ref in step.makes][:_MOST_LOOKED_UP]
    keys = {translation.asset_key(ref): ref for ref in refs}
    since: dict[TableRef, float] = {}
    for record in instance.get_asset_records([*keys]) if keys else ():
        event = record.asset_entry.last_materialization or _look(instance, record.asset_entry.asset_key)
        if event is not None and event.run_id != run_id:
            since[keys[record.asset_entry.asset_key]] = event.timestamp
    return tuple(
        replace(step, mended=bool(step.makes) and all(since.get(ref, 0.0) > step.at.timestamp() for ref in step.makes))
        for step in failed
    )


def _look(instance: dg.DagsterInstance, key: dg.AssetKey) -> dg.EventLogEntry | None:
    """The newest look at what another system owns; None where there was none."""
    return next((record.event_log_entry for record in instance.fetch_observations(key, limit=1).records), None)


def _run_error(instance: dg.DagsterInstance, run_id: str) -> str:
    """Why a run failed although no step of it did."""
    page = instance.get_records_for_run(run_id, of_type=_Type.RUN_FAILURE, limit=1, ascending=False)
    for record in page.records:
        event = record.event_log_entry.get_dagster_event()
        data = event.job_failure_data if event.event_specific_data is not None else None
        if data is not None and data.error is not None:
            return told_error(data.error)[1]
        return next(iter((event.message or "").splitlines()), "")[:300]
    return ""


def _step_rows(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    location: str,
    planned: dict[TableRef, str | None],
    failures: dict[str, tuple[SerializableErrorInfo | None, dt.datetime]],
) -> Iterator[StepRow]:
    made: dict[str, list[TableRef]] = {}
    for ref, step in planned.items():
        made.setdefault(str(step), []).append(ref)
    serial = run.tags.get(translation.SERIAL_TAG, "")
    for stats in instance.get_run_step_stats(run.run_id):
        refs = made.get(stats.step_key, [])
        only = refs[0] if len(refs) == 1 else None
        error = told_error(failures[stats.step_key][0]) if stats.step_key in failures else None
        yield StepRow(
            run_id=run.run_id,
            step=stats.step_key,
            location=location,
            job=run.job_name,
            workstream=refs[0].workstream if refs else None,
            layer=only.layer if only else None,
            name=only.name if only else None,
            status=stats.status.value.lower() if stats.status is not None else "started",
            tries=stats.attempts or 1,
            started_at=_moment(stats.start_time),
            ended_at=_moment(stats.end_time),
            error_class=error[0] if error else None,
            error=error[1][:4_000] if error else None,
            serial=int(serial) if serial.isascii() and serial.isdecimal() else None,
        )


def _moment(seconds: float | None) -> dt.datetime | None:
    return None if not seconds else dt.datetime.fromtimestamp(seconds, dt.UTC)
