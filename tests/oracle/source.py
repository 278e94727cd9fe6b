"""The source of the oracle's tables and the platform that loads them, as every process of a run opens them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from platform_core.control.loads import open_loads
from platform_core.engines.local import LocalEngine
from platform_core.errors import SourceError
from platform_core.lake.paths import Lake
from platform_core.operations import extract
from platform_core.operations.platform import Platform
from platform_core.plugins.interfaces import Changes, ReadRequest, Source
from platform_core.plugins.registry import plugin
from platform_core.secrets.files import FileSecrets
from platform_core.specs.base import Model
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.environment import EnvironmentSpec, LakeSpec, PluginChoice
from platform_core.specs.ingestion import LoadMode

WORKSTREAM = "crm"
_BATCH_ROWS = 7


class RowsOptions(Model):
    """No source but that of the test has any."""


class ModelSource(Source):
    """Hands out the rows of the model, a few at a time."""

    Options = RowsOptions
    tables: ClassVar[dict[str, pa.Table]] = {}
    breaks_after: ClassVar[int | None] = None
    """Batches after which the source dies."""

    def schema(self, request: ReadRequest) -> pa.Schema:
        return self.tables[request.object].schema

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        table = self._wanted(request)
        if request.cursor is not None:
            column = table[request.cursor]
            for bound, compare in ((request.since, pc.greater_equal), (request.until, pc.less_equal)):
                if bound is not None:
                    table = table.filter(compare(table[request.cursor], pa.scalar(bound, column.type)))
        if request.columns is not None:
            table = table.select(request.columns)

        return self._reader(table)

    def _reader(self, table: pa.Table) -> pa.RecordBatchReader:
        def batches() -> Iterator[pa.RecordBatch]:
            for number, batch in enumerate(table.to_batches(max_chunksize=_BATCH_ROWS)):
                if number == self.breaks_after:
                    raise SourceError("the connection was reset")
                yield batch

        return pa.RecordBatchReader.from_batches(table.schema, batches())

    def _wanted(self, request: ReadRequest) -> pa.Table:
        return self.tables[request.object]


class CountingSource(ModelSource):
    """Remembers by itself how many of its rows it has handed out."""

    keeps_state = True

    def _wanted(self, request: ReadRequest) -> pa.Table:
        self._rows = self.tables[request.object]
        return self._rows if request.mode is LoadMode.FULL else self._rows.slice(int(request.state or b"0"))

    def state(self) -> bytes:
        return str(self._rows.num_rows).encode()


class TellingSource(ModelSource):
    """Tells rows that it has handed out before from others."""

    tells_changes = True
    _state: bytes | None = None

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        self._state = json.dumps(sorted(digests(self.tables[request.object].to_pylist()))).encode()
        return super().read(request)

    def read_changes(self, request: ReadRequest) -> Changes | None:
        table, before = self.tables[request.object], set(json.loads(request.state or b"[]"))
        same = pa.array([digest(row) in before for row in table.to_pylist()], pa.bool_())
        changed, others = table.filter(pc.invert(same)), table.filter(same).select(request.key)
        self._state = request.state
        if changed.num_rows:
            self._state = json.dumps(sorted(digests(table.to_pylist()))).encode()
        return Changes(changed=self._reader(changed), unchanged=self._reader(others))

    def state(self) -> bytes | None:
        return self._state


def digest(row: dict[str, Any]) -> str:
    """What stands for a row of the source."""
    return hashlib.sha256(repr(sorted(row.items())).encode()).hexdigest()[:16]


def digests(rows: Iterable[dict[str, Any]]) -> frozenset[str]:
    """What stands for some rows of the source."""
    return frozenset(map(digest, rows))


SOURCES = {"model": ModelSource, "counting": CountingSource, "telling": TellingSource}


def known_plugin(kind: str, name: str) -> Any:
    """Any plug-in, those of the oracle among them."""
    return SOURCES.get(name) or plugin(kind, name)


def use_sources() -> None:
    """Let a process that does nothing else load from the oracle's sources."""
    extract.plugin = known_plugin  # type: ignore[attr-defined,assignment]


def connection(type_: str) -> ConnectionSpec:
    return ConnectionSpec(name=type_, workstream=WORKSTREAM, type=type_)


def platform_at(folder: Path, *, spill: str = "spill") -> Platform:
    """The platform in a folder, as one process opens it."""
    environment = EnvironmentSpec(
        name="oracle", lake=LakeSpec(root=str(folder / "lake")), secrets=PluginChoice(type="files")
    )
    secrets = FileSecrets(FileSecrets.Options(path=str(folder / "secrets")))
    log = logging.getLogger("test.oracle")
    log.setLevel(logging.CRITICAL)
    return Platform(
        environment=environment,
        lake=Lake(str(folder / "lake")),
        engine=LocalEngine(LocalEngine.Options(memory_limit="256MB", threads=1, spill=str(folder / spill))),
        secrets=secrets,
        loads=open_loads(environment.control, state=folder / "state", secrets=secrets),
        state=folder / "state",
        log=log,
    )
