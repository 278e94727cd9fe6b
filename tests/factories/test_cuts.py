"""A dashboard shows one state of what its tables are made from, whoever asks for it."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.context.system import StepExecutionContext

from platform_core.definitions import build_definitions
from platform_core.factories.cuts import Mixed, mixed
from platform_core.factories.standing import Standing

LOCATION = 'location: crm\nworkstreams:\n  - {name: crm, owners: ["team:crm"]}\n'
CONNECTIONS = "connections:\n  - {{name: shop, type: sqlite, path: {path}}}\n"
INGESTION = "source: shop\ntables:\n  - {object: riders, mode: full, key: [id]}\n"
PROCESSING = """
steps:
  - {name: left, layer: silver, kind: sql, sql: a.sql}
  - {name: right, layer: silver, kind: sql, sql: a.sql%s}
"""
REFRESH = """
dashboards:
  - {name: board, type: page, shows: [silver.left, silver.right], tables: [{title: A, table: silver.left}]}
  - name: newest
    type: page
    cut: latest
    shows: [silver.left, silver.right]
    tables: [{title: A, table: silver.left}]
"""
A, LEFT, RIGHT = "bronze/riders", "silver/left", "silver/right"
BOARD, NEWEST = "dashboard/board", "dashboard/newest"


@dataclass
class Crm:
    """A location of one table, two steps that read it, and dashboards of both steps."""

    definitions: dg.Definitions
    instance: dg.DagsterInstance

    def run(self, *names: str) -> dg.ExecuteInProcessResult:
        keys = {key(name) for name in names}
        job = self.definitions.resolve_implicit_global_asset_job_def().get_subset(asset_selection=keys)
        return job.execute_in_process(instance=self.instance, raise_on_error=False)

    def due(self) -> set[str]:
        result = dg.evaluate_automation_conditions(self.definitions, self.instance)
        return {name for name in (LEFT, RIGHT, BOARD, NEWEST) if result.get_num_requested(key(name))}


def key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["crm", *name.split("/")])


def why(result: dg.ExecuteInProcessResult) -> str:
    (event,) = (event for event in result.all_events if event.is_step_failure)
    return event.step_failure_data.error_display_string


def make(root: Path, *, right: str = "") -> dg.Definitions:
    control, home = root / "crm" / "control", root / "dagster_home"
    for folder in (control / "ingestion", control / "processing", home / "environments"):
        folder.mkdir(parents=True)
    texts = {
        "location": LOCATION,
        "connections": CONNECTIONS.format(path=root / "shop.db"),
        "refresh": REFRESH,
        "ingestion/shop": INGESTION,
        "processing/steps": PROCESSING % right,
    }
    for name, text in texts.items():
        (control / f"{name}.yaml").write_text(text)
    module = "python_module: {module_name: crm.definitions, location_name: crm}"
    (root / "workspace.yaml").write_text(f"load_from:\n  - {module}\n")
    (root / "crm" / "a.sql").write_text("SELECT id FROM bronze.riders\n")
    (home / "environments" / "dev.yaml").write_text("lake: {root: lake}\nsecrets: {type: environment}\n")
    with sqlite3.connect(root / "shop.db") as shop:
        shop.execute("CREATE TABLE riders (id INTEGER PRIMARY KEY)")
        shop.execute("INSERT INTO riders VALUES (1)")
    shop.close()
    return build_definitions(control)


@pytest.fixture
def located(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dg.Definitions], dg.Definitions]:
    """Gives steps the repository that they belong to, which runs within the process leave out."""
    monkeypatch.chdir(tmp_path)
    for name in ("EDP_PROJECT", "EDP_STATE", "EDP_ENVIRONMENT", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)

    def locate(definitions: dg.Definitions) -> dg.Definitions:
        repository = definitions.get_repository_def()
        monkeypatch.setattr(StepExecutionContext, "repository_def", property(lambda _: repository))
        return definitions

    return locate


@pytest.fixture
def crm(tmp_path: Path, located: Callable[[dg.Definitions], dg.Definitions]) -> Iterator[Crm]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Crm(located(make(tmp_path)), instance)


def test_a_run_of_everything_refreshes_it_and_says_which_versions_it_shows(crm: Crm) -> None:
    result = crm.run(A, LEFT, RIGHT, BOARD)
    assert result.success
    (made,) = result.asset_materializations_for_node("crm__dashboard__board")
    cut = made.metadata["edp/cut"].value
    assert {name: shown["version"] for name, shown in cut.items()} == {"crm.silver.left": 0, "crm.silver.right": 0}
    assert made.metadata["edp/as_of"].value > 0


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_a_half_updated_set_is_neither_requested_nor_refreshed_by_hand(crm: Crm) -> None:
    crm.run(A, LEFT, RIGHT, BOARD)
    crm.run(A, LEFT)
    by_hand = crm.run(BOARD)
    assert not by_hand.success
    assert "crm.silver.left is made from a newer crm.bronze.riders than crm.silver.right" in why(by_hand)
    assert BOARD not in crm.due()
    assert crm.run(NEWEST).success
    crm.run(RIGHT)
    assert BOARD in crm.due()
    assert crm.run(BOARD).success


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_both_newer_but_of_different_states_is_a_half_updated_set(crm: Crm) -> None:
    crm.run(A, LEFT, RIGHT, BOARD)
    crm.run(A, LEFT)
    crm.run(A, RIGHT)
    assert "dashboard/board" not in crm.due()
    assert "crm.silver.right is made from a newer crm.bronze.riders than crm.silver.left" in why(crm.run(BOARD))


def test_a_paused_table_is_shown_as_it_is(tmp_path: Path, located: Callable[[dg.Definitions], dg.Definitions]) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        crm = Crm(located(make(tmp_path, right=", paused: true")), instance)
        crm.run(A, LEFT, RIGHT)
        crm.run(A, LEFT)
        assert crm.run(BOARD).success


def test_a_dashboard_is_refreshed_by_one_run_at_a_time(crm: Crm) -> None:
    crm.run(A, LEFT, RIGHT)
    job = crm.definitions.resolve_implicit_global_asset_job_def()
    earlier = crm.instance.create_run_for_job(
        job, asset_selection=frozenset({key(BOARD)}), status=dg.DagsterRunStatus.STARTED
    )
    refused = crm.run(BOARD)
    assert f"run {earlier.run_id[:8]}, which began earlier, refreshes it" in why(refused)
    crm.instance.report_run_failed(earlier)
    assert crm.run(BOARD).success


@pytest.fixture
def models() -> Iterator[Callable[..., Mixed | None]]:
    """Builds parts of: two models of one dbt build, the second from the first, and a table from each; what is mixed."""

    @dg.multi_asset(specs=[dg.AssetSpec("first"), dg.AssetSpec("second", deps=["first"])], can_subset=True)
    def dbt(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]
        for name in ("first", "second"):
            if dg.AssetKey(name) in context.selected_asset_keys:
                yield dg.MaterializeResult(asset_key=name)

    @dg.asset(deps=["first"])
    def of_first() -> None: ...

    @dg.asset(deps=["second"])
    def of_second() -> None: ...

    job = dg.Definitions(assets=[dbt, of_first, of_second]).resolve_implicit_global_asset_job_def()
    shown = [dg.AssetKey("of_first"), dg.AssetKey("of_second")]
    with dg.DagsterInstance.ephemeral() as instance:

        def build(*names: str) -> Mixed | None:
            selected = job.get_subset(asset_selection={dg.AssetKey(name) for name in names})
            selected.execute_in_process(instance=instance)
            return mixed(shown, standing=Standing(instance))

        yield build


def test_models_of_one_build_belong_together_also_once_they_are_built_anew(
    models: Callable[..., Mixed | None],
) -> None:
    assert models("first", "second") is None
    assert models("of_first", "of_second") is None
    assert models("first", "second") is None


def test_a_table_of_an_older_build_does_not_belong_to_one_of_a_newer(models: Callable[..., Mixed | None]) -> None:
    models("first", "second", "of_first", "of_second")
    models("first", "second")
    found = models("of_second")
    assert found is not None
    assert (found.source, found.newest, found.older) == (
        dg.AssetKey("first"),
        dg.AssetKey("of_second"),
        (dg.AssetKey("of_first"),),
    )
    assert models("of_first") is None


def test_a_model_that_is_built_alone_is_newer_than_what_the_other_was_made_from(
    models: Callable[..., Mixed | None],
) -> None:
    models("first", "second", "of_first", "of_second")
    models("first")
    assert models("of_first") is not None
    models("second")
    assert models("of_second") is None
