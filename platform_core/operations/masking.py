"""Which column of a load is masked by what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from platform_core.errors import LoadError, PlatformError, SchemaError, redacted
from platform_core.faults import FaultPoint, reach
from platform_core.masks.keys import derived
from platform_core.plugins.interfaces import Mask, Secret, SecretStore
from platform_core.plugins.registry import plugin
from platform_core.secrets.masking_keys import MASKING_KEY
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.table import TableRef

_OURS = "platform_core.masks."
"""Masks of this package, which change with a release alone."""


@dataclass(frozen=True)
class Masking:
    """The masks of one load, by column; they see types of the lake only.

    Args:
        digest_key: makes digests of rows that are not masked yet, which nobody can compute without it; None: there are
            to be none, because no key is at hand, or a mask may change without a release of the platform.
    """

    table: TableRef
    masks: Mapping[str, Mask]
    digest_key: bytes | None = field(default=None, repr=False)

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
        for given in schema:
            mask = self.masks.get(given.name)
            try:
                type_ = given.type if mask is None else mask.output_type(given.type)
            except ValueError as error:
                raise SchemaError(f"{self.table}: column '{given.name}': {error}") from None
            fields.append(pa.field(given.name, type_))
        return pa.schema(fields)

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Mask one batch.

        Raises:
            LoadError: a mask failed or broke its promise; the message holds no value.
        """
        reach(FaultPoint.MASK_BATCH)
        arrays = [self._masked(name, batch.column(i)) for i, name in enumerate(batch.schema.names)]
        return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)

    def _masked(self, name: str, values: pa.Array) -> pa.Array:
        mask = self.masks.get(name)
        if mask is None:
            return values
        try:
            masked = mask.apply(values)
            faithful = _is_faithful(mask, values, masked)
        except PlatformError:
            raise
        except Exception as error:  # noqa: BLE001 - any text of a mask's error may hold the value it met
            raise LoadError(f"{self.table}: the mask of column '{name}' failed\n  {redacted(error)}") from None
        if not faithful:
            raise LoadError(
                f"{self.table}: the mask of column '{name}' lost or made up values, or changed their type on the way; "
                "nothing was applied\n  run MaskSuite of platform_core.plugins.testing over it"
            )
        return masked


def _is_faithful(mask: Mask, values: pa.Array, masked: pa.Array) -> bool:
    """Whether a mask kept its promise: as many values, of the announced type, nulls where nulls were."""
    if len(masked) != len(values) or masked.type != mask.output_type(values.type):
        return False
    were, are = values.is_null(), masked.is_null()
    kept = pc.or_(pc.invert(were), are) if mask.makes_null else pc.equal(were, are)
    return bool(pc.all(kept, min_count=0).as_py())


def open_masking(spec: IngestionSpec, *, secrets: SecretStore) -> Masking:
    """The masks that a spec declares, with the workstream's key where one is needed.

    Raises:
        PluginError: a mask is not installed.
        SecretError: the masking key is missing, too short or no random one.
    """
    key: Secret | None = None
    masks: dict[str, Mask] = {}
    for column, rule in spec.masks.items():
        kind = plugin("mask", rule.mask)
        if kind.needs_key and key is None:
            key = secrets.get(f"{spec.workstream}/{MASKING_KEY}")
        masks[column] = kind(kind.Options(**rule.options), key=key if kind.needs_key else None)
    ours = all(type(mask).__module__.startswith(_OURS) for mask in masks.values())
    digest_key = None if key is None or not ours else bytes.fromhex(derived(key, b"rows"))
    return Masking(spec.ref, masks, digest_key=digest_key if masks else b"")
