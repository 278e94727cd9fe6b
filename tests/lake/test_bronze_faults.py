"""A load that fails, wherever it does, leaves the table as it was and can be repeated."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import StorageError
from platform_core.faults import FaultPoint, InjectedFault, armed, recorded
from platform_core.lake import bronze, commit
from platform_core.lake.delta import batch_of

POINTS = (
    FaultPoint.BRONZE_READ,
    FaultPoint.BRONZE_BEFORE_COMMIT,
    FaultPoint.BRONZE_AFTER_COMMIT,
    FaultPoint.HISTORY_COMMIT,
)


def people(*rows: tuple[int, str]) -> pa.Table:
    names = pa.array([row[1] for row in rows], pa.string())
    return pa.table({"id": pa.array([row[0] for row in rows], pa.int64()), "name": names})


@pytest.fixture
def kept(riders: Any, tmp_path: Path) -> Any:
    """A table with history that holds two rows."""
    riders.options["history_uri"] = str(tmp_path / "history")
    riders.load(people((1, "a"), (2, "b")))
    return riders


def versions(riders: Any) -> list[tuple[Any, ...]]:
    return [(row["id"], row["name"], row["_valid_to"] is None, row["_is_deleted"]) for row in riders.history()]


def test_a_load_with_changes_passes_every_point(kept: Any) -> None:
    for expected in (set(POINTS), {FaultPoint.BRONZE_READ}):
        with recorded() as reached:
            kept.load(people((1, "x")))
        assert set(reached) & set(POINTS) == expected


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("action", ["raise", "enospc", "eio"])
@pytest.mark.parametrize("point", POINTS)
def test_a6_a7_a_failure_at_any_point_leaves_a_whole_table_and_a_rerun_converges(
    kept: Any, point: FaultPoint, action: str, held: bool
) -> None:
    before = kept.files()
    load = kept.landed(people((1, "x"), (3, "c")), held=held)
    expected = InjectedFault if action == "raise" else StorageError
    with armed(f"{point}:{action}"), pytest.raises(expected):
        bronze.apply(load, session=kept.session)
    committed = point in (FaultPoint.BRONZE_AFTER_COMMIT, FaultPoint.HISTORY_COMMIT)
    assert (batch_of(kept.table) == 2) == committed
    if not committed:
        assert kept.files() == before
        assert [row["name"] for row in kept.rows()] == ["a", "b"]
    assert len(list(Path(kept.options["history_uri"]).glob("*.parquet"))) == 1
    again = bronze.apply(load, session=kept.session)
    assert again.committed is not committed
    assert [(row["id"], row["name"], row["_is_current"]) for row in kept.rows()] == [
        (1, "x", True),
        (2, "b", False),
        (3, "c", True),
    ]
    assert versions(kept) == [
        (1, "a", False, False),
        (1, "x", True, False),
        (2, "b", False, True),
        (3, "c", True, False),
    ]


def test_a7_a_disk_that_does_not_confirm_is_not_taken_for_success(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*paths: Path) -> None:
        raise OSError(5, "Input/output error", str(paths[0]))

    before = kept.files()
    with monkeypatch.context() as patch:
        patch.setattr(commit, "persist", refused)
        with pytest.raises(StorageError, match="Input/output error"):
            kept.load(people((1, "x")))
    assert kept.files() == before
    assert kept.load(people((1, "x"))).updated == 1


SCRIPT = """
import datetime as dt, os, sys
from pathlib import Path
import pyarrow as pa
from platform_core.errors import StorageError
from platform_core.lake import bronze
from platform_core.lake.delta import DeltaTableReader
from platform_core.lake.landing import LandingWriter
from platform_core.lake.row_hash import HASH_FIELD, with_hash
from platform_core.lake.session import open_session
from platform_core.plugins.interfaces import BronzeLoad
from platform_core.specs.ingestion import LoadMode
from platform_core.specs.table import TableRef

disk, outside = Path(sys.argv[1]), Path(sys.argv[2])
session = open_session(memory_limit="256MB", spill=outside / "spill", threads=1)

def load(batch, rows):
    schema = rows.schema.append(HASH_FIELD)
    uri = str(outside / str(batch))
    with LandingWriter(uri, storage_options={}, schema=schema, batch_id=batch, mode="full") as writer:
        for part in rows.to_batches():
            writer.write(with_hash(part))
        landed = writer.complete()
    return bronze.apply(BronzeLoad(
        table=TableRef("demo", "bronze", "riders"), uri=str(disk / "table"), storage_options={},
        files=landed.file_uris, schema=schema, batch_id=batch, mode=LoadMode.FULL, key=("id",), sequence_by=None,
        deleted_flag=None, max_delete_ratio=1.0, modified_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)), session=session)

def files():
    return sorted(str(path.relative_to(disk)) for path in disk.rglob("*") if path.is_file())

small = pa.table({"id": range(1000), "noise": [os.urandom(8).hex() for _ in range(1000)]})
load(1, small)
before = files()
large = pa.table({"id": range(8000), "noise": [os.urandom(400).hex() for _ in range(8000)]})
try:
    load(2, large)
except StorageError as error:
    assert "No space left on device" in str(error) or "write" in str(error), str(error)
    print("refused")
assert files() == before, (before, files())
reader = DeltaTableReader.open(str(disk / "table"), storage_options={})
assert (reader.version, reader.read().read_all().num_rows) == (0, 1000)
assert load(3, small.slice(1)).deleted == 1
print("went on")
"""


_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def test_a6_a_full_disk_leaves_the_table_at_its_version_and_no_byte_behind(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = tmp_path / "load.py"
    script.write_text(textwrap.dedent(SCRIPT))
    # A disk of three megabytes in a namespace of its own: it needs no root, and goes with the process.
    mounted = 'mount -t tmpfs -o size=3m tmpfs "$1" && exec "$2" "$3" "$1" "$4"'
    result = subprocess.run(
        [*_NAMESPACE, "sh", "-c", mounted, "sh", str(disk), sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stdout.split("\n")[:2]) == (0, ["refused", "went on"]), result.stderr
