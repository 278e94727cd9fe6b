"""Applies a batch that was landed before: one that a person approved, or one that bronze has lost."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from platform_core.errors import DeletesStopped, LoadError
from platform_core.lake.bronze import bronze_schema
from platform_core.lake.delta import batch_of, open_table
from platform_core.lake.landing import LandedBatch, batch_ids, batch_uri, read_batch
from platform_core.lake.source_state import read_state, remove_states, write_state
from platform_core.operations.applying import CHANGES, KEYS, Batch, apply_batch
from platform_core.operations.load_result import LoadResult, counted
from platform_core.operations.platform import Platform
from platform_core.operations.stopwatch import Stopwatch
from platform_core.operations.table_lease import TableLease, leased
from platform_core.plugins.interfaces import BronzeOutcome
from platform_core.specs.ingestion import IngestionSpec, LoadMode

if TYPE_CHECKING:
    from deltalake import DeltaTable

_LANDED = "landed_batch"
_LOOKED_BACK = 200
_SHOWN = 10


@dataclass(frozen=True)
class Pending:
    """An approval that no load has used.

    Args:
        landed: what may pass; None: it cannot be applied any more.
        fault: why not.
    """

    batch_id: int
    landed: LandedBatch | None
    fault: str = ""


def approve(
    spec: IngestionSpec, batch_id: int, *, platform: Platform, by: str, why: str, run_id: str | None = None
) -> LoadResult:
    """Let a load pass that was stopped for its deletes: exactly that landed batch, once.

    Where this process dies after the approval was recorded, the next load of the table applies it; calling it again
    does so too.

    Args:
        by: who approves it.
        why: the reason, for the record.

    Raises:
        LoadError: the batch was not stopped, or was approved or replaced before, or bronze was loaded since.
        StorageError: the landing is not what was stopped.
    """
    recorded = platform.loads.approval(spec.ref)
    if recorded is None or recorded.batch_id != batch_id:
        lake = platform.lake
        table = open_table(lake.table(spec.ref), storage_options=lake.storage_options)
        found = _pending(spec, batch_id, platform=platform, held=batch_of(table))
        if found.landed is None:
            raise LoadError(f"{spec.ref}: batch {batch_id} cannot be approved: {found.fault}\n  load the table again")
        platform.loads.approve(spec.ref, batch_id, by=by, why=why)
    with leased(spec, platform=platform, mode=_mode_of(spec, batch_id, platform=platform), run_id=run_id) as lease:
        pending = pending_approval(spec, platform=platform, lease=lease)
        if pending is None or pending.batch_id != batch_id or pending.landed is None:
            fault = pending.fault if pending and pending.fault else "another load used or ended the approval"
            raise LoadError(f"{spec.ref}: batch {batch_id} cannot be applied: {fault}\n  load the table again")
        result = apply_landed(spec, pending.landed, platform=platform, lease=lease, approved=True)
        lease.ticket.finish(status="succeeded", figures=result.figures(), used_approval=batch_id)
    platform.log.info("%s", result.line())
    return result


def replay(spec: IngestionSpec, batch_id: int, *, platform: Platform, run_id: str | None = None) -> LoadResult:
    """Apply a kept landing again, such as after bronze was restored from an older copy.

    A batch that bronze holds is not applied again. A full batch may follow any older one; every other batch only the
    one that it was read after, or rows in between would be lost or doubled.

    Raises:
        LoadError: the batch is older than bronze, or is not the next one; nothing was applied.
        StorageError: there is no such landing, or it is not what was landed.
    """
    landed = _landed(spec, batch_id, platform=platform)
    with leased(spec, platform=platform, mode=landed.mode, run_id=run_id) as lease:
        content = _content_of(lease.table)
        _check_order(spec, landed, held=lease.held_batch, content=content)
        if content == landed.batch_id:
            outcome = _nothing(landed, lease)
            result = _result(spec, landed, lease, outcome, Stopwatch("lease", "apply"))
        else:
            try:
                result = apply_landed(spec, landed, platform=platform, lease=lease)
            except DeletesStopped as error:
                raise LoadError(
                    f"{spec.ref}: batch {batch_id} would flag {error.deletes} of {error.current} current rows deleted; "
                    "nothing was applied\n  load the table instead: a load that is stopped can be approved"
                ) from None
        lease.ticket.finish(status="succeeded", figures=result.figures())
    platform.log.info("%s", result.line())
    return result


def pending_approval(spec: IngestionSpec, *, platform: Platform, lease: TableLease) -> Pending | None:
    """The approval that the next load of a table uses first; None where there is none."""
    approval = platform.loads.approval(spec.ref)
    if approval is None:
        return None
    return _pending(spec, approval.batch_id, platform=platform, held=lease.held_batch)


def apply_landed(
    spec: IngestionSpec, landed: LandedBatch, *, platform: Platform, lease: TableLease, approved: bool = False
) -> LoadResult:
    """Apply a landed batch under a new id, with what its source remembered of it.

    Args:
        approved: a person has let its deletions pass.

    Raises:
        DeletesStopped: too many rows would be flagged deleted.
        LoadError: the load was stopped; nothing was applied.
        StorageError: the lake refused.
    """
    lake = platform.lake
    watch = Stopwatch("lease", "apply")
    folder, options = lake.source_state(spec.ref), lake.storage_options
    before = lease.held_batch
    state = read_state(folder, landed.batch_id, storage_options=options)
    if state is None and landed.mode != LoadMode.APPEND:
        # What is read again then does no harm.
        state = read_state(folder, before, storage_options=options)
    if state is not None:
        write_state(folder, lease.batch_id, state, storage_options=options)
    batch = Batch(
        schema=landed.schema,
        files=landed.file_uris,
        keys_only=landed.mode == KEYS,
        partial=landed.mode == CHANGES,
        approved=approved,
        commit_always=state is not None,
        metadata={"rows_read": str(landed.rows), _LANDED: str(landed.batch_id)},
    )
    with watch.phase("apply"):
        outcome = apply_batch(batch, spec=spec, platform=platform, lease=lease, modified_at=dt.datetime.now(dt.UTC))
    if state is not None:
        remove_states(folder, but=lease.batch_id, storage_options=options)
    return _result(spec, landed, lease, outcome, watch)


def _pending(spec: IngestionSpec, batch_id: int, *, platform: Platform, held: int) -> Pending:
    lake = platform.lake
    uri = batch_uri(lake.landing(spec.ref), batch_id)
    landed = read_batch(uri, storage_options=lake.storage_options)
    if landed is None:
        return Pending(batch_id, None, f"nothing is landed at {uri}: it was not stopped, or a later load replaced it")
    if landed.held_batch != held:
        return Pending(
            batch_id, None, f"bronze holds batch {held} now, and batch {landed.held_batch} when that load began"
        )
    if landed.mode not in (*_modes(spec), KEYS):
        return Pending(batch_id, None, f"it was loaded {landed.mode}, and the table is declared {spec.mode} now")
    return Pending(batch_id, landed)


def _mode_of(spec: IngestionSpec, batch_id: int, *, platform: Platform) -> str:
    return _landed(spec, batch_id, platform=platform).mode


def _modes(spec: IngestionSpec) -> tuple[str, ...]:
    """Modes of the batches that may follow one another under a declaration."""
    further = {LoadMode.FULL: (CHANGES,), LoadMode.INCREMENTAL: (KEYS,)}.get(spec.mode, ())
    return (str(spec.mode), *further)


def _landed(spec: IngestionSpec, batch_id: int, *, platform: Platform) -> LandedBatch:
    lake = platform.lake
    folder = lake.landing(spec.ref)
    landed = read_batch(batch_uri(folder, batch_id), storage_options=lake.storage_options)
    if landed is None:
        kept = batch_ids(folder, storage_options=lake.storage_options)[-_SHOWN:]
        raise LoadError(
            f"{spec.ref}: batch {batch_id} is not in the landing\n"
            f"  newest batches there: {', '.join(map(str, kept)) or 'none'}\n  looked at {folder}"
        )
    return landed


def _content_of(table: DeltaTable | None) -> int:
    """The id under which the rows of bronze's newest batch were landed."""
    newest = batch_of(table)
    for commit in [] if table is None else table.history(_LOOKED_BACK):
        if commit.get("edp.batch") == str(newest):
            return int(commit.get(f"edp.{_LANDED}", newest))
    return newest


def _check_order(spec: IngestionSpec, landed: LandedBatch, *, held: int, content: int) -> None:
    of = f"{spec.ref}: batch {landed.batch_id}"
    if landed.mode not in _modes(spec):
        raise LoadError(f"{of} was loaded {landed.mode}, and the table is declared {spec.mode} now; load it instead")
    if content > landed.batch_id:
        raise LoadError(
            f"{of} is older than bronze, which holds batch {content}; nothing was applied\n"
            "  to read the source again: edp ingest reload"
        )
    follows = landed.held_batch in (held, content) or landed.batch_id == content
    if not follows and landed.mode != LoadMode.FULL:
        raise LoadError(
            f"{of} was read after batch {landed.held_batch}, but bronze holds batch {content}; nothing was applied\n"
            "  replay the batches in between first, oldest first, or read the source again: edp ingest reload"
        )


def _nothing(landed: LandedBatch, lease: TableLease) -> BronzeOutcome:
    return BronzeOutcome(
        inserted=0,
        updated=0,
        deleted=0,
        unchanged=landed.rows,
        late=0,
        version=0 if lease.table is None else lease.table.version(),
        committed=False,
        written_bytes=0,
    )


def _result(
    spec: IngestionSpec, landed: LandedBatch, lease: TableLease, outcome: BronzeOutcome, watch: Stopwatch
) -> LoadResult:
    return LoadResult(
        table=spec.ref,
        mode=spec.mode,
        batch_id=lease.batch_id,
        keys_only=landed.mode == KEYS,
        landed_batch=landed.batch_id,
        rows_read=landed.rows,
        bytes_landed=landed.bytes,
        seconds=dict(watch.seconds),
        watermark_from=None,
        watermark_to=landed.cursor_to,
        schema=bronze_schema(landed.schema),
        **counted(outcome),
    )
