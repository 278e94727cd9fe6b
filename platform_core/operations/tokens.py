"""Which keys the tokens in the lake were made with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from platform_core.lake.delta import DeltaTableReader
from platform_core.lake.paths import Lake
from platform_core.masks.canonical import FORM_VERSIONS
from platform_core.masks.keyed_hash import KeyedHashMask
from platform_core.masks.keys import KEY_ID_LENGTH, key_id
from platform_core.plugins.interfaces import Secret
from platform_core.plugins.registry import plugin
from platform_core.specs.column_names import normalised
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.table import TableRef

_TOKEN = rf"^[0-9a-f]{{{KEY_ID_LENGTH}}}\.[0-9a-f]{{64}}$"


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Values of one column that were made with one key.

    Args:
        key_id: with which the tokens begin.
        current: values in rows that the source still has.
        gone: values in rows that it no longer has, and in earlier versions of rows: no load makes them anew.
    """

    table: TableRef
    column: str
    key_id: str
    current: int
    gone: int


def key_ids(key: Secret) -> tuple[str, ...]:
    """The ids that tokens of a key begin with: one for each version of a form that is in use."""
    return tuple(key_id(key, form_version=version) for version in sorted(set(FORM_VERSIONS.values())))


def tokens_of(spec: IngestionSpec, *, lake: Lake) -> list[Tokens]:
    """Count the tokens of a bronze table and its history, by column and key.

    Raises:
        StorageError: the lake cannot be read.
    """
    masked = [name for name, rule in spec.masks.items() if issubclass(plugin("mask", rule.mask), KeyedHashMask)]
    columns = sorted({normalised(name) for name in masked})
    found = [*_counted(spec.ref, columns, lake)]
    if spec.snapshot_history:
        found += _counted(spec.history_ref, columns, lake)
    return found


def _counted(table: TableRef, columns: list[str], lake: Lake) -> Iterator[Tokens]:
    reader = DeltaTableReader.open(lake.table(table), storage_options=lake.storage_options)
    if reader is None:
        return
    present = [name for name in columns if name in reader.schema.names]
    # A history has no such column: a version is the newest while it has no end.
    flag = next(name for name in ("_is_current", "_valid_to") if name in reader.schema.names)
    counts: dict[str, Counter[tuple[str, bool]]] = {name: Counter() for name in present}
    for batch in reader.read(columns=(*present, flag)) if present else ():
        current = batch[flag] if flag == "_is_current" else pc.is_null(batch[flag])
        for name in present:
            counts[name] += _ids(batch[name], current)
    for name, count in counts.items():
        for found in sorted({id_ for id_, _ in count}):
            yield Tokens(table=table, column=name, key_id=found, current=count[found, True], gone=count[found, False])


def _ids(values: pa.Array, current: pa.Array) -> Counter[tuple[str, bool]]:
    tokens = pc.fill_null(pc.match_substring_regex(values.cast(pa.string()), _TOKEN), False)
    rows = pa.table({"id": pc.utf8_slice_codeunits(values.cast(pa.string()), 0, KEY_ID_LENGTH), "current": current})
    groups = rows.filter(tokens).group_by(["id", "current"]).aggregate([([], "count_all")]).to_pylist()
    return Counter({(row["id"], bool(row["current"])): row["count_all"] for row in groups})
