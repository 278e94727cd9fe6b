"""What is declared about how entries run: docs/how-to/schedule-and-limit.md, word for word, and what it promises."""

import datetime as dt
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_core.errors import (
    ConfigError,
    DeletesStopped,
    InputsError,
    LeaseError,
    LoadError,
    Place,
    PlatformError,
    SchemaError,
    SecretMissing,
    SourceError,
    StepError,
)
from platform_core.execution import cancel_event, time_limits
from platform_core.factories.asset import Checks, build_asset
from platform_core.factories.dbt import build_dbt_assets
from platform_core.factories.resource import PLATFORM
from platform_core.factories.run_facts import told_error
from platform_core.factories.run_policy import Running, running
from platform_core.factories.upkeep import build_upkeep_asset
from platform_core.operations.dbt_manifest import DbtManifest, Model
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.location import LocationSpec, WorkstreamSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.run_policy import Backoff, Jitter, Retries
from platform_core.specs.table import TableRef
from platform_core.specs.upkeep import UpkeepSpec
from tests.execution.in_memory import outcome, own_instance, run_assets

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "schedule-and-limit.md"
WORKSTREAM = WorkstreamSpec(name="crm", owners=("team:crm",))
SOON = dt.timedelta(milliseconds=5)


class Resource:
    """In the place of the platform, which these bodies do not use."""

    def open(self, context: dg.AssetExecutionContext) -> None: ...


def declared(**policy: Any) -> Running:
    spec = IngestionSpec(workstream="crm", source="shop", object="t", table="t", mode="full", key=("id",), **policy)
    return running(spec.at(Place(Path("control/ingestion/shop.yaml"), 4)), workstream=WORKSTREAM)


def run_step(
    body: Callable[[dg.AssetExecutionContext], None], how: Running, *, checks: Checks | None = None
) -> dg.JobExecutionResult:
    """One run of one asset with the given body."""

    def made(context: dg.AssetExecutionContext, _: Any) -> dg.MaterializeResult[None]:
        body(context)
        return dg.MaterializeResult()

    asset = build_asset(dg.AssetSpec(["crm", "bronze", "t"]), name="t", body=made, how=how, checks=checks)
    with own_instance() as instance:
        return run_assets([asset], instance, resources={PLATFORM: Resource()})


def told(result: dg.JobExecutionResult) -> tuple[str, str]:
    """Class and text of the failure, as an alert tells them."""
    (failed,) = (event for event in result.all_events if event.is_step_failure)
    return told_error(failed.step_failure_data.error)


class Failing:
    """A body that raises the given errors in turn, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self, context: dg.AssetExecutionContext) -> None:
        if self.errors:
            raise self.errors.pop(0)


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        (Backoff.EXPONENTIAL, [0.005, 0.015, 0.035]),
        (Backoff.LINEAR, [0.005, 0.010, 0.015]),
        (Backoff.NONE, [0.005, 0.005, 0.005]),
    ],
)
def test_a_source_that_does_not_answer_is_tried_again_with_back_off(backoff: Backoff, waits: list[float]) -> None:
    retries = Retries(max=3, delay=SOON, backoff=backoff, jitter=Jitter.NONE)
    result = run_step(Failing(*[SourceError("the server does not answer")] * 3), declared(retries=retries))

    assert result.success
    tried = [event.step_retry_data.seconds_to_wait for event in result.all_events if event.is_step_up_for_retry]
    assert tried == pytest.approx(waits)
    assert [wait.total_seconds() for wait in retries.waits()] == pytest.approx(waits)


@pytest.mark.parametrize(
    "error",
    [
        SchemaError("column 'a' is gone"),
        DeletesStopped("it would have flagged 9 of 10 rows deleted", deletes=9, current=10),
        LoadError("2 keys are null"),
        InputsError("bronze.riders failed"),
        SecretMissing("crm/shop"),
        ConfigError([]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_person_has_to_mend_is_not_tried_again(error: PlatformError) -> None:
    result = run_step(Failing(error), declared(retries=Retries(max=3, delay=SOON)))

    assert outcome(result) == {"t": ["START", "FAILURE"]}
    assert told(result) == (type(error).__name__, str(error))


@pytest.mark.parametrize(
    "error", [LeaseError("somebody else loads it"), ValueError("a slip"), StepError("the function failed")]
)
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    result = run_step(Failing(error), declared(retries=Retries(max=1, delay=SOON)))

    assert outcome(result) == {"t": ["START", "UP_FOR_RETRY", "RESTARTED", "SUCCESS"]}


def test_once_the_tries_are_used_up_the_last_failure_is_told() -> None:
    result = run_step(
        Failing(SourceError("no answer"), SourceError("still no answer")), declared(retries=Retries(max=1, delay=SOON))
    )

    assert outcome(result) == {"t": ["START", "UP_FOR_RETRY", "RESTARTED", "FAILURE"]}
    assert told(result) == ("SourceError", "still no answer")


def test_without_retries_nothing_is_tried_again() -> None:
    assert outcome(run_step(Failing(SourceError("no answer")), declared())) == {"t": ["START", "FAILURE"]}


def test_a_step_whose_run_is_asked_to_stop_is_not_tried_again() -> None:
    def stopped(context: dg.AssetExecutionContext) -> None:
        cancel_event(context).ask(limit=None)
        raise StepError("cancelled; nothing was written")

    result = run_step(stopped, declared(retries=Retries(max=3, delay=SOON)))

    assert outcome(result) == {"t": ["START", "FAILURE"]}


def test_a_check_that_fails_is_not_tried_again() -> None:
    spec = dg.AssetCheckSpec("rows", asset=dg.AssetKey(["crm", "bronze", "t"]), blocking=True)
    checks = Checks(specs=(spec,), look=lambda platform, names: [dg.AssetCheckResult(check_name="rows", passed=False)])
    result = run_step(Failing(), declared(retries=Retries(max=3, delay=SOON)), checks=checks)

    assert outcome(result) == {"t": ["START", "FAILURE"]}


@pytest.mark.parametrize("tries", [0, 1])
def test_a_step_that_stops_at_its_limit_names_the_limit(monkeypatch: pytest.MonkeyPatch, tries: int) -> None:
    now = [0.0]
    monkeypatch.setattr(time_limits, "monotonic", lambda: now[0])

    def slow(context: dg.AssetExecutionContext) -> None:
        now[0] += 1801
        assert cancel_event(context).wait(30)
        raise LoadError("the load was cancelled; nothing was applied")

    retries = Retries(max=tries, delay=SOON) if tries else None
    result = run_step(slow, declared(timeout="30 minutes", retries=retries))

    assert outcome(result) == {"t": ["START", *["UP_FOR_RETRY", "RESTARTED"] * tries, "FAILURE"]}
    assert told(result) == (
        "TimeLimitError",
        "step t did not end within its limit of 1800 s and was ended; what it had not committed is dropped\n"
        "  declared at control/ingestion/shop.yaml:4\n"
        "  give it a longer 'timeout', or find out what it waits for",
    )


def documented(folder: Path) -> Path:
    """The files of the page, and what they name; returns the folder of the control files."""
    blocks = re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 6
    for name, text in blocks:
        file = folder / name if name.startswith("dagster_home/") else folder / "crm" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "crm" / "riders.sql").write_text("SELECT id FROM bronze.riders\n")
    return folder / "crm" / "control"


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    from platform_core.definitions import build_definitions
    from platform_core.settings import Settings

    folder = tmp_path_factory.mktemp("documented")
    control = documented(folder)
    settings = Settings(project=folder, home=folder / "dagster_home", state=folder / "state", environment="dev")
    return build_definitions(control, settings=settings)


def op(definitions: dg.Definitions, *key: str) -> dg.OpDefinition:
    return definitions.get_repository_def().assets_defs_by_key[dg.AssetKey(["crm", *key])].op


def test_the_example_becomes_tags_pools_and_retries_of_steps(definitions: dg.Definitions) -> None:
    load, step, board = (
        op(definitions, *key) for key in (("bronze", "riders"), ("silver", "riders"), ("dashboard", "riders"))
    )

    assert load.tags == {"edp/connection": "crm.shop", "edp/timeout": "1800", "dagster/priority": "10"}
    assert step.tags == {
        "edp/isolated": "true",
        "edp/engine": "engine",
        "edp/timeout": "7200",
        "dagster/priority": "5",
    }
    assert board.tags == {"edp/engine": "engine", "dagster/priority": "-10"}
    assert [each.pool for each in (load, step, board)] == ["edp/connection/crm.shop", "edp/engine", "edp/engine"]
    assert load.retry_policy == dg.RetryPolicy(
        max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
    )
    assert (step.retry_policy, board.retry_policy and board.retry_policy.max_retries) == (None, 2)


def test_the_example_becomes_a_schedule_without_what_is_paused(definitions: dg.Definitions) -> None:
    job = definitions.resolve_job_def("crm")
    schedule = definitions.resolve_schedule_def("crm_schedule")

    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == {
        "crm/bronze/riders",
        "crm/silver/riders",
        "crm/dashboard/riders",
    }
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 6 * * 1-5", "Europe/Amsterdam")
    assert job.tags["dagster/priority"] == "5"


def test_the_example_requests_runs_of_each_priority_by_a_sensor_of_its_own(definitions: dg.Definitions) -> None:
    names = ("crm_automation_priority_5", "crm_automation_priority_minus_10")
    sensors = [definitions.resolve_sensor_def(name) for name in names]

    assert [sensor.run_tags["dagster/priority"] for sensor in sensors] == ["5", "-10"]
    graph = definitions.resolve_asset_graph()
    requested = [{key.path[1] for key in sensor.asset_selection.resolve(graph)} for sensor in sensors]
    assert requested == [{"silver"}, {"dashboard"}]


def test_the_example_limits_connections_and_the_engine_within_a_run_and_across_runs(
    definitions: dg.Definitions,
) -> None:
    executor = definitions.executor
    assert isinstance(executor, dg.ExecutorDefinition)
    config = executor.config_schema.resolve_config({"config": {}}).value["config"]
    assert config["pool_limits"] == {"edp/engine": 6, "edp/spark": None, "edp/connection/crm.shop": 2}
    assert config["tag_concurrency_limits"] == [
        {"key": "edp/connection", "value": "crm.shop", "limit": 2},
        {"key": "edp/engine", "value": "engine", "limit": 6},
    ]


MODEL = Model(
    unique_id="model.shop.totals",
    selector="shop.marts.totals",
    ref=TableRef("crm", "gold", "totals"),
    published=True,
    materialized="table",
    relation=("main", "totals"),
    upstream=(TableRef("crm", "silver", "riders"),),
    parents=(),
    description="",
    columns={},
    tags=(),
    owners=(),
    checksum="1",
    path="models/marts/totals.sql",
)


@pytest.mark.parametrize("paused", [False, True])
def test_a_dbt_project_is_run_by_its_policy_or_paused_like_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paused: bool
) -> None:
    (tmp_path / "dbt").mkdir()
    for name in ("dbt_project.yml", "profiles.yml"):
        (tmp_path / "dbt" / name).touch()
    read = DbtManifest(models=(MODEL,), tests=(), sources=())
    monkeypatch.setattr("platform_core.factories.dbt.read_manifest", lambda spec, *, folder: read)
    spec = DbtSpec(workstream="crm", name="shop", project="dbt", paused=paused, timeout="1 hour", retries={"max": 1})
    manifest = Manifest(root=tmp_path, location=LocationSpec(name="crm", workstreams=(WORKSTREAM,)), dbt=(spec,))

    [built] = build_dbt_assets(spec, manifest=manifest)

    key = dg.AssetKey(["crm", "gold", "totals"])
    assert (built.automation_conditions_by_key.get(key) is None) is paused
    assert (built.tags_by_key[key].get("edp/paused") == "true") is paused
    assert built.is_executable
    assert built.op.tags["edp/timeout"] == "3600"
    assert built.op.pool == "edp/engine"
    assert built.op.retry_policy is not None


def test_upkeep_that_is_paused_is_not_scheduled(tmp_path: Path) -> None:
    spec = UpkeepSpec(workstream="crm", name="vacuum", operation="vacuum", paused=True)
    manifest = Manifest(root=tmp_path, location=LocationSpec(name="crm", workstreams=(WORKSTREAM,)), upkeep=(spec,))

    built = build_upkeep_asset(spec, manifest=manifest)

    assert built.tags_by_key[built.key]["edp/paused"] == "true"
