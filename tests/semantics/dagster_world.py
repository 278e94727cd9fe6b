"""The diamond in Dagster itself: real runs of two locations, one event log, Dagster's own evaluation of conditions."""

import dagster as dg

from platform_core.errors import InputsError
from platform_core.factories.automation import PROCESSING, REFRESH
from platform_core.factories.cuts import mixed
from platform_core.factories.readiness import unfit
from platform_core.factories.standing import Standing
from tests.semantics.world import DASHBOARD, INPUTS, LOADED, Outcome, World

CHECK = "good"


class DagsterWorld(World):
    """The diamond as assets whose bodies ask the platform's rule, and do as the test says."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        super().__init__()
        self.instance = instance
        self.cursor: dg.AutomationConditionCursor | None = None
        loaded = [self._asset(name) for name in LOADED]
        made = [self._asset(name) for name in INPUTS]
        self.locations = {
            LOADED: dg.Definitions(assets=loaded),
            tuple(INPUTS): dg.Definitions(assets=[*(dg.AssetSpec(name) for name in LOADED), *made]),
        }

    def requested(self) -> frozenset[str]:
        definitions = self.locations[tuple(INPUTS)]
        result = dg.evaluate_automation_conditions(definitions, self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        return frozenset(name for name in INPUTS if result.get_num_requested(dg.AssetKey(name)))

    def run(self, *names: str) -> None:
        plan = self.truth.plan(names)
        job = self._definitions(names[0]).resolve_implicit_global_asset_job_def()
        selected = job.get_subset(asset_selection={dg.AssetKey(name) for name in names})
        result = selected.execute_in_process(instance=self.instance, raise_on_error=False)
        built = {event.asset_key.path[0] for event in result.get_asset_materialization_events() if event.asset_key}
        checks = result.get_asset_check_evaluations()
        bad = {check.asset_key.path[0] for check in checks if not check.passed}
        self._ends(plan, built, bad)

    def recheck(self, name: str) -> None:
        if self.instance.get_latest_materialization_event(dg.AssetKey(name)) is None:
            return
        job = self._definitions(name).resolve_implicit_global_asset_job_def()
        check = {dg.AssetCheckKey(dg.AssetKey(name), CHECK)}
        selected = job.get_subset(asset_selection=set(), asset_check_selection=check)
        selected.execute_in_process(instance=self.instance)
        self.truth.rechecked(name)

    def _definitions(self, name: str) -> dg.Definitions:
        return next(definitions for names, definitions in self.locations.items() if name in names)

    def _asset(self, name: str) -> dg.AssetsDefinition:
        """An asset with its check in one step, of which each can be run alone: as the platform's are."""
        key = dg.AssetKey(name)
        condition = None if name in LOADED else REFRESH if name == DASHBOARD else PROCESSING

        @dg.multi_asset(
            name=name,
            specs=[dg.AssetSpec(name, deps=INPUTS.get(name, ()), automation_condition=condition, skippable=True)],
            check_specs=[dg.AssetCheckSpec(CHECK, asset=name, blocking=True)],
            can_subset=True,
        )
        def step(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]
            outcome = Outcome.OK
            if key in context.selected_asset_keys:
                self._refuse(context, name)
                self.truth.read(name)
                if self.late and name in INPUTS:
                    self.late = False
                    self.run("a")
                outcome = self.outcomes.pop(name, Outcome.OK)
                if outcome is Outcome.FAILS:
                    raise RuntimeError(name)
                self.truth.built(name, outcome=outcome)
                yield dg.MaterializeResult(asset_key=key)
            if context.selected_asset_check_keys:
                yield dg.AssetCheckResult(asset_key=key, check_name=CHECK, passed=outcome is Outcome.OK)

        return step

    def _refuse(self, context: dg.AssetExecutionContext, name: str) -> None:
        for source in INPUTS.get(name, ()):
            found = unfit(dg.AssetKey(source), standing=Standing(self.instance), own_run=context.run.run_id)
            if found and (found.failed or name == DASHBOARD or found.reason == "was never built"):
                raise InputsError(f"{source} {found.reason}")
        shown = [dg.AssetKey(source) for source in INPUTS.get(name, ())]
        if name == DASHBOARD and mixed(shown, standing=Standing(self.instance)) is not None:
            raise InputsError("what it shows does not belong together")
