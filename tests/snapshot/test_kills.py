"""Publishing killed at any moment leaves each location its old snapshot or its new one, whole."""

from __future__ import annotations

import signal
import subprocess

import pytest

from platform_core.faults import PublishPoint
from tests.conftest import environment
from tests.forked import run_forked
from tests.snapshot.conftest import Publishing

LOCATIONS = ("crm", "finance")
ONCE = (PublishPoint.BEGUN, PublishPoint.POINTED)
MOMENTS = [f"{point}:kill:{nth}" for point in PublishPoint for nth in ((1,) if point in ONCE else (1, 2))]


def edp(published: Publishing, *arguments: str, fault: str) -> subprocess.CompletedProcess[str]:
    settings = published.project.settings()
    variables = environment(settings.state, PLATFORM_TEST="1", PLATFORM_FAULT=fault, DAGSTER_HOME=str(settings.home))
    return run_forked(
        arguments,
        env=variables | {"EDP_PROJECT": str(settings.project)},
        cwd=settings.project,
        timeout=120,
    )


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_while_publishing(published: Publishing, moment: str) -> None:
    published.change(3)
    old = {location: published.load(location) for location in LOCATIONS}
    killed = edp(published, "publish", fault=moment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    for location in LOCATIONS:
        found = published.load(location)
        assert found.provenance.serial in (1, 2)
        if found.provenance.serial == 1:
            assert found == old[location]
    published.publish()
    assert {published.load(location).provenance.serial for location in LOCATIONS} == {2}
    assert published.lookback() == "3:00:00"


@pytest.mark.parametrize("action", ["enospc", "eio"])
@pytest.mark.parametrize("point", [PublishPoint.CONTENT_WRITE, PublishPoint.POINTER_SYNC])
def test_a_disk_that_refuses_while_an_apply_is_published(published: Publishing, point: str, action: str) -> None:
    file = published.project.folder / "crm/control/ingestion.yaml"
    file.write_text(file.read_text().replace("lookback: 2 hours", "lookback: 3 hours"))
    failed = edp(published, "apply", "--auto", fault=f"{point}:{action}")
    assert failed.returncode == 1
    assert "applied to dev: 0 created, 1 changed, 0 deleted; serial 2" in failed.stdout
    assert "serial 2 is applied, and stands, but it could not be published" in failed.stderr
    assert "edp publish --env dev" in failed.stderr
    assert published.lookback() == "2:00:00"
    assert not list(published.folder.rglob("*.part"))
    published.publish()
    assert published.lookback() == "3:00:00"
