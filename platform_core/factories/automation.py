"""When assets are requested across runs and locations: only on healthy, newer inputs."""

import dagster as dg

_AC = dg.AutomationCondition

HEALTHY = (
    ~_AC.any_deps_missing()
    & ~_AC.any_deps_in_progress()
    & ~_AC.any_deps_match(_AC.execution_failed())
    & _AC.all_deps_blocking_checks_passed()
)
"""Every input exists, none is being built, none has failed since, none failed a blocking check."""

PROCESSING = (
    (_AC.newly_missing() | _AC.any_deps_updated()).since_last_handled() & HEALTHY & ~_AC.in_progress()
).with_label("an input is newer, and all are healthy")
"""A processing step: at least one input is newer than its last run."""


class EveryInputNewer(dg.AutomationCondition[dg.AssetKey]):
    """True where each input was built after the asset's last attempt, successful or not.

    It compares positions in the event log, so that no update is lost between two ticks; comparing with the
    last *success* instead would request for ever after a failed attempt.
    """

    @property
    def name(self) -> str:
        """Shown in the UI."""
        return "every_input_newer_than_last_attempt"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        """Decide for the one unpartitioned asset of this context."""
        storage = context.asset_graph_view.instance.event_log_storage
        attempt = storage.get_latest_planned_materialization_info(context.key)
        attempted = attempt.storage_id if attempt else 0
        inputs = context.asset_graph_view.asset_graph.get(context.key).parent_keys
        built = {record.asset_entry.asset_key: record.asset_entry for record in storage.get_asset_records(list(inputs))}
        newer = all(key in built and (built[key].last_materialization_storage_id or 0) > attempted for key in inputs)
        subset = context.candidate_subset if newer else context.get_empty_subset()
        return dg.AutomationResult(context=context, true_subset=subset)


REFRESH = (EveryInputNewer() & HEALTHY & ~_AC.in_progress()).with_label(
    "every shown table is newer than the last attempt, and all are healthy"
)
"""A dashboard: every table it shows is newer than its last attempt."""
