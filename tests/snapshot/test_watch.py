"""The UI says where the control database is away, or what was applied does not run yet; a look takes little time."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType

from platform_core.control.snapshot import loading
from platform_core.control.snapshot.probing import DATABASE_SECONDS, Probe, Standing
from platform_core.definitions import build_definitions
from tests.snapshot.conftest import Publishing

KEY = dg.AssetCheckKey(dg.AssetKey(["control", "crm"]), "as_applied")


class Watch:
    """The sensor and the check of a code server that runs on what is published."""

    def __init__(self, published: Publishing) -> None:
        self.instance = dg.DagsterInstance.ephemeral()
        settings = published.project.settings()
        # Each stands for a process of its own, which has noted nothing yet.
        with DefinitionsLoadContext.scoped(DefinitionsLoadContext(DefinitionsLoadType.INITIALIZATION)):
            definitions = build_definitions(published.project.folder / "crm/control", settings=settings)
        self.repository = definitions.get_repository_def()
        self.events = 0

    def tick(self) -> str:
        """What the sensor shows; its events are recorded as the daemon does it."""
        sensor = self.repository.get_sensor_def("crm_metadata")
        context = dg.build_sensor_context(instance=self.instance, repository_def=self.repository)
        data = sensor.evaluate_tick(context)
        assert not data.run_requests
        for event in data.asset_events:
            self.events += 1
            self.instance.report_runless_asset_event(event)
        return str(data.skip_message)

    def recorded(self) -> dg.AssetCheckEvaluation:
        """The newest record of the check."""
        record = self.instance.event_log_storage.get_latest_asset_check_execution_by_key([KEY])[KEY]
        assert record.event is not None and record.event.dagster_event is not None
        found = record.event.dagster_event.event_specific_data
        assert isinstance(found, dg.AssetCheckEvaluation)
        return found


@pytest.fixture
def watch(published: Publishing) -> Iterator[Watch]:
    found = Watch(published)
    yield found
    found.instance.dispose()


def test_nothing_is_warned_of_while_what_is_applied_runs(watch: Watch) -> None:
    assert watch.tick() == "Serial 1, as applied."
    assert watch.recorded().passed
    watch.tick()
    assert watch.events == 1


def test_a_database_that_is_away(watch: Watch, published: Publishing) -> None:
    published.project.close()
    watch.tick()
    (published.state / "control.db").rename(published.state / "away.db")
    shown = watch.tick()
    assert shown.startswith("WARNING: The control database does not answer: control database: there is no")
    assert "This location runs on the last snapshot, serial 1." in shown
    found = watch.recorded()
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert not (published.state / "control.db").exists()
    (published.state / "away.db").rename(published.state / "control.db")
    assert watch.tick() == "Serial 1, as applied."
    assert watch.recorded().passed
    assert watch.events == 3


def test_what_is_applied_and_not_published(watch: Watch, published: Publishing) -> None:
    published.change(3)
    assert watch.tick() == (
        "WARNING: Applied is serial 2, published is 1: what was applied last does not run yet. "
        "Publish it: edp publish --env dev"
    )


def test_what_is_published_and_not_loaded(watch: Watch, published: Publishing) -> None:
    published.change(3)
    published.publish()
    assert watch.tick().startswith("WARNING: Published is serial 2, this code server runs on 1: reload the code")
    assert watch.recorded().metadata["edp/serial_loaded"].value == 1
    for forget in (loading._first_digest, loading._loaded):
        forget.cache_clear()
    reloaded = Watch(published)
    assert reloaded.tick() == "Serial 2, as applied."
    reloaded.instance.dispose()


def test_a_pointer_that_cannot_be_read(watch: Watch, published: Publishing) -> None:
    published.pointer_file().unlink()
    assert "WARNING: What is published cannot be read" in watch.tick()


def test_a_person_may_look_at_any_time(watch: Watch, published: Publishing) -> None:
    published.change(3)
    check = watch.repository.asset_graph.assets_def_for_key(KEY)
    result = check.node_def.compute_fn.decorated_fn()  # type: ignore[attr-defined]
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.metadata["edp/standing"].value == "not published"


def test_the_asset_says_where_its_metadata_comes_from(watch: Watch) -> None:
    shown = watch.repository.asset_graph.get(KEY.asset_key).metadata
    assert {name: shown[name] for name in ("edp/environment", "edp/serial", "edp/git_commit")} == {
        "edp/environment": "dev",
        "edp/serial": 1,
        "edp/git_commit": "not from git",
    }


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A port on which somebody takes calls and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_database_that_hangs_is_waited_for_shortly(published: Publishing, silent_server: int) -> None:
    snapshot = published.load()
    # As of an environment whose server is stuck.
    url = f"postgresql+psycopg://edp@127.0.0.1:{silent_server}/edp"
    published.project.write_environment("dev", manifest="snapshot", url=url)
    probe = Probe(snapshot, published.project.environment(), state=published.state)
    started = time.monotonic()
    found = probe.look()
    assert time.monotonic() - started < DATABASE_SECONDS + 2
    assert found.standing is Standing.DATABASE_AWAY
    assert "has not answered within 3 seconds" in found.message
    # The first question still hangs: a second is not asked.
    started = time.monotonic()
    assert "has not answered for a while" in probe.look().message
    assert time.monotonic() - started < 1


def test_building_definitions_looks_at_nothing(published: Publishing, silent_server: int) -> None:
    url = f"postgresql+psycopg://edp@127.0.0.1:{silent_server}/edp"
    published.project.write_environment("dev", manifest="snapshot", url=url)
    started = time.monotonic()
    build_definitions(published.project.folder / "crm/control", settings=published.project.settings())
    assert time.monotonic() - started < DATABASE_SECONDS


def test_no_value_of_the_warning_is_anybodys_secret(watch: Watch, published: Publishing) -> None:
    document: dict[str, Any] = json.loads(published.pointer_file().read_text())
    assert document.keys() == {
        "format",
        "environment",
        "location",
        "serial",
        "mark",
        "git_commit",
        "content",
        "release",
        "published_at",
        "former",
    }
    watch.tick()
    assert watch.recorded().metadata.keys() == {
        "edp/serial_loaded",
        "edp/serial_published",
        "edp/serial_applied",
        "edp/standing",
    }
