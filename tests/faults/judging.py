"""What a table looks like after something failed, compared with its source and with a twin that nothing disturbed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from platform_core.control.loads import LoadRow
from platform_core.errors import StorageError
from platform_core.lake.delta import DeltaTableReader, batch_of, open_table
from platform_core.lake.landing import MANIFEST, batch_ids, batch_uri, read_batch
from platform_core.lake.watermark import watermark
from tests.faults.loading import open_platform_in
from tests.faults.scenarios import RIDERS, Scenario

Rows = Counter[tuple[Any, ...]]


@dataclass(frozen=True)
class Picture:
    """A table without what may differ from one run to the next.

    Args:
        rows: of bronze; instead of its batch's id, whether it came after the baseline.
        history: of the table of all versions, alike; empty where there is none.
        watermark: highest cursor value that bronze is said to hold.
    """

    rows: Rows
    history: Rows
    watermark: Any


@dataclass(frozen=True)
class Yard:
    """The folder of one table's platform."""

    folder: Path
    scenario: Scenario

    @property
    def bronze(self) -> Path:
        return self.folder / "lake" / "crm" / "bronze" / "riders"

    @property
    def landing(self) -> Path:
        return self.folder / "lake" / "crm" / "landing" / "riders"

    @property
    def history(self) -> Path:
        return self.folder / "lake" / "crm" / "bronze" / "riders_history"

    def picture(self, *, baseline: int) -> Picture:
        """The table as it is.

        Args:
            baseline: newest batch id of what was there before.
        """
        return Picture(_rows(self.bronze, baseline=baseline), _rows(self.history, baseline=baseline), self.watermark())

    def rows(self) -> list[dict[str, Any]]:
        """Bronze as it is."""
        return _read(self.bronze)

    def batch(self) -> int:
        """The newest batch id that was committed; 0: none."""
        return batch_of(open_table(str(self.bronze), storage_options={}))

    def watermark(self) -> Any:
        """What the next load takes for the highest cursor value in bronze."""
        table = open_table(str(self.bronze), storage_options={})
        if table is None or self.scenario.cursor is None:
            return None
        return watermark(table, self.scenario.cursor, storage_options={})

    def log(self) -> list[LoadRow]:
        """The load log, oldest first."""
        platform = open_platform_in(self.folder)
        try:
            return platform.loads.recent(table=RIDERS, limit=100)[::-1]
        finally:
            platform.loads.close()

    def commits(self) -> list[int]:
        """The batch id of every commit that carries one, oldest first."""
        if not (self.bronze / "_delta_log").exists():
            return []
        found = sorted(DeltaTable(self.bronze).history(), key=lambda commit: commit["version"])
        return [int(commit["edp.batch"]) for commit in found if "edp.batch" in commit]


@dataclass
class Faults:
    """What must not happen, counted.

    Args:
        lost: rows of the source that bronze lacks, or holds with other values.
        duplicated: rows that bronze holds once too often.
        falsely_deleted: rows of the source that bronze flags deleted.
        torn_accepted: landed batches that are not what was written, and are read as if they were.
        watermark_ahead: watermarks above what bronze holds.
        zombies: commits of a process that another had taken over from.
        untold: loads of which the log does not say how they ended.
        different: tables that are not like their twin that nothing disturbed.
        where: what was found, for a person.
    """

    lost: int = 0
    duplicated: int = 0
    falsely_deleted: int = 0
    torn_accepted: int = 0
    watermark_ahead: int = 0
    zombies: int = 0
    untold: int = 0
    different: int = 0
    where: list[str] = field(default_factory=list)

    def add(self, other: Faults, *, at: str) -> None:
        """Take over what was found elsewhere."""
        for name, value in vars(other).items():
            if name != "where":
                setattr(self, name, getattr(self, name) + value)
        if any(other.counts().values()):
            self.where.append(f"{at}: {other.counts()} {other.where}")

    def counts(self) -> dict[str, int]:
        """The numbers."""
        return {name: value for name, value in vars(self).items() if name != "where"}


def judge_wreck(yard: Yard, faults: Faults) -> None:
    """Look at a table whose load was ended in the middle, before anybody loads it again."""
    landing = str(yard.landing)
    for batch_id in batch_ids(landing, storage_options={}):
        uri = batch_uri(landing, batch_id)
        try:
            accepted = read_batch(uri, storage_options={}) is not None
        except StorageError:
            accepted = False
        if accepted and not _is_whole(Path(uri)):
            faults.torn_accepted += 1
    cursor, mark = yard.scenario.cursor, yard.watermark()
    if cursor is not None and mark is not None:
        highest = max((row[cursor] for row in yard.rows() if row[cursor] is not None), default=None)
        if highest is None or mark > highest:
            faults.watermark_ahead += 1


def judge(yard: Yard, faults: Faults, *, day: int, twin: Picture | None, baseline: int) -> None:
    """Compare a table that was loaded again with its source, and with its twin.

    Args:
        day: the last one that was loaded.
        twin: None: nothing else came to be what this table is.
        baseline: newest batch id of what was there before the disturbed load.
    """
    alive = yard.scenario.alive(day)
    rows = yard.rows()
    times = Counter(row["id"] for row in rows)
    current = {row["id"]: row["name"] for row in rows if row["_is_current"] and not row["_is_deleted"]}
    faults.duplicated += sum(number - 1 for number in times.values())
    faults.falsely_deleted += sum(1 for id_ in alive if id_ in times and id_ not in current)
    faults.lost += sum(1 for id_, name in alive.items() if id_ not in times or current.get(id_, name) != name)
    if twin is not None:
        _compare(yard.picture(baseline=baseline), twin, faults)
    if unsaid := [
        row for row in yard.log() if row.status == "running" or (row.status != "succeeded" and not row.error)
    ]:
        faults.untold += len(unsaid)
        faults.where.append(f"log: {[(row.batch_id, row.status) for row in unsaid]}")


def _compare(seen: Picture, twin: Picture, faults: Faults) -> None:
    for what in ("rows", "history"):
        mine, other = getattr(seen, what), getattr(twin, what)
        if mine != other:
            faults.different += 1
            faults.where.append(f"{what}, more: {[*(mine - other)][:3]}, less: {[*(other - mine)][:3]}")
    if seen.watermark != twin.watermark:
        faults.watermark_ahead += 1
        faults.where.append(f"watermark {seen.watermark}, {twin.watermark} at the twin")


def _is_whole(folder: Path) -> bool:
    """Whether the files are what the manifest says, found out without the code that is being judged."""
    written = json.loads((folder / MANIFEST).read_text())
    return all(
        (path := folder / file["name"]).exists()
        and path.stat().st_size == file["bytes"]
        and hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"]
        for file in written["files"]
    )


def _read(table: Path) -> list[dict[str, Any]]:
    reader = DeltaTableReader.open(str(table), storage_options={}) if table.exists() else None
    return [] if reader is None else reader.read().read_all().to_pylist()


def _rows(table: Path, *, baseline: int) -> Rows:
    return Counter(
        tuple((name, value > baseline if name == "_batch_id" else value) for name, value in sorted(row.items()))
        for row in _read(table)
    )
