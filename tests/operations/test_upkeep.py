"""Upkeep over many tables: whose turn it is, what waits, and what it says."""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pydantic import ValidationError

from platform_core.control.loads import Ticket
from platform_core.errors import StorageError
from platform_core.lake.landing import LandingWriter, batch_uri
from platform_core.lake.row_hash import HASH_FIELD, with_hash
from platform_core.operations.platform import Platform
from platform_core.operations.upkeep import UpkeepResult, keep_up
from platform_core.specs.table import TableRef
from platform_core.specs.upkeep import Operation, UpkeepSpec

RIDES = TableRef("mobility", "bronze", "rides")
RIDERS = TableRef("crm", "bronze", "riders")
LATER = dt.datetime.now(dt.UTC) + dt.timedelta(days=100)


def policy(operation: Operation, **fields: object) -> UpkeepSpec:
    return UpkeepSpec.model_validate({"workstream": "platform", "name": "policy", "operation": operation, **fields})


def make(platform: Platform, ref: TableRef, *, commits: int = 12) -> str:
    uri = platform.lake.table(ref)
    for number in range(commits):
        write_deltalake(uri, pa.table({"id": [number]}), mode="append")
    return uri


def land(platform: Platform, ref: TableRef, batch: int) -> Path:
    uri = batch_uri(platform.lake.landing(ref), batch)
    schema = pa.schema([("id", pa.int64())]).append(HASH_FIELD)
    with LandingWriter(uri, storage_options={}, schema=schema, batch_id=batch, mode="full") as writer:
        writer.write(with_hash(pa.RecordBatch.from_pydict({"id": [batch]})))
        writer.complete()
    return Path(uri)


def begin(platform: Platform, ref: TableRef) -> Ticket:
    return platform.loads.begin(
        ref,
        mode="full",
        above=0,
        run_id=None,
        wait=dt.timedelta(0),
        log=logging.getLogger("test"),
        cancelled=lambda: False,
    )


def much_later(spec: UpkeepSpec, platform: Platform, **options: object) -> UpkeepResult:
    return keep_up(spec, platform=platform, now=lambda: LATER, **options)  # type: ignore[arg-type]


def test_every_table_that_a_policy_covers_has_its_turn(platform: Platform) -> None:
    rides, riders = make(platform, RIDES), make(platform, RIDERS)
    result = keep_up(policy(Operation.COMPACT, tables=["mobility.*.*"]), platform=platform)
    assert (result.looked_at, result.merged, result.busy) == (1, 11, ())
    assert len(DeltaTable(rides).file_uris()) == 1
    assert len(DeltaTable(riders).file_uris()) == 12


def test_a_table_that_is_being_loaded_waits_for_the_next_time(platform: Platform) -> None:
    uri = make(platform, RIDES)
    with begin(platform, RIDES) as ticket:
        result = keep_up(policy(Operation.COMPACT), platform=platform)
        ticket.finish(status="succeeded", figures={})
    assert result.busy == (RIDES,)
    assert len(DeltaTable(uri).file_uris()) == 12
    assert keep_up(policy(Operation.COMPACT), platform=platform).merged == 11


def test_a_table_that_needs_nothing_takes_no_lease(platform: Platform) -> None:
    make(platform, RIDES, commits=3)
    with begin(platform, RIDES) as ticket:
        assert keep_up(policy(Operation.COMPACT), platform=platform).busy == ()
        ticket.finish(status="succeeded", figures={})


def test_one_table_that_fails_does_not_keep_the_others_from_their_turn(platform: Platform) -> None:
    make(platform, RIDERS)
    uri = Path(make(platform, RIDES))
    next(uri.glob("_delta_log/*5.json")).write_text("no JSON")
    with pytest.raises(StorageError, match="1 of 2 tables failed") as caught:
        keep_up(policy(Operation.COMPACT), platform=platform)
    assert "mobility.bronze.rides" in str(caught.value)
    assert len(DeltaTable(platform.lake.table(RIDERS)).file_uris()) == 1


def test_a16_nothing_goes_that_a_run_still_under_way_may_read(platform: Platform) -> None:
    folder = land(platform, RIDES, 1)
    spec = policy(Operation.LANDING, keep=0, retention="1 day")
    began = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
    result = much_later(spec, platform, oldest_reader=began)
    assert result.retention is not None
    assert result.retention > dt.timedelta(days=100)
    assert folder.exists()
    assert much_later(spec, platform).freed.files == 2
    assert not folder.exists()


def test_a_stopped_batch_stays_until_somebody_decides(platform: Platform) -> None:
    with begin(platform, RIDES) as ticket:
        folder = land(platform, RIDES, ticket.batch_id)
        ticket.finish(status="stopped", figures={"deletes": 90, "current": 100})
    assert much_later(policy(Operation.LANDING, keep=0), platform).freed.files == 0
    assert folder.exists()


def test_orphans_of_loads_that_never_made_a_table_are_found(platform: Platform) -> None:
    folder = land(platform, RIDES, 1)
    (folder / "_manifest.json").unlink()
    result = much_later(policy(Operation.ORPHANS), platform)
    assert result.freed.files == 1
    assert not folder.exists()


def test_vacuum_says_what_it_freed(platform: Platform) -> None:
    uri = make(platform, RIDES)
    keep_up(policy(Operation.COMPACT), platform=platform)
    result = keep_up(policy(Operation.VACUUM, retention="1 day"), platform=platform)
    assert result.freed.files == 0, "the files left the table just now"
    assert len(list(Path(uri).glob("*.parquet"))) == 13


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"operation": "vacuum", "retention": "2 hours"}, "at least 1 day"),
        ({"operation": "vacuum", "small_files": 3}, "means nothing to operation vacuum"),
        ({"operation": "compact", "retention": "2 days"}, "means nothing to operation compact"),
        ({"operation": "compact", "target_size": "lots"}, "must read like '128 MB'"),
        ({"operation": "compact", "tables": ["rides"]}, "workstream.layer.name"),
        ({"operation": "compact", "z_order": {"bronze.rides": ["id"]}}, "workstream.layer.name"),
        ({"operation": "polish"}, "compact"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        UpkeepSpec.model_validate({"workstream": "platform", "name": "policy", **fields})
