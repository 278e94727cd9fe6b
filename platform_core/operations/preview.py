"""Shows what a load would bring, masked as it would be, without writing anything."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import pyarrow as pa

from platform_core.lake.bronze import source_columns
from platform_core.lake.delta import open_table, table_schema
from platform_core.operations.extract import opened
from platform_core.operations.masking import open_masking
from platform_core.operations.platform import Platform
from platform_core.operations.schema_contract import Intake, agree
from platform_core.operations.stopwatch import Stopwatch
from platform_core.specs.column_names import normalised
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.table import TableRef


@dataclass(frozen=True, kw_only=True)
class PreviewColumn:
    """One column, at the source and in the lake.

    Args:
        name: in the lake.
        source: at the source; None: the source does not have it.
        source_type: as the source hands it over.
        type: in the lake, masked; None: the column is left out.
        mask: what masks it; None: nothing.
        personal: whether it is declared to hold personal data, masked or not.
        declared: whether it is listed under ``columns``.
        change: what a load would do to bronze: ``added``, ``widened``, ``missing``, ``ignored``, or nothing.
    """

    name: str
    source: str | None
    source_type: pa.DataType | None
    type: pa.DataType | None
    mask: str | None
    personal: bool
    declared: bool
    change: str = ""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The columns and the first rows of a table, as a load would bring them."""

    table: TableRef
    columns: tuple[PreviewColumn, ...]
    rows: pa.Table


def preview(spec: IngestionSpec, *, connection: ConnectionSpec, platform: Platform, rows: int = 20) -> Preview:
    """Read a few rows of a table's source, from its beginning, and mask them.

    Nothing is written, and no lease is needed; the masking key is, where a mask needs it.

    Args:
        rows: how many.

    Raises:
        SourceError: the source cannot be read.
        SchemaError: a load would refuse the columns, and says the same.
        SecretError: a secret of the source or the masking key is missing.
    """
    lake = platform.lake
    table = open_table(lake.table(spec.ref), storage_options=lake.storage_options)
    existing = None if table is None else source_columns(table_schema(table))
    masking = open_masking(spec, secrets=platform.secrets)
    # A few rows need no readers side by side.
    alone = spec.model_copy(update={"parallel": 1, "split_by": None})
    with opened(alone, connection=connection, platform=platform) as extract:
        reader = extract.read(batch_rows=rows)
        intake = agree(alone, reader.schema, existing=existing, masking=masking)
        shaped: list[pa.RecordBatch] = []
        with closing(extract.batches(reader, watch=Stopwatch("extract"))) as batches:
            while (left := rows - sum(batch.num_rows for batch in shaped)) > 0:
                batch = next(batches, None)
                if batch is None:
                    break
                shaped.append(intake.shaped(batch.slice(0, left)))
        given = reader.schema
    return Preview(
        table=spec.ref,
        columns=(*_columns(spec, intake, given), *_ignored(spec, intake, given)),
        rows=pa.Table.from_batches(shaped, schema=intake.schema),
    )


def _columns(spec: IngestionSpec, intake: Intake, given: pa.Schema) -> list[PreviewColumn]:
    sources = dict(zip(intake.names.lake, intake.names.sources, strict=True))
    changes = {
        **dict.fromkeys(intake.added, "added"),
        **dict.fromkeys(intake.missing, "missing"),
        **dict.fromkeys(intake.widened, "widened"),
    }
    return [
        _column(spec, item.name, sources.get(item.name), given, type_=item.type, change=changes.get(item.name, ""))
        for item in intake.schema
    ]


def _ignored(spec: IngestionSpec, intake: Intake, given: pa.Schema) -> list[PreviewColumn]:
    return [_column(spec, normalised(source), source, given, type_=None, change="ignored") for source in intake.ignored]


def _column(
    spec: IngestionSpec, name: str, source: str | None, given: pa.Schema, *, type_: pa.DataType | None, change: str
) -> PreviewColumn:
    declared = next((column for key, column in spec.columns.items() if normalised(key) == name), None)
    masking = declared.masking if declared else None
    return PreviewColumn(
        name=name,
        source=source,
        source_type=None if source is None else given.field(source).type,
        type=type_,
        mask=None if masking is None else masking.mask,
        personal=declared is not None and (declared.personal or masking is not None),
        declared=declared is not None,
        change=change,
    )
