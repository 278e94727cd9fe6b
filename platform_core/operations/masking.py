"""Which column of a load is masked by what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from platform_core.errors import LoadError, PlatformError, SchemaError, redacted
from platform_core.plugins.interfaces import Mask, Secret, SecretStore
from platform_core.plugins.registry import plugin
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.table import TableRef

MASKING_KEY = "masking_key"
"""A workstream's masking key is the secret ``<workstream>/masking_key``."""


@dataclass(frozen=True)
class Masking:
    """The masks of one load, by column; they see types of the lake only."""

    table: TableRef
    masks: Mapping[str, Mask]

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """The columns after masking.

        Raises:
            SchemaError: a mask is declared for a column that is not there, or cannot take its type.
        """
        if unknown := sorted(set(self.masks) - set(schema.names)):
            raise SchemaError(
                f"{self.table}: masks are declared for columns that the source does not have: {', '.join(unknown)}\n"
                f"  columns: {', '.join(schema.names)}"
            )
        fields = []
        for field in schema:
            mask = self.masks.get(field.name)
            try:
                type_ = field.type if mask is None else mask.output_type(field.type)
            except ValueError as error:
                raise SchemaError(f"{self.table}: column '{field.name}': {error}") from None
            fields.append(pa.field(field.name, type_))
        return pa.schema(fields)

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Mask one batch.

        Raises:
            LoadError: a mask failed; the message holds no value.
        """
        arrays = [self._masked(name, batch.column(i)) for i, name in enumerate(batch.schema.names)]
        return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)

    def _masked(self, name: str, values: pa.Array) -> pa.Array:
        mask = self.masks.get(name)
        if mask is None:
            return values
        try:
            masked = mask.apply(values)
        except PlatformError:
            raise
        except Exception as error:  # noqa: BLE001 - any text of a mask's error may hold the value it met
            raise LoadError(f"{self.table}: the mask of column '{name}' failed\n  {redacted(error)}") from None
        if len(masked) != len(values) or masked.null_count != values.null_count:
            raise LoadError(f"{self.table}: the mask of column '{name}' lost or made up values; nothing was applied")
        return masked


def open_masking(spec: IngestionSpec, *, secrets: SecretStore) -> Masking:
    """The masks that a spec declares, with the workstream's key where one is needed.

    Raises:
        PluginError: a mask is not installed.
        SecretError: the masking key is missing or too short.
    """
    key: Secret | None = None
    masks: dict[str, Mask] = {}
    for column, rule in spec.masks.items():
        kind = plugin("mask", rule.mask)
        if kind.needs_key and key is None:
            key = secrets.get(f"{spec.workstream}/{MASKING_KEY}")
        masks[column] = kind(kind.Options(**rule.options), key=key if kind.needs_key else None)
    return Masking(spec.ref, masks)
