"""Shows in the UI which metadata a location runs on, and warns where that is not what is applied.

An asset stands for the metadata, a check of it for the comparison with the control database, and a sensor makes that
comparison each minute. None of them is asked while definitions load or steps run.
"""

import datetime as dt

import dagster as dg

from platform_core.control.snapshot.content import Snapshot
from platform_core.control.snapshot.probing import Finding, Probe
from platform_core.factories import translation

CHECK = "as_applied"
"""Name of the check."""

INTERVAL = dt.timedelta(seconds=60)
"""A warning is shown this long after its cause, at most."""


def build_metadata_asset(snapshot: Snapshot) -> dg.AssetSpec:
    """The asset that stands for the metadata of a location; it says where that comes from."""
    of = snapshot.provenance
    return dg.AssetSpec(
        translation.metadata_key(of.location),
        group_name=translation.group_name(of.location, "control"),
        description=f"What is applied of location {of.location} in environment {of.environment}, and runs here.",
        kinds={"yaml"},
        metadata={
            "edp/environment": of.environment,
            translation.SERIAL_TAG: of.serial,
            translation.COMMIT_TAG: of.git_commit or "not from git",
            "edp/release": of.release,
            "edp/snapshot": snapshot.digest,
        },
    )


def build_metadata_check(location: str, probe: Probe) -> dg.AssetChecksDefinition:
    """The check that a person may run at any time."""

    @dg.asset_check(
        asset=translation.metadata_key(location),
        name=CHECK,
        description="The control database answers, and this code server runs on what was applied last.",
    )
    def as_applied() -> dg.AssetCheckResult:
        found = probe.look()
        return dg.AssetCheckResult(
            passed=found.is_good,
            severity=dg.AssetCheckSeverity.WARN,
            description=found.message,
            metadata=_figures(found),
        )

    return as_applied


def build_metadata_sensor(location: str, probe: Probe) -> dg.SensorDefinition:
    """The sensor that looks each minute, and records what it finds where that has changed."""
    key = dg.AssetCheckKey(translation.metadata_key(location), CHECK)

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        found = probe.look()
        if not found.is_good:
            context.log.warning(found.message)
        shown = found.message if found.is_good else f"WARNING: {found.message}"
        return dg.SensorResult(
            skip_reason=shown,
            asset_events=[] if _is_recorded(context.instance, key, found) else [_evaluation(key, found)],
        )

    return dg.SensorDefinition(
        name=translation.metadata_sensor_name(location),
        evaluation_fn=evaluate,
        minimum_interval_seconds=int(INTERVAL.total_seconds()),
        description="Warns where the control database is away, or where something was applied that does not run yet.",
        # It starts nothing: schedules may well be off here.
        default_status=dg.DefaultSensorStatus.RUNNING,
    )


def _evaluation(key: dg.AssetCheckKey, found: Finding) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=found.is_good,
        severity=dg.AssetCheckSeverity.WARN,
        description=found.message,
        metadata=_figures(found),
    )


def _figures(found: Finding) -> dict[str, str | int]:
    serials = {"loaded": found.loaded, "published": found.published, "applied": found.applied}
    figures: dict[str, str | int] = {
        f"edp/serial_{name}": serial for name, serial in serials.items() if serial is not None
    }
    return figures | {"edp/standing": str(found.standing)}


def _is_recorded(instance: dg.DagsterInstance, key: dg.AssetCheckKey, found: Finding) -> bool:
    """Whether the newest record of the check says the same, whoever made it."""
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).get(key)
    event = None if record is None or record.event is None else record.event.dagster_event
    if event is None or event.event_specific_data is None:
        return False
    evaluation = event.event_specific_data
    return isinstance(evaluation, dg.AssetCheckEvaluation) and evaluation.description == found.message
