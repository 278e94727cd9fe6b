"""What a notebook gets while a person develops it: inputs as of now, and a result that is only shown."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from platform_core.control.environment import load_environment
from platform_core.control.workspace import examine
from platform_core.errors import StepError
from platform_core.operations.arrow_rows import stream_of
from platform_core.operations.inputs import is_table, open_inputs, shown_name
from platform_core.operations.platform import open_platform
from platform_core.operations.step_context import LastSuccess, StepContext
from platform_core.settings import Settings, read_settings
from platform_core.specs.processing import ProcessingSpec, StepKind


@dataclass(frozen=True)
class Tried:
    """The rows that a run would write.

    Args:
        rows: all of them, in memory.
    """

    rows: pa.Table

    def __repr__(self) -> str:
        columns = ", ".join(f"{field.name} {field.type}" for field in self.rows.schema)
        return f"{self.rows.num_rows:,} rows ({columns}); nothing was written: a run of the step writes them"


class TriedStep(StepContext):
    """The step of a notebook that a person works on; everything is read as in a run, and no table is written."""

    def result(self, rows: object) -> Tried:
        """The rows that a run would write; they are looked at as a run would, and kept in memory.

        Raises:
            StepError: they are no rows.
        """
        schema, batches = stream_of(rows)
        return Tried(pa.Table.from_batches(batches, schema))

    def write_file(self, name: str, content: bytes) -> str:
        """Where a run would write the file."""
        lake = self._platform.lake
        return f"{lake.table(self._spec.ref._replace(layer='files'))}/{name} ({len(content):,} bytes, not written)"


def tried_step(name: str, *, read_batches: Mapping[str, int]) -> TriedStep:
    """The step of this name with its inputs as of now.

    Args:
        name: ``workstream.layer.name``.
        read_batches: batch by input up to which rows count as known.

    Raises:
        StepError: there is no such step, or a table that it reads does not exist yet.
        ConfigError: control files or the environment's file are wrong.
    """
    settings = read_settings()
    spec = _spec(name, settings)
    platform = open_platform(load_environment(settings), state=settings.state)
    opened = open_inputs(spec.inputs, platform=platform)
    for ref in filter(is_table, opened.missing):
        raise StepError(f"table {ref} does not exist yet\n  looked at: {platform.lake.places(ref)}\n  edp run {ref}")
    known = {ref: text for text, ref in zip(spec.depends_on, spec.inputs, strict=True)}
    batches = {
        shown_name(ref, reader, platform.lake): batch
        for ref, reader in opened.readers.items()
        if (batch := read_batches.get(known[ref], read_batches.get(str(ref)))) is not None
    }
    last = LastSuccess(started_at=dt.datetime.now(dt.UTC), read_batches=batches) if batches else None
    return TriedStep(spec, inputs=opened.readers, platform=platform, last=last)


def _spec(name: str, settings: Settings) -> ProcessingSpec:
    found = examine(settings)
    # Faults of other entries are no reason not to work on this one.
    steps = [entry.spec for tables in found.asked for entry in tables.reading.steps]
    notebooks = {str(spec.ref): spec for spec in steps if spec.kind is StepKind.NOTEBOOK}
    if name not in notebooks:
        known = ", ".join(sorted(notebooks)) or "none"
        raise StepError(f"there is no step '{name}' of kind notebook\n  known: {known}\n  looked in {settings.project}")
    return notebooks[name]
