"""Snapshots in object stores: by the lake's own client on Azure, and by fsspec on Azure and S3."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from platform_core.control.snapshot.folders import Folder, open_folder
from platform_core.errors import SecretError, SnapshotError, StorageError
from tests.control_plane.conftest import Project
from tests.services.azurite import AzuriteServer
from tests.services.object_store import ObjectStore, running_object_store
from tests.snapshot.conftest import Publishing

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def s3() -> Iterator[ObjectStore]:
    with running_object_store() as server:
        yield server


def write_environment(project: Project, *, lake: dict[str, Any], snapshots: dict[str, Any] | None) -> None:
    control = project.control | {"manifest": "snapshot"} | ({"snapshots": snapshots} if snapshots else {})
    lines = [
        f"lake: {json.dumps(lake)}",
        "secrets: {type: files, options: {path: secrets}}",
        f"control: {json.dumps(control)}",
    ]
    project.write("home/environments/dev.yaml", "\n".join(lines) + "\n")


def keep_secret(publishing: Publishing, name: str, value: str) -> None:
    file = publishing.state / "secrets" / name
    file.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(value)


def in_the_lake(publishing: Publishing, server: AzuriteServer) -> None:
    root = f"abfss://{server.create_container()}@{server.account}.dfs.core.windows.net/lake"
    keep_secret(publishing, "platform/lake_key", server.key)
    options = server.storage_options | {"account_key": {"secret": "platform/lake_key"}}
    write_environment(publishing.project, lake={"root": root, "storage_options": options}, snapshots=None)


def on_azure(publishing: Publishing, server: AzuriteServer) -> None:
    keep_secret(publishing, "platform/connection", server.connection_string)
    snapshots = {
        "root": f"abfs://{server.create_container()}/snapshots",
        "storage_options": {"connection_string": {"secret": "platform/connection"}},
    }
    write_environment(publishing.project, lake={"root": "lake"}, snapshots=snapshots)


def on_s3(publishing: Publishing, server: ObjectStore) -> None:
    keep_secret(publishing, "platform/s3", server.key)
    options = server.storage_options | {"secret": {"secret": "platform/s3"}}
    snapshots = {"root": f"s3://{server.create_bucket()}/snapshots", "storage_options": options}
    write_environment(publishing.project, lake={"root": "lake"}, snapshots=snapshots)


@pytest.fixture(params=["lake on azure", "fsspec on azure", "fsspec on s3"])
def remote(request: pytest.FixtureRequest, publishing: Publishing) -> Publishing:
    """A project whose snapshots lie elsewhere."""
    if request.param == "fsspec on s3":
        on_s3(publishing, request.getfixturevalue("s3"))
    else:
        put = in_the_lake if request.param == "lake on azure" else on_azure
        put(publishing, request.getfixturevalue("azurite"))
    return publishing


def opened(publishing: Publishing) -> Folder:
    return open_folder(publishing.project.environment(), state=publishing.state)


def test_from_the_first_snapshot_to_the_clean_up(remote: Publishing) -> None:
    with pytest.raises(SnapshotError, match="no snapshot of location 'crm' is published"):
        remote.load()
    assert remote.publish().moved == ("crm", "finance")
    first = remote.load()
    remote.change(3)
    remote.publish()
    assert remote.publish().moved == ()
    second = remote.load()
    assert (first.provenance.serial, second.provenance.serial) == (1, 2)
    assert second.manifest == remote.project.manifest("crm")
    folder = opened(remote)
    assert folder.folders() == ["crm", "finance"]
    assert {file.name for file in folder.files("crm")} == {
        "pointer.json",
        f"{first.digest}.json",
        f"{second.digest}.json",
    }
    folder.remove(f"crm/{first.digest}.json")
    folder.remove(f"crm/{first.digest}.json")
    assert folder.read(f"crm/{first.digest}.json") is None
    # Torn where it is stored, and no copy on this machine: never an empty graph.
    (remote.state / "snapshots/dev/crm" / f"{second.digest}.json").unlink()
    folder.create(f"crm/{second.digest}.json", b'{"format": 1}')
    with pytest.raises(SnapshotError, match="the snapshot is torn, or somebody changed it"):
        remote.load()
    remote.publish()
    assert remote.load().digest == second.digest


@pytest.mark.parametrize("where", ["azure", "s3"])
def test_of_two_who_replace_one_pointer_the_second_is_told(
    where: str, publishing: Publishing, request: pytest.FixtureRequest
) -> None:
    if where == "azure":
        on_azure(publishing, request.getfixturevalue("azurite"))
    else:
        on_s3(publishing, request.getfixturevalue("s3"))
    folder = opened(publishing)
    assert folder.replace("crm/pointer.json", b"1", before=None)
    assert not folder.replace("crm/pointer.json", b"2", before=None)
    before = folder.read("crm/pointer.json")
    assert before is not None
    assert folder.replace("crm/pointer.json", b"3", before=before)
    assert not folder.replace("crm/pointer.json", b"4", before=before)
    found = folder.read("crm/pointer.json")
    assert found is not None
    assert found.content == b"3"


def test_a_storage_that_refuses_shows_no_secret(publishing: Publishing, azurite: AzuriteServer) -> None:
    on_azure(publishing, azurite)
    wrong = base64.b64encode(b"canary of a key that opens nothing").decode()
    keep_secret(publishing, "platform/connection", azurite.connection_string.replace(azurite.key, wrong))
    with pytest.raises(StorageError) as caught:
        publishing.publish()
    assert wrong not in str(caught.value)
    assert caught.value.__cause__ is None
    (publishing.state / "secrets/platform/connection").unlink()
    with pytest.raises(SecretError, match="platform/connection"):
        publishing.publish()


def test_a_url_is_shown_without_a_password(tmp_path: Path, publishing: Publishing) -> None:
    write_environment(
        publishing.project, lake={"root": "lake"}, snapshots={"root": "ftp://u:canary-9a@127.0.0.1:1/snapshots"}
    )
    assert "canary-9a" not in opened(publishing).shown("crm/pointer.json")
    assert opened(publishing).shown("x").startswith("ftp://127.0.0.1:1/snapshots/dev/x")
