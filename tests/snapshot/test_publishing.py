"""The content comes first, then the pointer, which never goes back; what is old goes once nobody can need it."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from platform_core.control.snapshot import publish
from platform_core.control.snapshot.folders import Folder, Held, LocalFolder, open_folder
from platform_core.control.snapshot.pointer import Pointer
from platform_core.control.snapshot.standing import behind
from platform_core.errors import PlanError, SnapshotError, StorageError
from platform_core.specs.environment import EnvironmentSpec
from tests.snapshot.conftest import Publishing

LONG_AGO = dt.timedelta(days=40)


def test_what_is_published_is_what_is_applied(published: Publishing) -> None:
    for location in ("crm", "finance"):
        assert published.load(location).manifest == published.project.manifest(location)
    assert published.load().provenance.serial == 1


def test_publishing_twice_moves_nothing(published: Publishing) -> None:
    before = {file: file.read_bytes() for file in published.folder.rglob("*.json")}
    again = published.publish()
    assert (again.locations, again.moved, again.gone, again.notes) == (("crm", "finance"), (), (), ())
    assert {file: file.read_bytes() for file in published.folder.rglob("*.json")} == before


def test_a_location_has_the_commit_that_it_last_changed_by(publishing: Publishing) -> None:
    project = publishing.project
    project.sql("UPDATE control.history SET git_commit = :commit WHERE location = 'crm'", commit="c1")
    publishing.change(3)
    assert publishing.publish().serial == 2
    assert publishing.load("crm").provenance.git_commit == "c1"
    assert publishing.load("finance").provenance.git_commit is None


def test_the_commit_of_what_was_gone_back_to_counts(publishing: Publishing) -> None:
    project = publishing.project
    project.sql("UPDATE control.applies SET git_commit = 'c1'")
    publishing.change(3)
    project.sql("UPDATE control.history SET git_commit = 'c2' WHERE serial = 2")
    project.apply(project.rollback(1))
    publishing.publish()
    assert (publishing.load().provenance.serial, publishing.load().provenance.git_commit) == (3, "c1")


def test_former_snapshots_stay_for_those_who_run_on_them(published: Publishing) -> None:
    first = published.pointer()["content"]
    published.change(3)
    published.publish()
    assert [each["content"] for each in published.pointer()["former"]] == [first]
    assert published.load(digest=first).provenance.serial == 1


def test_only_what_nobody_can_need_is_removed(published: Publishing) -> None:
    folder = published.folder / "crm"
    old = (dt.datetime.now() - LONG_AGO).timestamp()
    # A pointer as it is after a month of applies: the ten newest stay, however old they are.
    former = [
        {"content": f"{number:064x}", "serial": number, "until": f"2026-01-{31 - number:02d}T00:00:00Z"}
        for number in range(12)
    ]
    for each in (*former, {"content": "f" * 64}):
        (folder / f"{each['content']}.json").write_text("{}")
    (folder / f".{'a' * 64}.json.0a0a0a0a.part").write_text("half")
    young = folder / f".{'b' * 64}.json.0b0b0b0b.part"
    for file in folder.iterdir():
        os.utime(file, (old, old))
    young.write_text("half")
    published.pointer_file().write_text(json.dumps(published.pointer() | {"former": former}))
    published.change(3)
    published.publish()
    kept = {each["content"] for each in published.pointer()["former"]}
    assert len(kept) == 10
    # The one that was just replaced, and nine of those before it.
    assert kept >= {each["content"] for each in former[:9]}
    assert {file.name for file in folder.iterdir()} == {
        "pointer.json",
        young.name,
        published.content_file().name,
        *(f"{digest}.json" for digest in kept),
    }
    assert published.lookback() == "3:00:00"


def test_a_location_that_left_is_never_an_empty_graph(published: Publishing) -> None:
    project = published.project
    shutil.rmtree(project.folder / "finance")
    project.edit("workspace.yaml", "  - python_module: {module_name: finance.definitions", "#")
    project.apply(approve="sold")
    assert published.publish().gone == ("finance",)
    assert published.publish().gone == ()
    with pytest.raises(SnapshotError, match="'finance' is no longer applied in environment 'dev', since serial 2"):
        published.load("finance")


def test_nothing_applied_is_nothing_to_publish(publishing: Publishing) -> None:
    publishing.project.sql("UPDATE control.state SET environment = NULL, serial = 0")
    with pytest.raises(PlanError, match="nothing was ever applied, so there is nothing to publish"):
        publishing.publish()
    assert not publishing.folder.exists()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE control.ingestion SET mode = 'sometimes'", "holds ingestion crm.customers, which is none of this"),
        ("UPDATE control.ingestion SET source = 'erp'", "needs connection crm.erp, which is not there"),
        ("UPDATE control.refresh SET workstream = 'sales'", "of workstream sales, which is not there"),
    ],
)
def test_what_no_location_could_load_is_not_published(published: Publishing, statement: str, said: str) -> None:
    published.project.sql(statement)
    before = {file: file.read_bytes() for file in published.folder.rglob("*.json")}
    with pytest.raises(SnapshotError) as caught:
        published.publish()
    assert said in str(caught.value)
    assert "nothing was published" in str(caught.value)
    assert {file: file.read_bytes() for file in published.folder.rglob("*.json")} == before


@pytest.mark.parametrize("damage", [b"", b"{", b"null", b'{"format": 1}'])
def test_a_damaged_pointer_is_replaced_and_its_content_stays(published: Publishing, damage: bytes) -> None:
    content = published.content_file()
    published.pointer_file().write_bytes(damage)
    published.change(3)
    published.publish()
    assert published.lookback() == "3:00:00"
    assert content.is_file()


def test_damaged_content_is_written_anew(published: Publishing) -> None:
    whole = published.content_file().read_bytes()
    published.content_file().write_bytes(whole[: len(whole) // 2])
    assert published.publish().moved == ()
    assert published.content_file().read_bytes() == whole


def test_an_older_release_leaves_a_newer_pointer_alone(published: Publishing) -> None:
    published.pointer_file().write_text(json.dumps(published.pointer() | {"format": 2, "release": "9.0"}))
    before = published.pointer_file().read_bytes()
    with pytest.raises(SnapshotError, match="the pointer has format 2"):
        published.publish()
    assert published.pointer_file().read_bytes() == before


class Interrupted(LocalFolder):
    """A folder of which something else happens right before a pointer is replaced."""

    def __init__(self, root: Path, meanwhile: Callable[[], object]) -> None:
        super().__init__(root)
        self.meanwhile = [meanwhile]

    def replace(self, name: str, content: bytes, *, before: Held | None) -> bool:
        while self.meanwhile:
            self.meanwhile.pop()()
        return super().replace(name, content, before=before)

    def alone(self) -> Any:
        # As an object store: nothing keeps others out.
        return Folder.alone(self)


def interrupt(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """Let something happen while the next publisher, and only that one, is about to move a pointer."""
    used: list[Folder] = []

    def opened(environment: EnvironmentSpec, *, state: Path) -> Folder:
        folder = open_folder(environment, state=state)
        assert isinstance(folder, LocalFolder)
        if used:
            return folder
        used.append(Interrupted(folder.path, meanwhile))
        return used[0]

    monkeypatch.setattr(publish, "open_folder", opened)


def test_a_publisher_that_is_overtaken_leaves_the_newer_one(
    published: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.change(3)

    def overtake() -> None:
        published.change(4)
        assert published.publish().serial == 3

    interrupt(monkeypatch, overtake)
    slow = published.publish()
    assert slow.serial == 3
    assert {location: published.pointer(location)["serial"] for location in ("crm", "finance")} == {
        "crm": 3,
        "finance": 3,
    }
    assert published.lookback() == "4:00:00"


def test_publishers_side_by_side_end_with_what_was_applied_last(published: Publishing) -> None:
    with ThreadPoolExecutor(4) as pool:
        futures = []
        for hours in range(3, 9):
            published.change(hours)
            futures += [pool.submit(published.publish) for _ in range(2)]
        for future in futures:
            future.result()
    assert published.pointer()["serial"] == 7
    assert published.lookback() == "8:00:00"
    assert behind(published.project.environment(), published.project.store(), state=published.state) is None


def test_a_restored_database_is_published_although_its_serial_is_lower(published: Publishing) -> None:
    database = published.state / "control.db"
    backup = database.with_name("backup.db")
    shutil.copy(database, backup)
    published.change(3)
    published.change(4)
    assert published.publish().restored is None
    published.project.close()
    for file in published.state.glob("control.db*"):
        file.unlink()
    shutil.copy(backup, database)
    back = published.publish()
    assert (back.serial, back.restored) == (1, 3)
    assert published.lookback() == "2:00:00"


def test_two_states_of_one_serial_are_told_apart_by_their_mark(published: Publishing) -> None:
    published.change(3)
    published.publish()
    published.project.sql("UPDATE control.state SET mark = 'another'")
    assert published.publish().moved == ("crm", "finance")
    assert published.pointer()["mark"] == "another"


def test_a_folder_that_cannot_be_written_is_said_and_what_is_there_stays(published: Publishing) -> None:
    published.change(3)
    before = published.pointer_file().read_bytes()
    target = published.folder / "crm"
    target.rename(published.folder / "aside")
    target.write_text("no folder")
    with pytest.raises(StorageError, match="cannot read it: NotADirectoryError"):
        published.publish()
    target.unlink()
    (published.folder / "aside").rename(target)
    assert published.pointer_file().read_bytes() == before
    assert published.lookback() == "2:00:00"


def test_any_url_of_fsspec_may_hold_the_snapshots(publishing: Publishing) -> None:
    publishing.project.write_environment(
        "dev", manifest="snapshot", snapshots={"root": f"memory://{publishing.project.folder.name}"}
    )
    assert publishing.publish().moved == ("crm", "finance")
    publishing.change(3)
    assert publishing.publish().moved == ("crm", "finance")
    assert publishing.lookback() == "3:00:00"
    assert not publishing.folder.exists()


def test_a_name_that_leads_elsewhere_is_no_pointer(published: Publishing) -> None:
    document: Mapping[str, Any] = published.pointer()
    assert Pointer.model_validate(document).content == document["content"]
    published.pointer_file().write_text(json.dumps(document | {"content": "../../../etc/passwd"}))
    with pytest.raises(SnapshotError, match="this is no pointer to a snapshot: wrong content"):
        published.load()
