"""What dbt's database lacks for the models that are to be built, and where it comes from.

A person's database lacks what the person never built, that of an entry which selects some models the others, and a
database that was lost everything. Of models above the wanted ones a published one is read from the lake, as a view that
holds no rows; any other lives in dbt's databases only, and so is built in this one, too.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from platform_core.lake.delta import open_table
from platform_core.lake.paths import Lake
from platform_core.operations.dbt_manifest import DbtManifest, Model
from platform_core.specs.table import TableRef


@dataclass(frozen=True, kw_only=True)
class Deferral:
    """What is to be had beside the wanted models.

    Args:
        built: unique ids of models that are built with them.
        read: models that are read from the lake.
        sources: tables of the lake that are in the database before dbt asks for them.
    """

    built: frozenset[str] = frozenset()
    read: tuple[Model, ...] = ()
    sources: tuple[TableRef, ...] = ()

    def as_variable(self) -> str | None:
        """Schema and name in dbt's database, and the table of the lake, of all that is read; JSON. None: nothing is."""
        found = [[*model.relation, *model.ref] for model in self.read]
        found += [[source.layer, source.name, *source] for source in self.sources]
        return json.dumps(found) if found else None


def needs_more(manifest: DbtManifest, wanted: Collection[str]) -> bool:
    """Whether wanted models read models that are not wanted themselves."""
    return any(set(model.parents) - set(wanted) for model in manifest.models if model.unique_id in wanted)


def deferral(
    manifest: DbtManifest, *, wanted: Collection[str], present: Collection[tuple[str, str]], lake: Lake
) -> Deferral:
    """What the wanted models need that is not in dbt's database.

    Args:
        wanted: unique ids.
        present: schema and name of what the database holds, other than views of the lake.
        lake: whose tables are read: everybody's, or a person's.

    Raises:
        StorageError: the lake cannot be read.
    """
    selected = manifest.model_by_id
    built: set[str] = set()
    read: dict[str, Model] = {}
    waiting = [model for model in manifest.models if model.unique_id in wanted]
    while waiting:
        for unique_id in waiting.pop().parents:
            if unique_id in wanted or unique_id in built or unique_id in read:
                continue
            model = manifest.any_by_id[unique_id]
            # What was built and then dropped from the person's lake is in the database still, and no more the newest.
            # What another entry of the project builds, this database may hold from a time when this one did.
            if (
                unique_id in selected
                and model.relation in present
                and (not model.published or _is_there(lake.table(model.ref), lake))
            ):
                continue
            if model.published and _is_in_lake(model.ref, lake):
                read[unique_id] = model
            else:
                built.add(unique_id)
                waiting.append(model)
    return Deferral(built=frozenset(built), read=tuple(read.values()))


def missing(manifest: DbtManifest, wanted: Collection[str], *, present: Collection[tuple[str, str]]) -> set[str]:
    """Models above the wanted ones that a database does not hold.

    Args:
        wanted: unique ids.
        present: schema and name of what it holds.
    """
    found: set[str] = set()
    waiting = [manifest.any_by_id[unique_id] for unique_id in wanted]
    while waiting:
        for unique_id in waiting.pop().parents:
            model = manifest.any_by_id[unique_id]
            if unique_id not in wanted and unique_id not in found and model.relation not in present:
                found.add(unique_id)
                waiting.append(model)
    return found


def _is_in_lake(ref: TableRef, lake: Lake) -> bool:
    return any(uri is not None and _is_there(uri, lake) for uri in (lake.table(ref), lake.shared_table(ref)))


def _is_there(uri: str, lake: Lake) -> bool:
    return open_table(uri, storage_options=lake.storage_options) is not None
