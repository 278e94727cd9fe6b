"""Decides what the columns of a source become in bronze, before the first byte is written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import pyarrow as pa

from platform_core.errors import SchemaError, Unclassified, redacted
from platform_core.lake.column_names import ColumnNames
from platform_core.lake.columns import conform, lake_schema, widened
from platform_core.operations.masking import Masking
from platform_core.specs.column_names import normalised
from platform_core.specs.ingestion import IngestionSpec, MissingColumns, NewColumns, TypeChange

_PLAIN_YAML_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_YAML_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


@dataclass(frozen=True, kw_only=True)
class Intake:
    """How the rows that a source hands over become rows of one bronze table.

    Args:
        table: for messages.
        names: both names of the columns that are taken.
        taken: their positions in what the source hands over.
        plain: their types in the lake, before masks.
        masking: masks by the columns' names in the lake.
        schema: columns of bronze, masked; those that the source lacks are null.
        added: columns that bronze does not have yet.
        ignored: the source's names of columns that are left out.
        missing: columns of bronze that the source lacks.
        widened: columns whose type in bronze becomes wider.
    """

    table: str
    names: ColumnNames
    taken: tuple[int, ...]
    plain: pa.Schema
    masking: Masking
    schema: pa.Schema
    added: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    widened: tuple[str, ...] = ()

    def conformed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """One batch of the source under the names and in the types of the lake, not yet masked: it stays in memory.

        Raises:
            SchemaError: a value does not fit its column's type.
        """
        given = pa.RecordBatch.from_arrays([batch.column(i) for i in self.taken], names=list(self.names.lake))
        try:
            return conform(given, self.plain)
        except pa.ArrowException as error:
            raise self._unfit(error) from None

    def shaped(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """One batch of the source, masked and in the columns of bronze.

        Raises:
            SchemaError: a value does not fit its column's type.
            LoadError: a mask failed.
        """
        return self.masked(self.conformed(batch))

    def masked(self, conformed: pa.RecordBatch) -> pa.RecordBatch:
        """What :meth:`conformed` gave, masked and in the columns of bronze.

        Raises:
            SchemaError: a value does not fit its column's type.
            LoadError: a mask failed.
        """
        try:
            masked = self.masking.apply(conformed)
            if masked.schema == self.schema:
                return masked
            arrays = [
                masked.column(name).cast(type_) if name in masked.schema.names else pa.nulls(masked.num_rows, type_)
                for name, type_ in zip(self.schema.names, self.schema.types, strict=True)
            ]
        except pa.ArrowException as error:
            raise self._unfit(error) from None
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _unfit(self, error: Exception) -> SchemaError:
        return SchemaError(f"{self.table}: a value does not fit its column's type in the lake\n  {redacted(error)}")


def agree(
    spec: IngestionSpec,
    given: pa.Schema,
    *,
    existing: pa.Schema | None,
    masking: Masking,
    only: tuple[str, ...] | None = None,
) -> Intake:
    """What a source's columns become, as the table's contract has it.

    Args:
        given: columns as the source hands them over.
        existing: the source's own columns of bronze; None: there is no table yet.
        masking: masks by declared column.
        only: take these columns of bronze alone, such as its key.

    Raises:
        SchemaError: names collide, a declared column is not there, a column is new, missing or retyped in a way that
            the contract refuses, or a type cannot be kept; every such column is named.
    """
    of = str(spec.ref)
    every = ColumnNames.of(given.names, of=of)
    _require_declared(spec, every, existing=existing, only=only)
    masks = {normalised(name): mask for name, mask in masking.masks.items() if every.source_of(name) is not None}
    if only is not None:
        chosen = [name for name in every.lake if name in only]
        masks = {name: mask for name, mask in masks.items() if name in only}
        existing = None if existing is None else pa.schema([item for item in existing if item.name in only])
    else:
        new = () if existing is None else tuple(name for name in every.lake if name not in existing.names)
        _refuse_new(spec, new, every)
        ignored = new if spec.contract.new_columns is NewColumns.IGNORE else ()
        chosen = [name for name in every.lake if name not in ignored]
    positions = {name: every.lake.index(name) for name in chosen}
    plain = lake_schema(
        pa.schema([pa.field(name, given.field(at).type) for name, at in positions.items()]), of=of, existing=existing
    )
    own = Masking(masking.table, {name: mask for name, mask in masks.items() if name in positions})
    masked = own.schema(plain)
    schema = masked if existing is None else _reconciled(spec, existing, masked)
    return Intake(
        table=of,
        names=ColumnNames(tuple(every.sources[at] for at in positions.values()), tuple(positions)),
        taken=tuple(positions.values()),
        plain=plain,
        masking=own,
        schema=schema,
        added=() if existing is None else tuple(name for name in schema.names if name not in existing.names),
        ignored=() if only else tuple(source for source, name in _pairs(every) if name not in positions),
        missing=() if existing is None else tuple(name for name in existing.names if name not in positions),
        widened=()
        if existing is None
        else tuple(item.name for item in existing if schema.field(item.name).type != item.type),
    )


def _pairs(names: ColumnNames) -> list[tuple[str, str]]:
    return list(zip(names.sources, names.lake, strict=True))


def _require_declared(
    spec: IngestionSpec, every: ColumnNames, *, existing: pa.Schema | None, only: tuple[str, ...] | None
) -> None:
    needed = [*spec.key]
    if only is None:
        ordering = (spec.cursor, spec.sequence_by, spec.deleted_flag)
        needed += [*spec.select, *(name for name in ordering if name is not None)]
        # A column that only something is said about may be missing where the contract allows that.
        excused = existing.names if existing is not None and spec.contract.missing is MissingColumns.NULL else []
        needed += [name for name in spec.columns if normalised(name) not in excused]
    every.require(dict.fromkeys(needed), of=f"{spec.ref}: {spec.object}", place=spec.place)


def _refuse_new(spec: IngestionSpec, new: tuple[str, ...], every: ColumnNames) -> None:
    said = {normalised(name) for name in spec.columns}
    unsaid = [every.sources[every.lake.index(name)] for name in new if name not in said]
    if spec.holds_personal_data and unsaid:
        example = "".join(f"\n    {_yaml_key(name)}: {{}}" for name in unsaid)
        raise Unclassified(
            f"{spec.ref}: {spec.object} has columns that are new: {', '.join(unsaid)}; nothing was written\n"
            "  the table holds personal data, so each must be classified first"
            + (f", at {spec.place}" if spec.place else "")
            + f":\n  columns:{example}\n"
            "  {} says that a column is not personal; otherwise write {personal: true}, or {mask: <name>}"
        )
    if new and spec.contract.new_columns is NewColumns.REFUSE:
        sources = [every.sources[every.lake.index(name)] for name in new]
        raise SchemaError(
            f"{spec.ref}: {spec.object} has columns that are new: {', '.join(sources)}; nothing was written\n"
            "  allow them with schema: {new_columns: evolve} or {new_columns: ignore}, or leave them out with 'select'"
        )


def _reconciled(spec: IngestionSpec, existing: pa.Schema, masked: pa.Schema) -> pa.Schema:
    """Bronze's columns in its order, wider where need be, then the new ones."""
    contract = spec.contract
    missing = [name for name in existing.names if name not in masked.names]
    faults: list[str] = []
    if missing and contract.missing is MissingColumns.REFUSE:
        faults.append(f"missing: {', '.join(missing)}")
    fields = []
    for item in existing:
        given = item.type if item.name in missing else masked.field(item.name).type
        kept = given if given == item.type else widened(item.type, given)
        change = f"{item.name} ({item.type} in the table, {given} now)"
        if kept is None:
            faults.append(f"changed type: {change}, of which neither holds all values of the other")
        elif given != item.type and contract.type_change is TypeChange.REFUSE:
            faults.append(f"changed type: {change}")
        fields.append(pa.field(item.name, kept or item.type))
    if faults:
        hints = ["undo the change at the source, or load into a new table"]
        if missing and contract.missing is MissingColumns.REFUSE:
            hints.append("or declare schema: {missing: null}, and rows of this load are null there")
        lines = [*faults, *hints]
        raise SchemaError(
            f"{spec.ref}: the columns of {spec.object} are not those of the table; nothing was written"
            + "".join(f"\n  {line}" for line in lines)
        )
    return pa.schema([*fields, *(item for item in masked if item.name not in existing.names)])


def _yaml_key(name: str) -> str:
    plain = _PLAIN_YAML_KEY.fullmatch(name) and name.lower() not in _YAML_WORDS
    return name if plain else json.dumps(name, ensure_ascii=False)
