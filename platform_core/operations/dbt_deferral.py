"""What a person's dbt database lacks for the models that are to be built, and where it comes from.

Of models above the wanted ones a published one is read from the shared lake, as a view that holds no rows; any other
lives in dbt's databases only, and so is built in the person's, too.
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
    """

    built: frozenset[str] = frozenset()
    read: tuple[Model, ...] = ()

    def as_variable(self) -> str:
        """Schema and name in dbt's database, and the table of the lake, of each model that is read; JSON."""
        return json.dumps([[*model.relation, *model.ref] for model in self.read])


def deferral(
    manifest: DbtManifest, *, wanted: Collection[str], present: Collection[tuple[str, str]], lake: Lake
) -> Deferral:
    """What the wanted models need that is not in the person's database.

    Args:
        wanted: unique ids.
        present: schema and name of what the database holds, other than views of the lake.
        lake: the person's.

    Raises:
        StorageError: the lake cannot be read.
    """
    if lake.shared is None:
        return Deferral()
    by_ref = {model.ref: model for model in manifest.models}
    built: set[str] = set()
    read: dict[TableRef, Model] = {}
    waiting = [model for model in manifest.models if model.unique_id in wanted]
    while waiting:
        for ref in waiting.pop().upstream:
            model = by_ref.get(ref)
            if model is None or model.unique_id in wanted or model.unique_id in built or ref in read:
                continue
            # What was built and then dropped from the person's lake is in the database still, and no more the newest.
            if model.relation in present and (not model.published or _is_there(lake.table(ref), lake)):
                continue
            if model.published and _is_in_lake(ref, lake):
                read[ref] = model
            else:
                built.add(model.unique_id)
                waiting.append(model)
    return Deferral(built=frozenset(built), read=tuple(read.values()))


def _is_in_lake(ref: TableRef, lake: Lake) -> bool:
    return any(uri is not None and _is_there(uri, lake) for uri in (lake.table(ref), lake.shared_table(ref)))


def _is_there(uri: str, lake: Lake) -> bool:
    return open_table(uri, storage_options=lake.storage_options) is not None
