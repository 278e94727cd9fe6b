"""Dagster's SQLite storage with connections that stay open."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from platform_core.execution import embedded_storage
from platform_core.execution.embedded_storage import EmbeddedStorage, EventStorage


@dg.asset(check_specs=[dg.AssetCheckSpec("whole", asset="table")])
def table() -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    yield dg.MaterializeResult(metadata={"rows": 3}, tags={"edp/batch": "7"})
    yield dg.AssetCheckResult(passed=True)


@contextmanager
def opened(home: Path, *, own: bool = True) -> Iterator[dg.DagsterInstance]:
    """An instance in a folder, with our storage or Dagster's."""
    module, name = ("platform_core.execution.embedded_storage", "EmbeddedStorage") if own else ("", "")
    custom = f"storage: {{custom: {{module: {module}, class: {name}, config: {{base_dir: '{home}'}}}}}}\n"
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n" + (custom if own else ""))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests, which look at runs of their own: to make one takes most of a second."""
    return tmp_path_factory.mktemp("runs") / "home"


@pytest.fixture(scope="module")
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with opened(home) as instance:
        yield instance


@pytest.fixture
def dagsters(instance: dg.DagsterInstance, home: Path) -> Iterator[dg.DagsterInstance]:
    """The same home, by Dagster's own storage."""
    with opened(home, own=False) as opened_otherwise:
        yield opened_otherwise


@pytest.fixture
def run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    return instance.create_run_for_job(dg.Definitions([table]).resolve_implicit_global_asset_job_def())


def said(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str | None]:
    return [entry.dagster_event.message for entry in instance.all_logs(run.run_id) if entry.dagster_event]


def built(instance: dg.DagsterInstance) -> str:
    """Run the asset; returns the run's id."""
    result = dg.materialize([table], instance=instance)
    assert result.success
    return result.run_id


def shown(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [str(event.dagster_event.event_type_value) for event in instance.all_logs(run_id) if event.dagster_event]


def events_of(instance: dg.DagsterInstance) -> EventStorage:
    storage = instance.event_log_storage
    assert isinstance(storage, EventStorage)
    return storage


@pytest.mark.parametrize("writer", ["ours", "dagster's"])
def test_what_one_of_both_wrote_the_other_reads(
    instance: dg.DagsterInstance, dagsters: dg.DagsterInstance, writer: str
) -> None:
    assert type(dagsters.event_log_storage) is SqliteEventLogStorage
    writing, reading = (instance, dagsters) if writer == "ours" else (dagsters, instance)
    run_id = built(writing)
    assert shown(reading, run_id) == shown(writing, run_id)
    assert shown(reading, run_id)[-1] == "PIPELINE_SUCCESS"
    event = reading.get_latest_materialization_event(dg.AssetKey("table"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["rows"].value == 3
    assert event.run_id == run_id
    assert reading.get_run_stats(run_id).steps_succeeded == 1


def test_an_event_is_there_for_others_as_soon_as_it_is_stored(
    instance: dg.DagsterInstance, dagsters: dg.DagsterInstance, run: dg.DagsterRun
) -> None:
    for message in ("one", "two"):
        instance.report_engine_event(message, run)
        assert said(dagsters, run)[-1] == message


def test_who_follows_a_run_hears_of_each_event(
    instance: dg.DagsterInstance, dagsters: dg.DagsterInstance, run: dg.DagsterRun
) -> None:
    instance.report_engine_event("one", run)
    heard = threading.Event()

    def hear(event: dg.EventLogEntry, _cursor: str) -> None:
        if event.dagster_event is not None and event.dagster_event.message == "two":
            heard.set()

    dagsters.watch_event_logs(run.run_id, None, hear)
    instance.report_engine_event("two", run)
    assert heard.wait(30)
    dagsters.end_watch_event_logs(run.run_id, hear)


def test_who_reads_does_not_wake_those_who_follow(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_engine_event("one", run)
    file = Path(events_of(instance).path_for_shard(run.run_id))
    os.utime(file, (1, 1))
    assert said(instance, run)[-1] == "one"
    assert file.stat().st_mtime == 1
    instance.report_engine_event("two", run)
    assert file.stat().st_mtime > 1


def test_few_files_stay_open(instance: dg.DagsterInstance, run: dg.DagsterRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_storage, "MOST_OPEN", 2)
    others = [f"00000000-0000-0000-0000-00000000000{number}" for number in range(2)]
    for run_id in others:
        assert shown(instance, run_id) == []
    assert len(events_of(instance)._shards) == 2
    instance.report_engine_event("still", run)
    assert said(instance, run)[-1] == "still"


def test_a_file_that_somebody_removed_is_made_anew(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_engine_event("before", run)
    for file in Path(events_of(instance).path_for_shard(run.run_id)).parent.glob(f"{run.run_id}.db*"):
        file.unlink()
    assert said(instance, run) == []
    instance.report_engine_event("after", run)
    assert said(instance, run) == ["after"]


def test_threads_write_one_after_the_other(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    before = len(said(instance, run))
    threads = [
        threading.Thread(target=lambda: [instance.report_engine_event("x", run) for _ in range(5)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said(instance, run)) - before == 20


def test_a_fork_opens_files_of_its_own(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_engine_event("parent", run)
    pid = os.fork()
    if pid == 0:
        try:
            instance.report_engine_event("child", run)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    instance.report_engine_event("parent again", run)
    assert said(instance, run)[-3:] == ["parent", "child", "parent again"]


def test_what_a_killed_process_stored_is_there(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    pid = os.fork()
    if pid == 0:
        instance.report_engine_event("stored", run)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert said(instance, run)[-1] == "stored"


def test_a_wiped_log_is_empty_and_works_on(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_engine_event("before", run)
    instance.event_log_storage.wipe()
    assert said(instance, run) == []
    instance.report_engine_event("after", run)
    assert said(instance, run) == ["after"]


def test_the_project_keeps_its_runs_so() -> None:
    import yaml

    file = Path(__file__).parents[2] / "dagster_home" / "dagster.yaml"
    storage = yaml.safe_load(file.read_text())["storage"]["custom"]
    assert (storage["module"], storage["class"]) == (EmbeddedStorage.__module__, EmbeddedStorage.__name__)
