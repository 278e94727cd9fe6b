"""A code location loads what was published, or says clearly what is the matter; it never asks the control database."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from platform_core.control.snapshot import loading
from platform_core.control.snapshot.content import digest_of
from platform_core.control.snapshot.folders import Held, LocalFolder
from platform_core.control.snapshot.loading import load_snapshot_cached
from platform_core.errors import PlatformError, SnapshotError, StorageError
from tests.snapshot.conftest import Publishing


def refusal(published: Publishing) -> str:
    with pytest.raises(PlatformError) as caught:
        published.load()
    assert isinstance(caught.value, SnapshotError | StorageError)
    return str(caught.value)


def rewrite(published: Publishing, change: Callable[[bytes], bytes]) -> None:
    """Put other content behind the pointer, as somebody would who also changes the digest."""
    content = change(published.content_file().read_bytes())
    digest = digest_of(content)
    (published.folder / "crm" / f"{digest}.json").write_bytes(content)
    published.pointer_file().write_text(json.dumps(published.pointer() | {"content": digest}))


def test_a_missing_database_is_not_even_noticed(published: Publishing) -> None:
    expected = published.project.manifest("crm")
    published.project.close()
    for file in published.state.glob("control.db*"):
        file.unlink()
    shutil.rmtree(published.project.folder / "crm/control")
    assert published.load().manifest == expected
    assert not (published.state / "control.db").exists()


def test_a_missing_pointer(published: Publishing) -> None:
    published.pointer_file().unlink()
    assert refusal(published) == (
        "no snapshot of location 'crm' is published for environment 'dev'\n"
        f"  looked at: {published.pointer_file()}\n"
        "  published locations: crm, finance\n"
        "  apply its control files: edp plan --env dev --out plan.json, edp apply plan.json; "
        "if they are applied: edp publish --env dev"
    )


@pytest.mark.parametrize("kept", [0, 1, 40, 300])
def test_a_torn_pointer(published: Publishing, kept: int) -> None:
    published.pointer_file().write_bytes(published.pointer_file().read_bytes()[:kept])
    assert refusal(published) == (
        f"{published.pointer_file()}: the pointer is torn: it is no JSON\n  publish it again: edp publish --env dev"
    )


def test_every_torn_content(published: Publishing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "WAITS", (0.0, 0.0, 0.0))
    file = published.content_file()
    whole = file.read_bytes()
    for length in range(0, len(whole), 61):
        file.write_bytes(whole[:length])
        assert "the snapshot is torn, or somebody changed it" in refusal(published)
    file.write_bytes(whole)
    assert published.load().provenance.serial == 1


def test_content_that_somebody_edited(published: Publishing) -> None:
    file = published.content_file()
    file.write_bytes(file.read_bytes().replace(b'"mask":"hash"', b'"mask":"null"'))
    assert refusal(published).startswith(f"{file}: the snapshot is torn, or somebody changed it")


def test_content_that_is_gone(published: Publishing) -> None:
    published.content_file().unlink()
    assert ": the snapshot is gone\n" in refusal(published)


def test_another_environments_pointer(published: Publishing) -> None:
    published.pointer_file().write_text(json.dumps(published.pointer() | {"environment": "prod"}))
    assert ": the pointer is of environment 'prod', this is 'dev'\n" in refusal(published)


def test_another_environments_content(published: Publishing) -> None:
    rewrite(published, lambda content: content.replace(b'"environment":"dev"', b'"environment":"prod"'))
    assert ": the snapshot is of environment 'prod', this is 'dev'\n" in refusal(published)


def test_another_locations_content(published: Publishing) -> None:
    rewrite(published, lambda content: content.replace(b'"location":"crm"', b'"location":"erp"'))
    assert ": the snapshot is of location 'erp', this is 'crm'\n" in refusal(published)


def test_a_newer_pointer(published: Publishing) -> None:
    published.pointer_file().write_text(json.dumps({"format": 2, "release": "9.0", "content": ["new"]}))
    assert ": the pointer has format 2; this version of the platform reads 1\n  written by release 9.0" in refusal(
        published
    )


def test_a_field_of_a_newer_release(published: Publishing) -> None:
    rewrite(published, lambda content: content.replace(b'{"name":"crm"}', b'{"name":"crm","region":"eu"}', 1))
    assert "holds field 'region' of location, which this version of the platform does not know" in refusal(published)


def test_a_storage_that_refuses_for_a_moment_is_asked_again(
    published: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "WAITS", (0.0, 0.0, 0.0))
    refusals = [3]

    class Failing(LocalFolder):
        def read(self, name: str) -> Held | None:
            if refusals[0]:
                refusals[0] -= 1
                raise StorageError("away")
            return super().read(name)

    monkeypatch.setattr(loading, "open_folder", lambda *_, **__: Failing(published.folder))
    assert published.load().provenance.serial == 1
    refusals[0] = 4
    with pytest.raises(StorageError, match="away"):
        published.load()


def test_a_process_reads_once_and_keeps_what_it_began_with(published: Publishing) -> None:
    root = published.project.folder / "crm"
    first = load_snapshot_cached(root, settings=published.project.settings(), location=None, digest=None)
    published.change(3)
    published.publish()
    again = load_snapshot_cached(root, settings=published.project.settings(), location=None, digest=None)
    assert again is first
    assert (
        load_snapshot_cached(root, settings=published.project.settings(), location=None, digest=first.digest) is first
    )


@pytest.fixture
def remote(publishing: Publishing) -> Publishing:
    """Published to a storage that is not this machine's."""
    url = f"memory://{publishing.project.folder.name}"
    publishing.project.write_environment("dev", manifest="snapshot", snapshots={"root": url})
    publishing.publish()
    return publishing


def test_a_remote_snapshot_is_fetched_once_a_machine(remote: Publishing) -> None:
    digest = remote.load().digest
    copy = remote.state / "snapshots/dev/crm" / f"{digest}.json"
    assert digest_of(copy.read_bytes()) == digest
    files = fsspec.filesystem("memory")
    for file in files.find(f"/{remote.project.folder.name}"):
        files.rm(file)
    # A step of a run that began before: its code server told it which.
    assert remote.load(digest=digest).provenance.serial == 1


def test_a_damaged_copy_is_fetched_anew(remote: Publishing) -> None:
    digest = remote.load().digest
    copy = remote.state / "snapshots/dev/crm" / f"{digest}.json"
    copy.write_bytes(b"half of")
    assert remote.load().digest == digest
    assert digest_of(copy.read_bytes()) == digest


def test_copies_that_nobody_used_for_a_month_go(remote: Publishing) -> None:
    first = remote.load().digest
    folder = remote.state / "snapshots/dev/crm"
    os.utime(folder / f"{first}.json", (0, 0))
    remote.change(3)
    remote.publish()
    second = remote.load().digest
    assert [file.name for file in folder.glob("*.json")] == [f"{second}.json"]


def test_a_state_folder_that_cannot_be_written_costs_nothing_else(remote: Publishing) -> None:
    (remote.state / "snapshots").write_text("no folder")
    assert remote.load().provenance.serial == 1


def test_where_snapshots_lie_may_be_a_folder_of_its_own(publishing: Publishing, tmp_path: Path) -> None:
    publishing.project.write_environment("dev", manifest="snapshot", snapshots={"root": "published"})
    publishing.publish()
    assert (publishing.state / "published/dev/crm/pointer.json").is_file()
    assert publishing.load().provenance.serial == 1
