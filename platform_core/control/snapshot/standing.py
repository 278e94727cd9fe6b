"""Tells whether what is published is what is applied, without changing either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from platform_core.control.snapshot.folders import open_folder
from platform_core.control.snapshot.pointer import Pointer, pointer_file, read_pointer
from platform_core.control.store.rows import AppliedState, read_locations, read_state
from platform_core.control.store.store import ControlStore
from platform_core.errors import ControlError, SecretError, SnapshotError, StorageError
from platform_core.specs.environment import EnvironmentSpec


def published_pointers(environment: EnvironmentSpec, *, state: Path, locations: Sequence[str]) -> dict[str, Pointer]:
    """What is published of locations; those of which nothing is are left out.

    Raises:
        SnapshotError: a pointer is damaged.
        StorageError: the storage refused.
    """
    folder = open_folder(environment, state=state)
    found = {}
    for location in locations:
        name = pointer_file(location)
        if (held := folder.read(name)) is not None:
            found[location] = read_pointer(
                held.content, environment=environment.name, location=location, where=folder.shown(name)
            )
    return found


def behind(environment: EnvironmentSpec, store: ControlStore, *, state: Path) -> str | None:
    """What is missing from what is published, in a line; None: nothing, or nothing was ever applied.

    It is for looking only: a storage or a database that is away is told in that line, too.
    """
    repair = f"edp publish --env {environment.name}"
    try:
        applied, locations = store.read(lambda connection: (read_state(connection), read_locations(connection)))
        if applied.serial == 0:
            return None
        pointers = published_pointers(environment, state=state, locations=locations)
    except (StorageError, SnapshotError, ControlError, SecretError) as error:
        return f"what is published cannot be read: {str(error).splitlines()[0]}; {repair}"
    return lag(applied, locations, pointers, repair=repair)


def lag(applied: AppliedState, locations: Sequence[str], pointers: Mapping[str, Pointer], *, repair: str) -> str | None:
    """As :func:`behind`, of what was read already.

    Args:
        pointers: by location; those that have none are left out.
        repair: the command that publishes.
    """
    late = [name for name in locations if name not in pointers or pointers[name].mark != applied.mark]
    if not late:
        return None
    serials = sorted({pointers[name].serial for name in late if name in pointers})
    stands = f"stands at serial {', '.join(map(str, serials))}" if serials else "holds nothing"
    return f"the published snapshot of {', '.join(late)} {stands}, applied is {applied.serial}: {repair}"
